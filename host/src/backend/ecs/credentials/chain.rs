//! Where the driver's own credentials come from: AWS's usual sources in AWS's order, each with a limit, so
//! that a machine without any says so at once.
//!
//! The SDK's own chain waits up to 30 s for an instance metadata service (IMDS) that does not answer, as from
//! a container one network hop too far, and does not say what it tried.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{Region, ecs::EcsCredentialsProvider};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use tokio::time::timeout;

use crate::backend::BackendError;

/// IMDS is on this machine and answers within milliseconds, or not at all.
const IMDS_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const IMDS_READ_TIMEOUT: Duration = Duration::from_millis(1000);
/// Of all its requests together, with one more attempt at each.
const IMDS_TIMEOUT: Duration = Duration::from_millis(1500);

/// Of each other source: STS for a web identity, a program of the profile's.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(20);

struct Source {
    name: String,
    provider: Box<dyn ProvideCredentials>,
    limit: Duration,
}

/// The sources, in order.
pub(super) struct Chain {
    sources: Vec<Source>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.sources.iter().map(|source| &source.name)).finish()
    }
}

impl Chain {
    /// AWS's chain; with `profile`, that profile of AWS's files and nothing else.
    pub(super) fn new(region: &str, profile: Option<&str>) -> Self {
        let config =
            ProviderConfig::without_region().with_region(Some(Region::new(region.to_owned())));
        let source = |name: &str, provider: Box<dyn ProvideCredentials>, limit| Source {
            name: name.to_owned(),
            provider,
            limit,
        };
        if let Some(profile) = profile {
            let provider =
                ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile);
            let name = format!("profile `{profile}`");
            let only = source(&name, Box::new(provider.build()), SOURCE_TIMEOUT);
            return Self { sources: vec![only] };
        }
        let imds = imds::Client::builder()
            .configure(&config)
            .max_attempts(2)
            .connect_timeout(IMDS_CONNECT_TIMEOUT)
            .read_timeout(IMDS_READ_TIMEOUT)
            .build();
        let imds = imds::credentials::ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(imds)
            .build();
        let profile = ProfileFileCredentialsProvider::builder().configure(&config).build();
        let web_identity =
            WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
        let container = EcsCredentialsProvider::builder().configure(&config).build();
        Self {
            sources: vec![
                source(
                    "the environment (AWS_ACCESS_KEY_ID)",
                    Box::new(EnvironmentVariableCredentialsProvider::new()),
                    SOURCE_TIMEOUT,
                ),
                source("the default profile (AWS_PROFILE)", Box::new(profile), SOURCE_TIMEOUT),
                source(
                    "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
                    Box::new(web_identity),
                    SOURCE_TIMEOUT,
                ),
                source(
                    "the container's role (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)",
                    Box::new(container),
                    SOURCE_TIMEOUT,
                ),
                source("the instance's role (IMDS)", Box::new(imds), IMDS_TIMEOUT),
            ],
        }
    }

    /// The first source's that has some. A source that is there and broken ends the search: the next one
    /// would be another identity than the operator meant.
    pub(super) async fn get(&self) -> Result<Credentials, BackendError> {
        let mut tried = Vec::new();
        for source in &self.sources {
            let (said, is_absent) =
                match timeout(source.limit, source.provider.provide_credentials()).await {
                    Ok(Ok(credentials)) => return Ok(credentials),
                    Ok(Err(error)) => {
                        let is_absent = matches!(error, CredentialsError::CredentialsNotLoaded(_));
                        (innermost(&error), is_absent)
                    }
                    Err(_) => (format!("no answer within {} s", source.limit.as_secs_f32()), false),
                };
            tried.push(format!("{}: {said}", source.name));
            if !is_absent {
                break;
            }
        }
        let message = format!("tried {}", tried.join("; "));
        Err(BackendError::new("credentials", "not found", message))
    }
}

/// The cause itself: what is around it names the SDK's own types.
fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::future;

    use super::*;

    #[derive(Debug)]
    enum Fake {
        Has,
        Lacks,
        Broken,
        Silent,
    }

    impl ProvideCredentials for Fake {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                match self {
                    Self::Has => Ok(Credentials::new("AKIA", "secret", None, None, "test")),
                    Self::Lacks => Err(CredentialsError::not_loaded("it is not set")),
                    Self::Broken => Err(CredentialsError::invalid_configuration("line 3")),
                    Self::Silent => std::future::pending().await,
                }
            })
        }
    }

    async fn get(fakes: Vec<Fake>) -> Result<Credentials, String> {
        let source = |fake: Fake| Source {
            name: format!("{fake:?}"),
            provider: Box::new(fake),
            limit: Duration::from_millis(20),
        };
        let chain = Chain { sources: fakes.into_iter().map(source).collect() };
        chain.get().await.map_err(|error| error.message)
    }

    #[tokio::test]
    async fn the_first_that_has_some_is_taken_and_a_broken_one_ends_the_search() {
        assert!(get(vec![Fake::Lacks, Fake::Has, Fake::Broken]).await.is_ok());
        assert_eq!(
            get(vec![Fake::Lacks, Fake::Broken, Fake::Has]).await.unwrap_err(),
            "tried Lacks: it is not set; Broken: line 3"
        );
        assert_eq!(
            get(vec![Fake::Lacks, Fake::Silent]).await.unwrap_err(),
            "tried Lacks: it is not set; Silent: no answer within 0.02 s"
        );
    }
}
