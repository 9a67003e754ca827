//! Why a launch failed, and what that means for the next step: pure, and free of any backend's own words.

use serde::{Deserialize, Serialize};

/// Why there is no task, or no task that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// There is nothing to run on, or the account's quota for it is used up.
    NoCapacity,
    /// The subnet has no addresses left.
    SubnetFull,
    /// It got no address in the time that the settings allow.
    TooSlow,
    /// The image is not built for the task definition's architecture.
    ArchMissing,
    /// Spot took the task back while it was starting.
    SpotGone,
    /// The network interface was not ready in time, or could not be made for a moment.
    Network,
    /// The disk was not ready in time.
    Storage,
    /// The image or a secret did not come in time.
    Pull,
    /// Too many calls.
    Throttled,
    /// The API failed, having done what was asked or not.
    Server,
    /// No answer of the API's: whether the call was heard is not known.
    NoAnswer,
    /// The backend does not know the task (yet).
    Missing,
    /// The machine under the task, or the backend's own part in it, failed.
    Infrastructure,
    /// The driver's identity may not do this.
    Denied,
    /// No such cluster, task definition, subnet or the like.
    NotFound,
    /// The settings or the task definition ask for what cannot be.
    Configuration,
    /// The registry has no such image.
    ImageNotFound,
    /// The registry has the image and does not give it.
    ImageDenied,
    /// A container was killed for its memory use.
    OutOfMemory,
    /// A container ended before it was reached.
    ContainerEnded,
    /// Somebody stopped the task.
    Stopped,
    /// Nothing that is known here.
    #[default]
    Other,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Another placement may be had where this one is not.
    NextPlacement,
    /// The same placement in another subnet.
    OtherSubnet,
    /// The same may succeed a little later.
    SameAgain,
    /// Nothing that the driver can try would help.
    Final(Fault),
}

/// Whose choice has to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The pipeline author's: a build failure.
    Author,
    /// The operator's: a system failure.
    Operator,
}

impl Cause {
    /// What to do next.
    pub fn step(self) -> Step {
        match self {
            Self::NoCapacity | Self::TooSlow | Self::ArchMissing | Self::SpotGone => {
                Step::NextPlacement
            }
            Self::SubnetFull => Step::OtherSubnet,
            Self::Network
            | Self::Storage
            | Self::Pull
            | Self::Throttled
            | Self::Server
            | Self::NoAnswer
            | Self::Missing
            | Self::Infrastructure => Step::SameAgain,
            // Trying again would fail alike and GitLab Runner would do it twice more.
            Self::ImageNotFound | Self::OutOfMemory => Step::Final(Fault::Author),
            Self::Denied
            | Self::NotFound
            | Self::Configuration
            | Self::ImageDenied
            | Self::ContainerEnded
            | Self::Stopped
            | Self::Other => Step::Final(Fault::Operator),
        }
    }

    /// Whether the call may have been carried out although it failed.
    pub fn leaves_open_what_happened(self) -> bool {
        matches!(self, Self::Server | Self::NoAnswer)
    }

    /// Whose fault it is when nothing is left to try.
    pub fn fault(self) -> Fault {
        match self {
            Self::ArchMissing | Self::ImageNotFound | Self::OutOfMemory => Fault::Author,
            _ => Fault::Operator,
        }
    }

    /// What happened, for the job log, as the end of a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoCapacity => "there is no capacity for it now",
            Self::SubnetFull => "the subnet has no free addresses",
            Self::TooSlow => "the task got no address in time",
            Self::ArchMissing => "the image is not built for its architecture",
            Self::SpotGone => "Spot took the task back while it was starting",
            Self::Network => "the task's network interface was not ready in time",
            Self::Storage => "the task's disk was not ready in time",
            Self::Pull => "the image or a secret could not be fetched in time",
            Self::Throttled => "AWS refused the call as one of too many",
            Self::Server => "AWS had an error of its own",
            Self::NoAnswer => "AWS did not answer",
            Self::Missing => "AWS does not know the task",
            Self::Infrastructure => "the machine under the task failed",
            Self::Denied => "AWS does not allow it",
            Self::NotFound => "AWS does not find what the settings name",
            Self::Configuration => {
                "AWS does not accept what the settings or the task definition say"
            }
            Self::ImageNotFound => "the registry has no such image",
            Self::ImageDenied => "the registry does not give the image",
            Self::OutOfMemory => "a container was killed for its memory use",
            Self::ContainerEnded => "a container ended before it was reached",
            Self::Stopped => "somebody stopped the task",
            Self::Other => "it failed for a reason that Pointsman does not know",
        }
    }

    /// What to do about a task that did not start, where something is known.
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::NoCapacity => {
                "try again later, or let the policy rank another capacity, architecture or size, or give the cluster subnets in other availability zones"
            }
            Self::TooSlow => {
                "raise `start_timeout` of the cluster, or look at the task's events in the ECS console"
            }
            Self::SubnetFull => "give the cluster larger or more `subnets`",
            Self::ArchMissing => {
                "build the image for both architectures (`docker buildx build --platform linux/amd64,linux/arm64`), or let the policy rank the other architecture as well"
            }
            Self::SpotGone => "let the policy rank on-demand after spot",
            Self::Network | Self::Storage | Self::Infrastructure => {
                "AWS failed several times in a row: look at the AWS Health Dashboard, and retry the job"
            }
            Self::Pull => {
                "if it happens every time, the subnet has no route to the registry: a NAT gateway, VPC endpoints for ecr.api, ecr.dkr and s3, or `assign_public_ip`"
            }
            Self::ImageNotFound => {
                "correct the image's name or tag in the task definition, or choose another task definition by the job's tags"
            }
            Self::ImageDenied => {
                "the task execution role needs ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer on the repository, or the task definition needs `repositoryCredentials`"
            }
            Self::Configuration => {
                "look at the task definition's secrets, log configuration and task execution role, and at the subnet's routes"
            }
            Self::ContainerEnded => "look at the container's log: its command ended by itself",
            Self::OutOfMemory => "give the job more memory",
            Self::Stopped => "ask whoever may stop tasks in this account; CloudTrail has the name",
            Self::Missing => "compare `cluster` and `region` of [clusters.*]; then retry the job",
            Self::Throttled
            | Self::Server
            | Self::NoAnswer
            | Self::Denied
            | Self::NotFound
            | Self::Other => return None,
        })
    }
}
