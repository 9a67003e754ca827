//! Another server at the address of a task that is gone: refused before it hears anything of the job.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::House;
use crate::support::attempt::Attempt;
use crate::support::house::executable;

struct Impostor(Child);

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(house: &House, attempt: &Attempt<'_>) -> String {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let path = house.state().join(format!("attempts/{id}.json"));
    let saved: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    saved["launch"]["address"].as_str().unwrap().to_owned()
}

/// Ends the task's server and puts an agent of somebody else's in its place, which would take any script.
fn take_over(house: &House, attempt: &mut Attempt<'_>, profile: &str) -> Impostor {
    let address = address(house, attempt);
    let find = if profile == "agent" {
        "echo $PPID"
    } else {
        // sshd's listener is the first of its name above the shell.
        "p=$$; while [ \"$p\" -gt 1 ]; do c=$(tr '\\0' ' ' </proc/$p/cmdline); case \"$c\" in *'-D -e -f'*|*'[listener]'*) echo $p; break;; esac; p=$(awk '{print $4}' /proc/$p/stat); done"
    };
    let pid = attempt.run(find.as_bytes()).succeeds().stdout_text();
    let killed = Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
    assert!(killed.success(), "{pid:?}");
    for _ in 0..100 {
        let mut child = Command::new(executable("pointsman-agent"))
            .env_clear()
            // A key pair of nobody's.
            .env(
                "SSH_PUBLIC_KEY",
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUxT3BwnwhPzK1h5jvNHSJVkEPWQ3LJqZEVhyOfOIxR",
            )
            .env("POINTSMAN_HOST_KEY", "A".repeat(43))
            .env("POINTSMAN_DEADLINE", "4000000000")
            .env("POINTSMAN_LISTEN", &address)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(300));
        if child.try_wait().unwrap().is_none() {
            return Impostor(child);
        }
    }
    panic!("{address} does not become free");
}

#[test]
fn an_impostor_at_the_address_of_a_finished_task_is_refused() {
    for profile in ["agent", "openssh", "openssh-injected"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let _impostor = take_over(&house, &mut attempt, profile);
        let _ = attempt
            .run(b"echo secret\n")
            .fails_the_system()
            .says("has the host key `SHA256:")
            .says("something else answers at this address")
            .hides("does not accept the job's key");
        let _ = attempt.cleanup();
        house.settled(1);
    }
}
