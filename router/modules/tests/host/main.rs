//! The host from outside: guests written by hand, one for each limit and each lie. Nothing here names wasmtime.

mod by_hand;
mod kit;

mod aggregating;
mod builtins;
mod compensating;
mod deploying;
mod hostile;
mod judging;
mod limits;
mod state;
