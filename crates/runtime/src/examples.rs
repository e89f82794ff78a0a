//! Training examples: every impression of a closed stretch with its attributes and its label, as rows
//! in the lake.
//!
//! The state keeps no attributes, so the log is read once more, behind the lanes and beside them:
//! they are neither asked nor stopped. It is the seam between three parts: `spool` keeps the events
//! of the stretches that are made, `label` says what became of each impression, and the lake's
//! [`ExamplesTable`] writes and lists the rows. `lane` knows what is to be made; `thread` does it
//! now and then.
//!
//! Negatives are sampled by a hash of request and video, so that everybody who makes a stretch
//! samples the same. What comes after a stretch was made corrects it: the stretch is made once more,
//! and rows that are new, or whose label has grown, are added with a later `as_of`.

mod label;
mod lane;
mod spool;
mod thread;

pub use thread::{Examples, OpenLog};

use crate::backfill::{
    BackfillError, DeadLetters, LogEvents, LogPart, LogReader, Parser, RecomputeError,
};
use crate::plan::Plan;
use label::{Labelled, label};
use lane::LaneWork;
use marquee_expr::Type;
use marquee_model::Kind;
use marquee_sinks::lake::{
    Ages, AttributeKind, BegunStretch, Bucket, Example, ExampleKey, ExamplesTable, Label,
    LakeError, LakePlace, Layout, ObjectError, Objects, Stop, WrittenStretch,
};
use marquee_sinks::{SinkError, Store};
use marquee_sources::files::FileSet;
use siphasher::sip::SipHasher13;
use spool::{Place, Spool, Wanted, attributes, kept, part_of};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;

/// What an event takes in memory while its stretch is labelled, for each byte that was kept of it.
const LABEL_FACTOR: u64 = 4;

/// How they are made.
#[derive(Clone)]
pub struct ExamplesSettings {
    /// What is counted.
    pub plan: Arc<Plan>,
    /// Where the lake is.
    pub place: LakePlace,
    /// A file holds the epochs of so much time, milliseconds, as files of cells do.
    pub span_ms: i64,
    /// A file is ended when it has so many bytes.
    pub file_bytes: usize,
    /// Memory for events, about, bytes; beyond it they go to a temporary file.
    pub memory_bytes: u64,
    /// The share of impressions without a play that is kept: above 0, up to 1.
    pub negatives: f64,
    /// How often closed stretches are looked for: one reading of the log makes all that there are.
    pub interval: Duration,
    /// For so long after it closed a stretch is corrected, milliseconds; 0: never.
    pub corrections_ms: i64,
    /// The time, milliseconds since 1970 UTC.
    pub now_ms: fn() -> i64,
}

/// What was made since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExamplesStatus {
    /// Rows that were listed, corrections included.
    pub rows: u64,
    /// Of these, rows of stretches that had been listed before.
    pub corrections: u64,
    /// Stretches of lanes that were listed for the first time.
    pub stretches: u64,
    /// Stretches that lack events which the log had lost.
    pub cut: u64,
    /// Closed stretches of lanes that wait.
    pub waiting: u64,
    /// Times that it failed.
    pub failures: u64,
}

/// Why nothing came out. What was listed until then stays, and is right.
#[derive(Debug, Error)]
pub enum ExamplesError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The events could not be read.
    #[error(transparent)]
    Events(#[from] RecomputeError),
    /// The log could not be opened.
    #[error("{0}")]
    Log(String),
}

impl From<ObjectError> for ExamplesError {
    fn from(error: ObjectError) -> Self {
        ExamplesError::Lake(error.into())
    }
}

impl ExamplesError {
    /// Whether it is only that the process ends.
    pub fn is_stop(&self) -> bool {
        match self {
            ExamplesError::Lake(error) => error.is_stop(),
            ExamplesError::Events(error) => matches!(error, RecomputeError::Stopped),
            ExamplesError::Store(_) | ExamplesError::Log(_) => false,
        }
    }
}

/// Makes examples of a store's lanes.
struct Maker {
    settings: ExamplesSettings,
    store: Arc<dyn Store>,
    objects: Arc<dyn Objects>,
    stop: Stop,
    /// `None` until the lake has answered for the first time.
    table: Option<Arc<ExamplesTable>>,
    lanes: Vec<LaneWork>,
    status: ExamplesStatus,
}

