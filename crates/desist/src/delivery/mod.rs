//! The ways to destinations: transports of the lanes' driver.

mod auth;
mod errand;
mod http;
mod jobs;
mod lookups;
mod people;
mod reasons;
pub mod rows;
mod wire;

pub use auth::{EngineTokens, TokenStore, Unkept};
pub use http::{HttpTransport, Options};
