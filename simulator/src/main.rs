//! The command line of the simulator: starts it, says where it listens, and ends with its parent.

use std::error::Error;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pointsman_simulator::{Options, Simulator, World};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Simulates Amazon ECS on loopback; its tasks are real processes.
///
/// Prints one line, {"endpoint":"http://127.0.0.1:PORT"}, to be used as AWS_ENDPOINT_URL_ECS. Ends, with all its
/// tasks, on SIGTERM, on SIGINT, or when its standard input is closed.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The world file (JSON): account, clusters, networks, roles, task definitions, images, faults.
    #[arg(long, value_name = "FILE", required = true)]
    world: Option<PathBuf>,
    /// Where the ledger, the requests, the logs and the tasks' directories go.
    #[arg(long, value_name = "DIR", required = true)]
    directory: Option<PathBuf>,
    /// Where to listen; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The agent, for images with "server": "agent" [default: pointsman-agent beside this program].
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// OpenSSH's server, for images with "server": "openssh".
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/sshd")]
    sshd: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a container's first process, and ends all that it started with it.
    #[command(hide = true)]
    Supervise {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to do when even that cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Some(Command::Supervise { command }) = arguments.command {
        return pointsman_simulator::supervise(command);
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("Error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            let _ = writeln!(std::io::stderr().lock(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let (Some(world), Some(directory)) = (arguments.world, arguments.directory) else {
        return Err("`--world` and `--directory` are required".into());
    };
    let world = World::read(&world)?;
    let own = std::env::current_exe()?;
    let agent = arguments.agent.unwrap_or_else(|| own.with_file_name("pointsman-agent"));
    // A relative path would be looked up in the task's directory.
    let absolute = |path: PathBuf| std::path::absolute(path);
    let options = Options {
        directory,
        listen: arguments.listen,
        agent: absolute(agent)?,
        sshd: absolute(arguments.sshd)?,
        supervisor: own,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Before the first task can be started, so that no signal finds the simulator unready.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let simulator = Simulator::start(world, options).await?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::json!({"endpoint": simulator.endpoint()}))?;
        stdout.flush()?;
        drop(stdout);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = closed_stdin() => {}
        }
        simulator.end().await;
        Ok(())
    })
}

/// Resolves when stdin is at its end: the parent is gone, or wants the simulator gone.
fn closed_stdin() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    // A thread of its own, since the runtime would wait for a blocking read of stdin at its end.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while std::io::stdin().lock().read(&mut buffer).is_ok_and(|n| n > 0) {}
        let _ = sender.send(());
    });
    receiver
}
