//! From a trait implementation to a component's exports.

use crate::bindings::lifecycle::pointsman::policy::types::Metadata;
use crate::context::Host;
use crate::{
    Decision, Guard, LostAttempt, Mutator, Placement, Placer, Policy, Recovery, Rejection,
    SettingProblem,
};
use crate::{Value, settings};

/// Makes a component of the crate: `export!(MyPolicy: placer);`, or `mutator`, or `guard`; with the hook
/// [`Recovery`](crate::Recovery), `export!(MyPolicy: placer + recovery);`.
///
/// The component's name and version are the crate's.
#[macro_export]
macro_rules! export {
    ($policy:ty: $kind:ident + recovery) => {
        $crate::export!($policy: $kind);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            impl $crate::bindings::recovery::exports::pointsman::policy::recovery::Guest for Component {
                fn recover(settings: String, lost: $crate::LostAttempt) -> $crate::Decision {
                    $crate::export::recover::<$policy>(&settings, &lost)
                }
            }

            $crate::bindings::recovery::export_recovery!(
                Component with_types_in $crate::bindings::recovery
            );
        };
    };
    ($policy:ty: placer) => {
        $crate::export!(@component $policy, placer, export_placer, {
            impl $crate::bindings::placer::exports::pointsman::policy::placer::Guest for Component {
                fn place(settings: String) -> $crate::Decision {
                    $crate::export::place::<$policy>(&settings)
                }
            }
        });
    };
    ($policy:ty: mutator) => {
        $crate::export!(@component $policy, mutator, export_mutator, {
            impl $crate::bindings::mutator::exports::pointsman::policy::mutator::Guest for Component {
                fn mutate(
                    settings: String,
                    candidates: Vec<$crate::Placement>,
                ) -> Result<Vec<$crate::Placement>, $crate::Rejection> {
                    $crate::export::mutate::<$policy>(&settings, candidates)
                }
            }
        });
    };
    ($policy:ty: guard) => {
        $crate::export!(@component $policy, guard, export_guard, {
            impl $crate::bindings::guard::exports::pointsman::policy::guard::Guest for Component {
                fn check(
                    settings: String,
                    candidate: $crate::Placement,
                ) -> Result<(), $crate::Rejection> {
                    $crate::export::check::<$policy>(&settings, &candidate)
                }
            }
        });
    };
    (@component $policy:ty, $kind:ident, $export:ident, { $($implementation:item)* }) => {
        // Only a component has these symbols: their names, such as `pointsman:policy/placer@0.1.0#place`, are
        // none that a native linker takes.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            impl $crate::bindings::lifecycle::exports::pointsman::policy::lifecycle::Guest for Component {
                fn describe() -> $crate::bindings::lifecycle::pointsman::policy::types::Metadata {
                    $crate::export::describe::<$policy>(
                        env!("CARGO_PKG_NAME"),
                        env!("CARGO_PKG_VERSION"),
                    )
                }

                fn validate_settings(settings: String) -> Vec<$crate::SettingProblem> {
                    $crate::export::validate_settings::<$policy>(&settings)
                }
            }

            $($implementation)*

            $crate::bindings::lifecycle::export_lifecycle!(
                Component with_types_in $crate::bindings::lifecycle
            );
            $crate::bindings::$kind::$export!(
                Component with_types_in $crate::bindings::$kind
            );
        };
    };
}

/// `lifecycle.describe`
pub fn describe<P: Policy>(name: &str, version: &str) -> Metadata {
    Metadata {
        name: name.to_owned(),
        version: version.to_owned(),
        description: P::DESCRIPTION.to_owned(),
        settings_schema: P::schema().map(|schema| schema.document(name)),
        extra: Vec::new(),
    }
}

/// `lifecycle.validate-settings`
pub fn validate_settings<P: Policy>(json: &str) -> Vec<SettingProblem> {
    read::<P>(json).err().unwrap_or_default()
}

/// `placer.place`
pub fn place<P: Placer>(json: &str) -> Decision {
    match read::<P>(json) {
        Ok(settings) => P::place(&Host, &settings),
        Err(problems) => Decision::Reject(invalid_settings(&problems)),
    }
}

/// `mutator.mutate`
///
/// # Errors
///
/// The policy's own rejection, or one that lists what is wrong with the settings.
pub fn mutate<P: Mutator>(
    json: &str,
    candidates: Vec<Placement>,
) -> Result<Vec<Placement>, Rejection> {
    let settings = read::<P>(json).map_err(|problems| invalid_settings(&problems))?;
    P::mutate(&Host, &settings, candidates)
}

/// `guard.check`
///
/// # Errors
///
/// The policy's own rejection, or one that lists what is wrong with the settings.
pub fn check<P: Guard>(json: &str, candidate: &Placement) -> Result<(), Rejection> {
    let settings = read::<P>(json).map_err(|problems| invalid_settings(&problems))?;
    P::check(&Host, &settings, candidate)
}

/// `recovery.recover`
pub fn recover<P: Recovery>(json: &str, lost: &LostAttempt) -> Decision {
    match read::<P>(json) {
        Ok(settings) => P::recover(&Host, &settings, lost),
        Err(problems) => Decision::Reject(invalid_settings(&problems)),
    }
}

fn read<P: Policy>(json: &str) -> Result<P::Settings, Vec<SettingProblem>> {
    let value: Value = serde_json::from_str(json).map_err(|error| {
        vec![SettingProblem { path: String::new(), message: format!("not JSON: {error}") }]
    })?;
    P::settings(&value)
}

/// The host validates settings before it asks, so this is for hosts that do not.
fn invalid_settings(problems: &[SettingProblem]) -> Rejection {
    Rejection {
        code: "invalid-settings".to_owned(),
        message: format!("the policy's settings are wrong: {}", settings::describe(problems)),
        hint: None,
    }
}
