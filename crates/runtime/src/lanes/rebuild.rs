//! Start, restart and change of owner: the state is rebuilt from the log before anything is counted
//! (invariant WHOLE).
//!
//! The log is read again from the first offset that matters up to the position. Members of epochs
//! that were open all the time are certain to be in the store that goes with that position, so they
//! are counted only; the counts must then be those of the store. Where they are not (a store that
//! lost writes), or where the store is another one (another member of the group had the lane), the
//! members are written again. Where this store may hold members that the rebuild does not find (it
//! was ahead of the group's position, or the log no longer reaches back), open cells are seeded with
//! them and grow by what is new.
//!
//! Where there is a snapshot from which the lane may go on, it does not begin with nothing, and the
//! log is read from the snapshot's offsets on. The rest is the same; and where the counts are not
//! those of the store then, snapshots are not believed and the lane is rebuilt without.

use super::lane::LaneOwner;
use super::note::ANY_EPOCH;
use super::resume::Resumption;
use super::snapshots;
use super::{LaneError, LanesSettings};
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::LanePipeline;
use marquee_pipeline::chunk::Id;
use marquee_pipeline::lane::Resume;
use marquee_sinks::{Sink, SinkError};
use marquee_sources::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a rebuild sleeps while records are on their way.
const WAIT: Duration = Duration::from_millis(50);
/// How often it says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What the comparison with the store found.
#[derive(PartialEq, Eq)]
enum Comparison {
    /// Nothing: it holds what the log proves.
    Equal,
    /// The store lacks members that the log proves.
    StoreLacks,
}

/// A lane whose state is being read again.
pub(super) struct Rebuild {
    owner: LaneOwner,
    /// Whether members are written again, and not only counted.
    loudly: bool,
    /// Where reading is, by topic.
    at: Vec<u64>,
    /// Up to where the log is read again, by topic.
    committed: Vec<u64>,
    /// Records that are read again, and where they begin, as sums over the topics.
    records: u64,
    first: u64,
    started: Duration,
    said: Duration,
}

/// What a rebuild needs next.
pub(super) enum Progress {
    /// Another step.
    Reads,
    /// Another step, when its records have come or this time is over.
    Waits(Duration),
    /// Nothing: the lane is whole.
    Whole,
    /// To be planned anew: a snapshot is of no use.
    Refused,
}

impl Rebuild {
    /// Begins to resume a lane; the source reads it from where the resumption says. `None` where
    /// its snapshot is of no use, which the resumption then remembers.
    pub(super) fn begin(
        resumption: &mut Resumption,
        settings: &LanesSettings,
        store: &dyn Sink,
    ) -> Result<Option<Self>, LaneError> {
        if let Some(chosen) = resumption.snapshot.clone() {
            let Some(pipeline) = snapshots::load(resumption, &chosen, settings) else {
                resumption.refused.one(&chosen);
                return Ok(None);
            };
            return Self::with(resumption, settings, pipeline, false).map(Some);
        }
        let loudly = !resumption.is_own || resumption.is_seeded;
        Self::of(resumption, settings, store, loudly).map(Some)
    }

    fn of(
        resumption: &Resumption,
        settings: &LanesSettings,
        store: &dyn Sink,
        loudly: bool,
    ) -> Result<Self, LaneError> {
        let state = &resumption.state;
        let pipeline_settings = LaneOwner::pipeline_settings(settings);
        let mut seeded_to = state.seeded_to;
        let pipeline = if resumption.is_new {
            LanePipeline::new(pipeline_settings)
        } else {
            let resume = Resume { frontier: state.frontier, counters: state.counters };
            let mut pipeline = LanePipeline::rebuild(pipeline_settings, resume, loudly);
            if resumption.is_seeded {
                seeded_to = seeded_to.max(seed(&mut pipeline, resumption, settings, store)?);
            }
            pipeline
        };
        let mut rebuild = Self::with(resumption, settings, pipeline, loudly)?;
        rebuild.owner.state.seeded_to = seeded_to;
        // The next snapshot belongs to this life: its number must be durable soon.
        rebuild.owner.changed = settings.snapshots.is_some() && !resumption.is_new;
        Ok(rebuild)
    }

