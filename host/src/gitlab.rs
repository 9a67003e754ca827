//! What the GitLab server says of a job when it is asked with the job's own token: `GET /api/v4/job`.
//!
//! The payload that GitLab Runner gets has no tags; this answer has (docs.gitlab.com/api/jobs, "Get job token's
//! job"). One small blocking request before the decision: `ureq` needs no runtime, which `config` has none of.
//!
//! The token goes to the one host that the settings name: redirects are refused, not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::secret::Secret;
use crate::settings::Gitlab;

/// Bytes of an answer: GitLab's have about four thousand.
const MAX_ANSWER: u64 = 256 * 1024;
/// Bytes of one value that becomes a fact.
const MAX_VALUE: usize = 1024;
/// Between a failed request and the one retry.
const PAUSE: Duration = Duration::from_millis(300);

/// What the server vouches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The job's tags.
    pub tags: BTreeSet<String>,
    /// By dotted name, such as `gitlab.pipeline.source`.
    pub facts: BTreeMap<String, String>,
}

/// Why there is no answer. The texts have no part of the answer: it may be anybody's page.
#[derive(Debug, thiserror::Error)]
pub enum GitlabError {
    /// No connection, no answer in time, or no valid certificate.
    #[error("cannot ask {url}")]
    Transport {
        /// As asked.
        url: String,
        /// The reason.
        source: Box<ureq::Error>,
    },
    /// Another status than 200.
    #[error("{url} answered with status {status}{}", advice(*.status))]
    Status {
        /// As asked.
        url: String,
        /// HTTP's.
        status: u16,
    },
    /// The answer is no job.
    #[error("{url} answered what is no job of GitLab's API: {reason}")]
    NoJob {
        /// As asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates to trust.
    #[error("cannot read the certificates of {}", .path.display())]
    Certificates {
        /// `ca_file`
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The job's payload has no token.
    #[error("the job has no token to ask GitLab with")]
    NoToken,
}

fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => ": a redirect, which is not followed, since the job's token would go with it",
        401 | 403 => ": it does not take the job's token",
        404 => ": `url` of [gitlab] may not be a GitLab server's",
        _ => "",
    }
}

impl GitlabError {
    /// Whether the server was reached and not believed.
    pub fn refuses_certificate(&self) -> bool {
        // `rustls::Error` lies inside an `io::Error`, which does not give it out as its source.
        matches!(self, Self::Transport { source, .. } if source.to_string().contains("invalid peer certificate"))
    }

    /// Whether another try may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } => !self.refuses_certificate(),
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::NoJob { .. } | Self::Certificates { .. } | Self::NoToken => false,
        }
    }
}

/// Asks for the job `job_id`, whose token `token` is, with one retry.
///
/// # Errors
///
/// Returns why there is no answer, after at most twice the timeout and a pause.
pub fn job(settings: &Gitlab, token: &Secret<String>, job_id: u64) -> Result<Answer, GitlabError> {
    if token.reveal().is_empty() {
        return Err(GitlabError::NoToken);
    }
    let agent = agent(settings)?;
    let url = format!("{}/api/v4/job", settings.url);
    match ask(&agent, &url, token, job_id) {
        Err(error) if error.may_pass() => {
            tracing::info!(error = &error as &dyn std::error::Error, "asking GitLab again");
            std::thread::sleep(PAUSE);
            ask(&agent, &url, token, job_id)
        }
        answer => answer,
    }
}

/// What the server says to somebody without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// HTTP's status: 401 of a GitLab server.
    pub status: u16,
    /// The header of this name.
    pub date: Option<String>,
}

/// Asks the server what it would be asked in a job, without a token: is it there, and is it a GitLab server?
///
/// # Errors
///
/// Fails without an answer.
pub fn reach(settings: &Gitlab) -> Result<Reached, GitlabError> {
    let url = format!("{}/api/v4/job", settings.url);
    let response = agent(settings)?
        .get(&url)
        .header("Accept", "application/json")
        .call()
        .map_err(|source| GitlabError::Transport { url, source: Box::new(source) })?;
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    Ok(Reached { status: response.status().as_u16(), date: date.map(str::to_owned) })
}

fn agent(settings: &Gitlab) -> Result<Agent, GitlabError> {
    let config = Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")));
    // Reading the system's certificates takes longer than a whole decision.
    let config = if settings.url.starts_with("https:") {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        config.tls_config(
            TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(provider))
                .root_certs(roots(settings)?)
                .build(),
        )
    } else {
        config
    };
    Ok(config.build().new_agent())
}

fn roots(settings: &Gitlab) -> Result<RootCerts, GitlabError> {
    let Some(path) = &settings.ca_file else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a system certificate is left out"
            );
        }
        let certificates: Vec<_> =
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        return Ok(RootCerts::from(certificates));
    };
    let error = |source| GitlabError::Certificates { path: path.clone(), source };
    let pem = std::fs::read(path).map_err(error)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(source) => return Err(error(io::Error::other(source))),
        }
    }
    if certificates.is_empty() {
        return Err(error(io::Error::other("there is no certificate in it")));
    }
    Ok(RootCerts::from(certificates))
}

