//! Reading cells and members.

use super::{EmbeddedStore, failed, keys, side_byte};
use crate::{Gap, Sink, SinkError};
use fjall::{Readable, Snapshot};
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::{self, Id};
use std::collections::BTreeSet;

/// Which cells to read. The default: all.
#[derive(Clone, Debug, Default)]
pub struct CellQuery {
    /// Epochs that start at or after this time, milliseconds.
    pub from_ms: Option<i64>,
    /// Epochs that start before this time, milliseconds.
    pub to_ms: Option<i64>,
    /// Only this video.
    pub video: Option<String>,
    /// Only this slice (JSON, empty for the empty slice).
    pub slice: Option<String>,
}

impl EmbeddedStore {
    /// Calls `each` with every cell of every lane that the query selects, all lanes of a cell one
    /// after the other, from one consistent snapshot.
    pub fn scan(
        &self,
        query: &CellQuery,
        mut each: impl FnMut(CellKey, u32, CellCounts),
    ) -> Result<(), SinkError> {
        let snapshot = self.db.snapshot();
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::cell_start(epoch_ms, time_ms.max(0));
            let from = start(query.from_ms.unwrap_or(0));
            let to = start(query.to_ms.unwrap_or(i64::MAX));
            if from >= to {
                continue;
            }
            if let (Some(video), Some(slice)) = (&query.video, &query.slice) {
                self.scan_one(&snapshot, (epoch_ms, from, to), (slice, video), &mut each)?;
                continue;
            }
            for item in snapshot.range(&self.counts, from..to) {
                let (cell, lane, counts) = self.cell_of(item)?;
                if query.video.as_ref().is_none_or(|video| *video == cell.video)
                    && query.slice.as_ref().is_none_or(|slice| *slice == cell.slice)
                {
                    each(cell, lane, counts);
                }
            }
        }
        Ok(())
    }

    /// The same for one video and slice: goes from epoch to epoch, and in each to its cell, past
    /// those of all other videos.
    fn scan_one(
        &self,
        snapshot: &Snapshot,
        (epoch_ms, mut from, to): (i64, Vec<u8>, Vec<u8>),
        (slice, video): (&str, &str),
        each: &mut impl FnMut(CellKey, u32, CellCounts),
    ) -> Result<(), SinkError> {
        while let Some(first) = snapshot.range(&self.counts, from..to.clone()).next() {
            let (first, ..) = self.cell_of(first)?;
            let cell = keys::cell(epoch_ms, first.epoch_start_ms, slice, video);
            for item in snapshot.prefix(&self.counts, cell) {
                let (cell, lane, counts) = self.cell_of(item)?;
                each(cell, lane, counts);
            }
            from = keys::cell_start(epoch_ms, first.epoch_start_ms + 1);
            if from >= to {
                break;
            }
        }
        Ok(())
    }

    fn cell_of(&self, item: fjall::Guard) -> Result<(CellKey, u32, CellCounts), SinkError> {
        let (key, value) = item.into_inner().map_err(|e| failed(&self.path, &e))?;
        let (cell, lane) =
            keys::read_counts(&key).ok_or_else(|| self.damaged("a key of counts is unreadable"))?;
        let counts =
            read_counts(&value).ok_or_else(|| self.damaged("a value of counts is unreadable"))?;
        Ok((cell, lane, counts))
    }

    /// Calls `each` with every cell that the query selects, lanes added up.
    pub fn cells(
        &self,
        query: &CellQuery,
        mut each: impl FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let mut last: Option<(CellKey, CellCounts)> = None;
        self.scan(query, |cell, _, counts| match &mut last {
            Some((key, sum)) if *key == cell => *sum = sum.plus(counts),
            _ => {
                if let Some((key, sum)) = last.replace((cell, counts)) {
                    each(key, sum);
                }
            }
        })?;
        if let Some((key, sum)) = last {
            each(key, sum);
        }
        Ok(())
    }

    /// The members of one side of a cell in one lane.
    pub fn members(
        &self,
        cell: &CellKey,
        lane: u32,
        side: Side,
    ) -> Result<BTreeSet<Id>, SinkError> {
        let mut prefix = keys::cell(cell.epoch_ms, cell.epoch_start_ms, &cell.slice, &cell.video);
        prefix.extend_from_slice(&lane.to_be_bytes());
        prefix.push(side_byte(side));
        let mut ids = BTreeSet::new();
        for item in self.members.prefix(prefix) {
            let bytes = item.value().map_err(|e| failed(&self.path, &e))?;
            chunk::decode_into(&bytes, &mut ids).map_err(|e| self.damaged(&e.to_string()))?;
        }
        Ok(ids)
    }

    /// Calls `each` with every member of every cell and lane, as often as chunks repeat it.
    pub fn each_member(
        &self,
        mut each: impl FnMut(&CellKey, u32, Side, &Id),
    ) -> Result<(), SinkError> {
        for item in self.db.snapshot().iter(&self.members) {
            let (key, value) = item.into_inner().map_err(|e| failed(&self.path, &e))?;
            let (cell, lane, side) = keys::read_chunk(&key)
                .ok_or_else(|| self.damaged("a key of members is unreadable"))?;
            let mut ids = BTreeSet::new();
            chunk::decode_into(&value, &mut ids).map_err(|e| self.damaged(&e.to_string()))?;
            ids.iter().for_each(|id| each(&cell, lane, side, id));
        }
        Ok(())
    }

    /// All gaps, in no order that means anything.
    pub fn gaps(&self) -> Result<Vec<Gap>, SinkError> {
        let mut gaps = Vec::new();
        for item in self.gaps.iter() {
            let key = item.key().map_err(|e| failed(&self.path, &e))?;
            let gap = serde_json::from_slice(&key)
                .map_err(|e| self.damaged(&format!("a gap is unreadable: {e}")))?;
            gaps.push(gap);
        }
        Ok(gaps)
    }

    /// The first epoch (start, milliseconds) that is not sealed: readers call an epoch sealed
    /// when every lane has closed it.
    pub fn sealed_before_ms(&self) -> Result<i64, SinkError> {
        let longest_ms = self.generation.epochs_ms()[0];
        let mut sealed_before = i64::MAX;
        for lane in 0..self.generation.lanes {
            let frontier = self.lane_state(lane)?.map_or(0, |state| state.frontier);
            sealed_before = sealed_before.min(frontier.saturating_mul(longest_ms));
        }
        Ok(sealed_before)
    }
}

fn read_counts(value: &[u8]) -> Option<CellCounts> {
    let (impressions, plays) = value.split_first_chunk::<8>()?;
    Some(CellCounts {
        impressions: u64::from_le_bytes(*impressions),
        plays: u64::from_le_bytes(plays.try_into().ok()?),
    })
}
