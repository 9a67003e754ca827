//! What the tests and the benchmarks share: a house with a simulator in it, and GitLab Runner's part.
//!
//! A `mod.rs`, since the benchmarks name this file by its path and its own modules lie beside it.

pub(crate) mod attempt;
pub(crate) mod house;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod proxy;
pub(crate) mod tls;

pub(crate) use attempt::Job;
pub(crate) use house::House;