fn ask(
    agent: &Agent,
    url: &str,
    token: &Secret<String>,
    job_id: u64,
) -> Result<Answer, GitlabError> {
    let transport =
        |source| GitlabError::Transport { url: url.to_owned(), source: Box::new(source) };
    let no_job = |reason: String| GitlabError::NoJob { url: url.to_owned(), reason };
    let mut response = agent
        .get(url)
        .header("Accept", "application/json")
        .header("JOB-TOKEN", token.reveal())
        .call()
        .map_err(transport)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(GitlabError::Status { url: url.to_owned(), status });
    }
    let bytes = match response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec() {
        Ok(bytes) => bytes,
        Err(ureq::Error::BodyExceedsLimit(_)) => {
            return Err(no_job(format!("it has more than {} KiB", MAX_ANSWER >> 10)));
        }
        Err(error) => return Err(transport(error)),
    };
    let raw: RawJob = serde_json::from_slice(&bytes)
        .map_err(|error| no_job(format!("line {}, column {}", error.line(), error.column())))?;
    if raw.id != job_id {
        return Err(no_job(format!("it is about job {}, asked was {job_id}", raw.id)));
    }
    Ok(raw.into())
}

#[derive(Deserialize)]
struct RawJob {
    id: u64,
    tag_list: BTreeSet<String>,
    #[serde(default)]
    allow_failure: Option<bool>,
    #[serde(default)]
    user: Option<RawUser>,
    #[serde(default)]
    pipeline: Option<RawPipeline>,
    #[serde(default)]
    runner: Option<RawRunner>,
}

#[derive(Deserialize)]
struct RawUser {
    id: Option<u64>,
    username: Option<String>,
}

#[derive(Deserialize)]
struct RawPipeline {
    source: Option<String>,
    status: Option<String>,
    #[serde(rename = "ref")]
    git_ref: Option<String>,
}

#[derive(Deserialize)]
struct RawRunner {
    id: Option<u64>,
    description: Option<String>,
    runner_type: Option<String>,
}

impl From<RawJob> for Answer {
    fn from(raw: RawJob) -> Self {
        let user = raw.user.as_ref();
        let pipeline = raw.pipeline.as_ref();
        let runner = raw.runner.as_ref();
        let number = |id: Option<u64>| id.map(|id| id.to_string());
        let facts = [
            ("gitlab.job.allow_failure", raw.allow_failure.map(|flag| flag.to_string())),
            ("gitlab.pipeline.ref", pipeline.and_then(|pipeline| pipeline.git_ref.clone())),
            ("gitlab.pipeline.source", pipeline.and_then(|pipeline| pipeline.source.clone())),
            ("gitlab.pipeline.status", pipeline.and_then(|pipeline| pipeline.status.clone())),
            ("gitlab.runner.description", runner.and_then(|runner| runner.description.clone())),
            ("gitlab.runner.id", number(runner.and_then(|runner| runner.id))),
            ("gitlab.runner.type", runner.and_then(|runner| runner.runner_type.clone())),
            ("gitlab.user.id", number(user.and_then(|user| user.id))),
            ("gitlab.user.username", user.and_then(|user| user.username.clone())),
        ];
        let kept = |(name, value): (&str, Option<String>)| {
            value.filter(|value| value.len() <= MAX_VALUE).map(|value| (name.to_owned(), value))
        };
        Self { tags: raw.tag_list, facts: facts.into_iter().filter_map(kept).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_tags_and_facts() {
        let raw: RawJob = serde_json::from_str(
            r#"{"id": 8, "status": "running", "name": "rubocop", "ref": "main", "allow_failure": false,
                "tag_list": ["spot", "arm64", "spot"], "user": {"id": 1, "username": "root", "state": "active"},
                "pipeline": {"id": 6, "project_id": 1, "ref": "main", "status": "running", "source": "schedule"},
                "runner": {"id": 32, "description": null, "runner_type": "group_type"}, "commit": null}"#,
        )
        .unwrap();
        let answer = Answer::from(raw);
        assert_eq!(answer.tags, ["arm64".to_owned(), "spot".to_owned()].into());
        let facts: Vec<String> =
            answer.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        assert_eq!(
            facts,
            [
                "gitlab.job.allow_failure = false",
                "gitlab.pipeline.ref = main",
                "gitlab.pipeline.source = schedule",
                "gitlab.pipeline.status = running",
                "gitlab.runner.id = 32",
                "gitlab.runner.type = group_type",
                "gitlab.user.id = 1",
                "gitlab.user.username = root",
            ]
        );
    }

    #[test]
    fn certificates_must_be_some() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let settings = Gitlab {
            url: "https://gitlab.example.com".to_owned(),
            job_tags: crate::settings::JobTags::Required,
            timeout: Duration::from_secs(1),
            ca_file: Some(path),
        };
        assert!(matches!(agent(&settings), Err(GitlabError::Certificates { .. })));
        let system = Gitlab { ca_file: None, ..settings };
        assert!(agent(&system).is_ok());
    }
}
