//! The kinds of value in the settings file: pure functions from TOML to ours.
//!
//! Each answers what it expected when it got something else.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use crate::spelling::{list, nearest};

fn expected<T>(what: &str, value: &DeValue<'_>) -> Result<T, String> {
    Err(format!("is a {}, expected {what}", value.type_str()))
}

/// A text that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Err("is empty".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => expected("a text in quotes", value),
    }
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().map_or_else(|| expected("true or false", value), Ok)
}

/// A whole number of `range`.
pub(super) fn number(
    value: &DeValue<'_>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, String> {
    let what = format!("a whole number from {} to {}", range.start(), range.end());
    let Some(integer) = value.as_integer() else { return expected(&what, value) };
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("is {}, expected {what}", integer.as_str())),
    }
}

/// A list of texts.
pub(super) fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let Some(array) = value.as_array() else { return expected("a list of texts", value) };
    array
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            text(entry.get_ref()).map_err(|message| format!("entry {} {message}", index + 1))
        })
        .collect()
}

/// A table of texts.
pub(super) fn labels(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let Some(table) = value.as_table() else { return expected("a table of texts", value) };
    table
        .iter()
        .map(|(key, entry)| match text(entry.get_ref()) {
            Ok(text) => Ok((key.get_ref().to_string(), text)),
            Err(message) => Err(format!("entry `{}` {message}", key.get_ref())),
        })
        .collect()
}

/// One of a closed list.
pub(super) fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    let names = || choices.iter().map(|(name, _)| *name);
    let Some(text) = value.as_str() else {
        return expected(&format!("one of {}", list(names())), value);
    };
    choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
        match nearest(text, names()) {
            Some(nearest) => format!("is `{text}`: did you mean `{nearest}`?"),
            None => format!("is `{text}`, expected one of {}", list(names())),
        }
    })
}

/// `"90s"`, `"5m"`, `"1h 30m"`: above zero and at most a week.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    let Some(text) = value.as_str() else {
        return expected("a duration in quotes, such as \"90s\"", value);
    };
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("is zero, expected a duration above it".into()),
        Ok(duration) if duration > WEEK => Err(format!("is `{text}`, expected at most 7 days")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("is `{text}`, expected a duration such as `90s`, `5m` or `1h 30m`")),
    }
}

/// `"4GiB"` or `"512MiB"`, in MiB.
pub(super) fn memory_mib(value: &DeValue<'_>) -> Result<u32, String> {
    const WHAT: &str = "an amount such as \"4GiB\" or \"512MiB\"";
    let Some(text) = value.as_str() else { return expected(WHAT, value) };
    let parsed = if let Some(gib) = text.strip_suffix("GiB") {
        gib.trim().parse::<u32>().ok().and_then(|gib| gib.checked_mul(1024))
    } else {
        text.strip_suffix("MiB").and_then(|mib| mib.trim().parse().ok())
    };
    match parsed {
        Some(mib) if mib > 0 => Ok(mib),
        _ => Err(format!("is `{text}`, expected {WHAT}")),
    }
}

/// `"20GiB"`, in GiB.
pub(super) fn storage_gib(value: &DeValue<'_>) -> Result<u32, String> {
    let mib = memory_mib(value)?;
    if mib % 1024 != 0 || !(20..=200).contains(&(mib / 1024)) {
        return Err("is not a whole number of GiB from 20 to 200, which Fargate offers".into());
    }
    Ok(mib / 1024)
}

/// `"2"` or `"0.5"` vCPU, or thousandths of one as in Kubernetes, `"500m"`; in CPU units of 1/1,024 vCPU.
pub(super) fn cpu_units(value: &DeValue<'_>) -> Result<u32, String> {
    const WHAT: &str = "vCPUs in quotes, such as \"2\", \"0.5\" or \"500m\"";
    let Some(text) = value.as_str() else { return expected(WHAT, value) };
    let vcpu = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<u32>().ok().map(|m| f64::from(m) / 1000.0),
        None => text.parse::<f64>().ok(),
    };
    match vcpu {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked, and a part of a unit rounds up"
        )]
        Some(vcpu) if vcpu > 0.0 && vcpu <= 192.0 => Ok((vcpu * 1024.0).ceil() as u32),
        _ => Err(format!("is `{text}`, expected {WHAT}")),
    }
}

