//! Holds our work against judges that nobody of this project wrote: what the driver sends to ECS, STS, EC2, IAM and
//! Service Quotas against AWS's own service models as botocore ships them (`requests`, over what the simulator
//! recorded), and for ECS against moto's server (`moto`); the examples against cfn-lint, python-hcl2, Terraform's AWS
//! provider and shellcheck (`infrastructure`).
//!
//! All are on PyPI; `scripts/judges` installs them.

#![expect(clippy::unwrap_used, reason = "clippy's exception for tests does not reach helpers")]

mod infrastructure;
mod launches;
mod moto;
mod processes;
mod reentry;
mod requests;
mod verdict;
