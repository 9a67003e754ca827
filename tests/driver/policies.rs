//! Policies through the real `config`: those that mean harm, what is recorded, what authors read.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::guests::{DECISION, Guest, RawPlacement};
use crate::support::{House, Job};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn answering(placement: RawPlacement, before: &str) -> Vec<u8> {
    let place: &'static str = format!("{before} i32.const {DECISION}").leak();
    Guest { data: RawPlacement::answer(&[placement]), place, ..Guest::default() }.placer()
}

#[test]
fn each_hostile_policy_ends_its_job_with_one_line_that_names_it() {
    let house = House::new();
    let place = |place| Guest { place, ..Guest::default() }.placer();
    let good = Guest::default().placer();
    let log = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        place: "(loop (call $write (i32.const 3) (i32.const 8192) (i32.const 10000) (i32.const 0) (i32.const 0)) (br 0)) unreachable",
        ..Guest::default()
    };
    let tables = Guest {
        functions: "(table $t 1 funcref)",
        place: "(loop (drop (table.grow $t (ref.null func) (i32.const 50000))) (br 0)) unreachable",
        ..Guest::default()
    };
    let recursion = Guest {
        functions: "(func $deep (param i64) (result i64) (i64.add (local.get 0) (call $deep (local.get 0))))",
        place: "(drop (call $deep (i64.const 1))) i32.const 1024",
        ..Guest::default()
    };
    let answer_of_100_mb = Guest {
        data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\e1\f5\05")"#,
        place: "(drop (memory.grow (i32.const 1600))) i32.const 2048",
        ..Guest::default()
    };
    let fill = "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 27) (i32.const 900000))";
    let mut cases: Vec<(&str, Vec<u8>, &str, bool)> = vec![
        ("spins", place("(loop (br 0)) unreachable"), "used up its fuel of 200000000", false),
        (
            "grows",
            place("(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable"),
            "wanted more memory than its 64 MiB",
            false,
        ),
        ("tables", tables.placer(), "wanted more memory", false),
        ("recurses", recursion.placer(), "crashed: call stack exhausted", false),
        ("traps", place("unreachable"), "crashed: it panicked", false),
        ("floods", answer_of_100_mb.placer(), "moved more than 1024 KiB of data at once", false),
        ("logs", log.placer(), "", false),
        (
            "empty",
            place("i32.const 3000"),
            "gave a wrong answer: an empty list of placements",
            false,
        ),
        ("exports", wat("(component)"), "lacks an export: `placer`, `mutator` or `guard`", false),
        (
            "imports",
            wat(r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#),
            "imports what policies do not get: `wasi:http/outgoing-handler@0.2.0`",
            false,
        ),
        (
            "wasi",
            wat(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#),
            "`wasi = true` at the policy gives it one without files",
            false,
        ),
        ("core", wat("(module)"), "is not a WebAssembly component: a core module", false),
        ("cut", good[..good.len() / 2].to_vec(), "is not a WebAssembly component: ", false),
        (
            "other",
            wat(r#"(component
                (core module $m (func (export "f")))
                (core instance $i (instantiate $m))
                (func (export "run") (canon lift (core func $i "f"))))"#),
            "it exports run",
            false,
        ),
        (
            "cluster",
            answering(RawPlacement { cluster: (2064, 4), ..RawPlacement::default() }, ""),
            "cluster `node` is not allowed: the profile allows `test`",
            true,
        ),
        (
            "role",
            answering(RawPlacement { role: Some((2080, 7)), ..RawPlacement::default() }, ""),
            "role `because` is not allowed: the profile allows `deploy`",
            true,
        ),
        (
            "size",
            answering(
                RawPlacement {
                    cpu_units: Some(u32::MAX),
                    memory_mib: Some(u32::MAX),
                    ..RawPlacement::default()
                },
                "",
            ),
            "size ",
            true,
        ),
        (
            "screams",
            answering(RawPlacement { reason: (65_536, 900_000), ..RawPlacement::default() }, fill),
            "cluster `dev` is not allowed",
            true,
        ),
    ];
    cases.sort_by_key(|(name, ..)| *name);
    for (name, bytes, ..) in &cases {
        // A machine under load shall not turn the other errors into this one; `logs` needs the default.
        let more = match *name {
            "logs" => "",
            "floods" => "deadline = \"20s\"\nmemory = \"256MiB\"",
            _ => "deadline = \"20s\"",
        };
        house.add_policy(name, bytes, more);
    }
    for (name, _, said, is_rejection) in cases {
        house.set_chain("agent", &format!("policies = [\"{name}\"]"));
        let mut attempt = house.attempt("agent", &Job::default());
        let started = Instant::now();
        let output = attempt.config();
        assert!(started.elapsed() < Duration::from_secs(60), "{name}: {:?}", started.elapsed());
        let output =
            if is_rejection { output.fails_the_build() } else { output.fails_the_system() };
        let output = output.says(said);
        assert!(output.stdout.is_empty());
        let text = output.stderr_text();
        assert_eq!(text.matches("Error: ").count(), 1, "{text}");
        assert!(
            text.contains(&format!("policy `{name}`")) || text.contains(&format!("policy {name}:")),
            "{text}"
        );
        assert!(text.len() < 4000, "{} bytes for {name}", text.len());
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    house.settled(0);
}

#[test]
fn a_deadline_ends_what_has_fuel_left() {
    let house = House::new();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    house.add_policy("spins", &spins, "fuel = 100_000_000_000\ndeadline = \"100ms\"");
    house.set_chain("agent", "policies = [\"spins\"]");
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().fails_the_system().says("policy `spins` did not answer within 100ms");
    // Compiled by now.
    let started = Instant::now();
    let _ = attempt.again().config().fails_the_system();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    house.settled(0);
}

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
