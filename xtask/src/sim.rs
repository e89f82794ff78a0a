//! `cargo xtask sim`: builds the simulation as fast as it gets, and runs that.

use crate::process::{cargo, pass_through, root, target_dir};
use anyhow::Result;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Replay this seed, print what happens, and shorten it if it fails
    #[arg(long)]
    seed: Option<u64>,
    /// The first of many seeds
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    count: u64,
}

/// Runs; whether nothing went against the contract.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if !pass_through(&mut cargo(&["build", "--release", "-p", "marquee-sim"]), |_| {})? {
        return Ok(false);
    }
    let mut sim = Command::new(target_dir().join("release/marquee-sim"));
    sim.current_dir(root());
    match arguments.seed {
        Some(seed) => sim.arg(format!("--seed={seed}")),
        None => {
            sim.args([format!("--from={}", arguments.from), format!("--count={}", arguments.count)])
        }
    };
    pass_through(&mut sim, |_| {})
}
