//! Where a value comes from that a policy read: who vouches for it, and whether the pipeline's author chose it.

use serde::Serialize;

use crate::policy::{self, Assurance, Question};

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// As the trace records it.
    pub name: String,
    /// Cut to a line.
    pub value: String,
    /// In words.
    pub source: &'static str,
}

const SERVER: &str = "stated by the server";
const CHOSEN: &str = "stated by the server, chosen by the author";
const OPERATOR: &str = "set by the operator";
const RECORDED: &str = "recorded by the driver";
const CLAIMED: &str = "written by the author";
const HIDDEN: &str = "not shown to policies";
/// Characters of a shown value.
const MAX_VALUE: usize = 80;

/// The fact `name` of `question`.
pub fn fact(question: &Question<'_>, name: &str) -> Reading {
    let job = question.job;
    let (value, source) = match name {
        "job-id" => (job.id.to_string(), SERVER),
        "job-name" => (job.name.clone(), CHOSEN),
        "job-stage" => (job.stage.clone(), CHOSEN),
        "job-tags" => {
            let tags: Vec<&str> = question.tags.iter().map(String::as_str).collect();
            let source = match question.tags_assurance {
                Assurance::Server => CHOSEN,
                Assurance::Runner => OPERATOR,
            };
            (format!("[{}]", tags.join(", ")), source)
        }
        "pipeline-id" => (job.pipeline_id.to_string(), SERVER),
        "user-id" => (job.user_id.to_string(), SERVER),
        "project" => (format!("{} ({})", job.project.id, job.project.full_path), SERVER),
        "ref" => {
            let protected = match job.git_ref.protected {
                Some(true) => "protected",
                Some(false) => "not protected",
                None => "not told whether protected",
            };
            (
                format!("{}, {protected}", job.git_ref.name),
                "stated by the server; the name is the author's",
            )
        }
        "profile" => (question.profile.to_owned(), OPERATOR),
        "timeout-seconds" => {
            (job.timeout.as_secs().to_string(), "stated by the server; authors can shorten it")
        }
        "queued-seconds" => (job.queued.as_secs().to_string(), SERVER),
        "attempt" => (question.attempt.to_string(), RECORDED),
        "earlier-failures" => {
            let failures: Vec<&str> =
                question.earlier_failures.iter().map(|failure| failure.detail.as_str()).collect();
            let value = if failures.is_empty() { "none".to_owned() } else { failures.join("; ") };
            (value, RECORDED)
        }
        "fact-names" => (format!("{} names", question.facts.len()), SERVER),
        other => match question.facts.get(other) {
            Some((value, Assurance::Server)) => (value.clone(), SERVER),
            Some((value, Assurance::Runner)) => (value.clone(), OPERATOR),
            None => ("none".to_owned(), "nobody vouches for such a fact"),
        },
    };
    reading(name, &value, source)
}

/// The claim `name` of `question`.
pub fn claim(question: &Question<'_>, name: &str) -> Reading {
    let job = question.job;
    // As far as policies see them: this goes to a terminal or a report, where masked values do not belong either.
    let (image, services) = policy::visible_images(job);
    let value = match name {
        "image" if image != job.image => HIDDEN.to_owned(),
        "image" => image.unwrap_or_else(|| "none".to_owned()),
        "services" => format!("[{}]", services.join(", ")),
        "variable-names" => "the names of all variables".to_owned(),
        other => {
            let key = other.strip_prefix("variable ").unwrap_or(other);
            let is_there = job.variables.iter().any(|variable| variable.key == key);
            match policy::visible_variables(job).remove(key) {
                Some(value) => value,
                None if is_there => HIDDEN.to_owned(),
                None => "none".to_owned(),
            }
        }
    };
    reading(name, &value, CLAIMED)
}

fn reading(name: &str, value: &str, source: &'static str) -> Reading {
    Reading {
        name: name.to_owned(),
        value: crate::placement::text::one_line(value, MAX_VALUE),
        source,
    }
}

#[cfg(test)]
mod tests {
    use crate::authoring::fixture::Fixture;
    use crate::job::Variable;
    use crate::settings::ClaimsTaint;

    use super::*;

    #[test]
    fn values_come_with_who_vouches_for_them() {
        let mut fixture = Fixture::default();
        fixture.facts.tags.insert("dev".to_owned());
        fixture.facts.more.insert("pipeline.source".to_owned(), "push".to_owned());
        fixture.claims.variables.insert("WISH".to_owned(), "spot\u{1b}[31m".to_owned());
        let asked = fixture.asked();
        let question = asked.question(ClaimsTaint::Allow);
        for (name, value, source) in [
            ("job-tags", "[dev]", CHOSEN),
            ("project", "1 (group/project)", SERVER),
            ("ref", "feature, not protected", "stated by the server; the name is the author's"),
            ("profile", "test", OPERATOR),
            ("pipeline.source", "push", SERVER),
            ("no.such", "none", "nobody vouches for such a fact"),
        ] {
            let reading = fact(&question, name);
            assert_eq!((reading.value.as_str(), reading.source), (value, source), "{name}");
        }
        assert_eq!(claim(&question, "variable WISH").value, "spot [31m");
        assert_eq!(claim(&question, "variable OTHER").value, "none");
    }

    #[test]
    fn what_policies_do_not_see_is_not_shown_either() {
        let fixture = Fixture::default();
        let mut asked = fixture.asked();
        let variable = |key: &str, value: &str, masked| Variable {
            masked,
            ..Variable::plain(key.to_owned(), value.to_owned())
        };
        asked.job.variables = vec![
            variable("CI_JOB_TOKEN", "glcbt-64_token", true),
            variable("CI_REPOSITORY_URL", "https://x:glcbt-64_token@example.com/a.git", false),
        ];
        asked.job.image = Some("registry.example/glcbt-64_token:1".to_owned());
        asked.job.services = vec!["redis".to_owned(), "x:glcbt-64_token".to_owned()];
        let question = asked.question(ClaimsTaint::Allow);
        for name in ["variable CI_JOB_TOKEN", "variable CI_REPOSITORY_URL", "image"] {
            assert_eq!(claim(&question, name).value, "not shown to policies", "{name}");
        }
        assert_eq!(claim(&question, "services").value, "[redis]");
    }
}
