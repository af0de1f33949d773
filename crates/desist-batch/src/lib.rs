//! desist-batch
