//! The agent's behaviour, through the real binary and Debian's `ssh` client.
#![expect(clippy::unwrap_used, reason = "a failing test shall panic")]

mod fuzz;
mod lifetime;
mod refusals;
mod scripts;
mod support;
