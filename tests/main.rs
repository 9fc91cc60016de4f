//! All tests in one program, so that the compiler sees what none of them uses. `contract`: the
//! release-shaped binary as a black box against a real PostgreSQL that this run starts, one database
//! for each test, and a scriptable SSM. `prove`: storms of kills, faults and crowds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod contract;
mod prove;
mod support;
