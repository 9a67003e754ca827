//! The agent as the first process of a container: it reaps, it can be told to end, and it knows what the whole
//! control group has used. With real namespaces and a real control group.

use std::fs::{self, File};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pointsman::ssh::{Exit, Target, Usage, connect_until_ready, run_script};

use crate::servers::{Kind, Place, Server, TIMES, block_on, is_root, skipped};

async fn run(target: &Target, place: &Place, text: &str) -> (Exit, Option<Usage>, String) {
    let path = place.path("script");
    fs::write(&path, text).unwrap();
    let script = File::open(path).unwrap();
    let session = connect_until_ready(target, &TIMES, |_| {}).await.unwrap();
    let mut stdout = Vec::new();
    let (exit, usage) = run_script(
        session,
        target,
        &TIMES,
        "exec sh",
        &script,
        &mut stdout,
        tokio::io::sink(),
        pending(),
        |_| {},
        async || true,
    )
    .await
    .unwrap();
    (exit, usage, String::from_utf8(stdout).unwrap())
}

/// An agent that is process 1, with `/proc` of its own; `prepare` is run by a shell before it, in its mounts.
fn first(place: Place, prepare: &str) -> Server {
    let plain = place.command();
    let mut command = Command::new("unshare");
    // Who is not root has a user namespace for it.
    let options: &[&str] = if is_root() { &[] } else { &["-r"] };
    command
        .args(options)
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"])
        .arg(format!("{prepare}exec \"$0\""))
        .arg(plain.get_program());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap());
    }
    place.start_as(command)
}

#[test]
fn as_process_1_the_agent_reaps_orphans_and_ends_when_it_is_told() {
    block_on(async {
        let server = first(Place::new(Kind::Agent), "");
        let target = server.place.target();
        let orphans = "echo $PPID; for i in 1 2 3; do (setsid sh -c 'sleep 0.1' &); done; sleep 1; ps -A -o stat=\n";
        let (exit, _, stdout) = run(&target, &server.place, orphans).await;
        assert_eq!(exit, Exit::Status(0));
        let mut lines = stdout.lines();
        assert_eq!(lines.next(), Some("1"));
        assert!(lines.all(|state| !state.starts_with('Z')), "{stdout}");
        // From inside, signals that process 1 does not handle would be dropped by the kernel.
        let session = connect_until_ready(&target, &TIMES, |_| {}).await.unwrap();
        let script = server.place.path("end");
        fs::write(&script, "kill -TERM 1; sleep 60\n").unwrap();
        let began = Instant::now();
        let ran = run_script(
            session,
            &target,
            &TIMES,
            "exec sh",
            &File::open(script).unwrap(),
            tokio::io::sink(),
            tokio::io::sink(),
            pending(),
            |_| {},
            async || false,
        )
        .await;
        assert!(began.elapsed() < Duration::from_secs(30), "{ran:?}");
        let log = fs::read_to_string(server.place.path("log")).unwrap();
        assert!(log.contains("ending: SIGTERM") && log.contains("ended"), "{log}");
    });
}

/// A control group of the test's own, in each hierarchy that the agent reads.
struct Group {
    /// Where the hierarchy is mounted below `/sys/fs/cgroup` (empty in version 2), and the group's directory.
    directories: Vec<(&'static str, PathBuf)>,
}

impl Group {
    /// # Errors
    ///
    /// Says why there can be none here.
    fn make() -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let is_two = root.join("cgroup.controllers").exists();
        let hierarchies: &[&str] = if is_two { &[""] } else { &["memory", "cpuacct"] };
        let mut group = Self { directories: Vec::new() };
        for hierarchy in hierarchies {
            let directory =
                root.join(hierarchy).join(format!("pointsman-test-{}", std::process::id()));
            fs::create_dir(&directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
            group.directories.push((hierarchy, directory));
        }
        let has = |file: &str| group.directories.iter().any(|(_, path)| path.join(file).exists());
        if !(has("memory.current") || has("memory.usage_in_bytes")) {
            return Err("the memory controller is not given to new control groups".to_owned());
        }
        Ok(group)
    }

    /// Moves the shell that runs this into the group, which then is all that it sees of control groups.
    fn enter(&self) -> String {
        let mut lines = String::new();
        for (_, directory) in &self.directories {
            lines.push_str(&format!("echo 0 >{}/cgroup.procs || exit 1; ", directory.display()));
        }
        lines.push_str("mount -t tmpfs none /mnt || exit 1; ");
        for (hierarchy, directory) in &self.directories {
            let place = format!("/mnt/{hierarchy}");
            lines.push_str(&format!(
                "mkdir -p {place}; mount --bind {} {place} || exit 1; ",
                directory.display()
            ));
        }
        lines + "mount --rbind /mnt /sys/fs/cgroup || exit 1; "
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (_, directory) in &self.directories {
            // Its last process may not be gone yet.
            for _ in 0..100 {
                if fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn the_control_group_tells_what_all_processes_used_together() {
    let name = "the_control_group_tells_what_all_processes_used_together";
    let group = match Group::make() {
        Ok(group) => group,
        Err(why) => return skipped(name, &why),
    };
    block_on(async {
        let server = first(Place::new(Kind::Agent), &group.enter());
        let target = server.place.target();
        // Two of 40 MB at the same time, each of which keeps its own until the pipe behind it is read.
        let two = "hold() { head -c 40000000 /dev/zero | tail -c 40000000 | (sleep 2; cat >/dev/null); }\nhold & hold & wait\n";
        let (exit, usage, _) = run(&target, &server.place, two).await;
        let usage = usage.unwrap();
        assert_eq!(exit, Exit::Status(0));
        let mebibytes = usage.peak_memory.unwrap() >> 20;
        // The kernel's account of single processes would say 40.
        assert!((76..300).contains(&mebibytes), "{usage:?}");
        assert!(usage.cpu > Duration::from_millis(5), "{usage:?}");
        // A peak of the group that was there before is not this script's.
        let (_, usage, _) = run(&target, &server.place, "sleep 0.3\n").await;
        let usage = usage.unwrap();
        assert!(usage.peak_memory.unwrap() >> 20 < mebibytes - 30, "{usage:?}");
        assert!(usage.cpu < Duration::from_secs(1), "{usage:?}");
    });
}
