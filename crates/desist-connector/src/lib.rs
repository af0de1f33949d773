//! Connectors: the declared shape of a destination's API, as TOML. A manifest is read and checked, calls are rendered, answers
//! are judged. Nothing here does I/O, waits, reads a clock or draws a random number: whoever sends the bytes drives it.
//!
//! The format is described in `docs/connector-spec.md`.

mod answer;
pub mod declared;
mod expression;
mod fuzz;
mod instance;
pub mod limits;
mod lint;
mod manifest;
mod pipe;
mod problem;
mod settings;
mod shape;
mod shipped;
mod template;

pub use answer::{After, Answer, Existence, Found, Polled, UnitOutcome, Verdict, Verified, Whole};
#[doc(hidden)]
pub use fuzz::{fuzz_answer, fuzz_expression, fuzz_manifest};
pub use instance::{Call, CallUnit, Identifier, Instance, Origin, Person, RenderError, Row, SetupStep, Unreachable, Why};
pub use manifest::{Manifest, OpView, Pace};
pub use pipe::FUNCTIONS;
pub use problem::Problem;
pub use settings::{Approvals, Auth, Given, Secret};
pub use shape::json_schema;
pub use shipped::{SHIPPED, Shipped};
pub use template::PLACEHOLDERS;
