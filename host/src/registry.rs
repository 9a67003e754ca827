//! Components in OCI registries: pulled by `pointsman policy sync`, pushed by `pointsman policy push`.
//!
//! An artifact is laid out as CNCF's TAG Runtime says (tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact):
//! one layer `application/wasm` with the component. Jobs never come here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, manifest};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

use crate::secret::Secret;
use crate::settings::OciReference;

const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Bytes of a component.
const MAX_COMPONENT: usize = 64 << 20;
/// Without a byte for so long a transfer is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a component could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry refused, or could not be reached.
    #[error("cannot {what} `{reference}`")]
    Registry {
        /// `pull` or `push`.
        what: &'static str,
        /// As given.
        reference: String,
        /// The reason.
        source: Box<OciDistributionError>,
    },
    /// The artifact is no component.
    #[error("`{reference}` {reason}")]
    NoComponent {
        /// As given.
        reference: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A reference to push to.
    #[error("`{text}` is no place to push to: expected `oci://HOST/NAME:TAG`")]
    Place {
        /// As given.
        text: String,
    },
    /// The file with the credentials.
    #[error("cannot read the credentials of {}", .path.display())]
    Credentials {
        /// As given.
        path: PathBuf,
        /// The reason, without a word of the file.
        source: io::Error,
    },
    /// No runtime to do it on.
    #[error("cannot start the network")]
    Runtime {
        /// The reason.
        source: io::Error,
    },
}

/// Who asks: the entries of a file in the format of Docker's `config.json`.
#[derive(Debug, Default)]
pub struct Credentials {
    /// By registry: user and password.
    entries: BTreeMap<String, (String, Secret<String>)>,
}

impl Credentials {
    /// Reads the `auths` of the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or has another format.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        #[derive(Deserialize)]
        struct File {
            auths: BTreeMap<String, Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            auth: String,
        }
        let error = |source| RegistryError::Credentials { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(error)?;
        // Neither of the parsers' own texts: they may quote the file.
        let wrong = |what: &str| error(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|_| wrong("it has no `auths` as Docker's config.json has"))?;
        let mut entries = BTreeMap::new();
        for (registry, entry) in file.auths {
            let text =
                BASE64_STANDARD.decode(entry.auth).ok().and_then(|b| String::from_utf8(b).ok());
            let pair = text.as_deref().and_then(|text| text.split_once(':'));
            let (user, password) = pair
                .ok_or_else(|| wrong("an `auth` in it is no base64 of user, colon and password"))?;
            entries.insert(registry, (user.to_owned(), Secret::new(password.to_owned())));
        }
        Ok(Self { entries })
    }

    fn of(&self, registry: &str) -> RegistryAuth {
        match self.entries.get(registry) {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.reveal().clone()),
            None => RegistryAuth::Anonymous,
        }
    }
}

/// Fetches the component at `reference`; whoever calls holds it against the digest that the settings pin.
///
/// # Errors
///
/// Fails when the registry does not give it, or gives something else.
pub fn pull(reference: &OciReference, credentials: &Credentials) -> Result<Vec<u8>, RegistryError> {
    let text = format!("oci://{reference}");
    let failed = |source| RegistryError::Registry {
        what: "pull",
        reference: text.clone(),
        source: Box::new(source),
    };
    let no_component =
        |reason: String| RegistryError::NoComponent { reference: text.clone(), reason };
    let image = Reference::with_digest(
        reference.registry.clone(),
        reference.repository.clone(),
        format!("sha256:{}", reference.digest),
    );
    block_on(async {
        let client = client(&reference.registry);
        let auth = credentials.of(&reference.registry);
        let (manifest, digest) = client.pull_image_manifest(&image, &auth).await.map_err(failed)?;
        if digest != format!("sha256:{}", reference.digest) {
            return Err(no_component(format!("is another manifest there, {digest}")));
        }
        let [layer] = manifest.layers.as_slice() else {
            return Err(no_component(format!(
                "has {} layers, expected one",
                manifest.layers.len()
            )));
        };
        if ![LAYER, manifest::WASM_LAYER_MEDIA_TYPE].contains(&layer.media_type.as_str()) {
            return Err(no_component(format!(
                "has a layer `{}`, expected `{LAYER}`",
                crate::placement::text::one_line(&layer.media_type, 128)
            )));
        }
        let mut bytes = Bounded::default();
        let pulled = client.pull_blob(&image, layer, &mut bytes).await;
        if bytes.overflowed {
            return Err(no_component(format!("has more than {} MiB", MAX_COMPONENT >> 20)));
        }
        pulled.map_err(failed)?;
        Ok(bytes.bytes)
    })
}

/// What the configuration of a pushed artifact says of the component.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Interfaces.
    pub imports: Vec<String>,
    /// Interfaces.
    pub exports: Vec<String>,
    /// For `org.opencontainers.image.title`.
    #[serde(skip)]
    pub title: String,
    /// For `org.opencontainers.image.version`.
    #[serde(skip)]
    pub version: String,
}

