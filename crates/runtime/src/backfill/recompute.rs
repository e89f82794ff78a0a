//! Cells of some epochs, counted once more from files or from a log, for whoever compares them with
//! what was counted before.
//!
//! It is a backfill whose members come out in order, a cell at a time: neither all events nor all
//! members need to fit into memory.

use super::bucket::Buckets;
use super::log::{LogEvents, LogPart, Reading};
use super::runs::{CellMember, Merge, Sorter};
use super::scatter::{Scatter, Stretch};
use super::shared::{Frozen, SharedSymbols};
use super::{BYTES_A_LINE, BackfillError, DeadLetters, Summary, bucket_count, in_threads, parse};
use crate::plan::Plan;
use marquee_model::{CellKey, Kind, RequestKey, Side, lane_of};
use marquee_pipeline::chunk::Id;
use marquee_pipeline::join::{Emit, Join, Member};
use marquee_sinks::SinkError;
use marquee_sources::SourceError;
use marquee_sources::files::{FileError, FileSet};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use thiserror::Error;

/// Where the events come from.
pub enum Events {
    /// Files that end.
    Files(Vec<(Kind, PathBuf)>),
    /// A log.
    Log(LogEvents),
}

/// What is counted once more.
pub struct Recompute<'a> {
    /// What is counted.
    pub plan: &'a Plan,
    /// Numbers of the (longest) epochs whose cells are wanted.
    pub epochs: Range<i64>,
    /// Threads to use, at least 1; a log is read by as many as there are readers.
    pub threads: usize,
    /// Bytes of memory for events and members; beyond it they go to temporary files.
    pub memory_bytes: u64,
    /// Random, for the hashes of this run.
    pub secret: [u8; 16],
    /// Asked now and then; when it says so, this ends with [`RecomputeError::Stopped`].
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told now and then how far it is: bytes of files and, where known, of how many; records of a
    /// log.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
}

/// Why nothing came out.
#[derive(Debug, Error)]
pub enum RecomputeError {
    /// A file cannot be read.
    #[error(transparent)]
    Input(#[from] FileError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] SourceError),
    /// The log ends before what was committed of it.
    #[error(
        "lane {lane} of topic {topic}: offset {committed} was committed, but the log ends at {end}: \
         it is not the log that the store was counted from. Restore it, or compare with files \
         (--impressions, --plays)"
    )]
    OtherLog {
        /// The topic's name.
        topic: String,
        /// The lane.
        lane: u32,
        /// What the store says.
        committed: u64,
        /// The offset that the next record will get.
        end: u64,
    },
    /// Records were deleted before they could be read.
    #[error(
        "lane {lane} of topic {topic}: the log has deleted records while they were read (it begins \
         at offset {start} now). Run it again"
    )]
    Trimmed {
        /// The topic's name.
        topic: String,
        /// The lane.
        lane: u32,
        /// The first offset that is left.
        start: u64,
    },
    /// Temporary files cannot be written or read.
    #[error(
        "a temporary file failed: {0}; {advice}",
        advice = crate::open_files::advice(
            .0,
            "make room in the folder for temporary files (TMPDIR), or raise [runtime] memory"
        )
    )]
    Spill(std::io::Error),
    /// Somebody said stop.
    #[error("it was stopped before it was done")]
    Stopped,
}

impl RecomputeError {
    pub(super) fn while_reading(error: SourceError) -> Self {
        match error {
            SourceError::OutOfRange { topic, lane, position, start, .. } if position < start => {
                RecomputeError::Trimmed { topic, lane, start }
            }
            error => RecomputeError::Log(error),
        }
    }
}

impl From<BackfillError> for RecomputeError {
    fn from(error: BackfillError) -> Self {
        match error {
            BackfillError::Input(error) => RecomputeError::Input(error),
            BackfillError::Spill(error) => RecomputeError::Spill(error),
            BackfillError::Log(error) => *error,
            BackfillError::Output(SinkError::File { error, .. }) => {
                RecomputeError::Spill(std::io::Error::other(error))
            }
            BackfillError::Output(error) => {
                RecomputeError::Spill(std::io::Error::other(error.to_string()))
            }
        }
    }
}

/// Both sets of a cell of one lane, as they should be.
#[derive(Debug)]
pub struct ExpectedCell {
    /// The cell.
    pub cell: CellKey,
    /// Impressions, then plays.
    pub members: [BTreeSet<Id>; 2],
}

