//! The rules of desist, and nothing else: identifiers and their normal forms, purposes, acts,
//! facts, the identity graph, decisions, deadlines, and the lanes that keep destinations up to date.
//!
//! Invariant: no I/O, no async, no clock and no randomness. Time, entropy and stored state come in
//! as arguments (state through the [`graph::Records`] port), so that every rule can be tested as a
//! function and replayed from the log.

pub mod calendar;
pub mod decision;
pub mod fact;
pub mod graph;
pub mod identifier;
pub mod lane;
pub mod limits;
pub mod lookup;
pub mod mark;
pub mod purpose;
pub mod rules;
