//! The variables of a job: the server's list, the runner's around it, and their expansion.
//!
//! Order and names follow GitLab Runner (common/build.go `GetAllVariables`, common/spec/variables.go): a
//! lookup takes the last entry of a name, and so does a process's environment.

use std::fmt;

use serde::Serialize;

/// Stands for the task's private directory in values that go into a script.
///
/// Simulated tasks are processes on this machine, each under a directory that only the task knows, in
/// `POINTSMAN_TASK_ROOT`. Whoever quotes a value for a script turns the mark into that variable.
pub(super) const TASK_ROOT: &str = "\u{1}task root\u{1}";

/// Expansion stops here, so that variables that double each other cannot fill the memory.
const MAX_EXPANDED: usize = 4 << 20;

/// One entry, as the response file has it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) public: bool,
    pub(super) file: bool,
    pub(super) masked: bool,
    pub(super) raw: bool,
}

impl Entry {
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            public: true,
            file: false,
            masked: false,
            raw: false,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.masked { "***" } else { &self.value };
        write!(formatter, "{}={value}", self.key)
    }
}

/// What the runner knows of a job besides the response.
#[derive(Clone, Default)]
pub(super) struct BuildState {
    pub(super) image: Option<String>,
    pub(super) short_token: String,
    pub(super) slot: usize,
    pub(super) status: &'static str,
    pub(super) timeout_seconds: u64,
    /// Empty until `config` has answered.
    pub(super) builds_dir: String,
    /// Empty until `config` has answered.
    pub(super) project_dir: String,
}

/// The whole list, not expanded. `root` goes before the two directories: empty, or [`TASK_ROOT`].
pub(super) fn all(server: &[Entry], state: &BuildState, root: &str) -> Vec<Entry> {
    let under_root = |directory: &str| match directory {
        "" => String::new(),
        directory => format!("{root}{directory}"),
    };
    let project_dir = under_root(&state.project_dir);
    // The rehearsal's own log has no time stamps, as with this flag off.
    let mut list = vec![Entry::new("FF_TIMESTAMPS", "false")];
    list.extend(state.image.as_ref().map(|image| Entry::new("CI_JOB_IMAGE", image)));
    list.extend([
        Entry::new("CI_RUNNER_SHORT_TOKEN", &state.short_token),
        Entry::new("CI_BUILDS_DIR", under_root(&state.builds_dir)),
        Entry::new("CI_PROJECT_DIR", &project_dir),
        Entry::new("CI_CONCURRENT_ID", state.slot.to_string()),
        Entry::new("CI_CONCURRENT_PROJECT_ID", state.slot.to_string()),
        Entry::new("CI_SERVER", "yes"),
        Entry::new("CI_JOB_STATUS", state.status),
        Entry::new("CI_JOB_TIMEOUT", state.timeout_seconds.to_string()),
    ]);
    list.extend_from_slice(server);
    list.extend([
        Entry::new("CI_SHARED_ENVIRONMENT", "true"),
        Entry::new("CI_RUNNER_VERSION", env!("CARGO_PKG_VERSION")),
        Entry::new("CI_RUNNER_REVISION", "rehearsal"),
        Entry::new("CI_RUNNER_EXECUTABLE_ARCH", format!("{}/{}", std::env::consts::OS, arch())),
        Entry::new("RUNNER_TEMP_PROJECT_DIR", format!("{project_dir}.tmp")),
    ]);
    list
}

/// Go's name of this machine's architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The list with `$X` and `${X}` replaced in all values that are not raw.
pub(super) fn expanded(list: &[Entry]) -> Vec<Entry> {
    list.iter()
        .map(|entry| {
            let value = if entry.raw || entry.file {
                entry.value.clone()
            } else {
                expand(&entry.value, list, &mut vec![&entry.key])
            };
            Entry { value, ..entry.clone() }
        })
        .collect()
}

/// `text` with `$X` and `${X}` replaced.
pub(super) fn expand_text(text: &str, list: &[Entry]) -> String {
    expand(text, list, &mut Vec::new())
}

