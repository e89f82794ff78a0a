//! Writing: what changed, row by row, all lanes of an owner as one atomic write. It is durable
//! before anybody can read it, and decides nothing about what is counted.

use super::keys::{self, RowKey, bucket_of};
use super::rows::{self, LaneRows};
use super::{EmbeddedStore, failed, state_json};
use crate::{LaneState, SinkError};
use fjall::PersistMode;
use marquee_model::{CellCounts, Side};
use marquee_pipeline::LaneBatch;
use marquee_pipeline::lane::CellView;
use std::collections::HashMap;

/// What a lane writes of a cell.
pub(super) struct CellWrite<'c> {
    pub(super) row: RowKey<'c>,
    pub(super) video: &'c str,
    pub(super) counts: CellCounts,
    /// Which one it is, for its new members.
    pub(super) number: usize,
}

/// What a batch writes of a lane.
pub(super) fn cell_writes<'b>(lane: u32, batch: &'b LaneBatch<'_>) -> Vec<CellWrite<'b>> {
    let write = |number| {
        let CellView { epoch_start_ms, epoch_ms, slice, video, counts } = batch.cell(number).cell;
        let row = RowKey { epoch_ms, epoch_start_ms, slice, bucket: bucket_of(video), lane };
        CellWrite { row, video, counts, number }
    };
    (0..batch.len()).map(write).collect()
}

/// A cell's place in the order of rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct InRow {
    /// Number of the epoch and slice, in the order in which they are met, and bucket.
    row: u64,
    number: u32,
}

/// The numbers of cells, those of a row together. Cells of one epoch and slice mostly come one after
/// the other, and there are few of these, so small numbers are sorted.
fn by_rows(cells: &[CellWrite<'_>]) -> Vec<InRow> {
    let mut groups = HashMap::new();
    let mut last = None;
    let mut order = Vec::with_capacity(cells.len());
    for (number, CellWrite { row, .. }) in cells.iter().enumerate() {
        let group = (row.epoch_ms, row.epoch_start_ms, row.slice);
        let known = last.filter(|(known, _)| *known == group);
        let (_, group) = *last.insert(known.unwrap_or_else(|| {
            let next = groups.len() as u64;
            (group, *groups.entry(group).or_insert(next))
        }));
        order.push(InRow { row: group << 8 | u64::from(row.bucket), number: number as u32 });
    }
    order.sort_unstable();
    order
}

/// One write of all lanes of an owner, all or nothing.
pub(super) struct Writing<'s> {
    store: &'s EmbeddedStore,
    batch: fjall::OwnedWriteBatch,
    /// Rows of the lanes as they are once it is durable.
    rows: Vec<(u32, LaneRows)>,
    counts: Vec<u8>,
    members: Vec<u8>,
    chunks: [Vec<u8>; 2],
}

impl<'s> Writing<'s> {
    pub(super) fn new(store: &'s EmbeddedStore) -> Self {
        // With this durability the journal is synced before anything reaches the memtable, where
        // readers see it and from where it might be flushed ahead of its journal.
        let batch = store.db.batch().durability(Some(PersistMode::SyncAll));
        let (counts, members, chunks) = Default::default();
        Writing { store, batch, rows: Vec::new(), counts, members, chunks }
    }

    /// Adds what a lane writes, row by row: its counts as they are now, and what is new of its
    /// members.
    pub(super) fn lane(
        &mut self,
        lane: u32,
        name: u64,
        cells: &[CellWrite<'_>],
        state: &LaneState,
        write_chunk: impl Fn(usize, Side, &mut Vec<u8>),
    ) -> Result<(), SinkError> {
        let mut rows = self.store.recent.take(lane);
        self.rows(name, cells, &mut rows, write_chunk)?;
        self.batch.insert(&self.store.lanes, lane.to_be_bytes(), state_json(state));
        self.rows.push((lane, rows));
        Ok(())
    }

    /// The same for closed epochs, of which the lane's owner writes nothing any more: what it keeps
    /// of the rows that were written lately is its own, and need not know of this. So rows are read
    /// from the store, and both may be done at once.
    pub(super) fn closed(
        &mut self,
        lane: u32,
        name: u64,
        cells: &[CellWrite<'_>],
        state: Option<&LaneState>,
        write_chunk: impl Fn(usize, Side, &mut Vec<u8>),
    ) -> Result<(), SinkError> {
        self.rows(name, cells, &mut LaneRows::default(), write_chunk)?;
        if let Some(state) = state {
            self.batch.insert(&self.store.lanes, lane.to_be_bytes(), state_json(state));
        }
        Ok(())
    }

    fn rows(
        &mut self,
        name: u64,
        cells: &[CellWrite<'_>],
        rows: &mut LaneRows,
        write_chunk: impl Fn(usize, Side, &mut Vec<u8>),
    ) -> Result<(), SinkError> {
        let order = by_rows(cells);
        for row in order.chunk_by(|a, b| a.row == b.row) {
            let mut row: Vec<_> = row.iter().map(|at| &cells[at.number as usize]).collect();
            // The same members get the same name, and counts are merged.
            row.sort_unstable_by_key(|cell| cell.video);
            let key = row[0].row.bytes();
            if self.store.keeps_members {
                self.add_members(&key, name, &row, &write_chunk);
            }
            let counts = rows.row(&key, || self.store.stored_row(&key))?;
            self.counts.clear();
            let changes = row.iter().map(|cell| (cell.video, cell.counts));
            rows::merge_counts(counts, changes, &mut self.counts)
                .map_err(|e| self.store.unreadable("a row of counts", &e))?;
            counts.clear();
            counts.extend_from_slice(&self.counts);
            self.batch.insert(&self.store.counts, key, self.counts.as_slice());
        }
        Ok(())
    }

    fn add_members(
        &mut self,
        key: &[u8],
        name: u64,
        row: &[&CellWrite<'_>],
        write_chunk: &impl Fn(usize, Side, &mut Vec<u8>),
    ) {
        self.members.clear();
        for cell in row {
            for (side, bytes) in Side::BOTH.into_iter().zip(&mut self.chunks) {
                bytes.clear();
                write_chunk(cell.number, side, bytes);
            }
            let [impressions, plays] = &self.chunks;
            if !impressions.is_empty() || !plays.is_empty() {
                rows::write_members(&mut self.members, cell.video, [impressions, plays]);
            }
        }
        if !self.members.is_empty() {
            let key = keys::members(key, name, &self.members);
            self.batch.insert(&self.store.members, key, self.members.as_slice());
        }
    }

    /// Durable on return.
    pub(super) fn commit(self) -> Result<(), SinkError> {
        self.batch.commit().map_err(|e| failed(&self.store.path, &e))?;
        for (lane, rows) in self.rows {
            self.store.recent.give_back(lane, rows);
        }
        Ok(())
    }
}
