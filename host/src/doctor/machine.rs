//! What of this machine jobs depend on: the state directory, the policies, the limits, the way to GitLab.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::finding::{Finding, list};
use crate::gitlab::{GitlabError, Reached};
use crate::policy::Store;
use crate::settings::{JobTags, Settings};
use crate::state::State;

/// What these findings are about.
pub(super) const ABOUT: &str = "this machine";

/// An attempt and its record are some kilobytes; a compiled policy is up to some megabytes.
const LITTLE_SPACE_MIB: u64 = 200;

/// A stage has about thirty files open.
const FEW_FILES: u64 = 256;

/// How the state directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SeenState {
    /// It is not there yet.
    Missing,
    /// It belongs to another user than this process's.
    Foreign {
        /// The directory's.
        owner: u32,
        /// This process's.
        user: u32,
    },
    /// It cannot be used.
    Unusable(String),
    /// It can be used.
    Usable {
        /// MiB that are left.
        free_mib: u64,
    },
}

/// Looks at the state directory, and leaves nothing of its own in it.
pub(super) fn look_at_state(directory: &Path) -> SeenState {
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return SeenState::Missing,
        Err(error) => return SeenState::Unusable(error.to_string()),
    };
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        // Files made now would be this user's and not the driver's.
        return SeenState::Foreign { owner: metadata.uid(), user };
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return SeenState::Unusable("others can write to it".to_owned());
    }
    let tried = State::open(directory).map_err(|error| words(&error)).and_then(|_| {
        tempfile::NamedTempFile::new_in(directory).map(drop).map_err(|error| error.to_string())
    });
    if let Err(error) = tried {
        return SeenState::Unusable(error);
    }
    let free = rustix::fs::statvfs(directory)
        .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    SeenState::Usable { free_mib: free >> 20 }
}

fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What is seen of the state directory, as a finding.
pub(super) fn judge_state(directory: &Path, seen: &SeenState) -> Finding {
    let path = directory.display();
    let why = "the attempts of running jobs lie there, with their keys: without it no stage works, and a stage that cannot read it cannot stop the job's task";
    match seen {
        SeenState::Missing => Finding::note("state-missing", ABOUT, format!("the state directory {path} is not there yet"))
            .why("the first job makes it, when the user of the driver may")
            .run(format!("install -d -m 0700 -o gitlab-runner {path}"))
            .change("with the user that GitLab Runner runs as in the place of `gitlab-runner`"),
        SeenState::Foreign { owner, user } => Finding::warning("state-foreign", ABOUT, format!("the state directory {path} belongs to user {owner}, and the doctor runs as user {user}"))
            .why("what it has to say of files, credentials and policies is true of another user than the driver's")
            .run(format!("sudo -u '#{owner}' pointsman doctor"))
            .change(format!("or, if the driver runs as user {user}, give it the directory: `chown -R {user} {path}`")),
        SeenState::Unusable(error) => Finding::failure("state-unusable", ABOUT, format!("the state directory {path} cannot be used: {error}"))
            .why(why)
            .run(format!("chown -R \"$(id -u)\" {path} && chmod -R go-w {path}"))
            .change("or name another one in `[state] directory`"),
        SeenState::Usable { free_mib } if *free_mib < LITTLE_SPACE_MIB => Finding::warning("state-full", ABOUT, format!("only {free_mib} MiB are left for the state directory {path}"))
            .why(why)
            .run(format!("df -h {path}; du -sh {path}/*"))
            .change("make room, or move `[state] directory` to another file system"),
        SeenState::Usable { free_mib } => Finding::ok("state", ABOUT, format!("the state directory {path} can be used, {free_mib} MiB are left")),
    }
}

/// Whether the policies of the settings are compiled, for a state directory that can be used.
pub(super) fn look_at_policies(settings: &Settings) -> Vec<Finding> {
    let store = match Store::open(&settings.state_directory.join("policies")) {
        Ok(store) => store,
        Err(error) => {
            let finding = Finding::failure(
                "policies-unsafe",
                ABOUT,
                format!("the store of compiled policies cannot be used: {}", words(&error)),
            )
            .why("no policy can be loaded, so no job can be placed")
            .run(format!(
                "rm -r {}/policies && pointsman policy sync",
                settings.state_directory.display()
            ));
            return vec![finding];
        }
    };
    let mut findings = Vec::new();
    let (mut compiled, mut missing) = (Vec::new(), Vec::new());
    for (name, policy) in &settings.policies {
        if store.is_compiled(policy) {
            compiled.push(name.clone());
        } else if let Err(error) = store.verify(name, policy) {
            findings.push(
                Finding::failure(
                    "policy-broken",
                    ABOUT,
                    format!("policy {name} is neither compiled nor to be had: {}", words(&error)),
                )
                .why("every job of a profile with this policy fails in `config`")
                .run("pointsman policy sync")
                .change(format!("or correct `component` and `sha256` of [policies.{name}]")),
            );
        } else {
            missing.push(name.clone());
        }
    }
    if !missing.is_empty() {
        findings.push(
            Finding::note(
                "policies-not-compiled",
                ABOUT,
                format!("not compiled yet: {}", list(&missing)),
            )
            .why("the first job of each waits until it is compiled")
            .run("pointsman policy sync"),
        );
    }
    if !compiled.is_empty() {
        findings.push(Finding::ok("policies", ABOUT, format!("compiled: {}", list(&compiled))));
    }
    findings
}

