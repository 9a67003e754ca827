//! Small guests, written as text: each does one thing that a policy should not do, or the least that one does.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The functions of a placer; what is not given does nothing wrong.
pub(super) struct Guest {
    /// Core imports, in text.
    pub(super) imports: &'static str,
    /// Data, beyond what the defaults need: addresses from 2,048 to 4,095 are free.
    pub(super) data: &'static str,
    pub(super) describe: &'static str,
    pub(super) validate_settings: &'static str,
    pub(super) place: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            imports: "",
            data: "",
            // Zeros are empty strings, empty lists and `none`.
            describe: "i32.const 0",
            validate_settings: "i32.const 0",
            place: ABSTAIN,
        }
    }
}

/// A `decision` in memory whose first byte is the case.
pub(super) const ABSTAIN: &str = "i32.const 1024";

impl Guest {
    pub(super) fn placer(&self) -> Vec<u8> {
        self.component(
            "placement-policy",
            "placer@0.1.0#place",
            "(param i32 i32) (result i32)",
            self.place,
        )
    }

    /// `check` gets the candidate as a pointer, since it has too many fields for parameters.
    pub(super) fn guard(check: &str) -> Vec<u8> {
        Self::default().component(
            "guard-policy",
            "guard@0.1.0#check",
            "(param i32) (result i32)",
            check,
        )
    }

    pub(super) fn mutator(mutate: &str) -> Vec<u8> {
        Self::default().component(
            "mutation-policy",
            "mutator@0.1.0#mutate",
            "(param i32 i32 i32 i32) (result i32)",
            mutate,
        )
    }

    fn component(&self, world: &str, function: &str, signature: &str, body: &str) -> Vec<u8> {
        let module = format!(
            r#"(module
                {imports}
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 8192))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                    (global.set $next (i32.add (local.get $at) (local.get 3)))
                    (local.get $at))
                (data (i32.const 1024) "\01")
                {data}
                (func (export "pointsman:policy/lifecycle@0.1.0#describe") (result i32) {describe})
                (func (export "pointsman:policy/lifecycle@0.1.0#validate-settings")
                    (param i32 i32) (result i32) {validate_settings})
                (func (export "pointsman:policy/{function}") {signature} {body})
            )"#,
            imports = self.imports,
            data = self.data,
            describe = self.describe,
            validate_settings = self.validate_settings,
        );
        let mut module = wat::parse_str(&module).unwrap();
        let mut resolve = Resolve::default();
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy.wit");
        let package = resolve.push_file(wit).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
    }
}
