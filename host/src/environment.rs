//! The only reader of the process environment.
//!
//! Of what GitLab Runner puts there, the driver takes the five fixed variables and its own attempt id out
//! of `job_env`. `CUSTOM_ENV_*` are job variables, which a pipeline's author can set to anything: nothing
//! here or elsewhere reads them.

mod erase;

use std::ffi::OsString;
use std::path::PathBuf;

/// The variable of `job_env` by which `config` tells later stages which attempt is theirs.
pub const ATTEMPT: &str = "POINTSMAN_ATTEMPT";

/// Where a value of the environment comes from: the process, or a map in tests.
pub trait Variables {
    /// The value of `key`; `None` when unset.
    fn get(&self, key: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct Process;

impl Variables for Process {
    fn get(&self, key: &str) -> Option<OsString> {
        std::env::var_os(key)
    }
}

/// What GitLab Runner says to a stage (executors/custom/api/const.go).
#[derive(Debug, Clone)]
pub struct RunnerEnvironment {
    /// Exit code of "the job's own fault". 1 when run by hand.
    pub build_failure_exit_code: u8,
    /// Exit code of "not the job's fault". 2 when run by hand.
    pub system_failure_exit_code: u8,
    /// Takes the number of a build failure; `None` when run by hand.
    pub build_exit_code_file: Option<PathBuf>,
    /// The job; `None` when run by hand.
    pub job_response_file: Option<PathBuf>,
    /// Answered by `config` in `job_env`; `None` in `config`, and in `cleanup` after a failed `config`.
    pub attempt: Option<String>,
}

impl RunnerEnvironment {
    /// Reads `variables`. A code that is no number from 1 to 255 counts as not given.
    pub fn read(variables: &impl Variables) -> Self {
        let text = |key| variables.get(key).and_then(|value| value.into_string().ok());
        let code = |key, default| {
            text(key)
                .and_then(|value| value.parse().ok())
                .filter(|code| *code != 0)
                .unwrap_or(default)
        };
        let path = |key| variables.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            build_failure_exit_code: code("BUILD_FAILURE_EXIT_CODE", 1),
            system_failure_exit_code: code("SYSTEM_FAILURE_EXIT_CODE", 2),
            build_exit_code_file: path("BUILD_EXIT_CODE_FILE"),
            job_response_file: path("JOB_RESPONSE_FILE"),
            attempt: text(ATTEMPT).filter(|attempt| !attempt.is_empty()),
        }
    }
}

/// Takes every `AWS_*` variable out of this process, its memory included.
///
/// Policies run in `config`, and while they run the process shall hold no cloud credential. To be called before
/// anything else, while there is one thread.
pub fn drop_cloud_credentials() {
    erase::erase(b"AWS_");
}

/// Marks a step of a stage at which a test can kill the driver, as `kill -9` would: with the environment
/// variable `POINTSMAN_ABORT_AT` set to the step's name, or to its number in the order of this process.
/// Release builds do not have this.
#[cfg(debug_assertions)]
pub fn checkpoint(step: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(1);
    let number = PASSED.fetch_add(1, Ordering::Relaxed).to_string();
    let wanted = std::env::var_os("POINTSMAN_ABORT_AT");
    if wanted.is_some_and(|wanted| wanted == *step || wanted == *number) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing, in release builds.
#[cfg(not(debug_assertions))]
pub const fn checkpoint(_step: &str) {}

/// The whole environment, for the children of a rehearsal.
pub fn all() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// Where the tools of policy authors keep what they can make again: below `XDG_CACHE_HOME` or `~/.cache`.
/// `None` when neither is told.
pub fn cache_directory(variables: &impl Variables) -> Option<PathBuf> {
    let path = |key| variables.get(key).map(PathBuf::from).filter(|path| path.is_absolute());
    path("XDG_CACHE_HOME")
        .or_else(|| path("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("pointsman"))
}

/// Where Cargo keeps the sources of crates: their paths must not get into what is built.
pub fn cargo_home() -> Option<OsString> {
    let home = || Process.get("HOME").map(|home| PathBuf::from(home).join(".cargo").into());
    Process.get("CARGO_HOME").or_else(home)
}

/// Where Cargo builds, when it is told; `None` is the project's own `target`.
pub fn cargo_target_directory() -> Option<PathBuf> {
    Process.get("CARGO_TARGET_DIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The filter of the log for operators, `POINTSMAN_LOG`; `None` when unset.
pub fn log_filter(variables: &impl Variables) -> Option<String> {
    variables.get("POINTSMAN_LOG").and_then(|value| value.into_string().ok())
}

/// Whether colours are welcome where there is a terminal: not with `NO_COLOR` set to anything (its own definition,
/// no-color.org), and not on a terminal that has none.
pub fn wants_colour(variables: &impl Variables) -> bool {
    variables.get("NO_COLOR").is_none_or(|value| value.is_empty())
        && variables.get("TERM").is_none_or(|value| value != "dumb")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl Variables for HashMap<&str, &str> {
        fn get(&self, key: &str) -> Option<OsString> {
            HashMap::get(self, key).map(OsString::from)
        }
    }

    #[test]
    fn exit_codes_are_the_runners_or_the_defaults() {
        let check = |build, system, expected: (u8, u8)| {
            let variables = HashMap::from([
                ("BUILD_FAILURE_EXIT_CODE", build),
                ("SYSTEM_FAILURE_EXIT_CODE", system),
            ]);
            let read = RunnerEnvironment::read(&variables);
            assert_eq!((read.build_failure_exit_code, read.system_failure_exit_code), expected);
        };
        check("1", "2", (1, 2));
        check("21", "22", (21, 22));
        check("", "many", (1, 2));
        check("0", "256", (1, 2));
    }

    #[test]
    fn the_cache_is_where_others_keep_theirs() {
        let check = |variables: HashMap<&str, &str>, expected: Option<&str>| {
            assert_eq!(cache_directory(&variables), expected.map(PathBuf::from));
        };
        check(HashMap::from([("HOME", "/h")]), Some("/h/.cache/pointsman"));
        check(HashMap::from([("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c/pointsman"));
        check(HashMap::from([("XDG_CACHE_HOME", "relative")]), None);
    }

    #[test]
    fn no_color_means_no_colour() {
        let check = |variables: &[(&'static str, &'static str)], expected| {
            let variables: HashMap<&str, &str> = variables.iter().copied().collect();
            assert_eq!(wants_colour(&variables), expected, "{variables:?}");
        };
        check(&[], true);
        check(&[("TERM", "xterm")], true);
        check(&[("TERM", "dumb")], false);
        check(&[("NO_COLOR", "1"), ("TERM", "xterm")], false);
        check(&[("NO_COLOR", "")], true);
    }

    #[test]
    fn job_variables_are_not_looked_at() {
        let variables = HashMap::from([("CUSTOM_ENV_POINTSMAN_ATTEMPT", "1-0123456789abcdef")]);
        assert_eq!(RunnerEnvironment::read(&variables).attempt, None);
    }
}
