//! The scripts of the sub-stages, as GitLab Runner makes them in kind (shells/bash.go, shells/abstract.go).
//!
//! One quoted text for `eval` in a subshell whose stdin is `/dev/null`, so that the script can come over
//! stdin, and whose exit status is that of the first command that failed. Where the runner's scripts call
//! `gitlab-runner` and a GitLab server, these copy from and to directories of the rehearsal.

mod artifacts;
mod quote;

use std::path::PathBuf;

use super::variables::{Entry, TASK_ROOT, lookup};

pub(super) use artifacts::{Archive, CARRIED, Download, Upload};
pub(super) use quote::quoted;

/// Where a task gets the sources from.
#[derive(Debug)]
pub(super) enum Repository {
    /// A directory of this machine, on which the task runs too.
    Here(PathBuf),
    /// A tar file in base64 that travels in the script, since scripts reach every task: in it a bare
    /// repository called [`PACKED_NAME`].
    Packed(String),
}

/// The directory in a [`Repository::Packed`].
pub(super) const PACKED_NAME: &str = "repository.git";

/// A command that prints what `base64` stands for. `printf` is the shell's own, so the kernel's limit for
/// arguments does not apply.
fn decoded(base64: &str) -> String {
    format!("printf %s '{base64}' | base64 --decode")
}

/// What all scripts of a job share.
pub(super) struct Scripts {
    /// Expanded, with [`TASK_ROOT`] in paths.
    pub(super) variables: Vec<Entry>,
    /// Answered by `config`.
    pub(super) hostname: String,
}

impl Scripts {
    fn project_dir(&self) -> &str {
        lookup(&self.variables, "CI_PROJECT_DIR").unwrap_or_default()
    }

    fn temp_dir(&self) -> &str {
        lookup(&self.variables, "RUNNER_TEMP_PROJECT_DIR").unwrap_or_default()
    }

    /// `prepare_script`: the only script without the job's variables, `clear_worktree` aside.
    pub(super) fn prepare(&self) -> String {
        let via = if self.hostname.is_empty() { "pointsman rehearse" } else { &self.hostname };
        // As in the runner, `$( )` in the host name is live; it comes from the driver, not from the job.
        finish(&format!("echo \"Running on $(hostname) via {via}...\"\n"))
    }

    /// `clear_worktree`: before the second try of `get_sources`.
    pub(super) fn clear_worktree(&self) -> String {
        finish(&format!("rm -r -f -- {}\n", quoted(self.project_dir())))
    }

    /// `get_sources`: a clone of the rehearsal's repository, at `sha`.
    pub(super) fn get_sources(&self, from: &Repository, sha: &str, git_ref: &str) -> String {
        let mut body = self.exports();
        let project = quoted(self.project_dir());
        match lookup(&self.variables, "GIT_STRATEGY") {
            Some(strategy @ ("none" | "empty")) => {
                if strategy == "empty" {
                    body += &format!("rm -r -f -- {project}\n");
                }
                body += &format!("mkdir -p -- {project}\n");
                body += &message("Skipping Git repository setup");
            }
            _ => {
                body += &message("Fetching changes...");
                body += &format!("rm -r -f -- {project}\n");
                body += &format!("mkdir -p -- {}\n", quoted(&parent(self.project_dir())));
                let (path, unpacked) = match from {
                    Repository::Here(path) => (quoted(&path.to_string_lossy()), None),
                    Repository::Packed(pack) => {
                        let directory = quoted(&format!("{}.sources", self.project_dir()));
                        body += &format!("rm -r -f -- {directory}\nmkdir -p -- {directory}\n");
                        body +=
                            &format!("{} | tar --extract --directory={directory}\n", decoded(pack));
                        (format!("{directory}/{PACKED_NAME}"), Some(directory))
                    }
                };
                body += &format!("git clone --quiet --no-checkout -- {path} {project}\n");
                if let Some(directory) = unpacked {
                    body += &format!("rm -r -f -- {directory}\n");
                }
                body += &format!("cd -- {project}\n");
                let checkout = format!("Checking out {} as {git_ref}...", short(sha));
                body += &message(&checkout);
                body += &format!(
                    "git -c advice.detachedHead=false checkout --quiet --force --detach {}\n",
                    quoted(sha)
                );
            }
        }
        finish(&body)
    }

