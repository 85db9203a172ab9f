//! Sessions: what happens on a client's connection. They decode, check and resolve, and turn frames into commands; they know
//! the handle of a shard, never the broker's state.

mod connection;
mod consume;
mod control;
mod frames;
mod judged;
mod named;
mod publish;
mod ring;
mod subscribe;
mod upload;

pub(crate) use connection::{Connections, serve};
