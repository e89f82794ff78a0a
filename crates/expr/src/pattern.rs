//! The pattern of `matches`: literals with anchors and alternatives become string comparisons,
//! everything else is compiled once, by the `regex` crate that `cel` itself uses, within a bound on
//! size. (`cel` would compile the pattern at every call.)

use crate::error::EvalError;
use crate::limits::{PATTERN_BYTES_MAX, PATTERN_SIZE_MAX};

/// Memory that one compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A pattern that is known to be valid and bounded.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// Any of these.
    Literals(Box<[Literal]>),
    /// A regular expression: linear in the text.
    General(regex::Regex),
}

/// A literal, and whether it must begin or end the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    text: Box<str>,
    at_start: bool,
    at_end: bool,
}

impl Pattern {
    /// Checks a pattern; the error is a message for its author.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        if source.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(literals) = literals(source) {
            return Ok(Pattern::Literals(literals));
        }
        if size(source) > PATTERN_SIZE_MAX {
            return Err("the pattern repeats too much: it would be too large".to_owned());
        }
        let compiled = regex::RegexBuilder::new(source).size_limit(COMPILED_BYTES_MAX).build();
        compiled.map(Pattern::General).map_err(|error| in_one_line(&error))
    }

    pub(crate) fn is_match(&self, text: &str) -> Result<bool, EvalError> {
        match self {
            Pattern::Literals(literals) => Ok(literals.iter().any(|literal| literal.is_in(text))),
            Pattern::General(pattern) => Ok(pattern.is_match(text)),
        }
    }
}

impl Literal {
    fn is_in(&self, text: &str) -> bool {
        match (self.at_start, self.at_end) {
            (true, true) => *text == *self.text,
            (true, false) => text.starts_with(&*self.text),
            (false, true) => text.ends_with(&*self.text),
            (false, false) => text.contains(&*self.text),
        }
    }
}

/// What is wrong, without the drawing of the place.
fn in_one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("no valid regex: {}", last.strip_prefix("error: ").unwrap_or(last))
}

/// The pattern as literals, if it is nothing else: `a|b`, `^a`, `b$`, `^(a|b)$`.
fn literals(source: &str) -> Option<Box<[Literal]>> {
    let (body, at_start) = strip(source, source.strip_prefix('^'));
    let (body, at_end) = strip(body, body.strip_suffix('$'));
    let group = body.strip_prefix("(?:").or_else(|| body.strip_prefix('('));
    if let Some(group) = group.and_then(|group| group.strip_suffix(')')) {
        return group.split('|').map(|text| literal(text, at_start, at_end)).collect();
    }
    source
        .split('|')
        .map(|alternative| {
            let (text, at_start) = strip(alternative, alternative.strip_prefix('^'));
            let (text, at_end) = strip(text, text.strip_suffix('$'));
            literal(text, at_start, at_end)
        })
        .collect()
}

fn strip<'s>(whole: &'s str, stripped: Option<&'s str>) -> (&'s str, bool) {
    (stripped.unwrap_or(whole), stripped.is_some())
}

/// A literal without operators. Of escapes only punctuation is taken: `\.` is a dot.
fn literal(source: &str, at_start: bool, at_end: bool) -> Option<Literal> {
    let mut text = String::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(character) = chars.next() {
        match character {
            '\\' => text.push(chars.next().filter(|c| "./-+*?()[]{}^$|\\".contains(*c))?),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => text.push(plain),
        }
    }
    Some(Literal { text: text.into(), at_start, at_end })
}

/// An upper estimate of the compiled size, in literals: a repetition multiplies what it repeats.
fn size(source: &str) -> u64 {
    // For every open group: the size of what is complete in it, and of its last atom.
    let mut groups: Vec<(u64, u64)> = vec![(0, 0)];
    let mut rest = source.chars();
    while let Some(character) = rest.next() {
        let (done, last) = groups.pop().unwrap_or((0, 0));
        let complete = done.saturating_add(last);
        match character {
            '(' => groups.extend([(complete, 0), (0, 0)]),
            ')' => match groups.pop() {
                Some((outer, _)) => groups.push((outer, complete)),
                None => groups.push((complete, 0)),
            },
            '{' => {
                let counts: String = rest.by_ref().take_while(|c| *c != '}').collect();
                let most = counts.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max();
                groups.push((done, last.saturating_mul(most.unwrap_or(1).saturating_add(1))));
            }
            '*' | '+' | '?' => groups.push((done, last.saturating_mul(2))),
            '\\' => {
                let class = rest.next().is_some_and(|c| c.is_ascii_alphabetic());
                groups.push((complete, if class { 40 } else { 1 }));
            }
            '[' => {
                skip_class(&mut rest);
                groups.push((complete, 20));
            }
            '.' => groups.push((complete, 10)),
            _ => groups.push((complete, 1)),
        }
    }
    groups.iter().fold(0, |sum, (done, last)| sum.saturating_add(*done).saturating_add(*last))
}

/// Skips the rest of a character class, so that a brace in it is no repetition.
fn skip_class(rest: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while depth > 0 {
        match rest.next() {
            Some('\\') => drop(rest.next()),
            Some('[') => depth += 1,
            Some(']') => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::interpret::{environment, reason};
    use cel::common::types::{CelBool, CelString};
    use cel::common::value::CowVal;

    /// A pattern, and whether it is one of literals; then texts, and the crate's own answers.
    fn check(source: &str, simple: bool, texts: &[&str]) {
        let pattern = Pattern::new(source).unwrap();
        assert_eq!(matches!(pattern, Pattern::Literals(_)), simple, "{source}");
        for text in texts {
            assert_eq!(pattern.is_match(text), matches(text, source), "{source} on {text:?}");
        }
    }

    #[test]
    fn literal_patterns_agree_with_the_regular_expressions() {
        let texts = ["", "a", "b", "ab", "ba", "aab", "tv", "smart tv", "tv-2", "a.b", "a\n", "|"];
        for source in [
            "a",
            "^a",
            "a$",
            "^a$",
            "a|b",
            "^a|b$",
            "^(a|b)$",
            "(a|b)",
            "^(?:tv|ab)",
            "a\\.b",
            "^$",
        ] {
            check(source, true, &texts);
        }
        for source in ["a+", "^(a|b)+$", "(a)|(b)", "a.b", "[ab]$", "(?i)TV", "^a\\d", "(a)(b)"] {
            check(source, false, &texts);
        }
    }

    #[test]
    fn bounds_and_errors() {
        check("(a+)+$", false, &["a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"]);
        check("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", false, &["x"]);
        let nested = "((((a{90}){90}){90}){90}){90}";
        for source in ["(a{1000}){1000}", "\\w{1000}", "a{4294967295}", nested, "(", "[", "a**{"] {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
        assert!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    /// Runs the `matches` of the `cel` crate.
    fn matches(text: &str, pattern: &str) -> Result<bool, EvalError> {
        let args: Vec<CowVal<'_, '_>> =
            vec![CowVal::owned(CelString::from(text)), CowVal::owned(CelString::from(pattern))];
        let Some(function) = environment().find_overload("matches", &args) else {
            return Err(EvalError::new("regular expressions are not compiled in"));
        };
        let found = function(args).map_err(|error| reason(&error))?;
        found
            .downcast_ref::<CelBool>()
            .map(|found| *found.inner())
            .ok_or(EvalError::new("matches() gave no bool"))
    }
}
