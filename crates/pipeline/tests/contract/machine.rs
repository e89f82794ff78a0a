//! The smallest runtime that could be right, around real lanes.
//!
//! Durable are a store (members and counts) and, a lane, what one commit writes: offsets, frontier,
//! counters, late output, and for each topic the smallest offset of each epoch. A crash takes a
//! lane back to its last commit, while the store keeps what it has; what it then reads again begins
//! with the oldest epoch that is needed, or at a snapshot that was taken after a commit.

use crate::clock::{self, Clock};
use crate::cold;
use crate::feed::Streams;
use crate::history::{After, History, Record, Replay, Step};
use crate::judge::{self, Judged, Truth};
use marquee_model::{CellCounts, Kind};
use marquee_oracle::{Cell, Member, Side};
use marquee_pipeline::LanePipeline;
use marquee_pipeline::chunk::{self, Id};
use marquee_pipeline::lane::{
    CellView, ChangedCell, Counters, LaneSettings, LateReason, Resume, Verdict,
};
use marquee_pipeline::snapshot::{About, Loader};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a history wrote.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) members: BTreeSet<Member>,
    /// Counts over all lanes, by the oracle's numbers of cells.
    pub(crate) counts: BTreeMap<usize, CellCounts>,
    pub(crate) counters: Vec<Counters>,
    /// Records in late outputs.
    pub(crate) late: usize,
    pub(crate) writes: Vec<Write>,
}

/// What one batch of one lane wrote for one cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    lane: u32,
    cell: Cell,
    counts: CellCounts,
    chunks: [Vec<u8>; 2],
}

/// Lanes, and the store that they write to.
pub(crate) struct Machine {
    plan: Plan,
    lanes: Vec<Lane>,
    store: Store,
}

/// What all lanes share and nothing changes.
struct Plan {
    history: History,
    log: Vec<Record>,
    truth: Truth,
    streams: Streams,
    settings: LaneSettings,
}

#[derive(Default)]
struct Store {
    members: BTreeSet<usize>,
    /// By lane and cell. The store keeps the larger count.
    counts: BTreeMap<(u32, usize), CellCounts>,
    writes: Vec<Write>,
}

struct Lane {
    number: u32,
    /// What each topic holds: numbers of the log.
    topics: [Vec<usize>; 2],
    pipeline: LanePipeline,
    /// What the watermark of this life must be.
    clock: Clock,
    /// As of the last commit.
    durable: Progress,
    /// As it will be at the next commit.
    working: Progress,
    /// Set from a restart to the next commit.
    replayed: Option<(Replay, i64)>,
    /// The last snapshots, newest last.
    saved: Vec<Saved>,
}

/// A snapshot, and what the clock had seen when it was taken.
#[derive(Clone)]
struct Saved {
    bytes: Vec<u8>,
    life: u64,
    offsets: [usize; 2],
    clock: Clock,
}

/// What a commit makes durable.
#[derive(Clone, Default)]
struct Progress {
    offsets: [usize; 2],
    frontier: i64,
    counters: Counters,
    smallest_offset: BTreeMap<(usize, i64), usize>,
    /// Records in the late output.
    late: BTreeSet<usize>,
    dead: u64,
    /// Members that the batches up to this commit wrote. The store may have more: those of a
    /// batch that was stored, but not committed.
    members: BTreeSet<usize>,
    /// Number of the life that committed, and of the snapshot with which it began.
    life: u64,
    began_with: Option<(u64, [usize; 2])>,
}

impl Machine {
    /// Plays a history to its end and judges it on the way.
    pub(crate) fn play(history: &History) -> Result<Written, TestCaseError> {
        let mut machine = Machine::new(history);
        for step in &history.steps {
            machine.step(step)?;
        }
        for lane in &mut machine.lanes {
            lane.read_the_rest(&machine.plan, &mut machine.store)?;
        }
        machine.judge_the_end()?;
        Ok(machine.written())
    }

    fn new(history: &History) -> Self {
        let log = history.log();
        let plan = Plan {
            truth: Truth::of(&log, &history.setup),
            log,
            streams: Streams::of(&history.setup),
            settings: history.setup.for_lanes(),
            history: history.clone(),
        };
        let lanes = (0..history.setup.lanes).map(|number| Lane::new(number, &plan)).collect();
        Machine { plan, lanes, store: Store::default() }
    }

