//! The requests as they arrived, so that others can judge what a client sent: `requests.jsonl` in the simulator's
//! directory, one JSON object a line, `{"operation": "RunTask", "body": {…}}`. Those of other services than ECS are in
//! `others.jsonl`: `{"service": "ec2", "form": "Action=…"}` and `{"service": "servicequotas", "operation": …, "body": …}`,
//! with the service that the request is signed for.
//!
//! Written before a request is looked at, so that refused ones are there too. The file holds whatever clients send,
//! environment variables with keys among it: only its owner may read it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::de::IgnoredAny;
use serde_json::json;

/// Where arrived requests are written.
#[derive(Debug)]
pub(crate) struct Arrivals {
    file: Mutex<File>,
}

impl Arrivals {
    /// Appends to the file at `path`.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes the line of a form that was sent to `service`.
    pub(crate) fn write_form(&self, service: &str, form: &[u8]) {
        let form = String::from_utf8_lossy(form);
        self.append(&format!("{}\n", json!({"service": service, "form": form})));
    }

    /// Writes the line of a JSON request to another service than ECS.
    pub(crate) fn write_of(&self, service: &str, operation: &str, body: &[u8]) {
        let line = line(operation, body);
        let rest = line.strip_prefix('{').unwrap_or(&line);
        self.append(&format!("{{\"service\":{},{rest}", json!(service)));
    }

    /// Writes one line in one piece. A full disk must not stop the simulation: then there is a line on stderr.
    pub(crate) fn write(&self, operation: &str, body: &[u8]) {
        self.append(&line(operation, body));
    }

    fn append(&self, line: &str) {
        let written =
            self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        if let Err(error) = written {
            crate::diagnostics::report(&format!("cannot record a request: {error}"));
        }
    }
}

/// The body is kept as it is, members in their order and twofold ones twice; what is no JSON becomes a string, which
/// no operation's body is.
fn line(operation: &str, body: &[u8]) -> String {
    let operation = json!(operation);
    let text = String::from_utf8_lossy(body);
    let body = match serde_json::from_slice::<IgnoredAny>(body) {
        // Outside of strings, where JSON has none, a line break is only white space.
        Ok(_) => text.replace(['\n', '\r'], " "),
        Err(_) if body.is_empty() => "{}".to_owned(),
        Err(_) => json!(text).to_string(),
    };
    format!("{{\"operation\":{operation},\"body\":{body}}}\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Arrivals, line};

    #[test]
    fn a_body_is_kept_as_it_came() {
        let table: [(&[u8], &str); 4] = [
            (
                br#"{"b": 1, "a": 2.50, "b": 1}"#,
                r#"{"operation":"RunTask","body":{"b": 1, "a": 2.50, "b": 1}}"#,
            ),
            (b"{\r\n\"a\":\"\\n\"}", r#"{"operation":"RunTask","body":{  "a":"\n"}}"#),
            (b"", r#"{"operation":"RunTask","body":{}}"#),
            (b"{\"a\"\n\xff", "{\"operation\":\"RunTask\",\"body\":\"{\\\"a\\\"\\n\u{fffd}\"}"),
        ];
        for (body, expected) in table {
            assert_eq!(line("RunTask", body), format!("{expected}\n"));
        }
    }

    #[test]
    fn other_services_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("others.jsonl");
        let arrivals = Arrivals::open(&path).unwrap();
        arrivals.write_form("ec2", b"Action=X&Y=%20\"");
        arrivals.write_of("servicequotas", "GetServiceQuota", b"{\"a\":1}");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"form\":\"Action=X&Y=%20\\\"\",\"service\":\"ec2\"}\n{\"service\":\"servicequotas\",\"operation\":\"GetServiceQuota\",\"body\":{\"a\":1}}\n"
        );
    }

    #[test]
    fn lines_are_appended_to_a_file_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("requests.jsonl");
        Arrivals::open(&path).unwrap().write("StopTask", b"{}");
        Arrivals::open(&path).unwrap().write("ListTasks", b"{}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"operation\":\"StopTask\",\"body\":{}}\n{\"operation\":\"ListTasks\",\"body\":{}}\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
