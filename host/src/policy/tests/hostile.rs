//! Guests that mean harm, each against the real chain: it ends in time, with one line that names the policy, and
//! the process goes on. `tests/driver/hostile_policies.rs` plays the same through the binary.

use super::guests::{DECISION, RawPlacement};
use super::villains::{self, Ends, Villain, villains};
use super::*;

/// Beyond its deadline a call may take this long: the machine may be busy.
const ROOM: Duration = Duration::from_secs(20);

fn plays(villain: Villain) {
    let house = House::shared();
    let written = house.policy(&villain.component);
    let policy = Policy {
        fuel: villain.fuel.unwrap_or(written.fuel),
        memory_mib: villain.memory_mib.unwrap_or(written.memory_mib),
        deadline: villain.deadline,
        ..written
    };
    let mut asked = Asked::with_tags(&["dev"]);
    let cluster = asked.catalog.clusters["dev"].clone();
    asked.catalog.clusters.insert("prod".to_owned(), cluster);
    asked.catalog.roles.insert("admin".to_owned(), Role { privileged: true });
    // Compiling has no deadline; what cannot even be installed says the same again.
    let _ = house.store.ensure("bad", &policy);
    let started = Instant::now();
    let mut trace = Trace::default();
    let result = decide_traced(&asked.question(), &[("bad", &policy)], &house.store, &mut trace);
    assert!(started.elapsed() < villain.deadline + ROOM, "{:?}", started.elapsed());
    assert!(trace.notices.len() <= 20, "{} notices", trace.notices.len());
    assert!(!trace.notices.iter().any(|notice| notice.contains(char::is_control)));
    if let Err(error) = &result {
        let text = error.to_string();
        let most = if matches!(villain.ends, Ends::Complains) { 16_000 } else { 2000 };
        assert!(text.contains("bad") && text.len() < most, "{} bytes: {text:.200}", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    match (villain.ends, result) {
        (Ends::Broken(words), Err(PolicyError::Broken { policy, what })) => {
            assert_eq!(policy, "bad");
            assert!(what.to_string().starts_with(words), "{what}");
        }
        (Ends::Refused(words), Err(PolicyError::Rejected { reasons })) => {
            let [reason] = &reasons[..] else { panic!("{reasons:?}") };
            assert!(reason.message.starts_with(words), "{}", reason.message);
            assert!(reason.message.chars().count() <= 500, "{}", reason.message.len());
        }
        (Ends::Placed, Ok(placements)) => {
            let [placement] = &placements[..] else { panic!("{placements:?}") };
            assert_eq!(placement.cluster, "dev");
            assert!(placement.reason.chars().count() <= 300, "{}", placement.reason.len());
            assert!(!placement.reason.contains(char::is_control));
            for (key, value) in &placement.labels {
                assert!(
                    key.chars().count() <= 128 && value.chars().count() <= 256,
                    "{key} {value}"
                );
                assert!(key.starts_with("bad/x") && !value.contains(char::is_control), "{key}");
            }
        }
        (Ends::Complains, Err(PolicyError::Settings { problems, .. })) => {
            assert_eq!(problems.len(), 21);
            assert_eq!(problems[20], "and 980 more");
        }
        (Ends::InTime, Err(PolicyError::NobodyAnswered { .. })) => {}
        (Ends::InTime, Err(PolicyError::Broken { what, .. })) => {
            assert_eq!(what, BrokenKind::Deadline { deadline: villain.deadline });
        }
        (expected, other) => panic!("{expected:?} was expected: {other:?}"),
    }
    // The process goes on, and decides.
    let good = by_tag(rules());
    assert_eq!(asked.decide(&house, &[("by-tag", &good)]).unwrap().placements.len(), 1);
}

macro_rules! tests {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                plays(villains::$name());
            }
        )*
    };
}
villains!(tests);

#[test]
fn a_good_answer_in_raw_memory_is_taken() {
    let house = House::shared();
    let place: &'static str = format!("i32.const {DECISION}").leak();
    let data = RawPlacement::answer(&[RawPlacement::default()]);
    let good = house.policy(&Guest { data, place, ..Guest::default() }.placer());
    let decision = Asked::with_tags(&["dev"]).decide(&house, &[("good", &good)]).unwrap();
    assert_eq!(decision.placements[0].cluster, "dev");
    assert_eq!(decision.placements[0].reason, "because");
}

#[test]
fn the_least_size_is_what_nothing_rounds_up_to() {
    let house = House::shared();
    let nothing = house.policy(&villains::makes_a_size_of_saturated_nan().component);
    let decision = Asked::with_tags(&["dev"]).decide(&house, &[("bad", &nothing)]).unwrap();
    assert_eq!(decision.placements[0].size.cpu_units, 256);
}

#[test]
fn a_panic_below_a_guest_is_that_policys_error_and_nothing_else() {
    let house = House::shared();
    let guest = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        place: "(call $write (i32.const 3) (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0)) i32.const 1024",
        ..Guest::default()
    };
    let policy = house.policy(&guest.placer());
    house.compiled(&policy);
    let asked = Asked::with_tags(&["dev"]);
    crate::policy::imports::BUG.set(true);
    let what = broken(asked.decide(&house, &[("bad", &policy)]));
    crate::policy::imports::BUG.set(false);
    assert_eq!(what, BrokenKind::Panic("the host's own fault".to_owned()));
    // The process goes on, and so does the same policy.
    let again = asked.decide(&house, &[("bad", &policy)]);
    assert!(matches!(again, Err(PolicyError::NobodyAnswered { .. })));
}

#[test]
fn the_deadline_ends_what_the_fuel_does_not() {
    let house = House::shared();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    let policy =
        Policy { fuel: u64::MAX / 2, deadline: Duration::from_millis(50), ..house.policy(&spins) };
    house.compiled(&policy);
    let started = Instant::now();
    let what = broken(Asked::with_tags(&[]).decide(&house, &[("spins", &policy)]));
    assert_eq!(what, BrokenKind::Deadline { deadline: Duration::from_millis(50) });
    assert!(started.elapsed() >= Duration::from_millis(50));
    // And again: the clock's thread goes on.
    let what = broken(Asked::with_tags(&[]).decide(&house, &[("spins", &policy)]));
    assert_eq!(what, BrokenKind::Deadline { deadline: Duration::from_millis(50) });
}

#[test]
fn a_deadline_of_one_call_leaves_others_alone() {
    let house = House::shared();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    let short =
        Policy { fuel: u64::MAX / 2, deadline: Duration::from_millis(30), ..house.policy(&spins) };
    let long = Policy { deadline: Duration::from_millis(300), ..short.clone() };
    house.compiled(&short);
    let asked = Asked::with_tags(&[]);
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| {
            let started = Instant::now();
            broken(asked.decide(&house, &[("long", &long)]));
            started.elapsed()
        });
        for _ in 0..3 {
            broken(asked.decide(&house, &[("short", &short)]));
        }
        assert!(patient.join().unwrap() >= Duration::from_millis(300));
    });
}
