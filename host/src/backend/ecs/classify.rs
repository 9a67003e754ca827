//! From ECS's own words to a [`Cause`]: pure.
//!
//! The texts are those that AWS documents (developer guide, "Stopped tasks error messages" and "API failure
//! reasons") and those that others have met in production. ECS has no codes for most of them, so the texts
//! are all there is to go by; parts of them are matched, since AWS rewords the rest.

use crate::backend::{Cause, StoppedContainer};

/// Of an API error `code` with `message`, or of a `failures[].reason` and its `detail`.
pub(super) fn error(code: &str, message: &str) -> Cause {
    let is = |text: &str| code.contains(text) || message.contains(text);
    match code {
        "no answer" => return Cause::NoAnswer,
        "MISSING" => return Cause::Missing,
        // The container agent is disconnected.
        "AGENT" => return Cause::Infrastructure,
        "LOCATION" | "ATTRIBUTE" | "ATTRIBUTES" | "INACTIVE" => return Cause::Configuration,
        _ if code.starts_with("RESOURCE:") => return Cause::NoCapacity,
        _ => {}
    }
    if is("Capacity is unavailable")
        // The quotas for on-demand and for Spot are separate, so the other may have room.
        || is("reached the limit on the number of")
    {
        return Cause::NoCapacity;
    }
    if is("Throttling")
        || is("TooManyRequests")
        || is("RequestLimitExceeded")
        || is("Rate exceeded")
        || is("Too many concurrent attempts")
        || is("PROVISIONING")
        || code == "LimitExceededException"
    {
        return Cause::Throttled;
    }
    if is("AccessDenied") || is("UnauthorizedOperation") || is("is not authorized to perform") {
        return Cause::Denied;
    }
    match code {
        "ServerException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Cause::Server,
        "ClusterNotFoundException" => Cause::NotFound,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidSignatureException"
        | "BlockedException" => Cause::Denied,
        _ if is("Unable to describe task definition")
            || is("TaskDefinition is inactive")
            || is("TaskDefinition not found")
            || is("InvalidSubnetID.NotFound")
            || is("InvalidGroup.NotFound")
            || is("Error retrieving subnet information")
            || is("Error retrieving security group information") =>
        {
            Cause::NotFound
        }
        "InvalidParameterException"
        | "ClientException"
        | "ConflictException"
        | "PlatformUnknownException"
        | "PlatformTaskDefinitionIncompatibilityException"
        | "UnsupportedFeatureException"
        | "SerializationException"
        | "ValidationException" => Cause::Configuration,
        _ if is("placement constraint") => Cause::Configuration,
        _ => Cause::Other,
    }
}