    /// `build_script`, `after_script`: the author's lines, each shown before it runs.
    pub(super) fn user(&self, lines: &[String]) -> String {
        let mut body = self.exports();
        body += &format!("cd -- {}\n", quoted(self.project_dir()));
        for line in lines {
            let mut shown = line.trim().lines();
            let first = shown.next().unwrap_or_default();
            let more = if shown.next().is_some() { " # collapsed multi-line command" } else { "" };
            body += &message(&format!("$ {first}{more}"));
            body += line;
            body += "\n";
        }
        finish(&body)
    }

    /// `download_artifacts`
    pub(super) fn download_artifacts(&self, downloads: &[Download]) -> String {
        finish(&(self.exports() + &artifacts::download(downloads, self.project_dir())))
    }

    /// `upload_artifacts_on_success` and `…_on_failure`
    pub(super) fn upload_artifacts(&self, upload: &Upload) -> String {
        finish(&(self.exports() + &artifacts::upload(upload, self.project_dir())))
    }

    /// `cleanup_file_variables`
    pub(super) fn cleanup_file_variables(&self) -> String {
        finish(&(self.exports() + &format!("rm -r -f -- {}\n", quoted(self.temp_dir()))))
    }

    /// All variables, file variables written. The last entry of a name wins, as in the runner.
    fn exports(&self) -> String {
        let mut body = String::new();
        let temp_dir = self.temp_dir();
        if self.variables.iter().any(|entry| entry.file) {
            body += &format!("mkdir -p -- {}\n", quoted(temp_dir));
        }
        for entry in &self.variables {
            let value = quoted(&entry.value);
            if entry.file {
                let path = quoted(&format!("{temp_dir}/{}", entry.key));
                body += &format!("printf %s {value} > {path}\n");
                body += &format!("export {}={path}\n", entry.key);
            } else {
                body += &format!("export {}={value}\n", entry.key);
            }
        }
        body
    }
}

/// A line of the job log in the runner's green.
fn message(text: &str) -> String {
    format!("echo {}\n", quoted(&format!("\u{1b}[32;1m{text}\u{1b}[0;m")))
}

fn finish(body: &str) -> String {
    format!(
        "#!/usr/bin/env bash\n\n\
         trap 'exit 1' TERM\n\n\
         if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n\
         set +o noclobber\n\
         (eval {}) < /dev/null\n\
         exit 0\n",
        quote::verbatim(body)
    )
}

fn short(sha: &str) -> &str {
    sha.get(..8).unwrap_or(sha)
}

