//! A job survives the network going away: with the agent, scripts go on and nothing of their output is lost.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::attempt::{Attempt, signal};
use crate::support::proxy::{Dice, End, Fate, Proxy, UNHARMED};
use crate::support::{House, attempt};

/// Short times, so that a test need not wait long for silence to be noticed.
fn impatient(house: &House, resume_timeout: &str) {
    let text = fs::read_to_string(house.settings_file()).unwrap();
    let ssh = format!(
        "[ssh]\nkeepalive = \"200ms\"\nconnect_timeout = \"1s\"\nresume_timeout = \"{resume_timeout}\"\n"
    );
    fs::write(house.settings_file(), text.replace("[ssh]\n", &ssh)).unwrap();
}

/// Puts a proxy between the driver and the task of `attempt`.
fn behind_proxy(
    house: &House,
    attempt: &Attempt<'_>,
    fates: impl FnMut() -> Option<Fate> + Send + 'static,
) -> Proxy {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let path = house.state().join(format!("attempts/{id}.json"));
    let mut saved: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let address: SocketAddr = saved["launch"]["address"].as_str().unwrap().parse().unwrap();
    let proxy = Proxy::to(address, fates);
    saved["launch"]["address"] = proxy.address.to_string().into();
    fs::write(&path, saved.to_string()).unwrap();
    proxy
}

/// What came on stderr, in a thread of its own.
fn errors_of(child: &mut Child) -> thread::JoinHandle<String> {
    let mut stderr = child.stderr.take().unwrap();
    thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    })
}

const CUTS: u64 = 100;
const LINES: u64 = 10_000_000;

/// Ten million lines are some 79 MB; a hundred connections of up to 1.2 MB each are cut before they end.
fn fate(dice: &mut Dice) -> Option<Fate> {
    let end = match dice.roll(20) {
        // Reset as soon as it is made.
        0 => return None,
        1..=8 => End::Reset,
        9..=14 => End::Close,
        15..=17 => End::Stall,
        _ => End::Deaf,
    };
    // A quarter within the handshake, the login or the upload of the script.
    let after = if dice.roll(4) == 0 { dice.roll(6_000) } else { dice.roll(1_200_000) };
    let delay = if dice.roll(4) == 0 { dice.roll(2_000) } else { 0 };
    Some(Fate { after, end, delay })
}

