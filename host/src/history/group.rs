//! By what a report groups, and the group of a placement. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::Entry;
use crate::placement::Placement;

/// The label in which the policy `experiment` says which side a job is on, and the sides.
const SIDE: &str = "side";
const VARIANT: &str = "variant";
const CONTROL: &str = "control";
/// The label with the experiment's name.
const NAME: &str = "name";

/// What the attempts of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Cluster, task definition, architecture, capacity and size.
    Placement,
    /// x86 or ARM.
    Architecture,
    /// On-demand or Spot.
    Capacity,
    /// The profile that decided.
    Profile,
    /// A policy's name, or a label's whole key.
    Label(String),
    /// The project's path.
    Project,
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "placement" => Self::Placement,
            "architecture" | "arch" => Self::Architecture,
            "capacity" => Self::Capacity,
            "profile" => Self::Profile,
            "project" => Self::Project,
            _ => match text.strip_prefix("policy-label=") {
                Some(name) if !name.is_empty() => Self::Label(name.to_owned()),
                _ => {
                    return Err("expected placement, architecture, capacity, profile, project or \
                                policy-label=NAME, where NAME is a policy of the settings file"
                        .to_owned());
                }
            },
        })
    }
}

impl fmt::Display for By {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Placement => "placement",
            Self::Architecture => "architecture",
            Self::Capacity => "capacity",
            Self::Profile => "profile",
            Self::Label(name) => return write!(formatter, "policy-label={name}"),
            Self::Project => "project",
        })
    }
}

impl Serialize for By {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// As it was.
    Control,
    /// The alternative.
    Variant,
}

/// What groups are told apart and sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// In a table.
    pub text: String,
    /// The experiment's name and the side, where it is one.
    pub side: Option<(String, Side)>,
}

impl By {
    /// The group of `entry` as far as it is about `placement`; `None` when it has no such label.
    pub(super) fn key(&self, entry: &Entry, placement: Option<&Placement>) -> Option<Key> {
        let plain = |text: String| Some(Key { text, side: None });
        let of = |text: &dyn Fn(&Placement) -> String| {
            plain(placement.map_or_else(|| "no placement".to_owned(), text))
        };
        match self {
            Self::Placement => of(&|placement| {
                format!(
                    "{}, {}, {}, {}, {}",
                    placement.cluster,
                    placement.task_definition,
                    placement.arch,
                    placement.capacity,
                    placement.size
                )
            }),
            Self::Architecture => of(&|placement| placement.arch.to_string()),
            Self::Capacity => of(&|placement| placement.capacity.to_string()),
            Self::Profile => plain(entry.profile.clone()),
            Self::Project => plain(entry.job.project.clone()),
            Self::Label(name) => label(placement?, name),
        }
    }
}

/// By the label `asked`, or by those of the policy `asked`.
fn label(placement: &Placement, asked: &str) -> Option<Key> {
    let labels = &placement.labels;
    let policy = match asked.rsplit_once('/') {
        None => asked,
        Some((policy, SIDE)) => policy,
        Some(_) => return Some(Key { text: labels.get(asked)?.clone(), side: None }),
    };
    let Some(side) = labels.get(&format!("{policy}/{SIDE}")) else {
        let prefix = format!("{policy}/");
        let own: Vec<String> = labels
            .iter()
            .filter_map(|(key, value)| Some(format!("{}={value}", key.strip_prefix(&prefix)?)))
            .collect();
        return (!own.is_empty()).then(|| Key { text: own.join(", "), side: None });
    };
    let experiment = labels.get(&format!("{policy}/{NAME}")).map_or(policy, String::as_str);
    let kind = match side.as_str() {
        VARIANT => Some(Side::Variant),
        CONTROL => Some(Side::Control),
        _ => None,
    };
    Some(Key {
        text: format!("{experiment}: {side}"),
        side: kind.map(|kind| (experiment.to_owned(), kind)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::entry::tests::entry;

    #[test]
    fn groups_are_spelled_as_they_are_shown() {
        for text in
            ["placement", "architecture", "capacity", "profile", "project", "policy-label=arm"]
        {
            assert_eq!(text.parse::<By>().unwrap().to_string(), text);
        }
        for wrong in ["", "policy-label=", "policy-label", "cluster"] {
            assert!(wrong.parse::<By>().unwrap_err().starts_with("expected placement"));
        }
    }

    #[test]
    fn each_grouping_names_its_group() {
        let one = entry(1, |record| {
            record["placement"]["labels"] = json!({
                "arm/name": "arm-2026", "arm/side": "variant", "by-tag/team": "web", "by-tag/tier": "1",
            });
        });
        let variant = Some(("arm-2026".to_owned(), Side::Variant));
        for (by, text, side) in [
            ("placement", Some("dev, node, arm64, spot, 1 vCPU / 2 GiB"), None),
            ("architecture", Some("arm64"), None),
            ("capacity", Some("spot"), None),
            ("profile", Some("dev"), None),
            ("project", Some("acme/app"), None),
            ("policy-label=arm", Some("arm-2026: variant"), variant.clone()),
            ("policy-label=arm/side", Some("arm-2026: variant"), variant),
            ("policy-label=arm/name", Some("arm-2026"), None),
            ("policy-label=by-tag", Some("team=web, tier=1"), None),
            ("policy-label=by-tag/team", Some("web"), None),
            ("policy-label=nobody", None, None),
        ] {
            let key = by.parse::<By>().unwrap().key(&one, one.place());
            let expected = text.map(|text| Key { text: text.to_owned(), side });
            assert_eq!(key, expected, "{by}");
        }
        let nowhere = By::Capacity.key(&one, None).unwrap();
        assert_eq!(nowhere.text, "no placement");
    }
}
