//! Tables of pipelines and of what is read of them.

use super::*;

fn parsed(text: &str) -> Result<Pipeline, Vec<String>> {
    parsed_with(text, &[])
}

fn parsed_with(text: &str, files: &[(&str, &str)]) -> Result<Pipeline, Vec<String>> {
    let mut include = |path: &str| {
        files
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
    };
    match parse(Path::new(".gitlab-ci.yml"), text, &mut include) {
        Ok(pipeline) => Ok(pipeline),
        Err(PipelineError::Mistakes { problems, .. }) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(other) => Err(vec![other.to_string()]),
    }
}

fn job(text: &str) -> Job {
    parsed(text).unwrap().jobs.into_iter().find(|job| job.name == "j").unwrap()
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    assert_eq!(parsed(text).unwrap_err(), expected);
}

#[test]
fn defaults_are_gitlabs() {
    let pipeline = parsed("j: {script: x}").unwrap();
    assert_eq!(pipeline.stages, [".pre", "build", "test", "deploy", ".post"]);
    let job = &pipeline.jobs[0];
    assert_eq!((job.stage.as_str(), job.when, job.retry.max), ("test", When::OnSuccess, 0));
    assert_eq!((&job.needs, &job.dependencies, &job.artifacts), (&None, &None, &None));
}

#[test]
fn a_manual_job_does_not_hold_up_unless_it_says_so() {
    assert_eq!(job("j: {script: x, when: manual}").allow_failure, AllowFailure::Yes);
    assert_eq!(
        job("j: {script: x, when: manual, allow_failure: false}").allow_failure,
        AllowFailure::No
    );
}

