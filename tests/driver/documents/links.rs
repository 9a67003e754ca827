//! Every link to a file or a heading of this repository leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Document;
use crate::rehearsal::root;

/// The targets of `[text](target)`, images included.
fn targets(document: &Document) -> Vec<String> {
    let mut targets = Vec::new();
    for line in document.prose() {
        for rest in line.split("](").skip(1) {
            let target = rest.split_once(')').map(|(target, _)| target);
            targets.push(target.unwrap_or_else(|| panic!("{}: {line}", document.path)).to_owned());
        }
    }
    targets
}

/// What GitHub and GitLab make of a heading.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|each| each.is_alphanumeric() || "-_ ".contains(*each))
        .map(|each| if each == ' ' { '-' } else { each })
        .collect()
}

fn anchors(document: &Document) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut inside = false;
    for line in document.text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        }
        let text = line.trim_start_matches('#');
        if !inside && line.starts_with('#') && text.starts_with(' ') {
            let slug = slug(text);
            let again = (1..).map(|number| format!("{slug}-{number}"));
            let free = std::iter::once(slug.clone()).chain(again);
            let name = free.into_iter().find(|name| !anchors.contains(name)).unwrap();
            anchors.insert(name);
        }
    }
    anchors
}

/// What is wrong with a link in `document`.
fn mistake(document: &Document, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("mailto:") {
        return None;
    }
    if target.contains("://") {
        return Some("neither https nor of this repository".to_owned());
    }
    let (path, anchor) =
        target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let directory = Path::new(&document.path).parent().unwrap();
    let file = if path.is_empty() {
        root().join(&document.path)
    } else {
        root().join(directory).join(path)
    };
    let Ok(file) = file.canonicalize() else {
        return Some("no such file".to_owned());
    };
    let Ok(path) = file.strip_prefix(root().canonicalize().unwrap()) else {
        return Some("outside this repository".to_owned());
    };
    let anchor = anchor?;
    let anchors = anchors(&Document::read(path.to_str().unwrap()));
    (!anchors.contains(anchor)).then(|| format!("no such heading; there is {anchors:?}"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in Document::all() {
        for target in targets(&document) {
            links += 1;
            let mistake = mistake(&document, &target);
            assert!(mistake.is_none(), "{}: ({target}): {}", document.path, mistake.unwrap());
        }
    }
    assert!(links >= 40, "{links} links: is this test right?");
}

#[test]
fn every_page_is_found_from_the_readme() {
    let readme = targets(&Document::read("README.md"));
    for document in Document::all() {
        let is_page = document.path.starts_with("docs/")
            || (document.path.starts_with("examples/") && document.path.ends_with("README.md"));
        assert!(
            !is_page
                || readme.iter().any(|target| {
                    target.split('#').next().unwrap().trim_end_matches('/')
                        == document.path.trim_end_matches("/README.md")
                        || target.split('#').next() == Some(&document.path)
                }),
            "README.md has no link to {}",
            document.path
        );
    }
}

#[test]
fn a_page_has_one_title_and_no_line_that_is_an_editors() {
    for document in Document::all() {
        let titles = document.prose().iter().filter(|line| line.starts_with("# ")).count();
        assert_eq!(titles, 1, "{}", document.path);
        assert!(
            document.text.starts_with("# ") && document.text.ends_with('\n'),
            "{}",
            document.path
        );
        for mark in ["<<<<<<<", ">>>>>>>"] {
            assert!(!document.text.contains(mark), "{}", document.path);
        }
    }
}

/// Pages say which test holds what they say.
#[test]
fn the_tests_that_pages_name_are_there() {
    let mut all = String::new();
    for directory in ["host", "agent", "simulator", "tests"] {
        sources(&root().join(directory), &mut all);
    }
    let mut names = 0;
    for document in Document::all() {
        if !document.path.starts_with("docs/") {
            continue;
        }
        for code in document.text.split('`').skip(1).step_by(2) {
            let is_of_name = |each: char| each.is_ascii_lowercase() || each == '_' || each == ':';
            let Some((_, function)) = code.rsplit_once("::") else { continue };
            // Those of the driver's own are targets of its trace log.
            if code.chars().all(is_of_name) && !code.starts_with("pointsman::") {
                names += 1;
                assert!(all.contains(&format!("fn {function}(")), "{}: `{code}`", document.path);
            }
        }
    }
    assert!(names >= 10, "{names} names: is this test right?");
}

fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The test itself.
#[test]
fn broken_links_are_found() {
    let document = Document {
        path: "docs/ssh.md".to_owned(),
        text: "# One\n[a](clusters.md#iam-permissions) [b](nowhere.md) [c](#two) [d](#one)\n\
               [e](../README.md#no-such) [f](http://example.com) `[g](code.md)`\n[h](../../x.md)\n"
            .to_owned(),
    };
    let found: Vec<String> = targets(&document)
        .into_iter()
        // `#one` is of the file on the disk here.
        .filter(|target| target != "#one" && mistake(&document, target).is_some())
        .collect();
    assert_eq!(
        found,
        ["nowhere.md", "#two", "../README.md#no-such", "http://example.com", "../../x.md"]
    );
    assert_eq!(slug(" When a task is lost: `run`, and why?"), "when-a-task-is-lost-run-and-why");
}
