//! The agent as task images get it: one static executable that needs nothing of the image but its own file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::rehearsal::root;
use crate::support::{House, Job};

/// Built by the script that operators use, in the profile that builds sooner.
pub(crate) fn static_agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        let built = Command::new(root().join("scripts/build-agent"))
            .args(["--profile", "dev"])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        root().join(String::from_utf8(built.stdout).unwrap().trim())
    })
}

/// The types of an ELF file's program headers, and whether its dynamic section names a library.
fn program_headers(elf: &[u8]) -> (Vec<u64>, bool) {
    let number = |at: usize, length: usize| {
        elf[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let place = |at: usize| usize::try_from(number(at, 8)).unwrap();
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "64 bits, little-endian");
    let (first, size, count) = (place(0x20), number(0x36, 2), number(0x38, 2));
    let headers = (0..count).map(|n| first + usize::try_from(n * size).unwrap());
    let (mut kinds, mut needs_library) = (Vec::new(), false);
    for header in headers {
        kinds.push(number(header, 4));
        if kinds.last() == Some(&PT_DYNAMIC) {
            let (start, length) = (place(header + 8), place(header + 0x20));
            let mut entries = (start..start + length).step_by(16);
            needs_library |= entries.any(|entry| number(entry, 8) == DT_NEEDED);
        }
    }
    (kinds, needs_library)
}

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;

#[test]
fn it_needs_no_loader_and_no_library() {
    let (kinds, needs_library) = program_headers(&fs::read(static_agent()).unwrap());
    assert!(kinds.contains(&PT_LOAD), "{kinds:?}");
    assert!(!kinds.contains(&PT_INTERP) && !needs_library, "{kinds:?}");
    // The same reading finds both in an executable that is not static.
    let (kinds, needs_library) = program_headers(&fs::read("/bin/sh").unwrap());
    assert!(kinds.contains(&PT_INTERP) && needs_library, "{kinds:?}");
    let version = Command::new(static_agent()).arg("--version").env_clear().output().unwrap();
    let expected = format!("pointsman-agent {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
}

#[test]
fn it_serves_a_job() {
    let house = House::with_agent(static_agent());
    let mut attempt = house.prepared("agent");
    let script = b"readlink /proc/$PPID/exe; echo error >&2; exit 3\n";
    let output = attempt.run(script).fails_the_build();
    assert_eq!(output.stdout_text().trim(), static_agent().display().to_string());
    assert_eq!(output.stderr_text(), "error\n");
    assert_eq!(attempt.exit_code(), Some(3));
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

/// All that the image has beside the agent. It stands for the job's tools: a static program, since the image has no
/// library either, that tells what it sees and ends with 7.
const SHELL: &str = r#"
use std::io::Read;
fn main() {
    let mut script = String::new();
    std::io::stdin().read_to_string(&mut script).unwrap();
    println!("script {}", script.trim());
    let has_secret = |text: &str| text.contains("SSH_PUBLIC_KEY") || text.contains("POINTSMAN_HOST_KEY");
    println!("secrets {}", std::env::vars().any(|(key, _)| has_secret(&key)));
    println!("parent {}", std::os::unix::process::parent_id());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:")) {
        println!("{}", line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    }
    for path in ["/new", "/tmp/new"] {
        println!("write {:?}", std::fs::write(path, "x").unwrap_err().raw_os_error());
    }
    let mut names: Vec<_> = std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    println!("root {names:?}");
    eprintln!("to stderr");
    std::process::exit(7);
}
"#;

/// Starts the agent as a container's first process would be: PID 1, a read-only root, a user without a name.
const CONTAINER: &str = r#"#!/bin/sh
exec unshare --mount --pid --fork --kill-child sh -ec '
    mount --bind "$0" "$0"
    mount -t proc proc "$0/proc"
    mount -o remount,bind,ro "$0"
    cd "$0"
    exec chroot --userspec=+12345:+54321 "$0" /pointsman-agent
' 'IMAGE'
"#;

/// Why this machine makes no such container, if so.
fn obstacle() -> Option<String> {
    let probe = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "sh", "-ec"])
        .arg("mount --bind /mnt /mnt && mount -o remount,bind,ro /mnt && chroot / true")
        .output();
    match probe {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

#[test]
fn it_serves_a_job_in_an_image_that_has_nothing_else() {
    if let Some(obstacle) = obstacle() {
        // Past the test harness, which would keep it to itself.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: the agent in an empty image: no mount namespace here ({obstacle}); run the tests as root"
        );
        return;
    }
    let directory = TempDir::with_prefix_in("image-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = directory.path().join("root");
    for name in ["bin", "proc", "tmp"] {
        fs::create_dir_all(image.join(name)).unwrap();
    }
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(static_agent(), image.join("pointsman-agent")).unwrap();
    let source = directory.path().join("shell.rs");
    fs::write(&source, SHELL).unwrap();
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-o"])
        .arg(image.join("bin/sh"))
        .arg(&source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let container = directory.path().join("container");
    fs::write(&container, CONTAINER.replace("IMAGE", image.to_str().unwrap())).unwrap();
    fs::set_permissions(&container, fs::Permissions::from_mode(0o755)).unwrap();

    let house = House::with_agent(&container);
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let output = attempt.run(b"the script\n").fails_the_build();
    assert_eq!(attempt.exit_code(), Some(7), "{output}");
    const EROFS: i32 = 30;
    let expected = format!(
        "script the script\nsecrets false\nparent 1\nUid: 12345\nGid: 54321\n\
         write Some({EROFS})\nwrite Some({EROFS})\nroot [\"bin\", \"pointsman-agent\", \"proc\", \"tmp\"]\n"
    );
    assert_eq!(output.stdout_text(), expected, "{output}");
    assert_eq!(output.stderr_text(), "to stderr\n");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}
