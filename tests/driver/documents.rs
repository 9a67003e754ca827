//! The Markdown of this repository: where its links lead, and whether its commands work.

mod commands;
mod links;

use std::fs;
use std::path::{Path, PathBuf};

use crate::rehearsal::root;

/// One file.
struct Document {
    /// From the repository's root.
    path: String,
    text: String,
}

/// A fenced block.
struct Block {
    /// `sh`, `toml` and so on.
    language: String,
    /// The last line before it that is not empty.
    before: String,
    /// Of the fence, from 1.
    line: usize,
    text: String,
}

impl Document {
    fn read(path: &str) -> Self {
        let text =
            fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), text }
    }

    /// Every one, sorted.
    fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        find(&root(), &mut paths);
        let mut documents: Vec<Self> = paths
            .iter()
            .map(|path| Self::read(path.strip_prefix(root()).unwrap().to_str().unwrap()))
            .collect();
        documents.sort_by(|one, other| one.path.cmp(&other.path));
        assert!(documents.len() >= 20, "{} documents: is this test right?", documents.len());
        documents
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut before = String::new();
        // The fence's indentation: a block may belong to a list.
        let mut inside: Option<usize> = None;
        for (number, line) in self.text.lines().enumerate() {
            let code = line.trim_start();
            match (code.strip_prefix("```"), inside) {
                (Some(language), None) => {
                    inside = Some(line.len() - code.len());
                    blocks.push(Block {
                        language: language.trim().to_owned(),
                        before: before.clone(),
                        line: number + 1,
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => inside = None,
                (None, Some(indentation)) => {
                    let block = blocks.last_mut().unwrap();
                    block.text.push_str(line.get(indentation..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) if !code.is_empty() => code.clone_into(&mut before),
                (None, None) => {}
            }
        }
        assert!(inside.is_none(), "{}: a block has no end", self.path);
        blocks
    }

    /// The lines outside fenced blocks, without inline code.
    fn prose(&self) -> Vec<String> {
        let mut inside = false;
        let mut prose = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                prose.push(line.split('`').step_by(2).collect::<Vec<_>>().join("``"));
            }
        }
        prose
    }
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                find(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}
