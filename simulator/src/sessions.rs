//! Sessions of roles: who may take which, and whose calls are answered. No IO.

use std::collections::BTreeMap;

use crate::model::Tag;
use crate::protocol::ApiError;
use crate::world::AssumableRole;

/// The sessions that were given.
#[derive(Debug)]
pub(crate) struct Sessions {
    roles: Vec<AssumableRole>,
    /// By access key id.
    given: BTreeMap<String, Given>,
}

/// A session, as far as its permissions go.
#[derive(Debug)]
struct Given {
    role: String,
    name: String,
    tags: BTreeMap<String, String>,
    own_tasks_by: Vec<String>,
}

/// What AssumeRole was asked for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) role: String,
    pub(crate) session_name: String,
    pub(crate) external_id: Option<String>,
    pub(crate) seconds: Option<i64>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// The access key id of an `Authorization` header.
pub(crate) fn access_key(authorization: &str) -> Option<&str> {
    authorization.split_once("Credential=")?.1.split('/').next()
}

/// The service that the request of an `Authorization` header is signed for.
pub(crate) fn signed_for(authorization: &str) -> Option<&str> {
    authorization.split_once("Credential=")?.1.split('/').nth(3)
}

impl Sessions {
    pub(crate) fn new(roles: Vec<AssumableRole>) -> Self {
        Self { roles, given: BTreeMap::new() }
    }

