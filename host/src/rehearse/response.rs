//! `JOB_RESPONSE_FILE` as GitLab Runner writes it: its re-encoding of the server's job (common/spec/spec.go),
//! every field of it, absent ones as Go's zero values.

use serde_json::{Value, json};

use super::pipeline::{Image, Job, Variable};
use super::variables::{Entry, expand_text};

/// What the server would know of a job.
pub(super) struct Facts<'a> {
    pub(super) id: u64,
    pub(super) token: &'a str,
    pub(super) pipeline_id: u64,
    pub(super) project_name: &'a str,
    pub(super) project_path: &'a str,
    pub(super) repo_url: &'a str,
    pub(super) sha: &'a str,
    pub(super) git_ref: &'a str,
    pub(super) timeout_seconds: u64,
    pub(super) queued_seconds: f64,
    /// Of the server, not expanded.
    pub(super) variables: &'a [Entry],
    /// Expanded list, for what the server and the runner expand before they write.
    pub(super) expanded: &'a [Entry],
    pub(super) dependencies: &'a [Stored],
}

/// The artifacts of a job in the rehearsal's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: u64,
    pub(super) job: String,
    pub(super) file: std::path::PathBuf,
    pub(super) size: u64,
}

/// The project of all rehearsals.
pub(super) const PROJECT_ID: u64 = 1;
/// Before the first commit.
pub(super) const NO_SHA: &str = "0000000000000000000000000000000000000000";

/// The file's text.
pub(super) fn text(job: &Job, facts: &Facts<'_>) -> String {
    let expand = |text: &str| expand_text(text, facts.expanded);
    let image = |image: &Image| image_value(image, &expand);
    let artifacts = job.artifacts.as_ref().map(|artifacts| {
        json!([{
            "name": artifacts.name,
            "untracked": false,
            "paths": artifacts.paths,
            "exclude": artifacts.exclude,
            "when": artifacts.when.word(),
            "artifact_type": "archive",
            "artifact_format": "zip",
            "expire_in": artifacts.expire_in.as_deref().unwrap_or_default(),
        }])
    });
    let step = |name: &str, script: &[String], when: &str, timeout: u64| {
        json!({
            "name": name,
            "script": script,
            "timeout": timeout,
            "when": when,
            "allow_failure": when == "always",
        })
    };
    let mut steps = vec![step("script", &job.script, "on_success", facts.timeout_seconds)];
    if !job.after_script.is_empty() {
        steps.push(step("after_script", &job.after_script, "always", facts.timeout_seconds));
    }
    let response = json!({
        "id": facts.id,
        "token": facts.token,
        "allow_git_fetch": true,
        "job_info": {
            "name": job.name,
            "stage": job.stage,
            "pipeline_id": facts.pipeline_id,
            "project_id": PROJECT_ID,
            "project_name": facts.project_name,
            "project_full_path": facts.project_path,
            "namespace_id": 1,
            "root_namespace_id": 1,
            "organization_id": 1,
            "instance_id": "rehearsal",
            "instance_uuid": "00000000-0000-4000-8000-000000000000",
            "user_id": 1,
            "time_in_queue_seconds": facts.queued_seconds,
            "project_jobs_running_on_instance_runners_count": "0",
            "queue_size": 0,
            "queue_depth": 0,
        },
        "git_info": {
            "repo_url": facts.repo_url,
            "repo_object_format": "sha1",
            "ref": facts.git_ref,
            "sha": facts.sha,
            "before_sha": NO_SHA,
            "ref_type": "branch",
            "refspecs": [format!("+refs/heads/{0}:refs/remotes/origin/{0}", facts.git_ref)],
            "depth": 20,
            "protected": true,
        },
        "runner_info": { "uuid": "", "timeout": facts.timeout_seconds },
        "inputs": {},
        "variables": facts.variables,
        "steps": steps,
        "image": job.image.as_ref().map_or_else(|| image(&Image::default()), image),
        "services": list(job.services.iter().map(image).collect()),
        "artifacts": artifacts.unwrap_or(Value::Null),
        "cache": Value::Null,
        "credentials": Value::Null,
        "dependencies": list(facts.dependencies.iter().map(|stored| json!({
            "id": stored.id,
            "token": facts.token,
            "name": stored.job,
            "artifacts_file": { "filename": "artifacts.zip", "size": stored.size },
        })).collect()),
        "features": {
            "trace_sections": false,
            "token_mask_prefixes": ["glpat-", "glcbt-"],
            "failure_reasons": ["script_failure", "runner_system_failure", "job_execution_timeout"],
            "tracing": Value::Null,
        },
        "policy_options": { "execution_policy_job": false, "policy_name": "" },
        "suspend_options": {},
    });
    let mut text = go_escaped(&response.to_string());
    text.push('\n');
    text
}

