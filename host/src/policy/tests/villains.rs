//! Guests that mean harm, one function each, and how the job ends that meets one. The tests of the chain and
//! those through the real binary play all of them.
//!
//! They know a cluster `dev`, a task definition `node` and, out of bounds, a cluster `prod` and a role `admin`.

use std::time::Duration;

use super::guests::{ADMIN, CPU_UNITS, DECISION, FIRST, Guest, NOWHERE, PROD, RawPlacement};

/// What a job meets, and how it ends.
pub(crate) struct Villain {
    pub(crate) component: Vec<u8>,
    pub(crate) ends: Ends,
    /// Where the test needs another budget than the default.
    pub(crate) fuel: Option<u64>,
    pub(crate) memory_mib: Option<u32>,
    /// Short only where the deadline is the point: a busy machine shall not turn other ends into that one.
    pub(crate) deadline: Duration,
}

/// How a job ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ends {
    /// The policy broke its contract, which is told in these words after its name.
    Broken(&'static str),
    /// The job may not run there, for this reason.
    Refused(&'static str),
    /// What was answered is allowed, once it is cleaned.
    Placed,
    /// It says itself that its settings are wrong, in words that are cut.
    Complains,
    /// Nobody answered, or the deadline came first.
    InTime,
}

/// Plays all of them by the macro `$each`.
macro_rules! villains {
    ($each:ident) => {
        $each! {
            spins,
            spins_with_fuel_left,
            grows_memory,
            grows_a_table,
            declares_a_huge_table,
            recurses,
            panics,
            divides_by_zero,
            answers_100_megabytes,
            answers_100_000_placements,
            answers_no_placement,
            answers_33_placements,
            answers_an_unknown_case,
            answers_an_unknown_architecture,
            answers_an_unknown_capacity,
            answers_a_text_beyond_its_memory,
            answers_a_text_that_is_no_unicode,
            answers_a_list_out_of_line,
            answers_fields_that_nobody_knows,
            points_at_no_memory,
            names_a_cluster_that_does_not_exist,
            names_a_cluster_out_of_bounds,
            names_a_task_definition_that_does_not_exist,
            names_a_role_that_does_not_exist,
            names_a_role_out_of_bounds,
            makes_a_size_of_nan,
            makes_a_size_of_saturated_nan,
            makes_a_size_of_infinity,
            makes_a_size_that_overflows,
            makes_a_storage_that_overflows,
            gives_a_reason_of_a_megabyte_of_escapes,
            gives_labels_of_a_megabyte_of_bells,
            refuses_with_a_megabyte_of_newlines,
            logs_a_million_times,
            notices_a_million_times,
            panics_when_it_describes_itself,
            describes_itself_in_a_megabyte_of_escapes,
            complains_of_its_settings_without_end,
            lacks_every_export,
            lacks_the_functions_of_its_exports,
            imports_wasi_http,
            imports_wasi_without_a_grant,
            imports_something_unknown,
            imports_a_fact_of_a_newer_driver,
            imports_a_fact_of_an_endless_name,
            is_a_core_module,
            is_cut_off,
            is_empty,
            is_a_shell_script,
            is_another_component_altogether,
        }
    };
}
pub(crate) use villains;

impl Villain {
    fn new(component: Vec<u8>, ends: Ends) -> Self {
        let deadline = Duration::from_secs(20);
        Self { component, ends, fuel: None, memory_mib: None, deadline }
    }

    /// A placer that does `place`.
    fn placing(place: &'static str, ends: Ends) -> Self {
        Self::new(Guest { place, ..Guest::default() }.placer(), ends)
    }

    /// A placer that answers `placement` after it did `before`.
    fn answering(placement: RawPlacement, before: &str, ends: Ends) -> Self {
        Self::ranking(&[placement], before, ends)
    }

    fn ranking(placements: &[RawPlacement], before: &str, ends: Ends) -> Self {
        // Guests hold literals; a test's few bytes may stay.
        let place: &'static str = format!("{before} i32.const {DECISION}").leak();
        let data = RawPlacement::answer(placements);
        Self::new(Guest { data, place, ..Guest::default() }.placer(), ends)
    }

    /// A component in text.
    fn text(text: &str, ends: Ends) -> Self {
        Self::new(wat::parse_str(text).unwrap(), ends)
    }
}

// --- What takes too much ---

pub(crate) fn spins() -> Villain {
    let villain =
        Villain::placing("(loop (br 0)) unreachable", Ends::Broken("used up its fuel of 1000000"));
    Villain { fuel: Some(1_000_000), ..villain }
}

pub(crate) fn spins_with_fuel_left() -> Villain {
    let villain =
        Villain::placing("(loop (br 0)) unreachable", Ends::Broken("did not answer within 100ms"));
    Villain { fuel: Some(100_000_000_000), deadline: Duration::from_millis(100), ..villain }
}

pub(crate) fn grows_memory() -> Villain {
    Villain::placing(
        "(loop (drop (memory.grow (i32.const 16))) (br 0)) unreachable",
        Ends::Broken("wanted more memory than its 64 MiB"),
    )
}

pub(crate) fn grows_a_table() -> Villain {
    let guest = Guest {
        functions: "(table $t 1 funcref)",
        place: "(loop (drop (table.grow $t (ref.null func) (i32.const 50000))) (br 0)) unreachable",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Broken("wanted more memory than its 64 MiB"))
}

pub(crate) fn declares_a_huge_table() -> Villain {
    let guest = Guest { functions: "(table 100000000 funcref)", ..Guest::default() };
    Villain::new(guest.placer(), Ends::Broken("wanted more memory than its 64 MiB"))
}

pub(crate) fn recurses() -> Villain {
    let guest = Guest {
        functions: "(func $deep (param i64 i64 i64 i64) (result i64)
            (i64.add (local.get 0) (call $deep (local.get 3) (local.get 2) (local.get 1) (local.get 0))))",
        place: "(drop (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4))) i32.const 1024",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Broken("crashed: call stack exhausted"))
}

