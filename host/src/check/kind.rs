//! What can be found, how bad it is, and why it matters: one table, which the findings, the documentation and
//! the tests share.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Jobs fail, or tasks are left behind.
    Failure,
    /// Something is not what somebody meant, or will hurt on a bad day.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Failure => "failure",
            Self::Warning => "warning",
        })
    }
}

macro_rules! kinds {
    ($($name:ident, $severity:ident, $id:literal, $why:literal;)*) => {
        /// One kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $(#[doc = $why] $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in reports and in the documentation; it stays the same from release to release.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// Why it matters: one sentence.
            pub const fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }
        }
    };
}

kinds! {
    // The settings file.
    SettingsUnreadable, Failure, "settings-unreadable",
        "Every stage reads it first, so no job runs.";
    SettingsMistake, Failure, "settings-mistake",
        "A file with a mistake is refused by every stage, so no job runs.";
    StateUnusable, Failure, "state-unusable",
        "Every stage keeps its attempt there, so no job runs.";
    CaFile, Failure, "ca-file",
        "GitLab's API is not asked for a job's tags without the certificates to trust.";
    AgentMissing, Failure, "agent-missing",
        "Tasks of a local cluster are this program.";
    SizeNotOffered, Failure, "size-not-offered",
        "A job whose policies name no size gets this one, and Fargate has none so large.";
    SizeRounded, Warning, "size-rounded",
        "Fargate offers certain pairs only, so tasks are larger, and cost more, than the file says.";
    SizeOverBounds, Warning, "size-over-bounds",
        "A job of the profile whose policies name no size is refused.";
    BoundsTooSmall, Failure, "bounds-too-small",
        "Fargate has nothing so small, so every placement of the profile on it is refused.";
    BoundsOffGrid, Warning, "bounds-off-grid",
        "Fargate offers certain pairs only, so part of what the profile allows cannot be had.";
    NothingToPlace, Failure, "nothing-to-place",
        "Every placement of the profile is refused.";
    SpotNowhere, Warning, "spot-nowhere",
        "A policy that chooses Spot there is refused.";
    ClusterUnused, Warning, "cluster-unused",
        "It was meant for somebody, or it is left over and widens what the manager must be allowed to do.";
    TaskDefinitionUnused, Warning, "task-definition-unused",
        "It was meant for somebody, or it is left over and widens what the manager must be allowed to do.";
    RoleUnused, Warning, "role-unused",
        "It was meant for somebody, or it is left over and widens what the manager must be allowed to do.";
    PolicyUnused, Warning, "policy-unused",
        "A guard that is in no chain guards nothing.";
    RoleByClaim, Warning, "role-by-claim",
        "Claims are written by whoever edits the pipeline, who can so get a privileged role.";

    // Policies.
    StoreUnsafe, Failure, "store-unsafe",
        "Compiled policies are native code: the driver loads none from where others can write.";
    OtherUser, Warning, "other-user",
        "Stages run as GitLab Runner's user, and what that one may read and load is not what this one may.";
    PolicyUnreadable, Failure, "policy-unreadable",
        "Every job of the profiles that name the policy fails.";
    PolicyNotInstalled, Failure, "policy-not-installed",
        "Jobs fetch nothing, so every job of the profiles that name the policy fails.";
    PolicyDigest, Failure, "policy-digest",
        "The driver runs only the component that is pinned, so every job of the profiles that name the policy fails.";
    PolicyBroken, Failure, "policy-broken",
        "It cannot be run, so every job of the profiles that name it fails or goes without it.";
    PolicySettings, Failure, "policy-settings",
        "A policy refuses to work with settings that it does not understand, so every job of its profiles fails.";
    PolicyNotCompiled, Warning, "policy-not-compiled",
        "The first job waits while it is compiled.";
    WasiUnneeded, Warning, "wasi-unneeded",
        "The component imports nothing of WASI, and what it does not need it should not get.";
    GuardOnError, Warning, "guard-on-error",
        "A guard that fails refuses, whatever `on_error` says.";
    ChainWithoutPlacer, Failure, "chain-without-placer",
        "Nobody answers where a job of the profile shall run, so each of them fails.";
    PlacesNothing, Warning, "places-nothing",
        "A job that has the profile's tags is refused, as is every job that GitLab's API was not asked about.";

    // Rules of `by-tag`.
    RuleUnknownName, Failure, "rule-unknown-name",
        "A job that the rule matches is refused.";
    RuleOutOfBounds, Warning, "rule-out-of-bounds",
        "A job that the rule matches is refused, unless another rule says something else.";
    RuleUnreachable, Warning, "rule-unreachable",
        "GitLab gives a runner only jobs all of whose tags it has, so the rule never matches.";
    RuleShadowed, Warning, "rule-shadowed",
        "GitLab is not asked for jobs' own tags, so each job has all tags of its profile, and the rules with more of them win.";

    // GitLab Runner's file.
    RunnerConfigUnreadable, Failure, "runner-config-unreadable",
        "GitLab Runner does not start with it, or only its user may read it.";
    NoRunner, Warning, "no-runner",
        "No job comes to this driver.";
    RunnerExecutor, Failure, "runner-executor",
        "GitLab Runner calls a driver for its custom executor only.";
    StageMissing, Failure, "stage-missing",
        "The four stages need each other: without `config` nothing is decided, without `prepare` there is no task, without `cleanup` it stays until its deadline.";
    StageOtherProgram, Failure, "stage-other-program",
        "The stages find what the earlier ones have left only if all are this driver's.";
    StageArguments, Failure, "stage-arguments",
        "The stage ends with an error of the command line, so every job of the runner fails.";
    StagesDiffer, Failure, "stages-differ",
        "The stages of a job find each other's state only with the same file, state directory and profile.";
    ProgramMissing, Failure, "program-missing",
        "GitLab Runner cannot start the stage, so every job of the runner fails.";
    ProgramRelative, Warning, "program-relative",
        "The stage is looked for in the service's PATH, or in the job's temporary directory.";
    RunnerOtherSettings, Warning, "runner-other-settings",
        "This runner's profiles and policies are in another file, which was not looked at.";
    RunnerProfileUnknown, Failure, "runner-profile-unknown",
        "Every job of the runner fails.";
    RunnerProfileMissing, Failure, "runner-profile-missing",
        "The file has several profiles and nobody says which one decides, so every job of the runner fails.";
    ProfileUnused, Warning, "profile-unused",
        "No job is placed by it.";
    OverriddenByDriver, Warning, "overridden-by-driver",
        "The driver answers GitLab Runner what the task definition says, and that wins.";
    DirectoryMissing, Failure, "directory-missing",
        "GitLab Runner refuses every job without one (`the builds_dir is not configured`).";
    GracefulKillLong, Warning, "graceful-kill-long",
        "GitLab Runner waits five minutes for a cancelled job and then calls `cleanup`, while a stage may still be working.";
    GracefulKillShort, Warning, "graceful-kill-short",
        "The stage is killed before it has stopped what it started, and a task or a script is left running.";
    ShutdownShort, Warning, "shutdown-short",
        "A stage that is preparing does not hear of the runner's end, so the runner is gone before `cleanup`, and the task is left running until its deadline.";
    StageTimeoutShort, Warning, "stage-timeout-short",
        "GitLab Runner ends the stage while it still waits for what it was set to wait for.";
    ConcurrentLow, Warning, "concurrent-low",
        "GitLab Runner runs no more jobs at once than `concurrent`, whatever the runners' limits, while tasks on ECS cost this machine next to nothing.";
    RunnerUrlLoopback, Warning, "runner-url-loopback",
        "Tasks use this address to fetch the sources, artifacts and caches, and there it is the task itself.";
    GitlabUrlDiffers, Warning, "gitlab-url-differs",
        "The job's token is sent to the server of `[gitlab] url`, which does not know the runner's jobs.";
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