#[test]
fn a_hundred_cuts_lose_and_repeat_nothing() {
    let seed = match std::env::var("POINTSMAN_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    // Shown when the test fails.
    let _ = writeln!(std::io::stderr(), "POINTSMAN_TEST_SEED={seed}");
    let house = House::new();
    impatient(&house, "60s");
    let mut attempt = house.prepared("agent");
    let mut dice = Dice::new(seed);
    let mut made = 0;
    let proxy = behind_proxy(&house, &attempt, move || {
        made += 1;
        if made <= CUTS { fate(&mut dice) } else { Some(UNHARMED) }
    });
    let started = house.path().join("started");
    let script = format!(
        "echo once >>'{}'\nseq 1 {LINES}\nseq -f 'error %g' 1 5000 >&2\nexit 7\n# {}\n",
        started.display(),
        "x".repeat(5_000),
    );
    let mut child = attempt.start_run("build_script", script.as_bytes());
    let errors = errors_of(&mut child);
    let mut lines = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let mut line = Vec::new();
    let mut expected = 0_u64;
    while lines.read_until(b'\n', &mut line).unwrap() > 0 {
        expected += 1;
        let found = line.strip_suffix(b"\n").unwrap_or_default();
        assert!(
            found == expected.to_string().as_bytes(),
            "line {expected} is `{}`",
            String::from_utf8_lossy(&line)
        );
        line.clear();
    }
    let status = child.wait().unwrap();
    let errors = errors.join().unwrap();
    assert_eq!(expected, LINES, "{errors}");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert_eq!(attempt.exit_code(), Some(7), "{errors}");
    assert_eq!(proxy.cuts(), CUTS, "{errors}");
    assert_eq!(fs::read_to_string(started).unwrap(), "once\n");

    let (ours, theirs): (Vec<&str>, Vec<&str>) =
        errors.lines().partition(|line| line.starts_with("Pointsman: "));
    let expected: Vec<String> = (1..=5000).map(|i| format!("error {i}")).collect();
    assert_eq!(theirs, expected);
    let lost = ours.iter().filter(|line| line.contains("was lost")).count();
    let again = ours.iter().filter(|line| line.contains("connected again")).count();
    assert_eq!(lost, again, "{ours:#?}");
    assert!(lost > 30, "{lost} of {CUTS} cuts were noticed");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn sigterm_stops_a_script_after_and_during_an_outage() {
    for during in [false, true] {
        let house = House::new();
        impatient(&house, "60s");
        let mut attempt = house.prepared("agent");
        let proxy = behind_proxy(&house, &attempt, || Some(UNHARMED));
        let mark = house.path().join("mark");
        let script = format!(
            "trap 'echo cleaned >>{0}; exit 1' TERM\necho running >>{0}\nwhile :; do echo tick; sleep 0.1; done\n",
            mark.display()
        );
        let child = attempt.start_run("build_script", script.as_bytes());
        let text = || fs::read_to_string(&mark).unwrap_or_default();
        eventually("the script runs", || text() == "running\n");
        proxy.kill(true);
        eventually("the connection is cut", || proxy.cuts() >= 2);
        if during {
            signal(&child, Signal::TERM);
            thread::sleep(Duration::from_millis(300));
            proxy.kill(false);
        } else {
            proxy.kill(false);
            let cuts = proxy.cuts();
            thread::sleep(Duration::from_millis(1500));
            assert!(proxy.cuts() <= cuts + 1);
            signal(&child, Signal::TERM);
        }
        let output = attempt::collect(child).fails_the_system().says("was stopped by SIGTERM");
        assert!(output.stdout_text().starts_with("tick\n"));
        assert_eq!(text(), "running\ncleaned\n", "{output}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn a_network_that_stays_away_is_a_system_failure_after_resume_timeout() {
    let house = House::new();
    impatient(&house, "2s");
    let mut attempt = house.prepared("agent");
    let proxy = behind_proxy(&house, &attempt, || Some(UNHARMED));
    let child = attempt.start_run("build_script", b"while :; do echo tick; sleep 0.1; done\n");
    thread::sleep(Duration::from_millis(700));
    proxy.kill(true);
    let began = Instant::now();
    let output = attempt::collect(child)
        .fails_the_system()
        .says("the connection to the task was lost and not made again within");
    let took = began.elapsed();
    // Not before `resume_timeout`; afterwards the backend is asked what has become of the task, which takes a while.
    assert!((2..60).contains(&took.as_secs()), "{took:?} {output}");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn a_task_that_is_gone_is_not_waited_for() {
    let house = House::new();
    impatient(&house, "80s");
    let mut attempt = house.prepared("agent");
    let began = Instant::now();
    // The agent is the parent of the shell that the script's command starts.
    let _ = attempt.run(b"kill -KILL $PPID; sleep 60\n").fails_the_system();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn output_goes_on_into_the_spool_while_nobody_is_there() {
    let house = House::new();
    impatient(&house, "60s");
    let mut attempt = house.prepared("agent");
    let proxy = behind_proxy(&house, &attempt, || Some(UNHARMED));
    let (begun, done) = (house.path().join("begun"), house.path().join("done"));
    let script = format!(
        "touch {0}\nwhile [ ! -e {0}.go ]; do sleep 0.05; done\nhead -c 40000000 /dev/zero\ntouch {1}\n",
        begun.display(),
        done.display(),
    );
    let child = attempt.start_run("build_script", script.as_bytes());
    eventually("the script runs", || begun.exists());
    proxy.kill(true);
    fs::write(begun.with_extension("go"), "").unwrap();
    eventually("40 MB of output are behind the script although nobody takes them", || {
        done.exists()
    });
    proxy.kill(false);
    let output = attempt::collect(child).succeeds().says("connected again after");
    assert_eq!(output.stdout.len(), 40_000_000);
    assert!(output.stdout.iter().all(|byte| *byte == 0));
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "never happened: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
