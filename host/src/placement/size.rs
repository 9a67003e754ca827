//! Fargate's grid of CPU and memory.
//!
//! The table is the developer guide's ("Task size"); the 32 vCPU row is in it and in CDK, though not in
//! the API reference's text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pair that Fargate offers (Linux).
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
    /// What a task definition without a size in the settings file gets.
    pub const DEFAULT: Self = Self { cpu_units: 1024, memory_mib: 2048 };
}

impl fmt::Display for Size {
    /// `0.5 vCPU / 2 GiB`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vcpu = f64::from(self.cpu_units) / 1024.0;
        let gib = f64::from(self.memory_mib) / 1024.0;
        formatter.pad(&format!("{vcpu} vCPU / {gib} GiB"))
    }
}
