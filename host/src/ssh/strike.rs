//! Signals for a script's process group.
//!
//! SSH has a request for it, and the agent obeys it. Stock OpenSSH does not always: up to 9.7 it refuses
//! with "session signalling requires privilege separation" when root has logged in (`session_signal_req`
//! in its session.c; seen with 9.2), which is what the documented images do, and it cannot tell us, for
//! the request has no answer. Other servers signal the shell alone. Sending both would be wrong too: many
//! tools take a second SIGTERM as "now, without cleaning up".
//!
//! So everything but the agent gets a second command over the same connection, [`script_for`], which
//! signals the groups of its sister processes: a server runs each command of a connection as a child of
//! the process that serves the connection, in a session of its own. The SSH request is sent only when
//! that command found nothing to signal.

use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelWriteHalf, Sig};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::session::{HAND_OVER, Peer};

/// What the second command may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent calls itself in its first line.
const AGENT: &[u8] = b"SSH-2.0-pointsman-agent_";

/// How the server at the other end is told to signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// By SSH's own request.
    Request,
    /// By a second command.
    Command,
}

/// The signals that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGTERM
    Term,
    /// SIGKILL
    Kill,
}

impl Means {
    /// Chosen by the server's first line.
    pub(super) fn for_server(greeting: &[u8]) -> Self {
        if greeting.starts_with(AGENT) { Self::Request } else { Self::Command }
    }
}

/// Sends the signals that are ordered to the script of `channel`, until no more can be.
pub(super) async fn carry_out(
    mut orders: mpsc::UnboundedReceiver<Blow>,
    means: Means,
    connection: &Handle<Peer>,
    channel: &ChannelWriteHalf<Msg>,
) {
    // A group stays known when its leader has obeyed and others have not.
    let mut groups = Vec::new();
    while let Some(blow) = orders.recv().await {
        if means == Means::Command {
            let command = script_for(blow, &groups);
            if let Ok(Some(struck)) = timeout(PATIENCE, output(connection, command)).await {
                groups.extend(groups_in(&struck));
                if !groups.is_empty() {
                    continue;
                }
            }
        }
        request(channel, blow).await;
    }
}

/// Asks by SSH's own request.
pub(super) async fn request(channel: &ChannelWriteHalf<Msg>, blow: Blow) {
    let signal = match blow {
        Blow::Term => Sig::TERM,
        Blow::Kill => Sig::KILL,
    };
    // That the connection is gone is told by the channel.
    let _ = timeout(HAND_OVER, channel.signal(signal)).await;
}

/// The command that signals the process groups of its sisters, and `groups`, and prints the groups that
/// it found. For any POSIX shell with `/proc`; works without `ps` and `pkill`, which small images lack.
fn script_for(blow: Blow, groups: &[u32]) -> String {
    let signal = match blow {
        Blow::Term => "TERM",
        Blow::Kill => "KILL",
    };
    let known: String =
        groups.iter().map(|group| format!("kill -{signal} -{group} 2>/dev/null; ")).collect();
    // `/proc/<pid>/stat`: pid, name in parentheses, state, parent, process group.
    let search = r#"for f in /proc/[0-9]*/stat; do { read -r l <"$f"; } 2>/dev/null || continue; set -- ${l##*) }; if [ "$2" = "$PPID" ] && [ "$3" != "$$" ]"#;
    format!(r#"exec sh -c '{known}{search}; then kill -{signal} "-$3" && echo "$3"; fi; done'"#)
}

fn groups_in(output: &[u8]) -> Vec<u32> {
    // 0 and 1 would mean others than a script's group.
    String::from_utf8_lossy(output)
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|group| *group > 1)
        .collect()
}

/// Runs a small command to its end. `None` when the server does not run it.
async fn output(connection: &Handle<Peer>, command: String) -> Option<Vec<u8>> {
    let mut channel = connection.channel_open_session().await.ok()?;
    channel.exec(true, command).await.ok()?;
    let mut output = Vec::new();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if output.len() < 4096 => {
                output.extend_from_slice(&data)
            }
            Some(ChannelMsg::Failure) => return None,
            // Its status is all that can follow.
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => break,
            Some(_) => {}
        }
    }
    let _ = channel.close().await;
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agent_is_trusted_with_the_request() {
        for (greeting, expected) in [
            ("SSH-2.0-pointsman-agent_0.1.0\r\n", Means::Request),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Means::Command),
            ("SSH-2.0-dropbear_2022.83\r\n", Means::Command),
            ("", Means::Command),
        ] {
            assert_eq!(Means::for_server(greeting.as_bytes()), expected, "{greeting}");
        }
    }

    #[test]
    fn only_numbers_of_groups_are_believed() {
        assert_eq!(groups_in(b"12\nx\n0\n1\n-5\n99999999999\n 340 \n"), [12, 340]);
    }

    #[test]
    fn the_command_names_the_groups_that_are_known() {
        let script = script_for(Blow::Kill, &[12, 340]);
        assert!(
            script.starts_with(
                "exec sh -c 'kill -KILL -12 2>/dev/null; kill -KILL -340 2>/dev/null; for f in"
            ),
            "{script}"
        );
        assert_eq!(script.matches('\'').count(), 2, "no quote inside of quotes: {script}");
        assert!(script.contains("${l##*) }") && !script.contains('\n'), "{script}");
    }
}
