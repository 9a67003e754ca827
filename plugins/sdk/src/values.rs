//! Amounts and closed lists of the settings, spelled as in `pointsman.toml`.

use crate::{Arch, Capacity};

/// `"x86_64"` or `"arm64"`.
///
/// # Errors
///
/// What was expected, to go on after the path of the setting; so do those of the other functions.
pub fn arch(text: &str) -> Result<Arch, String> {
    match text {
        "x86_64" => Ok(Arch::X8664),
        "arm64" => Ok(Arch::Arm64),
        _ => Err(format!("is `{text}`, expected `x86_64` or `arm64`")),
    }
}

/// `"on-demand"` or `"spot"`.
///
/// # Errors
///
/// For any other text.
pub fn capacity(text: &str) -> Result<Capacity, String> {
    match text {
        "on-demand" => Ok(Capacity::OnDemand),
        "spot" => Ok(Capacity::Spot),
        _ => Err(format!("is `{text}`, expected `on-demand` or `spot`")),
    }
}

/// `"2"` or `"0.5"` vCPU, or thousandths of one, `"500m"`; in CPU units of 1/1,024 vCPU, rounded up.
///
/// # Errors
///
/// For any other text.
pub fn cpu_units(text: &str) -> Result<u32, String> {
    let thousandths = match text.strip_suffix('m') {
        Some(thousandths) => whole(thousandths),
        None => thousandths(text),
    };
    thousandths
        .filter(|&thousandths| thousandths > 0)
        .and_then(|thousandths| u32::try_from((thousandths * 1024).div_ceil(1000)).ok())
        .ok_or_else(|| format!("is `{text}`, expected vCPUs such as `2`, `0.5` or `500m`"))
}

/// `"4GiB"` or `"512MiB"`, in MiB.
///
/// # Errors
///
/// For any other text.
pub fn memory_mib(text: &str) -> Result<u32, String> {
    let parsed = if let Some(gib) = text.strip_suffix("GiB") {
        whole(gib.trim_end()).map(|gib| gib * 1024)
    } else {
        text.strip_suffix("MiB").and_then(|mib| whole(mib.trim_end()))
    };
    parsed
        .filter(|&mib| mib > 0)
        .and_then(|mib| u32::try_from(mib).ok())
        .ok_or_else(|| format!("is `{text}`, expected an amount such as `4GiB` or `512MiB`"))
}

/// `"50GiB"`: Fargate offers 21 to 200.
///
/// # Errors
///
/// For any other text.
pub fn storage_gib(text: &str) -> Result<u32, String> {
    match memory_mib(text) {
        Ok(mib) if mib % 1024 == 0 && (21..=200).contains(&(mib / 1024)) => Ok(mib / 1024),
        _ => Err(format!("is `{text}`, expected whole GiB from `21GiB` to `200GiB`")),
    }
}

/// Digits only: `u64::from_str` takes a sign. Nine of them at most, so that nothing here overflows.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// `2` or `0.25`, without floating point: at most three places.
fn thousandths(text: &str) -> Option<u64> {
    let (units, places) = text.split_once('.').unwrap_or((text, "0"));
    if places.len() > 3 {
        return None;
    }
    let scale = 10_u64.pow(3 - u32::try_from(places.len()).ok()?);
    Some(whole(units)? * 1000 + whole(places)? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, units) in [
            ("2", 2048),
            ("0.5", 512),
            ("0.25", 256),
            ("1.125", 1152),
            ("500m", 512),
            ("1000m", 1024),
            ("1m", 2),
            ("16", 16_384),
        ] {
            assert_eq!(cpu_units(text), Ok(units), "{text}");
        }
        for (text, mib) in [("4GiB", 4096), ("512MiB", 512), ("4 GiB", 4096)] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        assert_eq!(storage_gib("21GiB"), Ok(21));
        assert_eq!(storage_gib("200GiB"), Ok(200));
    }

    #[test]
    fn what_is_no_amount() {
        for text in
            ["", "0", "0m", "m", "-1", "+1", "1e3", "NaN", "0.0001", ".", "1.", "9999999999"]
        {
            assert!(cpu_units(text).is_err(), "{text}");
        }
        for text in ["", "4", "4GB", "0GiB", "GiB", "-1GiB", "999999999GiB", "1.5GiB"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
        for text in ["20GiB", "201GiB", "21504MiB0", "25601MiB"] {
            assert!(storage_gib(text).is_err(), "{text}");
        }
    }
}
