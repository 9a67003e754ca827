//! `protected-roles`: roles are for protected refs, and for listed projects by id.
//!
//! README.md has the settings.

use std::collections::BTreeMap;

use pointsman_policy_sdk::schema::{self, Schema};
use pointsman_policy_sdk::{
    Context, Guard, Placement, Policy, Rejection, SettingProblem, Value, settings,
};

/// `[policies.protected-roles.settings]`
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    roles: BTreeMap<String, Rule>,
}

/// Whom a role is for.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Ids, since a path can be given to another project.
    #[serde(default)]
    projects: Option<Vec<u64>>,
    #[serde(default)]
    unprotected_refs: bool,
}

/// The policy.
#[derive(Debug)]
pub struct ProtectedRoles;

impl Policy for ProtectedRoles {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "roles for protected refs and listed projects only";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        let settings: Settings = settings::from_json(json)?;
        let empty: Vec<SettingProblem> = settings
            .roles
            .iter()
            .filter(|(_, rule)| rule.projects.as_ref().is_some_and(Vec::is_empty))
            .map(|(name, _)| SettingProblem {
                path: format!("roles.{name}.projects"),
                message: "is an empty list: nobody could have the role".to_owned(),
            })
            .collect();
        if empty.is_empty() { Ok(settings) } else { Err(empty) }
    }

    fn schema() -> Option<Schema> {
        let rule = schema::table()
            .optional(
                "projects",
                schema::list(
                    "ids of the projects that may have the role; all when left out",
                    schema::whole("a project's id", 1, u64::from(u32::MAX)),
                ),
            )
            .optional("unprotected_refs", schema::flag("whether other refs may have it as well"));
        Some(schema::table().optional("roles", schema::map("by the role's name", rule)))
    }
}

impl Guard for ProtectedRoles {
    fn check<C: Context>(
        context: &C,
        settings: &Settings,
        candidate: &Placement,
    ) -> Result<(), Rejection> {
        let Some(role) = &candidate.role else { return Ok(()) };
        let no = |code: &str, message: String, hint: &str| {
            Err(Rejection { code: code.to_owned(), message, hint: Some(hint.to_owned()) })
        };
        let Some(rule) = settings.roles.get(role) else {
            let privileged =
                context.roles().iter().any(|offered| offered.name == *role && offered.privileged);
            if !privileged {
                return Ok(());
            }
            return no(
                "unlisted-role",
                format!("role `{role}` is privileged, and no rule says whom it is for"),
                "an operator can list it in the settings of `protected-roles`",
            );
        };
        if let Some(projects) = &rule.projects {
            let project = context.project();
            if !projects.contains(&project.id) {
                return no(
                    "project-not-listed",
                    format!(
                        "role `{role}` is not for project {} (`{}`)",
                        project.id, project.full_path
                    ),
                    "an operator can add the project's id to the role's `projects`",
                );
            }
        }
        let git_ref = context.git_ref();
        if rule.unprotected_refs || git_ref.protected == Some(true) {
            return Ok(());
        }
        match git_ref.protected {
            // GitLab older than 18.3 does not say.
            None => no(
                "unprotected-ref",
                format!(
                    "role `{role}` is for protected refs, and GitLab does not say that `{}` is one",
                    git_ref.name
                ),
                "GitLab says so from version 18.3 on",
            ),
            Some(_) => no(
                "unprotected-ref",
                format!("role `{role}` is for protected refs, and `{}` is none", git_ref.name),
                "protect the branch or the tag in GitLab",
            ),
        }
    }
}

pointsman_policy_sdk::export!(ProtectedRoles: guard);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::Role;
    use pointsman_policy_sdk::fixture::{Fixture, assert_schema_is_whole, placement};

    fn code(job: &Fixture, role: Option<&str>) -> String {
        let settings = ProtectedRoles::settings(&serde_json::json!({"roles": {
            "deploy": {"projects": [7]},
            "read": {"unprotected_refs": true},
        }}))
        .unwrap();
        let candidate = Placement { role: role.map(str::to_owned), ..placement() };
        match ProtectedRoles::check(job, &settings, &candidate) {
            Ok(()) => "ok".to_owned(),
            Err(rejection) => rejection.code,
        }
    }

    fn job(project: u64, protected: Option<bool>) -> Fixture {
        let mut job = Fixture::default();
        job.project.id = project;
        job.git_ref.protected = protected;
        job.roles = vec![
            Role { name: "deploy".to_owned(), privileged: true },
            Role { name: "admin".to_owned(), privileged: true },
            Role { name: "logs".to_owned(), privileged: false },
        ];
        job
    }

    #[test]
    fn whom_a_role_is_for() {
        for (project, protected, role, expected) in [
            (7, Some(true), Some("deploy"), "ok"),
            (7, Some(false), Some("deploy"), "unprotected-ref"),
            (7, None, Some("deploy"), "unprotected-ref"),
            (8, Some(true), Some("deploy"), "project-not-listed"),
            (8, None, Some("read"), "ok"),
            (7, Some(true), Some("admin"), "unlisted-role"),
            (8, None, Some("logs"), "ok"),
            (8, None, None, "ok"),
        ] {
            assert_eq!(
                code(&job(project, protected), role),
                expected,
                "{project} {protected:?} {role:?}"
            );
        }
    }

    #[test]
    fn a_list_for_nobody_is_a_mistake() {
        let json = serde_json::json!({"roles": {"deploy": {"projects": []}}});
        assert_eq!(ProtectedRoles::settings(&json).unwrap_err()[0].path, "roles.deploy.projects");
        assert!(ProtectedRoles::settings(&serde_json::json!({"role": {}})).is_err());
        assert_schema_is_whole::<ProtectedRoles>();
    }
}
