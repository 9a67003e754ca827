//! Settings from the JSON that the host hands over, and the schema of them.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::SettingProblem;
use crate::schema::{self, Schema};

/// Settings that [`settings!`](crate::settings!) declared.
pub trait Declared: Sized {
    /// Reads the policy's table.
    ///
    /// # Errors
    ///
    /// Returns what `serde` found, or every setting that is missing.
    fn read(json: &Value) -> Result<Self, Vec<SettingProblem>>;

    /// The schema of the table.
    fn schema() -> Schema;
}

/// A type that a declared setting can have; implement it for choices of your own by [`schema::choice`].
pub trait Described {
    /// The schema of a value, with a text for people.
    fn described(text: &str) -> Schema;
}

impl Described for bool {
    fn described(text: &str) -> Schema {
        schema::flag(text)
    }
}

impl Described for String {
    fn described(text: &str) -> Schema {
        schema::text(text)
    }
}

impl Described for u32 {
    fn described(text: &str) -> Schema {
        schema::whole(text, 0, Self::MAX.into())
    }
}

impl Described for u64 {
    fn described(text: &str) -> Schema {
        schema::whole(text, 0, Self::MAX)
    }
}

impl<T: Described> Described for Vec<T> {
    fn described(text: &str) -> Schema {
        schema::list(text, T::described("one of them"))
    }
}

impl<T: Described> Described for Option<T> {
    fn described(text: &str) -> Schema {
        T::described(text)
    }
}

/// Declares a policy's settings once: a struct that `serde` reads, with the schema made of its types and of its
/// documentation. A setting with `= value` may be left out; unknown ones are refused.
///
/// ```
/// pointsman_policy_sdk::settings! {
///     /// `[policies.<name>.settings]`
///     pub struct Settings {
///         /// the cluster of every job
///         cluster: String,
///         /// whether Spot may be used
///         spot: bool = true,
///     }
/// }
///
/// use pointsman_policy_sdk::settings::Declared;
/// let json = serde_json::json!({ "cluster": "ci" });
/// assert!(Settings::read(&json).is_ok_and(|settings| settings.spot));
/// assert_eq!(Settings::schema().keys(), ["cluster", "spot"]);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$outer:meta])*
        $visibility:vis struct $name:ident {
            $( $(#[doc = $doc:literal])+ $visible:vis $field:ident: $type:ty $(= $default:expr)? ),+ $(,)?
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        $visibility struct $name {
            $( $(#[doc = $doc])+ $visible $field: $type ),+
        }

        impl $crate::settings::Declared for $name {
            fn read(json: &$crate::Value) -> Result<Self, Vec<$crate::SettingProblem>> {
                #[derive($crate::serde::Deserialize)]
                #[serde(crate = "pointsman_policy_sdk::serde", deny_unknown_fields)]
                struct Given {
                    $( $field: Option<$type> ),+
                }

                let given: Given = $crate::settings::from_json(json)?;
                $( let $field = given.$field$(.or_else(|| Some($default)))?; )+
                let mut missing = Vec::new();
                $(
                    if $field.is_none() {
                        missing.push($crate::settings::missing(stringify!($field)));
                    }
                )+
                match ($($field,)+) {
                    ($(Some($field),)+) => Ok(Self { $($field),+ }),
                    _ => Err(missing),
                }
            }

            fn schema() -> $crate::schema::Schema {
                let table = $crate::schema::table();
                $( let table = $crate::settings!(@key table, $field, $type, concat!($($doc),+) $(, $default)?); )+
                table
            }
        }
    };
    (@key $table:ident, $field:ident, $type:ty, $doc:expr) => {
        $table.required(
            stringify!($field),
            <$type as $crate::settings::Described>::described($doc.trim()),
        )
    };
    (@key $table:ident, $field:ident, $type:ty, $doc:expr, $default:expr) => {
        $table.optional(
            stringify!($field),
            <$type as $crate::settings::Described>::described($doc.trim()),
        )
    };
}

/// For [`settings!`](crate::settings!).
#[doc(hidden)]
pub fn missing(name: &str) -> SettingProblem {
    SettingProblem { path: name.to_owned(), message: "is missing".to_owned() }
}

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

    crate::settings! {
        /// What a policy could want.
        struct Wishes {
            /// the cluster
            /// of every job
            cluster: String,
            /// how often
            times: u32,
            /// words
            tags: Vec<String> = vec!["x".to_owned()],
            /// or nothing
            role: Option<String> = None,
            /// yes or no
            spot: bool = true,
        }
    }

    #[test]
    fn declared_settings_read_themselves_and_tell_their_schema() {
        let read = |json| Wishes::read(&json);
        let wishes = read(serde_json::json!({"cluster": "ci", "times": 3, "spot": false})).unwrap();
        assert_eq!(
            wishes,
            Wishes {
                cluster: "ci".to_owned(),
                times: 3,
                tags: vec!["x".to_owned()],
                role: None,
                spot: false,
            }
        );
        let told = |json| describe(&read(json).unwrap_err());
        assert_eq!(told(serde_json::json!({})), "cluster: is missing; times: is missing");
        assert!(told(serde_json::json!({"cluster": 1})).starts_with("invalid type: integer `1`"));
        assert!(told(serde_json::json!({"clusters": 1})).starts_with("unknown field `clusters`"));
        let schema: Value = serde_json::from_str(&Wishes::schema().document("wishes")).unwrap();
        assert_eq!(schema["required"], serde_json::json!(["cluster", "times"]));
        assert_eq!(schema["properties"]["cluster"]["description"], "the cluster of every job");
        assert_eq!(schema["properties"]["tags"]["items"]["type"], "string");
        assert_eq!(schema["properties"]["times"]["type"], "integer");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn serde_reads_settings_and_tells_what_is_wrong() {
        assert_eq!(from_json::<Example>(&serde_json::json!({"size": 3})), Ok(Example { size: 3 }));
        let problems = from_json::<Example>(&serde_json::json!({"sise": 3})).unwrap_err();
        assert_eq!(describe(&problems), "unknown field `sise`, expected `size`");
    }
}