/// What was counted.
pub struct Recomputed {
    /// What was read.
    pub summary: Summary,
    /// First and last event time of all impressions and of all plays that were read.
    pub seen_ms: [Option<(i64, i64)>; 2],
    /// What the log has of each lane; empty for files.
    pub log: Vec<LogPart>,
    members: Merge,
    frozen: Frozen,
    epochs_ms: Vec<i64>,
}

impl Recomputed {
    /// Number of the (longest) epoch and lane of the next cell. They only rise.
    pub fn peek(&self) -> Option<(i64, u32)> {
        self.members.peek().map(|member| (member.epoch, member.lane))
    }

    /// The next cell.
    ///
    /// # Errors
    /// A temporary file cannot be read.
    pub fn next_cell(&mut self) -> Result<Option<ExpectedCell>, RecomputeError> {
        let Some(first) = self.members.peek().copied() else { return Ok(None) };
        let is_of_cell = |member: &CellMember| {
            let of =
                |m: &CellMember| (m.epoch, m.lane, m.length, m.start_offset_ms, m.slice, m.video);
            of(member) == of(&first)
        };
        let mut members: [BTreeSet<Id>; 2] = Default::default();
        while self.members.peek().is_some_and(is_of_cell)
            && let Some(member) = self.members.next().map_err(RecomputeError::Spill)?
        {
            let [high, low] = member.request;
            let request = RequestKey(u128::from(high) << 64 | u128::from(low));
            members[usize::from(member.side)].insert(id_of(&self.frozen, request));
        }
        let symbols = &self.frozen.symbols;
        let start_ms = first.epoch * self.epochs_ms[0] + i64::from(first.start_offset_ms);
        let cell = CellKey {
            video: symbols.video_text(first.video).to_owned(),
            slice: symbols.slice_text(first.slice).to_owned(),
            epoch_ms: self.epochs_ms[usize::from(first.length)],
            epoch_start_ms: start_ms,
        };
        Ok(Some(ExpectedCell { cell, members }))
    }
}

fn id_of(frozen: &Frozen, request: RequestKey) -> Id {
    match frozen.texts.get(&request) {
        Some(text) => Id::Text(text.clone()),
        None => Id::Uuid(request.0),
    }
}

/// What the first half leaves.
struct Read {
    summary: Summary,
    stretch: Stretch,
    log: Vec<LogPart>,
}