    fn step(&mut self, step: &Step) -> Judged {
        let Machine { plan, lanes, store } = self;
        let count = lanes.len();
        match *step {
            Step::Read { lane, topic, records } => lanes[lane % count].read(plan, topic, records),
            Step::Commit { lane } => lanes[lane % count].commit(plan, store),
            Step::NothingToRead { lane, topic, now_ms } => {
                lanes[lane % count].nothing_to_read(plan, topic, now_ms);
                Ok(())
            }
            Step::Save { lane } => {
                lanes[lane % count].save();
                Ok(())
            }
            Step::Spill { lane, at_least } => {
                let lane = &mut lanes[lane % count].pipeline;
                lane.make_room(&cold::Kept, at_least).expect("memory takes it");
                prop_assert_eq!(lane.cold_failure(), None);
                Ok(())
            }
            Step::Crash { lane, after, replay } => {
                let lane = &mut lanes[lane % count];
                match after {
                    After::Reading => {}
                    After::Storing => drop(lane.store_batch(plan, store)?),
                    After::Committing => lane.commit(plan, store)?,
                }
                lane.restart(plan, replay)
            }
        }
    }

    /// Rules 3 and 4, over all lanes.
    fn judge_the_end(&self) -> Judged {
        let Machine { plan, lanes, store } = self;
        for lane in lanes {
            lane.judge_counters(plan)?;
            lane.judge_store(plan, store)?;
        }
        let largest = plan.truth.counts(plan.truth.all());
        let counts = self.counts();
        for (cell, counts) in &counts {
            let most = largest[cell];
            let fits = counts.impressions <= most.impressions && counts.plays <= most.plays;
            prop_assert!(fits, "{counts:?} is more than {most:?}");
        }
        if lanes.iter().all(|lane| lane.durable.late.is_empty()) {
            prop_assert_eq!(counts, largest);
        }
        Ok(())
    }

    fn counts(&self) -> BTreeMap<usize, CellCounts> {
        let mut counts = BTreeMap::<usize, CellCounts>::new();
        for ((_, cell), of_lane) in &self.store.counts {
            let counts = counts.entry(*cell).or_default();
            *counts = counts.plus(*of_lane);
        }
        counts
    }

    fn written(self) -> Written {
        let truth = &self.plan.truth;
        Written {
            members: self.store.members.iter().map(|n| truth.member(*n).clone()).collect(),
            counts: self.counts(),
            counters: self.lanes.iter().map(|lane| lane.durable.counters).collect(),
            late: self.lanes.iter().map(|lane| lane.durable.late.len()).sum(),
            writes: self.store.writes,
        }
    }
}

impl Lane {
    fn new(number: u32, plan: &Plan) -> Self {
        let lanes = plan.history.setup.lanes;
        let of_topic = |topic: usize| {
            let here = |record: &Record| {
                record.topic() == topic && judge::lane(&record.request_id(), lanes) == number
            };
            (0..plan.log.len()).filter(|n| here(&plan.log[*n])).collect()
        };
        Lane {
            number,
            topics: [of_topic(0), of_topic(1)],
            pipeline: LanePipeline::new(plan.settings.clone()),
            clock: Clock::default(),
            durable: Progress::default(),
            working: Progress::default(),
            replayed: None,
            saved: Vec::new(),
        }
    }