/// Makes examples of what is closed in a store, from files that hold the events.
///
/// # Errors
/// See [`ExamplesError`].
pub fn examples_of_files(
    settings: &ExamplesSettings,
    store: Arc<dyn Store>,
    inputs: Vec<(Kind, PathBuf)>,
) -> Result<ExamplesStatus, ExamplesError> {
    let mut maker = Maker::new(settings.clone(), store, Stop::default())?;
    maker.of_files(inputs)?;
    Ok(maker.status)
}

impl Maker {
    fn new(
        settings: ExamplesSettings,
        store: Arc<dyn Store>,
        stop: Stop,
    ) -> Result<Self, ObjectError> {
        let objects = Arc::new(Bucket::open(&settings.place, stop.clone())?);
        let lanes = (0..settings.plan.lanes).map(|_| LaneWork::default()).collect();
        let status = ExamplesStatus::default();
        Ok(Maker { settings, store, objects, stop, table: None, lanes, status })
    }

    fn table(&mut self) -> Result<Arc<ExamplesTable>, LakeError> {
        if let Some(table) = &self.table {
            return Ok(table.clone());
        }
        let generation = self.store.generation();
        let (id, longest_ms) = (&generation.id, generation.epochs_ms()[0]);
        let layout = Layout::new(id, generation.lanes, longest_ms, self.settings.span_ms);
        let mapping = self.settings.plan.impressions.decoder.mapping();
        let declared = mapping.attributes.iter().map(|(declared, _)| {
            let kind = match declared.ty {
                Type::Int => AttributeKind::Int,
                Type::Double => AttributeKind::Double,
                Type::Bool => AttributeKind::Bool,
                _ => AttributeKind::Text,
            };
            (declared.name.clone(), kind)
        });
        let declared: Vec<_> = declared.collect();
        let (objects, bytes) = (self.objects.clone(), self.settings.file_bytes);
        let table = ExamplesTable::agree(objects, layout, &declared, generation.secret, bytes)?;
        Ok(self.table.insert(Arc::new(table)).clone())
    }

    /// Up to where a lane has closed its stretches, milliseconds.
    fn closed_ms(&self, layout: &Layout, lane: u32) -> Result<i64, SinkError> {
        let frontier = self.store.lane_state(lane)?.map_or(0, |state| state.frontier);
        Ok(layout.stretch_of(frontier.saturating_mul(layout.longest_ms)))
    }

    /// Looks at all lanes once, and makes what is closed and not there.
    fn tick(&mut self, open: &OpenLog) -> Result<(), ExamplesError> {
        let table = self.table()?;
        let mut log = None;
        self.status.waiting = 0;
        for lane in 0..self.settings.plan.lanes {
            self.lane(&table, lane, open, &mut log)?;
        }
        Ok(())
    }

    fn lane(
        &mut self,
        table: &ExamplesTable,
        lane: u32,
        open: &OpenLog,
        log: &mut Option<LogEvents>,
    ) -> Result<(), ExamplesError> {
        let (closed_ms, now_ms) = (self.closed_ms(table.layout(), lane)?, (self.settings.now_ms)());
        let corrections_ms = self.settings.corrections_ms;
        let begun = self.begin(table, lane, closed_ms)?;
        let work = &mut self.lanes[lane as usize];
        work.forget(table.layout(), closed_ms, corrections_ms);
        self.status.waiting += begun.len() as u64;
        if !begun.is_empty() {
            let log = opened(log, open)?;
            if self.make(table, lane, begun, log, false)? {
                self.lanes[lane as usize].examined_ms = closed_ms;
            }
        } else {
            work.examined_ms = closed_ms;
        }
        let due = self.lanes[lane as usize].due(now_ms, corrections_ms);
        if !due.is_empty() {
            let begun = due.iter().map(|from_ms| table.begin(*from_ms, lane));
            let begun = begun.collect::<Result<Vec<_>, _>>()?;
            self.make(table, lane, begun, opened(log, open)?, true)?;
            self.lanes[lane as usize].corrected_ms = now_ms;
        }
        Ok(())
    }

