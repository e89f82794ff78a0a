//! Measures the program: `cargo xtask bench` builds it and runs `all`.
//!
//! [`whole`]: a backfill of files against DuckDB on the same files. [`core`]: the pure pipeline
//! alone, fed with decoded events. [`collector`]: events accepted over HTTP by a running service.
//! [`page`] puts the results into a table, with the [`machine`] that they were measured on.

mod collector;
mod core;
mod machine;
mod page;
mod whole;

use anyhow::Result;
use clap::{Parser, Subcommand};
use page::Row;

/// Measures marquee. Build it with --release, and leave the machine alone meanwhile.
#[derive(Debug, Parser)]
#[command(name = "marquee-bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything, as a table
    All(Arguments),
    /// Backfill against DuckDB
    Whole(Arguments),
    /// The pipeline alone
    Core(Arguments),
    /// The collector
    Collector(Arguments),
}

#[derive(Debug, clap::Args)]
struct Arguments {
    /// Requests of the generated data (about 8.7 events each)
    #[arg(long, default_value_t = 600_000)]
    requests: u64,
    /// How often each program runs, in turn
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the table into docs/performance.md, too
    #[arg(long)]
    write: bool,
}

/// One part of the measurements.
type Part = fn(&Arguments) -> Result<Vec<Row>>;

fn main() -> Result<()> {
    let (parts, arguments): (&[Part], Arguments) = match Cli::parse().what {
        What::All(arguments) => (&[whole::measure, core::measure, collector::measure], arguments),
        What::Whole(arguments) => (&[whole::measure], arguments),
        What::Core(arguments) => (&[core::measure], arguments),
        What::Collector(arguments) => (&[collector::measure], arguments),
    };
    let mut rows = Vec::new();
    for part in parts {
        rows.extend(part(&arguments)?);
    }
    let table = page::table(&rows);
    println!("{table}");
    if arguments.write {
        page::write(&table, &arguments)?;
    }
    Ok(())
}

/// The median; of an even number the lower one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
