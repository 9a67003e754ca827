//! Fargate's grid of CPU and memory, and the free choice on instances.
//!
//! The table is the developer guide's ("Task size"); the 32 vCPU row is in it and in CDK, though not in
//! the API reference's text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pair of CPU and memory; on Fargate one that it offers (Linux).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// CPU units; 1,024 are one vCPU.
    pub cpu_units: u32,
    /// MiB.
    pub memory_mib: u32,
}

impl Size {
    /// The smallest pair of the grid.
    pub const SMALLEST: Self = Self { cpu_units: 256, memory_mib: 512 };
    /// The largest pair of the grid.
    pub const LARGEST: Self = Self { cpu_units: 32_768, memory_mib: 249_856 };
    /// What a task definition without a size in the settings file gets.
    pub const DEFAULT: Self = Self { cpu_units: 1024, memory_mib: 2048 };
    /// What the ECS task definition says itself. The driver does not know it, and overrides nothing.
    pub const OWN: Self = Self { cpu_units: 0, memory_mib: 0 };

    /// Whether it is [`Self::OWN`].
    pub fn is_own(self) -> bool {
        self == Self::OWN
    }

    fn in_numbers(self) -> String {
        let vcpu = f64::from(self.cpu_units) / 1024.0;
        let gib = f64::from(self.memory_mib) / 1024.0;
        format!("{vcpu} vCPU / {gib} GiB")
    }
}

impl fmt::Display for Size {
    /// `0.5 vCPU / 2 GiB`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_own() {
            return formatter.pad("the task definition's size");
        }
        formatter.pad(&self.in_numbers())
    }
}

/// What Fargate offers for one amount of CPU.
struct Row {
    cpu_units: u32,
    /// MiB, ascending, never empty.
    memory: Memory,
}

enum Memory {
    OneOf(&'static [u32]),
    /// From, to (inclusive), step.
    Range(u32, u32, u32),
}

const GIB: u32 = 1024;

const GRID: [Row; 8] = [
    Row { cpu_units: 256, memory: Memory::OneOf(&[512, GIB, 2 * GIB]) },
    Row { cpu_units: 512, memory: Memory::Range(GIB, 4 * GIB, GIB) },
    Row { cpu_units: 1024, memory: Memory::Range(2 * GIB, 8 * GIB, GIB) },
    Row { cpu_units: 2048, memory: Memory::Range(4 * GIB, 16 * GIB, GIB) },
    Row { cpu_units: 4096, memory: Memory::Range(8 * GIB, 30 * GIB, GIB) },
    Row { cpu_units: 8192, memory: Memory::Range(16 * GIB, 60 * GIB, 4 * GIB) },
    Row { cpu_units: 16_384, memory: Memory::Range(32 * GIB, 120 * GIB, 8 * GIB) },
    Row { cpu_units: 32_768, memory: Memory::OneOf(&[60 * GIB, 120 * GIB, 244 * GIB]) },
];

impl Row {
    /// The smallest memory of this row that is at least `mib`.
    fn at_least(&self, mib: u32) -> Option<u32> {
        match self.memory {
            Memory::OneOf(amounts) => amounts.iter().copied().find(|&amount| amount >= mib),
            Memory::Range(from, to, step) if mib <= to => {
                Some(from + mib.saturating_sub(from).div_ceil(step) * step)
            }
            Memory::Range(..) => None,
        }
    }

    /// The largest memory of this row that is at most `mib`, or the row's smallest.
    fn at_most(&self, mib: u32) -> u32 {
        match self.memory {
            Memory::OneOf(amounts) => {
                let fitting = amounts.iter().copied().rfind(|&amount| amount <= mib);
                fitting.or(amounts.first().copied()).unwrap_or(mib)
            }
            Memory::Range(from, to, step) => from + mib.min(to).saturating_sub(from) / step * step,
        }
    }
}

/// A size that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Fargate has nothing that large.
    #[error("{asked} is more than Fargate offers, at most {}", Size::LARGEST)]
    NotOffered {
        /// What was asked, with defaults filled in.
        asked: Size,
    },
    /// The profile's bounds do not allow it.
    #[error(
        "{asked} {}, and the profile allows at most {}",
        if .asked == .fitted { "is too large".to_owned() } else { format!("rounds up to {fitted}") },
        .max.in_numbers()
    )]
    TooLarge {
        /// What was asked, with defaults filled in.
        asked: Size,
        /// The next pair that Fargate offers.
        fitted: Size,
        /// The bounds.
        max: Size,
    },
}

