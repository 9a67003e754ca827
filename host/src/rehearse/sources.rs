//! What the jobs check out: a bare repository of the rehearsal's own, holding the work tree as it is.
//!
//! The work tree of a repository is taken with its uncommitted changes (as one more commit), since nobody
//! wants to commit before they try. Files that `.gitignore` names stay out. A directory that is no work
//! tree of its own, such as an example within another repository, becomes a repository of one commit. The
//! caller's repository is only read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::script::{PACKED_NAME, Repository};

/// Sources that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// `git` could not be started.
    #[error("cannot start `git`, which a rehearsal needs for the sources of its jobs")]
    Start(#[source] std::io::Error),
    /// `git` failed.
    #[error("`git {command}` failed in {}: {message}", .directory.display())]
    Git {
        /// Its first words.
        command: String,
        /// Where.
        directory: PathBuf,
        /// What it said.
        message: String,
    },
    /// They could not be packed for tasks elsewhere.
    #[error("cannot pack the sources for tasks that run elsewhere")]
    Pack {
        /// The reason.
        source: std::io::Error,
    },
    /// They are too large for tasks elsewhere.
    #[error(
        "the sources take {mib} MiB without their history, and a rehearsal sends at most 64 MiB to tasks that run elsewhere"
    )]
    TooLarge {
        /// MiB.
        mib: usize,
    },
}

/// What a script can carry: the shell holds it several times in memory.
const MAX_PACKED: usize = 64 << 20;

/// A commit and where to clone it from.
#[derive(Debug)]
pub(super) struct Sources {
    /// Of the rehearsal's own.
    pub(super) repository: Repository,
    pub(super) sha: String,
    /// A branch.
    pub(super) git_ref: String,
    /// The commit's subject.
    pub(super) title: String,
    /// The project's name: that of the directory.
    pub(super) name: String,
    /// What somebody should know about where they come from.
    pub(super) note: String,
}

/// Takes the sources from `directory` into `bare`, which must not be there yet; `packed` makes them ready to
/// travel.
pub(super) fn take(
    directory: &Path,
    bare: &Path,
    packed: bool,
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Result<Sources, SourcesError> {
    let git = Git { directory, environment };
    let own = git
        .run(&["rev-parse", "--show-toplevel"])
        .ok()
        .is_some_and(|top| same(Path::new(&top), directory))
        && git.run(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).is_ok();
    let mut git_ref = "main".to_owned();
    if own {
        let branch = git.run(&["rev-parse", "--abbrev-ref", "HEAD"])?;
        if branch != "HEAD" {
            git_ref = branch;
        }
        git.run(&["clone", "--bare", "--quiet", "--", ".", &bare.to_string_lossy()])?;
    } else {
        git.run(&["init", "--bare", "--quiet", "--", &bare.to_string_lossy()])?;
    }

    let git_dir = format!("--git-dir={}", bare.display());
    let work = |arguments: &[&str]| {
        let mut all = vec![git_dir.as_str(), "--work-tree=.", "-c", "core.bare=false"];
        all.extend_from_slice(arguments);
        git.run(&all)
    };
    if own {
        work(&["read-tree", "HEAD"])?;
    }
    work(&["add", "--all", "--", "."])?;
    let tree = work(&["write-tree"])?;
    let note;
    let sha = if own && work(&["rev-parse", "HEAD^{tree}"])? == tree {
        note = "the last commit".to_owned();
        work(&["rev-parse", "HEAD"])?
    } else {
        let mut commit = vec![
            "-c",
            "user.name=pointsman rehearse",
            "-c",
            "user.email=rehearsal@pointsman.invalid",
            "commit-tree",
            "-m",
            "The work tree as it is rehearsed",
        ];
        if own {
            note = "the work tree with its uncommitted changes".to_owned();
            commit.extend(["-p", "HEAD"]);
        } else {
            note = "the directory's files, as a repository of one commit".to_owned();
        }
        commit.push(&tree);
        work(&commit)?
    };
    // A clone brings along only what a ref leads to.
    work(&["update-ref", "refs/heads/pointsman-rehearsal", &sha])?;
    work(&["symbolic-ref", "HEAD", "refs/heads/pointsman-rehearsal"])?;
    let repository = match packed {
        false => Repository::Here(bare.to_owned()),
        true => pack(&git, bare)?,
    };
    Ok(Sources {
        repository,
        title: work(&["log", "-1", "--format=%s", &sha])?,
        sha,
        git_ref,
        name: slug(&directory.file_name().unwrap_or_default().to_string_lossy()),
        note,
    })
}

/// The commit without its history, as a tar file in base64.
fn pack(git: &Git<'_>, bare: &Path) -> Result<Repository, SourcesError> {
    let io = |source| SourcesError::Pack { source };
    let directory = bare.with_extension("pack");
    std::fs::create_dir(&directory).map_err(io)?;
    let shallow = directory.join(PACKED_NAME);
    // A depth is taken only from a URL.
    let url = format!("file://{}", bare.display());
    git.run(&["clone", "--bare", "--quiet", "--depth=1", "--", &url, &shallow.to_string_lossy()])?;
    let output = Command::new("tar")
        .args(["--create", "--file=-", PACKED_NAME])
        .current_dir(&directory)
        .stdin(Stdio::null())
        .output()
        .map_err(io)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io(std::io::Error::other(message)));
    }
    if output.stdout.len() > MAX_PACKED {
        return Err(SourcesError::TooLarge { mib: output.stdout.len() >> 20 });
    }
    Ok(Repository::Packed(BASE64_STANDARD.encode(output.stdout)))
}

