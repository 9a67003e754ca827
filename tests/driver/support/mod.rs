//! What the tests share: a house with a simulator in it, and GitLab Runner's part.

pub(crate) mod attempt;
#[path = "../../host/src/policy/tests/guests.rs"]
pub(crate) mod guests;
pub(crate) mod house;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod output;

pub(crate) use attempt::Job;
pub(crate) use house::House;
