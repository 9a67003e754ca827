//! What can go wrong with a task's SSH server, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::wire::Malformed;

type Cause = Box<dyn Error + Send + Sync>;

/// How far a connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The TCP connection is being made.
    Connecting,
    /// Versions and keys are being exchanged.
    Handshake,
    /// We are logging in.
    Authentication,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connecting => "connecting",
            Self::Handshake => "the SSH handshake",
            Self::Authentication => "logging in",
        })
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The task's host answers, but nothing listens on the port.
    #[error("nothing listens on `{address}`")]
    Refused {
        /// The server's.
        address: SocketAddr,
    },
    /// No answer in time.
    #[error("no answer from `{address}` within {after:?} ({phase})")]
    TimedOut {
        /// The server's.
        address: SocketAddr,
        /// Where the answer is missing.
        phase: Phase,
        /// How long we waited for this attempt.
        after: Duration,
    },
    /// The network has no way there.
    #[error("`{address}` cannot be reached")]
    Unreachable {
        /// The server's.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server hung up before we were logged in.
    #[error("`{address}` closed the connection ({phase})")]
    Closed {
        /// The server's.
        address: SocketAddr,
        /// When it did.
        phase: Phase,
    },
    /// Another host key than expected. Nothing was sent to whoever answered.
    #[error("the SSH server at `{address}` has the host key `{found}`, expected `{expected}`")]
    HostKeyChanged {
        /// The server's.
        address: SocketAddr,
        /// `SHA256:…`
        expected: String,
        /// `SHA256:…`
        found: String,
    },
    /// [`super::HostKey::Known`] holds no public key line.
    #[error("the expected host key of `{address}` is not a public key line")]
    HostKeyUnreadable {
        /// The server's.
        address: SocketAddr,
        /// What is wrong with it.
        source: Cause,
    },
    /// The server does not accept our key for this user.
    #[error("the SSH server at `{address}` does not accept the job's key for user `{user}`")]
    Authentication {
        /// The server's.
        address: SocketAddr,
        /// The login name.
        user: String,
    },
    /// The other side does not speak SSH as we do.
    #[error("`{address}` does not speak SSH as expected ({phase})")]
    Protocol {
        /// The server's.
        address: SocketAddr,
        /// When we noticed.
        phase: Phase,
        /// What was wrong.
        source: Cause,
    },
    /// This machine could not make a connection at all.
    #[error("cannot make a connection to `{address}`")]
    Socket {
        /// The server's.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl ConnectError {
    /// Whether the same attempt can succeed a little later, in a task that is still starting.
    ///
    /// A refused login can: the image's entry script may still be writing `authorized_keys`; but not for
    /// long. Another host key cannot.
    pub fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::Authentication { .. } => true,
            Self::HostKeyChanged { .. }
            | Self::HostKeyUnreadable { .. }
            | Self::Protocol { .. }
            | Self::Socket { .. } => false,
        }
    }

    /// What an operator can look at.
    pub fn hint(&self) -> String {
        match self {
            Self::Refused { address } => format!(
                "the task runs, but its container starts no SSH server on port {}; see the container's log and `ssh.port` of the task definition in the settings",
                address.port()
            ),
            Self::TimedOut { address, phase: Phase::Connecting, .. } | Self::Unreachable { address, .. } => {
                format!(
                    "the task's security group must admit TCP port {} from the machine of the runner manager, and routes must lead from there to the task's subnet and back",
                    address.port()
                )
            }
            Self::TimedOut { .. } => {
                "something accepts connections there but does not answer: the task may be short of cpu, or this is not an SSH server".into()
            }
            Self::Closed { .. } => {
                "an SSH server that is starting, has no host keys (`ssh-keygen -A` in the image makes them) or has too many connections does so; see the container's log".into()
            }
            Self::HostKeyChanged { .. } => {
                "something else answers at this address, perhaps another task that was given it; the job must be started afresh".into()
            }
            Self::HostKeyUnreadable { .. } => "the attempt's saved state is damaged; retry the job".into(),
            Self::Authentication { user, .. } => format!(
                "the image's entry script must write SSH_PUBLIC_KEY to `authorized_keys` of user `{user}` (mode 0600, directory 0700) before it starts `sshd`; if it does so for another user, set `ssh.user` of the task definition in the settings"
            ),
            Self::Protocol { .. } => {
                "the server must offer an ed25519 or ECDSA host key and accept ed25519 client keys; or another service listens on this port".into()
            }
            Self::Socket { .. } => "see the limits of this machine: open files, local ports".into(),
        }
    }
}

/// Why a server was given up.
#[derive(Debug, thiserror::Error)]
#[error("the task's SSH server was not ready after {waited:.1?} and {attempts} attempts")]
pub struct NotReady {
    /// From the first attempt on.
    pub waited: Duration,
    /// At least 1.
    pub attempts: u32,
    /// Why the last attempt failed.
    #[source]
    pub last: ConnectError,
}

/// Why a script has no known ending.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The connection broke, or the server closed the channel without telling how the script ended:
    /// the task is gone, most likely.
    #[error("the connection to the task was lost before the script had ended")]
    ConnectionLost,
    /// The server runs no commands, or no further ones.
    #[error("the SSH server refuses to run a command")]
    Refused,
    /// The connection was lost and there is no other: the task is gone, or the network stayed away.
    #[error("the connection to the task was lost and not made again within {waited:.1?}")]
    NotResumed {
        /// Since it was lost.
        waited: Duration,
        /// Why the last attempt failed.
        #[source]
        last: ConnectError,
    },
    /// The agent that had the script is not the one that answers now.
    #[error(
        "the agent does not know the script any more: the task's container was started anew, most likely"
    )]
    Forgotten,
    /// The agent could not run the script, for this reason.
    #[error("the agent did not run the script: `{0}`")]
    Agent(String),
    /// What the agent said makes no sense.
    #[error("the agent cannot be understood")]
    Protocol(#[source] Malformed),
    /// The script could not be read on this side.
    #[error("cannot read the script")]
    Script(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_pass_is_retried_and_everything_has_a_hint() {
        let address: SocketAddr = "10.0.0.9:22".parse().unwrap();
        let phase = Phase::Handshake;
        let io = || io::Error::other("x");
        for (error, expected) in [
            (ConnectError::Refused { address }, true),
            (ConnectError::TimedOut { address, phase, after: Duration::from_secs(5) }, true),
            (ConnectError::Unreachable { address, source: io() }, true),
            (ConnectError::Closed { address, phase }, true),
            (ConnectError::Authentication { address, user: "root".into() }, true),
            (
                ConnectError::HostKeyChanged { address, expected: "a".into(), found: "b".into() },
                false,
            ),
            (ConnectError::HostKeyUnreadable { address, source: io().into() }, false),
            (ConnectError::Protocol { address, phase, source: io().into() }, false),
            (ConnectError::Socket { address, source: io() }, false),
        ] {
            assert_eq!(error.is_worth_retrying(), expected, "{error}");
            assert!(error.to_string().contains("10.0.0.9:22"), "{error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn the_hint_for_silence_names_the_port_and_the_security_group() {
        let address: SocketAddr = "10.0.0.9:2200".parse().unwrap();
        let error = ConnectError::TimedOut {
            address,
            phase: Phase::Connecting,
            after: Duration::from_secs(5),
        };
        assert_eq!(error.to_string(), "no answer from `10.0.0.9:2200` within 5s (connecting)");
        assert!(error.hint().contains("security group") && error.hint().contains("2200"));
    }
}
