//! A store in memory, whose closed epochs grow as by repairs.

use super::Sets;
use crate::letters::LetterKind;
use crate::{
    CellQuery, ClosedCell, Gap, Generation, Identity, LaneCommit, LaneState, Members, Repair, Sink,
    SinkError, Store,
};
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

pub(super) const LANES: u32 = 2;
pub(super) const EPOCH_MS: i64 = 1000;

#[derive(Debug)]
pub(in super::super) struct MemoryStore {
    generation: Generation,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sets: Sets,
    /// What was added, in order: lane, position, cell, side, id.
    added: Vec<(u32, u64, CellKey, usize, Id)>,
    states: BTreeMap<u32, LaneState>,
    gaps: Vec<Gap>,
    counts_only: bool,
}

/// One of two cells of an epoch.
pub(super) fn cell(epoch: i64, other: bool) -> CellKey {
    let video = if other { "b" } else { "a" }.to_owned();
    CellKey { video, epoch_start_ms: epoch * EPOCH_MS, slice: String::new(), epoch_ms: EPOCH_MS }
}

impl MemoryStore {
    pub(in super::super) fn new() -> Self {
        let identity = Identity {
            settings: serde_json::json!({}),
            lanes: Some(LANES),
            epochs_ms: vec![EPOCH_MS],
            new_id: "generation".to_owned(),
            new_secret: [7; 16],
        };
        let generation = Generation::new(&identity, 1).expect("it has lanes");
        MemoryStore { generation, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn add(&self, lane: u32, epoch: i64, side: u8, id: u8, other: bool) {
        let (key, side) = (cell(epoch, other), usize::from(side));
        let id = Id::of(&format!("request {id}"));
        let inner = &mut *self.lock();
        let state = inner.states.entry(lane).or_default();
        state.next_offsets.resize(1, 0);
        // An owner adds to what is open, a repair to what is closed.
        let position = match epoch < state.frontier {
            true => u64::MAX,
            false => {
                state.next_offsets[0] += 1;
                state.position()
            }
        };
        inner.sets.entry((lane, key.clone())).or_default()[side].insert(id.clone());
        inner.added.push((lane, position, key, side, id));
    }

    /// The lane's owner is another one now, which reads something once more.
    pub(super) fn restart(&self, lane: u32) {
        let inner = &mut *self.lock();
        let state = inner.states.entry(lane).or_default();
        state.life += 1;
        state.next_offsets.iter_mut().for_each(|offset| *offset = offset.saturating_sub(2));
    }

    /// Start of a lane's first open epoch.
    pub(super) fn open_from_ms(&self, lane: u32) -> i64 {
        self.lock().states.get(&lane).map_or(0, |state| state.frontier * EPOCH_MS)
    }

    pub(super) fn close_next(&self, lane: u32) {
        self.lock().states.entry(lane).or_default().frontier += 1;
    }

    pub(super) fn forget(&self, cell: &CellKey) {
        self.lock().sets.retain(|(_, key), _| key != cell);
    }

    pub(super) fn close(&self, lane: u32, frontier: i64) {
        self.lock().states.entry(lane).or_default().frontier = frontier;
    }

    pub(super) fn close_all(&self) {
        (0..LANES).for_each(|lane| self.close(lane, 10));
    }

    pub(in super::super) fn commit_letters(&self, lane: u32, kind: LetterKind, bytes: u64) {
        let mut inner = self.lock();
        let state = inner.states.entry(lane).or_default();
        match kind {
            LetterKind::Late => state.late_bytes = bytes,
            LetterKind::Dead => state.dead_bytes = bytes,
        }
    }

    pub(super) fn keep_no_members(&self) {
        self.lock().counts_only = true;
    }

    pub(super) fn add_gap(&self, from_ms: i64, to_ms: i64) {
        let (topic, reason) = ("plays".to_owned(), "trimmed".to_owned());
        let gap = Gap { lane: 0, topic, from_offset: 0, to_offset: 1, from_ms, to_ms, reason };
        self.lock().gaps.push(gap);
    }

    pub(super) fn sets(&self) -> Sets {
        self.lock().sets.clone()
    }
}

fn counts(sides: &[BTreeSet<Id>; 2]) -> CellCounts {
    CellCounts { impressions: sides[0].len() as u64, plays: sides[1].len() as u64 }
}

impl Sink for MemoryStore {
    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError> {
        Ok(self.lock().states.get(&lane).cloned())
    }

    fn commit(&self, _: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        unreachable!("the lake only reads")
    }

    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        let inner = self.lock();
        let wanted =
            inner.sets.iter().filter(|((of, key), _)| *of == lane && key.epoch_start_ms >= from_ms);
        Ok(wanted.map(|((_, key), sides)| (key.clone(), counts(sides))).collect())
    }

    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        let inner = self.lock();
        for ((of, key), sides) in &inner.sets {
            if *of == lane && key.epoch_start_ms >= from_ms && !inner.counts_only {
                each(key.clone(), sides.clone());
            }
        }
        Ok(())
    }

    fn add_gaps(&self, _: &[Gap]) -> Result<(), SinkError> {
        unreachable!("the lake only reads")
    }
}

impl Store for MemoryStore {
    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn cells(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let (from_ms, to_ms) = (query.from_ms.unwrap_or(0), query.to_ms.unwrap_or(i64::MAX));
        for ((_, key), sides) in &self.lock().sets {
            if (from_ms..to_ms).contains(&key.epoch_start_ms) {
                each(key.clone(), counts(sides));
            }
        }
        Ok(())
    }

    fn gaps(&self) -> Result<Vec<Gap>, SinkError> {
        Ok(self.lock().gaps.clone())
    }

    fn members_of_cells(&self, _: u32, _: &[&CellKey]) -> Result<Members, SinkError> {
        unreachable!("the lake reads stretches")
    }

    fn write_closed(
        &self,
        _: u32,
        _: u64,
        _: &[ClosedCell<'_>],
        _: Option<&LaneState>,
    ) -> Result<(), SinkError> {
        unreachable!("the lake only reads")
    }

    fn members_since(
        &self,
        lane: u32,
        (from_ms, to_ms): (i64, i64),
        position: u64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        let inner = self.lock();
        let mut found = Members::new();
        for (of, at, key, side, id) in &inner.added {
            let is_in_time = (from_ms..to_ms).contains(&key.epoch_start_ms);
            let is_there = inner.sets.contains_key(&(lane, key.clone())) && !inner.counts_only;
            if *of == lane && *at >= position && is_in_time && is_there && wants(key) {
                found.entry(key.clone()).or_default()[*side].insert(id.clone());
            }
        }
        found.into_iter().for_each(|(key, sets)| each(key, sets));
        Ok(())
    }

    fn add_repairs(&self, _: &[Repair]) -> Result<(), SinkError> {
        unreachable!("the lake only reads")
    }

    fn repairs(&self) -> Result<Vec<Repair>, SinkError> {
        Ok(Vec::new())
    }
}
