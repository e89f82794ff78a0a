//! Measures the program: `cargo xtask bench` builds it and runs `all`.
//!
//! [`whole`]: a backfill of files against DuckDB on the same files, and with one thread. [`core`]:
//! the pure pipeline alone, fed with decoded events. [`collector`]: events accepted over HTTP by a
//! running service. [`freshness`]: from an event to the API that shows it. [`kafka`]: a running
//! service that catches up with topics, against a [`reader`] that does nothing with their records.
//!
//! By themselves, since they take longer or need other tools: [`steady`] runs real lanes
//! ([`stream`]) on an [`endless`] log, over simulated days; [`stages`] counts instructions by means
//! of [`callgrind`]; [`flames`] draws.
//!
//! [`process`] looks at processes from outside. [`page`] puts the results into a table, with the
//! [`machine`] that they were measured on.

mod callgrind;
mod collector;
mod core;
mod endless;
mod flames;
mod freshness;
mod kafka;
mod machine;
mod page;
mod process;
mod reader;
mod stages;
mod steady;
mod stream;
mod whole;

use anyhow::Result;
use clap::{Parser, Subcommand};
use page::Row;
use std::path::PathBuf;

#[global_allocator] // that of the program that is measured
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// From Kafka into the store, against a bare reader
    Kafka(Arguments),
    /// From an event to the API that shows it
    Freshness(Arguments),
    /// Cost of an event, and memory, from the first million events on; and two threads for one
    Steady(steady::Arguments),
    /// Instructions of an event by stage, counted by valgrind
    Stages(stages::Arguments),
    /// Flame graphs for docs/: a backfill, and Kafka to the store
    Flames(flames::Arguments),
    /// The bare reader itself
    #[command(hide = true)]
    Reader(reader::Arguments),
    /// Real lanes on an endless log
    #[command(hide = true)]
    Stream(stream::Arguments),
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
    /// Another build of marquee, which takes its turn beside this one (kafka only)
    #[arg(long, value_name = "BINARY")]
    vs: Option<PathBuf>,
}

/// One part of the measurements.
type Part = fn(&Arguments) -> Result<Vec<Row>>;

const ALL: [Part; 5] =
    [whole::measure, core::measure, collector::measure, freshness::measure, kafka::measure];

fn main() -> Result<()> {
    marquee_runtime::pages::stay_small(); // as the program that is measured
    let (parts, arguments): (&[Part], Arguments) = match Cli::parse().what {
        What::All(arguments) => (&ALL, arguments),
        What::Whole(arguments) => (&[whole::measure], arguments),
        What::Core(arguments) => (&[core::measure], arguments),
        What::Collector(arguments) => (&[collector::measure], arguments),
        What::Kafka(arguments) => (&[kafka::measure], arguments),
        What::Freshness(arguments) => (&[freshness::measure], arguments),
        What::Reader(arguments) => return reader::run(&arguments),
        What::Stream(arguments) => return stream::run(&arguments),
        What::Flames(arguments) => return flames::run(&arguments),
        What::Stages(arguments) => return stages::run(&arguments),
        What::Steady(arguments) => return steady::run(&arguments),
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

/// The median, with the lowest and the highest in brackets.
fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({low:.2}-{high:.2})", median(values))
}

/// The median; of an even number the lower one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