/// The smallest pair that Fargate offers and that has at least the CPU units and the MiB that were asked.
///
/// What was not asked comes from `default`, and there is room then: memory follows the CPU into the range
/// that Fargate offers with it and into the bounds, CPU grows when the memory needs it.
///
/// # Errors
///
/// Returns an error when Fargate offers nothing that large or `max` does not allow the pair.
pub fn fit(
    cpu: Option<u32>,
    memory: Option<u32>,
    default: Size,
    max: Size,
) -> Result<Size, SizeError> {
    let asked = Size {
        cpu_units: cpu.unwrap_or(default.cpu_units),
        memory_mib: memory.unwrap_or(default.memory_mib),
    };
    let mut rows = GRID.iter().filter(|row| row.cpu_units >= asked.cpu_units);
    let fitted = if cpu.is_some() && memory.is_none() {
        rows.next().map(|row| (row, row.at_most(asked.memory_mib.min(max.memory_mib))))
    } else {
        rows.find_map(|row| Some((row, row.at_least(asked.memory_mib)?)))
    };
    let Some((row, memory_mib)) = fitted else { return Err(SizeError::NotOffered { asked }) };
    let fitted = Size { cpu_units: row.cpu_units, memory_mib };
    if fitted.cpu_units > max.cpu_units || fitted.memory_mib > max.memory_mib {
        return Err(SizeError::TooLarge { asked, fitted, max });
    }
    Ok(fitted)
}

/// The most CPU, and the most memory, of all pairs that Fargate offers within `max`; `None` when there are none.
pub fn largest_within(max: Size) -> Option<Size> {
    let rows = GRID.iter().filter(|row| row.cpu_units <= max.cpu_units);
    let fitting = rows.filter_map(|row| {
        let memory_mib = row.at_most(max.memory_mib);
        (memory_mib <= max.memory_mib).then_some(Size { cpu_units: row.cpu_units, memory_mib })
    });
    fitting.reduce(|most, next| Size {
        cpu_units: most.cpu_units.max(next.cpu_units),
        memory_mib: most.memory_mib.max(next.memory_mib),
    })
}

/// What ECS takes as a task's CPU units on instances (API reference, RegisterTaskDefinition, `cpu`).
const CPU_ON_INSTANCES: std::ops::RangeInclusive<u32> = 128..=196_608;