/// 64 lower-case hex digits.
pub(super) fn sha256(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let digest = text.strip_prefix("sha256:").unwrap_or(&text).to_ascii_lowercase();
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digest);
    }
    Err("is no SHA-256 digest, expected 64 hex digits as `sha256sum FILE` prints them".to_owned())
}

/// A name of a table of ours: it appears in file names, task tags and log lines.
pub(super) fn name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(legal) {
        return Ok(());
    }
    Err("is no name here: expected 1 to 64 of letters, digits, `-`, `_` and `.`".to_owned())
}

/// The same for a value.
pub(super) fn named(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    name(&text).map(|()| text)
}

/// An IAM role's ARN.
pub(super) fn role_arn(value: &DeValue<'_>) -> Result<String, String> {
    let arn = text(value)?;
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let is_role = matches!(
        parts.as_slice(),
        ["arn", partition, "iam", "", account, resource]
            if partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
    );
    if is_role {
        return Ok(arn);
    }
    Err(format!("is `{arn}`, expected `arn:aws:iam::<12 digits>:role/<name>`"))
}

/// Any TOML as JSON, for what is not ours to understand.
pub(super) fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(Value::from)
            .map_err(|_| format!("has the number {}, which is too large", integer.as_str()))?,
        DeValue::Float(float) => float
            .as_str()
            .parse()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("has the number {}, which JSON lacks", float.as_str()))?,
        DeValue::Array(array) => {
            array.iter().map(|entry| json(entry.get_ref())).collect::<Result<_, _>>()?
        }
        DeValue::Table(table) => Value::Object(
            table
                .iter()
                .map(|(key, entry)| Ok((key.get_ref().to_string(), json(entry.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T>(toml: &str, read: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Result<T, String> {
        read(DeValue::parse(toml).unwrap().get_ref())
    }

    #[test]
    fn amounts() {
        assert_eq!(parse("'4GiB'", memory_mib), Ok(4096));
        assert_eq!(parse("'512MiB'", memory_mib), Ok(512));
        assert_eq!(parse("'2'", cpu_units), Ok(2048));
        assert_eq!(parse("'0.25'", cpu_units), Ok(256));
        assert_eq!(parse("'500m'", cpu_units), Ok(512));
        assert_eq!(parse("'20GiB'", storage_gib), Ok(20));
        for (toml, message) in [
            ("'4GB'", "is `4GB`, expected an amount such as \"4GiB\" or \"512MiB\""),
            ("'0GiB'", "is `0GiB`, expected an amount such as \"4GiB\" or \"512MiB\""),
            ("4", "is a integer, expected an amount such as \"4GiB\" or \"512MiB\""),
            (
                "'4294967295GiB'",
                "is `4294967295GiB`, expected an amount such as \"4GiB\" or \"512MiB\"",
            ),
        ] {
            assert_eq!(parse(toml, memory_mib).unwrap_err(), message);
        }
        for wrong in ["'NaN'", "'-1'", "'1e9'", "'two'", "''"] {
            assert!(parse(wrong, cpu_units).is_err(), "{wrong}");
        }
        assert!(parse("'210GiB'", storage_gib).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(parse("'90s'", duration), Ok(Duration::from_secs(90)));
        assert_eq!(parse("'1h 30m'", duration), Ok(Duration::from_secs(5400)));
        assert_eq!(
            parse("'soon'", duration).unwrap_err(),
            "is `soon`, expected a duration such as `90s`, `5m` or `1h 30m`"
        );
        assert!(parse("'0s'", duration).is_err());
        assert!(parse("'8days'", duration).is_err());
    }

    #[test]
    fn choices_name_the_nearest() {
        let choices = [("openssh", 1), ("agent", 2)];
        assert_eq!(parse("'agent'", |value| choice(value, &choices)), Ok(2));
        assert_eq!(
            parse("'opensh'", |value| choice(value, &choices)).unwrap_err(),
            "is `opensh`: did you mean `openssh`?"
        );
        assert_eq!(
            parse("'telnetserver'", |value| choice(value, &choices)).unwrap_err(),
            "is `telnetserver`, expected one of `openssh`, `agent`"
        );
    }
}