/// `CUSTOM_ENV_CI_JOB_SERVICES`: empty without services, else a JSON list.
pub(super) fn services(job: &Job, expanded: &[Entry]) -> String {
    if job.services.is_empty() {
        return String::new();
    }
    let entry = |service: &Image| {
        let own: Vec<_> =
            expanded.iter().cloned().chain(service.variables.iter().map(entry_of)).collect();
        let mut value = json!({
            "name": expand_text(&service.name, expanded),
            "alias": service
                .alias
                .as_deref()
                .and_then(|alias| alias.split([' ', ',']).find(|one| !one.is_empty()))
                .unwrap_or_default(),
            "entrypoint": service.entrypoint,
            "command": service.command,
        });
        if !service.variables.is_empty() {
            let variables = service.variables.iter().map(|variable| {
                let text = match variable.raw {
                    true => variable.value.clone(),
                    false => expand_text(&variable.value, &own),
                };
                (variable.key.clone(), Value::String(text))
            });
            value["variables"] = Value::Object(variables.collect());
        }
        value
    };
    go_escaped(&Value::Array(job.services.iter().map(entry).collect()).to_string())
}

/// A variable of the file as the server sends it.
pub(super) fn entry_of(variable: &Variable) -> Entry {
    Entry { raw: variable.raw, ..Entry::new(&variable.key, &variable.value) }
}

fn image_value(image: &Image, expand: &dyn Fn(&str) -> String) -> Value {
    let mut value = json!({ "name": expand(&image.name) });
    if let Some(alias) = &image.alias {
        value["alias"] = expand(alias).into();
    }
    if let Some(command) = image.command.as_ref().filter(|command| !command.is_empty()) {
        value["command"] = json!(command);
    }
    if let Some(entrypoint) = image.entrypoint.as_ref().filter(|entrypoint| !entrypoint.is_empty())
    {
        value["entrypoint"] = json!(entrypoint);
    }
    if !image.variables.is_empty() {
        value["variables"] = json!(image.variables.iter().map(entry_of).collect::<Vec<_>>());
    }
    if !image.pull_policy.is_empty() {
        value["pull_policy"] = json!(image.pull_policy);
    }
    value["executor_opts"] =
        json!({ "docker": { "platform": "", "user": "" }, "kubernetes": { "user": "" } });
    value
}

/// Go writes an absent list as `null`.
fn list(entries: Vec<Value>) -> Value {
    match entries.is_empty() {
        true => Value::Null,
        false => Value::Array(entries),
    }
}

/// Go's encoder escapes these for HTML's sake.
fn go_escaped(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::pipeline;

    fn job(text: &str) -> Job {
        let mut include = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        pipeline::parse(std::path::Path::new("x"), text, &mut include).unwrap().jobs.remove(0)
    }

    fn response(job: &Job) -> String {
        let variables = [Entry::new("TAG", "22"), Entry { masked: true, ..Entry::new("S", "a<b") }];
        let dependencies = [Stored { id: 6, job: "a".into(), file: "/s/6.tar".into(), size: 10 }];
        let facts = Facts {
            id: 7,
            token: "glcbt-rehearsal-x",
            pipeline_id: 5,
            project_name: "p",
            project_path: "rehearsal/p",
            repo_url: "https://gitlab.invalid/rehearsal/p.git",
            sha: "0123",
            git_ref: "main",
            timeout_seconds: 3600,
            queued_seconds: 0.5,
            variables: &variables,
            expanded: &variables,
            dependencies: &dependencies,
        };
        text(job, &facts)
    }

    #[test]
    fn the_driver_reads_what_is_written() {
        let job = job(
            "j: {script: x, image: node:$TAG, services: [pg:$TAG], after_script: [y], artifacts: {paths: [p]}}",
        );
        let text = response(&job);
        let read = crate::job::response::parse(text.as_bytes()).unwrap();
        assert_eq!((read.id, read.name.as_str(), read.stage.as_str()), (7, "j", "test"));
        assert_eq!(read.image.as_deref(), Some("node:22"));
        assert_eq!(read.services, ["pg:22"]);
        assert_eq!(read.timeout.as_secs(), 3600);
        assert_eq!(read.variables[1].value.reveal(), "a<b");
        assert!(text.contains("a\\u003cb") && text.ends_with("}\n"));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["dependencies"][0]["artifacts_file"]["size"], 10);
        assert_eq!(value["steps"][1]["name"], "after_script");
        assert_eq!(value["artifacts"][0]["when"], "on_success");
    }

    #[test]
    fn what_a_job_has_not_is_gos_zero() {
        let value: Value = serde_json::from_str(&response(&job("j: {script: x}"))).unwrap();
        assert_eq!(value["image"]["name"], "");
        for absent in ["services", "artifacts", "cache", "credentials"] {
            assert_eq!(value[absent], Value::Null, "{absent}");
        }
    }

    #[test]
    fn services_for_the_environment() {
        let expanded = [Entry::new("TAG", "17")];
        assert_eq!(services(&job("j: {script: x}"), &expanded), "");
        let job = job(
            "j: {script: x, services: [pg, {name: pg:$TAG, alias: 'db, other', command: [a], variables: {A: '$TAG', B: '<$A>'}}]}",
        );
        assert_eq!(
            services(&job, &expanded),
            "[{\"alias\":\"\",\"command\":null,\"entrypoint\":null,\"name\":\"pg\"},{\"alias\":\"db\",\"command\":[\"a\"],\"entrypoint\":null,\"name\":\"pg:17\",\"variables\":{\"A\":\"17\",\"B\":\"\\u003c17\\u003e\"}}]"
        );
    }
}
