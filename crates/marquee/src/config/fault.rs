//! What is wrong with a configuration, said so that the reader can repair it at once.
//!
//! A fault names the place, what stands there, what should, and an example to copy. Faults are
//! collected, never thrown: a file with five mistakes is refused once, with five lines.

use std::fmt;

/// One mistake in a configuration file. Its `Display` is one line:
///
/// ```
/// use marquee::config::Fault;
/// let fault = Fault {
///     file: "marquee.toml".into(),
///     line: 12,
///     key: "join.within".into(),
///     found: "\"1hour\"".into(),
///     expected: "a duration".into(),
///     example: "\"1h\"".into(),
///     hint: None,
/// };
/// assert_eq!(
///     fault.to_string(),
///     r#"marquee.toml:12: join.within: found "1hour", expected a duration, for example "1h""#,
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as the user named it.
    pub file: String,
    /// Line in that file, counted from 1; 0 where the fault is the file itself.
    pub line: usize,
    /// The key in full, `join.within`; empty where the text is no TOML or the file not readable.
    pub key: String,
    /// What stands there, written as in the file.
    pub found: String,
    /// What may stand there.
    pub expected: String,
    /// A value that would be accepted, written as in the file; empty where there is none.
    pub example: String,
    /// What to do, where the expectation alone does not say it.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " found {}, expected {}", self.found, self.expected)?;
        if !self.example.is_empty() {
            write!(f, ", for example {}", self.example)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// The known word that was probably meant: the nearest one, if no more than a third of its letters
/// differ.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, where an edit adds, drops or changes a letter or swaps two neighbours
/// (the "optimal string alignment" distance).
fn distance(a: &str, b: &str) -> usize {
    // Longer words than these are no misspelt key, and the table below is quadratic.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = change.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        let keys = ["match", "within", "early", "lateness", "max_ahead"];
        for (typed, meant) in [
            ("wihtin", Some("within")),
            ("late_ness", Some("lateness")),
            ("max_head", Some("max_ahead")),
            ("earl", Some("early")),
            ("window", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }
}
