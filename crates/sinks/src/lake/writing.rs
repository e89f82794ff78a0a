//! Writing one lane's stretch: its cells as the store has them, in the union with what the lake has,
//! range by range of cells so that only some of the members are in memory.

use super::layout::FileName;
use super::manifest::{Base, Entry, LakeFile};
use super::objects::Stop;
use super::parquet::{CellsFile, CellsWriter};
use super::rows::{Fingerprint, Row};
use super::sealing::SealingSettings;
use super::status::LakeStatus;
use super::{LakeError, Manifests};
use crate::{Gap, Store};
use marquee_model::{CellCounts, CellKey};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::{Bound, RangeBounds};

/// What a request id takes in a set, and a cell beside its sets, about, bytes.
const ID_BYTES: u64 = 64;
const CELL_BYTES: u64 = 256;

/// What of a file's name says what is in it: who does not know the generation's secret cannot make
/// another content of the same name.
pub(super) fn content_hash(secret: &[u8; 16], bytes: &[u8]) -> String {
    let mut hasher = SipHasher13::new_with_key(secret);
    hasher.write(bytes);
    format!("{:032x}", hasher.finish128().as_u128())
}

/// Whether a cell surely has all members: served the same by HTTP.
pub(super) fn is_complete(gaps: &[Gap], key: &CellKey) -> bool {
    !gaps.iter().any(|gap| gap.touches(key.epoch_start_ms, key.epoch_ms))
}

/// One lane's stretch that is being written.
pub(super) struct Writing<'s> {
    pub(super) store: &'s dyn Store,
    pub(super) settings: &'s SealingSettings,
    pub(super) status: &'s LakeStatus,
    pub(super) stop: &'s Stop,
    pub(super) manifests: &'s Manifests,
    pub(super) stretch: i64,
    pub(super) lane: u32,
    pub(super) gaps: &'s [Gap],
}

impl Writing<'_> {
    /// Writes the files, in the union with what a base has, and returns their entry.
    pub(super) fn entry(&self, version: u64, base: &Base) -> Result<Entry, LakeError> {
        let (from_ms, to_ms) = self.between_ms();
        let mut cells: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        self.store.counts_between(Some(self.lane), from_ms, to_ms, &mut |_, key, counts| {
            cells.insert(key, counts);
        })?;
        let mut print = Fingerprint::default();
        for (key, counts) in &cells {
            print.see(key, *counts, is_complete(self.gaps, key));
        }
        let cells: Vec<(CellKey, CellCounts)> = cells.into_iter().collect();
        let of_lake = self.files_to_unite(base, &cells)?;
        let mut output = Output::new(self, version, false);
        let size = |(_, counts): &(CellKey, CellCounts)| counts.impressions + counts.plays;
        let ranges = ranges(&cells, self.settings.memory_bytes, size);
        let mut after = Bound::Unbounded;
        for (number, range) in ranges.iter().enumerate() {
            self.stop.go_on()?;
            let is_last = number + 1 == ranges.len();
            let up_to = match range.last() {
                Some((key, _)) if !is_last => Bound::Included(key),
                _ => Bound::Unbounded,
            };
            let mut rows = self.rows_of_store(range)?;
            self.add_rows_of_lake(&of_lake, (after, up_to), &mut rows)?;
            for mut row in rows.into_values() {
                row.settle();
                if !self.settings.members {
                    row.requests = [None, None];
                }
                output.add(row)?;
            }
            after = match up_to {
                Bound::Included(key) => Bound::Excluded(key),
                _ => Bound::Unbounded,
            };
        }
        let Written { rows, sums, incomplete_rows, lists, files } = output.finish()?;
        Ok(Entry {
            lane: self.lane,
            from_ms,
            to_ms,
            rows,
            impressions: sums.impressions,
            plays: sums.plays,
            incomplete_rows,
            lists,
            fingerprint: print.text(),
            read_to: Vec::new(),
            files,
        })
    }

    /// Start and end of the stretch.
    pub(super) fn between_ms(&self) -> (i64, i64) {
        (self.stretch, self.stretch + self.manifests.layout.stretch_ms)
    }

    /// The files of the lake that have something which the store may lack: those of the entry. Deltas
    /// were read from the store, which only grows; unless somebody has restored an older one, whose
    /// counts are smaller.
    fn files_to_unite(
        &self,
        base: &Base,
        cells: &[(CellKey, CellCounts)],
    ) -> Result<Vec<LakeFile>, LakeError> {
        let mut files = base.entry.as_ref().map(|entry| entry.files.clone()).unwrap_or_default();
        if let Some(open) = &base.open {
            let state = self.store.lane_state(self.lane)?.unwrap_or_default();
            let sums = cells.iter().fold(CellCounts::default(), |sum, (_, of)| sum.plus(*of));
            let is_behind = sums.impressions < open.impressions || sums.plays < open.plays;
            // Or has begun again from what it was then.
            let is_older = state.life < open.life
                || open.next_offsets.iter().zip(&state.next_offsets).any(|(then, now)| now < then);
            if is_behind || is_older {
                files.extend(open.files.iter().cloned());
            }
        }
        Ok(files)
    }

    /// What the store holds of some cells.
    fn rows_of_store(
        &self,
        cells: &[(CellKey, CellCounts)],
    ) -> Result<BTreeMap<CellKey, Row>, LakeError> {
        let (Some((first, _)), Some((last, _))) = (cells.first(), cells.last()) else {
            return Ok(BTreeMap::new());
        };
        let mut sets = BTreeMap::new();
        if !self.settings.members {
            let row = |(key, counts): &(CellKey, CellCounts)| {
                let complete = is_complete(self.gaps, key);
                (key.clone(), Row::of_counts(key.clone(), *counts, complete))
            };
            return Ok(cells.iter().map(row).collect());
        }
        let wants = |key: &CellKey| (first..=last).contains(&key) && !self.stop.is_set();
        let (from_ms, to_ms) = self.between_ms();
        self.store.members_between(self.lane, from_ms, to_ms, &wants, &mut |key, of| {
            sets.insert(key, of);
        })?;
        self.stop.go_on()?;
        let row = |(key, counts): &(CellKey, CellCounts)| {
            let sets = sets.remove(key).unwrap_or_default();
            let complete = is_complete(self.gaps, key);
            (key.clone(), Row::of_store(key.clone(), *counts, sets, complete))
        };
        Ok(cells.iter().map(row).collect())
    }

    /// Adds what the lake has of the cells in a range, whatever has become of the store.
    fn add_rows_of_lake(
        &self,
        files: &[LakeFile],
        range: (Bound<&CellKey>, Bound<&CellKey>),
        rows: &mut BTreeMap<CellKey, Row>,
    ) -> Result<(), LakeError> {
        self.manifests.rows_of(files, &mut |mut row| {
            if !range.contains(&row.key) {
                return;
            }
            match rows.get_mut(&row.key) {
                Some(known) => known.add(row),
                None => {
                    row.complete = is_complete(self.gaps, &row.key);
                    rows.insert(row.key.clone(), row);
                }
            }
        })
    }
}

