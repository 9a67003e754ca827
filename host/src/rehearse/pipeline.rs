//! A `.gitlab-ci.yml` as far as a rehearsal plays it: typed, complete, no IO.
//!
//! [`parse`] does what GitLab's server does with the file, in its order (lib/gitlab/ci/config.rb):
//! merge keys, `include`, `!reference`, `extends`, defaults, `parallel`. What a rehearsal does not play is
//! an error that names the job and the keyword, since a keyword skipped in silence makes the rehearsal lie.

mod entry;
mod keys;
mod tree;
mod unfold;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a pipeline file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// In order, `.pre` and `.post` included.
    pub stages: Vec<String>,
    /// In the file's order, `parallel` already unfolded, hidden jobs left out. Never empty.
    pub jobs: Vec<Job>,
}

/// One job, defaults applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// With ` 1/3` behind it when it is one of `parallel: 3`.
    pub name: String,
    /// One of the pipeline's stages.
    pub stage: String,
    /// What a runner must have.
    pub tags: Vec<String>,
    /// Shown and sent, never pulled.
    pub image: Option<Image>,
    /// Shown and sent, never started.
    pub services: Vec<Image>,
    /// Global ones first, then the job's own; each name once.
    pub variables: Vec<Variable>,
    /// `before_script` and `script`, joined as the server joins them. Never empty.
    pub script: Vec<String>,
    /// Runs in a shell of its own, whatever became of the script.
    pub after_script: Vec<String>,
    /// `None`: the job waits for the stages before its own.
    pub needs: Option<Vec<Need>>,
    /// `None`: artifacts of all earlier stages, or of what it needs.
    pub dependencies: Option<Vec<String>>,
    /// What is kept.
    pub artifacts: Option<Artifacts>,
    /// When it runs.
    pub when: When,
    /// Which failures do not fail the pipeline.
    pub allow_failure: AllowFailure,
    /// Which failures are tried again.
    pub retry: Retry,
    /// `None` is the project's default.
    pub timeout: Option<Duration>,
    /// Index from 1 and total of `parallel`.
    pub node: Option<(u32, u32)>,
}

/// `image:` or an entry of `services:`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Not yet expanded.
    pub name: String,
    /// Services only.
    pub alias: Option<String>,
    /// `None` is the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// Services only; `None` is the image's own.
    pub command: Option<Vec<String>>,
    /// Services only.
    pub variables: Vec<Variable>,
    /// As written.
    pub pull_policy: Vec<String>,
}

/// An entry of `variables:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// A shell's name.
    pub key: String,
    /// Not yet expanded.
    pub value: String,
    /// `expand: false`
    pub raw: bool,
}

/// An entry of `needs:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// A job of this pipeline, `parallel` already unfolded.
    pub job: String,
    /// Whether its artifacts come along.
    pub artifacts: bool,
}

/// `artifacts:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// Globs, not yet expanded.
    pub paths: Vec<String>,
    /// Globs, not yet expanded.
    pub exclude: Vec<String>,
    /// Default empty: GitLab calls them `artifacts`.
    pub name: String,
    /// As written; the rehearsal's store ends with the rehearsal.
    pub expire_in: Option<String>,
    /// After which result they are kept.
    pub when: ArtifactsWhen,
}

/// `artifacts:when`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactsWhen {
    /// The default.
    OnSuccess,
    /// Only of failed jobs.
    OnFailure,
    /// Of both.
    Always,
}

impl ArtifactsWhen {
    /// GitLab's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::OnSuccess => "on_success",
            Self::OnFailure => "on_failure",
            Self::Always => "always",
        }
    }

    /// Whether artifacts of a job that ended so are kept.
    pub fn matches(self, success: bool) -> bool {
        match self {
            Self::OnSuccess => success,
            Self::OnFailure => !success,
            Self::Always => true,
        }
    }
}

/// `when:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing before it failed.
    OnSuccess,
    /// Something before it failed.
    OnFailure,
    /// In any case.
    Always,
    /// Nobody presses the button in a rehearsal: skipped.
    Manual,
    /// A rehearsal does not sit out `start_in`: skipped.
    Delayed,
    /// `when: never`
    Never,
}

/// `allow_failure:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowFailure {
    /// `false`
    No,
    /// `true`
    Yes,
    /// `exit_codes:`
    ExitCodes(BTreeSet<i32>),
}

/// `retry:`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// 0 to 2 further tries.
    pub max: u32,
    /// GitLab's failure reasons; empty means none is named.
    pub when: BTreeSet<String>,
    /// Empty means none is named.
    pub exit_codes: BTreeSet<i32>,
}

/// One mistake of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Job and keyword, such as `build-dev: artifacts: paths`.
    pub place: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// A pipeline file that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// It, or a file that it includes, could not be read.
    #[error("cannot read the pipeline file {}", .path.display())]
    Read {
        /// As given, or as included.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Not YAML.
    #[error("{} is not YAML", .path.display())]
    Yaml {
        /// As given, or as included.
        path: PathBuf,
        /// With line and column.
        source: serde_yaml_ng::Error,
    },
    /// Mistakes, and keywords that a rehearsal does not play; never empty.
    #[error("{} has {} that a rehearsal cannot play", .path.display(), count(.problems.len()))]
    Mistakes {
        /// As given.
        path: PathBuf,
        /// In the file's order.
        problems: Vec<Problem>,
    },
}

fn count(places: usize) -> String {
    match places {
        1 => "1 place".to_owned(),
        more => format!("{more} places"),
    }
}

/// Reads the pipeline file at `path`; `root` is the repository that `include: local` starts from.
///
/// # Errors
///
/// Fails when a file cannot be read or is not YAML, and with every mistake otherwise.
pub fn read(path: &Path, root: &Path) -> Result<Pipeline, PipelineError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| PipelineError::Read { path: path.to_owned(), source })?;
    parse(path, &text, &mut |included| std::fs::read_to_string(root.join(included)))
}

/// Makes a pipeline of `text`; `include` gives the text of a `local` file, by its path without the leading
/// slash. `path` is for messages.
///
/// # Errors
///
/// Fails when a file cannot be read or is not YAML, and with every mistake otherwise.
pub fn parse(
    path: &Path,
    text: &str,
    include: &mut dyn FnMut(&str) -> std::io::Result<String>,
) -> Result<Pipeline, PipelineError> {
    let mut problems = Vec::new();
    let document = tree::load(path, text, include, &mut problems)?;
    let pipeline = entry::pipeline(&document, &mut problems);
    match pipeline {
        Some(pipeline) if problems.is_empty() => Ok(pipeline),
        _ => Err(PipelineError::Mistakes { path: path.to_owned(), problems }),
    }
}
