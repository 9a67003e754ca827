//! Job logs that are slow, and scripts that are.

use std::fs;
use std::io::Read;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::House;

/// Memory of the process that is its own: a debug build's code does not count.
fn private_kibibytes(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_job_log_of_10_kib_a_second_holds_fifty_mebibytes_back_in_little_memory() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let script = format!("head -c {} /dev/zero; echo end >&2\n", 50 << 20);
        let mut child = attempt.start_run("build_script", script.as_bytes());
        let mut stdout = child.stdout.take().unwrap();
        let (mut read, mut most) = (0, 0);
        let mut buffer = vec![0; 1 << 20];
        // At that rate the whole takes 5,120 s. When the buffers on the way are full, which they are after a
        // second, nothing changes any more but the reader's place; so some seconds show where the rest waits.
        let seconds = std::env::var("POINTSMAN_TEST_SLOW_SECONDS")
            .map_or(5, |seconds| seconds.parse().expect("a number of seconds"));
        let began = Instant::now();
        while read < 50 << 20 && began.elapsed() < Duration::from_secs(seconds) {
            read += stdout.read(&mut buffer[..1024]).unwrap();
            most = most.max(private_kibibytes(&child));
            thread::sleep(Duration::from_millis(100));
        }
        loop {
            let n = stdout.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            assert!(buffer[..n].iter().all(|byte| *byte == 0));
            read += n;
            if read % 64 == 0 {
                // Gone when the process has ended.
                let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
                if status.is_ok_and(|status| status.contains("RssAnon:")) {
                    most = most.max(private_kibibytes(&child));
                }
            }
        }
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{profile}: {errors}");
        assert_eq!((read, errors.as_str()), (50 << 20, "end\n"), "{profile}");
        assert!(most < 25 << 10, "{profile}: {most} KiB");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn a_script_that_is_silent_for_many_keepalives_is_not_cut() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let text = fs::read_to_string(house.settings_file()).unwrap();
        let text = text.replace("[ssh]\n", "[ssh]\nkeepalive = \"200ms\"\n");
        fs::write(house.settings_file(), text).unwrap();
        let mut attempt = house.prepared(profile);
        let output = attempt.run(b"echo a; sleep 4; echo b\n").succeeds().hides("was lost");
        assert_eq!(output.stdout_text(), "a\nb\n", "{profile}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn the_record_tells_what_each_script_used() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let _ = attempt.run_as("get_sources", b"true\n").succeeds();
        let script = b"head -c 50000000 /dev/zero | tail -c 50000000 >/dev/null; exit 3\n";
        let _ = attempt.run(script).fails_the_build();
        let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
        let path = house.state().join(format!("records/37/55-{id}.json"));
        let record: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let scripts = record["scripts"].as_array().unwrap();
        assert_eq!(scripts.len(), 2, "{scripts:?}");
        assert_eq!(
            (&scripts[0]["sub_stage"], &scripts[0]["exit"]),
            (&"get_sources".into(), &0.into())
        );
        let build = &scripts[1];
        assert_eq!((&build["sub_stage"], &build["exit"]), (&"build_script".into(), &3.into()));
        assert!(build["seconds"].as_f64().unwrap() > 0.0);
        if profile == "agent" {
            assert!((45..100).contains(&build["peak_memory_mib"].as_u64().unwrap()), "{build}");
            assert!(build["cpu_seconds"].as_f64().unwrap() > 0.0, "{build}");
        } else {
            assert!(build["peak_memory_mib"].is_null() && build["cpu_seconds"].is_null());
        }
        assert_eq!(fs::read_dir(house.state().join("scripts")).unwrap().count(), 0);
    }
}
