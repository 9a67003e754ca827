//! `upload_artifacts_*` and `download_artifacts`: a tar file for each job in the rehearsal's store.
//!
//! Paths are GitLab's: globs (with `**`) relative to the project directory, a directory means everything in
//! it, what lies outside the project is refused.

use super::quoted;
use crate::rehearse::variables::TASK_ROOT;

/// What a job fetches.
pub(in crate::rehearse) struct Download {
    /// The job that made it.
    pub(in crate::rehearse) id: u64,
    /// The job that made it.
    pub(in crate::rehearse) job: String,
    /// In the store; or its content in base64, for a task elsewhere.
    pub(in crate::rehearse) archive: Archive,
}

/// A tar file on its way to a task.
pub(in crate::rehearse) enum Archive {
    /// A path on this machine, on which the task runs too.
    Here(String),
    /// Its content in base64.
    Packed(String),
}

/// Before each line of an archive that comes back over the job's log.
pub(in crate::rehearse) const CARRIED: &str = "pointsman-artifacts:";

/// What a job leaves.
pub(in crate::rehearse) struct Upload {
    /// Expanded globs, as written.
    pub(in crate::rehearse) paths: Vec<String>,
    /// Expanded globs, as written.
    pub(in crate::rehearse) exclude: Vec<String>,
    /// In the store, written whole or not at all; `None` sends the archive over stdout, line by line behind
    /// [`CARRIED`].
    pub(in crate::rehearse) file: Option<String>,
}

pub(super) fn download(downloads: &[Download], project_dir: &str) -> String {
    let mut body = format!("cd -- {}\n", quoted(project_dir));
    for Download { id, job, archive } in downloads {
        let line = format!("Downloading artifacts for {job} ({id})...");
        body += &super::message(&line);
        body += &match archive {
            Archive::Here(file) => format!("tar --extract --file={}\n", quoted(file)),
            Archive::Packed(base64) => format!("{} | tar --extract\n", super::decoded(base64)),
        };
    }
    body
}

/// Bash 4 and GNU tar, as task images for GitLab have them.
pub(super) fn upload(upload: &Upload, project_dir: &str) -> String {
    let mut body = format!("cd -- {}\n", quoted(project_dir));
    body += &super::message("Uploading artifacts...");
    // No word splitting: an unquoted glob below is a glob and nothing else.
    body += "shopt -s globstar nullglob dotglob\nIFS=\ndeclare -A kept=() left_out=()\n";
    let inside = |path: &String, body: &mut String| match relative(path, project_dir) {
        Some(inside) => braces(&inside),
        None => {
            let warning = format!(
                "WARNING: processPath: artifact path is not a subpath of project directory: {path}"
            );
            body.push_str(&format!("echo {}\n", quoted(&warning)));
            Vec::new()
        }
    };
    for path in &upload.exclude {
        for glob in inside(path, &mut body) {
            body += &format!(
                "glob={}\nfor one in $glob; do left_out[\"${{one%/}}\"]=1; done\n",
                quoted(&glob)
            );
        }
    }
    for path in &upload.paths {
        let globs = inside(path, &mut body);
        if globs.is_empty() {
            continue;
        }
        body += "count=0\n";
        for glob in globs {
            body += &format!(
                "glob={}\nfor one in $glob; do\n  if [ -e \"$one\" ] || [ -L \"$one\" ]; then\n    \
                 while read -r -d '' found; do\n      found=\"${{found#./}}\"\n      \
                 if [ -z \"${{left_out[\"$found\"]:-}}\" ]; then kept[\"$found\"]=1; count=$((count + 1)); fi\n    \
                 done < <(find \"./${{one#./}}\" -print0)\n  fi\ndone\n",
                quoted(&glob)
            );
        }
        let none = quoted(&format!(
            "WARNING: {path}: no matching files. Ensure that the artifact path is relative to the working directory ({project_dir})"
        ));
        body += &format!(
            "if [ $count -eq 0 ]; then echo {none}; else echo {}\": found $count matching artifact files and directories\"; fi\n",
            quoted(path)
        );
    }
    let tar = "printf '%s\\0' \"${!kept[@]}\" | sort -z | \
               tar --create --no-recursion --null --verbatim-files-from --files-from=-";
    let store = match &upload.file {
        Some(file) => {
            let (file, part) = (quoted(file), quoted(&format!("{file}.part")));
            format!("{tar} --file={part}\n  mv -f -- {part} {file}")
        }
        None => format!("{tar} --file=- | base64 | sed 's/^/{CARRIED}/'"),
    };
    body += &format!(
        "if [ ${{#kept[@]}} -eq 0 ]; then\n  echo 'ERROR: No files to upload'\nelse\n  {store}\nfi\n"
    );
    body
}

