//! Results as JUnit's XML, which GitLab shows in merge requests.

use std::fmt::Write as _;

use super::trial::Played;

/// The report of `played`; `suite` names the policy.
pub fn report(suite: &str, played: &[Played]) -> String {
    let failures = played.iter().filter(|played| !played.differences.is_empty()).count();
    let suite = escaped(suite);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\">\n",
        played.len()
    );
    for played in played {
        let seconds = played
            .observed
            .as_ref()
            .map_or(0.0, |observed| observed.elapsed_us as f64 / 1_000_000.0);
        let name = escaped(&played.name);
        let _ = write!(
            xml,
            "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{seconds:.6}\""
        );
        if played.differences.is_empty() {
            xml.push_str("/>\n");
            continue;
        }
        let first = played.differences.first().map(String::as_str).unwrap_or_default();
        let _ = write!(
            xml,
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
            escaped(first),
            escaped(&played.differences.join("\n"))
        );
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Control characters are not even allowed as references in XML 1.0.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push(' '),
            character if character.is_control() => escaped.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_their_differences() {
        let played = |name: &str, differences: &[&str]| Played {
            name: name.to_owned(),
            observed: None,
            differences: differences.iter().map(|&text| text.to_owned()).collect(),
            variants: 0,
        };
        let xml =
            report("by-tag", &[played("a <b>", &[]), played("c", &["x: \"1\" & 2", "y\u{1b}"])]);
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("name=\"a &lt;b&gt;\" time=\"0.000000\"/>"), "{xml}");
        assert!(xml.contains("message=\"x: &quot;1&quot; &amp; 2\""), "{xml}");
        assert!(xml.contains("2&#10;y\u{fffd}</failure>"), "{xml}");
    }
}
