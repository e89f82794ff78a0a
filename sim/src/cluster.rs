//! A store that all processes share: the product's Cassandra store over simulated tables, which keep of
//! each column the write with the largest timestamp. A write may be lost, happen and not be
//! acknowledged, happen half, or happen much later, after others.

use crate::script::{Effect, Point};
use crate::source::SCRIPTED;
use crate::store::{StoreState, Written};
use crate::world::Shared;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::{self, Id};
use marquee_sinks::cassandra::cluster::{
    Cluster, ClusterError, Column, CountRow, LaneRow, NotWritten, Part, Partition, Select,
    ValueName, Write,
};
use marquee_sinks::cassandra::patience::Patience;
use marquee_sinks::cassandra::{CassandraStore, StoreOptions};
use marquee_sinks::{Gap, Identity, LaneCommit, LaneState, Sink, SinkError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Length and start of an epoch, slice, bucket.
type Place = (i64, i64, String, u8);

/// Which column of which row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Count(Place, String, u32, usize),
    Members(Place, u32, i32, ValueName),
    Part(Place, u32, i32),
    Slice(i64, i64, String),
    Page(i64, i64),
    Frontier(u32),
    State(u32),
    Gap(String),
    Repair(String),
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Bytes(Vec<u8>),
}

/// A write that is on its way.
type Sent = (Key, i64, Value);

/// What the tables hold.
#[derive(Default)]
pub(crate) struct Tables {
    generation: Option<String>,
    columns: BTreeMap<Key, (i64, Value)>,
    /// Writes of which nobody knows whether they happen, and after how many calls they do.
    delayed: Vec<(u32, Sent)>,
    /// Counts calls, for what must look random.
    calls: u64,
    /// The same, as the judge looks at it.
    pub(crate) state: StoreState,
}

fn place(at: &Partition<'_>) -> Place {
    (at.epoch_ms, at.epoch_start_ms, at.slice.as_ref().to_owned(), at.bucket)
}

fn cell(place: &Place, video: &str) -> CellKey {
    let (epoch_ms, epoch_start_ms, slice, _) = place.clone();
    CellKey { video: video.to_owned(), epoch_start_ms, epoch_ms, slice }
}

fn sent(write: &Write<'_>) -> Sent {
    let (key, value) = match &write.column {
        Column::Count { at, video, lane, side, count } => {
            let key = Key::Count(place(at), (*video).to_owned(), *lane, *side as usize);
            (key, Value::Number(*count as i64))
        }
        Column::Members { at, lane, part, name, ids } => {
            (Key::Members(place(at), *lane, *part, *name), Value::Bytes(ids.to_vec()))
        }
        Column::Part { at, lane, part } => (Key::Part(place(at), *lane, *part), Value::Number(1)),
        Column::Slice { epoch_ms, epoch_start_ms, slice } => {
            (Key::Slice(*epoch_ms, *epoch_start_ms, (*slice).to_owned()), Value::Number(1))
        }
        Column::Page { epoch_ms, page } => (Key::Page(*epoch_ms, *page), Value::Number(1)),
        Column::Frontier { lane, frontier } => (Key::Frontier(*lane), Value::Number(*frontier)),
        Column::State { lane, state } => {
            (Key::State(*lane), Value::Bytes(state.as_bytes().to_vec()))
        }
        Column::Repair { repair } => (Key::Repair((*repair).to_owned()), Value::Number(1)),
        Column::Gap { gap } => (Key::Gap((*gap).to_owned()), Value::Number(1)),
    };
    (key, write.timestamp, value)
}

impl Tables {
    /// A column takes a write, unless it has a newer one; what the count was, and is, if it is one.
    fn apply(&mut self, (key, timestamp, value): Sent) -> Option<(Key, i64, i64)> {
        let new = (timestamp, value);
        let old = self.columns.get(&key).cloned();
        if old.as_ref().is_some_and(|old| *old >= new) {
            return None;
        }
        self.columns.insert(key.clone(), new.clone());
        let number = |value: &Value| if let Value::Number(number) = value { *number } else { 0 };
        let before = old.map_or(0, |(_, value)| number(&value));
        let after = number(&new.1);
        match (&key, &new.1) {
            (Key::Count(place, video, lane, side), _) => {
                let counts = self.state.counts.entry(*lane).or_default();
                let counts: &mut CellCounts = counts.entry(cell(place, video)).or_default();
                let count = if *side == 0 { &mut counts.impressions } else { &mut counts.plays };
                *count = after as u64;
                Some((key, before, after))
            }
            (Key::Frontier(_), _) => Some((key, before, after)),
            (Key::Members(place, lane, ..), Value::Bytes(bytes)) => {
                let cells = self.state.members.entry(*lane).or_default();
                for (video, sets) in decode(bytes) {
                    let held = cells.entry(cell(place, &video)).or_default();
                    held.iter_mut().zip(sets).for_each(|(held, set)| held.extend(set));
                }
                None
            }
            (Key::Gap(gap), _) => {
                self.state.gaps.insert(serde_json::from_str::<Gap>(gap).expect("it was written"));
                None
            }
            _ => None,
        }
    }

