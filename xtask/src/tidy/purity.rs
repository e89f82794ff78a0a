//! Invariant PURE, as far as names can tell: the core reads no clock, does no I/O, starts no
//! thread, draws no random number and iterates no randomly ordered map.

use super::Finding;
use crate::tree::{File, Tree};

/// The crates that must be pure.
const PURE: [&str; 3] = ["crates/model/src/", "crates/expr/src/", "crates/pipeline/src/"];

/// What must not be named there, and what to do instead.
const BANNED: [(&[&str], &str); 8] = [
    (&["Instant", "SystemTime"], "no clock: times come in as values"),
    (&["std::fs"], "no files"),
    (&["std::net"], "no network"),
    (&["std::thread", "thread::spawn"], "no threads: one owner drives a lane"),
    (&["tokio", "async_std"], "nothing here is async"),
    (&["rand", "rand_chacha", "getrandom", "fastrand"], "no random numbers: the seed comes in"),
    (&["RandomState", "DefaultHashBuilder"], "no random hashes: use a seeded hasher"),
    (
        &["HashMap::new", "HashSet::new", "HashMap::with_capacity", "HashSet::with_capacity"],
        "its hasher is seeded at random: use with_hasher and a fixed seed",
    ),
];

/// `std`'s maps have a random hasher unless another is named.
const STD_MAPS: [&str; 2] = ["HashMap", "HashSet"];

/// What is allowed all the same: the file, the word, and why.
const ALLOWED: [(&str, &str, &str); 6] = [
    (
        "crates/expr/src/syntax.rs",
        "std::thread",
        "the parser recurses: a hostile expression gets a stack of its own, once, at the start",
    ),
    ("crates/expr/src/interpret.rs", "std HashMap", "what the cel crate takes"),
    ("crates/expr/src/interpret.rs", "HashMap::new", "what the cel crate takes"),
    ("crates/expr/src/record.rs", "std HashMap", "what the cel crate takes"),
    ("crates/expr/src/record.rs", "HashMap::new", "what the cel crate takes"),
    ("crates/expr/src/sets.rs", "std HashSet", "it names its own hasher and is never iterated"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let pure = tree.rust().filter(|f| PURE.iter().any(|folder| f.path.starts_with(folder)));
    pure.filter(|file| !file.is_test()).flat_map(faults).collect()
}

fn faults(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (number, line) in file.program_lines() {
        for (words, advice) in BANNED {
            let named = words.iter().find(|word| names(line, word) && !is_allowed(file, word));
            found.extend(named.map(|word| {
                Finding::fault(file, number, format!("names {word} in the pure core; {advice}"))
            }));
        }
        found.extend(std_map(file, number, line));
    }
    found
}

fn std_map(file: &File, number: usize, line: &str) -> Option<Finding> {
    let map =
        STD_MAPS.into_iter().find(|map| line.contains("std::collections") && names(line, map))?;
    let words = format!("names std's {map} in the pure core: it is ordered at random");
    (!is_allowed(file, &format!("std {map}"))).then(|| Finding::fault(file, number, words))
}

fn is_allowed(file: &File, word: &str) -> bool {
    ALLOWED.iter().any(|(path, allowed, _)| file.path == *path && word == *allowed)
}

/// Whether a line names a word, and not only a longer word that contains it. `use` groups count:
/// `std::{fs, net}` names `std::fs`.
fn names(line: &str, word: &str) -> bool {
    if line.contains("std::{")
        && let Some(part) = word.strip_prefix("std::")
    {
        return names(line, part);
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn clocks_files_threads_randomness_and_random_maps_are_found() {
        for (line, named) in [
            ("use std::time::Instant;", "Instant"),
            ("let now = std::time::SystemTime::now();", "SystemTime"),
            ("use std::{fs, io};", "std::fs"),
            ("let s = std::net::TcpStream::connect(x);", "std::net"),
            ("std::thread::sleep(d);", "std::thread"),
            ("tokio::spawn(f);", "tokio"),
            ("let x: u8 = rand::random();", "rand"),
            ("let m: HashMap<u8, u8> = HashMap::new();", "HashMap::new"),
            ("use std::collections::{BTreeMap, HashMap};", "std's HashMap"),
            ("let s = std::hash::RandomState::new();", "RandomState"),
        ] {
            let text = format!("//! Core.\n{line}\n");
            let found = check(&Tree::of(&[("crates/pipeline/src/x.rs", &text)]));
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            let start = format!("fault: crates/pipeline/src/x.rs:2: names {named} ");
            assert!(shown(&found)[0].starts_with(&start), "{found:?}");
        }
    }

    #[test]
    fn comments_tests_other_crates_and_longer_words_are_not() {
        let text = "//! Reads no Instant.\n// rand\nlet operand = brand(InstantX);\n\
                    use std::collections::BTreeMap;\nuse hashbrown::HashMap;\n\
                    #[cfg(test)]\nmod tests { use std::time::Instant; }\n";
        let clock = "//! x\nuse std::time::Instant;\n";
        let tree = Tree::of(&[
            ("crates/pipeline/src/x.rs", text),
            ("crates/pipeline/src/x/tests.rs", clock),
            ("crates/pipeline/tests/x.rs", clock),
            ("crates/runtime/src/x.rs", clock),
            ("crates/expr/src/syntax.rs", "//! x\nuse std::thread;\n"),
        ]);
        assert_eq!(shown(&check(&tree)), Vec::<String>::new());
    }
}
