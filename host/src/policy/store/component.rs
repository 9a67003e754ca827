//! From a component's file to compiled code that is known to fit the interface.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component as Compiled;

use super::{BrokenKind, Component, Kind, StoreError, hex};
use crate::placement::text::one_line;
use crate::policy::call::panic_text;
use crate::policy::wasi as inert;
use crate::settings;

/// Python's components have 18 MB.
pub(super) const MAX_COMPONENT: u64 = 64 << 20;

/// `package pointsman:policy@0.1.…`
const PACKAGE: &str = "pointsman:policy/";
const TRACK: &str = "0.1.";
const IMPORTS: [&str; 5] = ["facts", "claims", "catalog", "log", "types"];

/// The bytes of the file at `path`, which `component` names.
pub(super) fn read(path: &Path, component: &Component) -> Result<Vec<u8>, StoreError> {
    let error = |source| StoreError::Component { component: component.to_string(), source };
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(error(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {} MiB", MAX_COMPONENT >> 20),
        )));
    }
    Ok(bytes)
}

/// Whether `bytes` are what was pinned.
pub(super) fn verify(policy: &settings::Policy, bytes: &[u8]) -> Result<(), StoreError> {
    let actual = hex(&Sha256::digest(bytes));
    if actual == policy.sha256 {
        return Ok(());
    }
    Err(StoreError::Digest {
        component: policy.component.to_string(),
        expected: policy.sha256.clone(),
        actual,
    })
}

pub(super) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Compiled, BrokenKind> {
    let not = |text: &str| Err(BrokenKind::NotAComponent(text.to_owned()));
    match bytes {
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            return not("a core module; `wasm-tools component new` makes a component of it");
        }
        // https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => {}
        [b'\0', b'a', b's', b'm', ..] => return not("an unknown version of the binary format"),
        [0x7f, b'E', b'L', b'F', ..] => return not("compiled code; give the `.wasm` file"),
        [] => return not("the file is empty"),
        _ => return not("it does not begin as WebAssembly does"),
    }
    match catch_unwind(AssertUnwindSafe(|| Compiled::from_binary(engine, bytes))) {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => not(&one_line(&format!("{error:#}"), 500)),
        Err(panic) => Err(BrokenKind::Panic(panic_text(panic.as_ref()))),
    }
}

/// What the component is for, what it imports, and what it exports.
pub(super) fn inspect(
    engine: &Engine,
    component: &Compiled,
    wasi: bool,
) -> Result<(Kind, BTreeSet<String>, BTreeSet<String>), BrokenKind> {
    let component = component.component_type();
    let names = |iter: &mut dyn Iterator<Item = String>| iter.collect::<BTreeSet<_>>();
    let imports = names(&mut component.imports(engine).map(|(name, _)| one_line(name, 128)));
    let exports = names(&mut component.exports(engine).map(|(name, _)| one_line(name, 128)));
    check_imports(&imports, wasi)?;
    let kind = kind(&exports)?;
    Ok((kind, imports, exports))
}

/// Whether a policy that is granted WASI or not may have all of `imports`.
pub(super) fn check_imports(imports: &BTreeSet<String>, wasi: bool) -> Result<(), BrokenKind> {
    imports.iter().try_for_each(|import| check_import(import, wasi))
}

fn check_import(name: &str, wasi: bool) -> Result<(), BrokenKind> {
    match interface(name) {
        Some((interface, version)) if IMPORTS.contains(&interface) => match version {
            Some(version) if version.starts_with(TRACK) => Ok(()),
            version => Err(BrokenKind::Link(format!(
                "it was built for version {} of `{interface}`, and this driver has {TRACK}x",
                version.unwrap_or("(none)")
            ))),
        },
        _ if inert::covers(name) && wasi => Ok(()),
        _ if inert::covers(name) => Err(BrokenKind::ForbiddenImport(format!(
            "`{name}`; a policy built for wasm32-unknown-unknown needs no WASI, and `wasi = true` at the policy \
             gives it one without files, network, environment and clock"
        ))),
        _ => Err(BrokenKind::ForbiddenImport(format!("`{name}`"))),
    }
}

