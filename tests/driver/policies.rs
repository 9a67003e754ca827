//! Policies through the real `config`: what is skipped, compiled and recorded, what authors read.

use serde_json::json;

use crate::guests::{Guest, SEES_NOTHING};
use crate::support::{House, Job};

#[test]
fn a_policy_that_fails_may_be_skipped_and_says_so() {
    let house = House::new();
    let traps = Guest { place: "unreachable", ..Guest::default() }.placer();
    house.add_policy("traps", &traps, "on_error = \"abstain\"");
    house.set_chain("agent", "policies = [\"traps\", \"by-tag\"]");
    let _ = house
        .attempt("agent", &Job::default())
        .config()
        .succeeds()
        .says("policy `traps` crashed: it panicked (`unreachable` was executed); it was skipped")
        .says("Placed on cluster test");
}

#[test]
fn wasi_is_given_only_where_the_file_grants_it_and_shows_nothing() {
    let house = House::new();
    // It crashes when it sees a variable, a directory, the time, or two random numbers.
    house.add_policy("looks", &Guest::with_wasi(SEES_NOTHING), "deadline = \"20s\"");
    house.set_chain("agent", "policies = [\"looks\", \"by-tag\"]");
    let _ = house
        .attempt("agent", &Job::default())
        .config()
        .fails_the_system()
        .says("Error: policy `looks` imports what policies do not get: `wasi:")
        .says("`wasi = true` at the policy gives it one without files, network, environment and clock");
    house.edit_settings(|text| text.replace("[policies.looks]", "[policies.looks]\nwasi = true"));
    let mut attempt = house.attempt("agent", &Job::default().variable("SEEN", "by nobody"));
    let _ = attempt.config().succeeds().says("Placed on cluster test");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_guard_that_fails_refuses_whatever_the_file_says() {
    let house = House::new();
    for (name, check) in [("panics", "unreachable"), ("spins", "(loop (br 0)) unreachable")] {
        house.add_policy(name, &Guest::guard(check), "on_error = \"abstain\"\ndeadline = \"20s\"");
        house.set_chain("agent", &format!("policies = [\"by-tag\", \"{name}\"]"));
        let output = house.attempt("agent", &Job::default()).config().fails_the_system();
        let _ = output.says(&format!("Error: policy `{name}` ")).hides("Placed on");
        house.set_chain("agent", "policies = [\"by-tag\"]");
    }
    house.settled(0);
}

#[test]
fn a_missing_entry_is_compiled_with_a_line_and_then_only_loaded() {
    let house = House::new();
    let abstains = Guest::default().placer();
    house.add_policy("first", &abstains, "");
    house.set_chain("agent", "policies = [\"first\", \"by-tag\"]");
    let line =
        "Compiling policy `first`, which is not installed: `pointsman policy sync` does that ahead";
    let _ = house.attempt("agent", &Job::default()).config().succeeds().says(line);
    let _ = house.attempt("agent", &Job::default()).config().succeeds().hides("Compiling");
}

#[test]
fn a_rejection_says_what_was_asked_what_is_allowed_and_who_decides_and_is_recorded() {
    let house = House::new();
    let mut job = Job::default().variable("VISIBLE", "yes");
    job.name = "deploy production".to_owned();
    let mut attempt = house.attempt("nobody", &job);
    let _ = attempt
        .config()
        .fails_the_build()
        .says("Error: no placement is allowed for the job `deploy production`")
        .says("asked for the profile's tags [nobody], ref `main` (protected), project 7 (`acme/app`)")
        .says("policy by-tag: no rule knows the tag [nobody]")
        .says("rules know the tags [")
        .says("the policy `by-tag` and its settings decided this; whoever operates this runner can change it");
    let records = house.records();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record["outcome"]["kind"], "rejected");
    assert_eq!(record["placements"], json!([]));
    assert_eq!(record["keys"], json!(null));
    assert_eq!(record["steps"][0]["policy"], "by-tag");
    assert_eq!(record["question"]["job_name"], "deploy production");
    assert_eq!(record["question"]["variables"]["VISIBLE"], "yes");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}
