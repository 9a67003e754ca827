//! The chain: who is asked, what the host makes of the answers, what is recorded.

use super::*;

#[test]
fn placers_are_asked_until_one_answers() {
    let house = House::shared();
    let abstains = house.policy(&Guest::default().placer());
    let policy = by_tag(rules());
    let decision = Asked::with_tags(&["dev"])
        .decide(&house, &[("first", &abstains), ("by-tag", &policy), ("third", &abstains)])
        .unwrap();
    let outcomes: Vec<&str> = decision.steps.iter().map(|step| step.policy.as_str()).collect();
    assert_eq!(outcomes, ["first", "by-tag"]);
    assert_eq!(decision.steps[0].outcome, "abstained");

    let error = Asked::with_tags(&["dev"])
        .decide(&house, &[("first", &abstains), ("second", &abstains)])
        .unwrap_err();
    assert_eq!(error.to_string(), "no policy of profile `dev` answered: asked first, second");
}

#[test]
fn guards_refuse_and_fail_closed() {
    let house = House::shared();
    let placer = by_tag(rules());
    let asked = Asked::with_tags(&["dev", "cheap"]);
    let accepts = house.policy(&Guest::guard(GUARD_ACCEPTS));
    let decision = asked.decide(&house, &[("g", &accepts), ("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements.len(), 2);
    assert_eq!(decision.steps[1].outcome, "accepted 2 of 2");

    let refuses = house.policy(&Guest::guard(GUARD_REFUSES));
    let reasons = rejected(asked.decide(&house, &[("by-tag", &placer), ("g", &refuses)]));
    assert_eq!(reasons.len(), 1, "the same to both candidates: {reasons:?}");
    assert_eq!(reasons[0].to_string(), "policy `g`: no reason given (rejected)");

    let crashes =
        Policy { on_error: OnError::Abstain, ..house.policy(&Guest::guard("unreachable")) };
    let what = broken(asked.decide(&house, &[("by-tag", &placer), ("g", &crashes)]));
    assert!(matches!(what, BrokenKind::Trap(_)), "{what:?}");
}

#[test]
fn a_mutator_changes_what_the_bounds_then_check() {
    let house = House::shared();
    let placer = by_tag(rules());
    let mutator = built("examples/more-memory", json!({}));
    let chain = [("more-memory", &mutator), ("by-tag", &placer)];
    let mut asked = Asked::with_tags(&["dev"]);
    let out_of_memory = |attempt| EarlierFailure {
        attempt,
        kind: FailureKind::OutOfMemory,
        detail: String::new(),
        placement: None,
    };
    let size = |cpu_units, memory_mib| Size { cpu_units, memory_mib };
    let first = asked.decide(&house, &chain).unwrap();
    assert_eq!(first.placements[0].size, size(512, 2048));
    assert_eq!(first.notices, [""; 0]);

    asked.earlier_failures.push(out_of_memory(1));
    asked.earlier_failures.push(out_of_memory(2));
    let third = asked.decide(&house, &chain).unwrap();
    // 8 GiB are not to be had with half a vCPU.
    assert_eq!(third.placements[0].size, size(1024, 8192));
    assert_eq!(third.notices, ["more-memory: 4 times the memory, since an attempt ran out of it"]);
    assert_eq!(third.steps[1].facts_read, BTreeSet::from(["earlier-failures".to_owned()]));

    asked.bounds.max_memory_mib = 4096;
    let reasons = rejected(asked.decide(&house, &chain));
    assert_eq!(
        reasons[0].to_string(),
        "policy `more-memory`: size 0.5 vCPU / 8 GiB rounds up to 1 vCPU / 8 GiB, and the profile allows at most \
         4 vCPU / 4 GiB (out-of-bounds)"
    );
}

#[test]
fn a_guard_reads_facts_and_refuses() {
    let house = House::shared();
    let placer = by_tag(rules());
    let guard = built("examples/protected-roles", json!({"roles": ["deploy"]}));
    let chain = [("by-tag", &placer), ("protected-roles", &guard)];
    let mut asked = Asked::with_tags(&["dev", "deploy"]);
    assert_eq!(asked.decide(&house, &chain).unwrap().placements.len(), 1);
    for protected in [Some(false), None] {
        asked.job.git_ref.protected = protected;
        let reasons = rejected(asked.decide(&house, &chain));
        assert_eq!(
            reasons[0].to_string(),
            "policy `protected-roles`: role `deploy` is for protected refs, and `main` is none \
             (unprotected-ref); protect the branch or the tag in GitLab"
        );
    }
    let Err(PolicyError::Settings { problems, .. }) =
        house.store.ensure("g", &built("examples/protected-roles", json!({})))
    else {
        panic!("wrong settings")
    };
    assert_eq!(problems, ["missing field `roles`"]);
}

#[test]
fn what_a_policy_reads_is_answered_and_recorded() {
    use bindings::{claims, facts};
    let mut asked = Asked::with_tags(&["dev"]);
    asked.facts.insert("pipeline.source".to_owned(), ("push".to_owned(), Assurance::Server));
    let inputs = std::sync::Arc::new(inputs::Inputs::new(&asked.question(), true));
    let mut guest = imports::Guest::new("p", inputs, 64);
    assert_eq!(facts::Host::get_project(&mut guest).full_path, "acme/app");
    assert_eq!(facts::Host::get_ref(&mut guest).protected, Some(true));
    assert_eq!(facts::Host::timeout_seconds(&mut guest), 3600);
    assert_eq!(facts::Host::fact_names(&mut guest), ["pipeline.source"]);
    let fact = facts::Host::fact(&mut guest, "pipeline.source".to_owned()).unwrap();
    assert_eq!(fact.0, "push");
    assert!(facts::Host::fact(&mut guest, "a\nb".to_owned()).is_none());
    assert_eq!(claims::Host::image(&mut guest).as_deref(), Some("rust:1.95"));
    assert_eq!(claims::Host::variable(&mut guest, "TARGET".to_owned()), None);
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    assert_eq!(
        names(&guest.reads.facts),
        "a b, fact-names, pipeline.source, project, ref, timeout-seconds"
    );
    assert_eq!(names(&guest.reads.claims), "image, variable TARGET");
}

#[test]
fn a_failing_policy_is_skipped_only_where_the_file_says_so() {
    let house = House::shared();
    let placer = by_tag(rules());
    let asked = Asked::with_tags(&["dev"]);
    for bytes in [
        Guest { place: "unreachable", ..Guest::default() }.placer(),
        Guest::mutator("unreachable"),
        // `ok` with an empty list.
        Guest::mutator("i32.const 2048"),
    ] {
        let strict = house.policy(&bytes);
        let lax = Policy { on_error: OnError::Abstain, ..strict.clone() };
        broken(asked.decide(&house, &[("bad", &strict), ("by-tag", &placer)]));
        let decision = asked.decide(&house, &[("bad", &lax), ("by-tag", &placer)]).unwrap();
        assert_eq!(decision.placements.len(), 1);
        let [notice] = &decision.notices[..] else { panic!("{:?}", decision.notices) };
        assert!(notice.starts_with("policy `bad` ") && notice.ends_with("; it was skipped"));
    }
}

#[test]
fn a_chain_that_read_a_claim_gets_no_privileged_role() {
    let house = House::shared();
    let placer = by_tag(rules());
    let reads_image = Guest {
        imports: r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        // Crashes when there is no image.
        place: "(call $image (i32.const 2048))
            (if (i32.eqz (i32.load8_u (i32.const 2048))) (then unreachable))
            i32.const 1024",
        ..Guest::default()
    };
    let reader = house.policy(&reads_image.placer());
    let chain = [("reader", &reader), ("by-tag", &placer)];
    let mut asked = Asked::with_tags(&["dev", "deploy"]);
    let decision = asked.decide(&house, &chain).unwrap();
    assert_eq!(decision.steps[0].claims_read, BTreeSet::from(["image".to_owned()]));
    assert_eq!(decision.placements[0].role.as_deref(), Some("deploy"));

    asked.claims_taint = ClaimsTaint::DenyPrivilegedRoles;
    let reasons = rejected(asked.decide(&house, &chain));
    assert_eq!(
        reasons[0].to_string(),
        "policy `by-tag`: role `deploy` is privileged, and policy `reader` read what the pipeline's author \
         wrote (image) (claims-taint); profile `dev` has `claims_taint = \"deny-privileged-roles\"`"
    );
    let decision = asked.decide(&house, &[("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements[0].role.as_deref(), Some("deploy"), "nobody read a claim");
}

#[test]
fn masked_and_file_variables_are_never_claims() {
    let mut asked = Asked::with_tags(&[]);
    let variable = |key: &str, value: &str, masked, file| Variable {
        key: key.to_owned(),
        value: Secret::new(value.to_owned()),
        masked,
        file,
    };
    asked.job.variables = vec![
        variable("A", "1", false, false),
        variable("A", "2", false, false),
        variable("TOKEN", "secret", true, false),
        variable("FILE", "content", false, true),
        variable("B", "visible", false, false),
        variable("B", "masked later", true, false),
    ];
    let inputs = inputs::Inputs::new(&asked.question(), true);
    assert_eq!(inputs.variables, BTreeMap::from([("A".to_owned(), "2".to_owned())]));
}

#[test]
fn notices_are_cleaned_and_capped() {
    let house = House::shared();
    let talks = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "notice" (func $notice (param i32 i32)))"#,
        data: r#"(data (i32.const 2048) "a\1b[2J\0ab")"#,
        place: "(local $i i32)
            (loop
                (call $notice (i32.const 2048) (i32.and (local.get $i) (i32.const 7)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))
            i32.const 1024",
        ..Guest::default()
    };
    let talks = house.policy(&talks.placer());
    let placer = by_tag(rules());
    let decision = Asked::with_tags(&["dev"])
        .decide(&house, &[("talks", &talks), ("by-tag", &placer)])
        .unwrap();
    assert!(decision.notices.contains(&"talks: a [2J b".to_owned()), "{:?}", decision.notices);
    assert!(decision.notices.len() <= 10);
    assert!(decision.notices.iter().all(|notice| !notice.contains(char::is_control)));
}