    /// Takes a snapshot, if the state is exactly that of a commit of this life.
    fn save(&mut self) {
        let is_as_committed = self.working.offsets == self.durable.offsets
            && self.pipeline.frontier() == self.durable.frontier
            && self.replayed.is_none();
        if !is_as_committed || !self.pipeline.can_be_saved() {
            return;
        }
        let about = About {
            settings: String::new(),
            shape: String::new(),
            lane: self.number,
            topic_ids: Vec::new(),
            next_offsets: self.durable.offsets.map(|offset| offset as u64).to_vec(),
            life: self.durable.life,
        };
        let mut bytes = Vec::new();
        let write = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok::<(), ()>(())
        };
        self.pipeline.save(&about, write).unwrap();
        let (life, offsets) = (self.durable.life, self.durable.offsets);
        self.saved.push(Saved { bytes, life, offsets, clock: self.clock.clone() });
    }

    /// The snapshot that a replay asks for, if the store holds nothing that it does not prove.
    fn usable(&self, replay: Replay) -> Option<Saved> {
        let saved = self.saved.iter().rev().nth(replay.saved?)?;
        let is_of_life = saved.life == self.durable.life
            || self.durable.began_with == Some((saved.life, saved.offsets));
        is_of_life.then(|| saved.clone())
    }

    fn read(&mut self, plan: &Plan, topic: usize, records: usize) -> Judged {
        for _ in 0..records {
            let offset = self.working.offsets[topic];
            let Some(&number) = self.topics[topic].get(offset) else { break };
            self.read_one(plan, number)?;
            self.working.offsets[topic] += 1;
            let epoch = self.pipeline.settings().epoch_of(plan.log[number].time_ms);
            self.working.smallest_offset.entry((topic, epoch)).or_insert(offset);
        }
        Ok(())
    }

    fn read_one(&mut self, plan: &Plan, number: usize) -> Judged {
        let record = &plan.log[number];
        let is_late = self.is_late(plan, record);
        let verdict = self.feed(plan, record);
        let is_dead = record.is_dead(&plan.history.setup);
        prop_assert_eq!(matches!(verdict, Verdict::Dead(_)), is_dead, "{:?}", record);
        let by_facts = verdict == Verdict::Late(LateReason::MaxFacts);
        if !is_dead && !by_facts {
            let by_epoch = verdict == Verdict::Late(LateReason::ClosedEpoch);
            prop_assert_eq!(by_epoch, is_late, "{:?} is {:?}", record, verdict);
        }
        if matches!(verdict, Verdict::Late(_)) {
            self.working.late.insert(number);
        }
        self.working.dead += u64::from(is_dead);
        Ok(())
    }

    /// "When a group that it could need (impression: epochs of `time - early ... time + within`;
    /// play: `time - within ... time + early`) lies before the frontier." No event is of a time
    /// before 1970.
    fn is_late(&self, plan: &Plan, record: &Record) -> bool {
        let setup = &plan.history.setup;
        let back_ms = match record.kind {
            Kind::Impression => setup.early_ms,
            Kind::Play => setup.within_ms,
        };
        (record.time_ms - back_ms).max(0) / setup.epochs_ms[0] < self.pipeline.frontier()
    }

    fn feed(&mut self, plan: &Plan, record: &Record) -> Verdict {
        if !record.is_dead(&plan.history.setup) {
            self.clock.observe(record);
        }
        plan.streams.feed(&mut self.pipeline, record)
    }

    fn nothing_to_read(&mut self, plan: &Plan, topic: usize, now_ms: i64) {
        let next = self.topics[topic].get(self.working.offsets[topic]);
        let arrives_ms = next.map(|n| plan.log[*n].time_ms + plan.log[*n].delay_ms);
        if arrives_ms.is_none_or(|ms| ms > now_ms) {
            self.pipeline.nothing_to_read(topic, now_ms);
            self.clock.nothing_to_read(topic, now_ms, &plan.history.setup);
        }
    }

    fn read_the_rest(&mut self, plan: &Plan, store: &mut Store) -> Judged {
        let size = plan.history.rest_in_batches_of;
        while (0..2).any(|topic| self.working.offsets[topic] < self.topics[topic].len()) {
            for topic in [0, 1] {
                self.read(plan, topic, size)?;
                if size < usize::MAX {
                    self.commit(plan, store)?;
                }
            }
        }
        self.commit(plan, store)
    }

    /// Ends a batch, judges what is durable then, and lets time pass.
    fn commit(&mut self, plan: &Plan, store: &mut Store) -> Judged {
        let repeated = self.store_batch(plan, store)?;
        self.judge_repeated(plan, &repeated)?;
        self.judge_open_cells(plan)?;
        prop_assert!(self.pipeline.frontier() >= self.durable.frontier, "it moved back");
        self.working.frontier = self.pipeline.frontier();
        self.working.counters = self.pipeline.counters();
        self.durable = self.working.clone();
        self.replayed = None;
        self.pipeline.advance();
        self.judge_time(plan)?;
        let mut read = vec![false; plan.log.len()];
        self.read_so_far().for_each(|number| read[number] = true);
        plan.truth.judge(self.number, &self.durable.members, &read, &self.durable.late)
    }

    /// The watermark is what was read, and the frontier what the watermark says. (The lane may
    /// be rebuilt to a frontier that its watermark has yet to reach again.)
    fn judge_time(&self, plan: &Plan) -> Judged {
        let setup = &plan.history.setup;
        let watermark_ms = self.clock.watermark_ms(setup);
        prop_assert_eq!(self.pipeline.watermark_ms(), watermark_ms);
        let first_open = watermark_ms.map_or(0, |ms| clock::first_open(ms, setup));
        prop_assert_eq!(self.pipeline.frontier(), first_open.max(self.durable.frontier));
        Ok(())
    }

    fn read_so_far(&self) -> impl Iterator<Item = usize> {
        let of_topic = |topic: usize| &self.topics[topic][..self.working.offsets[topic]];
        of_topic(0).iter().chain(of_topic(1)).copied()
    }

    /// Writes a batch to the store. Returns the members that an earlier batch wrote, too.
    fn store_batch(
        &mut self,
        plan: &Plan,
        store: &mut Store,
    ) -> Result<BTreeSet<usize>, TestCaseError> {
        let writes = self.writes();
        let mut repeated = BTreeSet::new();
        for write in &writes {
            let members = members_of(write);
            prop_assert!(!members.is_empty(), "a write without members: {:?}", write);
            for member in members {
                let number = plan.truth.number(&member, self.number)?;
                store.members.insert(number);
                if !self.working.members.insert(number) {
                    repeated.insert(number);
                }
            }
        }
        let sizes = plan.truth.counts(self.working.members.iter().copied());
        for write in writes {
            let cell = plan.truth.cell(&write.cell)?;
            let size = sizes[&cell];
            prop_assert_eq!(write.counts, size, "{:?}", write);
            let stored = store.counts.entry((self.number, cell)).or_default();
            stored.impressions = stored.impressions.max(size.impressions);
            stored.plays = stored.plays.max(size.plays);
            store.writes.push(write);
        }
        Ok(repeated)
    }

    fn writes(&mut self) -> Vec<Write> {
        let lane = self.number;
        let batch = self.pipeline.batch();
        let of_cell = |changed: ChangedCell<'_>| Write {
            lane,
            cell: cell_of(&changed.cell),
            counts: changed.cell.counts,
            chunks: marquee_model::Side::BOTH.map(|side| changed.chunk(side)),
        };
        batch.cells().map(of_cell).collect()
    }

    /// In one life a member is written once. After a rebuild, a loud one writes all members of
    /// open epochs again, a silent one only those that a fact of a closed epoch proves.
    fn judge_repeated(&self, plan: &Plan, repeated: &BTreeSet<usize>) -> Judged {
        let Some((replay, frontier)) = self.replayed else {
            prop_assert!(repeated.is_empty(), "written twice: {:?}", repeated);
            return Ok(());
        };
        if replay.loudly {
            let is_open = |n: &usize| plan.truth.epoch_of(*n) >= self.pipeline.frontier();
            let open = self.durable.members.iter().copied().filter(is_open);
            let missing: Vec<_> = open.filter(|n| !repeated.contains(n)).collect();
            prop_assert!(missing.is_empty(), "not written again: {:?}", missing);
            return Ok(());
        }
        let epoch = |record: usize| self.pipeline.settings().epoch_of(plan.log[record].time_ms);
        for number in repeated {
            let by_closed = plan.truth.records_of(*number).any(|record| epoch(record) < frontier);
            prop_assert!(by_closed, "not silent: {:?}", plan.truth.member(*number));
        }
        Ok(())
    }

    /// What the lane holds of open epochs is what it wrote, also after a rebuild.
    fn judge_open_cells(&self, plan: &Plan) -> Judged {
        let mut held = BTreeMap::new();
        for view in self.pipeline.open_cells() {
            held.insert(plan.truth.cell(&cell_of(&view))?, view.counts);
        }
        let is_open = |n: &usize| plan.truth.epoch_of(*n) >= self.pipeline.frontier();
        let written = plan.truth.counts(self.working.members.iter().copied().filter(is_open));
        prop_assert_eq!(held, written, "rebuilt: {:?}", self.replayed);
        Ok(())
    }

    /// A new process goes on from the last commit: it reads everything again that the open epochs
    /// need, in the order of each topic.
    fn restart(&mut self, plan: &Plan, replay: Replay) -> Judged {
        self.working = self.durable.clone();
        let Progress { frontier, counters, offsets, .. } = self.durable;
        let resume = Resume { frontier, counters };
        let saved = self.usable(replay);
        // A snapshot brings what was written before it; what is read again is counted silently.
        let replay = Replay { loudly: replay.loudly && saved.is_none(), ..replay };
        self.replayed = Some((replay, frontier));
        self.working.life += 1;
        self.working.began_with = saved.as_ref().map(|saved| (saved.life, saved.offsets));
        let settings = plan.settings.clone();
        let mut next;
        match saved {
            Some(saved) => {
                let mut loader = Loader::new(settings, resume, saved.bytes.len() as u64);
                // In pieces of any size.
                for piece in saved.bytes.chunks(1 + replay.seed as usize % 300) {
                    prop_assert_eq!(loader.feed(piece), Ok(()));
                }
                self.pipeline = loader.finish().unwrap();
                (self.clock, next) = (saved.clock, saved.offsets);
                self.clock.interrupted();
            }
            None => {
                self.pipeline = LanePipeline::rebuild(settings, resume, replay.loudly);
                self.clock = Clock::default();
                let oldest = self.pipeline.settings().oldest_needed_by(frontier);
                next = [0, 1].map(|topic| self.rewind(topic, oldest));
            }
        }
        let mut random = replay.seed;
        while next != offsets {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let topic = (random >> 40) as usize % 2;
            if next[topic] < offsets[topic] {
                let record = &plan.log[self.topics[topic][next[topic]]];
                self.feed(plan, record);
                next[topic] += 1;
            }
            if (random >> 50).is_multiple_of(4) {
                self.pipeline.advance();
            }
        }
        prop_assert!(self.pipeline.is_rebuilding());
        self.pipeline.rebuilt();
        prop_assert_eq!(self.pipeline.counters(), counters, "a replay counts nothing");
        Ok(())
    }

    /// Where reading must start for all facts of the oldest epoch that is needed.
    fn rewind(&self, topic: usize, oldest: i64) -> usize {
        let of_topic = self.durable.smallest_offset.range((topic, oldest)..(topic + 1, i64::MIN));
        of_topic.map(|(_, offset)| *offset).min().unwrap_or(self.durable.offsets[topic])
    }

    /// Counters are functions of the log and of what was late, whatever happened on the way.
    fn judge_counters(&self, plan: &Plan) -> Judged {
        let Progress { counters, late, dead, .. } = &self.durable;
        let records = self.topics[0].len() + self.topics[1].len();
        prop_assert_eq!(counters.events, records as u64);
        prop_assert_eq!(counters.dead, *dead);
        prop_assert_eq!(counters.late, late.len() as u64);
        prop_assert_eq!(counters.filtered, 0);
        if late.is_empty() {
            let different: BTreeSet<_> =
                self.read_so_far().filter_map(|n| plan.identity(&plan.log[n])).collect();
            let alive = records as u64 - dead;
            prop_assert_eq!(counters.duplicates, alive - different.len() as u64);
        }
        Ok(())
    }

    /// Rule 3 for one lane, at the end.
    fn judge_store(&self, plan: &Plan, store: &Store) -> Judged {
        let here = |number: &usize| plan.truth.is_of_lane(*number, self.number);
        let stored: BTreeSet<usize> = store.members.iter().copied().filter(here).collect();
        prop_assert!(self.durable.members.is_subset(&stored));
        if self.durable.members == stored {
            let of_lane = store.counts.range((self.number, 0)..(self.number + 1, 0));
            let counts: BTreeMap<_, _> = of_lane.map(|((_, cell), c)| (*cell, *c)).collect();
            prop_assert_eq!(counts, plan.truth.counts(stored.into_iter()));
        } else {
            // A batch was stored and lost, and what it held was late when it was read again.
            prop_assert!(!self.durable.late.is_empty());
        }
        Ok(())
    }
}