impl Recompute<'_> {
    /// Reads all events, then joins them.
    ///
    /// # Errors
    /// See [`RecomputeError`].
    pub fn run(&self, events: Events) -> Result<Recomputed, RecomputeError> {
        let seed = u128::from_le_bytes(self.secret) as u64;
        let symbols = SharedSymbols::new(seed, self.plan.settings.groupings);
        let (read, buckets) = match events {
            Events::Files(inputs) => {
                let columns = |kind| self.plan.stream(kind).decoder.columns();
                let files = FileSet::open_columns(&inputs, &columns)?;
                let count = bucket_count(files.records(BYTES_A_LINE));
                let buckets = Buckets::new(count, self.memory_bytes / 2);
                (self.read_files(&files, &buckets, &symbols)?, buckets)
            }
            Events::Log(log) => {
                let buckets = Buckets::new(bucket_count(None), self.memory_bytes / 2);
                (self.read_log(log, &buckets, &symbols)?, buckets)
            }
        };
        let frozen = symbols.into_inner();
        let sorters = in_threads(self.threads, |_| self.join(&buckets, &frozen, seed));
        let sorters = sorters.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Recomputed {
            summary: read.summary,
            seen_ms: read.stretch.seen_ms,
            log: read.log,
            members: Merge::of(sorters).map_err(RecomputeError::Spill)?,
            frozen,
            epochs_ms: self.plan.settings.epochs_ms.clone(),
        })
    }

    /// Event times that the wanted cells can need: they reach over their epochs by both windows.
    fn stretch(&self) -> Stretch {
        let (settings, reach_ms) = (&self.plan.settings, reach_ms(self.plan));
        let start = |epoch: i64| epoch.saturating_mul(settings.longest_ms());
        let from_ms = start(self.epochs.start).saturating_sub(reach_ms);
        Stretch::of(from_ms..start(self.epochs.end).saturating_add(reach_ms))
    }

    fn scatter<'a>(&'a self, buckets: &'a Buckets, symbols: &'a SharedSymbols) -> Scatter<'a> {
        let mut scatter = Scatter::new(self.plan, self.secret, buckets, symbols, true);
        scatter.stretch = Some(self.stretch());
        scatter
    }

    fn read_files(
        &self,
        files: &FileSet,
        buckets: &Buckets,
        symbols: &SharedSymbols,
    ) -> Result<Read, RecomputeError> {
        let dead = Mutex::new(DeadLetters::default());
        let parts = in_threads(self.threads, |thread| {
            let scatter = self.scatter(buckets, symbols);
            let mut parser = parse::Parser::new(self.plan, files, &dead, scatter);
            parser.run(thread, self.progress)?;
            Ok((parser.intake.summary, parser.intake.stretch))
        });
        self.add_up(parts, Vec::new())
    }

    fn read_log(
        &self,
        log: LogEvents,
        buckets: &Buckets,
        symbols: &SharedSymbols,
    ) -> Result<Read, RecomputeError> {
        let reading = Reading {
            plan: self.plan,
            earliest_record_ms: self.earliest_record_ms(),
            stop: self.stop,
            progress: &|read| (self.progress)(read, None),
        };
        let (intakes, found) =
            reading.all(log, self.plan.lanes, || self.scatter(buckets, symbols))?;
        let parts = intakes.into_iter().map(|intake| Ok((intake.summary, intake.stretch)));
        self.add_up(parts.collect(), found)
    }

    /// An event is at most `max_ahead` ahead of its record, or it is a dead letter: a record that was
    /// stamped earlier than this has none that is wanted. Earlier by `lateness` than it must, so
    /// that what the log has deleted before such a record is known not to be wanted, either.
    fn earliest_record_ms(&self) -> i64 {
        let from_ms = self.epochs.start.saturating_mul(self.plan.settings.longest_ms());
        let before_ms =
            reach_ms(self.plan) + self.plan.max_ahead_ms + self.plan.settings.lateness_ms;
        from_ms.saturating_sub(before_ms + 1).max(0)
    }

    fn add_up(
        &self,
        parts: Vec<Result<(Summary, Option<Stretch>), RecomputeError>>,
        log: Vec<LogPart>,
    ) -> Result<Read, RecomputeError> {
        let mut read = Read { summary: Summary::default(), stretch: self.stretch(), log };
        for part in parts {
            let (summary, stretch) = part?;
            read.summary.add(&summary);
            stretch.iter().for_each(|stretch| read.stretch.add(stretch));
        }
        Ok(read)
    }

    fn join(
        &self,
        buckets: &Buckets,
        frozen: &Frozen,
        seed: u64,
    ) -> Result<Sorter, RecomputeError> {
        let mut settings = self.plan.settings.clone();
        settings.max_facts = u32::MAX; // it protects a running service, not a batch
        let mut join = Join::new(&settings, seed, 0, 0);
        let memory_bytes = self.memory_bytes / 2 / self.threads.max(1) as u64;
        let (plan, epochs) = (self.plan, &self.epochs);
        let (request, sorter) = (None, Sorter::new(memory_bytes));
        let mut found = Found { plan, epochs, frozen, request, lane: None, sorter };
        loop {
            if (self.stop)() {
                return Err(RecomputeError::Stopped);
            }
            let taken = buckets.take(|event| {
                if found.request != Some(event.request) {
                    (found.request, found.lane) = (Some(event.request), None);
                }
                join.apply(event, &frozen.symbols, &mut found);
            });
            if !taken.map_err(RecomputeError::Spill)? {
                return Ok(found.sorter);
            }
            join.clear();
        }
    }
}

/// How far from a cell's epoch an event can stand that makes a member of it.
pub(crate) fn reach_ms(plan: &Plan) -> i64 {
    plan.settings.within_ms.saturating_add(plan.settings.early_ms)
}

/// Takes the members that the join finds.
struct Found<'a> {
    plan: &'a Plan,
    epochs: &'a Range<i64>,
    frozen: &'a Frozen,
    /// The request whose event is being applied, and its lane, once somebody wants it.
    request: Option<RequestKey>,
    lane: Option<u32>,
    sorter: Sorter,
}

impl Emit for Found<'_> {
    fn member(&mut self, member: Member) {
        if !self.epochs.contains(&member.epoch) {
            return;
        }
        let request = self.request.expect("an event is being applied");
        let lane = *self.lane.get_or_insert_with(|| {
            let text = id_of(self.frozen, request).to_string();
            lane_of(self.plan.partitioner, text.as_bytes(), self.plan.lanes)
        });
        self.sorter.push(CellMember {
            epoch: member.epoch,
            lane,
            length: member.length,
            start_offset_ms: member.start_offset_ms,
            slice: member.slice,
            video: member.video,
            side: u8::from(member.side == Side::Plays),
            request: [(request.0 >> 64) as u64, request.0 as u64],
        });
    }
}
