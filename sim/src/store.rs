//! The store of a process and its letters: the product's `Sink` and `Letterbox`, simulated. A commit
//! takes effect as a whole or not at all; a crash or an error may come before it or after it.

use crate::script::{Effect, Point};
use crate::source::SCRIPTED;
use crate::world::Shared;
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::{self, Id};
use marquee_pipeline::join::cold::{ColdBytes, ColdError, ColdPlace, Fill};
use marquee_sinks::letters::{ALL_OF_IT, LetterKind, LetterOutput, Letterbox};
use marquee_sinks::snapshots::{Snapshots, SnapshotsError, StoredSnapshot};
use marquee_sinks::{Gap, LaneCommit, LaneState, Sink, SinkError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreState {
    pub(crate) lanes: BTreeMap<u32, LaneState>,
    pub(crate) counts: BTreeMap<u32, BTreeMap<CellKey, CellCounts>>,
    pub(crate) members: BTreeMap<u32, BTreeMap<CellKey, [BTreeSet<Id>; 2]>>,
    pub(crate) gaps: BTreeSet<Gap>,
}

/// A commit, decoded.
pub(crate) struct Written {
    pub(crate) lane: u32,
    pub(crate) state: LaneState,
    pub(crate) cells: Vec<(CellKey, CellCounts, [BTreeSet<Id>; 2])>,
}

impl Written {
    pub(crate) fn of(commit: &LaneCommit<'_>) -> Written {
        let cells = commit.batch.cells().map(|changed| {
            let key = CellKey {
                video: changed.cell.video.to_owned(),
                epoch_start_ms: changed.cell.epoch_start_ms,
                epoch_ms: changed.cell.epoch_ms,
                slice: changed.cell.slice.to_owned(),
            };
            let sets = Side::BOTH.map(|side| changed.chunk(side)).map(|bytes| {
                let mut set = BTreeSet::new();
                if !bytes.is_empty() {
                    chunk::decode_into(&bytes, &mut set).expect("the product writes whole chunks");
                }
                set
            });
            (key, changed.cell.counts, sets)
        });
        Written { lane: commit.lane, cells: cells.collect(), state: commit.state.clone() }
    }

    /// What a process stores.
    pub(crate) fn words(&self, process: usize) -> String {
        let cells = self.cells.iter().map(|(cell, counts, _)| {
            let (start, video) = (cell.epoch_start_ms, &cell.video);
            format!(" {video}@{start}={}/{}", counts.impressions, counts.plays)
        });
        let (at, frontier) = (&self.state.next_offsets, self.state.frontier);
        let lane = self.lane;
        let cells = cells.collect::<String>();
        format!("p{process}: stores lane {lane} at {at:?}, frontier {frontier}:{cells}")
    }
}

impl StoreState {
    pub(crate) fn apply(&mut self, written: Written) {
        let counts = self.counts.entry(written.lane).or_default();
        let members = self.members.entry(written.lane).or_default();
        for (cell, count, sets) in written.cells {
            let held = members.entry(cell.clone()).or_default();
            held.iter_mut().zip(sets).for_each(|(held, set)| held.extend(set));
            counts.insert(cell, count);
        }
        self.lanes.insert(written.lane, written.state);
    }

    /// Whether a gap says that this lane's part of a cell may lack members.
    pub(crate) fn doubts(&self, lane: u32, cell: &CellKey, reason: Option<&str>) -> bool {
        let is_it = |gap: &&Gap| {
            gap.lane == lane
                && reason.is_none_or(|reason| gap.reason == reason)
                && gap.touches(cell.epoch_start_ms, cell.epoch_ms)
        };
        self.gaps.iter().any(|gap| is_it(&gap))
    }

    pub(crate) fn has(&self, lane: u32, cell: &CellKey, side: usize, id: &Id) -> bool {
        let sets = self.members.get(&lane).and_then(|cells| cells.get(cell));
        sets.is_some_and(|sets| sets[side].contains(id))
    }
}

/// A running process's hands on its store.
pub(crate) struct SimStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: usize,
}

fn scripted() -> SinkError {
    SinkError::Failed { path: "simulated".to_owned(), error: SCRIPTED.to_owned() }
}

impl Sink for SimStore {
    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError> {
        Ok(self.shared.world().processes[self.process].store.lanes.get(&lane).cloned())
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        let written: Vec<Written> = commits.iter().map(Written::of).collect();
        let mut world = self.shared.world();
        let world = &mut *world;
        let wrong = world.goes_wrong(self.process, Point::Commit);
        if wrong.is_some_and(|effect| effect != Effect::All) {
            return Err(scripted());
        }
        for written in written {
            let process = self.process;
            world.tell(|| written.words(process));
            let store = &mut world.processes[self.process].store;
            let starts = world.starts[written.lane as usize];
            world.judge.stores(&self.shared.truth, self.process, store, &written, starts);
            store.apply(written);
        }
        if wrong.is_some() { Err(scripted()) } else { Ok(()) }
    }

    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        let world = self.shared.world();
        let counts = world.processes[self.process].store.counts.get(&lane);
        let open = counts.into_iter().flatten().filter(|(cell, _)| cell.epoch_start_ms >= from_ms);
        Ok(open.map(|(cell, counts)| (cell.clone(), *counts)).collect())
    }

    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        let world = self.shared.world();
        let members = world.processes[self.process].store.members.get(&lane);
        let open = members.into_iter().flatten().filter(|(cell, _)| cell.epoch_start_ms >= from_ms);
        open.for_each(|(cell, sets)| each(cell.clone(), sets.clone()));
        Ok(())
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        let mut world = self.shared.world();
        let world = &mut *world;
        if gaps.is_empty() {
            return Ok(());
        }
        let wrong = world.goes_wrong(self.process, Point::Gaps);
        if wrong.is_none_or(|effect| effect == Effect::All) {
            world.judge_gaps(&self.shared, self.process, gaps);
            world.processes[self.process].store.gaps.extend(gaps.iter().cloned());
        }
        if wrong.is_some() { Err(scripted()) } else { Ok(()) }
    }
}

