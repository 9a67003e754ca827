//! One line on stderr for each event. No script, no key and no environment value ever goes here.

use std::fmt;
use std::io::{self, Write as _};

/// Writes one line, in one `write`, so that lines of the agent and of its children do not mix.
/// A closed stderr is no reason to stop.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("pointsman-agent: {text}\n").as_bytes());
}

/// `log!("…")`: [`line`] with `format!`'s syntax.
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}
pub(crate) use log;