/// The directory above, with [`TASK_ROOT`] left alone.
fn parent(path: &str) -> String {
    match path.rfind('/') {
        Some(at) if at > 0 && !path[..at].is_empty() => path[..at].to_owned(),
        _ => TASK_ROOT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn scripts(extra: &[Entry]) -> (tempfile::TempDir, Scripts) {
        let root = tempfile::tempdir().unwrap();
        let mut variables = vec![
            Entry::new("CI_PROJECT_DIR", format!("{TASK_ROOT}/builds/g/p")),
            Entry::new("RUNNER_TEMP_PROJECT_DIR", format!("{TASK_ROOT}/builds/g/p.tmp")),
        ];
        variables.extend_from_slice(extra);
        std::fs::create_dir_all(root.path().join("builds/g/p")).unwrap();
        (root, Scripts { variables, hostname: "task-1".into() })
    }

    /// Feeds the script to bash over stdin, as the driver does.
    fn play(root: &tempfile::TempDir, script: &str) -> (Option<i32>, String) {
        let mut bash = Command::new("bash")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("POINTSMAN_TASK_ROOT", root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = bash.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn hostile_values_arrive_as_they_are() {
        let values = [
            "plain",
            "",
            "two\nlines\n",
            "it's \"quoted\" `id` $(id) ${HOME} $HOME \\n \\",
            "tab\tbell\u{7} esc\u{1b} del\u{7f} cr\r",
            "äöü 漢字 🚂 \u{e000}",
            "' ; exit 3 ; '",
            "$'x' !! * ? [a] {a,b} ~",
            &"0123456789abcdef".repeat(100 * 64),
        ];
        let entries: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(n, value)| Entry::new(format!("V{n}"), *value))
            .collect();
        let (root, scripts) = scripts(&entries);
        let lines: Vec<_> =
            (0..values.len()).map(|n| format!("printf '%s\\0' \"$V{n}\" >> out")).collect();
        let (status, _) = play(&root, &scripts.user(&lines));
        assert_eq!(status, Some(0));
        let out = std::fs::read_to_string(root.path().join("builds/g/p/out")).unwrap();
        let read: Vec<_> = out.split_terminator('\0').collect();
        assert_eq!(read, values);
    }

    #[test]
    fn the_first_failing_line_gives_the_status_and_ends_the_script() {
        let (root, scripts) = scripts(&[]);
        let lines = ["echo one", "(exit 42)", "echo never"].map(str::to_owned);
        let (status, out) = play(&root, &scripts.user(&lines));
        assert_eq!(status, Some(42));
        assert_eq!(
            out,
            "\u{1b}[32;1m$ echo one\u{1b}[0;m\none\n\u{1b}[32;1m$ (exit 42)\u{1b}[0;m\n"
        );
        let (status, _) = play(&root, &scripts.user(&["false | true".to_owned()]));
        assert_eq!(status, Some(1), "pipefail");
    }

    #[test]
    fn many_lines_are_shown_by_their_first_and_stdin_is_empty() {
        let (root, scripts) = scripts(&[]);
        let (status, out) =
            play(&root, &scripts.user(&["if read -r x; then\n echo \"got $x\"\nfi".to_owned()]));
        assert_eq!(status, Some(0));
        assert_eq!(
            out,
            "\u{1b}[32;1m$ if read -r x; then # collapsed multi-line command\u{1b}[0;m\n"
        );
    }

    #[test]
    fn file_variables_are_paths_until_they_are_cleaned_up() {
        let file = Entry { file: true, ..Entry::new("CERT", "line 1\nline 2") };
        let (root, scripts) = scripts(&[file]);
        let (status, out) =
            play(&root, &scripts.user(&["echo \"$CERT\"".into(), "cat \"$CERT\"".into()]));
        assert_eq!(status, Some(0));
        let path = root.path().join("builds/g/p.tmp/CERT");
        assert!(out.contains(&format!("{}\n", path.display())), "{out}");
        assert!(out.ends_with("line 1\nline 2"), "{out}");
        assert_eq!(play(&root, &scripts.cleanup_file_variables()).0, Some(0));
        assert!(!path.exists());
    }

    #[test]
    fn prepare_says_where_it_runs() {
        let (root, scripts) = scripts(&[]);
        let (status, out) = play(&root, &scripts.prepare());
        assert_eq!(status, Some(0));
        assert!(out.starts_with("Running on ") && out.ends_with(" via task-1...\n"), "{out}");
    }

    #[test]
    fn without_a_task_root_paths_start_at_the_root() {
        let (_root, scripts) = scripts(&[]);
        assert_eq!(quoted(scripts.project_dir()), "\"${POINTSMAN_TASK_ROOT:-}\"$'/builds/g/p'");
        assert_eq!(parent(scripts.project_dir()), format!("{TASK_ROOT}/builds/g"));
    }

    #[test]
    fn strategy_none_keeps_the_directory() {
        let (root, scripts) = scripts(&[Entry::new("GIT_STRATEGY", "none")]);
        std::fs::write(root.path().join("builds/g/p/kept"), "").unwrap();
        assert_eq!(
            play(
                &root,
                &scripts.get_sources(&Repository::Here("/nowhere".into()), "0123456789", "main")
            )
            .0,
            Some(0)
        );
        assert!(root.path().join("builds/g/p/kept").exists());
    }
}
