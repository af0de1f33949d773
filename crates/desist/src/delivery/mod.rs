//! Destinations as this binary tells them.

pub mod plan;

pub use plan::{Planned, plan};
