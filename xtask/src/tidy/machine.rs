//! Nothing of one machine stands in the tree: no folders of a workshop, no hosts of a private
//! network or registry.

use super::Finding;
use crate::tree::{File, Tree};

/// Written in two pieces, or this file would be found, too.
const WORDS: [(&str, &str); 10] = [
    (concat!("/wo", "rk/"), "a folder of one machine"),
    (concat!("/ro", "ot/"), "a folder of one machine"),
    (concat!("far", "m-"), "a name of one machine"),
    (concat!("://1", "0."), "an address of a private network"),
    (concat!("://192.", "168."), "an address of a private network"),
    (concat!(".inter", "nal/"), "a host of a private network"),
    (concat!(".inter", "nal:"), "a host of a private network"),
    (concat!("index-", "url"), "a private registry"),
    (concat!("[source.", "crates-io]"), "a private registry"),
    (concat!("registry = ", "\"http"), "a private registry"),
];

/// The only place that crates come from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().flat_map(|file| words(file).into_iter().chain(sources(file))).collect()
}

fn words(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().enumerate();
    let faults = lines.filter_map(|(index, line)| {
        let (word, what) = WORDS.iter().find(|(word, _)| names(line, word))?;
        Some(Finding::fault(file, index + 1, format!("contains {word:?}: {what}")))
    });
    faults.collect()
}

/// Whether a line has the words; `./a/b` and `x/a/b` do not name the folder `/a/`.
fn names(line: &str, word: &str) -> bool {
    let is_longer = |c: char| word.starts_with('/') && (c.is_alphanumeric() || "._-".contains(c));
    line.match_indices(word).any(|(start, _)| !line[..start].ends_with(is_longer))
}

/// Crates in a lock file that come from elsewhere.
fn sources(file: &File) -> Vec<Finding> {
    if !file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate();
    let others = lines.filter(|(_, line)| {
        line.starts_with("source = ")
            && line.trim_start_matches("source = ").trim_matches('"') != CRATES_IO
    });
    others
        .map(|(i, line)| Finding::fault(file, i + 1, format!("{line}: not from crates.io")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn folders_and_hosts_of_one_machine_are_found() {
        for (word, _) in WORDS {
            let text = format!("fine\nsee {word}x\n");
            let found = check(&Tree::of(&[(".ci/run", &text)]));
            assert_eq!(found.len(), 1, "{word}");
            assert!(shown(&found)[0].starts_with("fault: .ci/run:2: contains "), "{found:?}");
        }
        let lock = "source = \"registry+https://example.org/index\"\n";
        assert_eq!(check(&Tree::of(&[("Cargo.lock", lock)])).len(), 1);
    }

    #[test]
    fn public_hosts_and_relative_folders_are_not() {
        let lock = format!("source = {CRATES_IO:?}\n");
        let tree = Tree::of(&[
            ("Cargo.lock", &lock),
            ("README.md", "https://crates.io ./work/x http://127.0.0.1:8080 framework/\n"),
        ]);
        assert_eq!(shown(&check(&tree)), Vec::<String>::new());
    }
}