#[test]
fn before_script_and_script_are_joined_and_flattened() {
    let job = job("
.a: &anchor [one, [two]]
.b: {script: [three, four]}
default: {before_script: [zero], after_script: [nine]}
j: {script: [*anchor, !reference [.b, script], five]}
");
    assert_eq!(job.script, ["zero", "one", "two", "three", "four", "five"]);
    assert_eq!(job.after_script, ["nine"]);
}

#[test]
fn an_empty_before_script_takes_the_default_away() {
    assert_eq!(
        job("{default: {before_script: [zero]}, j: {before_script: [], script: x}}").script,
        ["x"]
    );
}

#[test]
fn extends_merges_mappings_and_replaces_lists() {
    let job = job("
.base: {tags: [a], variables: {A: '1', B: '1'}, script: [base], artifacts: {paths: [p], expire_in: 7d}}
.more: {extends: .base, variables: {B: '2', C: '2'}}
.other: {tags: [b, c]}
j: {extends: [.more, .other], variables: {C: '3'}, artifacts: {paths: [q]}}
");
    let variables: Vec<_> =
        job.variables.iter().map(|one| format!("{}={}", one.key, one.value)).collect();
    assert_eq!(variables, ["A=1", "B=2", "C=3"]);
    assert_eq!(job.tags, ["b", "c"]);
    assert_eq!(job.script, ["base"]);
    let artifacts = job.artifacts.unwrap();
    assert_eq!(
        (artifacts.paths, artifacts.expire_in),
        (vec!["q".to_owned()], Some("7d".to_owned()))
    );
}

#[test]
fn merge_keys_and_references_of_references_work() {
    let job = job("
.m: &m {tags: [a], retry: 2}
.vars: {variables: {X: y}}
.again: {variables: !reference [.vars, variables]}
j: {<<: *m, retry: 1, script: x, variables: !reference [.again, variables]}
");
    assert_eq!((job.tags, job.retry.max), (vec!["a".to_owned()], 1));
    assert_eq!(job.variables, [Variable { key: "X".into(), value: "y".into(), raw: false }]);
}

#[test]
fn included_files_lie_below_the_including_one() {
    let files = [
        (
            "ci/a.yml",
            "include: {local: ci/b.yml}\n.t: {tags: [a], script: [a]}\nvariables: {V: a, W: a}",
        ),
        ("ci/b.yml", ".t: {retry: 1}\nvariables: {V: b, U: b}"),
    ];
    let text = "include: /ci/a.yml\nvariables: {V: main}\nj: {extends: .t}";
    let job = parsed_with(text, &files).unwrap().jobs.remove(0);
    let variables: Vec<_> =
        job.variables.iter().map(|one| format!("{}={}", one.key, one.value)).collect();
    assert_eq!(variables, ["V=main", "U=b", "W=a"]);
    assert_eq!((job.retry.max, job.tags), (1, vec!["a".to_owned()]));

    let circle = [("a.yml", "include: a.yml")];
    assert_eq!(
        parsed_with("include: [{local: a.yml}]\nj: {script: x}", &circle).unwrap_err(),
        ["include: `a.yml` includes itself"]
    );
    assert_eq!(
        parsed_with("include: gone.yml", &[]).unwrap_err(),
        ["cannot read the pipeline file gone.yml"]
    );
    wrong(
        "{include: [{template: X.yml}, 'https://x/y.yml', '../x.yml', 'a/*.yml'], j: {script: x}}",
        &[
            "include: rehearse does not play `template`, only `local`",
            "include: rehearse does not play remote files",
            "include: `../x.yml` leaves the repository",
            "include: rehearse does not play `*` in paths",
        ],
    );
}

#[test]
fn parallel_unfolds_and_needs_mean_every_instance() {
    let pipeline = parsed(
        "
a: {stage: build, script: x, parallel: 2}
j: {script: x, needs: [a, {job: gone, optional: true}], dependencies: [a]}
",
    )
    .unwrap();
    let names: Vec<_> = pipeline.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["a 1/2", "a 2/2", "j"]);
    assert_eq!(pipeline.jobs[1].node, Some((2, 2)));
    let needs = pipeline.jobs[2].needs.clone().unwrap();
    assert_eq!(needs[1], Need { job: "a 2/2".into(), artifacts: true });
    assert_eq!(
        pipeline.jobs[2].dependencies.as_deref(),
        Some(&["a 1/2".into(), "a 2/2".into()][..])
    );
}

#[test]
fn empty_needs_and_dependencies_are_not_absent_ones() {
    let job = job("j: {script: x, needs: [], dependencies: []}");
    assert_eq!((job.needs, job.dependencies), (Some(vec![]), Some(vec![])));
}

#[test]
fn the_smaller_keywords_are_read() {
    let job = job("
j:
  script: x
  image: {name: node:22, entrypoint: ['']}
  services: [postgres:17, {name: redis:8, alias: cache, variables: {A: b}}]
  allow_failure: {exit_codes: [42, 43]}
  retry: {max: 2, when: [runner_system_failure], exit_codes: 7}
  timeout: 1h 30m
  variables: {N: 3, R: {value: $X, expand: false, description: d}, E: }
  artifacts: {paths: [p], exclude: [p/x], name: $CI_JOB_NAME, when: always}
");
    assert_eq!(job.image.unwrap().entrypoint, Some(vec![String::new()]));
    assert_eq!(job.services[1].alias.as_deref(), Some("cache"));
    assert_eq!(job.services[1].variables[0].value, "b");
    assert_eq!(job.allow_failure, AllowFailure::ExitCodes([42, 43].into()));
    assert_eq!((job.retry.max, job.retry.exit_codes), (2, [7].into()));
    assert_eq!(job.timeout, Some(Duration::from_secs(5400)));
    assert_eq!(job.variables[0].value, "3");
    assert_eq!((job.variables[1].value.as_str(), job.variables[1].raw), ("$X", true));
    assert_eq!(job.variables[2].value, "");
    assert_eq!(job.artifacts.unwrap().when, ArtifactsWhen::Always);
}

#[test]
fn the_articles_typo_is_told_with_its_remedy() {
    wrong(
        "build-dev: {script: [./scripts/build.sh], artifacts: {paths: [./artifacts], expire in: 7d}}",
        &["build-dev: artifacts: `expire in` is no keyword here; did you mean `expire_in`?"],
    );
    wrong(
        "{j: {script: x, expire in: 7d}, expire in: 7d}",
        &[
            "j: `expire in` is no keyword here; did you mean `expire_in` under `artifacts`?",
            "expire in: is neither a keyword nor a job (a mapping with `script`); did you mean `expire_in` under `artifacts`?",
        ],
    );
}

#[test]
fn everything_that_is_not_played_is_named_at_once() {
    wrong(
        "
workflow: {rules: []}
stagse: [a]
a: {script: x, rules: [], cache: {}, environment: prod, needs: [{project: p, job: x, ref: main}]}
b: {trigger: g/p}
c: {script: x, stage: nope, parallel: {matrix: []}, when: sometimes, retry: 3, timeout: soon}
d: {script: ['echo a: b', {echo a: b}], variables: {T: true, a-b: x}}
e: {extends: .gone, script: x, needs: [nobody]}
f: {extends: g, script: x}
g: {extends: f, script: !reference [.x, script]}
h: {image: {docker: {}}}
i: {script: x, timeout: 5 years}
",
        &[
            "g: script: `!reference [.x, script]` leads nowhere",
            "e: extends: `e` extends `.gone`, which is no job of this file",
            "f: extends: `g` extends `f`, which extends it again",
            "g: extends: `f` extends `g`, which extends it again",
            "workflow: rehearse does not play `workflow`",
            "stagse: is neither a keyword nor a job (a mapping with `script`); did you mean `stages`?",
            "a: rehearse does not play `rules`",
            "a: rehearse does not play `cache`",
            "a: rehearse does not play `environment`",
            "a: needs: rehearse does not play `project`",
            "a: needs: rehearse does not play `ref`",
            "b: rehearse does not play `trigger`",
            "c: stage: `nope` is not in `stages`: `.pre`, `build`, `test`, `deploy`, `.post`",
            "c: when: `sometimes` is none of `on_success`, `on_failure`, `always`, `manual`, `delayed`, `never`",
            "c: parallel: rehearse does not play `matrix`",
            "c: retry: must be 0, 1 or 2",
            "c: timeout: `soon` is no duration such as `1h 30m`",
            "d: script: must be lines of text, not `{…}`; quote a line that holds `: `",
            "d: variables: T: must be a text or a number: write \"true\"",
            "d: variables: a-b: is no name for a variable: letters, digits and `_` only",
            "g: script: must not be empty",
            "h: has no `script`",
            "h: image: rehearse does not play `docker`",
            "h: image: has no `name`",
            "i: timeout: `5 years` is longer than a month",
            "a: needs: `x` is no job of this pipeline",
            "e: needs: `nobody` is no job of this pipeline",
        ],
    );
}

#[test]
fn circles_of_needs_and_later_stages_are_refused() {
    wrong(
        "{a: {script: x, needs: [b]}, b: {script: x, needs: [a]}, c: {script: x}}",
        &["a: needs: leads back to itself", "b: needs: leads back to itself"],
    );
    wrong(
        "{a: {script: x, stage: build, needs: [b]}, b: {script: x, stage: test}}",
        &["a: needs: `b` is in a later stage"],
    );
    wrong("{.a: {script: x}}", &["jobs: the file has no job that is not hidden"]);
    wrong("- x", &[".gitlab-ci.yml: must be a mapping of keywords and jobs"]);
}

#[test]
fn references_in_circles_and_references_that_multiply_end() {
    wrong(
        "{.a: [!reference [.a], !reference [.a]], j: {script: x}}",
        &[".a: `!reference` nests deeper than 10"],
    );
    let twenty = |to: &str| vec![format!("!reference [{to}]"); 20].join(", ");
    let lists: Vec<_> =
        (0..8).map(|n| format!(".l{n}: [{}]", twenty(&format!(".l{}", n + 1)))).collect();
    wrong(
        &format!("{{{}, .l8: x, j: {{script: x}}}}", lists.join(", ")),
        &[".l0: the file has more than 20000 `!reference`s"],
    );
}
