//! The GitLab API as a source of facts, against a server on loopback, through the real `config`.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests::Guest;
use crate::support::attempt::Attempt;
use crate::support::http::{Response, Server};
use crate::support::output::StageOutput;
use crate::support::{House, Job};

pub(crate) const TOKEN: &str = "glcbt-64_job-token";

/// An answer about the job `id`, as GitLab 18 gives it.
pub(crate) fn answer(id: u64, tags: &[&str]) -> Response {
    let body = json!({
        "id": id, "status": "running", "stage": "test", "name": "build", "ref": "main", "tag": false,
        "allow_failure": false, "created_at": "2026-11-24T10:00:00.000Z", "finished_at": null,
        "user": { "id": 9, "username": "ada", "state": "active" },
        "commit": { "id": "0123456789abcdef0123456789abcdef01234567" },
        "pipeline": { "id": 55, "project_id": 7, "ref": "main", "status": "running", "source": "schedule" },
        "web_url": "https://gitlab.example.com/acme/app/-/jobs/1", "project": { "ci_job_token_scope_enabled": false },
        "artifacts": [], "runner": { "id": 32, "description": "fargate", "runner_type": "group_type" },
        "tag_list": tags,
    });
    Response::of(200, body.to_string()).header("Content-Type", "application/json")
}

fn ask(house: &House, server: &Server, more: &str) {
    let text = fs::read_to_string(house.settings_file()).unwrap();
    let address = server.address;
    let gitlab = format!("\n[gitlab]\nurl = \"http://{address}/\"\n{more}\n");
    fs::write(house.settings_file(), text + &gitlab).unwrap();
}

pub(crate) fn id_of(attempt: &Attempt<'_>) -> u64 {
    let text = fs::read(attempt.response_file()).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["id"].as_u64().unwrap()
}

/// `config` of a job whose server answers with `answers` in turn, and the number of requests.
fn config(
    profile: &str,
    more: &str,
    answers: impl Fn(u64, usize) -> Response + Send + Sync + 'static,
) -> (House, StageOutput, usize) {
    let house = House::new();
    let mut attempt = house.attempt(profile, &Job::default());
    let id = id_of(&attempt);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| answers(id, count.fetch_add(1, Ordering::SeqCst)));
    ask(&house, &server, more);
    let output = attempt.config().hides(TOKEN);
    for request in server.requests() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/v4/job"));
        assert_eq!(request.headers["job-token"], TOKEN);
        assert!(!request.headers.contains_key("authorization"));
    }
    drop(attempt);
    (house, output, server.requests().len())
}

