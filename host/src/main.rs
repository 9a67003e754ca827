//! The `pointsman` executable.
fn main() {}
