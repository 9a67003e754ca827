//! Pointsman: a GitLab Runner custom executor driver that asks sandboxed WebAssembly policies where each
//! CI job shall run.
//!
//! The modules in reading order; ARCHITECTURE.md says who may know whom.

pub mod authoring;
pub mod backend;
pub mod check;
pub mod cli;
pub mod doctor;
pub mod environment;
pub mod failure;
pub mod gitlab;
pub mod history;
pub mod iam;
pub mod job;
pub mod output;
pub mod placement;
pub mod policy;
pub mod registry;
pub mod rehearse;
pub mod secret;
pub mod settings;
pub mod spelling;
pub mod ssh;
pub mod stages;
pub mod state;
pub mod sweep;
