//! `policy inspect`: what a component is, imports and exports, told without running more of it than its own
//! description.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

use super::{AuthoringError, digest, failed, name_of, policy_of};
use crate::policy::{Kind, PolicyError, Store};

/// The package that policies are written against.
const PACKAGE: &str = "pointsman:policy/";

/// What there is to say of a component.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// SHA-256 of the file, for `sha256 = …`.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Of the interface that it was built for, such as `0.1.0`.
    pub interface_version: Option<String>,
    /// Of `wit/policy.wit`; `None` when it exports nothing that makes it a policy.
    pub world: Option<&'static str>,
    /// Functions by interface.
    pub imports: BTreeMap<String, Vec<String>>,
    /// Functions by interface.
    pub exports: BTreeMap<String, Vec<String>>,
    /// Interfaces of WASI among the imports.
    pub wasi: Vec<String>,
    /// What an operator has to know or to grant.
    pub needs: Vec<String>,
    /// What the component says of itself; `None` when it does not run on this driver.
    pub says: Option<Says>,
    /// Why it does not run.
    pub refused: Option<String>,
}

/// What a component says of itself.
#[derive(Debug, Serialize)]
pub struct Says {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line.
    pub description: String,
    /// JSON Schema of its settings.
    pub settings_schema: Option<serde_json::Value>,
}

/// Looks into the component at `path`; `store` compiles it.
///
/// # Errors
///
/// Fails when the file cannot be read or is no component.
pub fn inspect(path: &Path, store: &Store) -> Result<Inspection, AuthoringError> {
    let bytes = std::fs::read(path).map_err(failed("read", path))?;
    let (imports, exports) = interfaces(&bytes).map_err(|reason| {
        AuthoringError::Unusable(format!("{} is no component: {reason}", path.display()))
    })?;
    let wasi: Vec<String> =
        imports.keys().filter(|name| name.starts_with("wasi:")).cloned().collect();
    let policy = policy_of(path, serde_json::Value::Object(serde_json::Map::new()))?;
    let (says, refused) = match store.examine(&name_of(path), &policy) {
        Ok(examined) => {
            let schema = examined.settings_schema.as_deref();
            let says = Says {
                name: examined.description.name,
                version: examined.description.version,
                description: examined.description.description,
                settings_schema: schema.and_then(|text| serde_json::from_str(text).ok()),
            };
            (Some(says), None)
        }
        Err(error @ PolicyError::Store { .. }) => return Err(error.into()),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Inspection {
        sha256: digest(&bytes),
        bytes: bytes.len() as u64,
        interface_version: version(&exports),
        world: world(&exports),
        needs: needs(&imports, &wasi),
        imports,
        exports,
        wasi,
        says,
        refused,
    })
}

/// What a component of this kind implements.
pub fn world_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Placer => "placement-policy",
        Kind::Mutator => "mutation-policy",
        Kind::Guard => "guard-policy",
    }
}

type Interfaces = BTreeMap<String, Vec<String>>;

/// Imports and exports of a component, functions by interface.
pub(super) fn interfaces(bytes: &[u8]) -> Result<(Interfaces, Interfaces), String> {
    if bytes.get(..8) == Some(b"\0asm\x01\0\0\0") {
        return Err("a core module; `pointsman policy build` makes components".to_owned());
    }
    let decoded = wit_component::decode(bytes).map_err(|error| format!("{error:#}"))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err("a WIT package".to_owned());
    };
    let world = &resolve.worlds[world];
    Ok((functions(&resolve, world.imports.iter()), functions(&resolve, world.exports.iter())))
}

fn functions<'a>(
    resolve: &Resolve,
    items: impl Iterator<Item = (&'a WorldKey, &'a WorldItem)>,
) -> Interfaces {
    items
        .map(|(key, item)| {
            let functions = match item {
                WorldItem::Interface { id, .. } => {
                    resolve.interfaces[*id].functions.keys().cloned().collect()
                }
                _ => Vec::new(),
            };
            (resolve.name_world_key(key), functions)
        })
        .collect()
}

fn exported(exports: &Interfaces, interface: &str) -> bool {
    exports
        .keys()
        .filter_map(|name| name.strip_prefix(PACKAGE))
        .any(|name| name.split_once('@').map_or(name, |(name, _)| name) == interface)
}

pub(super) fn world(exports: &Interfaces) -> Option<&'static str> {
    [
        ("placer", world_of(Kind::Placer)),
        ("mutator", world_of(Kind::Mutator)),
        ("guard", world_of(Kind::Guard)),
    ]
    .into_iter()
    .find(|(interface, _)| exported(exports, interface))
    .map(|(_, world)| world)
}

fn version(exports: &Interfaces) -> Option<String> {
    exports
        .keys()
        .filter_map(|name| name.strip_prefix(PACKAGE)?.split_once('@'))
        .map(|(_, version)| version.to_owned())
        .next()
}

fn needs(imports: &Interfaces, wasi: &[String]) -> Vec<String> {
    let mut needs = Vec::new();
    if !wasi.is_empty() {
        needs.push(format!("`wasi = true` in its policy's entry: it imports {}", wasi.join(", ")));
    }
    let claims: Vec<&str> = imports
        .iter()
        .filter(|(name, _)| name.starts_with("pointsman:policy/claims"))
        .flat_map(|(_, functions)| functions.iter().map(String::as_str))
        .collect();
    if !claims.is_empty() {
        needs.push(format!(
            "a profile without `claims_taint = \"deny-privileged-roles\"` for privileged roles, if it reads what it \
             can read of the author's claims: {}",
            claims.join(", ")
        ));
    }
    for name in imports.keys() {
        if !name.starts_with(PACKAGE) && !name.starts_with("wasi:") {
            needs.push(format!("`{name}`, which no policy gets"));
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_needs_is_told_from_its_imports() {
        let imports = BTreeMap::from([
            ("pointsman:policy/facts@0.1.0".to_owned(), vec!["get-ref".to_owned()]),
            ("pointsman:policy/claims@0.1.0".to_owned(), vec!["variable".to_owned()]),
            ("wasi:cli/environment@0.2.0".to_owned(), Vec::new()),
            ("evil:net/socket".to_owned(), Vec::new()),
        ]);
        let needs = needs(&imports, &["wasi:cli/environment@0.2.0".to_owned()]);
        assert_eq!(needs.len(), 3, "{needs:?}");
        assert!(needs[0].starts_with("`wasi = true`"));
        assert!(needs[1].ends_with("claims: variable"));
        assert_eq!(needs[2], "`evil:net/socket`, which no policy gets");
    }

    #[test]
    fn worlds_are_told_from_exports() {
        let exports = |name: &str| BTreeMap::from([(name.to_owned(), Vec::new())]);
        let guard = exports("pointsman:policy/guard@0.1.2");
        assert_eq!(world(&guard), Some("guard-policy"));
        assert_eq!(version(&guard).as_deref(), Some("0.1.2"));
        assert_eq!(world(&exports("wasi:cli/run@0.2.0")), None);
        assert!(interfaces(b"\0asm\x01\0\0\0").unwrap_err().starts_with("a core module"));
        assert!(interfaces(b"junk").is_err());
    }
}
