//! The lines that people see while a rehearsal runs: each job's log, with the job's name before it.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::variables::Entry;

/// GitLab Runner cuts lines there as well (common/buildlogger).
const MAX_LINE: usize = 8 << 10;
/// Shorter values would mask half of the log; GitLab's own minimum.
const MIN_MASKED: usize = 8;
/// One for each job, in turn; red is left to errors.
const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "96"];

/// Where all jobs write.
pub(super) struct Log<'a> {
    out: Mutex<&'a mut (dyn Write + Send)>,
    colour: bool,
    width: usize,
}

impl<'a> Log<'a> {
    /// `names` are those of all jobs, so that their lines stand in one column.
    pub(super) fn new<'n>(
        out: &'a mut (dyn Write + Send),
        colour: bool,
        names: impl Iterator<Item = &'n str>,
    ) -> Self {
        let width = names.map(|name| name.chars().count()).max().unwrap_or_default();
        Self { out: Mutex::new(out), colour, width }
    }

    /// A line of the rehearsal itself.
    pub(super) fn say(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// The log of the `index`th job.
    pub(super) fn job(&'a self, index: usize, name: &str) -> JobLog<'a> {
        let padded = format!("{name:width$}", width = self.width);
        let prefix = match (self.colour, COLOURS.get(index % COLOURS.len())) {
            (true, Some(colour)) => format!("\u{1b}[{colour}m{padded} |\u{1b}[0m "),
            _ => format!("{padded} | "),
        };
        JobLog { log: self, prefix, masked: Vec::new() }
    }

    /// A closed terminal is no reason to leave tasks behind, so a failing write is not noticed.
    fn write(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// The log of one job.
pub(super) struct JobLog<'a> {
    log: &'a Log<'a>,
    prefix: String,
    masked: Vec<String>,
}

impl JobLog<'_> {
    /// Masks what `variables` say from now on.
    pub(super) fn mask(&mut self, variables: &[Entry]) {
        self.masked = variables
            .iter()
            .filter(|entry| entry.masked)
            .flat_map(|entry| entry.value.lines())
            .filter(|value| value.len() >= MIN_MASKED)
            .map(str::to_owned)
            .collect();
        // The longer first: one may be a part of the other.
        self.masked.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// A line of the runner.
    pub(super) fn say(&self, text: &str) {
        self.line(text.as_bytes());
    }

    /// A line that went wrong.
    pub(super) fn error(&self, text: &str) {
        self.say(&format!("\u{1b}[31;1m{text}\u{1b}[0;m"));
    }

    fn line(&self, bytes: &[u8]) {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for value in &self.masked {
            if text.contains(value) {
                text = text.replace(value, "[MASKED]");
            }
        }
        self.log.write(&format!("{}{}\n", self.prefix, shown(&text, self.log.colour)));
    }
}

/// Without control sequences, colours excepted where there is a terminal: a job must not be able to clear
/// the screen or to set the window's title.
fn shown(text: &str, colour: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|one: char| one.is_control() && one != '\t') {
        shown.push_str(&rest[..at]);
        let sequence = &rest[at..];
        let length = match sequence.strip_prefix("\u{1b}[") {
            Some(inside) => inside
                .find(|one: char| ('@'..='~').contains(&one))
                .map_or(sequence.len(), |end| 2 + end + 1),
            None => sequence.chars().next().map_or(1, char::len_utf8),
        };
        let (sequence, behind) = sequence.split_at(length.min(sequence.len()));
        if colour && sequence.starts_with("\u{1b}[") && sequence.ends_with('m') {
            shown.push_str(sequence);
        }
        rest = behind;
    }
    shown.push_str(rest);
    if colour && text.contains("\u{1b}[") {
        shown.push_str("\u{1b}[0m");
    }
    shown
}

/// Stands before and behind a section's marker.
const CLEAR_LINE: &[u8] = b"\x1b[0K";

/// Where the marker of a section begins that `line`, ended by a carriage return, closes with: GitLab takes it for
/// the fold of a log and shows the text behind it (lib/gitlab/regex.rb, `build_trace_section_regex`).
fn section_marker(line: &[u8]) -> Option<usize> {
    let start = line.windows(8).rposition(|window| window == b"section_")?;
    let rest = str::from_utf8(&line[start + 8..]).ok()?;
    let rest = rest.strip_prefix("start:").or_else(|| rest.strip_prefix("end:"))?;
    let (time, rest) = rest.split_once(':')?;
    let name = match rest.split_once('[') {
        Some((name, options)) if options.ends_with(']') => name,
        Some(_) => return None,
        None => rest,
    };
    let of_name = |one: char| one.is_ascii_alphanumeric() || "_.-".contains(one);
    let is_marker = !time.is_empty()
        && time.chars().all(|one| one.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(of_name);
    is_marker.then_some(start)
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// Lines that begin so are collected and not shown.
    carried: Option<&'static str>,
    collected: Vec<u8>,
    /// The line began with a marker of a section, which does not show.
    marked: bool,
}

impl Lines {
    /// Collects the lines behind `prefix`, which is taken off.
    pub(super) fn carrying(prefix: &'static str) -> Self {
        Self { carried: Some(prefix), ..Self::default() }
    }

    /// What was collected, without line ends.
    pub(super) fn into_collected(self) -> Vec<u8> {
        self.collected
    }

    /// Takes `bytes` and gives out the lines that they complete. A carriage return ends a line too.
    pub(super) fn push(&mut self, bytes: &[u8], log: &JobLog<'_>) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    if !self.is_hidden() {
                        self.give(log);
                    }
                    self.line.clear();
                    self.marked = false;
                }
                b'\r' => {
                    if let Some(start) = section_marker(&self.line) {
                        self.line.truncate(start);
                        self.marked = true;
                    }
                    self.end(log);
                }
                byte => {
                    self.line.push(*byte);
                    if self.line.len() >= MAX_LINE {
                        self.end(log);
                    }
                }
            }
        }
    }

    /// Gives out what is left.
    pub(super) fn end(&mut self, log: &JobLog<'_>) {
        if !self.line.is_empty() && !self.is_hidden() {
            self.give(log);
        }
        self.line.clear();
    }

    /// Whether there is nothing beside a section's marker, which GitLab shows as no line either.
    fn is_hidden(&self) -> bool {
        self.marked && (self.line.is_empty() || self.line == CLEAR_LINE)
    }

    fn give(&mut self, log: &JobLog<'_>) {
        match self.carried.and_then(|prefix| self.line.strip_prefix(prefix.as_bytes())) {
            Some(carried) => self.collected.extend_from_slice(carried),
            None => log.line(&self.line),
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(colour: bool, write: impl FnOnce(&mut JobLog<'_>)) -> String {
        let mut out = Vec::new();
        let log = Log::new(&mut out, colour, ["a", "build"].into_iter());
        write(&mut log.job(1, "a"));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_cut_and_prefixed() {
        let text = logged(false, |log| {
            let mut lines = Lines::default();
            lines.push(b"one\ntw", log);
            lines.push(b"o\r\n\nhalf\rthree", log);
            lines.end(log);
        });
        assert_eq!(
            text,
            "a     | one\na     | two\na     | \na     | \na     | half\na     | three\n"
        );
    }

    #[test]
    fn markers_of_sections_do_not_show() {
        let text = logged(false, |log| {
            let mut lines = Lines::default();
            lines.push(b"section_start:17:wait_1[collapsed=true]\r\x1b[0KWaiting...\nin\n\n", log);
            lines.push(b"section_end:18:wait_1\r\x1b[0K\nout\n", log);
            lines.push(b"\x1b[0Ksection_start:19:a.b-c\r\x1b[0K\x1b[36mOwn\x1b[0m\n", log);
            lines.push(b"half section_end:19:a.b-c\r\x1b[0Ksection_start:20:n\r\x1b[0Knext\n", log);
            lines.push(b"section_end:20:n\r\x1b[0K", log);
            lines.end(log);
        });
        let expected = ["Waiting...", "in", "", "out", "Own", "half ", "next"];
        let expected: String = expected.iter().map(|line| format!("a     | {line}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn what_only_looks_like_a_marker_shows() {
        for line in ["section_start:x:a", "section_end:1:", "section_start:1:a b", "section_ends"] {
            assert_eq!(section_marker(line.as_bytes()), None, "{line}");
        }
        assert_eq!(section_marker(b"section_start:1:a[collapsed=true"), None);
    }

    #[test]
    fn only_colours_pass_and_only_to_a_terminal() {
        let check = |text: &str, plain: &str, coloured: &str| {
            assert_eq!(shown(text, false), plain);
            assert_eq!(shown(text, true), coloured);
        };
        check("a\tb", "a\tb", "a\tb");
        check("\u{1b}[32;1m$ x\u{1b}[0;m", "$ x", "\u{1b}[32;1m$ x\u{1b}[0;m\u{1b}[0m");
        check("\u{1b}[2Ja\u{1b}]0;title\u{7}", "a]0;title", "a]0;title\u{1b}[0m");
        check("x\u{1b}[", "x", "x\u{1b}[0m");
        check("x\u{1b}", "x", "x");
    }

    #[test]
    fn masked_values_do_not_show() {
        let text = logged(false, |log| {
            let masked = |value: &str| Entry { masked: true, ..Entry::new("T", value) };
            log.mask(&[masked("sesame-12"), masked("sesame-1234"), masked("short")]);
            log.say("sesame-1234 sesame-12 short");
        });
        assert_eq!(text, "a     | [MASKED] [MASKED] short\n");
    }
}
