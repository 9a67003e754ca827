//! What the agent is told by its environment, checked all at once.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

const CLIENT_KEY: &str = "SSH_PUBLIC_KEY";
const HOST_KEY: &str = "POINTSMAN_HOST_KEY";
const DEADLINE: &str = "POINTSMAN_DEADLINE";
const IDLE_TIMEOUT: &str = "POINTSMAN_IDLE_TIMEOUT";
const LISTEN: &str = "POINTSMAN_LISTEN";
const SPOOL: &str = "POINTSMAN_SPOOL";
const NAMES: [&str; 6] = [CLIENT_KEY, HOST_KEY, DEADLINE, IDLE_TIMEOUT, LISTEN, SPOOL];

/// The one control value that scripts may see: the task's private directory in simulations.
const TASK_ROOT: &str = "POINTSMAN_TASK_ROOT";

/// The agent's settings. No `Debug`: it holds the host key.
pub(crate) struct Settings {
    /// The only key that may log in.
    pub(crate) client_key: PublicKey,
    /// The seed of the ed25519 host key.
    host_seed: [u8; 32],
    /// Unix time in seconds.
    pub(crate) deadline: u64,
    /// Without an authenticated connection for this long, the task ends.
    pub(crate) idle_timeout: Duration,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Bytes of disk for the output of a script that waits for the driver.
    pub(crate) spool: u64,
}

impl Settings {
    /// Reads the settings through `get`, which gives the value of a variable.
    ///
    /// # Errors
    ///
    /// Returns every mistake, one sentence each; none quotes a key.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut text =
            |name: &str, default: Option<&str>| match get(name).map(OsString::into_string) {
                Some(Ok(value)) => Some(value),
                Some(Err(_)) => {
                    mistakes.push(format!("`{name}` is not UTF-8"));
                    None
                }
                None if default.is_some() => default.map(str::to_owned),
                None => {
                    mistakes.push(format!("`{name}` is not set"));
                    None
                }
            };
        let client_key = text(CLIENT_KEY, None);
        let host_key = text(HOST_KEY, None);
        let deadline = text(DEADLINE, None);
        let idle_timeout = text(IDLE_TIMEOUT, Some("900"));
        let listen = text(LISTEN, Some("0.0.0.0:2222"));
        let spool = text(SPOOL, Some("256"));

