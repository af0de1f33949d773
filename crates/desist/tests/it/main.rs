//! End to end: the real binary, real sockets, real files, real clients.

mod support;

mod api;
mod campaign;
mod demo;
mod deploy;
mod dist;
mod durability;
mod import;
mod paging;
mod privacy;
mod tidy;
