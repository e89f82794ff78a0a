//! Writing: what changed, row by row, all lanes of an owner as one atomic write. It is durable
//! before anybody can read it, and decides nothing about what is counted.

use super::rows::{self, LaneRows};
use super::{EmbeddedStore, failed, keys, state_json};
use crate::layout::{self, CellWrite, by_rows};
use crate::{LaneState, SinkError};
use fjall::{PersistMode, Readable};
use marquee_model::Side;

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
        cells: &[CellWrite<'_>],
        state: &LaneState,
        write_chunk: impl Fn(usize, Side, &mut Vec<u8>),
    ) -> Result<(), SinkError> {
        let mut rows = self.store.recent.take(lane);
        self.rows(state.position(), cells, &mut rows, write_chunk)?;
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
                layout::write_members(&mut self.members, cell.video, [impressions, plays]);
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

/// Values that are removed at once.
const REMOVED: usize = 4096;

impl EmbeddedStore {
    /// See [`crate::Store::forget_members`]. A crash may bring some of them back: they are removed when
    /// this is called again.
    pub(super) fn remove_members(&self, from_ms: i64, to_ms: i64) -> Result<(), SinkError> {
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::epoch_start(epoch_ms, time_ms.max(0));
            let (from, to) = (start(from_ms), start(to_ms));
            while from < to && self.remove_some(&from, &to)? {}
        }
        Ok(())
    }

    /// `false`: there are none.
    fn remove_some(&self, from: &[u8], to: &[u8]) -> Result<bool, SinkError> {
        let snapshot = self.db.snapshot();
        let mut batch = self.db.batch();
        let mut is_any = false;
        for item in snapshot.range(&self.members, from..to).take(REMOVED) {
            batch.remove(&self.members, item.key().map_err(|e| failed(&self.path, &e))?);
            is_any = true;
        }
        batch.commit().map_err(|e| failed(&self.path, &e))?;
        Ok(is_any)
    }
}