struct Git<'a> {
    directory: &'a Path,
    environment: &'a [(std::ffi::OsString, std::ffi::OsString)],
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, SourcesError> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.directory)
            .env_clear()
            // `GIT_DIR` and the like of a hook that calls us would lead to another repository.
            .envs(
                self.environment
                    .iter()
                    .filter(|(key, _)| !key.as_encoded_bytes().starts_with(b"GIT_"))
                    .map(|(key, value)| (key.as_os_str(), value.as_os_str())),
            )
            .env("LC_ALL", OsStr::new("C"))
            .stdin(Stdio::null())
            .output()
            .map_err(SourcesError::Start)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        Err(SourcesError::Git {
            command: arguments
                .iter()
                .find(|word| !word.starts_with('-') && !word.contains('='))
                .map(|word| (*word).to_owned())
                .unwrap_or_default(),
            directory: self.directory.to_owned(),
            message: String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        })
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// As a GitLab path: lower case, and nothing that needs quoting.
pub(super) fn slug(text: &str) -> String {
    let slug: String = text
        .to_lowercase()
        .chars()
        .map(|one| if one.is_ascii_alphanumeric() { one } else { '-' })
        .collect();
    let slug = slug.trim_matches('-').chars().take(63).collect::<String>();
    if slug.is_empty() { "project".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(directory: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=trunk"])
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        std::env::vars_os().collect()
    }

    fn bare(sources: &Sources) -> &Path {
        match &sources.repository {
            Repository::Here(path) => path,
            Repository::Packed(_) => panic!("packed"),
        }
    }

    fn files(sources: &Sources) -> Vec<String> {
        git(bare(sources), &["ls-tree", "-r", "--name-only", &sources.sha])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_directory_within_another_repository_becomes_one_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        git(root.path(), &["init", "--quiet"]);
        let example = root.path().join("My Example");
        std::fs::create_dir_all(example.join("scripts")).unwrap();
        std::fs::write(example.join("scripts/build.sh"), "x").unwrap();
        std::fs::write(root.path().join("outside"), "x").unwrap();
        let sources = take(&example, &root.path().join("bare.git"), false, &environment()).unwrap();
        assert_eq!(files(&sources), ["scripts/build.sh"]);
        assert_eq!((sources.name.as_str(), sources.git_ref.as_str()), ("my-example", "main"));
        assert_eq!(sources.sha.len(), 40);
    }

    #[test]
    fn a_work_tree_is_taken_with_its_changes_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        git(&tree, &["init", "--quiet"]);
        std::fs::write(tree.join(".gitignore"), "ignored\n").unwrap();
        std::fs::write(tree.join("one"), "x").unwrap();
        git(&tree, &["add", "."]);
        git(&tree, &["commit", "--quiet", "-m", "First"]);
        let head = git(&tree, &["rev-parse", "HEAD"]);
        let clean = take(&tree, &root.path().join("clean.git"), false, &environment()).unwrap();
        assert_eq!(
            (&clean.sha, clean.title.as_str(), clean.git_ref.as_str()),
            (&head, "First", "trunk")
        );

        std::fs::write(tree.join("two"), "x").unwrap();
        std::fs::write(tree.join("ignored"), "x").unwrap();
        std::fs::remove_file(tree.join("one")).unwrap();
        let before = git(&tree, &["status", "--porcelain"]);
        let changed = take(&tree, &root.path().join("changed.git"), false, &environment()).unwrap();
        assert_eq!(files(&changed), [".gitignore", "two"]);
        assert_ne!(changed.sha, head);
        assert_eq!(git(&tree, &["status", "--porcelain"]), before);
    }

    #[test]
    fn slugs_are_paths() {
        assert_eq!(slug("My App_2"), "my-app-2");
        assert_eq!(slug("…"), "project");
    }
}
