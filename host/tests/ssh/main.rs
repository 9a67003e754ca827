//! The SSH client against the two servers that it is for: the agent and Debian's `sshd`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failing test shall panic and show the server's log"
)]

mod connecting;
mod first;
mod image;
mod scripts;
mod servers;
mod surviving;