fn kind(exports: &BTreeSet<String>) -> Result<Kind, BrokenKind> {
    let exported = |wanted: &str| {
        exports.iter().filter_map(|name| interface(name)).any(|(interface, version)| {
            interface == wanted && version.is_some_and(|version| version.starts_with(TRACK))
        })
    };
    let missing = |what: &str| {
        let found: Vec<&str> = exports.iter().map(String::as_str).take(8).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        BrokenKind::MissingExport(format!("{what} of {PACKAGE}…@{TRACK}x; it exports {found}"))
    };
    let kinds: Vec<Kind> =
        [(Kind::Placer, "placer"), (Kind::Mutator, "mutator"), (Kind::Guard, "guard")]
            .into_iter()
            .filter_map(|(kind, interface)| exported(interface).then_some(kind))
            .collect();
    let kind = match kinds.as_slice() {
        [kind] => *kind,
        [] => return Err(missing("`placer`, `mutator` or `guard`")),
        _ => {
            return Err(BrokenKind::Link(
                "it exports more than one of `placer`, `mutator` and `guard`".to_owned(),
            ));
        }
    };
    if exported("lifecycle") { Ok(kind) } else { Err(missing("`lifecycle`")) }
}

/// Whether an import is what the pipeline's author wrote.
pub(super) fn is_claims(import: &str) -> bool {
    interface(import).is_some_and(|(interface, _)| interface == "claims")
}

/// Whether an export is the optional hook after a lost attempt.
pub(super) fn is_recovery(export: &str) -> bool {
    interface(export).is_some_and(|(interface, version)| {
        interface == "recovery" && version.is_some_and(|version| version.starts_with(TRACK))
    })
}

/// `pointsman:policy/facts@0.1.0` in parts.
fn interface(name: &str) -> Option<(&str, Option<&str>)> {
    let rest = name.strip_prefix(PACKAGE)?;
    Some(match rest.split_once('@') {
        Some((interface, version)) => (interface, Some(version)),
        None => (rest, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn imports() {
        for name in ["pointsman:policy/facts@0.1.0", "pointsman:policy/types@0.1.9"] {
            assert_eq!(check_import(name, false), Ok(()));
        }
        for (name, message) in [
            (
                "wasi:cli/environment@0.2.0",
                "imports what policies do not get: `wasi:cli/environment@0.2.0`; a policy built for \
                 wasm32-unknown-unknown needs no WASI, and `wasi = true` at the policy gives it one without \
                 files, network, environment and clock",
            ),
            (
                "wasi:http/outgoing-handler@0.2.0",
                "imports what policies do not get: `wasi:http/outgoing-handler@0.2.0`",
            ),
            ("host", "imports what policies do not get: `host`"),
            (
                "pointsman:policy/secrets@0.1.0",
                "imports what policies do not get: `pointsman:policy/secrets@0.1.0`",
            ),
            (
                "pointsman:policy/facts@0.2.0",
                "does not fit this driver's policy interface: it was built for version 0.2.0 of `facts`, \
                 and this driver has 0.1.x",
            ),
        ] {
            assert_eq!(check_import(name, false).unwrap_err().to_string(), message);
        }
        assert_eq!(check_import("wasi:cli/environment@0.2.0", true), Ok(()));
        assert!(check_import("wasi:http/outgoing-handler@0.2.0", true).is_err());
    }

    #[test]
    fn kinds() {
        let lifecycle = "pointsman:policy/lifecycle@0.1.0";
        for (interface, expected) in
            [("placer", Kind::Placer), ("mutator", Kind::Mutator), ("guard", Kind::Guard)]
        {
            let export = format!("pointsman:policy/{interface}@0.1.3");
            assert_eq!(kind(&set(&[lifecycle, &export, "init"])), Ok(expected));
            assert!(matches!(kind(&set(&[&export])), Err(BrokenKind::MissingExport(_))));
        }
        assert_eq!(
            kind(&set(&[lifecycle])).unwrap_err().to_string(),
            "lacks an export: `placer`, `mutator` or `guard` of pointsman:policy/…@0.1.x; it exports \
             pointsman:policy/lifecycle@0.1.0"
        );
        let two = set(&["pointsman:policy/placer@0.1.0", "pointsman:policy/guard@0.1.0"]);
        assert!(matches!(kind(&two), Err(BrokenKind::Link(_))));
    }
}
