//! `cargo xtask bench`: builds what is shipped, and the program that measures it, and runs that.

use crate::process::{cargo, pass_through, root, target_dir};
use anyhow::Result;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the results into docs/performance.md, too
    #[arg(long)]
    write: bool,
    /// Requests of the generated data (about 8.7 events each)
    #[arg(long, default_value_t = 600_000)]
    requests: u64,
    /// How often each program runs, in turn
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

/// Measures; whether all went well.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let build = ["build", "--release", "-p", "marquee", "-p", "marquee-bench"];
    if !pass_through(&mut cargo(&build), |_| {})? {
        return Ok(false);
    }
    let built = target_dir().join("release");
    let mut bench = Command::new(built.join("marquee-bench"));
    bench.env("MARQUEE_BIN", built.join("marquee")).current_dir(root()).arg("all");
    bench.arg(format!("--requests={}", arguments.requests));
    bench.arg(format!("--runs={}", arguments.runs));
    if arguments.write {
        bench.arg("--write");
    }
    pass_through(&mut bench, |_| {})
}
