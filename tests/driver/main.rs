//! End-to-end tests: the real driver, agent, policies and SSH, on the simulator; only GitLab Runner is
//! played, by `support::attempt`. One binary, so that there is one link.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on shall panic"
)]

mod authoring;
mod cleanup;
mod config;
mod credentials;
mod guide;
mod hostile;
mod local;
mod prepare;
mod rehearsal;
mod run;
mod settings;
mod signals;
mod support;
mod tidy;