/// Of a task that stopped with `code` and `reason`, and of its containers, whose reasons say more at times.
pub(super) fn stop(code: &str, reason: &str, containers: &[StoppedContainer]) -> Cause {
    let reasons = || {
        std::iter::once(reason).chain(containers.iter().map(|container| container.reason.as_str()))
    };
    let is = |text: &str| reasons().any(|reason| reason.contains(text));
    if is("OutOfMemory") {
        return Cause::OutOfMemory;
    }
    // `TerminationNotice` in older samples.
    if matches!(code, "SpotInterruption" | "TerminationNotice") || is("Spot Task was interrupted") {
        return Cause::SpotGone;
    }
    if code == "InfrastructureHealth" {
        return Cause::Infrastructure;
    }
    if code == "UserInitiated" {
        return Cause::Stopped;
    }
    if is("Capacity is unavailable") || is("Unable to run task") && is("capacity") {
        return Cause::NoCapacity;
    }
    if is("InsufficientFreeAddressesInSubnet") || is("enough free addresses") {
        return Cause::SubnetFull;
    }
    if is("Timeout waiting for network interface") {
        return Cause::Network;
    }
    if is("Timeout waiting for EphemeralStorage") {
        return Cause::Storage;
    }
    if is("Create Network Interface") || is("creating network interface") {
        return match () {
            () if is("NotFound") => Cause::NotFound,
            () if is("UnauthorizedOperation") => Cause::Denied,
            // `AuthFailure` among others: seen to pass by itself.
            () => Cause::Network,
        };
    }
    if is("descriptor matching platform")
        || is("no match for platform in manifest")
        || is("no matching manifest for")
        || is("exec format error")
    {
        return Cause::ArchMissing;
    }
    let took_too_long = is("i/o timeout")
        || is("timed out")
        || is("imeout exceeded")
        || is("deadline exceeded")
        || is("handshake timeout")
        || is("connection reset")
        || is("connection refused")
        || is("EOF")
        || is("invalid argument")
        || is("toomanyrequests")
        || is("Too Many Requests")
        || is("502 Bad Gateway")
        || is("503 Service Unavailable");
    if is("CannotPull") || is("CannotPullContainer") {
        return match () {
            () if took_too_long => Cause::Pull,
            // Docker Hub says so of repositories that do not exist as well.
            () if is("not found")
                || is("manifest unknown")
                || is("name unknown")
                || is("pull access denied")
                || is("repository does not exist")
                || is("invalid reference format") =>
            {
                Cause::ImageNotFound
            }
            () if is("403")
                || is("401")
                || is("denied")
                || is("unauthorized")
                || is("not authorized")
                || is("no basic auth credentials") =>
            {
                Cause::ImageDenied
            }
            () => Cause::Configuration,
        };
    }
    if is("ResourceInitializationError") {
        return if took_too_long { Cause::Pull } else { Cause::Configuration };
    }
    if is("InternalError") {
        return Cause::Infrastructure;
    }
    if is("CannotStartContainerError")
        || is("CannotCreateContainerError")
        || is("CannotInspectContainerError")
    {
        return Cause::Configuration;
    }
    if code == "EssentialContainerExited" || is("Essential container in task exited") {
        return Cause::ContainerEnded;
    }
    if is("Task stopped by user") {
        return Cause::Stopped;
    }
    Cause::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Fault, Step};

    #[test]
    fn every_answer_of_run_task_has_its_cause() {
        for (code, message, expected) in [
            ("RESOURCE:CPU", "", Cause::NoCapacity),
            ("RESOURCE:MEMORY", "", Cause::NoCapacity),
            ("RESOURCE:ENI", "", Cause::NoCapacity),
            ("RESOURCE:PORTS", "", Cause::NoCapacity),
            ("RESOURCE:GPU", "", Cause::NoCapacity),
            ("AGENT", "", Cause::Infrastructure),
            ("LOCATION", "", Cause::Configuration),
            ("ATTRIBUTE", "", Cause::Configuration),
            ("MemberOf placement constraint unsatisfied", "", Cause::Configuration),
            (
                "Capacity is unavailable at this time. Please try again later or in a different availability zone",
                "",
                Cause::NoCapacity,
            ),
            ("MISSING", "", Cause::Missing),
            (
                "AccessDeniedException",
                "User: x is not authorized to perform: ecs:RunTask",
                Cause::Denied,
            ),
            ("BlockedException", "Your AWS account was blocked.", Cause::Denied),
            ("ClusterNotFoundException", "Cluster not found.", Cause::NotFound),
            ("ConflictException", "The request uses the same client token", Cause::Configuration),
            (
                "InvalidParameterException",
                "No Container Instances were found in your cluster.",
                Cause::Configuration,
            ),
            ("PlatformUnknownException", "The platform version is unknown.", Cause::Configuration),
            ("PlatformTaskDefinitionIncompatibilityException", "", Cause::Configuration),
            ("UnsupportedFeatureException", "", Cause::Configuration),
            ("ServerException", "Service Unavailable. Please try again later.", Cause::Server),
            ("ThrottlingException", "Rate exceeded", Cause::Throttled),
            ("ClientException", "Unable to describe task definition.", Cause::NotFound),
            (
                "ClientException",
                "Too many concurrent attempts to create a new revision of the specified family.",
                Cause::Throttled,
            ),
            (
                "ClientException",
                "You've reached the limit of tasks in PROVISIONING state for the cluster.",
                Cause::Throttled,
            ),
            (
                "ClientException",
                "You've reached the limit on the number of vCPUs you can run concurrently",
                Cause::NoCapacity,
            ),
            (
                "ClientException",
                "No Fargate configuration exists for given values.",
                Cause::Configuration,
            ),
            ("ClientException", "Invalid 'cpu' setting for task.", Cause::Configuration),
            ("no answer", "dispatch failure", Cause::NoAnswer),
            ("UnheardOfException", "?", Cause::Other),
        ] {
            assert_eq!(error(code, message), expected, "{code}: {message}");
        }
    }

    /// Every text of the developer guide and of others' production lists that the driver tells apart.
    #[test]
    fn every_stop_has_its_cause() {
        const FAILED: &str = "TaskFailedToStart";
        const ENDED: &str = "EssentialContainerExited";
        const EXITED: &str = "Essential container in task exited";
        for (code, reason, container, expected) in [
            (
                FAILED,
                "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref docker.io/x/y:z: docker.io/x/y:z: not found",
                "",
                Cause::ImageNotFound,
            ),
            (
                FAILED,
                "CannotPullContainerError: Error response from daemon: pull access denied for x, repository does not exist or may require 'docker login'",
                "",
                Cause::ImageNotFound,
            ),
            (
                FAILED,
                "CannotPullContainerError: failed to resolve ref: unexpected status from HEAD request: 403 Forbidden",
                "",
                Cause::ImageDenied,
            ),
            (
                FAILED,
                "CannotPullContainerError: pull image manifest has been retried 7 time(s): image Manifest does not contain descriptor matching platform 'linux/amd64'",
                "",
                Cause::ArchMissing,
            ),
            (
                FAILED,
                "CannotPullContainerError: ref pull has been retried 5 time(s): dial tcp 1.2.3.4:443: i/o timeout",
                "",
                Cause::Pull,
            ),
            (
                FAILED,
                "CannotPullContainerError: ref pull has been retried 1 time(s): failed to copy: EOF",
                "",
                Cause::Pull,
            ),
            (
                FAILED,
                "CannotPullContainerError: failed to extract layer: invalid argument",
                "",
                Cause::Pull,
            ),
            (
                FAILED,
                "CannotPullContainerError: inspect image has been retried 1 time(s): something new",
                "",
                Cause::Configuration,
            ),
            (
                FAILED,
                "Timeout waiting for network interface provisioning to complete.",
                "",
                Cause::Network,
            ),
            (
                FAILED,
                "Timeout waiting for EphemeralStorage provisioning to complete.",
                "",
                Cause::Storage,
            ),
            (
                FAILED,
                "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet 'subnet-1': AuthFailure",
                "",
                Cause::Network,
            ),
            (
                FAILED,
                "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet 'subnet-1': InsufficientFreeAddressesInSubnet",
                "",
                Cause::SubnetFull,
            ),
            (
                FAILED,
                "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: AccessDeniedException",
                "",
                Cause::Configuration,
            ),
            (
                FAILED,
                "ResourceInitializationError: unable to pull secrets or registry auth: RequestError: send request failed caused by: Post: dial tcp: i/o timeout",
                "",
                Cause::Pull,
            ),
            (
                FAILED,
                "ResourceInitializationError: failed to initialize logging driver: awslogs",
                "",
                Cause::Configuration,
            ),
            (
                FAILED,
                "InternalError: failed to attach the network interface in time",
                "",
                Cause::Infrastructure,
            ),
            (
                FAILED,
                "Capacity is unavailable at this time. Please try again later or in a different availability zone",
                "",
                Cause::NoCapacity,
            ),
            (
                FAILED,
                "CannotStartContainerError: exec /usr/sbin/sshd: exec format error",
                "",
                Cause::ArchMissing,
            ),
            (
                FAILED,
                "CannotStartContainerError: exec: \"sshd\": executable file not found in $PATH",
                "",
                Cause::Configuration,
            ),
            (
                ENDED,
                EXITED,
                "OutOfMemoryError: Container killed due to memory usage",
                Cause::OutOfMemory,
            ),
            (ENDED, EXITED, "", Cause::ContainerEnded),
            (ENDED, EXITED, "CannotPullContainerError: x: not found", Cause::ImageNotFound),
            ("SpotInterruption", "Your Spot Task was interrupted.", "", Cause::SpotGone),
            ("TerminationNotice", "Your Spot Task was interrupted.", "", Cause::SpotGone),
            (
                "InfrastructureHealth",
                "The underlying infrastructure is unhealthy.",
                "",
                Cause::Infrastructure,
            ),
            ("UserInitiated", "Task stopped by user", "", Cause::Stopped),
            ("UserInitiated", "no reason at all", "", Cause::Stopped),
            ("", "Task stopped by user", "", Cause::Stopped),
            ("ServiceSchedulerInitiated", "Scaling activity", "", Cause::Other),
        ] {
            let containers =
                [StoppedContainer { reason: container.to_owned(), ..StoppedContainer::default() }];
            assert_eq!(stop(code, reason, &containers), expected, "{code}: {reason} / {container}");
        }
    }

    #[test]
    fn what_cannot_be_mended_by_trying_is_final() {
        for (cause, expected) in [
            (Cause::NoCapacity, Step::NextPlacement),
            (Cause::ArchMissing, Step::NextPlacement),
            (Cause::SpotGone, Step::NextPlacement),
            (Cause::SubnetFull, Step::OtherSubnet),
            (Cause::Network, Step::SameAgain),
            (Cause::Throttled, Step::SameAgain),
            (Cause::Missing, Step::SameAgain),
            (Cause::ImageNotFound, Step::Final(Fault::Author)),
            (Cause::OutOfMemory, Step::Final(Fault::Author)),
            (Cause::ImageDenied, Step::Final(Fault::Operator)),
            (Cause::Denied, Step::Final(Fault::Operator)),
            (Cause::NotFound, Step::Final(Fault::Operator)),
        ] {
            assert_eq!(cause.step(), expected, "{cause:?}");
        }
    }
}
