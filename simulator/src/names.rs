//! ARNs and identifiers, taken apart: pure.

/// Names of one account in one region.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) account: String,
    pub(crate) region: String,
}

impl Names {
    fn prefix(&self) -> String {
        format!("arn:aws:ecs:{}:{}:", self.region, self.account)
    }

    pub(crate) fn cluster_arn(&self, cluster: &str) -> String {
        format!("{}cluster/{cluster}", self.prefix())
    }

    pub(crate) fn task_definition_arn(&self, family: &str, revision: usize) -> String {
        format!("{}task-definition/{family}:{revision}", self.prefix())
    }

    pub(crate) fn task_arn(&self, cluster: &str, id: &str) -> String {
        format!("{}task/{cluster}/{id}", self.prefix())
    }

    pub(crate) fn container_arn(&self, cluster: &str, task: &str, id: &str) -> String {
        format!("{}container/{cluster}/{task}/{id}", self.prefix())
    }

    /// The rest of an ARN of this account and region, or the whole of what is no ARN; `None` for a foreign ARN.
    fn local<'a>(&self, name: &'a str, kind: &str) -> Option<&'a str> {
        if !name.starts_with("arn:") {
            return Some(name);
        }
        name.strip_prefix(&self.prefix())?.strip_prefix(kind)
    }

    /// A cluster's short name.
    pub(crate) fn cluster<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.local(name, "cluster/").filter(|name| !name.is_empty() && !name.contains('/'))
    }

    /// A task definition's family, and its revision where one is given.
    pub(crate) fn task_definition<'a>(&self, name: &'a str) -> Option<(&'a str, Option<usize>)> {
        let local = self.local(name, "task-definition/")?;
        match local.split_once(':') {
            None if name.starts_with("arn:") => None,
            None => Some((local, None)),
            Some((family, revision)) => Some((family, Some(revision.parse().ok()?))),
        }
    }

    /// A task's id; an ARN must be of `cluster`.
    pub(crate) fn task<'a>(&self, name: &'a str, cluster: &str) -> Option<&'a str> {
        let local = self.local(name, "task/")?;
        if name.starts_with("arn:") {
            local.strip_prefix(cluster)?.strip_prefix('/')
        } else {
            Some(local)
        }
    }
}

/// Whether `text` has the shape of an IAM role's ARN, with or without a path.
pub(crate) fn is_role_arn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws:iam::") else { return false };
    let Some((account, name)) = rest.split_once(":role/") else { return false };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-/".contains(&byte);
    account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty()
        && !name.ends_with('/')
        && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::{Names, is_role_arn};

    fn names() -> Names {
        Names { account: "123456789012".to_owned(), region: "eu-west-1".to_owned() }
    }

    #[test]
    fn clusters() {
        let table = [
            ("dev", Some("dev")),
            ("arn:aws:ecs:eu-west-1:123456789012:cluster/dev", Some("dev")),
            ("arn:aws:ecs:eu-west-2:123456789012:cluster/dev", None),
            ("arn:aws:ecs:eu-west-1:210987654321:cluster/dev", None),
            ("arn:aws:ecs:eu-west-1:123456789012:task/dev", None),
            ("", None),
            ("a/b", None),
        ];
        for (name, expected) in table {
            assert_eq!(names().cluster(name), expected, "{name}");
        }
    }

    #[test]
    fn task_definitions() {
        let table = [
            ("ci", Some(("ci", None))),
            ("ci:3", Some(("ci", Some(3)))),
            ("ci:x", None),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/ci:3", Some(("ci", Some(3)))),
            ("arn:aws:ecs:eu-west-1:123456789012:task-definition/ci", None),
            ("arn:aws:ecs:us-east-1:123456789012:task-definition/ci:3", None),
        ];
        for (name, expected) in table {
            assert_eq!(names().task_definition(name), expected, "{name}");
        }
    }

    #[test]
    fn tasks() {
        let table = [
            ("0123", Some("0123")),
            ("arn:aws:ecs:eu-west-1:123456789012:task/dev/0123", Some("0123")),
            ("arn:aws:ecs:eu-west-1:123456789012:task/prod/0123", None),
            ("arn:aws:ecs:eu-west-2:123456789012:task/dev/0123", None),
        ];
        for (name, expected) in table {
            assert_eq!(names().task(name, "dev"), expected, "{name}");
        }
    }

    #[test]
    fn roles() {
        let table = [
            ("arn:aws:iam::123456789012:role/deploy", true),
            ("arn:aws:iam::123456789012:role/ci/deploy", true),
            ("arn:aws:iam::1234:role/deploy", false),
            ("arn:aws:iam::123456789012:user/deploy", false),
            ("arn:aws:iam::123456789012:role/", false),
            ("deploy", false),
        ];
        for (text, expected) in table {
            assert_eq!(is_role_arn(text), expected, "{text}");
        }
    }
}
