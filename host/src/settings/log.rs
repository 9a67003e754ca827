//! `[log]`: what the driver tells its operators, apart from what job logs are meant to say.

use std::path::{Path, PathBuf};

use super::table::Table;
use super::{description, values};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `None` leaves it to the environment, or else warnings.
    pub level: Option<LogLevel>,
    /// Default text.
    pub format: LogFormat,
    /// To append to; `None` is stderr, which GitLab Runner copies into the job log. Absolute.
    pub file: Option<PathBuf>,
}

/// `level = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// `"error"`
    Error,
    /// `"warn"`
    Warn,
    /// `"info"`
    Info,
    /// `"debug"`
    Debug,
    /// `"trace"`
    Trace,
}

impl LogLevel {
    /// Its spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level that GitLab's Fargate driver calls `text` (logrus, `ParseLevel`).
    pub fn of_fargate(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => Self::Error,
            "warn" | "warning" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

/// `format = …`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `"text"`
    #[default]
    Text,
    /// `"json"`: one object a line.
    Json,
}

impl LogFormat {
    /// Its spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format that GitLab's Fargate driver calls `text`.
    pub fn of_fargate(text: &str) -> Option<Self> {
        match text {
            "text" | "text-simple" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

pub(super) fn read(table: &Table<'_>, directory: &Path) -> LogSettings {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let level = table.optional("level", |value| values::choice(value, &levels));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = table.optional("format", |value| values::choice(value, &formats));
    let file = table.optional("file", values::text);
    table.finish(&description::LOG);
    LogSettings {
        level,
        format: format.unwrap_or_default(),
        file: file.map(|file| directory.join(file)),
    }
}
