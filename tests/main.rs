//! All tests in one program, so that the compiler sees what none of them uses. `contract`: the
//! release-shaped binary as a black box against a real PostgreSQL that this run starts, one database
//! for each test, and a scriptable SSM. `prove`: storms of kills, faults and crowds. `model`:
//! every order of events in a model of the hand-over, and the binary held to what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod contract;
mod model;
mod prove;
mod support;
