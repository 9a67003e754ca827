//! The keywords of `.gitlab-ci.yml`: which a rehearsal plays, which it knows and does not play, and what
//! somebody who wrote something else may have meant.

use serde_yaml_ng::Mapping;

use super::Problem;
use super::tree::{problem, text_of};

/// The keywords of one place of the file.
pub(super) struct Keys {
    pub(super) played: &'static [&'static str],
    /// GitLab knows them, a rehearsal does not play them.
    pub(super) unplayed: &'static [&'static str],
}

/// Of the whole file. Every other key is a job.
pub(super) const GLOBAL: Keys = Keys {
    played: &[
        "stages",
        "default",
        "variables",
        "image",
        "services",
        "before_script",
        "after_script",
        "include",
    ],
    unplayed: &["workflow", "cache", "spec", "types"],
};

/// Of a job. `interruptible` matters only when a newer pipeline starts, and `start_in` when the job runs: both
/// are read and have no effect.
pub(super) const JOB: Keys = Keys {
    played: &[
        "stage",
        "before_script",
        "script",
        "after_script",
        "tags",
        "image",
        "services",
        "variables",
        "needs",
        "dependencies",
        "artifacts",
        "when",
        "start_in",
        "allow_failure",
        "retry",
        "timeout",
        "parallel",
        "extends",
        "interruptible",
    ],
    unplayed: &[
        "rules",
        "only",
        "except",
        "cache",
        "environment",
        "trigger",
        "release",
        "coverage",
        "secrets",
        "id_tokens",
        "identity",
        "hooks",
        "pages",
        "publish",
        "resource_group",
        "dast_configuration",
        "inherit",
        "run",
        "inputs",
        "manual_confirmation",
        "type",
    ],
};

/// Of `default:`.
pub(super) const DEFAULT: Keys = Keys {
    played: &[
        "before_script",
        "after_script",
        "tags",
        "image",
        "services",
        "artifacts",
        "retry",
        "timeout",
        "interruptible",
    ],
    unplayed: &["cache", "hooks", "id_tokens", "identity"],
};

/// Of `artifacts:`.
pub(super) const ARTIFACTS: Keys = Keys {
    played: &["paths", "exclude", "name", "expire_in", "when"],
    unplayed: &["reports", "untracked", "expose_as", "public", "access"],
};

/// Of `image:` as a mapping.
pub(super) const IMAGE: Keys =
    Keys { played: &["name", "entrypoint", "pull_policy"], unplayed: &["docker", "kubernetes"] };

/// Of an entry of `services:` as a mapping.
pub(super) const SERVICE: Keys = Keys {
    played: &["name", "alias", "entrypoint", "command", "variables", "pull_policy"],
    unplayed: &["docker", "kubernetes"],
};

/// Of an entry of `variables:` as a mapping. `description` and `options` are for the form in the web
/// interface only.
pub(super) const VARIABLE: Keys =
    Keys { played: &["value", "expand", "description", "options"], unplayed: &[] };

/// Of an entry of `needs:` as a mapping.
pub(super) const NEED: Keys = Keys {
    played: &["job", "artifacts", "optional"],
    unplayed: &["pipeline", "project", "ref", "parallel"],
};

/// Of `retry:` as a mapping.
pub(super) const RETRY: Keys = Keys { played: &["max", "when", "exit_codes"], unplayed: &[] };

/// Of `allow_failure:` as a mapping.
pub(super) const ALLOW_FAILURE: Keys = Keys { played: &["exit_codes"], unplayed: &[] };

/// Of `parallel:` as a mapping.
pub(super) const PARALLEL: Keys = Keys { played: &[], unplayed: &["matrix"] };

/// The places below a job whose keywords people write one level too high.
const BELOW_A_JOB: [(&str, &Keys); 2] = [("artifacts", &ARTIFACTS), ("retry", &RETRY)];

impl Keys {
    /// Adds a problem for each key of `mapping` that is not played here.
    pub(super) fn check(&self, mapping: &Mapping, place: &str, problems: &mut Vec<Problem>) {
        for key in mapping.keys() {
            let key = text_of(key);
            if self.played.contains(&key.as_str()) {
                continue;
            }
            let message = if self.unplayed.contains(&key.as_str()) {
                format!("rehearse does not play `{key}`")
            } else {
                format!("`{key}` is no keyword here{}", self.meant(&key))
            };
            problems.push(problem(place, message));
        }
    }

    /// `; did you mean …?`, or nothing when no keyword is near.
    pub(super) fn meant(&self, key: &str) -> String {
        if let Some(near) = self.nearest(key) {
            return format!("; did you mean `{near}`?");
        }
        for (parent, keys) in BELOW_A_JOB {
            if let Some(near) = keys.nearest(key).filter(|_| self.played.contains(&parent)) {
                return format!("; did you mean `{near}` under `{parent}`?");
            }
        }
        String::new()
    }

    fn nearest(&self, key: &str) -> Option<&'static str> {
        let plain = key.trim().to_lowercase().replace([' ', '-'], "_");
        self.played
            .iter()
            .chain(self.unplayed)
            .map(|known| (strsim::damerau_levenshtein(&plain, known), *known))
            .min()
            .filter(|(distance, known)| *distance <= known.len() / 3)
            .map(|(_, known)| known)
    }
}
