//! A task's states and the order they come in: pure.
//!
//! Developer guide, "Amazon ECS task lifecycle".

use std::fmt;

use serde::{Deserialize, Serialize};

/// `lastStatus`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The network interface is made.
    Provisioning,
    /// The image is pulled.
    Pending,
    /// Last steps before the containers run.
    Activating,
    /// The containers run.
    Running,
    /// First steps of stopping.
    Deactivating,
    /// The containers get SIGTERM, later SIGKILL.
    Stopping,
    /// The network interface is given back.
    Deprovisioning,
    /// Gone.
    Stopped,
}

impl Status {
    /// What follows. A task that is to stop before it has containers has none to end and goes straight to giving
    /// back its network interface. RUNNING has no successor until the task is to stop, STOPPED never.
    pub(crate) fn next(self, stopping: bool) -> Option<Self> {
        match (self, stopping) {
            (Self::Provisioning, false) => Some(Self::Pending),
            (Self::Pending, false) => Some(Self::Activating),
            (Self::Activating, false) => Some(Self::Running),
            (Self::Provisioning | Self::Pending, true) => Some(Self::Deprovisioning),
            (Self::Running, false) => None,
            (Self::Activating | Self::Running, true) => Some(Self::Deactivating),
            (Self::Deactivating, _) => Some(Self::Stopping),
            (Self::Stopping, _) => Some(Self::Deprovisioning),
            (Self::Deprovisioning, _) => Some(Self::Stopped),
            (Self::Stopped, _) => None,
        }
    }

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    /// All that follows `from` when the task is told to stop on reaching `stop_at`.
    fn path(stop_at: Status) -> String {
        let mut status = Status::Provisioning;
        let mut path = vec![status.as_str()];
        let mut stopping = status == stop_at;
        while let Some(next) = status.next(stopping) {
            status = next;
            path.push(status.as_str());
            stopping |= status == stop_at;
        }
        path.join(" ")
    }

    #[test]
    fn every_path_ends_in_stopped() {
        let table = [
            (
                Status::Running,
                "PROVISIONING PENDING ACTIVATING RUNNING DEACTIVATING STOPPING DEPROVISIONING STOPPED",
            ),
            (
                Status::Activating,
                "PROVISIONING PENDING ACTIVATING DEACTIVATING STOPPING DEPROVISIONING STOPPED",
            ),
            (Status::Pending, "PROVISIONING PENDING DEPROVISIONING STOPPED"),
            (Status::Provisioning, "PROVISIONING DEPROVISIONING STOPPED"),
        ];
        for (stop_at, expected) in table {
            assert_eq!(path(stop_at), expected);
        }
    }

    #[test]
    fn a_running_task_stays() {
        assert_eq!(Status::Running.next(false), None);
        assert_eq!(Status::Stopped.next(true), None);
    }

    #[test]
    fn names_are_the_api_s() {
        assert_eq!(
            serde_json::json!(Status::Deprovisioning),
            serde_json::json!(Status::Deprovisioning.as_str())
        );
    }
}
