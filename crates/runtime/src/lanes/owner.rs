//! The owner of some lanes: takes them, works in batches, gives them up.
//!
//! A batch: read, apply, write counts, members and the lanes' positions as one, sync once for all
//! lanes, and only then let time and the visible position move, and tell the log (invariant LOG:
//! nothing is committed before it is durable).
//!
//! All of that in steps, between which the owner is plain data. It never sleeps and never asks the
//! system for the time: it says what it waits for, and its clock is passed in. So a thread can run
//! it, and a simulation can stop, kill and interleave many of them at each step.

use super::lane::LaneOwner;
use super::note::Note;
use super::rebuild::{Progress, Rebuild};
use super::resume::Resumption;
use super::room::Sharers;
use super::snapshots::Refused;
use super::{LaneError, LanesSettings};
use crate::history::{BatchNote, Stage, Stages};
use crate::status::StatusBoard;
use marquee_sinks::Sink;
use marquee_sources::{AssignedLane, Change, Commit, Source, SourceError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often an idle owner looks up, so that idle topics and a stop are noticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// Where there is more to read, a batch is read for this many times as long as the last one took to be
/// written, at least.
const WRITE_FACTOR: u32 = 2;

/// But not for longer than this because of that.
const LONGEST_BATCH: Duration = Duration::from_secs(5);

/// How long an owner sleeps while records are on their way.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// How long a stop may take to count what was accepted before it.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// What an owner wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its next step, at once.
    Step,
    /// Its next step after this time.
    Sleep(Duration),
    /// Its next step when its source has something to tell, or this time is over.
    Wait(Duration),
    /// Nothing: it has stopped, and all that it has counted is durable.
    Ended,
}

/// The owner of some lanes.
pub struct Owner {
    number: usize,
    /// All lanes that were given, also those that are still being rebuilt.
    given: Vec<u32>,
    /// Their part in the memory.
    sharers: Option<Sharers>,
    claims: Arc<Claims>,
    pub(super) settings: LanesSettings,
    pub(super) source: Box<dyn Source>,
    store: Arc<dyn Sink>,
    pub(super) status: Arc<StatusBoard>,
    stop: Arc<AtomicBool>,
    /// The lanes that are whole.
    pub(super) lanes: Vec<LaneOwner>,
    phase: Phase,
    /// Set by a stop: up to where the log is still read, and until when.
    finishing: Option<(Vec<Vec<u64>>, Duration)>,
    /// Whether the last frontiers were written, for the last snapshots.
    has_settled: bool,
    /// How long the last write took.
    wrote: Duration,
}

/// What the next step does.
enum Phase {
    /// Between two batches: the share may change.
    Between,
    /// Lanes were given that another owner of this process may not have let go yet. `releases` says
    /// how often others had let lanes go before the log was asked about these.
    Claims { assigned: Vec<AssignedLane>, releases: u64 },
    /// Lanes are made whole, one after the other.
    Takes(Taking),
    /// A batch is read.
    Reads(Batch),
    /// What was read is written.
    Writes(Batch),
    /// What is durable is told to the log.
    Tells(Batch),
    /// A snapshot is due.
    Saves(Batch),
    /// The interval of a batch that was not full has to pass.
    Rests { until: Duration },
}

/// Lanes on their way to be whole.
struct Taking {
    left: VecDeque<(Resumption, AssignedLane)>,
    /// The first of them, once it has begun.
    rebuild: Option<Box<Rebuild>>,
}

#[derive(Clone, Copy)]
struct Batch {
    started: Duration,
    found: Found,
    records: u64,
    stages: Stages,
}

impl Batch {
    fn begun(started: Duration) -> Self {
        Batch { started, found: Found::Nothing, records: 0, stages: Stages::default() }
    }
}

/// What a batch found to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// All there was.
    Some,
    /// More than one batch takes.
    Much,
}

