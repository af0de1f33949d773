//! The parts of the `desist` binary: configuration, listeners, web, command line.

pub mod cli;
pub mod config;
pub mod delivery;
pub mod limits;
pub mod net;
pub mod outgoing;
pub mod web;
