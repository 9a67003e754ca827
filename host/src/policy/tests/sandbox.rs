//! What is granted and what is only watched: WASI, monitored policies, the hook after a lost attempt.

use super::guests::{DECISION, RawPlacement, SEES_NOTHING, WITH_HOOK};
use super::*;

#[test]
fn wasi_is_linked_only_where_it_is_granted_and_shows_nothing() {
    let house = House::shared();
    let plain = house.policy(&Guest::with_wasi(SEES_NOTHING));
    let what = broken(Asked::with_tags(&["dev"]).decide(&house, &[("p", &plain)])).to_string();
    assert!(
        what.starts_with("imports what policies do not get: `wasi:")
            && what.contains("wasm32-unknown-unknown")
            && what.contains("`wasi = true`"),
        "{what}"
    );
    let granted = Policy { wasi: true, ..plain.clone() };
    let fuel = |store: &Store| {
        let question = Asked::with_tags(&["dev"]);
        let mut trace = Trace::default();
        let error =
            decide_traced(&question.question(), &[("p", &granted)], store, &mut trace).unwrap_err();
        assert!(matches!(error, PolicyError::NobodyAnswered { .. }), "{error}");
        assert_eq!(trace.steps[0].outcome, "abstained");
        trace.steps[0].fuel
    };
    assert_eq!(fuel(&house.store), fuel(&house.again()), "the same each time");
    // The compiled entry is there now, and a grant that was taken back still counts as none.
    for store in [&house.store, &house.again()] {
        let asked = Asked::with_tags(&["dev"]);
        let error = decide(&asked.question(), &[("p", &plain)], store).unwrap_err();
        assert!(matches!(error, PolicyError::Broken { what: BrokenKind::ForbiddenImport(_), .. }));
    }
}

#[test]
fn whoever_waits_exits_or_wants_much_is_ended_at_once() {
    let house = House::shared();
    for (place, expected) in [
        (
            // An hour; the wait would be inside the host, where no deadline counts.
            "(call $block (call $subscribe (i64.const 3600000000000))) i32.const 1024",
            "crashed: it wanted to wait, which policies may not",
        ),
        ("(call $exit (i32.const 1)) i32.const 1024", "crashed: it exited with status 1"),
        ("(call $bytes (i64.const 1000000000000) (i32.const 2048)) i32.const 1024", ""),
        ("(loop (drop (call $subscribe (i64.const 1))) (br 0)) unreachable", ""),
    ] {
        let policy = house.policy(&Guest::with_wasi(place));
        let policy = Policy { wasi: true, ..policy };
        house.compiled(&policy);
        let started = Instant::now();
        let what = broken(Asked::with_tags(&[]).decide(&house, &[("p", &policy)])).to_string();
        assert!(started.elapsed() < Duration::from_secs(10), "{place}");
        assert!(what.starts_with(expected), "{what}");
    }
}