pub(crate) fn panics() -> Villain {
    Villain::placing(
        "unreachable",
        Ends::Broken("crashed: it panicked (`unreachable` was executed)"),
    )
}

pub(crate) fn divides_by_zero() -> Villain {
    Villain::placing(
        "(i32.div_u (i32.const 1) (i32.const 0))",
        Ends::Broken("crashed: integer divide by zero"),
    )
}

pub(crate) fn answers_100_megabytes() -> Villain {
    let guest = Guest {
        // A rejection whose message has 100,000,000 bytes.
        data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\e1\f5\05")"#,
        place: "(drop (memory.grow (i32.const 1600))) i32.const 2048",
        ..Guest::default()
    };
    let ends = Ends::Broken("moved more than 1024 KiB of data at once");
    Villain { memory_mib: Some(256), ..Villain::new(guest.placer(), ends) }
}

pub(crate) fn answers_100_000_placements() -> Villain {
    let guest = Guest {
        // From address 65,536 on, all zeros: eight million bytes.
        data: r#"(data (i32.const 2048) "\00\00\00\00\00\00\01\00\a0\86\01\00")"#,
        place: "(drop (memory.grow (i32.const 160))) i32.const 2048",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Broken("moved more than 1024 KiB of data at once"))
}

// --- Answers that are none ---

pub(crate) fn answers_no_placement() -> Villain {
    Villain::placing(
        "i32.const 3000",
        Ends::Broken("gave a wrong answer: an empty list of placements"),
    )
}

pub(crate) fn answers_33_placements() -> Villain {
    let placements: Vec<_> = (0..33).map(|_| RawPlacement::default()).collect();
    Villain::ranking(
        &placements,
        "",
        Ends::Broken("gave a wrong answer: 33 placements, at most 32 are allowed"),
    )
}

pub(crate) fn answers_an_unknown_case() -> Villain {
    let guest = Guest {
        data: r#"(data (i32.const 2048) "\09")"#,
        place: "i32.const 2048",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Broken("gave a wrong answer: "))
}

fn wrong(placement: RawPlacement) -> Villain {
    Villain::answering(placement, "", Ends::Broken("gave a wrong answer: "))
}

