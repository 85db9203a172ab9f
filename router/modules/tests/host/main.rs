//! The host from outside: guests written by hand, one for each limit and each lie. Nothing here names wasmtime.

mod kit;

mod deploying;
mod hostile;
mod judging;
mod limits;
mod state;