    fn with(
        resumption: &Resumption,
        settings: &LanesSettings,
        pipeline: LanePipeline,
        loudly: bool,
    ) -> Result<Self, LaneError> {
        let state = &resumption.state;
        let mut owner = LaneOwner::new(resumption, settings, pipeline)?;
        owner.is_unwritten = loudly && !resumption.is_new;
        let (at, committed) = (resumption.from.clone(), state.next_offsets.clone());
        let first: u64 = at.iter().sum();
        let records = committed.iter().sum::<u64>() - first;
        if records > 0 {
            tracing::info!(lane = owner.lane, records, "rebuilding the state from the log");
        }
        let now = settings.clock.passed();
        Ok(Rebuild { owner, loudly, at, committed, records, first, started: now, said: now })
    }

    /// The lane as far as it is.
    pub(super) fn lane(&self) -> &LaneOwner {
        &self.owner
    }

    /// The lane, once it is whole.
    pub(super) fn into_lane(self) -> LaneOwner {
        self.owner
    }

    /// Reads a piece, or ends: compares with the store, and begins anew where that lacks something.
    pub(super) fn step(
        &mut self,
        resumption: &mut Resumption,
        settings: &LanesSettings,
        log: &mut dyn Source,
        store: &dyn Sink,
    ) -> Result<Progress, LaneError> {
        if resumption.is_new {
            return Ok(Progress::Whole);
        }
        let Some(topic) = self.owner.topic_to_rebuild(log, &self.at, &self.committed) else {
            self.owner.check_state()?;
            self.owner.caught_up();
            if self.loudly {
                return Ok(Progress::Whole);
            }
            let lane = resumption.lane;
            let is_equal = self.owner.comparison(store).map(|c| c == Comparison::Equal);
            if resumption.refuses(&is_equal) {
                tracing::warn!(lane, "snapshot and store do not go together: reading the log");
                resumption.refused.all();
                return Ok(Progress::Refused);
            }
            if is_equal? {
                return Ok(Progress::Whole);
            }
            tracing::warn!(lane, "the store lacks members that the log holds: writing them again");
            log.seek(lane, &resumption.from)?;
            *self = Self::of(resumption, settings, store, true)?;
            return Ok(Progress::Reads);
        };
        let (next, applied) = self.owner.apply_from(log, topic, self.committed[topic])?;
        let is_stuck = next == self.at[topic] && applied == 0;
        self.at[topic] = next;
        self.owner.make_room();
        self.note_progress(settings.clock.passed());
        Ok(if is_stuck { Progress::Waits(WAIT) } else { Progress::Reads })
    }

    fn note_progress(&mut self, passed: Duration) {
        let read = self.at.iter().sum::<u64>() - self.first;
        self.owner.replayed_records = read;
        self.owner.rebuild_records = (read, self.records);
        let share = (self.records - read) as f64 / read.max(1) as f64;
        self.owner.rebuild_left = (read > 0).then(|| (passed - self.started).mul_f64(share));
        if passed - self.said >= SAY_EVERY {
            self.said = passed;
            self.owner.say();
        }
    }
}

impl LaneOwner {
    /// Everything up to the commit has been read again.
    fn caught_up(&mut self) {
        self.pipeline.rebuilt();
        // What an index did not tell was learned on the way.
        for offsets in &mut self.state.smallest_offsets {
            offsets.remove(&ANY_EPOCH);
        }
    }

