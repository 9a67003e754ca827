//! What of GitLab Runner's `config.toml` concerns the driver: the arguments of its stages. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Flags;

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

/// What is told of a `config.toml`.
#[derive(Debug, Default)]
pub struct Told {
    /// In the file's order.
    pub changes: Vec<Change>,
    /// What the arguments of `prepare` say in the place of a profile's file, by profile.
    pub flags: BTreeMap<String, Flags>,
    /// Lines where a profile's runners say different things, so that one profile cannot do for all of them.
    pub differing: Vec<usize>,
}

/// The value of `<stage>_args` for `profile` of the file `settings`.
pub fn arguments(settings: &str, profile: &str, stage: &str) -> String {
    array(["--config", settings, "--profile", profile, stage])
}

/// What becomes of the `config.toml` with `text` when the files of `profiles` become profiles of `settings`. A
/// runner is one of a file when its arguments name the file, whatever directory it lies in.
///
/// # Errors
///
/// Says where it is no TOML.
pub fn told(text: &str, profiles: &[(&Path, &str)], settings: &str) -> Result<Told, String> {
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("line {line}: {}", error.message())
    })?;
    let runners = document.get_ref().get("runners").and_then(|value| value.get_ref().as_array());
    let mut told = Told::default();
    for runner in runners.into_iter().flatten() {
        let custom = runner.get_ref().as_table().and_then(|runner| runner.get("custom"));
        let Some(custom) = custom.and_then(|custom| custom.get_ref().as_table()) else { continue };
        for stage in STAGES {
            let key = format!("{stage}_args");
            let Some((place, value)) = custom.get_key_value(key.as_str()) else { continue };
            let Some(old) = texts(value.get_ref()) else { continue };
            let arguments = Arguments::of(&old, stage);
            let Some(profile) = arguments.config.and_then(|config| named(config, profiles)) else {
                continue;
            };
            let line = line_of(text, place.span().start);
            // The other stages of GitLab's driver make nothing of them.
            if stage == "prepare" {
                let flags = arguments.flags();
                if *told.flags.entry(profile.to_owned()).or_insert_with(|| flags.clone()) != flags {
                    told.differing.push(line);
                }
            }
            let begin = ["--config", settings, "--profile", profile];
            told.changes.push(Change {
                line,
                key,
                old: array(old.iter().map(String::as_str)),
                new: array(begin.into_iter().chain(arguments.rest).chain([stage])),
            });
        }
    }
    Ok(told)
}

/// The arguments of a stage in the manner of GitLab's Fargate driver.
#[derive(Default)]
struct Arguments<'a> {
    config: Option<&'a str>,
    task_definition: Option<&'a str>,
    platform_version: Option<&'a str>,
    /// What Pointsman takes as well, such as `--log-level debug`.
    rest: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    fn of(arguments: &'a [String], stage: &str) -> Self {
        let mut read = Self::default();
        let mut all = arguments.iter().map(String::as_str);
        while let Some(argument) = all.next() {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (argument, None),
            };
            let known = match flag {
                "--config" => &mut read.config,
                "--task-def" => &mut read.task_definition,
                "--platform-version" => &mut read.platform_version,
                _ => {
                    if argument != "custom" && argument != stage {
                        read.rest.push(argument);
                    }
                    continue;
                }
            };
            *known = value.or_else(|| all.next());
        }
        read
    }

    fn flags(&self) -> Flags {
        let said = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        Flags {
            task_definition: said(self.task_definition),
            platform_version: said(self.platform_version),
        }
    }
}

/// The profile whose file `config` is.
fn named<'p>(config: &str, profiles: &[(&Path, &'p str)]) -> Option<&'p str> {
    let config = Path::new(config);
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
    config_args = ["--config", "/etc/gitlab-runner/dev.toml", "--log-level", "debug", "custom", "config"]
    prepare_args = ["--task-def", "big:2", "--config", "/etc/gitlab-runner/dev.toml", "custom", "prepare"]
    run_args = ["--config=/etc/gitlab-runner/prod/ecs.toml", "custom", "run"]
[[runners]]
  executor = "docker"
[[runners]]
  [runners.custom]
    prepare_args = ["--config", "dev.toml", "custom", "prepare"]
    cleanup_args = ["cleanup"]
"#;

    #[test]
    fn the_lines_of_the_files_change_and_no_others() {
        let profiles = [
            (Path::new("dev.toml"), "dev"),
            (Path::new("/etc/gitlab-runner/prod/ecs.toml"), "prod-ecs"),
            (Path::new("/etc/gitlab-runner/test/ecs.toml"), "test-ecs"),
        ];
        let told = told(CONFIG, &profiles, "/p.toml").unwrap();
        let shown: Vec<_> =
            told.changes.iter().map(|one| (one.line, one.key.as_str(), one.new.as_str())).collect();
        assert_eq!(
            shown,
            [
                (
                    6,
                    "config_args",
                    r#"["--config", "/p.toml", "--profile", "dev", "--log-level", "debug", "config"]"#
                ),
                (7, "prepare_args", r#"["--config", "/p.toml", "--profile", "dev", "prepare"]"#),
                (8, "run_args", r#"["--config", "/p.toml", "--profile", "prod-ecs", "run"]"#),
                (13, "prepare_args", r#"["--config", "/p.toml", "--profile", "dev", "prepare"]"#),
            ]
        );
        assert_eq!(told.flags["dev"].task_definition.as_deref(), Some("big:2"));
        assert_eq!(told.differing, [13]);
        assert!(super::told("[[runners]", &profiles, "x").unwrap_err().starts_with("line 1:"));
    }
}
