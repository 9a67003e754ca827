//! What `wit-bindgen` makes of `wit/policy.wit`.
//!
//! One module an exported interface, because the macros that export an interface have crate-wide names and
//! so may be generated once only. `wit-component` joins the worlds that a component exports.
#![expect(missing_docs, reason = "generated; wit/policy.wit is the documentation")]

/// Interface `lifecycle`: what every policy exports, and the imports that all worlds share.
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package pointsman:sdk;
            world lifecycle-half {
                include pointsman:policy/imports@0.1.0;
                export pointsman:policy/lifecycle@0.1.0;
            }
        ",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        additional_derives: [PartialEq, Eq],
        default_bindings_module: "pointsman_policy_sdk::bindings::lifecycle",
        generate_all,
    });
}

/// Interface `placer`: what placers export.
pub mod placer {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package pointsman:sdk;
            world placer-half {
                include pointsman:policy/imports@0.1.0;
                export pointsman:policy/placer@0.1.0;
            }
        ",
        pub_export_macro: true,
        export_macro_name: "export_placer",
        additional_derives: [PartialEq, Eq],
        default_bindings_module: "pointsman_policy_sdk::bindings::placer",
        with: {
            "pointsman:policy/facts@0.1.0": crate::bindings::lifecycle::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": crate::bindings::lifecycle::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": crate::bindings::lifecycle::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": crate::bindings::lifecycle::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": crate::bindings::lifecycle::pointsman::policy::types,
        },
    });
}

/// Interface `mutator`: what mutators export.
pub mod mutator {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package pointsman:sdk;
            world mutator-half {
                include pointsman:policy/imports@0.1.0;
                export pointsman:policy/mutator@0.1.0;
            }
        ",
        pub_export_macro: true,
        export_macro_name: "export_mutator",
        additional_derives: [PartialEq, Eq],
        default_bindings_module: "pointsman_policy_sdk::bindings::mutator",
        with: {
            "pointsman:policy/facts@0.1.0": crate::bindings::lifecycle::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": crate::bindings::lifecycle::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": crate::bindings::lifecycle::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": crate::bindings::lifecycle::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": crate::bindings::lifecycle::pointsman::policy::types,
        },
    });
}

/// Interface `guard`: what guards export.
pub mod guard {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package pointsman:sdk;
            world guard-half {
                include pointsman:policy/imports@0.1.0;
                export pointsman:policy/guard@0.1.0;
            }
        ",
        pub_export_macro: true,
        export_macro_name: "export_guard",
        additional_derives: [PartialEq, Eq],
        default_bindings_module: "pointsman_policy_sdk::bindings::guard",
        with: {
            "pointsman:policy/facts@0.1.0": crate::bindings::lifecycle::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": crate::bindings::lifecycle::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": crate::bindings::lifecycle::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": crate::bindings::lifecycle::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": crate::bindings::lifecycle::pointsman::policy::types,
        },
    });
}

/// Interface `recovery`: the hook that any of the three may export as well.
pub mod recovery {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package pointsman:sdk;
            world recovery-half {
                include pointsman:policy/imports@0.1.0;
                export pointsman:policy/recovery@0.1.0;
            }
        ",
        pub_export_macro: true,
        export_macro_name: "export_recovery",
        additional_derives: [PartialEq, Eq],
        default_bindings_module: "pointsman_policy_sdk::bindings::recovery",
        with: {
            "pointsman:policy/facts@0.1.0": crate::bindings::lifecycle::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": crate::bindings::lifecycle::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": crate::bindings::lifecycle::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": crate::bindings::lifecycle::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": crate::bindings::lifecycle::pointsman::policy::types,
        },
    });
}
