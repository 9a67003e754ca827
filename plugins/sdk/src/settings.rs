//! Settings from the JSON that the host hands over.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::SettingProblem;

/// Reads settings with `serde`.
///
/// # Errors
///
/// Returns the one problem that `serde` found, without a path: it stops at the first. A policy with more
/// than a handful of settings reads the [`Value`] by itself and tells all problems.
pub fn from_json<T: DeserializeOwned>(json: &Value) -> Result<T, Vec<SettingProblem>> {
    T::deserialize(json)
        .map_err(|error| vec![SettingProblem { path: String::new(), message: error.to_string() }])
}

/// One line for a list of problems.
pub fn describe(problems: &[SettingProblem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| match problem.path.as_str() {
            "" => problem.message.clone(),
            path => format!("{path}: {}", problem.message),
        })
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        size: u32,
    }

    #[test]
    fn serde_reads_settings_and_tells_what_is_wrong() {
        assert_eq!(from_json::<Example>(&serde_json::json!({"size": 3})), Ok(Example { size: 3 }));
        let problems = from_json::<Example>(&serde_json::json!({"sise": 3})).unwrap_err();
        assert_eq!(describe(&problems), "unknown field `sise`, expected `size`");
    }
}
