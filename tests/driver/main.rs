//! End-to-end tests: the real driver, agent, policies and SSH, on the simulator; only GitLab Runner is
//! played, by `support::attempt`. One binary, so that there is one link.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod accounts;
mod cleanup;
mod config;
mod credentials;
mod fallback;
mod hostile;
mod kill_walk;
mod local;
mod losses;
mod prepare;
mod rehearsal;
mod run;
mod settings;
mod signals;
mod support;
mod sweep;
mod throng;
mod tidy;
