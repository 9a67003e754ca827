//! Random answers and random changes to good components: bounded, and the same each time.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::bindings::{catalog, types};
use super::super::convert;
use super::*;

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
        let policy = Policy {
            fuel: 5_000_000,
            deadline: Duration::from_secs(20),
            memory_mib: 8,
            ..house.policy(&bytes)
        };
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