/// How many files this process may have open; `None` without a limit.
pub(super) fn open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// The limit on open files, as a finding.
pub(super) fn judge_open_files(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < FEW_FILES => Finding::warning("few-open-files", ABOUT, format!("a process may have {limit} files open"))
            .why("a stage needs about thirty, and GitLab Runner, whose limit it inherits, some for each job")
            .change("set `LimitNOFILE=65536` in the unit of gitlab-runner (`systemctl edit gitlab-runner`), or `ulimits` of the manager's container"),
        Some(limit) => Finding::ok("open-files", ABOUT, format!("a process may have {limit} files open")),
        None => Finding::ok("open-files", ABOUT, "there is no limit on open files"),
    }
}

/// What GitLab's answer to somebody without a token says.
pub(super) fn judge_gitlab(
    settings: Option<(&str, JobTags)>,
    reached: Option<&Result<Reached, GitlabError>>,
) -> Finding {
    const ABOUT: &str = "GitLab";
    let (Some((url, tags)), Some(reached)) = (settings, reached) else {
        return Finding::note("gitlab-off", ABOUT, "[gitlab] url is not set, so GitLab's API is not asked")
            .why("policies see the profile's tags in the place of a job's own, which GitLab Runner does not hand over")
            .change("set `[gitlab] url = \"https://gitlab.example.com\"`");
    };
    let required = tags == JobTags::Required;
    let bad = |name, what: String| {
        let (finding, why) = if required {
            (
                Finding::failure(name, ABOUT, what),
                "with `job_tags = \"required\"` every job fails in `config`",
            )
        } else {
            (
                Finding::warning(name, ABOUT, what),
                "policies see the profile's tags in the place of a job's own, after `config` has waited for an answer",
            )
        };
        finding.why(why)
    };
    let curl = format!("curl -sS -o /dev/null -w '%{{http_code}}\\n' {url}/api/v4/job");
    match reached {
        Ok(Reached { status: 401, .. }) => Finding::ok("gitlab", ABOUT, format!("{url} answers as a GitLab server does")),
        Ok(Reached { status: status @ 300..=399, .. }) => bad("gitlab-redirect", format!("{url} answers with a redirect (status {status})"))
            .change("set `[gitlab] url` to where it leads: redirects are not followed, since the job's token would go with them")
            .run(curl),
        Ok(Reached { status, .. }) => bad("gitlab-strange", format!("{url}/api/v4/job answers with status {status}; a GitLab server says 401 to somebody without a token"))
            .change("compare `[gitlab] url` with `url` in GitLab Runner's config.toml; a proxy in between may refuse the path")
            .run(curl),
        Err(error) => {
            let said = words(error);
            let is_certificate = said.contains("ertificate");
            let finding = bad("gitlab-unreachable", format!("{url} cannot be reached: {said}"));
            if is_certificate {
                finding.change("set `[gitlab] ca_file` to the certificate of the authority that signed GitLab's, in PEM").run(curl)
            } else {
                finding.change("look at `[gitlab] url`, at name resolution, and at the route to it").run(curl)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn every_state_of_the_directory_has_its_finding() {
        let path = Path::new("/var/lib/pointsman");
        for (seen, name, severity) in [
            (SeenState::Missing, "state-missing", Severity::Note),
            (SeenState::Foreign { owner: 999, user: 0 }, "state-foreign", Severity::Warning),
            (SeenState::Unusable("no".into()), "state-unusable", Severity::Failure),
            (SeenState::Usable { free_mib: 3 }, "state-full", Severity::Warning),
            (SeenState::Usable { free_mib: 9_000 }, "state", Severity::Ok),
        ] {
            let finding = judge_state(path, &seen);
            assert_eq!((finding.name, finding.severity), (name, severity), "{seen:?}");
            assert_eq!(finding.remedy.is_empty(), severity == Severity::Ok);
        }
    }

    #[test]
    fn a_directory_is_looked_at_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(look_at_state(&directory.path().join("none")), SeenState::Missing);
        assert!(!directory.path().join("none").exists());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(look_at_state(directory.path()), SeenState::Usable { .. }));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(look_at_state(directory.path()), SeenState::Unusable(_)));
    }

    #[test]
    fn every_answer_of_gitlab_has_its_finding() {
        let url = "https://gitlab.example.com";
        let reached = |status| Ok(Reached { status, date: None });
        let silent = || Err(GitlabError::NoToken);
        for (tags, answer, name, severity) in [
            (JobTags::Preferred, reached(401), "gitlab", Severity::Ok),
            (JobTags::Preferred, reached(302), "gitlab-redirect", Severity::Warning),
            (JobTags::Required, reached(404), "gitlab-strange", Severity::Failure),
            (JobTags::Required, silent(), "gitlab-unreachable", Severity::Failure),
            (JobTags::Preferred, silent(), "gitlab-unreachable", Severity::Warning),
        ] {
            let finding = judge_gitlab(Some((url, tags)), Some(&answer));
            assert_eq!((finding.name, finding.severity), (name, severity), "{answer:?}");
        }
        assert_eq!(judge_gitlab(None, None).name, "gitlab-off");
    }

    #[test]
    fn few_files_are_told() {
        assert_eq!(judge_open_files(Some(64)).severity, Severity::Warning);
        assert_eq!(judge_open_files(Some(1024)).severity, Severity::Ok);
        assert_eq!(judge_open_files(None).severity, Severity::Ok);
    }
}
