//! The small languages inside the values: sizes, paths, names, broker lists.
//!
//! Pure functions from a text to a value or `None`; the walker turns `None` into a fault.
//! (Durations are in `marquee_model`.)

use std::collections::BTreeMap;
use std::fmt;

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `4MiB`, `512KiB`, `1000B` or `1000` as bytes.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        _ => SIZES.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Writes bytes in the largest unit that keeps them whole.
pub(super) fn format_size(bytes: u64) -> String {
    let (name, factor) = SIZES
        .iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&SIZES[4]);
    format!("{}{name}", bytes / factor)
}

/// A path has at most this many keys.
pub(super) const MAX_PATH_KEYS: usize = 32;

/// Reads `ctx.request.id` as its keys. A backslash makes the dot, or the backslash, after it a part
/// of the key.
pub(super) fn parse_path(text: &str) -> Option<Vec<String>> {
    let mut keys = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let key = keys.last_mut()?;
        match character {
            '\\' => key.push(characters.next().filter(|next| matches!(next, '.' | '\\'))?),
            '.' => keys.push(String::new()),
            other => key.push(other),
        }
    }
    let fits = keys.len() <= MAX_PATH_KEYS && keys.iter().all(|key| !key.is_empty());
    fits.then_some(keys)
}

/// Writes keys as the path that reads as them.
pub(super) fn format_path(keys: &[String]) -> String {
    let escaped: Vec<String> =
        keys.iter().map(|key| key.replace('\\', "\\\\").replace('.', "\\.")).collect();
    escaped.join(".")
}

/// Kafka's rule for the name of a topic; the embedded log keeps it too.
pub(super) fn is_topic(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// Cassandra's rule for the name of a keyspace, without capitals, which would need quotes.
pub(super) fn is_keyspace(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=48).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether it is `host:port`, or several of them separated by commas.
pub fn is_broker_list(text: &str) -> bool {
    text.split(',').all(|broker| {
        broker.trim().rsplit_once(':').is_some_and(|(host, port)| {
            let host_fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace());
            host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    })
}

/// What every event has under these names in expressions; no attribute may hide it.
pub(super) const BUILT_IN: [&str; 6] =
    ["request_id", "video", "time", "record_time", "key", "headers"];

/// The words that CEL reserves (langdef.md, "Syntax").
const CEL_WORDS: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Whether CEL reads it as one identifier.
pub(super) fn is_identifier(name: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(letters)
        && name.bytes().all(|b| letters(b) || b.is_ascii_digit())
        && !CEL_WORDS.contains(&name)
}

/// The identifiers of a CEL expression, without what stands in quotes. Field names after a dot are
/// among them: this is a question of spelling, asked before anything is compiled.
pub(super) fn identifiers(expression: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => quoted_length(rest, first),
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
                if is_identifier(&rest[..length]) {
                    found.push(&rest[..length]);
                }
                length
            }
            c => c.len_utf8(),
        };
        rest = &rest[length..];
    }
    found
}

/// The length of the quoted text at the start, with its quotes; all of it where none ends it.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// Settings passed to the Kafka client. Some are secrets, so `Debug` writes the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(
    /// Values by name, `sasl.password` and the like.
    pub BTreeMap<String, String>,
);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("4MiB", 4 << 20), ("1GiB", 1 << 30), ("512KiB", 512 << 10), ("1000", 1000), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "4MB", "4 MiB", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths() {
        for (text, keys) in [
            ("ts", vec!["ts"]),
            ("ctx.request.id", vec!["ctx", "request", "id"]),
            (r"a\.b.c\\d", vec!["a.b", r"c\d"]),
        ] {
            let path = parse_path(text).expect(text);
            assert_eq!(path, keys, "{text}");
            assert_eq!(format_path(&path), text);
        }
        let deep = vec!["a"; MAX_PATH_KEYS + 1].join(".");
        for bad in ["", ".", "a.", ".a", "a..b", r"a\", r"a\b", &deep] {
            assert_eq!(parse_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn names() {
        assert!(is_topic("impressions-v1.eu_west") && is_topic(&"a".repeat(249)));
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"a".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
        assert!(is_keyspace("marquee_2"));
        for bad in ["", "2", "Marquee", "a-b", "a.b", "a;b", &"a".repeat(49)] {
            assert!(!is_keyspace(bad), "{bad}");
        }
        assert!(is_broker_list("a:9092, [::1]:9093"));
        for bad in ["", "a", "a:", ":9092", "a:9092,", "a:0", "a:70000"] {
            assert!(!is_broker_list(bad), "{bad}");
        }
        assert!(is_identifier("_a1"));
        for bad in ["", "1a", "a-b", "in", "null", "ä"] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn identifiers_are_found_outside_of_quotes() {
        assert_eq!(
            identifiers(r#"show != "" ? show + 'no \' one' : video + "x" + size(a1)"#),
            ["show", "show", "video", "size", "a1"],
        );
        assert_eq!(identifiers("'open"), Vec::<&str>::new());
    }

    #[test]
    fn secrets_are_not_printed() {
        let properties = Properties([("sasl.password".into(), "hunter2".into())].into());
        assert_eq!(format!("{properties:?}"), r#"{"sasl.password"}"#);
    }
}
