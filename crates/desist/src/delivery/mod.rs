//! Destinations: what the configuration says of them, and the ways to them.

mod auth;
mod build;
mod errand;
mod http;
mod jobs;
mod lookups;
mod people;
pub mod plan;
mod reasons;
pub mod rows;
mod wire;

pub use auth::{EngineTokens, TokenStore, Unkept};
pub use build::Deliveries;
pub use http::{HttpTransport, Options};
pub use plan::{Planned, plan};
