//! What the tests share: a house with a simulator in it, and GitLab Runner's part.

pub(crate) mod attempt;
pub(crate) mod house;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod proxy;

pub(crate) use attempt::Job;
pub(crate) use house::House;
