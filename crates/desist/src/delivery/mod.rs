//! The ways to destinations, each of which speaks one protocol.

pub mod people;
pub mod rows;