/// The value of the last entry named `key`, as it stands.
pub(super) fn lookup<'a>(list: &'a [Entry], key: &str) -> Option<&'a str> {
    list.iter().rfind(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// The server replaces references in references, the runner those that are left; both rules in one. A name
/// that leads back to itself stays as written.
fn expand<'a>(text: &str, list: &'a [Entry], within: &mut Vec<&'a str>) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, length) = name_behind(&rest[1..]);
        let whole = &rest[..1 + length];
        rest = &rest[1 + length..];
        if done.len() > MAX_EXPANDED {
            break;
        }
        match name {
            Some("$") => done.push('$'),
            Some(name) if within.contains(&name) => done.push_str(whole),
            Some(name) => {
                if let Some(entry) = list.iter().rfind(|entry| entry.key == name) {
                    if entry.file {
                        let directory = lookup(list, "RUNNER_TEMP_PROJECT_DIR").unwrap_or_default();
                        done.push_str(&format!("{directory}/{name}"));
                    } else if entry.raw {
                        done.push_str(&entry.value);
                    } else {
                        within.push(&entry.key);
                        done.push_str(&expand(&entry.value, list, within));
                        within.pop();
                    }
                }
            }
            None => done.push_str(whole),
        }
    }
    done.push_str(rest);
    done
}

/// The name behind a `$` and how many bytes it takes, as Go's `os.Expand` reads it.
fn name_behind(text: &str) -> (Option<&str>, usize) {
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.find('}') {
            Some(0) | None => (None, 0),
            Some(end) => (Some(&inner[..end]), end + 2),
        };
    }
    if text.starts_with('$') {
        return (Some("$"), 1);
    }
    let length =
        text.find(|one: char| !(one.is_ascii_alphanumeric() || one == '_')).unwrap_or(text.len());
    match length {
        0 => (None, 0),
        length => (Some(&text[..length]), length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_server_and_runner_do_together() {
        let mut list = vec![
            Entry::new("A", "1"),
            Entry::new("A", "2"),
            Entry::new("B", "b$A"),
            Entry::new("LOOP", "x$POOL"),
            Entry::new("POOL", "y$LOOP"),
            Entry::new("RUNNER_TEMP_PROJECT_DIR", "/p.tmp"),
        ];
        list.push(Entry { raw: true, ..Entry::new("RAW", "$A") });
        list.push(Entry { file: true, ..Entry::new("FILE", "content $A") });
        let check = |text: &str, expected: &str| assert_eq!(expand_text(text, &list), expected);
        check("$A ${A} $B", "2 2 b2");
        check("$GONE|${GONE}", "|");
        check("$$A $", "$A $");
        check("${} $-x ${A", "${} $-x ${A");
        check("${A:-default}|", "|");
        check("$RAW $FILE", "$A /p.tmp/FILE");
        check("$LOOP", "xy$LOOP");
        check("ü$A-ü", "ü2-ü");
        let all = expanded(&list);
        assert_eq!(lookup(&all, "B"), Some("b2"));
        assert_eq!(lookup(&all, "RAW"), Some("$A"));
        assert_eq!(lookup(&all, "FILE"), Some("content $A"));
    }

    #[test]
    fn doubling_variables_stay_bounded() {
        let list: Vec<_> = (0..40)
            .map(|n| Entry::new(format!("V{n}"), format!("$V{}$V{}", n + 1, n + 1)))
            .chain([Entry::new("V40", "x".repeat(1 << 20))])
            .collect();
        assert!(expand_text("$V30", &list).len() < 64 << 20);
    }

    #[test]
    fn the_runners_entries_stand_around_the_servers() {
        let state = BuildState {
            builds_dir: "/builds".into(),
            project_dir: "/builds/g/p".into(),
            status: "running",
            ..BuildState::default()
        };
        let server =
            [Entry::new("CI_JOB_STATUS", "mine"), Entry::new("RUNNER_TEMP_PROJECT_DIR", "mine")];
        let list = all(&server, &state, "");
        assert_eq!(lookup(&list, "CI_JOB_STATUS"), Some("mine"));
        assert_eq!(lookup(&list, "RUNNER_TEMP_PROJECT_DIR"), Some("/builds/g/p.tmp"));
        assert_eq!(lookup(&list, "CI_JOB_IMAGE"), None);
        let rooted = all(&server, &state, TASK_ROOT);
        assert_eq!(lookup(&rooted, "CI_PROJECT_DIR"), Some(&*format!("{TASK_ROOT}/builds/g/p")));
        assert_eq!(
            lookup(&all(&[], &BuildState::default(), TASK_ROOT), "CI_PROJECT_DIR"),
            Some("")
        );
    }
}