fn attempt_file(house: &House) -> (String, Value) {
    let entry = fs::read_dir(house.state().join("attempts")).unwrap().next().unwrap().unwrap();
    let text = fs::read_to_string(entry.path()).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

#[test]
fn the_jobs_own_tags_decide_and_are_recorded() {
    let (house, output, requests) =
        config("agent", "job_tags = \"required\"", |id, _| answer(id, &["agent"]));
    let _ = output.succeeds().says("Placed on cluster test, task definition agent");
    assert_eq!(requests, 1);
    let (text, attempt) = attempt_file(&house);
    assert!(!text.contains(TOKEN));
    let question = &attempt["question"];
    assert_eq!(question["tags"], json!(["agent"]));
    assert_eq!(question["tags_assurance"], "server");
    assert_eq!(question["facts"]["gitlab.pipeline.source"], json!(["schedule", "server"]));
    assert_eq!(question["facts"]["gitlab.user.username"], json!(["ada", "server"]));
    assert_eq!(question["facts"]["gitlab.runner.id"], json!(["32", "server"]));

    // The same runner, another job: its own tags lead out of the profile's bounds.
    let (house, output, _) = config("agent", "", |id, _| answer(id, &["openssh"]));
    let _ = output
        .fails_the_build()
        .says("asked for the job's tags [openssh]")
        .says("task definition `openssh` is not allowed: the profile allows `agent`")
        .says("the bounds of the profile `agent` decided this");
    drop(house);
}

#[test]
fn without_an_answer_the_mode_decides() {
    let refuses = |_, _| Response::of(401, "{\"message\":\"401 Unauthorized glcbt-64_job-token\"}");
    let (_house, output, requests) = config("agent", "job_tags = \"required\"", refuses);
    let output = output
        .fails_the_system()
        .says("Error: the job's own tags are required and not known")
        .says("/api/v4/job answered with status 401: it does not take the job's token")
        .says("hint: look at the server");
    assert!(output.stdout.is_empty());
    assert_eq!(requests, 1, "a refusal is final");

    let (house, output, _) = config("agent", "job_tags = \"preferred\"", refuses);
    let _ = output
        .succeeds()
        .says("The job's own tags are not known, so the profile's stand in [agent]: ")
        .says("Placed on cluster test");
    assert_eq!(attempt_file(&house).1["question"]["tags_assurance"], "runner");

    let (house, output, requests) = config("agent", "job_tags = \"off\"", refuses);
    let _ = output.succeeds().hides("tags are not known");
    assert_eq!((requests, attempt_file(&house).1["question"]["facts"].clone()), (0, json!({})));
}

#[test]
fn a_server_error_is_tried_once_more() {
    let (_house, output, requests) =
        config("agent", "job_tags = \"required\"", |id, count| match count {
            0 => Response::of(500, "oops"),
            _ => answer(id, &["agent"]),
        });
    let _ = output.succeeds();
    assert_eq!(requests, 2);
    let (_house, output, requests) =
        config("agent", "job_tags = \"required\"", |_, _| Response::of(503, ""));
    let _ = output.fails_the_system().says("status 503");
    assert_eq!(requests, 2);
}

#[test]
fn a_silent_server_costs_at_most_two_timeouts() {
    let started = Instant::now();
    let (_house, output, requests) =
        config("agent", "job_tags = \"required\"\ntimeout = \"1s\"", |id, _| {
            answer(id, &["agent"]).after(Duration::from_secs(30))
        });
    let _ = output.fails_the_system().says("cannot ask http://127.0.0.1").says("timeout");
    assert_eq!(requests, 2);
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

#[test]
fn what_is_no_answer_of_gitlabs_is_told_without_a_word_of_it() {
    let required = "job_tags = \"required\"";
    for (body, said) in [
        (b"<html>secret-page</html>".to_vec(), "no job of GitLab's API: line 1"),
        (b"{\"id\":1}".to_vec(), "no job of GitLab's API: line 1"),
        (vec![b' '; 1 << 20], "it has more than 256 KiB"),
        (b"\xff\xfe\x00".to_vec(), "no job of GitLab's API"),
        (b"{\"id\":1,\"tag_list\":[\"agent\"]}".to_vec(), "it is about job 1, asked was"),
    ] {
        let (_house, output, requests) =
            config("agent", required, move |_, _| Response::of(200, body.clone()));
        let _ = output.fails_the_system().says(said).hides("secret-page");
        assert_eq!(requests, 1);
    }
}

#[test]
fn the_token_follows_no_redirect() {
    let elsewhere = Server::start(|_| Response::of(200, "{}"));
    let to = format!("http://{}/api/v4/job", elsewhere.address);
    let (_house, output, _) = config("agent", "job_tags = \"required\"", move |_, _| {
        Response::of(302, "").header("Location", to.clone())
    });
    let _ = output.fails_the_system().says("a redirect, which is not followed");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_server_without_a_certificate_gets_no_token() {
    let house = House::new();
    let server = Server::start(|_| Response::of(200, "{}"));
    ask(&house, &server, "job_tags = \"required\"\ntimeout = \"5s\"");
    house.edit_settings(|text| text.replace("url = \"http://", "url = \"https://"));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().fails_the_system().says("cannot ask https://127.0.0.1").hides(TOKEN);
    let seen = server.requests();
    assert!(seen.iter().all(|request| request.headers.is_empty()), "{seen:?}");
}

#[test]
fn a_token_does_not_leave_in_the_clear() {
    let house = House::new();
    let text = fs::read_to_string(house.settings_file()).unwrap();
    let text = text + "\n[gitlab]\nurl = \"http://gitlab.example.com\"\njob_tag = \"off\"\n";
    fs::write(house.settings_file(), text).unwrap();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt
        .config()
        .fails_the_system()
        .says("gitlab.url: is `http://gitlab.example.com`, expected `https://…`")
        .says("gitlab.job_tag: is no key of this table: did you mean `job_tags`?");
}

#[test]
fn a_chain_that_read_a_claim_gets_no_privileged_role() {
    let house = House::new();
    let reads = Guest {
        imports: r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        place: "(call $image (i32.const 2048)) i32.const 1024",
        ..Guest::default()
    };
    house.add_policy("reader", &reads.placer(), "");
    house.edit_settings(|text| {
        text.replacen("role/deploy\"", "role/deploy\"\nprivileged = true", 1)
    });
    house.set_chain(
        "agent",
        "policies = [\"reader\", \"by-tag\"]\nclaims_taint = \"deny-privileged-roles\"",
    );
    let job = Job { image: Some("alpine".to_owned()), ..Job::default() };
    let _ = house
        .attempt("agent", &job)
        .config()
        .fails_the_build()
        .says("role `deploy` is privileged, and policy `reader` read what the pipeline's author wrote (image)")
        .says("`claims_taint` of the profile `agent` decided this");
    // Watched only, it taints nothing.
    house
        .edit_settings(|text| text.replace("claims_taint", "monitor = [\"reader\"]\nclaims_taint"));
    let _ = house.attempt("agent", &job).config().succeeds().says("role deploy");
}

#[test]
fn a_policy_learns_of_the_attempt_and_of_what_was_lost() {
    let house = House::with_faults(
        &json!([{ "match": {}, "times": 1, "fault": { "kind": "no-capacity" } }]),
    );
    let counts = Guest {
        imports: r#"(import "pointsman:policy/facts@0.1.0" "attempt" (func $attempt (result i32)))
            (import "pointsman:policy/facts@0.1.0" "earlier-failures" (func $failures (param i32)))"#,
        data: r#"(data (i32.const 2100) "\02") (data (i32.const 2200) "second attempt after capacity")"#,
        // With one earlier failure, of kind `capacity`, in the second attempt: reject with a message.
        place: "(if (i32.eq (call $attempt) (i32.const 1)) (then (return (i32.const 1024))))
            (call $failures (i32.const 2048))
            (if (i32.ne (i32.load (i32.const 2052)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load8_u offset=4 (i32.load (i32.const 2048))) (i32.const 0)) (then unreachable))
            (i32.store (i32.const 2112) (i32.const 2200)) (i32.store (i32.const 2116) (i32.const 29))
            i32.const 2100",
        ..Guest::default()
    };
    house.add_policy("counts", &counts.placer(), "");
    house.set_chain("agent", "policies = [\"counts\", \"by-tag\"]");
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().fails_the_system().says("Capacity is unavailable");
    let _ = attempt.cleanup().succeeds();
    let mut again = attempt.again();
    let _ = again.config().fails_the_build().says("second attempt after capacity");
    let record = house.records().into_iter().find(|record| record["number"] == 2).unwrap();
    assert_eq!(record["outcome"]["kind"], "rejected");
    assert_eq!(record["question"]["earlier_failures"][0]["kind"], "capacity");
    assert_eq!(record["question"]["earlier_failures"][0]["placement"]["cluster"], "test");
    // A rejection is no attempt.
    let mut third = again.again();
    let _ = third.config().fails_the_build().says("second attempt after capacity");
    house.settled(0);
}
