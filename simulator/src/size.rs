//! Fargate's grid of CPU and memory, and how the API spells both: pure.
//!
//! Developer guide, "Task size". Not shared with the driver on purpose: a mistake in the driver's table must not
//! hide in the simulator's.

use crate::protocol::ApiError;

/// CPU units of `"256"` or `".25 vCPU"`.
pub(crate) fn cpu_units(text: &str) -> Result<u32, ApiError> {
    scaled(text, "vcpu").ok_or_else(|| ApiError::client("Invalid 'cpu' setting for task."))
}

/// MiB of `"512"` or `"0.5 GB"`.
pub(crate) fn memory_mib(text: &str) -> Result<u32, ApiError> {
    scaled(text, "gb").ok_or_else(|| ApiError::client("Invalid 'memory' setting for task."))
}

/// A plain number, or a number of a unit that is 1,024 of the plain ones.
fn scaled(text: &str, unit: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    match lower.strip_suffix(unit) {
        None if lower.bytes().all(|byte| byte.is_ascii_digit()) => lower.parse().ok(),
        None => None,
        Some(number) => {
            let number = number.trim_end();
            let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let value: f64 = if plain { number.parse().ok()? } else { return None };
            let value = value * 1024.0;
            // The grid ends at 249,856; anything larger is illegal either way.
            (value.fract() == 0.0 && value < 1e6).then_some(value as u32)
        }
    }
}

/// Refuses a pair that Fargate does not offer.
pub(crate) fn check_fargate(cpu: u32, memory: u32) -> Result<(), ApiError> {
    let steps = |low: u32, high: u32, step: u32| {
        (low * 1024..=high * 1024).contains(&memory)
            && (memory - low * 1024).is_multiple_of(step * 1024)
    };
    let legal = match cpu {
        256 => [512, 1024, 2048].contains(&memory),
        512 => steps(1, 4, 1),
        1024 => steps(2, 8, 1),
        2048 => steps(4, 16, 1),
        4096 => steps(8, 30, 1),
        8192 => steps(16, 60, 4),
        16384 => steps(32, 120, 8),
        32768 => [60 * 1024, 120 * 1024, 244 * 1024].contains(&memory),
        _ => false,
    };
    if legal {
        return Ok(());
    }
    Err(ApiError::client(format!(
        "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon ECS documentation for the valid values."
    )))
}

#[cfg(test)]
mod tests {
    use super::{check_fargate, cpu_units, memory_mib};

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("256", Some(256)),
            (".25 vCPU", Some(256)),
            ("1 vcpu", Some(1024)),
            ("16vCPU", Some(16384)),
            ("", None),
            ("-1", None),
            ("one", None),
            ("1e3 vcpu", None),
            ("1.5", None),
        ] {
            assert_eq!(cpu_units(text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("512", Some(512)), ("0.5GB", Some(512)), ("2 GB", Some(2048)), ("2GiB", None)]
        {
            assert_eq!(memory_mib(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn grid() {
        for (cpu, memory, legal) in [
            (256, 512, true),
            (256, 1024, true),
            (256, 1536, false),
            (256, 4096, false),
            (300, 512, false),
            (512, 512, false),
            (512, 4096, true),
            (1024, 2048, true),
            (1024, 2500, false),
            (1024, 9216, false),
            (2048, 16384, true),
            (4096, 30720, true),
            (4096, 31744, false),
            (8192, 16384, true),
            (8192, 17408, false),
            (8192, 61440, true),
            (16384, 32768, true),
            (16384, 36864, false),
            (16384, 122_880, true),
            (32768, 61440, true),
            (32768, 122_880, true),
            (32768, 249_856, true),
            (32768, 65536, false),
        ] {
            assert_eq!(check_fargate(cpu, memory).is_ok(), legal, "{cpu} {memory}");
        }
    }
}
