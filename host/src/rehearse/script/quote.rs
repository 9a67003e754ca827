//! Quoting for bash: `$'…'`, which holds everything but NUL.

use crate::rehearse::variables::TASK_ROOT;

/// One word of a script's body; [`TASK_ROOT`] in it becomes the task's own directory.
pub(in crate::rehearse) fn quoted(text: &str) -> String {
    let mut parts = Vec::new();
    for (index, part) in text.split(TASK_ROOT).enumerate() {
        if index > 0 {
            parts.push("\"${POINTSMAN_TASK_ROOT:-}\"".to_owned());
        }
        if !part.is_empty() {
            parts.push(verbatim(part));
        }
    }
    match parts.is_empty() {
        true => "''".to_owned(),
        false => parts.concat(),
    }
}

/// One word, whatever is in it.
pub(super) fn verbatim(text: &str) -> String {
    let mut word = String::with_capacity(text.len() + text.len() / 8 + 3);
    word.push_str("$'");
    for one in text.chars() {
        match one {
            '\\' => word.push_str("\\\\"),
            '\'' => word.push_str("\\'"),
            '\n' => word.push_str("\\n"),
            '\r' => word.push_str("\\r"),
            '\t' => word.push_str("\\t"),
            // Two digits exactly, so that a digit of the text behind it is not taken along.
            control if control.is_ascii_control() => {
                word.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other => word.push(other),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected);
        check("", "''");
        check("a b", "$'a b'");
        check("a'b\\c\n\u{7}1", "$'a\\'b\\\\c\\n\\x071'");
        check(
            &format!("{TASK_ROOT}/x:{TASK_ROOT}"),
            "\"${POINTSMAN_TASK_ROOT:-}\"$'/x:'\"${POINTSMAN_TASK_ROOT:-}\"",
        );
    }
}
