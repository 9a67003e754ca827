//! `pointsman-agent`: an SSH server for one CI job, inside the job's task.
//!
//! It takes one client key and one host key from its environment, runs the scripts that the driver
//! sends as process groups, reaps orphans when it is PID 1, and ends the task by itself at its
//! deadline or when nobody has come for too long.

mod children;
mod connection;
mod environment;
mod lifetime;
mod log;
mod process;
mod scripts;
mod server;
mod settings;
mod spool;
mod usage;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;
use std::{env, io};

use crate::environment::HANDED_OVER;
use crate::log::log;
use crate::settings::Settings;

const HELP: &str = "\
pointsman-agent: an SSH server for one CI job. It is configured by its environment:

  SSH_PUBLIC_KEY          the client's key, one line `ssh-ed25519 AAAA...` (required)
  POINTSMAN_HOST_KEY      the host key: 32 bytes as base64, 43 characters (required)
  POINTSMAN_DEADLINE      Unix time in seconds at which the task ends (required)
  POINTSMAN_IDLE_TIMEOUT  seconds without a connection after which the task ends (default 900)
  POINTSMAN_LISTEN        address and port (default 0.0.0.0:2222)
  POINTSMAN_SPOOL         MiB of disk for output that waits for the driver, in TMPDIR, the
                          working directory, /tmp or /var/tmp; 0 for none (default 256)

Options: --help, --version
";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => hand_over(),
        [only] if only == HANDED_OVER => serve(),
        [only] if only == "--help" || only == "-h" => print(HELP),
        [only] if only == "--version" || only == "-V" => {
            print(concat!("pointsman-agent ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        _ => {
            log!(
                "takes no arguments but `--help` and `--version`; its settings come from the environment"
            );
            ExitCode::FAILURE
        }
    }
}

/// The first of two lives: checks the settings and starts afresh without them in the environment.
fn hand_over() -> ExitCode {
    match Settings::read(|name| env::var_os(name)) {
        Ok(settings) => {
            let error = environment::start_afresh(&settings);
            log!("cannot start itself again without its secrets in the environment: {error}");
        }
        Err(mistakes) => mistakes.iter().for_each(|mistake| log!("{mistake}")),
    }
    ExitCode::FAILURE
}

/// The second life: the SSH server.
fn serve() -> ExitCode {
    let settings = match environment::take_over() {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| log!("{mistake}"));
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(lifetime::live(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