        let client_key = checked(client_key, &mut mistakes, |line| {
            PublicKey::from_openssh(line.trim())
                .ok()
                .filter(|key| key.algorithm() == Algorithm::Ed25519)
                .ok_or_else(|| format!("`{CLIENT_KEY}` is not a line `ssh-ed25519 AAAA...`"))
        });
        let host_seed = checked(host_key, &mut mistakes, |seed| {
            STANDARD_NO_PAD
                .decode(seed.trim())
                .ok()
                .and_then(|seed| seed.try_into().ok())
                .ok_or_else(|| {
                    format!(
                        "`{HOST_KEY}` is not 32 bytes as base64 without padding (43 characters)"
                    )
                })
        });
        let deadline = checked(deadline, &mut mistakes, |seconds| {
            seconds.trim().parse().map_err(|_| {
                format!("`{DEADLINE}` is `{seconds}`, but must be a Unix time in whole seconds")
            })
        });
        let idle_timeout =
            checked(idle_timeout, &mut mistakes, |seconds| match seconds.trim().parse::<u32>() {
                Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
                _ => Err(format!(
                    "`{IDLE_TIMEOUT}` is `{seconds}`, but must be a number of seconds above 0"
                )),
            });
        let listen = checked(listen, &mut mistakes, |address| {
            address.trim().parse().map_err(|_| {
                format!("`{LISTEN}` is `{address}`, but must be an address and port such as `0.0.0.0:2222`")
            })
        });
        let spool = checked(spool, &mut mistakes, |mebibytes| {
            mebibytes.trim().parse::<u32>().map(|mebibytes| u64::from(mebibytes) << 20).map_err(
                |_| format!("`{SPOOL}` is `{mebibytes}`, but must be a whole number of MiB"),
            )
        });
        match (client_key, host_seed, deadline, idle_timeout, listen, spool) {
            (
                Some(client_key),
                Some(host_seed),
                Some(deadline),
                Some(idle_timeout),
                Some(listen),
                Some(spool),
            ) => Ok(Self { client_key, host_seed, deadline, idle_timeout, listen, spool }),
            _ => Err(mistakes),
        }
    }

    /// The host key.
    pub(crate) fn host_key(&self) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&self.host_seed))
    }

    /// The settings as `NAME=value` lines, for [`Settings::from_lines`].
    pub(crate) fn to_lines(&self) -> Result<String, russh::keys::ssh_key::Error> {
        let mut lines = String::new();
        let values = [
            self.client_key.to_openssh()?,
            STANDARD_NO_PAD.encode(self.host_seed),
            self.deadline.to_string(),
            self.idle_timeout.as_secs().to_string(),
            self.listen.to_string(),
            (self.spool >> 20).to_string(),
        ];
        for (name, value) in NAMES.iter().zip(values) {
            // Writing to a `String` cannot fail.
            let _ = writeln!(lines, "{name}={value}");
        }
        Ok(lines)
    }

    /// Reads what [`Settings::to_lines`] wrote.
    ///
    /// # Errors
    ///
    /// As [`Settings::read`].
    pub(crate) fn from_lines(lines: &str) -> Result<Self, Vec<String>> {
        Self::read(|name| {
            lines
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }
}

/// Whether a script may see the variable `name` of the agent's environment.
pub(crate) fn is_for_scripts(name: &[u8]) -> bool {
    name == TASK_ROOT.as_bytes()
        || !(name == CLIENT_KEY.as_bytes() || name.starts_with(b"POINTSMAN_"))
}

fn checked<T>(
    value: Option<String>,
    mistakes: &mut Vec<String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    parse(&value?).map_err(|mistake| mistakes.push(mistake)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUxT3BwnwhPzK1h5jvNHSJVkEPWQ3LJqZEVhyOfOIxR";

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        Settings::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_key_is_quoted() {
        let mistakes = read(&[
            (CLIENT_KEY, "ssh-ed25519 secret"),
            (HOST_KEY, "secret"),
            (IDLE_TIMEOUT, "0"),
            (LISTEN, "2222"),
            (SPOOL, "-1"),
        ])
        .err()
        .unwrap();
        assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
        for name in NAMES {
            assert!(mistakes.iter().any(|mistake| mistake.contains(name)), "{name}: {mistakes:#?}");
        }
        assert!(!mistakes.concat().contains("secret"));
    }

    #[test]
    fn settings_survive_the_hand_over() {
        let seed = STANDARD_NO_PAD.encode([7; 32]);
        let first =
            read(&[(CLIENT_KEY, KEY), (HOST_KEY, &seed), (DEADLINE, "1800000000")]).ok().unwrap();
        let second = Settings::from_lines(&first.to_lines().unwrap()).ok().unwrap();
        assert_eq!(second.client_key, first.client_key);
        assert_eq!(second.host_seed, [7; 32]);
        assert_eq!(second.deadline, 1_800_000_000);
        assert_eq!(second.idle_timeout, Duration::from_secs(900));
        assert_eq!(second.listen, "0.0.0.0:2222".parse().unwrap());
        assert_eq!(second.spool, 256 << 20);
    }

    #[test]
    fn scripts_see_the_task_root_but_no_other_control_value() {
        for (name, expected) in [
            ("PATH", true),
            ("POINTSMAN_TASK_ROOT", true),
            ("POINTSMAN_HOST_KEY", false),
            ("POINTSMAN_ANYTHING", false),
            ("SSH_PUBLIC_KEY", false),
        ] {
            assert_eq!(is_for_scripts(name.as_bytes()), expected, "{name}");
        }
    }
}
