//! Where a policy's component comes from: a file, or a registry.

use std::fmt;
use std::path::{Path, PathBuf};

use super::DefaultPlacement;

/// `component = …` of `[policies.*]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// A file, absolute.
    File(PathBuf),
    /// In a registry; `pointsman policy sync` fetches it.
    Oci(OciReference),
    /// None: the driver's own answer, of a profile's `default`.
    BuiltIn(Box<DefaultPlacement>),
}

/// `oci://HOST[:PORT]/NAME@sha256:…`: a manifest, by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    /// `HOST` or `HOST:PORT`.
    pub registry: String,
    /// With its slashes.
    pub repository: String,
    /// Of the manifest, 64 lower-case hex digits.
    pub digest: String,
}

impl Component {
    /// Reads `text`; relative paths are of `directory`.
    ///
    /// # Errors
    ///
    /// Returns what was expected.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("oci", reference)) => OciReference::parse(reference).map(Self::Oci),
            Some((scheme, _)) => Err(format!(
                "begins with `{scheme}://`, expected the path of a component or `oci://HOST/NAME@sha256:…`"
            )),
            None => Ok(Self::File(directory.join(text))),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Oci(reference) => write!(formatter, "oci://{reference}"),
            Self::BuiltIn(_) => formatter.write_str("the driver's own"),
        }
    }
}

impl OciReference {
    /// Reads what stands behind `oci://`.
    ///
    /// # Errors
    ///
    /// Returns what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("is `oci://{text}`, {what}");
        let Some((place, digest)) = text.split_once("@sha256:") else {
            // A tag can be moved to another component by whoever can push.
            return Err(wrong("expected its digest as well: `oci://HOST/NAME@sha256:…`"));
        };
        if digest.len() != 64
            || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(wrong("expected 64 lower-case hex digits behind `@sha256:`"));
        }
        let Some((registry, repository)) = place.split_once('/') else {
            return Err(wrong("expected a host and a name: `oci://HOST/NAME@sha256:…`"));
        };
        // https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
        let part = |part: &str| {
            part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
                && part.starts_with(|first: char| first.is_ascii_alphanumeric())
        };
        if !repository.split('/').all(part) || repository.len() > 255 {
            return Err(wrong(
                "expected a name of lower-case letters, digits, `.`, `_`, `-` and `/`, without a tag",
            ));
        }
        let legal_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if registry.is_empty() || !registry.bytes().all(legal_host) {
            return Err(wrong("expected a host before the first `/`"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            digest: digest.to_owned(),
        })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}@sha256:{}", self.registry, self.repository, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_files_or_pinned_references() {
        let directory = Path::new("/etc/pointsman");
        let parse = |text: &str| Component::parse(text, directory);
        assert_eq!(
            parse("by-tag.wasm"),
            Ok(Component::File(PathBuf::from("/etc/pointsman/by-tag.wasm")))
        );
        let digest = "0123456789abcdef".repeat(4);
        let text = format!("oci://registry.example:5000/ci/by-tag@sha256:{digest}");
        let Ok(component) = parse(&text) else { panic!("a reference") };
        assert_eq!(component.to_string(), text);
        for (text, said) in [
            ("oci://registry.example/ci/by-tag:1.0", "expected its digest as well"),
            ("oci://registry.example/ci/by-tag@sha256:12", "64 lower-case hex digits"),
            (&format!("oci://by-tag@sha256:{digest}"), "expected a host and a name"),
            (&format!("oci://h/by-tag:1@sha256:{digest}"), "without a tag"),
            (&format!("oci://h/../x@sha256:{digest}"), "expected a name"),
            (&format!("oci://a b/x@sha256:{digest}"), "expected a host before"),
            ("https://example.com/x.wasm", "begins with `https://`"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
        }
    }
}
