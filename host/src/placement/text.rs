//! Text from elsewhere, made fit for one line of a log.

/// `text` as one line of at most `max` characters: a control character becomes a space, runs of white space
/// become one, and what is cut off is marked by `…`.
///
/// Characters that turn the reading direction go as well, since a line that reads differently than it is
/// can lie to its reader.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let mut count = 0;
    let mut space = false;
    for character in text.chars() {
        if character.is_control() || character.is_whitespace() {
            space = count > 0;
            continue;
        }
        if is_hidden(character) {
            continue;
        }
        let needed = 1 + usize::from(space);
        if count + needed > max {
            // The mark takes the place of the last character when there is no room.
            if count == max {
                line.pop();
            }
            if max > 0 {
                line.push('…');
            }
            return line;
        }
        if space {
            line.push(' ');
        }
        line.push(character);
        count += needed;
        space = false;
    }
    line
}

/// Zero-width characters, marks and overrides of the reading direction (Unicode TR36), separators of lines.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        for (text, max, expected) in [
            ("plain", 10, "plain"),
            ("  two\n\tlines\r\n", 20, "two lines"),
            ("\u{1b}[31mred\u{1b}[0m", 20, "[31mred [0m"),
            ("a\u{202e}b\u{200b}c\u{2028}d", 20, "abc d"),
            ("abcdef", 5, "abcd…"),
            ("abcde", 5, "abcde"),
            ("abcd e", 5, "abcd…"),
            ("äöü", 2, "ä…"),
            ("abc", 0, ""),
            ("", 5, ""),
            ("a\0b", 5, "a b"),
        ] {
            assert_eq!(one_line(text, max), expected, "{text:?} {max}");
        }
    }
}
