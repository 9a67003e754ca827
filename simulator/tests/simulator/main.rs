//! The simulator's behaviour, through its real binary and a plain HTTP client.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test; clippy's own exception is for #[test] functions"
)]

mod capacity;
mod clusters;
mod containers;
mod ending;
mod faults;
mod idempotency;
mod lifecycle;
mod openssh;
mod scenario;
mod strictness;
mod support;
mod throttling;
