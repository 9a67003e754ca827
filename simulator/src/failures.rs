//! Failures by name: the words in which ECS says that something went wrong. Pure.
//!
//! Developer guide, "Stopped tasks error messages" and "API failure reasons"; RunTask's answers as callers have
//! published them.

use crate::faults::Kind;
use crate::lifecycle::Status;

/// `failures[].reason` of RunTask when there is nothing to run on.
pub(crate) const NO_CAPACITY: &str = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
/// `failures[].reason` of RunTask when the account's vCPU quota is used up.
pub(crate) const VCPU_LIMIT: &str =
    "You've reached the limit on the number of vCPUs you can run concurrently";
/// A container's `reason` when its memory was used up.
pub(crate) const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
/// The notice that Spot gives, in milliseconds.
pub(crate) const SPOT_NOTICE_MS: u64 = 120_000;

/// How a failure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// RunTask starts nothing and answers the reason in `failures`.
    Answered,
    /// The task stops in the state, with the stop code.
    Stops(Status, &'static str),
    /// A running container's processes are killed; `true`: with the reason.
    Killed(bool),
    /// The task gets a notice in RUNNING, with the stop code.
    Reclaimed(&'static str),
}

use Way::{Answered, Killed, Reclaimed, Stops};

const TO_START: &str = "TaskFailedToStart";

/// Name, way, and reason. In a reason `{image}`, `{platform}` and `{subnet}` are the task's.
const FAILURES: &[(&str, Way, &str)] = &[
    ("no-capacity", Answered, NO_CAPACITY),
    ("vcpu-limit", Answered, VCPU_LIMIT),
    ("resource-cpu", Answered, "RESOURCE:CPU"),
    ("resource-memory", Answered, "RESOURCE:MEMORY"),
    ("resource-eni", Answered, "RESOURCE:ENI"),
    ("resource-ports", Answered, "RESOURCE:PORTS"),
    ("resource-gpu", Answered, "RESOURCE:GPU"),
    ("agent-disconnected", Answered, "AGENT"),
    ("location", Answered, "LOCATION"),
    ("attribute", Answered, "ATTRIBUTE"),
    ("placement-constraint", Answered, "MemberOf placement constraint unsatisfied"),
    (
        "image-not-found",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {image}: not found",
    ),
    (
        "image-forbidden",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: pulling from host failed with status code [manifests]: 403 Forbidden",
    ),
    (
        "image-access-denied",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
    ),
    (
        "image-architecture",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: pull image manifest has been retried 7 time(s): image Manifest does not contain descriptor matching platform '{platform}'",
    ),
    (
        "pull-timeout",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref {image}: failed to do request: dial tcp 10.0.0.1:443: i/o timeout",
    ),
    (
        "pull-eof",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: ref pull has been retried 5 time(s): failed to copy: httpReadSeeker: failed open: failed to do request: EOF",
    ),
    (
        "pull-invalid-argument",
        Stops(Status::Pending, TO_START),
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to extract layer: invalid argument",
    ),
    (
        "network-interface-timeout",
        Stops(Status::Provisioning, TO_START),
        "Timeout waiting for network interface provisioning to complete.",
    ),
    (
        "storage-timeout",
        Stops(Status::Provisioning, TO_START),
        "Timeout waiting for EphemeralStorage provisioning to complete.",
    ),
    (
        "network-interface-auth",
        Stops(Status::Provisioning, TO_START),
        "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet '{subnet}': AuthFailure",
    ),
    (
        "subnet-full",
        Stops(Status::Provisioning, TO_START),
        "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet '{subnet}': InsufficientFreeAddressesInSubnet",
    ),
    (
        "internal-error",
        Stops(Status::Pending, TO_START),
        "InternalError: failed to attach the network interface in time",
    ),
    (
        "secrets",
        Stops(Status::Pending, TO_START),
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried 1 time(s): AccessDeniedException",
    ),
    (
        "secrets-timeout",
        Stops(Status::Pending, TO_START),
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 5 time(s): RequestCanceled: request context canceled caused by: context deadline exceeded",
    ),
    (
        "logging",
        Stops(Status::Activating, TO_START),
        "ResourceInitializationError: failed to initialize logging driver: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.",
    ),
    (
        "container-start",
        Stops(Status::Activating, TO_START),
        "CannotStartContainerError: failed to create shim task: exec: \"entrypoint.sh\": executable file not found in $PATH",
    ),
    ("out-of-memory", Killed(true), OUT_OF_MEMORY),
    ("killed", Killed(false), "Essential container in task exited"),
    (
        "essential-exited",
        Stops(Status::Running, "EssentialContainerExited"),
        "Essential container in task exited",
    ),
    ("spot-interruption", Reclaimed("SpotInterruption"), "Your Spot Task was interrupted."),
    ("termination-notice", Reclaimed("TerminationNotice"), "Your Spot Task was interrupted."),
    ("stopped-by-user", Stops(Status::Running, "UserInitiated"), "Task stopped by user"),
    (
        "infrastructure",
        Stops(Status::Running, "InfrastructureHealth"),
        "The infrastructure that the task runs on is not healthy.",
    ),
    (
        "scheduler",
        Stops(Status::Running, "ServiceSchedulerInitiated"),
        "Scaling activity initiated by the service scheduler.",
    ),
];

/// What the failure `name` does, `after_ms` in RUNNING where it strikes there.
///
/// # Errors
///
/// When there is no such failure, or it does not wait for RUNNING and is told to.
pub(crate) fn kind(name: &str, after_ms: Option<u64>) -> Result<Kind, String> {
    let Some((_, way, reason)) = FAILURES.iter().find(|(known, ..)| *known == name) else {
        let names: Vec<String> = FAILURES.iter().map(|(name, ..)| format!("`{name}`")).collect();
        return Err(format!("there is no failure `{name}`; there are {}", names.join(", ")));
    };
    let reason = (*reason).to_owned();
    let strikes_running =
        !matches!(way, Answered) && !matches!(way, Stops(phase, _) if *phase != Status::Running);
    if after_ms.is_some() && !strikes_running {
        return Err(format!("failure `{name}` strikes before RUNNING and takes no `after_ms`"));
    }
    let after_ms = after_ms.unwrap_or(0);
    Ok(match *way {
        Answered => Kind::NoCapacity { reason: Some(reason) },
        Stops(phase, code) => Kind::Stop { code: code.to_owned(), reason, phase, after_ms },
        Killed(true) => Kind::OutOfMemory { after_ms },
        Killed(false) => Kind::Kill { after_ms },
        Reclaimed(code) => Kind::SpotInterruption {
            after_ms,
            notice_ms: SPOT_NOTICE_MS,
            code: Some(code.to_owned()),
        },
    })
}

/// A reason with the task's own words in it.
pub(crate) fn fill(reason: &str, image: &str, arm64: bool, subnet: &str) -> String {
    let platform = if arm64 { "linux/arm64" } else { "linux/amd64" };
    reason.replace("{image}", image).replace("{platform}", platform).replace("{subnet}", subnet)
}

#[cfg(test)]
mod tests {
    use super::{FAILURES, Kind, fill, kind};
    use crate::lifecycle::Status;

    #[test]
    fn names_are_unique_and_reasons_as_short_as_the_api_s() {
        for (index, (name, _, reason)) in FAILURES.iter().enumerate() {
            assert!(FAILURES.iter().skip(index + 1).all(|(other, ..)| other != name), "{name}");
            assert!(!reason.is_empty() && reason.len() <= 1024, "{name}");
            assert!(kind(name, None).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_stop_code_of_the_service_model_can_be_had_but_success() {
        let codes: Vec<String> = FAILURES
            .iter()
            .filter_map(|(name, ..)| match kind(name, None).unwrap() {
                Kind::Stop { code, .. } | Kind::SpotInterruption { code: Some(code), .. } => {
                    Some(code)
                }
                _ => None,
            })
            .collect();
        for code in [
            "TaskFailedToStart",
            "EssentialContainerExited",
            "UserInitiated",
            "ServiceSchedulerInitiated",
            "SpotInterruption",
            "TerminationNotice",
            "InfrastructureHealth",
        ] {
            assert!(codes.iter().any(|known| known == code), "{code}");
        }
    }

    #[test]
    fn a_failure_strikes_where_the_service_has_it() {
        let phase = |name| match kind(name, None).unwrap() {
            Kind::Stop { phase, .. } => Some(phase),
            _ => None,
        };
        for (name, expected) in [
            ("subnet-full", Some(Status::Provisioning)),
            ("pull-timeout", Some(Status::Pending)),
            ("logging", Some(Status::Activating)),
            ("infrastructure", Some(Status::Running)),
            ("out-of-memory", None),
            ("no-capacity", None),
        ] {
            assert_eq!(phase(name), expected, "{name}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(kind("pull-time-out", None).unwrap_err().contains("`pull-timeout`"));
        for name in ["pull-timeout", "no-capacity", "subnet-full"] {
            assert!(kind(name, Some(5)).unwrap_err().contains("takes no `after_ms`"), "{name}");
        }
        for name in ["out-of-memory", "killed", "spot-interruption", "infrastructure"] {
            assert!(kind(name, Some(5)).is_ok(), "{name}");
        }
    }

    #[test]
    fn reasons_have_the_tasks_own_words() {
        assert_eq!(
            fill("{image} for {platform} in {subnet}", "node:22", true, "subnet-1"),
            "node:22 for linux/arm64 in subnet-1"
        );
    }
}