#[test]
fn what_is_monitored_runs_is_recorded_and_changes_nothing() {
    let house = House::shared();
    let placer = by_tag(rules());
    let asked = Asked::with_tags(&["dev"]);
    let plain = asked.decide(&house, &[("by-tag", &placer)]).unwrap();
    let answers = RawPlacement { arch: 1, capacity: 1, ..RawPlacement::default() };
    let place: &'static str = format!("i32.const {DECISION}").leak();
    for (bytes, outcome) in [
        (
            Guest { data: RawPlacement::answer(&[answers]), place, ..Guest::default() }.placer(),
            "placement: cluster dev, task definition node, arm64, spot, 1 vCPU / 2 GiB, the task definition's role",
        ),
        (
            Guest {
                place: "i32.const 2048",
                data: r#"(data (i32.const 2048) "\02")"#,
                ..Guest::default()
            }
            .placer(),
            "rejected: no reason given",
        ),
        (
            Guest { place: "unreachable", ..Guest::default() }.placer(),
            "failed: crashed: it panicked",
        ),
        (Guest::mutator("unreachable"), "failed: crashed: it panicked"),
        (Guest::mutator("i32.const 2048"), "failed: gave a wrong answer: an empty list"),
        (Guest::guard(GUARD_REFUSES), "accepted 0 of 1; refused: no reason given"),
        (Guest::guard("unreachable"), "failed: crashed: it panicked"),
    ] {
        let watched = Policy { mode: Mode::Monitor, ..house.policy(&bytes) };
        let decision = asked.decide(&house, &[("watched", &watched), ("by-tag", &placer)]).unwrap();
        assert_eq!(decision.placements, plain.placements, "{outcome}");
        assert_eq!(decision.notices, [""; 0], "{outcome}");
        let step = decision.steps.iter().find(|step| step.policy == "watched").unwrap();
        assert!(step.monitored && step.outcome.starts_with(outcome), "{} {outcome}", step.outcome);
    }
    // Not even one that is not there.
    let gone = Policy::new(Component::File("/nonexistent".into()), "0".repeat(64));
    let gone = Policy { mode: Mode::Monitor, ..gone };
    let decision = asked.decide(&house, &[("gone", &gone), ("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements, plain.placements);
}

#[test]
fn claims_that_only_a_monitored_policy_read_taint_nothing() {
    let house = House::shared();
    let placer = by_tag(rules());
    let reads = Guest {
        imports: r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        place: "(call $image (i32.const 2048)) i32.const 1024",
        ..Guest::default()
    };
    let reader = Policy { mode: Mode::Monitor, ..house.policy(&reads.placer()) };
    let mut asked = Asked::with_tags(&["dev", "deploy"]);
    asked.claims_taint = ClaimsTaint::DenyPrivilegedRoles;
    let decision = asked.decide(&house, &[("reader", &reader), ("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements[0].role.as_deref(), Some("deploy"));
}

#[test]
fn all_reasons_are_told_when_nothing_is_left() {
    let house = House::shared();
    let place: &'static str = format!("i32.const {DECISION}").leak();
    let answers =
        [RawPlacement { cluster: (2064, 4), ..RawPlacement::default() }, RawPlacement::default()];
    let placer = Guest { data: RawPlacement::answer(&answers), place, ..Guest::default() };
    let placer = house.policy(&placer.placer());
    let guard = house.policy(&Guest::guard(GUARD_REFUSES));
    let reasons =
        rejected(Asked::with_tags(&[]).decide(&house, &[("placer", &placer), ("guard", &guard)]));
    let told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "policy `placer`: cluster `node` is not allowed: the profile allows `dev` (out-of-bounds)",
            "policy `guard`: no reason given (rejected)",
        ]
    );
}

#[test]
fn a_hook_is_asked_after_a_lost_attempt_and_only_then() {
    let house = House::shared();
    let answers = RawPlacement { reason: (2080, 7), ..RawPlacement::default() };
    // The lost attempt is at the pointer that is the one parameter: settings, then the record. Its kind is
    // the byte at 12; anything but a Spot interruption crashes.
    let functions: &'static str = format!(
        r#"(func (export "pointsman:policy/recovery@0.1.0#recover") (param i32) (result i32)
            (if (i32.ne (i32.load8_u offset=12 (local.get 0)) (i32.const 1)) (then unreachable))
            (i32.const {DECISION}))"#
    )
    .leak();
    let hook = Guest {
        wit: WITH_HOOK,
        functions,
        data: RawPlacement::answer(&[answers]),
        ..Guest::default()
    };
    let hook = house.policy(&hook.placer());
    let placer = by_tag(rules());
    let chain = [("hook", &hook), ("by-tag", &placer)];
    let mut asked = Asked::with_tags(&["dev", "arm64", "cheap"]);
    let first = asked.decide(&house, &chain).unwrap();
    assert_eq!(first.placements[0].capacity, Capacity::Spot);
    assert_eq!(first.steps[0].outcome, "abstained");

    asked.earlier_failures.push(EarlierFailure {
        attempt: 1,
        kind: FailureKind::SpotInterruption,
        detail: "Spot took it".to_owned(),
        placement: Some(first.placements[0].clone()),
    });
    let second = asked.decide(&house, &chain).unwrap();
    let [placement] = &second.placements[..] else { panic!("{:?}", second.placements) };
    assert_eq!((placement.capacity, placement.reason.as_str()), (Capacity::OnDemand, "because"));
    assert!(second.steps[0].outcome.starts_with("after the lost attempt: placement: "));
    assert_eq!(second.steps.len(), 1, "the placers are not asked");

    asked.earlier_failures[0].kind = FailureKind::OutOfMemory;
    assert!(matches!(broken(asked.decide(&house, &chain)), BrokenKind::Trap(_)));
    let lax = Policy { on_error: OnError::Abstain, ..hook };
    let third = asked.decide(&house, &[("hook", &lax), ("by-tag", &placer)]).unwrap();
    assert_eq!(third.placements, first.placements);
}

#[test]
fn a_variable_with_a_masked_value_in_it_is_no_claim() {
    let mut asked = Asked::with_tags(&[]);
    let variable = |key: &str, value: &str, masked| Variable {
        key: key.to_owned(),
        value: Secret::new(value.to_owned()),
        masked,
        file: false,
    };
    asked.job.variables = vec![
        variable("CI_JOB_TOKEN", "glcbt-64_token", true),
        variable(
            "CI_REPOSITORY_URL",
            "https://gitlab-ci-token:glcbt-64_token@gitlab.example.com/a.git",
            false,
        ),
        variable("SHORT", "x", true),
        variable("BOX", "box", false),
    ];
    asked.job.image = Some("registry.example/glcbt-64_token:1".to_owned());
    asked.job.services = vec!["redis".to_owned(), "x:glcbt-64_token".to_owned()];
    let inputs = inputs::Inputs::new(&asked.question(), true);
    assert_eq!(inputs.variables, BTreeMap::from([("BOX".to_owned(), "box".to_owned())]));
    assert_eq!((inputs.image, inputs.services), (None, vec!["redis".to_owned()]));
    let recorded = serde_json::to_string(&RecordedQuestion::of(&asked.question())).unwrap();
    assert!(!recorded.contains("glcbt-64_token"), "{recorded}");
}
