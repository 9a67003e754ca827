//! Holds what the driver sends to ECS, STS, EC2, IAM and Service Quotas against two judges that nobody of this project
//! wrote: AWS's own service models as botocore ships them (`requests`, over what the simulator recorded), and for ECS
//! moto's server (`moto`).
//!
//! Both are Python's; `scripts/judges` installs them.

#![expect(clippy::unwrap_used, reason = "clippy's exception for tests does not reach helpers")]

mod launches;
mod moto;
mod processes;
mod reentry;
mod requests;
mod verdict;
