//! The host's side of what policies import: answers, and a record of what was asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bindings::{catalog, claims, facts, log, types};
use super::inputs::Inputs;
use super::limits::Limits;
use super::wasi::Wasi;
use crate::placement::text::one_line;

/// Lines for the trace log that one policy may write in one call.
const MAX_LOG_LINES: usize = 100;
/// Characters of such a line, its fields included.
const MAX_LOG_LINE: usize = 1000;
/// Lines for the job log that one policy may write in one call.
const MAX_NOTICES: usize = 10;
/// Characters of such a line.
const MAX_NOTICE: usize = 300;
/// Names that are recorded as read; a policy that reads more has read enough to be looked at.
const MAX_READS: usize = 256;
/// Characters of a recorded name.
const MAX_READ: usize = 128;

#[cfg(test)]
thread_local! {
    /// Whether a line of a guest's on this thread meets a bug of the host, for the test that bears it.
    pub(super) static BUG: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The data of one store: one guest, one call.
pub(super) struct Guest {
    pub(super) limits: Limits,
    pub(super) reads: Reads,
    pub(super) notices: Vec<String>,
    inputs: Arc<Inputs>,
    policy: String,
    log_lines: usize,
    /// Made when it is first asked for, so that only those who are granted it pay for it.
    wasi: Option<Box<Wasi>>,
}

/// What a policy read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) facts: BTreeSet<String>,
    pub(super) claims: BTreeSet<String>,
}

impl Guest {
    pub(super) fn new(policy: &str, inputs: Arc<Inputs>, memory_mib: u32) -> Self {
        Self {
            limits: Limits::new(memory_mib),
            reads: Reads::default(),
            notices: Vec::new(),
            inputs,
            policy: policy.to_owned(),
            log_lines: 0,
            wasi: None,
        }
    }

    pub(super) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::inert(&self.policy)))
    }

    fn read_fact(&mut self, name: &str) -> &Inputs {
        record(&mut self.reads.facts, name);
        &self.inputs
    }

    fn read_claim(&mut self, name: &str) -> &Inputs {
        record(&mut self.reads.claims, name);
        &self.inputs
    }
}

fn record(reads: &mut BTreeSet<String>, name: &str) {
    if reads.len() < MAX_READS && !reads.contains(name) {
        reads.insert(one_line(name, MAX_READ));
    }
}

impl facts::Host for Guest {
    fn job_id(&mut self) -> u64 {
        self.read_fact("job-id").job_id
    }

    fn job_name(&mut self) -> String {
        self.read_fact("job-name").job_name.clone()
    }

    fn job_stage(&mut self) -> String {
        self.read_fact("job-stage").job_stage.clone()
    }

    fn job_tags(&mut self) -> facts::Tags {
        self.read_fact("job-tags").tags.clone()
    }

    fn pipeline_id(&mut self) -> u64 {
        self.read_fact("pipeline-id").pipeline_id
    }

    fn user_id(&mut self) -> u64 {
        self.read_fact("user-id").user_id
    }

    fn get_project(&mut self) -> facts::Project {
        self.read_fact("project").project.clone()
    }

    fn get_ref(&mut self) -> facts::GitRef {
        self.read_fact("ref").git_ref.clone()
    }

    fn get_profile(&mut self) -> facts::Profile {
        facts::Profile { name: self.read_fact("profile").profile.clone() }
    }

    fn timeout_seconds(&mut self) -> u32 {
        self.read_fact("timeout-seconds").timeout_seconds
    }

    fn queued_seconds(&mut self) -> u32 {
        self.read_fact("queued-seconds").queued_seconds
    }

    fn attempt(&mut self) -> u32 {
        self.read_fact("attempt").attempt
    }

    fn earlier_failures(&mut self) -> Vec<facts::EarlierFailure> {
        self.read_fact("earlier-failures").earlier_failures.clone()
    }

    fn fact(&mut self, name: String) -> Option<(String, facts::Assurance)> {
        self.read_fact(&name).facts.get(&name).cloned()
    }

    fn fact_names(&mut self) -> Vec<String> {
        self.read_fact("fact-names").facts.keys().cloned().collect()
    }
}

impl claims::Host for Guest {
    fn image(&mut self) -> Option<String> {
        self.read_claim("image").image.clone()
    }

    fn services(&mut self) -> Vec<String> {
        self.read_claim("services").services.clone()
    }

    fn variable(&mut self, name: String) -> Option<String> {
        self.read_claim(&format!("variable {name}")).variables.get(&name).cloned()
    }

    fn variable_names(&mut self) -> Vec<String> {
        self.read_claim("variable-names").variables.keys().cloned().collect()
    }
}

impl catalog::Host for Guest {
    fn clusters(&mut self) -> Vec<catalog::Cluster> {
        self.inputs.clusters.clone()
    }

    fn task_definitions(&mut self) -> Vec<catalog::TaskDefinition> {
        self.inputs.task_definitions.clone()
    }

    fn roles(&mut self) -> Vec<catalog::Role> {
        self.inputs.roles.clone()
    }

    fn get_limits(&mut self) -> catalog::Limits {
        self.inputs.limits.clone()
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        #[cfg(test)]
        assert!(!BUG.get(), "the host's own fault");
        self.log_lines += 1;
        if self.log_lines > MAX_LOG_LINES {
            return;
        }
        let mut line = one_line(&message, MAX_LOG_LINE);
        for (key, value) in &fields {
            if line.len() >= MAX_LOG_LINE {
                break;
            }
            line.push_str(&format!(" {}={:?}", one_line(key, 64), one_line(value, MAX_NOTICE)));
        }
        let line = one_line(&line, MAX_LOG_LINE);
        let policy = &self.policy;
        match level {
            log::Level::Debug => tracing::debug!(target: "pointsman::guest", policy, "{line}"),
            log::Level::Info => tracing::info!(target: "pointsman::guest", policy, "{line}"),
            log::Level::Warn => tracing::warn!(target: "pointsman::guest", policy, "{line}"),
            log::Level::Error => tracing::error!(target: "pointsman::guest", policy, "{line}"),
        }
    }

    fn notice(&mut self, message: String) {
        let line = one_line(&message, MAX_NOTICE);
        if self.notices.len() < MAX_NOTICES && !line.is_empty() {
            self.notices.push(format!("{}: {line}", self.policy));
        }
    }
}

/// Only types.
impl types::Host for Guest {}
