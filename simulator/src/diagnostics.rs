//! The only place that writes to stderr.

use std::io::Write;

/// Writes one line to stderr. When even that fails there is nobody left to tell.
pub(crate) fn report(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "pointsman-simulator: {line}");
}
