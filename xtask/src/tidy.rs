//! `cargo xtask tidy`: what the house rules ask and no compiler checks.
//!
//! Each check is a function from the tree to what is wrong with it, and has tests that plant the
//! violation. [`headers`]: how files open and how long they are; [`purity`]: no clock, file, thread
//! or randomness in the core; [`edges`]: which crate may depend on which; [`invariants`]: those of
//! ARCHITECTURE.md and of the code are the same; [`citations`]: paths in documents exist;
//! [`machine`]: nothing of one machine stands in the tree.

mod citations;
mod edges;
mod headers;
mod invariants;
mod machine;
mod purity;

use crate::process::{is_ci, root};
use crate::tree::{File, Tree};
use anyhow::Result;
use std::fmt;

/// Something that is wrong with a file, or at least worth a look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1; 0 is the whole file.
    line: usize,
    words: String,
    /// A warning does not fail the check.
    is_warning: bool,
}

impl Finding {
    fn fault(file: &File, line: usize, words: impl Into<String>) -> Finding {
        Finding { path: file.path.clone(), line, words: words.into(), is_warning: false }
    }

    fn warning(file: &File, line: usize, words: impl Into<String>) -> Finding {
        Finding { is_warning: true, ..Finding::fault(file, line, words) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "fault" };
        match self.line {
            0 => write!(f, "{kind}: {}: {}", self.path, self.words),
            line => write!(f, "{kind}: {}:{line}: {}", self.path, self.words),
        }
    }
}

/// Checks the project and prints what was found; whether it is tidy.
pub(crate) fn run() -> Result<bool> {
    let tree = Tree::read(&root())?;
    let mut findings = [
        headers::check(&tree),
        purity::check(&tree),
        edges::check(&tree)?,
        invariants::check(&tree, is_ci()),
        citations::check(&tree),
        machine::check(&tree),
    ]
    .concat();
    findings.sort();
    findings.iter().for_each(|finding| println!("{finding}"));
    let faults = findings.iter().filter(|finding| !finding.is_warning).count();
    println!("tidy: {} files, {faults} faults", tree.files.len());
    Ok(faults == 0)
}

/// The findings of a check in a planted tree, as they are printed.
#[cfg(test)]
fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(Finding::to_string).collect()
}
