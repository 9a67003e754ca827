//! `pointsman iam-policy` on the command line.

use std::process::ExitCode;

use clap::Args;

use super::policy::pretty;
use super::{Global, load};
use crate::failure::{Failure, Report, guard};
use crate::iam::{self, Asked, IamError};
use crate::output;

/// Where there is no policy to print.
const FAILED: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only what this profile needs; may be given several times
    #[arg(long = "profile", id = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// The policy of this role, by which a cluster in another account is reached (`assume_role`)
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// The account of clusters that the file gives by their short names
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// AWS's partition, where neither an ARN nor the Region tells it
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// A role that an ECS task definition names itself; may be given several times
    #[arg(long = "pass-role", value_name = "ARN")]
    pass_roles: Vec<String>,
    /// And what `pointsman doctor` looks at
    #[arg(long)]
    doctor: bool,
}

/// Prints the policy.
pub(super) fn run(global: &Global, arguments: Arguments) -> ExitCode {
    match guard(|| print(global, arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::from(FAILED)
        }
        Err(Failure::Script(_)) => ExitCode::from(FAILED),
    }
}

fn print(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let settings = load(global)?;
    let digits = |id: &String| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(account) = arguments.account.as_ref().filter(|id| !digits(id)) {
        return Err(Failure::system(format!("`{account}` is no account's id: expected 12 digits")));
    }
    let names_no_role = arguments.pass_roles.is_empty();
    let answer = iam::policy(
        &settings,
        &Asked {
            profiles: arguments.profiles,
            role: arguments.role,
            account: arguments.account,
            partition: arguments.partition,
            pass_roles: arguments.pass_roles,
            doctor: arguments.doctor,
        },
    )
    .map_err(|error| {
        let report = Report::of(&error);
        Failure::System(match error {
            IamError::Account { .. } => report.hint("name it with --account ID"),
            IamError::Nothing => report.hint("tasks of local clusters need no permission"),
            IamError::Profile { .. } | IamError::Role { .. } => report,
        })
    })?;
    output::result(&format!("{}\n", pretty(&answer.document)?));
    let compact = serde_json::to_string(&answer.document)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    if compact.len() > iam::MAX_MANAGED {
        output::note(&format!(
            "Note: this policy has {} characters, and a managed policy may have {}: print one for some profiles each with --profile NAME.",
            compact.len(),
            iam::MAX_MANAGED
        ));
    }
    if answer.runs_tasks && names_no_role {
        output::note(
            "Note: roles that ECS task definitions name themselves (taskRoleArn, executionRoleArn) are not in the settings file. Add each with --pass-role ARN, or tasks with them are refused.",
        );
    }
    for role in &answer.roles {
        output::note(&format!(
            "Note: some clusters are reached by {role}: `pointsman iam-policy --role {role}` prints what that role needs."
        ));
    }
    Ok(())
}
