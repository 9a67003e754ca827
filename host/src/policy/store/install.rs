//! What `pointsman policy sync` does with the store, so that jobs only load.

use std::collections::BTreeSet;

use super::{Component, PolicyError, Store, StoreError, component, directory, kept_file};
use crate::settings;

impl Store {
    /// Whether `policy`'s component has to be fetched from a registry before the policy can be made ready.
    pub fn needs_fetching(&self, policy: &settings::Policy) -> bool {
        matches!(policy.component, Component::Oci(_)) && self.read_component(policy).is_err()
    }

    /// Keeps `bytes`, which a registry gave for `policy`.
    ///
    /// # Errors
    ///
    /// Fails when they are not what `sha256` pins, or cannot be written.
    pub fn keep(
        &self,
        name: &str,
        policy: &settings::Policy,
        bytes: &[u8],
    ) -> Result<(), PolicyError> {
        component::verify(policy, bytes)
            .and_then(|()| {
                let _lock = self.directory.lock()?;
                self.directory.replace(&kept_file(&policy.sha256), bytes)
            })
            .map_err(|source| PolicyError::Store { policy: name.to_owned(), source })
    }

    /// Reads `policy`'s component and holds it against `sha256`, whether it is compiled or not. Answers its length
    /// in bytes.
    ///
    /// # Errors
    ///
    /// Fails when it is not there or another one.
    pub fn verify(&self, name: &str, policy: &settings::Policy) -> Result<u64, PolicyError> {
        self.read_component(policy)
            .map(|bytes| bytes.len() as u64)
            .map_err(|source| PolicyError::Store { policy: name.to_owned(), source })
    }

    /// Keeps for `policy` what `other` has kept of it out of a registry.
    ///
    /// # Errors
    ///
    /// Fails when `other` has not got it, or it cannot be written.
    pub fn keep_from(
        &self,
        other: &Self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<(), PolicyError> {
        let bytes = other
            .read_component(policy)
            .map_err(|source| PolicyError::Store { policy: name.to_owned(), source })?;
        self.keep(name, policy, &bytes)
    }

    /// Whether a job would find `policy` compiled.
    pub fn is_compiled(&self, policy: &settings::Policy) -> bool {
        let present = |file: &str| self.directory.open_file(file).ok().flatten().is_some();
        present(&self.file(&policy.sha256, "cwasm")) && present(&self.file(&policy.sha256, "json"))
    }

    /// Removes what no policy with one of the digests `kept` needs, other drivers' entries included. Answers the
    /// files' names. Nothing goes that is not of the store's own naming.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be removed.
    pub fn prune(&self, kept: &BTreeSet<String>) -> Result<Vec<String>, StoreError> {
        let _lock = self.directory.lock()?;
        let mut removed = Vec::new();
        for file in self.directory.files()? {
            let Some(sha256) = digest_of(&file) else { continue };
            let needed = kept.contains(sha256)
                && [kept_file(sha256), self.file(sha256, "cwasm"), self.file(sha256, "json")]
                    .contains(&file);
            if !needed {
                self.directory.remove(&file)?;
                removed.push(file);
            }
        }
        Ok(removed)
    }
}

/// `<sha256>.wasm`, `<sha256>-<key>.cwasm`, `<sha256>-<key>.json`, and what a killed process left of them.
fn digest_of(file: &str) -> Option<&str> {
    let name = file.strip_suffix(directory::TEMPORARY).unwrap_or(file);
    let (stem, extension) = name.rsplit_once('.')?;
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let sha256 = match extension {
        "wasm" => stem,
        "cwasm" | "json" => {
            let (sha256, key) = stem.split_once('-')?;
            is_hex(key, 16).then_some(sha256)?
        }
        _ => return None,
    };
    is_hex(sha256, 64).then_some(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stores_own_files_are_known() {
        let sha256 = "0123456789abcdef".repeat(4);
        let key = "0123456789abcdef";
        for file in [
            format!("{sha256}.wasm"),
            format!("{sha256}-{key}.cwasm"),
            format!("{sha256}-{key}.json"),
            format!("{sha256}-{key}.json.new"),
        ] {
            assert_eq!(digest_of(&file), Some(sha256.as_str()), "{file}");
        }
        for file in
            ["lock", "notes.txt", "x.wasm", &format!("{sha256}-x.json"), &format!("{sha256}.txt")]
        {
            assert_eq!(digest_of(file), None, "{file}");
        }
    }
}
