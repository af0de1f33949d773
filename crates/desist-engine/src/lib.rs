//! The use cases of desist over any store: the writer and its queue, intake, Campaign profiles,
//! keys, the vault and the decision index. Clock and entropy come in through [`env::Env`].

pub mod alerts;
pub mod clear;
pub mod delivery;
pub mod engine;
pub mod env;
pub mod index;
pub mod intake;
pub mod keys;
pub mod lists;
pub mod notary;
pub mod privacy;
pub mod profiles;
pub mod queue;
pub mod search;
pub mod secrets;
pub mod services;
pub mod vault;
pub mod witness;
mod writer;

pub use desist_core as core;
pub use desist_store as store;
