//! The invariants that ARCHITECTURE.md names, as **WORDS**, are those that the code names, as
//! "invariant WORD" where something keeps it or relies on it.

use super::Finding;
use crate::tree::{File, Tree};
use std::collections::BTreeMap;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// `is_required`: whether the document must be there.
pub(super) fn check(tree: &Tree, is_required: bool) -> Vec<Finding> {
    let Some(document) = tree.get(DOCUMENT) else {
        let missing = File { path: DOCUMENT.to_owned(), text: String::new() };
        let words = "is missing: the invariants cannot be checked";
        let finding = if is_required { Finding::fault } else { Finding::warning };
        return vec![finding(&missing, 0, words)];
    };
    let named = named_in_document(&document.text);
    let used = named_in_code(tree);
    let unknown =
        used.iter().filter(|(word, _)| !named.contains_key(word.as_str())).map(|(word, file)| {
            Finding::fault(
                file,
                0,
                format!("names the invariant {word}, which {DOCUMENT} does not"),
            )
        });
    let unkept =
        named.iter().filter(|(word, _)| !used.contains_key::<str>(word)).map(|(word, line)| {
            let words =
                format!("no code says where the invariant {word} is kept (\"invariant {word}\")");
            Finding::fault(document, *line, words)
        });
    unknown.chain(unkept).collect()
}

/// Words in capitals that stand between double asterisks, and their lines.
fn named_in_document(text: &str) -> BTreeMap<&str, usize> {
    let mut named = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let bold = line.split("**").skip(1).step_by(2).map(|word| word.trim_end_matches('.'));
        bold.filter(|word| is_name(word)).for_each(|word| {
            named.entry(word).or_insert(index + 1);
        });
    }
    named
}

/// Words in capitals after "invariant", and a file that has them.
fn named_in_code(tree: &Tree) -> BTreeMap<String, &File> {
    let mut used = BTreeMap::new();
    // The checks themselves write of invariants without keeping them.
    for file in tree.rust().filter(|file| !file.path.starts_with("xtask/")) {
        let words = file.text.split_whitespace().filter(|word| !is_comment_mark(word));
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let is_mention = pair[0].to_ascii_lowercase().ends_with("invariant");
            let word = pair[1].trim_matches(|c: char| !c.is_ascii_uppercase());
            if is_mention && is_name(word) {
                used.entry(word.to_owned()).or_insert(file);
            }
        }
    }
    used
}

fn is_comment_mark(word: &str) -> bool {
    matches!(word, "//" | "///" | "//!")
}

fn is_name(word: &str) -> bool {
    word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    const CODE: &str = "//! Keeps order (invariant\n//! MONO). Invariant PURE: no clock.\n";

    #[test]
    fn the_same_invariants_on_both_sides_are_fine() {
        let tree = Tree::of(&[
            (
                "ARCHITECTURE.md",
                "- **PURE** No clock.\n- **MONO.** Only adds. **Not one** **UI**\n",
            ),
            ("crates/x.rs", CODE),
        ]);
        assert_eq!(shown(&check(&tree, true)), Vec::<String>::new());
    }

    #[test]
    fn an_invariant_that_only_one_side_names_is_found() {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", "Words\n\n- **PURE** No clock.\n- **LOG** The truth.\n"),
            ("crates/x.rs", CODE),
        ]);
        assert_eq!(
            shown(&check(&tree, true)),
            [
                "fault: crates/x.rs: names the invariant MONO, which ARCHITECTURE.md does not",
                "fault: ARCHITECTURE.md:4: no code says where the invariant LOG is kept \
                 (\"invariant LOG\")",
            ]
        );
    }

    #[test]
    fn a_missing_document_is_a_fault_only_where_it_is_required() {
        let tree = Tree::of(&[("crates/x.rs", CODE)]);
        assert!(shown(&check(&tree, true))[0].starts_with("fault: ARCHITECTURE.md: is missing"));
        assert!(shown(&check(&tree, false))[0].starts_with("warning: ARCHITECTURE.md: is missing"));
    }
}