    /// A number that looks random, the same in each run.
    fn die(&mut self, sides: u64) -> u64 {
        self.calls += 1;
        (self.calls.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % sides
    }

    /// What stands in a lane's state.
    pub(crate) fn lane_state(&self, lane: u32) -> Option<LaneState> {
        let (_, value) = self.columns.get(&Key::State(lane))?;
        let Value::Bytes(json) = value else { return None };
        serde_json::from_slice(json).ok()
    }
}

/// A value of members, read by code of the judge's own: for each video both sets.
fn decode(mut bytes: &[u8]) -> Vec<(String, [BTreeSet<Id>; 2])> {
    fn text<'b>(bytes: &mut &'b [u8]) -> &'b [u8] {
        let len = chunk::read_number(bytes).expect("the product writes whole values");
        let (text, rest) = bytes.split_at(len as usize);
        *bytes = rest;
        text
    }
    let mut cells = Vec::new();
    while !bytes.is_empty() {
        let video = String::from_utf8(text(&mut bytes).to_vec()).expect("videos are texts");
        let sets = [text(&mut bytes), text(&mut bytes)].map(|chunk| {
            let mut set = BTreeSet::new();
            if !chunk.is_empty() {
                chunk::decode_into(chunk, &mut set).expect("the product writes whole chunks");
            }
            set
        });
        cells.push((video, sets));
    }
    cells
}

/// A process's way to the tables.
struct SimCluster {
    shared: Arc<Shared>,
    process: usize,
}

impl SimCluster {
    fn apply(&self, sent: Vec<Sent>) {
        let mut world = self.shared.world();
        let world = &mut *world;
        for sent in sent {
            let Some((key, before, after)) = world.tables.apply(sent) else { continue };
            let rule = match key {
                Key::Count(..) => "a count never shrinks",
                _ => "the frontier never moves back",
            };
            let words = || format!("{key:?}: from {before} to {after}");
            world.judge.must(after >= before, rule, words);
        }
    }

    /// Those of the delayed writes whose time has come, all of them at the end.
    fn due(&self, all: bool) -> Vec<Sent> {
        let mut world = self.shared.world();
        let delayed = std::mem::take(&mut world.tables.delayed);
        let (due, later): (Vec<_>, Vec<_>) =
            delayed.into_iter().partition(|(calls, _)| all || *calls == 0);
        let later = later.into_iter().map(|(calls, sent)| (calls.saturating_sub(1), sent));
        world.tables.delayed = later.collect();
        due.into_iter().map(|(_, sent)| sent).collect()
    }

    /// What of a call that went wrong happens now, and the numbers of those that are not acknowledged:
    /// of these some have happened all the same, some happen later, and some never.
    fn half(&self, sent: Vec<Sent>, effect: Effect) -> (Vec<Sent>, Vec<usize>) {
        let mut world = self.shared.world();
        let tables = &mut world.tables;
        let (mut now, mut left) = (Vec::new(), Vec::new());
        for (number, sent) in sent.into_iter().enumerate() {
            let happens = match effect {
                Effect::None => false,
                Effect::Torn => tables.die(2) == 0,
                Effect::All => true,
            };
            if !happens || effect == Effect::All || tables.die(3) == 0 {
                left.push(number);
            }
            match happens {
                true => now.push(sent),
                false if tables.die(3) > 0 => {
                    let after = tables.die(40) as u32;
                    tables.delayed.push((after, sent));
                }
                false => {}
            }
        }
        (now, left)
    }
}

impl Cluster for SimCluster {
    fn generation(&self) -> Result<Option<String>, ClusterError> {
        Ok(self.shared.world().tables.generation.clone())
    }