pub(crate) fn answers_an_unknown_architecture() -> Villain {
    wrong(RawPlacement { arch: 2, ..RawPlacement::default() })
}

pub(crate) fn answers_an_unknown_capacity() -> Villain {
    wrong(RawPlacement { capacity: 255, ..RawPlacement::default() })
}

pub(crate) fn answers_a_text_beyond_its_memory() -> Villain {
    wrong(RawPlacement { reason: (65_530, 100), ..RawPlacement::default() })
}

pub(crate) fn answers_a_text_that_is_no_unicode() -> Villain {
    Villain::answering(
        RawPlacement { cluster: (4000, 3), ..RawPlacement::default() },
        "(memory.fill (i32.const 4000) (i32.const 255) (i32.const 3))",
        Ends::Broken("gave a wrong answer: "),
    )
}

pub(crate) fn answers_a_list_out_of_line() -> Villain {
    wrong(RawPlacement { labels: (1, 1), ..RawPlacement::default() })
}

pub(crate) fn answers_fields_that_nobody_knows() -> Villain {
    Villain::answering(
        RawPlacement { extra: (4000, 1), ..RawPlacement::default() },
        "",
        Ends::Broken("gave a wrong answer: a placement with the field `` in `extra`"),
    )
}

pub(crate) fn points_at_no_memory() -> Villain {
    Villain::placing("i32.const -4", Ends::Broken("gave a wrong answer: "))
}

// --- Names and sizes out of bounds ---

fn out_of_bounds(placement: RawPlacement, reason: &'static str) -> Villain {
    Villain::answering(placement, "", Ends::Refused(reason))
}

pub(crate) fn names_a_cluster_that_does_not_exist() -> Villain {
    out_of_bounds(
        RawPlacement { cluster: NOWHERE, ..RawPlacement::default() },
        "cluster `nowhere` is not allowed: the profile allows `dev`",
    )
}

pub(crate) fn names_a_cluster_out_of_bounds() -> Villain {
    out_of_bounds(
        RawPlacement { cluster: PROD, ..RawPlacement::default() },
        "cluster `prod` is not allowed: the profile allows `dev`",
    )
}

pub(crate) fn names_a_task_definition_that_does_not_exist() -> Villain {
    out_of_bounds(
        RawPlacement { task_definition: NOWHERE, ..RawPlacement::default() },
        "task definition `nowhere` is not allowed: the profile allows `node`",
    )
}

pub(crate) fn names_a_role_that_does_not_exist() -> Villain {
    out_of_bounds(
        RawPlacement { role: Some(NOWHERE), ..RawPlacement::default() },
        "role `nowhere` is not allowed: the profile allows `deploy`",
    )
}

pub(crate) fn names_a_role_out_of_bounds() -> Villain {
    out_of_bounds(
        RawPlacement { role: Some(ADMIN), ..RawPlacement::default() },
        "role `admin` is not allowed: the profile allows `deploy`",
    )
}

/// The CPU units are what `number` computes.
fn of_size(number: &str, ends: Ends) -> Villain {
    let at = FIRST + CPU_UNITS;
    Villain::answering(
        RawPlacement { cpu_units: Some(1), ..RawPlacement::default() },
        &format!("(i32.store (i32.const {at}) {number})"),
        ends,
    )
}

pub(crate) fn makes_a_size_of_nan() -> Villain {
    of_size(
        "(i32.trunc_f64_u (f64.const nan))",
        Ends::Broken("crashed: invalid conversion to integer"),
    )
}

/// Zero, which is rounded up to the least that there is.
pub(crate) fn makes_a_size_of_saturated_nan() -> Villain {
    of_size("(i32.trunc_sat_f64_u (f64.const nan))", Ends::Placed)
}

/// As many units as a number can tell.
pub(crate) fn makes_a_size_of_infinity() -> Villain {
    of_size("(i32.trunc_sat_f64_u (f64.const inf))", Ends::Refused("size "))
}

