//! The proof: storms of kills, faults and crowds, after which every kit that anybody could have
//! read is compared with what the hub holds. README, "Proof", says how to run it at any size.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod crowds;
mod input;
mod random;
#[path = "../support/mod.rs"]
mod support;

mod checker;
mod doubt;
mod kills;
mod network;
mod relay;
mod server;
mod store;
mod storm;