    /// Begins the stretches that a lane has closed and nobody has listed.
    fn begin(
        &mut self,
        table: &ExamplesTable,
        lane: u32,
        closed_ms: i64,
    ) -> Result<Vec<BegunStretch>, ExamplesError> {
        let (layout, work) = (table.layout(), &mut self.lanes[lane as usize]);
        let epochs = self.store.epochs_between(work.examined_ms, closed_ms)?;
        let stretches: BTreeSet<i64> = epochs.into_iter().map(|ms| layout.stretch_of(ms)).collect();
        let mut wanted = Vec::new();
        for from_ms in stretches {
            if work.watched.contains_key(&from_ms) {
                continue;
            }
            let begun = table.begin(from_ms, lane)?;
            match &begun.base {
                Some(entry) => {
                    work.watched.insert(from_ms, entry.read_to.clone());
                }
                None => wanted.push(begun),
            }
        }
        Ok(wanted)
    }

    /// Reads the log once for some stretches of a lane and makes them. `false`: somebody was faster
    /// with one of them.
    fn make(
        &mut self,
        table: &ExamplesTable,
        lane: u32,
        begun: Vec<BegunStretch>,
        log: &mut LogEvents,
        is_again: bool,
    ) -> Result<bool, ExamplesError> {
        let settings = self.settings.clone();
        let (plan, layout, work) = (&settings.plan, table.layout(), &self.lanes[lane as usize]);
        let kept: BTreeSet<i64> = begun.iter().map(|begun| begun.from_ms).collect();
        let first_ms = *kept.first().expect("there is something to make");
        let watched = if is_again { &BTreeMap::new() } else { &work.watched };
        let wanted = Wanted { is_kept: &|(_, from_ms)| kept.contains(&from_ms), watched };
        let from_offsets = if is_again { vec![] } else { work.first_offsets(plan.topics().len()) };
        let mut reader = LogReader {
            plan,
            intake: Spool::new(plan, layout, settings.memory_bytes / 2, wanted),
            checks_partitions: log.checks_partitions,
            now_ms: log.now_ms,
            earliest_record_ms: earliest_record_ms(plan, first_ms),
            from_offsets,
            stop: &|| self.stop.is_set(),
            records: &AtomicU64::new(0),
            progress: &|_| (),
            buffer: Vec::new(),
            may_end_early: log.may_end_early,
        };
        let committed = log.committed.get(lane as usize).map_or(&[][..], Vec::as_slice);
        let replay = log.readers.first_mut().expect("there is a reader").as_mut();
        let part = reader.lane(replay, lane, committed)?;
        let mut spool = reader.intake;
        let late = std::mem::take(&mut spool.late);
        let written = self.write(table, &mut spool, lane, begun, Some(&part))?;
        drop(spool);
        let work = &mut self.lanes[lane as usize];
        if is_again {
            kept.iter().for_each(|from_ms| _ = work.late.remove(from_ms));
        } else {
            work.late.extend(late);
            work.read_to = Some(part.read_to.clone());
        }
        self.list(table, lane, written, &part.read_to)
    }

    fn of_files(&mut self, inputs: Vec<(Kind, PathBuf)>) -> Result<(), ExamplesError> {
        let table = self.table()?;
        let settings = self.settings.clone();
        let plan = &*settings.plan;
        let closed = (0..plan.lanes).map(|lane| self.closed_ms(table.layout(), lane));
        let closed_ms: Vec<i64> = closed.collect::<Result<_, _>>()?;
        let columns = |kind| plan.stream(kind).decoder.columns();
        let files = FileSet::open_columns(&inputs, &columns).map_err(RecomputeError::Input)?;
        let none = BTreeMap::new();
        let is_kept = |(lane, from_ms): Place| from_ms < closed_ms[lane as usize];
        let wanted = Wanted { is_kept: &is_kept, watched: &none };
        let spool = Spool::new(plan, table.layout(), settings.memory_bytes / 2, wanted);
        let dead = Mutex::new(DeadLetters::default());
        let mut parser = Parser::new(plan, &files, &dead, spool);
        let read = parser.run(0, &|_, _| ());
        read.map_err(|error: BackfillError| RecomputeError::from(error))?;
        let mut spool = parser.intake;
        for place in spool.places() {
            let (lane, from_ms) = place;
            let begun = table.begin(from_ms, lane)?;
            let written = self.write(&table, &mut spool, lane, vec![begun], None)?;
            self.list(&table, lane, written, &[])?;
        }
        Ok(())
    }

