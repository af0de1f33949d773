//! The engine over a real store in a directory of its own, with a clock and a random source that the
//! tests set, and a store that fails when they want it to.

mod alerts;
mod clear;
mod delivery;
mod evidence;
mod fanout;
mod faults;
mod lists;
mod notary;
mod people;
mod policy;
mod queue;
mod random;
mod restart;
mod searched;
mod secrets;
mod services;
mod signals;
mod simulator;
mod story;
mod support;
mod time;
mod witnesses;