/// Puts `component`, whose digest is `sha256`, at `place`: `oci://HOST/NAME:TAG`. Answers the reference to pin.
///
/// # Errors
///
/// Fails when the registry does not take it.
pub fn push(
    place: &str,
    component: Vec<u8>,
    sha256: &str,
    about: &About,
    credentials: &Credentials,
) -> Result<OciReference, RegistryError> {
    let wrong_place = || RegistryError::Place { text: place.to_owned() };
    let rest = place.strip_prefix("oci://").ok_or_else(wrong_place)?;
    let (name, tag) = rest.rsplit_once(':').ok_or_else(wrong_place)?;
    let (registry, repository) = name.split_once('/').ok_or_else(wrong_place)?;
    // The same rules as for a reference; the digest stands in for the one that is not known yet.
    OciReference::parse(&format!("{name}@sha256:{sha256}")).map_err(|_| wrong_place())?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(legal) {
        return Err(wrong_place());
    }
    let failed = |source| RegistryError::Registry {
        what: "push",
        reference: place.to_owned(),
        source: Box::new(source),
    };
    let config = serde_json::json!({
        "created": jiff::Timestamp::now().to_string(),
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [format!("sha256:{sha256}")],
        "component": about,
    });
    let config = Config::new(config.to_string().into_bytes(), CONFIG.to_owned(), None);
    let layers = [ImageLayer::new(component, LAYER.to_owned(), None)];
    let annotations = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), about.title.clone()),
        ("org.opencontainers.image.version".to_owned(), about.version.clone()),
    ]);
    let manifest = manifest::OciImageManifest::build(&layers, &config, Some(annotations));
    let image = Reference::with_tag(registry.to_owned(), repository.to_owned(), tag.to_owned());
    block_on(async {
        let client = client(registry);
        let auth = credentials.of(registry);
        client.push(&image, &layers, config, &auth, Some(manifest)).await.map_err(failed)?;
        let digest = client.fetch_manifest_digest(&image, &auth).await.map_err(failed)?;
        let digest = digest.strip_prefix("sha256:").unwrap_or(&digest);
        OciReference::parse(&format!("{name}@sha256:{digest}"))
            .map_err(|reason| RegistryError::NoComponent { reference: place.to_owned(), reason })
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RegistryError::Runtime { source })?
        .block_on(work)
}

fn client(registry: &str) -> Client {
    // Plain HTTP never leaves this machine.
    let protocol = if is_loopback(registry) { ClientProtocol::Http } else { ClientProtocol::Https };
    Client::new(ClientConfig {
        protocol,
        platform_resolver: None,
        read_timeout: Some(PATIENCE),
        connect_timeout: Some(PATIENCE),
        user_agent: concat!("pointsman/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

fn is_loopback(registry: &str) -> bool {
    registry
        .parse::<std::net::SocketAddr>()
        .map(|address| address.ip())
        .or_else(|_| registry.parse())
        .is_ok_and(|address| address.is_loopback())
}

/// Takes bytes up to a component's largest size, whatever a manifest says of it.
#[derive(Debug, Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() + bytes.len() > MAX_COMPONENT {
            self.overflowed = true;
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_dockers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        // robot:secret
        std::fs::write(&path, r#"{"auths":{"registry.example":{"auth":"cm9ib3Q6c2VjcmV0"}}}"#)
            .unwrap();
        let credentials = Credentials::read(&path).unwrap();
        assert_eq!(
            credentials.of("registry.example"),
            RegistryAuth::Basic("robot".to_owned(), "secret".to_owned())
        );
        assert_eq!(credentials.of("other.example"), RegistryAuth::Anonymous);
        assert!(!format!("{credentials:?}").contains("secret"));
        std::fs::write(&path, r#"{"auths":{"registry.example":{"auth":"cm9ib3Q="}}}"#).unwrap();
        let error = Credentials::read(&path).unwrap_err();
        assert!(!std::error::Error::source(&error).unwrap().to_string().contains("cm9"));
    }

    #[test]
    fn only_loopback_is_spoken_to_in_the_clear() {
        for (registry, expected) in [
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("127.0.0.1", true),
            ("10.0.0.1:5000", false),
            ("registry.example", false),
            ("127.0.0.1.example:5000", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }

    #[test]
    fn a_place_has_a_host_a_name_and_a_tag() {
        let about = About {
            imports: Vec::new(),
            exports: Vec::new(),
            title: String::new(),
            version: String::new(),
        };
        for place in ["registry.example/x:1", "oci://x:1", "oci://h/x", "oci://h/X:1", "oci://h/x:"]
        {
            let error = push(place, Vec::new(), &"0".repeat(64), &about, &Credentials::default())
                .unwrap_err();
            assert!(matches!(error, RegistryError::Place { .. }), "{place}: {error}");
        }
    }
}
