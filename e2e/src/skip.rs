//! Tests that cannot run everywhere say so, and are counted as skipped by `cargo xtask test`.

use std::io::Write;

/// A tool that a test needs is missing. Panics in CI: there everything must run.
pub fn missing_tool(tool: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!is_ci, "{tool} is missing, and this is CI");
    skipped(&format!("{tool} is missing"));
}

/// A test cannot run here, and nobody can be asked to change that (no root, say).
pub fn skipped(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {test}: {reason}\n");
    // Not by `eprintln!`: the test harness keeps to itself what passing tests print.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether a slow test shall run. If not, it is skipped.
pub fn slow() -> bool {
    let slow = std::env::var_os("MARQUEE_SLOW").is_some();
    if !slow {
        skipped("slow; `cargo xtask test --slow` runs it");
    }
    slow
}
