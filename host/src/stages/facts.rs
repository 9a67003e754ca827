//! What is known of a job before its policies are asked: its tags and who vouches for them, and what GitLab says.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use super::Context;
use crate::failure::{Failure, Report};
use crate::gitlab::{self, GitlabError};
use crate::job::response;
use crate::output;
use crate::policy::Assurance;
use crate::settings::{JobTags, Profile};

/// Tags and further facts.
pub(super) struct Facts {
    pub(super) tags: BTreeSet<String>,
    pub(super) assurance: Assurance,
    pub(super) more: BTreeMap<String, (String, Assurance)>,
}

/// Asks GitLab where the settings say so; `bytes` are the job response file's, of the job `job_id`.
///
/// # Errors
///
/// Fails when the job's own tags are required and not to be had: a system failure.
pub(super) fn gather(
    context: &Context,
    profile: &Profile,
    bytes: &[u8],
    job_id: u64,
) -> Result<Facts, Failure> {
    // GitLab's payload has no tags. A runner only gets jobs whose tags it has.
    let of_profile = || Facts {
        tags: profile.tags.clone(),
        assurance: Assurance::Runner,
        more: BTreeMap::new(),
    };
    let Some(settings) = &context.settings.gitlab else { return Ok(of_profile()) };
    if settings.job_tags == JobTags::Off {
        return Ok(of_profile());
    }
    if let Some(tags) = &context.rehearsed_tags {
        let more = BTreeMap::new();
        return Ok(Facts { tags: tags.clone(), assurance: Assurance::Server, more });
    }
    match gitlab::job(settings, &response::token(bytes), job_id) {
        Ok(answer) => Ok(Facts {
            tags: answer.tags,
            assurance: Assurance::Server,
            more: answer
                .facts
                .into_iter()
                .map(|(name, value)| (name, (value, Assurance::Server)))
                .collect(),
        }),
        Err(error) if settings.job_tags == JobTags::Preferred => {
            let tags: Vec<&str> = profile.tags.iter().map(String::as_str).collect();
            output::note(&format!(
                "The job's own tags are not known, so the profile's stand in [{}]: {}",
                tags.join(", "),
                in_one_line(&error)
            ));
            Ok(of_profile())
        }
        Err(error) => Err(required(&error)),
    }
}

fn required(error: &GitlabError) -> Failure {
    let mut report = Report::of(error);
    report.causes.insert(0, report.error.clone());
    report.error = "the job's own tags are required and not known".to_owned();
    if error.refuses_certificate() {
        report = report.hint(
            "`ca_file` of [gitlab] names the certificates that are trusted instead of the system's",
        );
    }
    Failure::System(report.hint(
        "look at the server; `job_tags = \"preferred\"` of [gitlab] lets the profile's tags stand in",
    ))
}

fn in_one_line(error: &GitlabError) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