impl Plan {
    /// What makes two events the same to the join; nothing for a dead letter.
    fn identity(&self, record: &Record) -> Option<marquee_oracle::Event> {
        let setup = &self.history.setup;
        let mut event = record.event();
        let is_cohort_play = record.kind == Kind::Play && !setup.epoch_of_play_is_play;
        if !setup.sliced || is_cohort_play {
            event.attributes.clear();
        }
        (!record.is_dead(setup)).then_some(event)
    }
}

fn cell_of(view: &CellView<'_>) -> Cell {
    Cell {
        video: view.video.to_owned(),
        epoch_ms: view.epoch_ms,
        epoch_start_ms: view.epoch_start_ms,
        slice: view.slice.to_owned(),
    }
}

/// The members in the chunks of a write.
fn members_of(write: &Write) -> BTreeSet<Member> {
    let mut members = BTreeSet::new();
    for (side, bytes) in [Side::Impressions, Side::Plays].into_iter().zip(&write.chunks) {
        let mut ids = BTreeSet::<Id>::new();
        if !bytes.is_empty() {
            chunk::decode_into(bytes, &mut ids).unwrap();
        }
        let member = |id: Id| Member { cell: write.cell.clone(), side, request_id: id.to_string() };
        members.extend(ids.into_iter().map(member));
    }
    members
}