    /// The topic to read next: of those that are not done and have something, the one that is
    /// behind in event time; if none has, any.
    fn topic_to_rebuild(&self, log: &dyn Source, at: &[u64], committed: &[u64]) -> Option<usize> {
        let here = |topic: usize| match log.has_data(topic, self.lane) {
            true => committed[topic],
            false => at[topic],
        };
        let here: Vec<u64> = (0..at.len()).map(here).collect();
        self.topic_behind(at, &here).or_else(|| self.topic_behind(at, committed))
    }

    fn say(&self) {
        let (read, records) = self.rebuild_records;
        let left = self.rebuild_left.unwrap_or_default().as_secs() + 1;
        tracing::info!(
            lane = self.lane,
            "rebuilding the state: {} % of {records} records, about {left} s left",
            100 * read / records.max(1)
        );
    }

    /// Compares the counts of open epochs with those of the store (invariant COUNT: what is written
    /// from here on must never be lower).
    fn comparison(&self, store: &dyn Sink) -> Result<Comparison, LaneError> {
        let frontier_ms = self.state.frontier * self.plan.settings.longest_ms();
        let stored = store.counts_of_lane(self.lane, frontier_ms)?;
        let mut rebuilt: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        for cell in self.pipeline.open_cells() {
            let key = CellKey {
                video: cell.video.to_owned(),
                epoch_start_ms: cell.epoch_start_ms,
                epoch_ms: cell.epoch_ms,
                slice: cell.slice.to_owned(),
            };
            rebuilt.insert(key, cell.counts);
        }
        if store.is_shared() {
            // It may be ahead: by what a process wrote before it died, or by what another one that
            // thinks the lane is its own writes now. Of two counts it keeps the larger one.
            let is_there = |(cell, proven): (&CellKey, &CellCounts)| {
                let stored = stored.get(cell).copied().unwrap_or_default();
                stored.impressions >= proven.impressions && stored.plays >= proven.plays
            };
            let lacks_none = rebuilt.iter().all(is_there);
            return Ok(if lacks_none { Comparison::Equal } else { Comparison::StoreLacks });
        }
        for (cell, counts) in &stored {
            let proven = rebuilt.get(cell).copied().unwrap_or_default();
            if counts.impressions > proven.impressions || counts.plays > proven.plays {
                return Err(LaneError::Unproven {
                    lane: self.lane,
                    video: cell.video.clone(),
                    epoch_start_ms: cell.epoch_start_ms,
                });
            }
        }
        let is_equal = stored == rebuilt;
        Ok(if is_equal { Comparison::Equal } else { Comparison::StoreLacks })
    }
}

/// Gives a pipeline what the store holds of its open cells; the first epoch after them.
fn seed(
    pipeline: &mut LanePipeline,
    resumption: &Resumption,
    settings: &LanesSettings,
    store: &dyn Sink,
) -> Result<i64, SinkError> {
    let (lane, frontier) = (resumption.lane, resumption.state.frontier);
    let frontier_ms = frontier * settings.plan.settings.longest_ms();
    let mut stored = store.counts_of_lane(lane, frontier_ms)?;
    if !resumption.gaps.is_empty() {
        tracing::warn!(
            lane,
            cells = stored.len(),
            "the log no longer holds all that open epochs were made of: they go on from the members \
             in the store, and are served as incomplete. Give the topics a longer retention"
        );
    }
    let epoch_of = |cell: &CellKey| settings.plan.settings.epoch_of(cell.epoch_start_ms);
    let seeded_to = stored.keys().map(|cell| epoch_of(cell) + 1).fold(frontier, i64::max);
    store.members_of_lane(lane, frontier_ms, &mut |cell, sets| {
        let counts = stored.remove(&cell).unwrap_or_default();
        let keys = |ids: BTreeSet<Id>| {
            ids.iter().map(|id| pipeline.request_key(&id.to_string())).collect::<Vec<_>>()
        };
        let members = sets.map(keys);
        pipeline.seed(&cell, members, counts);
    })?;
    // Of the others only counts are known.
    for (cell, counts) in stored {
        pipeline.seed(&cell, Default::default(), counts);
    }
    Ok(seeded_to)
}
