//! A guard: the roles that its settings list are for protected refs only.

use pointsman_policy_sdk::{
    Context, Guard, Placement, Policy, Rejection, SettingProblem, Value, settings,
};

/// `roles = ["deploy"]`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    roles: Vec<String>,
}

/// The policy.
#[derive(Debug)]
pub struct ProtectedRoles;

impl Policy for ProtectedRoles {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "roles that are for protected refs only";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        settings::from_json(json)
    }
}

impl Guard for ProtectedRoles {
    fn check<C: Context>(
        context: &C,
        settings: &Settings,
        candidate: &Placement,
    ) -> Result<(), Rejection> {
        let Some(role) = candidate.role.as_ref().filter(|role| settings.roles.contains(role))
        else {
            return Ok(());
        };
        let git_ref = context.git_ref();
        if git_ref.protected == Some(true) {
            return Ok(());
        }
        Err(Rejection {
            code: "unprotected-ref".to_owned(),
            message: format!("role `{role}` is for protected refs, and `{}` is none", git_ref.name),
            hint: Some("protect the branch or the tag in GitLab".to_owned()),
        })
    }
}

pointsman_policy_sdk::export!(ProtectedRoles: guard);