/// The same for tasks on instances, where no grid binds and nothing is rounded, except up to ECS's least.
///
/// # Errors
///
/// Returns an error when `max` does not allow the pair.
pub fn fit_on_instances(
    cpu: Option<u32>,
    memory: Option<u32>,
    default: Size,
    max: Size,
) -> Result<Size, SizeError> {
    let asked = Size {
        cpu_units: cpu.unwrap_or(default.cpu_units),
        memory_mib: memory.unwrap_or(default.memory_mib),
    };
    let fitted = Size { cpu_units: asked.cpu_units.max(*CPU_ON_INSTANCES.start()), ..asked };
    let most = max.cpu_units.min(*CPU_ON_INSTANCES.end());
    if fitted.cpu_units > most || fitted.memory_mib > max.memory_mib {
        return Err(SizeError::TooLarge { asked, fitted, max });
    }
    Ok(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(cpu_units: u32, memory_mib: u32) -> Size {
        Size { cpu_units, memory_mib }
    }

    #[test]
    fn what_of_a_bound_can_be_had() {
        for (max, expected) in [
            (size(4096, 16 * GIB), Some(size(4096, 16 * GIB))),
            (size(3072, 16 * GIB), Some(size(2048, 16 * GIB))),
            (size(1024, 16 * GIB), Some(size(1024, 8 * GIB))),
            (size(8192, 9 * GIB), Some(size(4096, 9 * GIB))),
            (size(255, 16 * GIB), None),
            (size(1024, 100), None),
        ] {
            assert_eq!(largest_within(max), expected, "{max}");
        }
    }

    /// The corners of the developer guide's table.
    #[test]
    fn the_grid_is_the_developer_guides() {
        for (cpu, from, second, to) in [
            (256, 512, 1024, 2048),
            (512, 1024, 2048, 4096),
            (1024, 2048, 3072, 8192),
            (2048, 4096, 5120, 16_384),
            (4096, 8192, 9216, 30_720),
            (8192, 16_384, 20_480, 61_440),
            (16_384, 32_768, 40_960, 122_880),
            (32_768, 61_440, 122_880, 249_856),
        ] {
            let row = GRID.iter().find(|row| row.cpu_units == cpu).unwrap();
            assert_eq!(row.at_least(0), Some(from), "{cpu}");
            assert_eq!(row.at_least(from + 1), Some(second), "{cpu}");
            assert_eq!(row.at_least(to), Some(to), "{cpu}");
            assert_eq!(row.at_least(to + 1), None, "{cpu}");
            assert_eq!(row.at_most(u32::MAX), to, "{cpu}");
            assert_eq!(row.at_most(second - 1), from, "{cpu}");
            assert_eq!(row.at_most(0), from, "{cpu}");
        }
    }

    #[test]
    fn sizes_round_up_to_what_is_offered() {
        for (cpu, memory, expected) in [
            (None, None, size(1024, 2048)),
            (Some(1024), Some(2048), size(1024, 2048)),
            (Some(1), Some(1), size(256, 512)),
            (Some(525), Some(2048), size(1024, 2048)),
            (Some(256), Some(3000), size(512, 3072)),
            (Some(1024), Some(9000), size(2048, 9216)),
            (Some(8192), Some(17_000), size(8192, 20_480)),
            (Some(32_768), Some(61_441), size(32_768, 122_880)),
            (Some(300), Some(249_856), size(32_768, 249_856)),
            // CPU grows when only the memory was asked, and shrinks never below the default.
            (None, Some(16_384), size(2048, 16_384)),
            (None, Some(512), size(1024, 2048)),
            // Memory follows the CPU when only that was asked.
            (Some(256), None, size(256, 2048)),
            (Some(4096), None, size(4096, 8192)),
        ] {
            assert_eq!(
                fit(cpu, memory, Size::DEFAULT, Size::LARGEST),
                Ok(expected),
                "{cpu:?} {memory:?}"
            );
        }
        let large = size(4096, 30_720);
        assert_eq!(fit(Some(256), None, large, Size::LARGEST), Ok(size(256, 2048)));
        assert_eq!(fit(Some(4096), None, large, size(4096, 10_000)), Ok(size(4096, 9216)));
    }

    #[test]
    fn instances_have_no_grid() {
        let max = size(8192, 65_536);
        for (cpu, memory, expected) in [
            (Some(3000), Some(5000), size(3000, 5000)),
            (Some(1), Some(100), size(128, 100)),
            (None, Some(65_536), size(1024, 65_536)),
            (Some(256), None, size(256, 2048)),
        ] {
            assert_eq!(fit_on_instances(cpu, memory, Size::DEFAULT, max), Ok(expected));
        }
        assert_eq!(
            fit_on_instances(Some(8193), None, Size::DEFAULT, size(8192, 8192))
                .unwrap_err()
                .to_string(),
            "8.0009765625 vCPU / 2 GiB is too large, and the profile allows at most 8 vCPU / 8 GiB"
        );
        assert!(
            fit_on_instances(Some(200_000), None, Size::DEFAULT, size(u32::MAX, u32::MAX)).is_err()
        );
    }

    #[test]
    fn what_is_too_large_says_what_is_allowed() {
        for (cpu, memory, max, message) in [
            (
                Some(4096),
                Some(16_384),
                size(2048, 16_384),
                "4 vCPU / 16 GiB is too large, and the profile allows at most 2 vCPU / 16 GiB",
            ),
            (
                Some(1024),
                Some(9216),
                size(1024, 16_384),
                "1 vCPU / 9 GiB rounds up to 2 vCPU / 9 GiB, and the profile allows at most 1 vCPU / 16 GiB",
            ),
            (
                Some(4096),
                None,
                size(4096, 4096),
                "4 vCPU / 2 GiB rounds up to 4 vCPU / 8 GiB, and the profile allows at most 4 vCPU / 4 GiB",
            ),
            (
                Some(65_536),
                None,
                Size::LARGEST,
                "64 vCPU / 2 GiB is more than Fargate offers, at most 32 vCPU / 244 GiB",
            ),
            (
                None,
                Some(u32::MAX),
                Size::LARGEST,
                "1 vCPU / 4194303.9990234375 GiB is more than Fargate offers, at most 32 vCPU / 244 GiB",
            ),
        ] {
            let error = fit(cpu, memory, Size::DEFAULT, max).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
