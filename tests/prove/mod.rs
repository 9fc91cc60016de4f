//! The proof: storms, after which every kit that anybody could have read is compared with what the
//! hub holds. doc/faults.md, "How it is proved", says how to run it at any size.

mod checker;
mod crowds;
mod doubt;
mod ends;
mod input;
mod kills;
mod network;
mod pairs;
mod power;
mod random;
mod server;
mod store;
pub mod storm;
mod strike;
