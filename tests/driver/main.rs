//! End-to-end tests: the real driver, agent, policies and SSH, on the simulator; only GitLab Runner is
//! played, by `support::attempt`. One binary, so that there is one link.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod accounts;
mod authoring;
mod believers;
mod check;
mod cleanup;
mod config;
mod credentials;
mod dist;
mod doctor;
mod doctor_launch;
mod documents;
mod examples;
mod fallback;
mod fargate;
mod gitlab;
mod gitlab_tls;
#[path = "../../host/src/policy/tests/guests.rs"]
mod guests;
mod history;
mod hostile;
mod hostile_policies;
mod iam;
mod impostor;
mod journal;
mod kill_walk;
mod languages;
mod local;
mod losses;
mod migrate;
mod policies;
mod policy_sync;
mod prepare;
mod recovery;
mod rehearsal;
mod replay;
mod run;
mod scenario;
mod schema;
mod sections;
mod settings;
mod signals;
mod slow;
mod static_agent;
mod support;
mod surviving;
mod sweep;
mod tagged_sessions;
mod throng;
mod tidy;
mod typos;
mod version;
#[path = "../../host/src/policy/tests/villains.rs"]
mod villains;
