//! Whose calls these are: the source of credentials, the role taken with them, and the sessions kept for the
//! next stage's process.
//!
//! Each stage of each job is a process of its own, so without [`cache`] each would call STS anew.

mod cache;
mod chain;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sts::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_sts::types::Tag;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use tokio::sync::Mutex;

use super::with_advice;
use crate::backend::{BackendError, SessionFacts};
use crate::settings::{AssumeRole, EcsCluster, MAX_SESSION_NAME};
use cache::Cache;
use chain::Chain;

/// What is left of a session's time at least when it is used: more than any call of a stage takes.
const MARGIN: Duration = Duration::from_secs(300);

/// The same for what this process has made itself, which may be shorter than that: a little more than the SDK
/// asks for.
const OWN_MARGIN: Duration = Duration::from_secs(15);

/// Gives the credentials for a cluster's calls.
#[derive(Debug)]
pub(super) struct Sessions {
    chain: Chain,
    role: Option<Session>,
    /// Where sessions are kept between processes; `None` where there is nothing to spare.
    cache: Option<Cache>,
    sdk: SdkConfig,
    /// What this process has found.
    found: Mutex<Option<Credentials>>,
}

/// A role to take, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    role: AssumeRole,
    name: String,
    tags: Vec<(String, String)>,
}

impl Sessions {
    pub(super) fn new(
        cluster: &EcsCluster,
        sdk: &SdkConfig,
        state: &Path,
        facts: &SessionFacts,
    ) -> Self {
        let role = cluster.assume_role.as_ref().map(|role| Session::new(role, facts));
        // Without a role or a named profile, what the chain finds is static, or answered on this machine.
        let cache = (role.is_some() || cluster.profile.is_some())
            .then(|| Cache::new(state, &key(cluster, role.as_ref())));
        let chain = Chain::new(&cluster.region, cluster.profile.as_deref());
        Self { chain, role, cache, sdk: sdk.clone(), found: Mutex::new(None) }
    }

    /// Credentials that will do for this stage.
    pub(super) async fn get(&self) -> Result<Credentials, BackendError> {
        let mut found = self.found.lock().await;
        if let Some(credentials) = found.as_ref().filter(|found| lasts(found, OWN_MARGIN)) {
            return Ok(credentials.clone());
        }
        let credentials = match &self.cache {
            Some(cache) => self.kept(cache).await?,
            None => self.make().await?,
        };
        *found = Some(credentials.clone());
        Ok(credentials)
    }

    /// What another process has left; else made, by one process for all that wait.
    async fn kept(&self, cache: &Cache) -> Result<Credentials, BackendError> {
        let is_fresh = |credentials: &Credentials| lasts(credentials, MARGIN);
        if let Some(credentials) = cache.read().filter(is_fresh) {
            return Ok(credentials);
        }
        let lock = cache.lock().await;
        if lock.is_some()
            && let Some(credentials) = cache.read().filter(is_fresh)
        {
            return Ok(credentials);
        }
        let credentials = self.make().await?;
        // A state directory that cannot be written to costs a call, not the job.
        if let Err(error) = cache.write(&credentials) {
            tracing::warn!(%error, "cannot keep the session for the next stage");
        }
        Ok(credentials)
    }

    async fn make(&self) -> Result<Credentials, BackendError> {
        let own = self.chain.get().await.map_err(with_advice)?;
        match &self.role {
            None => Ok(own),
            Some(session) => session.assume(&self.sdk, own).await.map_err(with_advice),
        }
    }
}

impl ProvideCredentials for Sessions {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.get().await.map_err(CredentialsError::provider_error)
        })
    }
}

/// `sdk` with these credentials.
pub(super) fn config_with(sdk: &SdkConfig, credentials: Arc<Sessions>) -> SdkConfig {
    sdk.to_builder()
        .credentials_provider(SharedCredentialsProvider::from(
            credentials as Arc<dyn ProvideCredentials>,
        ))
        .build()
}

fn lasts(credentials: &Credentials, margin: Duration) -> bool {
    credentials.expiry().is_none_or(|expiry| expiry > SystemTime::now() + margin)
}

/// All that another session would have otherwise.
fn key(cluster: &EcsCluster, session: Option<&Session>) -> String {
    format!("{}\n{:?}\n{session:?}", cluster.region, cluster.profile)
}

impl Session {
    fn new(role: &AssumeRole, facts: &SessionFacts) -> Self {
        let mut name = role.session_name.clone();
        for (placeholder, fact) in crate::settings::SessionFact::ALL {
            // Callers that act for no job, such as a sweep.
            let value = facts.get(&fact).map_or("none", String::as_str);
            name = name.replace(&format!("{{{placeholder}}}"), value);
        }
        let name = name.chars().take(MAX_SESSION_NAME).collect();
        let tag = |(fact, value): (&crate::settings::SessionFact, &String)| {
            (format!("pointsman:{}", fact.name()), value.clone())
        };
        let wanted = facts.iter().filter(|(fact, _)| role.session_tags.contains(fact));
        Self { role: role.clone(), name, tags: wanted.map(tag).collect() }
    }