    fn create_generation(&self, generation: &str) -> Result<String, ClusterError> {
        let mut world = self.shared.world();
        Ok(world.tables.generation.get_or_insert_with(|| generation.to_owned()).clone())
    }

    fn write(&self, _: &str, writes: &[Write<'_>]) -> Result<(), NotWritten> {
        self.apply(self.due(false));
        let sent: Vec<Sent> = writes.iter().map(sent).collect();
        let wrong = self.shared.world().goes_wrong(self.process, Point::Commit);
        let Some(effect) = wrong else {
            self.apply(sent);
            return Ok(());
        };
        let (now, left) = self.half(sent, effect);
        self.apply(now);
        let error = ClusterError::Unavailable(SCRIPTED.to_owned());
        Err(NotWritten { left, error })
    }

    fn pages(&self, _: &str, epoch_ms: i64) -> Result<Vec<i64>, ClusterError> {
        let world = self.shared.world();
        let keys = world.tables.columns.keys();
        let page = |key: &Key| match key {
            Key::Page(of, page) if *of == epoch_ms => Some(*page),
            _ => None,
        };
        Ok(keys.filter_map(page).collect())
    }

    fn slices(
        &self,
        _: &str,
        epoch_ms: i64,
        page: i64,
    ) -> Result<Vec<(i64, String)>, ClusterError> {
        /// As docs/cassandra.md says.
        const PAGE_EPOCHS: i64 = 64;
        let world = self.shared.world();
        let keys = world.tables.columns.keys();
        let slice = |key: &Key| match key {
            Key::Slice(of, start_ms, slice) => {
                let is_there = *of == epoch_ms && start_ms.div_euclid(of * PAGE_EPOCHS) == page;
                is_there.then(|| (*start_ms, slice.clone()))
            }
            _ => None,
        };
        Ok(keys.filter_map(slice).collect())
    }

    fn counts(
        &self,
        _: &str,
        partitions: &[Partition<'_>],
        select: Select<'_>,
    ) -> Result<Vec<Vec<CountRow>>, ClusterError> {
        let world = self.shared.world();
        let rows = |at: &Partition<'_>| {
            let mut rows: BTreeMap<(String, u32), [u64; 2]> = BTreeMap::new();
            for (key, (_, value)) in &world.tables.columns {
                let Key::Count(of, video, lane, side) = key else { continue };
                let is_wanted = match select {
                    Select::All => true,
                    Select::Lane(only) => only == *lane,
                    Select::Video(only) => only == video,
                };
                if let (Value::Number(count), true) = (value, is_wanted && *of == place(at)) {
                    rows.entry((video.clone(), *lane)).or_default()[*side] = *count as u64;
                }
            }
            let row = |((video, lane), [impressions, plays]): ((_, _), [u64; 2])| CountRow {
                video,
                lane,
                impressions,
                plays,
            };
            rows.into_iter().map(row).collect()
        };
        Ok(partitions.iter().map(rows).collect())
    }

    fn parts(&self, _: &str, at: &Partition<'_>) -> Result<Vec<Part>, ClusterError> {
        let world = self.shared.world();
        let wanted = place(at);
        let part = |key: &Key| match key {
            Key::Part((epoch_ms, start_ms, slice, bucket), lane, part)
                if (epoch_ms, start_ms, slice) == (&wanted.0, &wanted.1, &wanted.2) =>
            {
                Some(Part { bucket: *bucket, lane: *lane, part: *part })
            }
            _ => None,
        };
        Ok(world.tables.columns.keys().filter_map(part).collect())
    }

    fn members(
        &self,
        _: &str,
        at: &Partition<'_>,
        (lane, part): (u32, i32),
        from_name: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), ClusterError> {
        let world = self.shared.world();
        for (key, (_, value)) in &world.tables.columns {
            let (Key::Members(of, of_lane, of_part, name), Value::Bytes(bytes)) = (key, value)
            else {
                continue;
            };
            let is_here = (of, *of_lane, *of_part) == (&place(at), lane, part);
            if is_here && name.as_slice() >= from_name {
                each(name, bytes);
            }
        }
        Ok(())
    }

    fn lane(&self, _: &str, lane: u32) -> Result<LaneRow, ClusterError> {
        let world = self.shared.world();
        let columns = &world.tables.columns;
        let frontier = columns.get(&Key::Frontier(lane)).map(|(_, value)| match value {
            Value::Number(frontier) => *frontier,
            Value::Bytes(_) => unreachable!("frontiers are numbers"),
        });
        let state = columns.get(&Key::State(lane)).map(|(timestamp, value)| match value {
            Value::Bytes(json) => (String::from_utf8_lossy(json).into_owned(), *timestamp),
            Value::Number(_) => unreachable!("states are texts"),
        });
        Ok(LaneRow { frontier, state })
    }

    fn frontiers(&self, _: &str) -> Result<Vec<(u32, i64)>, ClusterError> {
        Ok(Vec::new()) // only readers ask
    }

    fn repairs(&self, _: &str) -> Result<Vec<String>, ClusterError> {
        Ok(Vec::new()) // only readers ask
    }

    fn gaps(&self, _: &str) -> Result<Vec<String>, ClusterError> {
        Ok(Vec::new()) // only readers ask
    }
}

/// A process that has died gives up; others try again.
struct SimPatience {
    shared: Arc<Shared>,
    process: usize,
}

impl Patience for SimPatience {
    fn wait(&self, _: u32, _: &str) -> bool {
        !self.shared.world().processes[self.process].is_doomed
    }

