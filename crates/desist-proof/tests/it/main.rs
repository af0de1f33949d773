//! The log's formats as another program meets them. One binary, so that it links once.

mod checkpoints;
mod deliveries;
mod exports;
mod foreign;
mod notes;
mod proofs;
mod receipts;
mod tiles;
mod witness;
mod world;