impl Owner {
    /// The owners of a process, one for each source. They never have a lane at the same time, tell
    /// the board how they are doing, and end after `stop` is set.
    pub fn all(
        settings: &LanesSettings,
        sources: Vec<Box<dyn Source>>,
        store: &Arc<dyn Sink>,
        status: &Arc<StatusBoard>,
        stop: &Arc<AtomicBool>,
    ) -> Vec<Owner> {
        let claims = Arc::new(Claims::default());
        let owner = |(number, source): (usize, Box<dyn Source>)| Owner {
            number,
            given: Vec::new(),
            sharers: None,
            claims: claims.clone(),
            settings: settings.clone(),
            source,
            store: store.clone(),
            status: status.clone(),
            stop: stop.clone(),
            lanes: Vec::new(),
            phase: Phase::Between,
            finishing: None,
            has_settled: false,
            wrote: Duration::ZERO,
        };
        sources.into_iter().enumerate().map(owner).collect()
    }

    /// Which of its process's owners this is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Waits for what [`Next::Wait`] asks for.
    pub fn wait(&mut self, at_most: Duration) {
        self.source.wait(at_most);
    }

    /// Does the next piece of work. After an error the owner is of no more use: its lanes go on
    /// from their last commit.
    pub fn step(&mut self) -> Result<Next, LaneError> {
        match std::mem::replace(&mut self.phase, Phase::Between) {
            Phase::Between if self.stops() => self.finish(),
            Phase::Between => self.look_up(),
            Phase::Claims { assigned, releases } => self.claim(assigned, releases),
            Phase::Takes(taking) => self.take_on(taking),
            Phase::Reads(batch) => self.read(batch),
            Phase::Writes(batch) => self.write(batch),
            Phase::Tells(batch) => self.tell(batch),
            Phase::Saves(mut batch) => {
                let began = self.passed();
                self.save_one();
                batch.stages.add(Stage::Snapshot, self.passed() - began);
                Ok(self.end_batch(batch))
            }
            Phase::Rests { until } => Ok(self.rest(until)),
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn passed(&self) -> Duration {
        self.settings.clock.passed()
    }

    /// Looks whether the share has changed, and begins a batch where there are lanes.
    fn look_up(&mut self) -> Result<Next, LaneError> {
        self.status.trouble(self.number, self.source.trouble());
        let releases = self.claims.releases();
        match self.source.change()? {
            Change::None => {}
            Change::Assigned(assigned) => {
                self.lanes.clear();
                self.given = assigned.iter().map(|lane| lane.lane).collect();
                self.sharers = Some(self.settings.memory.shared_by(self.given.len()));
                let is_shared = !self.source.ends_with_process();
                self.status.give(self.given.iter().copied(), is_shared);
                self.phase = Phase::Claims { assigned, releases };
                return Ok(Next::Step);
            }
            Change::Revoked => self.give_up()?,
        }
        if self.lanes.is_empty() {
            return Ok(Next::Wait(HEARTBEAT));
        }
        self.begin_batch();
        Ok(Next::Step)
    }

    /// Whether taking lanes is given up because of a stop or a revocation, which the next look at
    /// the source finds.
    fn gives_up_taking(&mut self) -> bool {
        self.stops() || self.source.is_revoked()
    }

    /// Decides where each lane goes on, once no other owner has any of them.
    fn claim(&mut self, mut assigned: Vec<AssignedLane>, releases: u64) -> Result<Next, LaneError> {
        if !self.claims.take(self.number, &self.given) {
            if self.gives_up_taking() {
                return Ok(Next::Step);
            }
            self.phase = Phase::Claims { assigned, releases };
            return Ok(Next::Sleep(SHORT_WAIT));
        }
        if self.claims.releases() != releases {
            self.look_again(&mut assigned)?;
        } else if self.store.is_shared() {
            self.ask_again(&mut assigned)?;
        }
        let plan = |lane: &AssignedLane| {
            Resumption::of(lane, &self.settings, &*self.store, Refused::default())
        };
        let resumptions = assigned.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        // Before anything else of these lanes is seen: until they are whole they are in doubt, and
        // after that their gaps are.
        let gaps: Vec<_> = resumptions.iter().flat_map(|r| r.gaps.clone()).collect();
        self.store.add_gaps(&gaps)?;
        let from: Vec<_> = resumptions.iter().map(|r| (r.lane, r.from.clone())).collect();
        self.source.start(&from)?;
        let left = resumptions.into_iter().zip(assigned).collect();
        self.phase = Phase::Takes(Taking { left, rebuild: None });
        Ok(Next::Step)
    }

    /// Since the log was asked, another owner may have read on and counted: the log is at least as
    /// long as that.
    fn look_again(&self, assigned: &mut [AssignedLane]) -> Result<(), LaneError> {
        for lane in assigned {
            let state = self.store.lane_state(lane.lane)?.unwrap_or_default();
            for (end, next) in lane.end_offsets.iter_mut().zip(state.next_offsets) {
                *end = (*end).max(next);
            }
        }
        Ok(())
    }

    /// The same, where the owner may be of another process: the log is asked again. What the store has
    /// counted is no proof of it, since a log that was cut must be found out.
    fn ask_again(&self, assigned: &mut [AssignedLane]) -> Result<(), LaneError> {
        for lane in assigned {
            let state = self.store.lane_state(lane.lane)?.unwrap_or_default();
            let mut places = lane.end_offsets.iter().zip(&state.next_offsets);
            if places.any(|(end, next)| end < next)
                && let Some(ends) = self.source.ends_now(lane.lane)
            {
                lane.end_offsets = ends;
            }
        }
        Ok(())
    }

    /// Goes on to make lanes whole.
    fn take_on(&mut self, mut taking: Taking) -> Result<Next, LaneError> {
        let Some((resumption, assigned)) = taking.left.front_mut() else {
            return Ok(Next::Step); // all are whole
        };
        let next = match self.rebuild_on(&mut taking.rebuild, resumption) {
            Err(LaneError::Log(SourceError::OutOfRange { topic_index, start, .. }))
                if start > assigned.start_offsets[topic_index] =>
            {
                // The log was trimmed meanwhile.
                assigned.start_offsets[topic_index] = start;
                self.plan_anew(resumption, assigned)?;
                taking.rebuild = None;
                Next::Step
            }
            Err(error) => return Err(error),
            Ok(Progress::Reads) => Next::Step,
            Ok(Progress::Waits(time)) => Next::Wait(time),
            Ok(Progress::Refused) => {
                self.plan_anew(resumption, assigned)?;
                taking.rebuild = None;
                Next::Step
            }
            Ok(Progress::Whole) => {
                let rebuild = taking.rebuild.take().expect("it has just ended");
                let lane = rebuild.into_lane();
                self.status.set(lane.status(&*self.source));
                self.lanes.push(lane);
                taking.left.pop_front();
                Next::Step
            }
        };
        if !taking.left.is_empty() && self.gives_up_taking() {
            self.lanes.clear();
            return Ok(Next::Step);
        }
        self.phase = Phase::Takes(taking);
        Ok(next)
    }

    /// Decides again where a lane goes on, after something has turned out to be otherwise.
    fn plan_anew(
        &mut self,
        resumption: &mut Resumption,
        assigned: &mut AssignedLane,
    ) -> Result<(), LaneError> {
        if self.store.is_shared() {
            self.ask_again(std::slice::from_mut(assigned))?;
        }
        let refused = std::mem::take(&mut resumption.refused);
        *resumption = Resumption::of(assigned, &self.settings, &*self.store, refused)?;
        self.store.add_gaps(&resumption.gaps)?;
        self.source.seek(resumption.lane, &resumption.from)?;
        Ok(())
    }

    fn rebuild_on(
        &mut self,
        rebuild: &mut Option<Box<Rebuild>>,
        resumption: &mut Resumption,
    ) -> Result<Progress, LaneError> {
        let (settings, store) = (&self.settings, &*self.store);
        let Some(rebuild) = rebuild else {
            let begun = Rebuild::begin(resumption, settings, store)?;
            *rebuild = begun.map(Box::new);
            return Ok(if rebuild.is_some() { Progress::Reads } else { Progress::Refused });
        };
        let progress = rebuild.step(resumption, settings, &mut *self.source, store)?;
        self.status.set(rebuild.lane().status(&*self.source));
        Ok(progress)
    }

    /// Lets all lanes go: everything that was read is durable already.
    fn give_up(&mut self) -> Result<(), LaneError> {
        self.source.flush_commits();
        self.save_quickly();
        self.lanes.clear();
        self.sharers = None;
        self.claims.give_up(self.number);
        self.status.take_back(self.given.drain(..));
        self.source.release()?;
        Ok(())
    }

    fn begin_batch(&mut self) {
        self.phase = Phase::Reads(Batch::begun(self.passed()));
    }

    /// Reads from each lane, until there is nothing more, or the batch is large or old enough.
    fn read(&mut self, mut batch: Batch) -> Result<Next, LaneError> {
        let began = self.passed();
        let (mut records, mut is_behind, mut is_full) = (0, false, false);
        for lane in &mut self.lanes {
            let reading = lane.read(&mut *self.source)?;
            records += reading.records;
            is_behind |= reading.is_behind;
            is_full |= reading.is_full;
        }
        if records > 0 {
            batch.found = Found::Some;
        }
        let now = self.passed();
        batch.records += records as u64;
        batch.stages.add(Stage::Join, now - began);
        let took = now - batch.started;
        let left = self.batch_time().saturating_sub(took);
        if is_full || (is_behind && left.is_zero() && records > 0) {
            batch.found = Found::Much;
        } else if is_behind && !left.is_zero() && !self.stops() {
            self.phase = Phase::Reads(batch);
            // The topics that are behind have their records on the way; what is here of the others
            // must wait, so there is nothing that the source could wake us for.
            let is_starving = records == 0;
            return Ok(if is_starving { Next::Sleep(SHORT_WAIT.min(left)) } else { Next::Step });
        }
        self.phase = Phase::Writes(batch);
        Ok(Next::Step)
    }

    /// How long a batch may be read for, while there is more: longer where writing takes long. A cell
    /// is written once a batch, however many events have changed it, so fewer and larger batches are
    /// what a slow store needs to keep up.
    fn batch_time(&self) -> Duration {
        let enough = (WRITE_FACTOR * self.wrote).min(LONGEST_BATCH);
        self.settings.batch_interval.max(enough)
    }

    /// Makes durable what was read.
    fn write(&mut self, mut batch: Batch) -> Result<Next, LaneError> {
        let begun = self.passed();
        let mut gaps = Vec::new();
        for lane in &mut self.lanes {
            gaps.extend(lane.take_gaps(&*self.source));
        }
        if !gaps.is_empty() {
            self.store.add_gaps(&gaps)?;
        }
        let mut commits = Vec::new();
        for lane in &mut self.lanes {
            commits.extend(lane.commit()?);
        }
        if !commits.is_empty() {
            let began = self.settings.clock.passed();
            batch.stages.add(Stage::Pack, began - begun);
            self.store.commit(&commits)?;
            self.wrote = self.settings.clock.passed() - began;
            batch.stages.add(Stage::Store, self.wrote);
        }
        self.phase = Phase::Tells(batch);
        Ok(Next::Step)
    }

    /// Tells the log, and lets time move.
    fn tell(&mut self, mut batch: Batch) -> Result<Next, LaneError> {
        let began = self.passed();
        self.tell_log()?;
        batch.stages.add(Stage::Tell, self.passed() - began);
        let took = self.passed() - batch.started;
        for lane in &mut self.lanes {
            lane.committed(took);
            self.status.set(lane.status(&*self.source));
            let samples = lane.take_samples();
            if !samples.is_empty() {
                self.status.note_letters(samples);
            }
        }
        if self.has_due_snapshot() {
            self.phase = Phase::Saves(batch);
            return Ok(Next::Step);
        }
        Ok(self.end_batch(batch))
    }

    /// Decides when the next batch begins.
    fn end_batch(&mut self, batch: Batch) -> Next {
        if batch.records > 0 {
            let Batch { records, stages, .. } = batch;
            let at_ms = self.settings.clock.now_ms();
            self.status.note_batch(&BatchNote { at_ms, records, stages });
        }
        match batch.found {
            _ if self.stops() => Next::Step,
            Found::Much => Next::Step,
            Found::Some => self.rest(batch.started + self.settings.batch_interval),
            Found::Nothing => Next::Wait(HEARTBEAT),
        }
    }

    /// What the store holds durably is committed to the log, too.
    fn tell_log(&mut self) -> Result<(), LaneError> {
        if self.source.ends_with_process() {
            return Ok(()); // nobody else will ever ask it
        }
        let (settings, name) = (&self.settings.plan.settings, &self.settings.name);
        let commit = |lane: &LaneOwner| Note::text(&lane.state, settings, name);
        let committed: Vec<&LaneOwner> = self.lanes.iter().filter(|l| l.was_committed()).collect();
        let commits: Vec<Commit<'_>> = committed
            .iter()
            .map(|lane| Commit {
                lane: lane.lane,
                next_offsets: &lane.state.next_offsets,
                note: commit(lane),
            })
            .collect();
        let number = self.source.commit(&commits)?;
        let (confirmed, refused) = (self.source.confirmed(), self.source.refused());
        for lane in &mut self.lanes {
            if lane.was_committed() {
                lane.told(number);
            }
            lane.confirmed(confirmed, refused);
        }
        Ok(())
    }

    /// Waits until the interval is over, then for data. A steady trickle is thus taken in batches.
    fn rest(&mut self, until: Duration) -> Next {
        let left = until.saturating_sub(self.passed());
        if left.is_zero() || self.stops() {
            return Next::Wait(HEARTBEAT);
        }
        self.phase = Phase::Rests { until };
        Next::Sleep(left.min(HEARTBEAT))
    }

    /// After a stop. Where the log ends with this process, counts what it holds by now, so that
    /// everything accepted before the stop is in the store when the process ends. Bounded: what is
    /// left is counted after the restart.
    fn finish(&mut self) -> Result<Next, LaneError> {
        if self.source.ends_with_process() {
            let passed = self.passed();
            let (lanes, source) = (&self.lanes, &*self.source);
            let begin = || {
                let ends = lanes.iter().map(|lane| lane.ends(source)).collect();
                (ends, passed + FINISH_WITHIN)
            };
            let (ends, until) = self.finishing.get_or_insert_with(begin);
            let is_behind = lanes.iter().zip(ends).any(|(lane, ends)| lane.is_behind(ends));
            if is_behind && passed < *until {
                self.begin_batch();
                return Ok(Next::Step);
            }
        }
        if !std::mem::replace(&mut self.has_settled, true) && self.has_frontier_to_write() {
            self.phase = Phase::Writes(Batch::begun(self.passed()));
            return Ok(Next::Step);
        }
        self.source.flush_commits();
        self.save_all();
        Ok(Next::Ended)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.claims.give_up(self.number);
    }
}

/// Which owner of this process works on which lanes. A group may give a lane to one while another
/// one, which it has lost sight of, has not finished its batch: both would write into one store
/// (invariant COUNT).
#[derive(Debug, Default)]
struct Claims(Mutex<Claimed>);

#[derive(Debug, Default)]
struct Claimed {
    /// Owners by lane.
    by: BTreeMap<u32, usize>,
    /// How often an owner has let lanes go.
    releases: u64,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Claimed> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Claims all of some lanes, if no other owner has any of them.
    fn take(&self, owner: usize, lanes: &[u32]) -> bool {
        let mut claimed = self.lock();
        let is_free = |lane: &u32| claimed.by.get(lane).is_none_or(|other| *other == owner);
        let all_free = lanes.iter().all(is_free);
        if all_free {
            claimed.by.extend(lanes.iter().map(|lane| (*lane, owner)));
        }
        all_free
    }

    fn releases(&self) -> u64 {
        self.lock().releases
    }

    fn give_up(&self, owner: usize) {
        let mut claimed = self.lock();
        claimed.by.retain(|_, other| *other != owner);
        claimed.releases += 1;
    }
}
