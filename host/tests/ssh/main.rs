//! The SSH client against the two servers that it is for: the agent and Debian's `sshd`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing test shall panic")]

mod connecting;
mod scripts;
mod servers;