pub(crate) fn makes_a_size_that_overflows() -> Villain {
    let all = Some(u32::MAX);
    out_of_bounds(
        RawPlacement { cpu_units: all, memory_mib: all, ..RawPlacement::default() },
        "size ",
    )
}

pub(crate) fn makes_a_storage_that_overflows() -> Villain {
    out_of_bounds(
        RawPlacement { ephemeral_storage_gib: Some(u32::MAX), ..RawPlacement::default() },
        "ephemeral storage of 4294967295 GiB: Fargate offers 21 to 200 GiB",
    )
}

// --- Texts ---

pub(crate) fn gives_a_reason_of_a_megabyte_of_escapes() -> Villain {
    Villain::answering(
        RawPlacement { reason: (65_536, 1_000_000), ..RawPlacement::default() },
        "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 27) (i32.const 500000))
        (memory.fill (i32.const 565536) (i32.const 120) (i32.const 500000))",
        Ends::Placed,
    )
}

pub(crate) fn gives_labels_of_a_megabyte_of_bells() -> Villain {
    Villain::answering(
        RawPlacement { labels: (4000, 1), ..RawPlacement::default() },
        "(drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 120) (i32.const 100000))
        (memory.fill (i32.const 165536) (i32.const 7) (i32.const 900000))
        (i32.store (i32.const 4000) (i32.const 65536)) (i32.store (i32.const 4004) (i32.const 100000))
        (i32.store (i32.const 4008) (i32.const 165536)) (i32.store (i32.const 4012) (i32.const 900000))",
        Ends::Placed,
    )
}

pub(crate) fn refuses_with_a_megabyte_of_newlines() -> Villain {
    let guest = Guest {
        // A rejection whose message has 1,000,000 bytes from address 65,536 on.
        data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\00\00\00\00\00\00\00\00\01\00\40\42\0f\00")"#,
        place: "(drop (memory.grow (i32.const 16)))
            (memory.fill (i32.const 65536) (i32.const 10) (i32.const 500000))
            (memory.fill (i32.const 565536) (i32.const 120) (i32.const 500000)) i32.const 2048",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Refused("xxxxx"))
}

/// Calls the import again and again; the host may be slow to copy, hence the deadline.
fn a_million_times(imports: &'static str, call: &str) -> Villain {
    let place: &'static str = format!(
        "(local $i i32)
        (loop
            {call}
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000000))))
        i32.const 1024"
    )
    .leak();
    let guest = Guest { imports, place, ..Guest::default() };
    let deadline = Duration::from_millis(500);
    Villain { deadline, ..Villain::new(guest.placer(), Ends::InTime) }
}

pub(crate) fn logs_a_million_times() -> Villain {
    a_million_times(
        r#"(import "pointsman:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        "(call $write (i32.const 3) (i32.const 8192) (i32.const 10000) (i32.const 0) (i32.const 0))",
    )
}

pub(crate) fn notices_a_million_times() -> Villain {
    a_million_times(
        r#"(import "pointsman:policy/log@0.1.0" "notice" (func $notice (param i32 i32)))"#,
        "(call $notice (i32.const 1024) (i32.const 1))",
    )
}

// --- Components that are none of ours ---

pub(crate) fn panics_when_it_describes_itself() -> Villain {
    let guest = Guest { describe: "unreachable", ..Guest::default() };
    Villain::new(guest.placer(), Ends::Broken("crashed: it panicked (`unreachable` was executed)"))
}

