//! Every Rust file opens by saying what it is for, and stays short enough to be read at once.

use super::Finding;
use crate::tree::{File, Tree};

/// Above this a file is worth a question.
const LINES_WARN: usize = 400;
/// Above this it must be split.
const LINES_MAX: usize = 800;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust().flat_map(|file| header(file).into_iter().chain(length(file))).collect()
}

fn header(file: &File) -> Option<Finding> {
    let opens = file.text.starts_with("//!");
    (!opens).then(|| Finding::fault(file, 1, "does not open with `//!` and what the file is for"))
}

fn length(file: &File) -> Option<Finding> {
    match file.text.lines().count() {
        lines if lines > LINES_MAX => {
            Some(Finding::fault(file, 0, format!("{lines} lines, more than {LINES_MAX}: split it")))
        }
        lines if lines > LINES_WARN => {
            Some(Finding::warning(file, 0, format!("{lines} lines: does it do one thing?")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn files_without_header_and_long_files_are_found() {
        let lines = |count: usize| format!("//! Long.\n{}", "\n".repeat(count - 1));
        let tree = Tree::of(&[
            ("a.rs", "//! Good.\n"),
            ("b.rs", "use std::fs;\n"),
            ("empty.rs", ""),
            ("long.rs", &lines(400)),
            ("longer.rs", &lines(401)),
            ("longest.rs", &lines(801)),
            ("notes.md", "no header needed"),
        ]);
        assert_eq!(
            shown(&check(&tree)),
            [
                "fault: b.rs:1: does not open with `//!` and what the file is for",
                "fault: empty.rs:1: does not open with `//!` and what the file is for",
                "warning: longer.rs: 401 lines: does it do one thing?",
                "fault: longest.rs: 801 lines, more than 800: split it",
            ]
        );
    }
}
