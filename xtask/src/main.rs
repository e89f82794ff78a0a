//! One entry for every chore of this workspace: `cargo xtask <chore>`.
//!
//! [`test`] is what a developer runs before a commit and what CI runs, the same steps in the same
//! order; [`tidy`] and [`licenses`] check what no compiler checks; [`bench`] measures; [`sim`]
//! simulates histories; [`services`] runs real servers. Nothing here installs anything on the
//! machine: `.ci/run` does that. What [`services`] fetches stays in a cache folder.

mod bench;
mod licenses;
mod process;
mod report;
mod sanitize;
mod services;
mod sim;
mod test;
mod tidy;
mod tree;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The chores of this workspace.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 100)]
#[command(after_help = "Before a commit:  cargo xtask fmt && cargo xtask test")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run all checks and tests, exactly what CI runs
    Test(test::Arguments),
    /// Check what no compiler checks: headers, purity, dependencies, invariants, cited paths
    Tidy,
    /// Check licenses, sources and bans of all dependencies by deny.toml
    Licenses,
    /// Format all Rust files
    Fmt,
    /// Run the tests of the unsafe code under an address sanitizer (slow: builds everything anew)
    Sanitize,
    /// Measure speed and memory against DuckDB, the core alone and the collector
    Bench(bench::Arguments),
    /// Simulate histories with faults by their seeds, and judge them by the contract
    Sim(sim::Arguments),
    /// Start, stop and install real servers: Kafka, Cassandra, an object store, a fault proxy
    Services(services::Arguments),
}

fn main() -> Result<ExitCode> {
    let all_well = match Cli::parse().chore {
        Chore::Test(arguments) => test::run(&arguments)?,
        Chore::Tidy => tidy::run()?,
        Chore::Licenses => licenses::run()?.is_passed(),
        Chore::Fmt => process::cargo(&["fmt", "--all"]).status()?.success(),
        Chore::Sanitize => sanitize::run()?,
        Chore::Bench(arguments) => bench::run(&arguments)?,
        Chore::Sim(arguments) => sim::run(&arguments)?,
        Chore::Services(arguments) => services::run(&arguments).map(|()| true)?,
    };
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
