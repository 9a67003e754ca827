//! What of GitLab Runner's `config.toml` concerns the driver: the arguments of its stages. Pure.

use std::path::Path;

use toml::de::{DeTable, DeValue};

/// The stages, as the keys `config_args` and so on begin.
pub const STAGES: [&str; 4] = ["config", "prepare", "run", "cleanup"];

/// One line that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Counted from 1.
    pub line: usize,
    /// Such as `config_args`.
    pub key: String,
    /// The value as it is.
    pub old: String,
    /// The value as it shall be.
    pub new: String,
}

/// The value of `<stage>_args` for `profile` of the file `settings`.
pub fn arguments(settings: &str, profile: &str, stage: &str) -> String {
    array(["--config", settings, "--profile", profile, stage])
}

/// The lines of the `config.toml` with `text` that change when the files of `profiles` become profiles of
/// `settings`. A runner is one of a file when its arguments name the file, whatever directory it lies in.
///
/// # Errors
///
/// Says where it is no TOML.
pub fn changes(
    text: &str,
    profiles: &[(&Path, &str)],
    settings: &str,
) -> Result<Vec<Change>, String> {
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("line {line}: {}", error.message())
    })?;
    let runners = document.get_ref().get("runners").and_then(|value| value.get_ref().as_array());
    let mut changes = Vec::new();
    for runner in runners.into_iter().flatten() {
        let custom = runner.get_ref().as_table().and_then(|runner| runner.get("custom"));
        let Some(custom) = custom.and_then(|custom| custom.get_ref().as_table()) else { continue };
        for stage in STAGES {
            let key = format!("{stage}_args");
            let Some((place, value)) = custom.get_key_value(key.as_str()) else { continue };
            let Some(old) = texts(value.get_ref()) else { continue };
            let Some(profile) = named(&old, profiles) else { continue };
            changes.push(Change {
                line: line_of(text, place.span().start),
                key,
                old: array(old.iter().map(String::as_str)),
                new: arguments(settings, profile, stage),
            });
        }
    }
    Ok(changes)
}

/// The profile whose file the arguments name with `--config`.
fn named<'p>(arguments: &[String], profiles: &[(&Path, &'p str)]) -> Option<&'p str> {
    let mut all = arguments.iter();
    let config = loop {
        let argument = all.next()?;
        if let Some(("--config", value)) = argument.split_once('=') {
            break value.to_owned();
        }
        if argument == "--config" {
            break all.next()?.clone();
        }
    };
    let config = Path::new(&config);
    let whole = profiles.iter().find(|(path, _)| *path == config);
    let by_name = || {
        let mut alike = profiles.iter().filter(|(path, _)| path.file_name() == config.file_name());
        // Files of one name are told apart by their directory, or not at all.
        alike.next().filter(|_| alike.next().is_none())
    };
    whole.or_else(by_name).map(|(_, profile)| *profile)
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let array = value.as_array()?;
    array.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect()
}

fn array<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts: Vec<toml::Value> =
        texts.into_iter().map(|text| toml::Value::String(text.to_owned())).collect();
    toml::Value::Array(texts).to_string()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[[runners]]
  executor = "custom"
  [runners.custom]
    config_exec = "/opt/fargate"
    config_args = ["--config", "/etc/gitlab-runner/dev.toml", "custom", "config"]
    run_args = ["--config=/etc/gitlab-runner/prod/ecs.toml", "custom", "run"]
[[runners]]
  executor = "docker"
[[runners]]
  [runners.custom]
    cleanup_args = ["cleanup"]
"#;

    #[test]
    fn the_lines_of_the_files_change_and_no_others() {
        let profiles = [
            (Path::new("dev.toml"), "dev"),
            (Path::new("/etc/gitlab-runner/prod/ecs.toml"), "prod-ecs"),
            (Path::new("/etc/gitlab-runner/test/ecs.toml"), "test-ecs"),
        ];
        let changes = changes(CONFIG, &profiles, "/etc/pointsman.toml").unwrap();
        let shown: Vec<_> =
            changes.iter().map(|one| (one.line, one.key.as_str(), one.new.as_str())).collect();
        assert_eq!(
            shown,
            [
                (
                    6,
                    "config_args",
                    r#"["--config", "/etc/pointsman.toml", "--profile", "dev", "config"]"#
                ),
                (
                    7,
                    "run_args",
                    r#"["--config", "/etc/pointsman.toml", "--profile", "prod-ecs", "run"]"#
                ),
            ]
        );
        assert!(super::changes("[[runners]", &profiles, "x").unwrap_err().starts_with("line 1:"));
    }
}
