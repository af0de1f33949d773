//! The rules of desist as a caller sees them. One binary, so that it links once.

mod decide;
mod golden;
mod identity;
mod lanes;
mod model;
mod world;
