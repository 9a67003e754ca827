//! What a policy may know of a job, and where it comes from.

use crate::bindings::lifecycle::pointsman::policy::{catalog, claims, facts, log};
use crate::{
    Assurance, Cluster, EarlierFailure, GitRef, Level, Limits, Profile, Project, Role, Tags,
    TaskDefinition,
};

/// The host's answers. Each reading is recorded, so ask only for what the decision needs.
///
/// Methods in the first group answer facts, those whose names begin with `claimed_` what the pipeline's
/// author wrote and never proof of anything, the rest what the operator offers.
pub trait Context {
    /// The server's id of the job.
    fn job_id(&self) -> u64;
    /// True, but the author chooses it.
    fn job_name(&self) -> String;
    /// True, but the author chooses it.
    fn job_stage(&self) -> String;
    /// The job's tags, or the profile's: the assurance says which.
    fn tags(&self) -> Tags;
    /// The server's id of the pipeline.
    fn pipeline_id(&self) -> u64;
    /// Who triggered the job.
    fn user_id(&self) -> u64;
    /// Prefer its id to its path.
    fn project(&self) -> Project;
    /// `protected: None` must be treated as not protected.
    fn git_ref(&self) -> GitRef;
    /// The operator's environment.
    fn profile(&self) -> Profile;
    /// Seconds that the job may take.
    fn timeout_seconds(&self) -> u32;
    /// Seconds that the job waited for a runner.
    fn queued_seconds(&self) -> u32;
    /// 1 for the first attempt.
    fn attempt(&self) -> u32;
    /// How earlier attempts ended, oldest first.
    fn earlier_failures(&self) -> Vec<EarlierFailure>;
    /// Any other vouched value.
    fn fact(&self, name: &str) -> Option<(String, Assurance)>;

    /// `image:` of the job.
    fn claimed_image(&self) -> Option<String>;
    /// `services:` of the job.
    fn claimed_services(&self) -> Vec<String>;
    /// A variable that is neither masked nor a file, unexpanded.
    fn claimed_variable(&self, name: &str) -> Option<String>;
    /// Names of the variables that [`Context::claimed_variable`] answers.
    fn claimed_variable_names(&self) -> Vec<String>;

    /// The clusters that the profile may use.
    fn clusters(&self) -> Vec<Cluster>;
    /// The task definitions that the profile may use.
    fn task_definitions(&self) -> Vec<TaskDefinition>;
    /// The roles that the profile may use.
    fn roles(&self) -> Vec<Role>;
    /// The largest sizes and the capacities that the profile may use.
    fn limits(&self) -> Limits;

    /// A line for the operator's trace log.
    fn log(&self, level: Level, message: &str);
    /// A line for the person who reads the job log.
    fn notice(&self, message: &str);
}

/// The host, asked through the component's imports. Only a component can use it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Context for Host {
    fn job_id(&self) -> u64 {
        facts::job_id()
    }
    fn job_name(&self) -> String {
        facts::job_name()
    }
    fn job_stage(&self) -> String {
        facts::job_stage()
    }
    fn tags(&self) -> Tags {
        facts::job_tags()
    }
    fn pipeline_id(&self) -> u64 {
        facts::pipeline_id()
    }
    fn user_id(&self) -> u64 {
        facts::user_id()
    }
    fn project(&self) -> Project {
        facts::get_project()
    }
    fn git_ref(&self) -> GitRef {
        facts::get_ref()
    }
    fn profile(&self) -> Profile {
        facts::get_profile()
    }
    fn timeout_seconds(&self) -> u32 {
        facts::timeout_seconds()
    }
    fn queued_seconds(&self) -> u32 {
        facts::queued_seconds()
    }
    fn attempt(&self) -> u32 {
        facts::attempt()
    }
    fn earlier_failures(&self) -> Vec<EarlierFailure> {
        facts::earlier_failures()
    }
    fn fact(&self, name: &str) -> Option<(String, Assurance)> {
        facts::fact(name)
    }
    fn claimed_image(&self) -> Option<String> {
        claims::image()
    }
    fn claimed_services(&self) -> Vec<String> {
        claims::services()
    }
    fn claimed_variable(&self, name: &str) -> Option<String> {
        claims::variable(name)
    }
    fn claimed_variable_names(&self) -> Vec<String> {
        claims::variable_names()
    }
    fn clusters(&self) -> Vec<Cluster> {
        catalog::clusters()
    }
    fn task_definitions(&self) -> Vec<TaskDefinition> {
        catalog::task_definitions()
    }
    fn roles(&self) -> Vec<Role> {
        catalog::roles()
    }
    fn limits(&self) -> Limits {
        catalog::get_limits()
    }
    fn log(&self, level: Level, message: &str) {
        log::write(level, message, &[]);
    }
    fn notice(&self, message: &str) {
        log::notice(message);
    }
}
