//! What a policy may know of a job, and where it comes from.

use crate::bindings::lifecycle::pointsman::policy::{catalog, claims, facts, log};
use crate::{
    Assurance, Claim, Cluster, EarlierFailure, Fact, GitRef, Level, Limits, Profile, Project, Role,
    Tags, TaskDefinition,
};

/// The host's answers. Each reading is recorded, so ask only for what the decision needs.
///
/// Methods in the first group answer a [`Fact`], those whose names begin with `claimed_` a [`Claim`], what the
/// pipeline's author wrote and never proof of anything; the rest is what the operator offers.
pub trait Context {
    /// The server's id of the job.
    fn job_id(&self) -> Fact<u64>;
    /// True, but the author chooses it.
    fn job_name(&self) -> Fact<String>;
    /// True, but the author chooses it.
    fn job_stage(&self) -> Fact<String>;
    /// The job's tags, or the profile's: the assurance says which.
    fn tags(&self) -> Fact<Tags>;
    /// The server's id of the pipeline.
    fn pipeline_id(&self) -> Fact<u64>;
    /// Who triggered the job.
    fn user_id(&self) -> Fact<u64>;
    /// Prefer its id to its path.
    fn project(&self) -> Fact<Project>;
    /// `protected: None` must be treated as not protected.
    fn git_ref(&self) -> Fact<GitRef>;
    /// The operator's environment.
    fn profile(&self) -> Fact<Profile>;
    /// Seconds that the job may take.
    fn timeout_seconds(&self) -> Fact<u32>;
    /// Seconds that the job waited for a runner.
    fn queued_seconds(&self) -> Fact<u32>;
    /// 1 for the first attempt.
    fn attempt(&self) -> Fact<u32>;
    /// How earlier attempts ended, oldest first.
    fn earlier_failures(&self) -> Fact<Vec<EarlierFailure>>;
    /// Any other vouched value.
    fn fact(&self, name: &str) -> Fact<Option<(String, Assurance)>>;

    /// `image:` of the job.
    fn claimed_image(&self) -> Claim<Option<String>>;
    /// `services:` of the job.
    fn claimed_services(&self) -> Claim<Vec<String>>;
    /// A variable that is neither masked nor a file, unexpanded.
    fn claimed_variable(&self, name: &str) -> Claim<Option<String>>;
    /// Names of the variables that [`Context::claimed_variable`] answers.
    fn claimed_variable_names(&self) -> Claim<Vec<String>>;

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
    fn job_id(&self) -> Fact<u64> {
        Fact::new(facts::job_id())
    }
    fn job_name(&self) -> Fact<String> {
        Fact::new(facts::job_name())
    }
    fn job_stage(&self) -> Fact<String> {
        Fact::new(facts::job_stage())
    }
    fn tags(&self) -> Fact<Tags> {
        Fact::new(facts::job_tags())
    }
    fn pipeline_id(&self) -> Fact<u64> {
        Fact::new(facts::pipeline_id())
    }
    fn user_id(&self) -> Fact<u64> {
        Fact::new(facts::user_id())
    }
    fn project(&self) -> Fact<Project> {
        Fact::new(facts::get_project())
    }
    fn git_ref(&self) -> Fact<GitRef> {
        Fact::new(facts::get_ref())
    }
    fn profile(&self) -> Fact<Profile> {
        Fact::new(facts::get_profile())
    }
    fn timeout_seconds(&self) -> Fact<u32> {
        Fact::new(facts::timeout_seconds())
    }
    fn queued_seconds(&self) -> Fact<u32> {
        Fact::new(facts::queued_seconds())
    }
    fn attempt(&self) -> Fact<u32> {
        Fact::new(facts::attempt())
    }
    fn earlier_failures(&self) -> Fact<Vec<EarlierFailure>> {
        Fact::new(facts::earlier_failures())
    }
    fn fact(&self, name: &str) -> Fact<Option<(String, Assurance)>> {
        Fact::new(facts::fact(name))
    }
    fn claimed_image(&self) -> Claim<Option<String>> {
        Claim::new(claims::image())
    }
    fn claimed_services(&self) -> Claim<Vec<String>> {
        Claim::new(claims::services())
    }
    fn claimed_variable(&self, name: &str) -> Claim<Option<String>> {
        Claim::new(claims::variable(name))
    }
    fn claimed_variable_names(&self) -> Claim<Vec<String>> {
        Claim::new(claims::variable_names())
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
