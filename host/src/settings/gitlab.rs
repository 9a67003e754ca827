//! `[gitlab]`: the server's API as a source of facts.

use std::path::PathBuf;
use std::time::Duration;

/// `[gitlab]` with a `url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gitlab {
    /// Such as `https://gitlab.example.com`, without a slash at its end.
    pub url: String,
    /// What the job's own tags are needed for.
    pub job_tags: JobTags,
    /// Of one request. Default 5 s.
    pub timeout: Duration,
    /// Certificates in PEM to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// `job_tags = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobTags {
    /// No answer, no job: a system failure.
    Required,
    /// Without an answer the profile's tags stand in, with a line in the job log. The default.
    Preferred,
    /// The API is not asked.
    Off,
}

/// Checks a server's address.
///
/// # Errors
///
/// Returns what was expected.
pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = match text.split_once("://") {
        Some(("https", rest)) => rest,
        // The job's token would cross the network in the clear.
        Some(("http", rest)) if is_loopback(rest) => rest,
        Some(("http", _)) => {
            return Err(format!(
                "is `{text}`, expected `https://…`: the job's token is sent there"
            ));
        }
        _ => {
            return Err(format!(
                "is `{text}`, expected an address such as `https://gitlab.example.com`"
            ));
        }
    };
    let host = rest.split('/').next().unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(legal) {
        return Err(format!("is `{text}`, expected a host without user and password"));
    }
    if rest.contains(['?', '#', '\\']) || rest.contains(char::is_whitespace) {
        return Err(format!("is `{text}`, expected the address of the server and nothing more"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn is_loopback(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_over_https_or_stays_on_this_machine() {
        for (text, expected) in [
            ("https://gitlab.example.com", "https://gitlab.example.com"),
            ("https://example.com:8443/gitlab/", "https://example.com:8443/gitlab"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(expected));
        }
        for (text, said) in [
            ("http://gitlab.example.com", "the job's token is sent there"),
            ("http://localhost.example.com", "the job's token is sent there"),
            ("gitlab.example.com", "expected an address such as"),
            ("https://", "expected a host"),
            ("https://user:password@example.com", "without user and password"),
            ("https://example.com/?x", "nothing more"),
        ] {
            let message = url(text).unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
        }
    }
}