    fn answered(&self) {}

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// The product's store on the simulated tables, and the judge before it.
pub(crate) struct SharedStore {
    shared: Arc<Shared>,
    process: usize,
    store: CassandraStore,
}

/// The secret of the one generation.
pub(crate) const SECRET: [u8; 16] = [7; 16];

impl SharedStore {
    pub(crate) fn open(shared: &Arc<Shared>, process: usize) -> SharedStore {
        let first_part = {
            let mut world = shared.world();
            world.tables.die(1 << 20) as i32
        };
        let plan = &shared.truth.plan;
        let identity = Identity {
            settings: plan.fingerprint.clone(),
            lanes: Some(plan.lanes),
            epochs_ms: plan.settings.epochs_ms.clone(),
            new_id: "simulated".to_owned(),
            new_secret: SECRET,
        };
        let options = StoreOptions {
            name: "simulated".to_owned(),
            buckets: 2,
            keeps_members: true,
            members_retention_ms: None,
            retention_ms: None,
            clock: || 0,
            first_part,
            view_rows: 0,
        };
        let cluster = Arc::new(SimCluster { shared: shared.clone(), process });
        let patience = Arc::new(SimPatience { shared: shared.clone(), process });
        let store = CassandraStore::open(cluster, &identity, options, &*patience.clone(), patience);
        let store = store.expect("the tables answer");
        SharedStore { shared: shared.clone(), process, store }
    }

    /// All faults are over: what is on its way arrives.
    pub(crate) fn settle(shared: &Arc<Shared>) {
        let cluster = SimCluster { shared: shared.clone(), process: 0 };
        cluster.apply(cluster.due(true));
    }
}

impl Sink for SharedStore {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError> {
        self.store.lane_state(lane)
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        let written: Vec<Written> = commits.iter().map(Written::of).collect();
        {
            let mut world = self.shared.world();
            let world = &mut *world;
            for written in &written {
                let process = self.process;
                world.tell(|| written.words(process));
                let acknowledged = world.processes[process].store.lanes.get(&written.lane);
                let starts = world.starts[written.lane as usize];
                let (truth, tables) = (&self.shared.truth, &world.tables.state);
                world.judge.stores_shared(truth, process, acknowledged, tables, written, starts);
            }
        }
        self.store.commit(commits)?;
        let mut world = self.shared.world();
        let world = &mut *world;
        for written in written {
            let Written { lane, state, cells } = written;
            for (cell, _, sets) in &cells {
                let is_there = |side: usize| {
                    sets[side].iter().all(|id| world.tables.state.has(lane, cell, side, id))
                };
                let all = is_there(0) && is_there(1);
                world.judge.must(all, "what is acknowledged is there", || {
                    format!("p{}, lane {lane}, {cell:?}", self.process)
                });
            }
            world.processes[self.process].store.lanes.insert(lane, state);
        }
        Ok(())
    }

    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        self.store.counts_of_lane(lane, from_ms)
    }

    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.store.members_of_lane(lane, from_ms, each)
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        self.shared.world().judge_gaps(&self.shared, self.process, gaps);
        self.store.add_gaps(gaps)
    }
}
