//! The file as it is written, and its conversion into [`Settings`].

use std::path::Path;

use super::{Problem, Settings};

pub(super) fn read(_text: &str, _directory: &Path) -> Result<Settings, Vec<Problem>> {
    Err(Vec::new())
}
