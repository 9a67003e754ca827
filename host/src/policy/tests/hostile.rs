//! Guests that mean harm, each against the real chain, and random changes to what is good.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::bindings::{catalog, types};
use super::super::convert;
use super::guests::{DECISION, RawPlacement};
use super::*;

/// The time that a call has in these tests; the machine may be busy, hence the room above it.
const DEADLINE: Duration = Duration::from_millis(500);
const ROOM: Duration = Duration::from_secs(20);

fn strict(house: &House, bytes: &[u8]) -> Policy {
    let policy = house.policy(bytes);
    house.compiled(&policy);
    Policy { deadline: DEADLINE, ..policy }
}

fn decided(house: &House, policy: &Policy) -> Result<Decision, PolicyError> {
    let mut asked = Asked::with_tags(&["dev"]);
    asked.bounds.roles = BTreeSet::new();
    let started = Instant::now();
    let result = asked.decide(house, &[("bad", policy)]);
    assert!(started.elapsed() < ROOM, "{:?}", started.elapsed());
    if let Err(error) = &result {
        let text = error.to_string();
        assert!(text.contains("bad") && text.len() < 2000, "{} bytes: {text:.200}", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    result
}

fn answering(placements: &[RawPlacement], before: &str) -> Vec<u8> {
    let place: &'static str = format!("{before} i32.const {DECISION}").leak();
    Guest { data: RawPlacement::answer(placements), place, ..Guest::default() }.placer()
}

#[test]
fn a_good_answer_in_raw_memory_is_taken() {
    let house = House::shared();
    let policy = strict(&house, &answering(&[RawPlacement::default()], ""));
    let decision = decided(&house, &policy).unwrap();
    assert_eq!(decision.placements[0].cluster, "dev");
    assert_eq!(decision.placements[0].reason, "because");
}

#[test]
fn an_endless_loop_ends_with_the_fuel() {
    let house = House::shared();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    let policy = Policy { fuel: 1_000_000, ..strict(&house, &spins) };
    assert_eq!(broken(decided(&house, &policy)), BrokenKind::OutOfFuel { budget: 1_000_000 });
}

#[test]
fn recursion_ends_at_the_stack() {
    let house = House::shared();
    let guest = Guest {
        functions: "(func $deep (param i64 i64 i64 i64) (result i64)
            (i64.add (local.get 0) (call $deep (local.get 3) (local.get 2) (local.get 1) (local.get 0))))",
        place: "(drop (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4))) i32.const 1024",
        ..Guest::default()
    };
    let what = broken(decided(&house, &strict(&house, &guest.placer())));
    assert_eq!(what.to_string(), "crashed: call stack exhausted");
}

#[test]
fn tables_and_memories_have_an_end() {
    let house = House::shared();
    let tables = Guest {
        functions: "(table $t 1 funcref)",
        place: "(loop (drop (table.grow $t (ref.null func) (i32.const 50000))) (br 0)) unreachable",
        ..Guest::default()
    };
    let what = broken(decided(&house, &strict(&house, &tables.placer())));
    assert_eq!(what, BrokenKind::Memory { limit_mib: 64 });
    let large = Guest { functions: "(table 100000000 funcref)", ..Guest::default() };
    let policy = house.policy(&large.placer());
    match house.store.ensure("bad", &policy) {
        Err(PolicyError::Broken { what: BrokenKind::Memory { .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
    let memory = Guest {
        place: "(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable",
        ..Guest::default()
    };
    let what = broken(decided(&house, &strict(&house, &memory.placer())));
    assert_eq!(what, BrokenKind::Memory { limit_mib: 64 });
}

#[test]
fn an_answer_of_100_megabytes_is_not_copied() {
    let house = House::shared();
    let rejection = Guest {
        // A rejection whose message has 100,000,000 bytes.
        data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\e1\f5\05")"#,
        place: "(drop (memory.grow (i32.const 1600))) i32.const 2048",
        ..Guest::default()
    };
    let policy = Policy { memory_mib: 256, ..strict(&house, &rejection.placer()) };
    let what = broken(decided(&house, &policy));
    assert_eq!(what, BrokenKind::TooMuchData { limit: 1024 * 1024 });
}

#[test]
fn a_hundred_thousand_placements_are_too_many() {
    let house = House::shared();
    let guest = Guest {
        // 100,000 placements from address 65,536 on, all zeros: eight million bytes.
        data: r#"(data (i32.const 2048) "\00\00\00\00\00\00\01\00\a0\86\01\00")"#,
        place: "(drop (memory.grow (i32.const 160))) i32.const 2048",
        ..Guest::default()
    };
    match broken(decided(&house, &strict(&house, &guest.placer()))) {
        BrokenKind::TooMuchData { .. } => {}
        what => assert_eq!(
            what.to_string(),
            "gave a wrong answer: 100000 placements, at most 32 are allowed"
        ),
    }
}

#[test]
fn megabytes_of_control_characters_become_a_line() {
    let house = House::shared();
    // 300,000 escape characters, twice, and labels of 100,000 bells.
    let fill = "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 27) (i32.const 300000))
        (memory.fill (i32.const 400000) (i32.const 120) (i32.const 300000))
        (i32.store (i32.const 4000) (i32.const 400000)) (i32.store (i32.const 4004) (i32.const 100000))
        (i32.store (i32.const 4008) (i32.const 65536)) (i32.store (i32.const 4012) (i32.const 100000))";
    let raw =
        RawPlacement { reason: (65_536, 600_000), labels: (4000, 1), ..RawPlacement::default() };
    let decision = decided(&house, &strict(&house, &answering(&[raw], fill))).unwrap();
    let [placement] = &decision.placements[..] else { panic!("one") };
    assert!(placement.reason.chars().count() <= 300, "{}", placement.reason.len());
    assert!(!placement.reason.contains(char::is_control));
    for (key, value) in &placement.labels {
        assert!(key.chars().count() <= 128 && value.chars().count() <= 256, "{key} {value}");
        assert!(key.starts_with("bad/x"), "{key}");
    }
    assert_eq!(placement.labels.len(), 1);

    let refusal = Guest {
        data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\01\00\00\09\00\00\00\00\01\00\00\35\0c\00")"#,
        place: "(drop (memory.grow (i32.const 16)))
            (memory.fill (i32.const 65536) (i32.const 10) (i32.const 900000)) i32.const 2048",
        ..Guest::default()
    };
    let reasons = rejected(decided(&house, &strict(&house, &refusal.placer())));
    assert_eq!(reasons[0].to_string(), "policy `bad`: no reason given (rejected)");
}

#[test]
fn names_that_do_not_exist_and_sizes_that_overflow_are_out_of_bounds() {
    let house = House::shared();
    for (raw, said) in [
        (
            RawPlacement { cluster: (2064, 4), ..RawPlacement::default() },
            "cluster `node` is not allowed: the profile allows `dev`",
        ),
        (
            RawPlacement { task_definition: (2048, 3), ..RawPlacement::default() },
            "task definition `dev` is not allowed: the profile allows `node`",
        ),
        (
            RawPlacement { role: Some((2080, 7)), ..RawPlacement::default() },
            "role `because` is not allowed: the profile allows none",
        ),
        (
            RawPlacement {
                cpu_units: Some(u32::MAX),
                memory_mib: Some(u32::MAX),
                ..RawPlacement::default()
            },
            "size ",
        ),
        (RawPlacement { cpu_units: Some(0), memory_mib: Some(0), ..RawPlacement::default() }, ""),
        (
            RawPlacement { ephemeral_storage_gib: Some(u32::MAX), ..RawPlacement::default() },
            "ephemeral storage of 4294967295 GiB: Fargate offers 21 to 200 GiB",
        ),
    ] {
        match decided(&house, &strict(&house, &answering(&[raw], ""))) {
            Err(PolicyError::Rejected { reasons }) => {
                assert_eq!(
                    (reasons[0].code.as_str(), reasons[0].decided_by),
                    ("out-of-bounds", DecidedBy::Bounds)
                );
                assert!(reasons[0].message.starts_with(said), "{}", reasons[0].message);
            }
            // Nothing at all rounds up to the least that there is.
            Ok(decision) if said.is_empty() => {
                assert_eq!(decision.placements[0].size, Size { cpu_units: 256, memory_mib: 512 });
            }
            other => panic!("{said}: {other:?}"),
        }
    }
}

#[test]
fn memory_that_is_no_answer_is_a_wrong_answer() {
    let house = House::shared();
    for raw in [
        RawPlacement { arch: 2, ..RawPlacement::default() },
        RawPlacement { capacity: 255, ..RawPlacement::default() },
        RawPlacement { cluster: (u32::MAX, u32::MAX), ..RawPlacement::default() },
        RawPlacement { reason: (65_530, 100), ..RawPlacement::default() },
        RawPlacement { labels: (1, 1), ..RawPlacement::default() },
        RawPlacement { extra: (2048, u32::MAX), ..RawPlacement::default() },
    ] {
        let what = broken(decided(&house, &strict(&house, &answering(&[raw], ""))));
        assert!(what.to_string().starts_with("gave a wrong answer: "), "{what}");
    }
}

#[test]
fn a_million_lines_of_log_end_with_the_deadline_or_the_loop() {
    let house = House::shared();
    let guest = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        place: "(local $i i32)
            (loop
                (call $write (i32.const 3) (i32.const 8192) (i32.const 10000) (i32.const 0) (i32.const 0))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000000))))
            i32.const 1024",
        ..Guest::default()
    };
    match decided(&house, &strict(&house, &guest.placer())) {
        Err(PolicyError::NobodyAnswered { .. }) => {}
        Err(PolicyError::Broken { what, .. }) => {
            assert_eq!(what, BrokenKind::Deadline { deadline: DEADLINE });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_below_a_guest_is_that_policys_error_and_nothing_else() {
    let house = House::shared();
    let guest = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        place: "(call $write (i32.const 3) (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0)) i32.const 1024",
        ..Guest::default()
    };
    let policy = strict(&house, &guest.placer());
    crate::policy::imports::BUG.set(true);
    let what = broken(decided(&house, &policy));
    crate::policy::imports::BUG.set(false);
    assert_eq!(what, BrokenKind::Panic("the host's own fault".to_owned()));
    // The process goes on, and so does the same policy.
    assert!(matches!(decided(&house, &policy), Err(PolicyError::NobodyAnswered { .. })));
}

fn any_text(random: &mut SmallRng) -> String {
    const PIECES: [&str; 12] =
        ["dev", "node", "deploy", "\u{1b}[2J", "\n", "\u{202e}", "\0", "🚂", "x", "/", "`", "prod"];
    let length = match random.random_range(0..20) {
        0 => 5000,
        more => more % 5,
    };
    (0..length).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect()
}

fn any_placement(random: &mut SmallRng) -> types::Placement {
    let number = |random: &mut SmallRng| match random.random_range(0..5) {
        0 => None,
        1 => Some(u32::MAX),
        2 => Some(0),
        3 => Some(random.random_range(1..200)),
        _ => Some(random.random()),
    };
    let (cpu_units, memory_mib) = (number(random), number(random));
    let ephemeral_storage_gib = number(random);
    let pairs = |random: &mut SmallRng| {
        (0..random.random_range(0..20)).map(|_| (any_text(random), any_text(random))).collect()
    };
    types::Placement {
        cluster: any_text(random),
        task_definition: any_text(random),
        arch: if random.random() { catalog::Arch::Arm64 } else { catalog::Arch::X8664 },
        capacity: if random.random() {
            catalog::Capacity::Spot
        } else {
            catalog::Capacity::OnDemand
        },
        cpu_units,
        memory_mib,
        ephemeral_storage_gib,
        role: random.random::<bool>().then(|| any_text(random)),
        labels: pairs(random),
        extra: if random.random_range(0..100) == 0 { pairs(random) } else { Vec::new() },
        reason: any_text(random),
    }
}

#[test]
fn whatever_is_answered_converts_to_something_in_bounds_or_to_an_error() {
    let asked = Asked::with_tags(&[]);
    let mut random = SmallRng::seed_from_u64(0x0070_6f69_6e74);
    let (mut placed, mut refused) = (0, 0);
    for _ in 0..600 {
        let mut answer: Vec<_> =
            (0..random.random_range(0..36)).map(|_| any_placement(&mut random)).collect();
        // Names that fit now and then, or nothing would get further.
        for placement in &mut answer {
            if random.random_range(0..3) == 0 {
                continue;
            }
            placement.cluster = "dev".to_owned();
            placement.task_definition = "node".to_owned();
            if random.random() {
                placement.role = Some("deploy".to_owned());
                placement.ephemeral_storage_gib = None;
                placement.cpu_units = placement.cpu_units.map(|units| units % 4096);
                placement.memory_mib = placement.memory_mib.map(|mib| mib % 16_384);
                placement.labels.truncate(8);
            }
        }
        let Ok(candidates) = convert::candidates(answer) else {
            refused += 1;
            continue;
        };
        for candidate in candidates {
            let Ok(placement) = asked.bounds.check(&candidate, &asked.catalog) else {
                refused += 1;
                continue;
            };
            placed += 1;
            assert_eq!(
                (placement.cluster.as_str(), placement.task_definition.as_str()),
                ("dev", "node")
            );
            assert!(placement.size.cpu_units <= 4096 && placement.size.memory_mib <= 16_384);
            assert!(placement.ephemeral_storage_gib.is_none_or(|gib| gib <= 200));
            assert!(placement.role.is_none_or(|role| role == "deploy"));
            assert!(
                placement.reason.chars().count() <= 300
                    && !placement.reason.contains(char::is_control)
            );
            assert!(placement.labels.len() <= 16);
            assert!(placement.labels.iter().all(|(key, value)| {
                key.chars().count() <= 128
                    && value.chars().count() <= 256
                    && !value.contains(char::is_control)
            }));
        }
    }
    assert!(placed > 50 && refused > 100, "{placed} {refused}");
}

/// Changes bytes here and there, cuts off, or doubles a piece.
fn mutated(random: &mut SmallRng, bytes: &[u8], changes: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..=changes) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..8) {
            0 => bytes.truncate(at.max(9)),
            1 => {
                let end = (at + 20).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => bytes[at] = 0xff,
            _ => bytes[at] = random.random(),
        }
    }
    bytes
}

#[test]
fn whatever_bytes_are_loaded_the_process_survives() {
    let house = House::new();
    let mut random = SmallRng::seed_from_u64(0x006d_616e);
    let asked = Asked::with_tags(&["dev"]);
    let small = Guest::default().placer();
    let by_tag = fs::read(file_of(&by_tag(rules()))).unwrap();
    let (mut refused, mut ran) = (0, 0);
    for round in 0..250 {
        // Most changes to the large one are found by validation; compiling it takes this build a second.
        let bytes = if round % 12 == 0 {
            mutated(&mut random, &by_tag, 200)
        } else {
            mutated(&mut random, &small, 3)
        };
        let policy =
            Policy { fuel: 5_000_000, deadline: ROOM, memory_mib: 8, ..house.policy(&bytes) };
        match asked.decide(&house, &[("mutant", &policy)]) {
            Err(PolicyError::Broken { .. } | PolicyError::Settings { .. }) => refused += 1,
            Ok(_) | Err(PolicyError::NobodyAnswered { .. } | PolicyError::Rejected { .. }) => {
                ran += 1
            }
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    assert!(refused > 20 && ran > 5, "{refused} refused, {ran} ran");
}
