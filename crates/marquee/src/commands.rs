//! The command line: what can be asked for, and what exit codes mean.

mod backfill;
mod check;
mod demo;
mod failure;
mod generate;
mod run;
mod schema;
mod trends;
mod verify;

pub use failure::Failure;

use crate::config::{Config, Fault};
use crate::wiring;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// What people were shown, joined with what they chose, as exact sets, while it happens.
#[derive(Debug, Parser)]
#[command(name = "marquee", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done; 1 it ran and failed; 2 wrong usage or configuration.\n\
    Start with:  marquee demo"
)]
pub struct Cli {
    /// Log more (to standard error; RUST_LOG chooses in detail)
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine, with simulated members, and watch cells change
    Demo(demo::Arguments),
    /// The part of the demo that can be killed; the demo starts it by itself
    #[command(hide = true)]
    DemoProcessor(demo::ProcessorArguments),
    /// Run the service: collect over HTTP, join, count, answer questions
    Run(run::Arguments),
    /// Count files that end: NDJSON (plain, gzip, Zstandard, `-` for standard input) or Parquet
    Backfill(backfill::Arguments),
    /// Show what was counted
    Trends(trends::Arguments),
    /// Count once more from the log or from files, compare with the store, add what is missing
    Verify(verify::Arguments),
    /// Check a configuration and show what it means
    Check(check::Arguments),
    /// Show or make the tables of a Cassandra store
    Schema(schema::Arguments),
    /// Write invented impressions and plays to files or Kafka, the same for the same flags
    Generate(generate::Arguments),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration (docs/configuration.md)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl ConfigArgument {
    /// Reads the configuration, or finds everything that is wrong with it, expressions included.
    fn load(&self) -> Result<Config, Failure> {
        let (config, mut faults) =
            Config::load_with_faults(&self.config).map_err(Failure::Config)?;
        if faults.is_empty() {
            return Ok(config);
        }
        if let Err(Failure::Config(more)) = wiring::plan(&config) {
            // Where the attributes are wrong, expressions that use them are not judged.
            let is_judged = |fault: &Fault| {
                let section = fault.key.split('.').next().unwrap_or_default();
                let attributes = format!("{section}.attributes");
                !faults.iter().any(|f| f.key == fault.key || f.key.starts_with(&attributes))
            };
            let more: Vec<Fault> = more.into_iter().filter(is_judged).collect();
            faults.extend(more);
            faults.sort_by_key(|fault| fault.line);
        }
        Err(Failure::Config(faults))
    }
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Demo(arguments) => arguments.run(self.verbose),
            Command::DemoProcessor(arguments) => arguments.run(),
            Command::Run(arguments) => arguments.run(),
            Command::Trends(arguments) => arguments.run(),
            Command::Backfill(arguments) => arguments.run(),
            Command::Verify(arguments) => arguments.run(),
            Command::Check(arguments) => arguments.run(),
            Command::Schema(arguments) => arguments.run(),
            Command::Generate(arguments) => arguments.run(),
        }
    }
}
