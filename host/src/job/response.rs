//! `JOB_RESPONSE_FILE`: the serde twins of GitLab Runner's `spec.Job`, and their conversion.
//!
//! Lenient as the file needs: unknown keys are ignored and `null` is the same as absent, since the runner
//! writes `null` for empty lists. Strict where a decision hangs on it: without an id, a project and a
//! timeout that are what they should be there is no job.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{GitRef, Job, Project, RefKind, Variable};
use crate::secret::Secret;

/// What GitLab Runner takes when the server sends 0 (common/build.go, `DefaultTimeout`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7200);

/// A response file that is no job.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Not JSON, cut off, or a value of the wrong type. The text never quotes the file: it holds tokens.
    #[error("it is no job in JSON ({category} error at line {line}, column {column})")]
    Json {
        /// serde's category: syntax, data or end of file.
        category: &'static str,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A field without which there is no job.
    #[error("`{0}` is missing or zero")]
    Missing(&'static str),
}

/// Reads the bytes of a response file.
///
/// # Errors
///
/// Fails when the bytes are not JSON of that shape, or when the id of job or project is missing.
pub fn parse(bytes: &[u8]) -> Result<Job, ResponseError> {
    let raw: Response = serde_json::from_slice(bytes).map_err(|error| ResponseError::Json {
        category: match error.classify() {
            serde_json::error::Category::Io => "read",
            serde_json::error::Category::Syntax => "syntax",
            serde_json::error::Category::Data => "data",
            serde_json::error::Category::Eof => "unexpected end",
        },
        line: error.line(),
        column: error.column(),
    })?;
    if raw.id == 0 {
        return Err(ResponseError::Missing("id"));
    }
    if raw.job_info.project_id == 0 {
        return Err(ResponseError::Missing("job_info.project_id"));
    }
    Ok(raw.into())
}

/// The job's token in the bytes of a response file; empty when there is none. Apart from [`parse`], so that no
/// [`Job`] ever holds it.
pub fn token(bytes: &[u8]) -> Secret<String> {
    #[derive(Deserialize)]
    struct Token {
        #[serde(default, deserialize_with = "null_is_default")]
        token: String,
    }
    Secret::new(
        serde_json::from_slice(bytes).map_or_else(|_| String::new(), |Token { token }| token),
    )
}

#[derive(Deserialize)]
struct Response {
    #[serde(default, deserialize_with = "null_is_default")]
    id: u64,
    #[serde(default, deserialize_with = "null_is_default")]
    job_info: JobInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    git_info: GitInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    runner_info: RunnerInfo,
    #[serde(default, deserialize_with = "null_is_default")]
    variables: Vec<RawVariable>,
    #[serde(default, deserialize_with = "null_is_default")]
    image: RawImage,
    #[serde(default, deserialize_with = "null_is_default")]
    services: Vec<RawImage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JobInfo {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    stage: String,
    #[serde(deserialize_with = "null_is_default")]
    project_id: u64,
    #[serde(deserialize_with = "null_is_default")]
    project_full_path: String,
    #[serde(deserialize_with = "null_is_default")]
    pipeline_id: u64,
    #[serde(deserialize_with = "null_is_default")]
    namespace_id: u64,
    #[serde(deserialize_with = "null_is_default")]
    root_namespace_id: u64,
    #[serde(deserialize_with = "null_is_default")]
    user_id: u64,
    #[serde(deserialize_with = "null_is_default")]
    time_in_queue_seconds: f64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GitInfo {
    #[serde(rename = "ref", deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    ref_type: String,
    #[serde(deserialize_with = "null_is_default")]
    sha: String,
    protected: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RunnerInfo {
    #[serde(deserialize_with = "null_is_default")]
    timeout: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawVariable {
    #[serde(deserialize_with = "null_is_default")]
    key: String,
    #[serde(deserialize_with = "null_is_default")]
    value: String,
    #[serde(deserialize_with = "null_is_default")]
    masked: bool,
    #[serde(deserialize_with = "null_is_default")]
    file: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawImage {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl From<Response> for Job {
    fn from(raw: Response) -> Self {
        let named = |image: RawImage| (!image.name.is_empty()).then_some(image.name);
        Self {
            id: raw.id,
            name: raw.job_info.name,
            stage: raw.job_info.stage,
            project: Project {
                id: raw.job_info.project_id,
                full_path: raw.job_info.project_full_path,
                namespace_id: raw.job_info.namespace_id,
                root_namespace_id: raw.job_info.root_namespace_id,
            },
            pipeline_id: raw.job_info.pipeline_id,
            user_id: raw.job_info.user_id,
            git_ref: GitRef {
                name: raw.git_info.name,
                kind: match raw.git_info.ref_type.as_str() {
                    "branch" => RefKind::Branch,
                    "tag" => RefKind::Tag,
                    _ => RefKind::Other,
                },
                sha: raw.git_info.sha,
                protected: raw.git_info.protected,
            },
            timeout: match raw.runner_info.timeout {
                0 => DEFAULT_TIMEOUT,
                seconds => Duration::from_secs(seconds),
            },
            queued: Duration::try_from_secs_f64(raw.job_info.time_in_queue_seconds)
                .unwrap_or_default(),
            image: named(raw.image),
            services: raw.services.into_iter().filter_map(named).collect(),
            variables: raw
                .variables
                .into_iter()
                .map(|variable| Variable {
                    key: variable.key,
                    value: Secret::new(variable.value),
                    masked: variable.masked,
                    file: variable.file,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_lists_and_unknown_keys_are_fine() {
        let job = parse(
            br#"{"id":7,"job_info":{"project_id":3,"name":"build"},"variables":null,"services":null,
                "image":{"name":""},"git_info":{"ref_type":"tag","protected":null},"new":{"x":[1]}}"#,
        )
        .unwrap();
        assert_eq!((job.id, job.project.id, job.name.as_str()), (7, 3, "build"));
        assert_eq!(job.git_ref.kind, RefKind::Tag);
        assert_eq!(job.git_ref.protected, None);
        assert_eq!(job.image, None);
        assert_eq!(job.timeout, DEFAULT_TIMEOUT);
    }

    #[test]
    fn the_token_is_read_apart() {
        assert_eq!(token(br#"{"id":7,"token":"glcbt-1"}"#).reveal(), "glcbt-1");
        for bytes in [&b"{}"[..], b"{\"token\":null}", b"[", b"{\"token\":7}"] {
            assert_eq!(token(bytes).reveal(), "");
        }
    }

    #[test]
    fn what_is_no_job_is_told_without_quoting_it() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(parse(bytes).unwrap_err().to_string(), expected);
        };
        check(b"", "it is no job in JSON (unexpected end error at line 1, column 0)");
        check(b"{\"id\":7,", "it is no job in JSON (unexpected end error at line 1, column 8)");
        check(
            b"{\"id\":\"glcbt-secret\"}",
            "it is no job in JSON (data error at line 1, column 20)",
        );
        check(b"{}", "`id` is missing or zero");
        check(b"{\"id\":7}", "`job_info.project_id` is missing or zero");
    }
}
