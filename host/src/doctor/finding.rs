//! A finding: what was seen, why it matters, what to do. Its name is documented in `docs/troubleshooting.md`.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing, and no reason to act.
    Note,
    /// Jobs run, but not as they should, or not all of them.
    Warning,
    /// Jobs do not run.
    Failure,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// In words: a change of a file, or of something else.
    Do(String),
    /// A command, as it is typed.
    Run(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable and documented, such as `cluster-missing`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `cluster dev`.
    pub about: String,
    /// What was seen.
    pub what: String,
    /// Why it matters; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// In the order in which to try it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remedy: Vec<Remedy>,
}

impl Finding {
    fn new(severity: Severity, name: &'static str, about: &str, what: impl Into<String>) -> Self {
        Self {
            name,
            severity,
            about: about.to_owned(),
            what: what.into(),
            why: String::new(),
            remedy: Vec::new(),
        }
    }

    /// All is well.
    pub fn ok(name: &'static str, about: &str, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, name, about, what)
    }

    /// Worth knowing.
    pub fn note(name: &'static str, about: &str, what: impl Into<String>) -> Self {
        Self::new(Severity::Note, name, about, what)
    }

    /// Should be put right.
    pub fn warning(name: &'static str, about: &str, what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, name, about, what)
    }

    /// Must be put right.
    pub fn failure(name: &'static str, about: &str, what: impl Into<String>) -> Self {
        Self::new(Severity::Failure, name, about, what)
    }

    /// Adds why it matters.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Adds what to do, in words.
    #[must_use]
    pub fn change(mut self, change: impl Into<String>) -> Self {
        self.remedy.push(Remedy::Do(change.into()));
        self
    }

    /// Adds a command.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Self {
        self.remedy.push(Remedy::Run(command.into()));
        self
    }
}

/// `a, b and c`; `none` of nothing.
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_an_object_for_programs() {
        let finding = Finding::failure("cluster-missing", "cluster dev", "there is none")
            .why("no task can start")
            .run("aws ecs list-clusters")
            .change("correct `cluster`");
        let json = serde_json::json!({
            "name": "cluster-missing", "severity": "failure", "about": "cluster dev",
            "what": "there is none", "why": "no task can start",
            "remedy": [{ "run": "aws ecs list-clusters" }, { "do": "correct `cluster`" }],
        });
        assert_eq!(serde_json::to_value(&finding).unwrap(), json);
        let ok =
            serde_json::to_value(Finding::ok("cluster", "cluster dev", "it is ACTIVE")).unwrap();
        assert_eq!(ok.as_object().unwrap().len(), 4);
    }

    #[test]
    fn lists_read_as_sentences() {
        let names =
            |names: &[&str]| list(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&[]), "none");
        assert_eq!(names(&["a"]), "a");
        assert_eq!(names(&["a", "b", "c"]), "a, b and c");
    }
}