/// Names of processes, as far as there are any.
pub(crate) const PROCESS_NAMES: [&str; 3] = ["p0", "p1", "p2"];

/// A process's letters.
pub(crate) struct SimLetterbox {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: usize,
}

struct SimLetters {
    shared: Arc<Shared>,
    process: usize,
    place: (LetterKind, u32),
    pending: Vec<u8>,
}

impl Letterbox for SimLetterbox {
    fn name(&self) -> &str {
        match self.shared.truth.setup.is_shared {
            true => PROCESS_NAMES[self.process],
            false => "",
        }
    }

    fn open(
        &self,
        kind: LetterKind,
        lane: u32,
        committed: u64,
    ) -> Result<Box<dyn LetterOutput>, SinkError> {
        let (shared, process) = (self.shared.clone(), self.process);
        let mut world = shared.world();
        let file = world.processes[process].letters.entry((kind, lane)).or_default();
        let is_whole = file.len() as u64 >= committed || committed == ALL_OF_IT;
        let whole = file.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.truncate(if committed == ALL_OF_IT { whole } else { committed as usize });
        world.judge.must(is_whole, "letters are lost", || {
            format!("p{process}: the {kind:?} letters of lane {lane} are shorter than committed")
        });
        drop(world);
        let place = (kind, lane);
        Ok(Box::new(SimLetters { shared, process, place, pending: Vec::new() }))
    }
}

impl LetterOutput for SimLetters {
    fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    fn sync(&mut self) -> Result<u64, SinkError> {
        let mut world = self.shared.world();
        let world = &mut *world;
        let wrong = match self.pending.is_empty() {
            true => None,
            false => world.goes_wrong(self.process, Point::Letters),
        };
        let written = match wrong {
            None | Some(Effect::All) => self.pending.len(),
            Some(Effect::Torn) => self.pending.len() / 2,
            Some(Effect::None) => 0,
        };
        let file = world.processes[self.process].letters.entry(self.place).or_default();
        file.extend(self.pending.drain(..written));
        if wrong.is_some() { Err(scripted()) } else { Ok(file.len() as u64) }
    }
}

/// State that does not fit into memory, kept there all the same.
#[derive(Debug)]
pub(crate) struct Kept;

#[derive(Debug)]
struct KeptBytes(Vec<u8>);

impl ColdPlace for Kept {
    fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while fill(&mut piece)? {
            all.append(&mut piece);
        }
        Ok(Box::new(KeptBytes(all)))
    }
}

impl ColdBytes for KeptBytes {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
        into.copy_from_slice(&self.0[at as usize..][..into.len()]);
        Ok(())
    }
}

/// A process's snapshots. A place may lose some, and shows torn ones only where the disk has torn
/// them after the fact.
pub(crate) struct SimSnapshots {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: usize,
}

impl SimSnapshots {
    fn failed(words: &str) -> SnapshotsError {
        SnapshotsError { place: "simulated".to_owned(), error: std::io::Error::other(words) }
    }
}

impl Snapshots for SimSnapshots {
    fn list(&self, lane: u32) -> Result<Vec<String>, SnapshotsError> {
        let world = self.shared.world();
        let all = world.processes[self.process].snapshots.keys();
        Ok(all.filter(|(of, _)| *of == lane).map(|(_, name)| name.clone()).collect())
    }

    fn put(
        &self,
        lane: u32,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<u64, SnapshotsError> {
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(|error| Self::failed(&error.to_string()))?;
        let len = bytes.len() as u64;
        let mut world = self.shared.world();
        let world = &mut *world;
        let wrong = world.goes_wrong(self.process, Point::Snapshot);
        let process = self.process;
        world.tell(|| format!("p{process}: takes snapshot {name} of lane {lane}"));
        let stored = &mut world.processes[process].snapshots;
        match wrong {
            Some(Effect::None) => {}
            Some(Effect::Torn) => {
                bytes.truncate(bytes.len() / 2);
                stored.insert((lane, name.to_owned()), bytes);
            }
            None | Some(Effect::All) => {
                stored.insert((lane, name.to_owned()), bytes);
            }
        }
        if wrong.is_some() { Err(Self::failed(SCRIPTED)) } else { Ok(len) }
    }

    fn open(&self, lane: u32, name: &str) -> Result<StoredSnapshot, SnapshotsError> {
        let mut world = self.shared.world();
        let process = self.process;
        world.tell(|| format!("p{process}: opens snapshot {name} of lane {lane}"));
        let stored = world.processes[process].snapshots.get(&(lane, name.to_owned()));
        let bytes = stored.cloned().ok_or_else(|| Self::failed("it is not there"))?;
        let (len, reader) = (bytes.len() as u64, Box::new(std::io::Cursor::new(bytes)));
        Ok(StoredSnapshot { bytes: len, reader })
    }

    fn remove(&self, lane: u32, name: &str) -> Result<(), SnapshotsError> {
        self.shared.world().processes[self.process].snapshots.remove(&(lane, name.to_owned()));
        Ok(())
    }
}
