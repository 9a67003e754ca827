//! The log for operators, apart from what job logs are meant to say.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use clap::Args;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::environment::{self, Process};
use crate::output;
use crate::settings::{LogFormat, LogLevel, LogSettings};

/// As GitLab's Fargate driver spells them; they count more than the settings file.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArguments {
    /// Logs everything, as --log-level debug
    #[arg(long, global = true)]
    debug: bool,
    /// How much is logged: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LogLevel>,
    /// Appends the log to this file instead of writing it to stderr
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// How the log is written: text or json
    #[arg(long, global = true, value_name = "FORMAT", value_parser = format)]
    log_format: Option<LogFormat>,
}

fn level(text: &str) -> Result<LogLevel, String> {
    LogLevel::of_fargate(text)
        .ok_or_else(|| "expected one of error, warn, info, debug, trace".to_owned())
}

fn format(text: &str) -> Result<LogFormat, String> {
    LogFormat::of_fargate(text).ok_or_else(|| "expected text or json".to_owned())
}

/// Starts the log; it can be started once.
pub(super) fn start(arguments: &LogArguments, settings: &LogSettings) {
    let level = if arguments.debug { Some(LogLevel::Debug) } else { arguments.log_level };
    let level = level.or(settings.level);
    let path = arguments.log_file.as_ref().or(settings.file.as_ref());
    // Each line is one write, so all stages of all jobs can append to one file.
    let mut options = File::options();
    options.create(true).append(true).mode(0o600);
    let file = path.and_then(|path| match options.open(path) {
        Ok(file) => {
            output::copy_notes();
            Some(file)
        }
        // A job is worth more than its log.
        Err(error) => {
            output::note(&format!("The log file {} cannot be written: {error}", path.display()));
            None
        }
    });
    let filter = EnvFilter::new(
        environment::log_filter(&Process).unwrap_or_else(|| filter(level, file.is_some())),
    );
    let writer = match file {
        Some(file) => BoxMakeWriter::new(Mutex::new(file)),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(true)
        .with_ansi(false)
        .with_writer(writer);
    // It only fails when a log was started before.
    let _ = match arguments.log_format.unwrap_or(settings.format) {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
}

/// Libraries are only heard when they warn. What policies log goes into a file, not into the job log: for that they
/// have `notice`. A file is for keeping, so it has by default what became of each stage.
fn filter(level: Option<LogLevel>, is_file: bool) -> String {
    let guests = if is_file { "" } else { ",pointsman::guest=off" };
    match level {
        None if is_file => "warn,pointsman=info".to_owned(),
        None => format!("warn{guests}"),
        Some(LogLevel::Error) => format!("error{guests}"),
        Some(level) => format!("warn,pointsman={}{guests}", level.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_policies_do_not_fill_job_logs() {
        assert_eq!(filter(None, false), "warn,pointsman::guest=off");
        assert_eq!(filter(None, true), "warn,pointsman=info");
        assert_eq!(filter(Some(LogLevel::Info), false), "warn,pointsman=info,pointsman::guest=off");
        assert_eq!(filter(Some(LogLevel::Debug), true), "warn,pointsman=debug");
        assert_eq!(filter(Some(LogLevel::Error), true), "error");
    }
}