    /// Writes the rows of stretches that are in a spool. `part`: what the log had of the lane.
    fn write(
        &self,
        table: &ExamplesTable,
        spool: &mut Spool<'_>,
        lane: u32,
        begun: Vec<BegunStretch>,
        part: Option<&LogPart>,
    ) -> Result<Vec<Made>, ExamplesError> {
        let early_ms = self.settings.plan.settings.early_ms;
        let mut made = Vec::new();
        for begun in begun {
            let from_ms = begun.from_ms;
            let is_whole = part.is_none_or(|p| p.whole_from_ms <= from_ms.saturating_sub(early_ms));
            let (place, now_ms) = ((lane, from_ms), (self.settings.now_ms)());
            let stretch = Stretch { maker: self, table, place, is_whole, now_ms };
            let Some((written, rows, is_first)) = stretch.write(spool, begun, part)? else {
                continue;
            };
            made.push(Made { written, from_ms, rows, is_first, is_whole });
        }
        Ok(made)
    }

    /// Lists what was made. `false`: somebody was faster with some of it.
    fn list(
        &mut self,
        table: &ExamplesTable,
        lane: u32,
        made: Vec<Made>,
        read_to: &[u64],
    ) -> Result<bool, ExamplesError> {
        let now_ms = (self.settings.now_ms)();
        let told: Vec<_> = made.iter().map(|m| (m.rows, m.is_first, m.is_whole)).collect();
        let starts: Vec<i64> = made.iter().map(|m| m.from_ms).collect();
        let listed = table.list(made.into_iter().map(|m| m.written).collect(), now_ms)?;
        let mut all = true;
        for ((from_ms, is_listed), (rows, is_first, is_whole)) in listed.into_iter().zip(told) {
            all &= is_listed;
            if !is_listed {
                continue;
            }
            self.lanes[lane as usize].watched.insert(from_ms, read_to.to_vec());
            self.status.rows += rows;
            match is_first {
                true => self.status.stretches += 1,
                false => self.status.corrections += rows,
            }
            self.status.cut += u64::from(is_first && !is_whole);
        }
        if let Some(from_ms) = starts.last() {
            table.sweep(*from_ms, Ages::default(), now_ms)?;
        }
        Ok(all)
    }
}

/// A stretch that waits to be listed.
struct Made {
    written: WrittenStretch,
    from_ms: i64,
    rows: u64,
    is_first: bool,
    is_whole: bool,
}

/// The log, opened once a tick at most.
fn opened<'l>(
    log: &'l mut Option<LogEvents>,
    open: &OpenLog,
) -> Result<&'l mut LogEvents, ExamplesError> {
    match log {
        Some(log) => Ok(log),
        none => Ok(none.insert(open().map_err(ExamplesError::Log)?)),
    }
}

/// No event that belongs to a stretch has a record that was stamped earlier; by `lateness` earlier than
/// that, so that the log is known to be whole where it has older records.
fn earliest_record_ms(plan: &Plan, from_ms: i64) -> i64 {
    let before_ms = plan.settings.early_ms + plan.max_ahead_ms + plan.settings.lateness_ms;
    from_ms.saturating_sub(before_ms + 1).max(0)
}

/// One stretch of a lane, from its spooled events to its rows.
struct Stretch<'m> {
    maker: &'m Maker,
    table: &'m ExamplesTable,
    place: Place,
    is_whole: bool,
    now_ms: i64,
}

