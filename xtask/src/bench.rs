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
    /// Instead: instructions of an event by stage (needs valgrind)
    #[arg(long)]
    stages: bool,
    /// Instead: cost of an event and memory over 200 M events, and two threads for one
    #[arg(long)]
    steady: bool,
    /// Instead: flame graphs into docs/ (needs perf and inferno)
    #[arg(long)]
    flames: bool,
}

impl Arguments {
    /// What stands in place of the usual measurements, if anything.
    fn instead(&self) -> Vec<&'static str> {
        let all = [(self.stages, "stages"), (self.steady, "steady"), (self.flames, "flames")];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
    }
}

/// Measures; whether all went well.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let build = ["build", "--release", "-p", "marquee", "-p", "marquee-bench"];
    if !pass_through(&mut cargo(&build), |_| {})? {
        return Ok(false);
    }
    let built = target_dir().join("release");
    let bench = || {
        let mut bench = Command::new(built.join("marquee-bench"));
        bench.env("MARQUEE_BIN", built.join("marquee")).current_dir(root());
        bench
    };
    let instead = arguments.instead();
    if !instead.is_empty() {
        let run = |what: &&str| pass_through(bench().arg(what), |_| {});
        return Ok(instead.iter().map(run).collect::<Result<Vec<_>>>()?.into_iter().all(|ok| ok));
    }
    let mut bench = bench();
    bench.arg("all");
    bench.arg(format!("--requests={}", arguments.requests));
    bench.arg(format!("--runs={}", arguments.runs));
    if arguments.write {
        bench.arg("--write");
    }
    pass_through(&mut bench, |_| {})
}
