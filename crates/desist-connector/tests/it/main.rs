//! The format of connectors as its users see it. One binary, so that it links once.

mod fixtures;
mod judging;
mod lint;
mod properties;
mod rendering;
mod schema;
mod world;