impl Stretch<'_> {
    /// Writes its rows, those that are not there. `None`: there is nothing to list.
    fn write(
        &self,
        spool: &mut Spool<'_>,
        begun: BegunStretch,
        part: Option<&LogPart>,
    ) -> Result<Option<(WrittenStretch, u64, bool)>, ExamplesError> {
        let settings = &self.maker.settings;
        let bytes = spool.bytes_of(self.place) * LABEL_FACTOR;
        let parts = 1 + bytes / (settings.memory_bytes / 2).max(1);
        let base = begun.base.clone();
        let read_to_before = base.as_ref().map_or_else(Vec::new, |entry| entry.read_to.clone());
        let mut writer = self.table.writer(begun);
        let (rows_before, _) = writer.written();
        for number in 0..parts {
            if self.maker.stop.is_set() {
                return Err(RecomputeError::Stopped.into());
            }
            let mut known: HashMap<ExampleKey, Label> = HashMap::new();
            if let Some(base) = &base {
                self.table.labels(base, &mut |request, video, epoch_ms, label| {
                    if part_of(request, parts) == number {
                        known.insert((request.to_owned(), video.to_owned(), epoch_ms), label);
                    }
                })?;
            }
            let bytes = spool.read(self.place, (number, parts)).map_err(RecomputeError::Spill)?;
            let mut events = kept(&bytes);
            label(&mut events, &settings.plan.settings, &mut |labelled| {
                self.row(&labelled, &known, &mut writer)
            })?;
        }
        let rows = writer.written().0 - rows_before;
        if base.is_some() && rows == 0 && part.is_none() {
            return Ok(None);
        }
        let read_to = part.map_or(read_to_before, |part| part.read_to.clone());
        let is_first = base.is_none();
        Ok(Some((writer.finish(read_to, self.is_whole)?, rows, is_first)))
    }

    fn row(
        &self,
        labelled: &Labelled<'_>,
        known: &HashMap<ExampleKey, Label>,
        writer: &mut marquee_sinks::lake::StretchWriter<'_>,
    ) -> Result<(), LakeError> {
        let settings = &self.maker.settings;
        let (first, negatives) = (labelled.first, settings.negatives);
        let epoch_start_ms = labelled.epoch * settings.plan.settings.longest_ms();
        let seconds_to_play = labelled.to_play_ms.map(|ms| ms as f64 / 1000.0);
        let before = match known.is_empty() {
            true => None,
            false => known
                .get(&(first.request.to_owned(), first.video.to_owned(), epoch_start_ms))
                .copied(),
        };
        if !is_news(seconds_to_play, before)
            || seconds_to_play.is_none() && !is_sampled(first.request, first.video, negatives)
        {
            return Ok(());
        }
        let weight = if seconds_to_play.is_some() { 1.0 } else { 1.0 / negatives };
        let row = Example {
            request_id: first.request,
            video: first.video,
            time_ms: first.time_ms,
            attributes: attributes(first.attributes),
            seconds_to_play,
            weight,
            epoch_start_ms,
            complete: self.is_whole,
            // A clock that was set back must not make a correction the older row.
            as_of_ms: before.map_or(i64::MIN, |b| b.as_of_ms + 1).max(self.now_ms),
        };
        writer.add(&row, before)
    }
}

/// Whether a label says more than the one that is there: labels only grow, from not played to played,
/// and to an earlier play.
fn is_news(seconds_to_play: Option<f64>, before: Option<Label>) -> bool {
    match (seconds_to_play, before) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(seconds), Some(Label { seconds_to_play: before, .. })) => {
            before.is_none_or(|before| seconds < before)
        }
    }
}

/// Whether an impression without a play is kept: decided by a hash of its request and video.
fn is_sampled(request: &str, video: &str, negatives: f64) -> bool {
    if negatives >= 1.0 {
        return true;
    }
    let mut hasher = SipHasher13::new();
    hasher.write_u64(request.len() as u64);
    hasher.write(request.as_bytes());
    hasher.write(video.as_bytes());
    // 53 bits are what a double holds.
    ((hasher.finish() >> 11) as f64) < negatives * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_negatives_is_about_a_tenth_and_always_the_same() {
        let count =
            |share: f64| (0..20_000).filter(|n| is_sampled(&n.to_string(), "v", share)).count();
        assert!((1_850..2_150).contains(&count(0.1)), "{}", count(0.1));
        assert_eq!((count(1.0), count(0.1)), (20_000, count(0.1)));
        // Which ones never changes: a correction must meet the same.
        let first: Vec<_> = (0..60).filter(|n| is_sampled(&n.to_string(), "v", 0.1)).collect();
        assert_eq!(first, SAMPLED);
    }

    const SAMPLED: [i32; 4] = [3, 10, 16, 39];

    #[test]
    fn labels_only_grow() {
        let label = |seconds_to_play| Some(Label { seconds_to_play, as_of_ms: 0 });
        assert!(is_news(None, None) && is_news(Some(3.0), None));
        assert!(is_news(Some(3.0), label(None)) && is_news(Some(2.0), label(Some(3.0))));
        assert!(!is_news(None, label(None)) && !is_news(None, label(Some(3.0))));
        assert!(!is_news(Some(3.0), label(Some(3.0))) && !is_news(Some(4.0), label(Some(3.0))));
    }
}