/// The glob relative to the project, `.` for all of it; `None` when it leads out.
fn relative(path: &str, project_dir: &str) -> Option<String> {
    let path = match path.strip_prefix(project_dir) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ if path.starts_with('/') || path.starts_with(TASK_ROOT) => return None,
        _ => path,
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// `a/{b,c}` as `a/b` and `a/c`: GitLab's globs know braces, bash's in a variable do not.
fn braces(glob: &str) -> Vec<String> {
    let Some(open) = glob.find('{') else { return vec![glob.to_owned()] };
    let mut depth = 0_usize;
    let mut cuts = vec![open];
    for (at, one) in glob.char_indices().skip_while(|(at, _)| *at < open) {
        match one {
            '{' => depth += 1,
            ',' if depth == 1 => cuts.push(at),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    cuts.push(at);
                    let alternatives = cuts.windows(2).map(|pair| &glob[pair[0] + 1..pair[1]]);
                    return alternatives
                        .flat_map(|inner| {
                            braces(&format!("{}{inner}{}", &glob[..open], &glob[at + 1..]))
                        })
                        .collect();
                }
            }
            _ => {}
        }
    }
    vec![glob.to_owned()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn paths_are_relative_to_the_project() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(relative(path, "/b/g/p").as_deref(), expected, "{path}");
        };
        check("./artifacts", Some("artifacts"));
        check("artifacts//x/./y/", Some("artifacts/x/y"));
        check("/b/g/p/out", Some("out"));
        check("/b/g/p", Some("."));
        check(".", Some("."));
        check("a/../b", Some("b"));
        check("/b/g/project", None);
        check("../x", None);
        check("a/../../x", None);
        check("/etc/passwd", None);
    }

    #[test]
    fn braces_are_unfolded() {
        let check = |glob: &str, expected: &[&str]| assert_eq!(braces(glob), expected, "{glob}");
        check("a/*.txt", &["a/*.txt"]);
        check("a/{b,c{d,e}}/{f,}", &["a/b/f", "a/b/", "a/cd/f", "a/cd/", "a/ce/f", "a/ce/"]);
        check("a{b", &["a{b"]);
        check("a}b", &["a}b"]);
    }

    fn run(project: &Path, body: &str) -> (Option<i32>, String) {
        let output = Command::new("bash")
            .args([
                "-c",
                &format!("set -e -o pipefail; eval {}", super::super::quote::verbatim(body)),
            ])
            .current_dir(project)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Uploads `paths` of a small project and downloads them into an empty one: what arrives.
    fn carried(paths: &[&str], exclude: &[&str]) -> (BTreeSet<String>, String) {
        let root = tempfile::tempdir().unwrap();
        let project = root.path().join("from");
        for file in [
            "a/one.txt",
            "a/deep/two.txt",
            "a/deep/.hidden",
            "b/three.log",
            "it's two\nlines.txt",
            "-dash",
        ] {
            let file = project.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        std::os::unix::fs::symlink("one.txt", project.join("a/link")).unwrap();
        let file = root.path().join("7.tar").display().to_string();
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let task =
            Upload { paths: owned(paths), exclude: owned(exclude), file: Some(file.clone()) };
        let (status, log) = run(&project, &upload(&task, &project.display().to_string()));
        assert_eq!(status, Some(0), "{log}");
        let mut arrived = BTreeSet::new();
        if Path::new(&file).exists() {
            let to = root.path().join("to");
            std::fs::create_dir(&to).unwrap();
            let one = Download { id: 7, job: "build".into(), archive: Archive::Here(file) };
            let (status, log) = run(&to, &download(&[one], &to.display().to_string()));
            assert_eq!(status, Some(0), "{log}");
            let found = Command::new("find")
                .args([".", "!", "-type", "d", "-print0"])
                .current_dir(&to)
                .output()
                .unwrap();
            let found = String::from_utf8(found.stdout).unwrap();
            arrived.extend(
                found.split_terminator('\0').map(|path| path.trim_start_matches("./").to_owned()),
            );
        }
        (arrived, log.replace(&*root.path().to_string_lossy(), ""))
    }

    #[test]
    fn globs_are_gitlabs() {
        let check = |paths: &[&str], exclude: &[&str], expected: &[&str]| {
            let expected: BTreeSet<_> = expected.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(carried(paths, exclude).0, expected, "{paths:?} {exclude:?}");
        };
        check(&["./a"], &[], &["a/one.txt", "a/link", "a/deep/two.txt", "a/deep/.hidden"]);
        check(&["a/*.txt"], &[], &["a/one.txt"]);
        check(&["**/*.txt"], &[], &["a/one.txt", "a/deep/two.txt", "it's two\nlines.txt"]);
        check(&["a/{one,none}.txt", "b/"], &[], &["a/one.txt", "b/three.log"]);
        check(&["a"], &["a/deep/**/*", "a/link"], &["a/one.txt"]);
        check(&["-dash", "$(id)", "it's*"], &[], &["-dash", "it's two\nlines.txt"]);
        check(&["../x", "/etc/passwd"], &[], &[]);
    }

    #[test]
    fn the_log_says_what_was_found_and_what_was_not() {
        let (_, log) = carried(&["./a", "./artifacts", "/etc/passwd"], &[]);
        let lines: Vec<_> = log.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "./a: found 6 matching artifact files and directories",
                "WARNING: ./artifacts: no matching files. Ensure that the artifact path is relative to the working directory (/from)",
                "WARNING: processPath: artifact path is not a subpath of project directory: /etc/passwd",
            ]
        );
        let (_, log) = carried(&["nothing"], &[]);
        assert!(log.ends_with("ERROR: No files to upload\n"), "{log}");
    }
}
