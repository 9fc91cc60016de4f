//! The contract, rule by rule.

mod command_line;
mod commit;
mod delivery_ssm;
mod delivery_stdout;
mod documents;
mod doubtful_puts;
mod ecs;
mod ecs_faults;
mod empty_root;
mod end_to_end;
mod endless;
mod env_files;
mod environment;
mod frozen;
mod hand_over;
mod limits;
mod makefile;
mod poolers;
mod primary;
mod production;
mod registration;
mod regressions;
mod secrets;
mod slots;
