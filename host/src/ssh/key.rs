//! Key pairs, as the seeds that they are made from.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The name of the algorithm, in key lines and inside of keys (RFC 8709, 4).
const ALGORITHM: &str = "ssh-ed25519";

/// An ed25519 key pair: a client key, or a host key to inject into a task.
///
/// It is kept, and serialised, as its seed: 32 bytes, 43 characters of base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Secret<String>", into = "Secret<String>")]
pub struct KeyPair {
    seed: Secret<[u8; 32]>,
}

/// Why there is no key pair.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no randomness.
    #[error("the operating system gives no random bytes for a key")]
    Randomness(#[source] getrandom::Error),
    /// The text is no seed. It is not quoted, for it may be most of one.
    #[error("the key is not 32 bytes as base64 without padding (43 characters)")]
    Seed,
}

impl KeyPair {
    /// Makes a new key pair from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Randomness)?;
        Ok(Self { seed: Secret::new(seed) })
    }

    /// Makes the key pair of a seed.
    pub fn from_seed(seed: Secret<[u8; 32]>) -> Self {
        Self { seed }
    }

    /// Makes the key pair of a seed as [`KeyPair::seed_base64`] gives it.
    ///
    /// # Errors
    ///
    /// Fails when the text is not 32 bytes as base64 without padding.
    pub fn from_seed_base64(seed: &Secret<String>) -> Result<Self, KeyError> {
        let bytes = STANDARD_NO_PAD.decode(seed.reveal()).map_err(|_| KeyError::Seed)?;
        Ok(Self { seed: Secret::new(bytes.try_into().map_err(|_| KeyError::Seed)?) })
    }

    /// The seed: 43 characters of the standard alphabet, no padding.
    pub fn seed_base64(&self) -> Secret<String> {
        Secret::new(STANDARD_NO_PAD.encode(self.seed.reveal()))
    }

    /// The public key as a line of `authorized_keys`, without a comment: `ssh-ed25519 AAAA…`.
    pub fn public_line(&self) -> String {
        let public = self.pair().public.0;
        let mut blob = Vec::with_capacity(51);
        for part in [ALGORITHM.as_bytes(), &public] {
            // Both are far shorter than 4 GiB.
            blob.extend_from_slice(&(part.len() as u32).to_be_bytes());
            blob.extend_from_slice(part);
        }
        format!("{ALGORITHM} {}", STANDARD.encode(blob))
    }

    pub(super) fn private_key(&self) -> PrivateKey {
        self.pair().into()
    }

    fn pair(&self) -> Ed25519Keypair {
        Ed25519Keypair::from_seed(self.seed.reveal())
    }
}

impl TryFrom<Secret<String>> for KeyPair {
    type Error = KeyError;

    fn try_from(seed: Secret<String>) -> Result<Self, KeyError> {
        Self::from_seed_base64(&seed)
    }
}

impl From<KeyPair> for Secret<String> {
    fn from(pair: KeyPair) -> Self {
        pair.seed_base64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_line_is_what_the_library_writes() {
        let pair = KeyPair::generate().unwrap();
        assert_eq!(pair.public_line(), pair.private_key().public_key().to_openssh().unwrap());
        assert_eq!(pair.public_line().len(), 80);
    }

    #[test]
    fn a_pair_survives_its_state_file() {
        let pair = KeyPair::generate().unwrap();
        let text = serde_json::to_string(&pair).unwrap();
        assert_eq!(text.len(), 45, "43 characters in quotes");
        assert_eq!(serde_json::from_str::<KeyPair>(&text).unwrap(), pair);
        assert_eq!(KeyPair::from_seed_base64(&pair.seed_base64()).unwrap(), pair);
    }

    #[test]
    fn pairs_differ_and_do_not_show_their_seed() {
        let pair = KeyPair::generate().unwrap();
        assert_ne!(pair, KeyPair::generate().unwrap());
        assert_eq!(format!("{pair:?}"), "KeyPair { seed: *** }");
    }

    #[test]
    fn what_is_no_seed_is_refused_and_not_quoted() {
        for seed in [
            "",
            "AAAA",
            &"A".repeat(44),
            &"!".repeat(43),
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            let error = KeyPair::from_seed_base64(&Secret::new(seed.to_owned())).unwrap_err();
            assert!(seed.is_empty() || !error.to_string().contains(seed), "{error}");
        }
    }
}
