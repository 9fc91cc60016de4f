//! The contract, checked from outside: the release-shaped binary as a black box against a real
//! PostgreSQL that this run starts, one database for each test, and a scriptable SSM.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod command_line;
mod commit;
mod delivery_ssm;
mod delivery_stdout;
mod documents;
mod ecs;
mod empty_root;
mod end_to_end;
mod environment;
mod fresh;
mod frozen;
mod limits;
mod makefile;
mod production;
mod registration;
mod regressions;
mod secrets;
mod slots;
#[path = "../support/mod.rs"]
mod support;
