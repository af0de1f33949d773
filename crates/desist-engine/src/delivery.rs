//! Delivery: drives the lanes of all destinations.

pub mod transport;
