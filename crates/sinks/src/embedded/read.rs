//! Reading cells and members.

use super::{EmbeddedStore, failed, keys, rows};
use crate::layout::{self, RowKey, bucket_of, decode_both};
use crate::{CellQuery, Members, SinkError};
use fjall::{Keyspace, Readable, Snapshot};
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::Id;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

impl EmbeddedStore {
    /// Calls `each` with every cell of every lane that the query selects, all lanes of a cell one
    /// after the other, from one consistent snapshot.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn scan(
        &self,
        query: &CellQuery,
        mut each: impl FnMut(CellKey, u32, CellCounts),
    ) -> Result<(), SinkError> {
        let snapshot = self.db.snapshot();
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::epoch_start(epoch_ms, time_ms.max(0));
            let from = start(query.from_ms.unwrap_or(0));
            let to = start(query.to_ms.unwrap_or(i64::MAX));
            if from >= to {
                continue;
            }
            if let (Some(video), Some(slice)) = (&query.video, &query.slice) {
                self.scan_one(&snapshot, (epoch_ms, from, to), (slice, video), &mut each)?;
                continue;
            }
            let mut rows = RowsOfLanes::new(self, query.video.as_deref());
            for item in snapshot.range(&self.counts, from..to) {
                rows.add(item, query.slice.as_deref(), &mut each)?;
            }
            rows.end(&mut each);
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
            let key = first.key().map_err(|e| failed(&self.path, &e))?;
            let epoch_start_ms = self.row_key(&key)?.epoch_start_ms;
            let bucket = bucket_of(video);
            let row = RowKey { epoch_ms, epoch_start_ms, slice, bucket, lane: 0 };
            let mut rows = RowsOfLanes::new(self, Some(video));
            for item in snapshot.prefix(&self.counts, row.of_all_lanes()) {
                rows.add(item, None, each)?;
            }
            rows.end(each);
            from = keys::epoch_start(epoch_ms, epoch_start_ms + 1);
            if from >= to {
                break;
            }
        }
        Ok(())
    }

    fn row_key<'k>(&self, key: &'k [u8]) -> Result<RowKey<'k>, SinkError> {
        RowKey::read(key).ok_or_else(|| self.damaged("a key of counts is unreadable"))
    }

    /// See [`crate::Store::cells`].
    pub(super) fn sums(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
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

    /// See [`crate::Store::members_of_cells`].
    pub(super) fn stored_members(
        &self,
        lane: u32,
        cells: &[&CellKey],
    ) -> Result<Members, SinkError> {
        let mut rows: BTreeMap<Vec<u8>, BTreeMap<&str, &CellKey>> = BTreeMap::new();
        for &cell in cells {
            let CellKey { epoch_ms, epoch_start_ms, ref slice, ref video } = *cell;
            let row = RowKey { epoch_ms, epoch_start_ms, slice, bucket: bucket_of(video), lane };
            rows.entry(row.bytes()).or_default().insert(video, cell);
        }
        let mut members = Members::new();
        for (row, cells) in rows {
            for item in self.members.prefix(row) {
                let bytes = item.value().map_err(|e| failed(&self.path, &e))?;
                let each = |video: &str, chunks: [&[u8]; 2]| {
                    let Some(&cell) = cells.get(video) else { return Ok(()) };
                    decode_both(chunks, members.entry(cell.clone()).or_default())
                };
                layout::read_members(&bytes, each).map_err(|e| self.unreadable("a chunk", &e))?;
            }
        }
        Ok(members)
    }

    /// Calls `each` with every member of every cell and lane, once.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn each_member(
        &self,
        mut each: impl FnMut(&CellKey, u32, Side, &Id),
    ) -> Result<(), SinkError> {
        self.each_row_of_members((0, i64::MAX), 0, |row, members| {
            for (video, sets) in members()? {
                let cell = row.cell(&video);
                for (side, ids) in Side::BOTH.into_iter().zip(&sets) {
                    ids.iter().for_each(|id| each(&cell, row.lane, side, id));
                }
            }
            Ok(())
        })
    }

    /// Calls `each` with every row of epochs that start from a time on and before another, and with
    /// what reads its members from a position on, by video; from one consistent snapshot. One row is in
    /// memory at a time.
    pub(super) fn each_row_of_members(
        &self,
        (from_ms, to_ms): (i64, i64),
        position: u64,
        mut each: impl FnMut(
            &RowKey<'_>,
            &dyn Fn() -> Result<BTreeMap<String, [BTreeSet<Id>; 2]>, SinkError>,
        ) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let snapshot = self.db.snapshot();
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::epoch_start(epoch_ms, time_ms.max(0));
            let (mut from, to) = (start(from_ms), start(to_ms));
            while from < to
                && let Some(first) = snapshot.range(&self.members, from..to.clone()).next()
            {
                let key = first.key().map_err(|e| failed(&self.path, &e))?;
                let row = RowKey::read_members(&key)
                    .ok_or_else(|| self.damaged("a key of members is unreadable"))?;
                let prefix = row.bytes();
                each(&row, &|| self.row_of_members(&snapshot, &prefix, position))?;
                from = keys::behind_row(prefix);
            }
        }
        Ok(())
    }

    fn row_of_members(
        &self,
        snapshot: &Snapshot,
        row: &[u8],
        position: u64,
    ) -> Result<BTreeMap<String, [BTreeSet<Id>; 2]>, SinkError> {
        let mut members: BTreeMap<String, [BTreeSet<Id>; 2]> = BTreeMap::new();
        let (from, to) = (keys::members_from(row, position), keys::behind_row(row.to_vec()));
        for item in snapshot.range(&self.members, from..to) {
            let bytes = item.value().map_err(|e| failed(&self.path, &e))?;
            let each = |video: &str, chunks: [&[u8]; 2]| match members.get_mut(video) {
                Some(sets) => decode_both(chunks, sets),
                None => decode_both(chunks, members.entry(video.to_owned()).or_default()),
            };
            layout::read_members(&bytes, each).map_err(|e| self.unreadable("a chunk", &e))?;
        }
        Ok(members)
    }

    /// See [`crate::Store::epochs_between`]: goes from epoch to epoch, past the cells of each. All
    /// lengths are looked at: an event counts in each, but a damaged store may have lost the longest.
    pub(super) fn stored_epochs(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<BTreeSet<i64>, SinkError> {
        let snapshot = self.db.snapshot();
        let longest_ms = self.generation.epochs_ms()[0];
        let mut epochs = BTreeSet::new();
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::epoch_start(epoch_ms, time_ms.max(0));
            let (mut from, to) = (start(from_ms), start(to_ms));
            while from < to
                && let Some(first) = snapshot.range(&self.counts, from..to.clone()).next()
            {
                let key = first.key().map_err(|e| failed(&self.path, &e))?;
                let epoch_start_ms = self.row_key(&key)?.epoch_start_ms;
                let epoch = epoch_start_ms - epoch_start_ms.rem_euclid(longest_ms);
                epochs.insert(epoch);
                from = start(epoch.saturating_add(longest_ms));
            }
        }
        Ok(epochs)
    }

    /// See [`crate::Store::counts_between`]. Rows of other lanes are passed over unread.
    pub(super) fn stored_counts(
        &self,
        lane: Option<u32>,
        from_ms: i64,
        to_ms: i64,
        each: &mut dyn FnMut(u32, CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let snapshot = self.db.snapshot();
        for &epoch_ms in self.generation.epochs_ms() {
            let start = |time_ms: i64| keys::epoch_start(epoch_ms, time_ms.max(0));
            let (from, to) = (start(from_ms), start(to_ms));
            if from >= to {
                continue;
            }
            for item in snapshot.range(&self.counts, from..to) {
                let (key, bytes) = item.into_inner().map_err(|e| failed(&self.path, &e))?;
                let row = self.row_key(&key)?;
                if lane.is_some_and(|lane| lane != row.lane) {
                    continue;
                }
                let tell = |video: &str, counts| each(row.lane, row.cell(video), counts);
                rows::read_counts(&bytes, tell)
                    .map_err(|e| self.unreadable("a row of counts", &e))?;
            }
        }
        Ok(())
    }

    /// All elements of a set whose elements are keys.
    pub(super) fn all_of<T: DeserializeOwned>(
        &self,
        keyspace: &Keyspace,
        what: &str,
    ) -> Result<Vec<T>, SinkError> {
        let mut elements = Vec::new();
        for item in keyspace.iter() {
            let key = item.key().map_err(|e| failed(&self.path, &e))?;
            let element = serde_json::from_slice(&key)
                .map_err(|e| self.damaged(&format!("{what} is unreadable: {e}")))?;
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Gathers the rows of all lanes, so that each cell comes with all its lanes.
struct RowsOfLanes<'s> {
    store: &'s EmbeddedStore,
    /// Only this video, and the only bucket that it can be in.
    video: Option<(&'s str, u8)>,
    epoch_ms: i64,
    epoch_start_ms: i64,
    slice: String,
    bucket: u8,
    cells: Vec<(String, u32, CellCounts)>,
}

impl<'s> RowsOfLanes<'s> {
    fn new(store: &'s EmbeddedStore, video: Option<&'s str>) -> Self {
        let video = video.map(|video| (video, bucket_of(video)));
        let (slice, cells) = Default::default();
        RowsOfLanes { store, video, epoch_ms: 0, epoch_start_ms: 0, slice, bucket: 0, cells }
    }

    /// Takes the next row, of this slice only where one is given, after those before it are told.
    fn add(
        &mut self,
        item: fjall::Guard,
        slice: Option<&str>,
        each: &mut impl FnMut(CellKey, u32, CellCounts),
    ) -> Result<(), SinkError> {
        let store = self.store;
        let (key, bytes) = item.into_inner().map_err(|e| failed(&store.path, &e))?;
        let row = store.row_key(&key)?;
        if slice.is_some_and(|slice| slice != row.slice)
            || self.video.is_some_and(|(_, bucket)| bucket != row.bucket)
        {
            return Ok(());
        }
        if (row.epoch_ms, row.epoch_start_ms, row.slice, row.bucket)
            != (self.epoch_ms, self.epoch_start_ms, self.slice.as_str(), self.bucket)
        {
            self.end(each);
            (self.epoch_ms, self.epoch_start_ms) = (row.epoch_ms, row.epoch_start_ms);
            (self.slice, self.bucket) = (row.slice.to_owned(), row.bucket);
        }
        let (lane, only) = (row.lane, self.video);
        let cells = &mut self.cells;
        let each = |video: &str, counts| {
            if only.is_none_or(|(only, _)| only == video) {
                cells.push((video.to_owned(), lane, counts));
            }
        };
        rows::read_counts(&bytes, each).map_err(|e| store.unreadable("a row of counts", &e))
    }

    /// Tells all cells that were gathered.
    fn end(&mut self, each: &mut impl FnMut(CellKey, u32, CellCounts)) {
        let RowsOfLanes { epoch_ms, epoch_start_ms, ref slice, .. } = *self;
        self.cells.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        for (video, lane, counts) in self.cells.drain(..) {
            each(CellKey { video, epoch_start_ms, epoch_ms, slice: slice.clone() }, lane, counts);
        }
    }
}