    async fn assume(&self, sdk: &SdkConfig, own: Credentials) -> Result<Credentials, BackendError> {
        const CALL: &str = "AssumeRole";
        let build = |error: BuildError| BackendError::new(CALL, "request", error.to_string());
        let tags = self
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(build))
            .collect::<Result<Vec<_>, _>>()?;
        let config = sdk
            .to_builder()
            .credentials_provider(SharedCredentialsProvider::new(own))
            // Whatever holds for ECS: nobody above repeats this call.
            .retry_config(RetryConfig::standard())
            .build();
        let seconds = self.role.duration.and_then(|time| i32::try_from(time.as_secs()).ok());
        let answer = aws_sdk_sts::Client::new(&config)
            .assume_role()
            .role_arn(&self.role.arn)
            .role_session_name(&self.name)
            .set_external_id(self.role.external_id.clone())
            .set_duration_seconds(seconds)
            .set_tags((!tags.is_empty()).then_some(tags))
            .send()
            .await
            .map_err(|error| match error.code() {
                Some(code) => {
                    BackendError::new(CALL, code, error.message().unwrap_or("no message"))
                }
                None => {
                    BackendError::new(CALL, "no answer", DisplayErrorContext(&error).to_string())
                }
            })?;
        let given = answer
            .credentials()
            .ok_or_else(|| BackendError::new(CALL, "no credentials", "STS answered none"))?;
        let expiry = SystemTime::try_from(*given.expiration())
            .map_err(|error| BackendError::new(CALL, "no credentials", error.to_string()))?;
        Ok(Credentials::new(
            given.access_key_id(),
            given.secret_access_key(),
            Some(given.session_token().to_owned()),
            Some(expiry),
            "AssumeRole",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ecs::request::tests::cluster;
    use crate::backend::sight;
    use crate::settings::{Cluster, ClusterBackend, SessionFact};

    fn role() -> AssumeRole {
        AssumeRole {
            arn: "arn:aws:iam::123456789012:role/ci".into(),
            external_id: Some("acme".into()),
            session_name: "ci-{manager}-{job}".into(),
            session_tags: [SessionFact::Job, SessionFact::Project].into(),
            duration: None,
        }
    }

    fn facts() -> SessionFacts {
        [(SessionFact::Manager, "m"), (SessionFact::Job, "7"), (SessionFact::Profile, "dev")]
            .map(|(fact, value)| (fact, value.to_owned()))
            .into()
    }

    #[test]
    fn sessions_are_named_and_tagged_by_what_is_known() {
        let session = Session::new(&role(), &facts());
        assert_eq!(session.name, "ci-m-7");
        assert_eq!(session.tags, [("pointsman:job".to_owned(), "7".to_owned())]);
        let nobody = Session::new(&role(), &SessionFacts::new());
        assert_eq!((nobody.name.as_str(), nobody.tags.len()), ("ci-none-none", 0));
        let long = facts().into_iter().chain([(SessionFact::Manager, "m".repeat(64))]).collect();
        assert_eq!(Session::new(&role(), &long).name.len(), MAX_SESSION_NAME);
    }

    #[test]
    fn sessions_that_differ_are_kept_apart() {
        let key_of = |role: &AssumeRole, facts: &SessionFacts| {
            key(&cluster(), Some(&Session::new(role, facts)))
        };
        let first = key_of(&role(), &facts());
        assert_eq!(first, key_of(&role(), &facts()));
        for other in [
            key_of(&AssumeRole { external_id: None, ..role() }, &facts()),
            key_of(&AssumeRole { session_tags: [].into(), ..role() }, &facts()),
            key_of(&role(), &SessionFacts::new()),
            key(
                &EcsCluster { region: "eu-west-2".into(), ..cluster() },
                Some(&Session::new(&role(), &facts())),
            ),
            key(
                &EcsCluster { profile: Some("p".into()), ..cluster() },
                Some(&Session::new(&role(), &facts())),
            ),
            key(&cluster(), None),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn only_sessions_with_the_same_tags_see_the_same_tasks() {
        let with = |role: Option<&[SessionFact]>| {
            let assume_role = role.map(|tags| AssumeRole {
                arn: "arn:aws:iam::123456789012:role/ci".into(),
                external_id: None,
                session_name: "ci-{job}".into(),
                session_tags: tags.iter().copied().collect(),
                duration: None,
            });
            let ecs = EcsCluster { assume_role, ..cluster() };
            Cluster { labels: [].into(), backend: ClusterBackend::Ecs(Box::new(ecs)) }
        };
        let facts = |profile: &str, job: &str| -> SessionFacts {
            [(SessionFact::Profile, profile), (SessionFact::Job, job)]
                .map(|(fact, value)| (fact, value.to_owned()))
                .into()
        };
        let (dev, other_job, prod) = (facts("dev", "1"), facts("dev", "2"), facts("prod", "3"));
        let own = with(None);
        assert_eq!(sight(&own, &dev), sight(&own, &prod));
        // A session's name is told to CloudTrail only.
        let untagged = with(Some(&[]));
        assert_eq!(sight(&untagged, &dev), sight(&untagged, &prod));
        assert_ne!(sight(&untagged, &dev), sight(&own, &dev));
        let by_profile = with(Some(&[SessionFact::Profile]));
        assert_eq!(sight(&by_profile, &dev), sight(&by_profile, &other_job));
        assert_ne!(sight(&by_profile, &dev), sight(&by_profile, &prod));
        let by_job = with(Some(&[SessionFact::Job]));
        assert_ne!(sight(&by_job, &dev), sight(&by_job, &other_job));
    }
}