/// What was written of a stretch.
#[derive(Default)]
pub(super) struct Written {
    pub(super) rows: u64,
    /// Of all rows.
    pub(super) sums: CellCounts,
    pub(super) incomplete_rows: u64,
    /// Whether every row has both lists.
    pub(super) lists: bool,
    pub(super) files: Vec<LakeFile>,
}

/// Rows become files, in their order.
pub(super) struct Output<'w> {
    writing: &'w Writing<'w>,
    writer: CellsWriter,
    version: u64,
    is_open: bool,
    written: Written,
}

impl<'w> Output<'w> {
    /// For a version of the manifest; of a stretch that is open or closed.
    pub(super) fn new(writing: &'w Writing<'w>, version: u64, is_open: bool) -> Self {
        let writer = CellsWriter::new(writing.settings.file_bytes);
        let written = Written { lists: true, ..Written::default() };
        Output { writing, writer, version, is_open, written }
    }

    pub(super) fn add(&mut self, row: Row) -> Result<(), LakeError> {
        let written = &mut self.written;
        written.rows += 1;
        written.sums = written.sums.plus(row.counts);
        written.incomplete_rows += u64::from(!row.complete);
        written.lists &= row.requests.iter().all(Option::is_some);
        match self.writer.add(row)? {
            Some(file) => self.put(file),
            None => Ok(()),
        }
    }

    fn put(&mut self, file: CellsFile) -> Result<(), LakeError> {
        let Writing { store, manifests, status, stretch, lane, .. } = *self.writing;
        let Manifests { objects, layout } = manifests;
        let hash = content_hash(&store.generation().secret, &file.bytes);
        let (is_open, version, part) = (self.is_open, self.version, self.written.files.len());
        let name = FileName { is_open, stretch, lane, hash: &hash, version, part };
        let (path, bytes, rows) = (layout.file(&name), file.bytes.len() as u64, file.rows);
        objects.put_new(&path, file.bytes)?;
        self.written.files.push(LakeFile { path, bytes, rows });
        status.change(|numbers| {
            let (files, of_files) = match is_open {
                true => (&mut numbers.delta_files, &mut numbers.delta_bytes),
                false => (&mut numbers.files, &mut numbers.bytes),
            };
            *files += 1;
            *of_files += bytes;
        });
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written, LakeError> {
        let writer = std::mem::replace(&mut self.writer, CellsWriter::new(0));
        if let Some(file) = writer.finish()? {
            self.put(file)?;
        }
        Ok(self.written)
    }
}

/// Cuts cells, of each of which so many members are read, into ranges that fit into memory, one cell at
/// least each; one range at least.
pub(super) fn ranges<C>(cells: &[C], memory_bytes: u64, members: impl Fn(&C) -> u64) -> Vec<&[C]> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, cell) in cells.iter().enumerate() {
        let more = CELL_BYTES + members(cell) * ID_BYTES;
        if at > start && bytes + more > memory_bytes {
            ranges.push(&cells[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    ranges.push(&cells[start..]);
    ranges
}