    /// Refuses a call by anybody but a session, where roles are named.
    pub(crate) fn admit(&self, key: Option<&str>) -> Result<(), ApiError> {
        if self.roles.is_empty() || key.is_some_and(|key| self.given.contains_key(key)) {
            return Ok(());
        }
        let (code, message) = if key.is_some_and(|key| key.starts_with("ASIA")) {
            (
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        } else {
            ("AccessDeniedException", "The caller of another account is not authorized.")
        };
        Err(ApiError::new(code, message))
    }

    /// Whose access key it is, of the account `account`: account and ARN.
    pub(crate) fn identity(&self, key: Option<&str>, account: &str) -> (String, String) {
        if let Some(Given { role, name, .. }) = key.and_then(|key| self.given.get(key)) {
            let of_role = role.split(':').nth(4).unwrap_or(account);
            // A path is not part of a session's ARN.
            let role = role.rsplit('/').next().unwrap_or_default();
            let arn = format!("arn:aws:sts::{of_role}:assumed-role/{role}/{name}");
            return (of_role.to_owned(), arn);
        }
        // Where roles are named, the caller is of another account.
        let account = if self.roles.is_empty() { account } else { "999999999999" };
        (account.to_owned(), format!("arn:aws:iam::{account}:user/manager"))
    }

    /// Refuses `operation` on the task `arn` with `tags`, or one that is to get both, where the caller's role may
    /// do that to tasks of its own only.
    pub(crate) fn allow(
        &self,
        key: Option<&str>,
        operation: &str,
        arn: &str,
        tags: &[Tag],
    ) -> Result<(), ApiError> {
        let Some(session) = key.and_then(|key| self.given.get(key)) else { return Ok(()) };
        let is_own = |key: &String| {
            let value = tags.iter().find(|tag| tag.key == *key).map(|tag| &tag.value);
            value.is_some() && value == session.tags.get(key)
        };
        if session.own_tasks_by.iter().all(is_own) {
            return Ok(());
        }
        let role = session.role.rsplit('/').next().unwrap_or_default();
        Err(ApiError::new(
            "AccessDeniedException",
            format!(
                "User: arn:aws:sts::123456789012:assumed-role/{role}/{} is not authorized to perform: ecs:{operation} on resource: {arn} because no identity-based policy allows the ecs:{operation} action",
                session.name
            ),
        ))
    }

    /// A new session: its access key id, and its length in seconds.
    pub(crate) fn assume(&mut self, request: &Request) -> Result<(String, i64), ApiError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        let name = &request.session_name;
        if !(2..=64).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(ApiError::new(
                "ValidationError",
                format!(
                    "Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
                ),
            ));
        }
        let role = self.roles.iter().find(|role| role.arn == request.role);
        let is_trusted = match role {
            None => self.roles.is_empty(),
            Some(role) => role.external_id.is_none() || role.external_id == request.external_id,
        };
        if !is_trusted {
            let denied = ApiError::new(
                "AccessDenied",
                format!(
                    "User: arn:aws:iam::999999999999:user/manager is not authorized to perform: sts:AssumeRole on resource: {}",
                    request.role
                ),
            );
            return Err(ApiError { status: 403, ..denied });
        }
        let asked = request.seconds.unwrap_or(3600);
        if !(900..=43_200).contains(&asked) {
            return Err(ApiError::new("ValidationError", "DurationSeconds is out of range."));
        }
        let key = format!("ASIA{:016X}", rand::random::<u64>());
        let given = Given {
            role: request.role.clone(),
            name: name.clone(),
            tags: request.tags.clone(),
            own_tasks_by: role.map(|role| role.own_tasks_by.clone()).unwrap_or_default(),
        };
        let seconds = role.and_then(|role| role.seconds).unwrap_or(asked);
        self.given.insert(key.clone(), given);
        Ok((key, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(external_id: Option<&str>) -> Request {
        Request {
            role: "arn:aws:iam::123456789012:role/ci".to_owned(),
            session_name: "ci".to_owned(),
            external_id: external_id.map(str::to_owned),
            ..Request::default()
        }
    }

    #[test]
    fn only_sessions_of_the_role_are_answered() {
        let role = AssumableRole {
            arn: "arn:aws:iam::123456789012:role/ci".to_owned(),
            external_id: Some("acme".to_owned()),
            seconds: None,
            own_tasks_by: Vec::new(),
        };
        let mut sessions = Sessions::new(vec![role]);
        assert_eq!(sessions.admit(Some("AKIA1")).unwrap_err().code, "AccessDeniedException");
        assert_eq!(sessions.admit(Some("ASIA1")).unwrap_err().code, "UnrecognizedClientException");
        assert_eq!(sessions.assume(&request(None)).unwrap_err().code, "AccessDenied");
        let (key, seconds) = sessions.assume(&request(Some("acme"))).unwrap();
        assert_eq!(seconds, 3600);
        assert!(sessions.admit(Some(&key)).is_ok());
        assert_eq!(
            sessions.identity(Some(&key), "123456789012").1,
            "arn:aws:sts::123456789012:assumed-role/ci/ci"
        );
        assert_eq!(sessions.identity(Some("AKIA1"), "123456789012").0, "999999999999");
        let nameless = Request { session_name: "a b".to_owned(), ..request(Some("acme")) };
        assert_eq!(sessions.assume(&nameless).unwrap_err().code, "ValidationError");
    }

    #[test]
    fn a_session_touches_tasks_with_its_own_tags_only() {
        let role = AssumableRole {
            arn: "arn:aws:iam::123456789012:role/ci".to_owned(),
            external_id: None,
            seconds: None,
            own_tasks_by: vec!["team".to_owned()],
        };
        let mut sessions = Sessions::new(vec![role]);
        let tag = |value: &str| Tag { key: "team".to_owned(), value: value.to_owned() };
        let tags = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let (key, _) = sessions.assume(&Request { tags, ..request(None) }).unwrap();
        let (untagged, _) = sessions.assume(&request(None)).unwrap();
        let allow = |key: &str, tags: &[Tag]| {
            sessions.allow(Some(key), "StopTask", "arn:task", tags).map_err(|error| error.message)
        };
        assert_eq!(allow(&key, &[tag("a")]), Ok(()));
        assert!(
            allow(&key, &[tag("b")]).unwrap_err().contains("ecs:StopTask on resource: arn:task")
        );
        assert!(allow(&key, &[]).is_err());
        assert!(allow(&untagged, &[tag("a")]).is_err());
    }

    #[test]
    fn without_roles_everybody_is_answered() {
        let mut sessions = Sessions::new(Vec::new());
        assert!(sessions.admit(None).is_ok());
        assert!(sessions.assume(&request(None)).is_ok());
    }

    #[test]
    fn the_key_is_in_the_authorization() {
        let header = "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu-west-1/ecs/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(access_key(header), Some("AKIA1"));
        assert_eq!(signed_for(header), Some("ecs"));
        assert_eq!(access_key("Bearer x"), None);
        assert_eq!(signed_for("Bearer x"), None);
    }
}
