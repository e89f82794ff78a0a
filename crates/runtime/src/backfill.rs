//! Backfill: the same pipeline over files that end, or over a log as far as it is there.
//!
//! All input is seen before anything is counted, so nothing is late. Threads parse, filter and
//! transform, and scatter the events by request into buckets; then each bucket is joined by
//! itself, small enough to stay in cache. When the buckets outgrow the memory limit they go to
//! temporary files.

mod bucket;
mod count;
mod dead;
mod intake;
mod into_store;
mod join;
mod log;
mod memo;
mod parse;
mod recompute;
mod runs;
mod scatter;
mod shared;

pub use dead::DeadLetters;
pub(crate) use intake::Intake;
pub use into_store::{IntoStoreError, write_into};
pub(crate) use log::LogReader;
use log::Reading;
pub use log::{LogEvents, LogPart};
pub(crate) use parse::Parser;
pub(crate) use recompute::reach_ms;
pub use recompute::{Events, ExpectedCell, Recompute, RecomputeError, Recomputed};

use crate::plan::Plan;
use bucket::Buckets;
use marquee_model::Kind;
use marquee_sinks::SinkError;
use marquee_sinks::cells::{Row, order};
use marquee_sources::files::{FileError, FileSet};
use scatter::Scatter;
use shared::SharedSymbols;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use thiserror::Error;

/// What a backfill is asked to do.
pub struct Backfill<'a> {
    /// What is counted.
    pub plan: &'a Plan,
    /// The files.
    pub inputs: Vec<(Kind, PathBuf)>,
    /// Threads to use, at least 1.
    pub threads: usize,
    /// Bytes of memory for buffered events; beyond it they go to temporary files.
    pub memory_bytes: u64,
    /// Random, for the hashes of this run.
    pub secret: [u8; 16],
    /// Where bad lines go.
    pub dead: DeadLetters,
    /// Keep the request ids, so that members can be written.
    pub with_members: bool,
}

/// What a backfill has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that were read, filtered and bad ones included.
    pub events: u64,
    /// Events that a filter refused.
    pub filtered: u64,
    /// Lines, or events of a line, that are dead letters.
    pub dead: u64,
}

impl Summary {
    fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.filtered += other.filtered;
        self.dead += other.dead;
    }
}

/// The exact cells of all input.
pub struct Outcome {
    /// Sorted as files of cells are.
    pub rows: Vec<Row>,
    /// What was read.
    pub summary: Summary,
    /// Members by cell, sorted as `rows`; empty unless asked for.
    pub members: Vec<join::CellMembers>,
    /// For each lane the (longest) epochs in which it had any event that the filter let through,
    /// also one that is in no cell; empty unless members are asked for.
    pub epochs_of_lanes: Vec<BTreeSet<i64>>,
}

pub use join::CellMembers;

/// Why a backfill failed. Nothing has been written.
#[derive(Debug, Error)]
pub enum BackfillError {
    /// An input cannot be read.
    #[error(transparent)]
    Input(#[from] FileError),
    /// A log cannot be read.
    #[error(transparent)]
    Log(Box<RecomputeError>),
    /// An output cannot be written.
    #[error(transparent)]
    Output(#[from] SinkError),
    /// Temporary files cannot be written or read.
    #[error(
        "a temporary file for buffered events failed: {0}; {advice}",
        advice = crate::open_files::advice(
            .0,
            "make room in the folder for temporary files (TMPDIR), or raise [runtime] memory"
        )
    )]
    Spill(std::io::Error),
}

impl Backfill<'_> {
    /// Reads everything, then joins and counts. `progress` is called now and then with bytes read
    /// and, where known, bytes in all.
    pub fn run(
        self,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Outcome, BackfillError> {
        self.run_with(Vec::new(), progress)
    }

    /// The same with logs that are read besides, each with its number of lanes. Of these `progress` is
    /// told the records.
    pub fn run_with(
        mut self,
        logs: Vec<(LogEvents, u32)>,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Outcome, BackfillError> {
        let columns = |kind| self.plan.stream(kind).decoder.columns();
        let files = FileSet::open_columns(&self.inputs, &columns)?;
        let buckets = Buckets::new(bucket_count(files.records(BYTES_A_LINE)), self.memory_bytes);
        let symbols = SharedSymbols::new(self.seed(), self.plan.settings.groupings);
        let dead = Mutex::new(std::mem::take(&mut self.dead));
        let scatter =
            || Scatter::new(self.plan, self.secret, &buckets, &symbols, self.with_members);
        let reading = Reading {
            plan: self.plan,
            earliest_record_ms: i64::MIN,
            stop: &|| false,
            progress: &|read| progress(read, None),
        };
        let mut parts = Vec::new();
        for (log, lanes) in logs {
            let read = reading.all(log, lanes, scatter);
            let (intakes, _) = read.map_err(|error| BackfillError::Log(Box::new(error)))?;
            parts.extend(intakes.into_iter().map(|i| Ok((i.summary, i.epochs_of_lanes))));
        }
        let parse = |thread| {
            let mut parser = parse::Parser::new(self.plan, &files, &dead, scatter());
            parser.run(thread, progress)?;
            Ok::<_, BackfillError>((parser.intake.summary, parser.intake.epochs_of_lanes))
        };
        let mut summary = Summary::default();
        let mut epochs_of_lanes = vec![BTreeSet::new(); self.plan.lanes as usize];
        if !self.inputs.is_empty() {
            parts.extend(in_threads(self.threads, parse));
        }
        for part in parts {
            let (part, epochs) = part?;
            for (all, some) in epochs_of_lanes.iter_mut().zip(epochs) {
                all.extend(some);
            }
            summary.add(&part);
        }
        dead.into_inner().unwrap_or_else(|e| e.into_inner()).finish()?;
        let symbols = symbols.into_inner();
        let joined = in_threads(self.threads, |_| join::Joiner::new(&self, &symbols).run(&buckets));
        let (rows, members) = join::merge(joined, &symbols, &self.plan.settings)?;
        debug_assert!(rows.is_sorted_by(|a, b| order(&a.0) < order(&b.0)));
        Ok(Outcome { rows, summary, members, epochs_of_lanes })
    }

    fn seed(&self) -> u64 {
        u128::from_le_bytes(self.secret) as u64
    }
}

/// What a line is taken to have, where it only matters how many there are about.
const BYTES_A_LINE: u64 = 150;

/// Buckets of about 16,000 events: their join stays in the second-level cache.
fn bucket_count(events: Option<u64>) -> usize {
    let events = events.unwrap_or(8_000_000);
    ((events >> 14) as usize).next_power_of_two().clamp(16, 1024)
}

/// Runs one closure in each of a number of threads and gives their results in order.
fn in_threads<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads.max(1)).map(|t| scope.spawn(move || work(t))).collect();
        let resume = |panic| std::panic::resume_unwind(panic);
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(resume)).collect()
    })
}