pub(crate) fn describes_itself_in_a_megabyte_of_escapes() -> Villain {
    let guest = Guest {
        describe: "(drop (memory.grow (i32.const 16)))
            (memory.fill (i32.const 65536) (i32.const 27) (i32.const 900000))
            (i32.store (i32.const 2048) (i32.const 65536)) (i32.store (i32.const 2052) (i32.const 900000))
            i32.const 2048",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::InTime)
}

pub(crate) fn complains_of_its_settings_without_end() -> Villain {
    let guest = Guest {
        // A thousand problems from address 65,536 on, each with a message of 500 letters and no path.
        validate_settings: "(local $at i32)
            (drop (memory.grow (i32.const 4)))
            (memory.fill (i32.const 4000) (i32.const 120) (i32.const 500))
            (local.set $at (i32.const 65536))
            (loop
                (i32.store offset=8 (local.get $at) (i32.const 4000))
                (i32.store offset=12 (local.get $at) (i32.const 500))
                (local.set $at (i32.add (local.get $at) (i32.const 16)))
                (br_if 0 (i32.lt_u (local.get $at) (i32.const 81536))))
            (i32.store (i32.const 2048) (i32.const 65536)) (i32.store (i32.const 2052) (i32.const 1000))
            i32.const 2048",
        ..Guest::default()
    };
    Villain::new(guest.placer(), Ends::Complains)
}

pub(crate) fn lacks_every_export() -> Villain {
    Villain::text(
        "(component)",
        Ends::Broken("lacks an export: `placer`, `mutator` or `guard` of "),
    )
}

pub(crate) fn lacks_the_functions_of_its_exports() -> Villain {
    Villain::text(
        r#"(component
            (instance $i) (export "pointsman:policy/placer@0.1.0" (instance $i))
            (export "pointsman:policy/lifecycle@0.1.0" (instance $i)))"#,
        Ends::Broken("does not fit this driver's policy interface: "),
    )
}

pub(crate) fn imports_wasi_http() -> Villain {
    Villain::text(
        r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#,
        Ends::Broken("imports what policies do not get: `wasi:http/outgoing-handler@0.2.0`"),
    )
}

pub(crate) fn imports_wasi_without_a_grant() -> Villain {
    Villain::text(
        r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#,
        Ends::Broken("imports what policies do not get: `wasi:cli/environment@0.2.0`; "),
    )
}

pub(crate) fn imports_something_unknown() -> Villain {
    Villain::text(
        r#"(component (import "evil" (func)))"#,
        Ends::Broken("imports what policies do not get: `evil`"),
    )
}

pub(crate) fn imports_a_fact_of_a_newer_driver() -> Villain {
    Villain::text(
        r#"(component
            (import "pointsman:policy/facts@0.1.7" (instance (export "shoe-size" (func (result u32)))))
            (instance $i) (export "pointsman:policy/placer@0.1.0" (instance $i))
            (export "pointsman:policy/lifecycle@0.1.0" (instance $i)))"#,
        Ends::Broken(
            "does not fit this driver's policy interface: component imports instance \
             `pointsman:policy/facts@0.1.7`, but a matching implementation was not found in the linker: ",
        ),
    )
}

pub(crate) fn imports_a_fact_of_an_endless_name() -> Villain {
    let name = format!("a{}", "-a".repeat(50_000));
    let text = format!(
        r#"(component
            (import "pointsman:policy/facts@0.1.0" (instance (export "{name}" (func (result u32)))))
            (instance $i) (export "pointsman:policy/placer@0.1.0" (instance $i))
            (export "pointsman:policy/lifecycle@0.1.0" (instance $i)))"#
    );
    Villain::text(&text, Ends::Broken(""))
}

fn no_component(bytes: Vec<u8>, why: &'static str) -> Villain {
    Villain::new(bytes, Ends::Broken(why))
}

pub(crate) fn is_a_core_module() -> Villain {
    no_component(
        wat::parse_str("(module)").unwrap(),
        "is not a WebAssembly component: a core module; `wasm-tools component new` makes a component of it",
    )
}

pub(crate) fn is_cut_off() -> Villain {
    let mut good = Guest::default().placer();
    good.truncate(good.len() / 2);
    no_component(good, "is not a WebAssembly component: ")
}

pub(crate) fn is_empty() -> Villain {
    no_component(Vec::new(), "is not a WebAssembly component: the file is empty")
}

pub(crate) fn is_a_shell_script() -> Villain {
    no_component(
        b"#!/bin/sh\n".to_vec(),
        "is not a WebAssembly component: it does not begin as WebAssembly does",
    )
}

pub(crate) fn is_another_component_altogether() -> Villain {
    Villain::text(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "run") (canon lift (core func $i "f"))))"#,
        Ends::Broken("lacks an export: "),
    )
}
