//! Tests whose servers cannot run everywhere say so, and `cargo xtask test` counts them as skipped.

// Not every file of tests has all kinds of them.
#![allow(dead_code)]

use std::io::Write;

/// Whether the test can run. If not, it says so, or panics in CI: there everything must run.
pub(crate) fn is_there(missing: Option<String>) -> bool {
    let Some(tool) = missing else { return true };
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!is_ci, "{tool} is missing, and this is CI");
    skipped(&format!("{tool} is missing"));
    false
}

/// Whether a slow test shall run. If not, it is skipped.
pub(crate) fn slow() -> bool {
    let slow = std::env::var_os("MARQUEE_SLOW").is_some();
    if !slow {
        skipped("slow; `cargo xtask test --slow` runs it");
    }
    slow
}

fn skipped(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by `eprintln!`: the test harness keeps to itself what passing tests print.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes());
}
