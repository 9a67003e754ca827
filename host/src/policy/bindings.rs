//! What `bindgen!` makes of `wit/policy.wit`, and nothing else.

/// World `placement-policy`, and the interfaces that all worlds share.
pub(super) mod placement {
    wasmtime::component::bindgen!({ path: "../wit", world: "placement-policy" });
}

/// World `mutation-policy`.
pub(super) mod mutation {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "mutation-policy",
        with: {
            "pointsman:policy/facts@0.1.0": super::placement::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": super::placement::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": super::placement::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": super::placement::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": super::placement::pointsman::policy::types,
        },
    });
}

/// World `guard-policy`.
pub(super) mod guard {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "guard-policy",
        with: {
            "pointsman:policy/facts@0.1.0": super::placement::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": super::placement::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": super::placement::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": super::placement::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": super::placement::pointsman::policy::types,
        },
    });
}

/// World `recovery-hook`: optional, beside one of the others.
pub(super) mod recovery {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "recovery-hook",
        with: {
            "pointsman:policy/facts@0.1.0": super::placement::pointsman::policy::facts,
            "pointsman:policy/claims@0.1.0": super::placement::pointsman::policy::claims,
            "pointsman:policy/catalog@0.1.0": super::placement::pointsman::policy::catalog,
            "pointsman:policy/log@0.1.0": super::placement::pointsman::policy::log,
            "pointsman:policy/types@0.1.0": super::placement::pointsman::policy::types,
        },
    });

    pub(in crate::policy) use exports::pointsman::policy::recovery::LostAttempt;
}

pub(super) use placement::pointsman::policy::{catalog, claims, facts, log, types};
