//! Results as a Markdown table, and as a page of the documents.

use crate::{Arguments, machine};
use anyhow::{Context, Result};
use marquee_e2e::program::root;

const PAGE: &str = "docs/performance.md";

/// What stands between these lines of the page is written by this program.
const BEGIN: &str = "<!-- written by `cargo xtask bench --write`: begin -->";
const END: &str = "<!-- written by `cargo xtask bench --write`: end -->";

/// One result.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) result: String,
    /// Memory, or for the collector its latency.
    pub(crate) memory: String,
}

impl Row {
    /// Something that could not be measured, and why.
    pub(crate) fn note(what: &str, reason: &str) -> Row {
        Row { what: what.to_owned(), result: reason.to_owned(), memory: String::new() }
    }
}

/// The table, under the date and the machine.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table =
        machine::describe() + ":\n\n| what | result | peak memory, latency |\n|---|---|---|\n";
    for row in rows {
        table += &format!("| {} | {} | {} |\n", row.what, row.result, row.memory);
    }
    table
}

/// Puts the table into its place on the page.
pub(crate) fn write(table: &str, arguments: &Arguments) -> Result<()> {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} has no {BEGIN}"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no {END}"))?;
    let repeat = format!(
        "Repeat: `cargo xtask bench --requests {} --runs {}`.",
        arguments.requests, arguments.runs
    );
    let page = format!("{head}{BEGIN}\n{table}\n{repeat}\n{END}{tail}");
    std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    eprintln!("written into {PAGE}");
    Ok(())
}
