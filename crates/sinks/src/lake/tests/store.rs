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
        let sets = &mut self.lock().sets;
        let sides = sets.entry((lane, cell(epoch, other))).or_default();
        sides[usize::from(side)].insert(Id::of(&format!("request {id}")));
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

    fn add_repairs(&self, _: &[Repair]) -> Result<(), SinkError> {
        unreachable!("the lake only reads")
    }

    fn repairs(&self) -> Result<Vec<Repair>, SinkError> {
        Ok(Vec::new())
    }
}
