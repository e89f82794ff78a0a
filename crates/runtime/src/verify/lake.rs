//! The lake as a place: what its newest manifests list of closed stretches, lane by lane.
//!
//! A lane's stretch without an entry is compared only where the lake has gone on past it: the others
//! are closed and on their way, which is no fault. A file that is listed and not there, or cannot be
//! read, holds nothing: its cells are told as absent, and it is an error in any case. Of what somebody
//! has changed it is compared what it says now.

use super::VerifyError;
use super::place::{Kept, Place};
use marquee_model::{CellCounts, CellKey, format_time_ms};
use marquee_sinks::lake::{Entry, FileFault, LakeError, Manifest, Objects, Reading};
use marquee_sinks::{Generation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Faulty files that are named in notes.
const NAMED: usize = 5;

/// The lake, while it is compared.
pub struct LakeCells {
    reading: Reading,
    /// The start of the last stretch that each lane had an entry for when this began.
    last: Vec<Option<i64>>,
    /// The newest manifest, as it was when its stretch was come to.
    newest: Option<(i64, Manifest)>,
    /// What each lane's counts were read from last; `None`: an entry that should be there.
    entries: BTreeMap<u32, Option<Entry>>,
    /// Start of the first stretch of each lane that is not there yet.
    not_yet: BTreeMap<u32, i64>,
    /// Cells without lists, of which counts alone were compared.
    counts_only: u64,
}

/// What is said of the lake at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) notes: Vec<String>,
    /// Files that cannot be used, one line each.
    pub(super) broken: Vec<String>,
    /// Stretches of lanes that they belong to.
    pub(super) broken_in: BTreeSet<(i64, u32)>,
}

impl LakeCells {
    /// Of a store's generation; `None` where the lake has nothing of it. `memory_bytes`: for files
    /// that are kept while their cells are compared.
    ///
    /// # Errors
    /// The lake does not answer, or something else is there.
    pub fn open(
        objects: Arc<dyn Objects>,
        store: &dyn Store,
        memory_bytes: u64,
    ) -> Result<Option<Self>, LakeError> {
        let generation: &Generation = store.generation();
        let Some(reading) = Reading::open(objects, generation, memory_bytes)? else {
            return Ok(None);
        };
        Ok(Some(LakeCells {
            last: reading.last_of_lanes()?,
            reading,
            newest: None,
            entries: BTreeMap::new(),
            not_yet: BTreeMap::new(),
            counts_only: 0,
        }))
    }

    /// The start of the stretch that a time is in.
    pub(super) fn stretch_of(&self, time_ms: i64) -> i64 {
        self.reading.layout().stretch_of(time_ms)
    }

    /// The entry of a lane's stretch. The manifest is read anew for each stretch: others may write.
    fn entry(&mut self, stretch: i64, lane: u32) -> Result<Option<Entry>, LakeError> {
        let manifest = match self.newest.take() {
            Some((of, manifest)) if of == stretch => manifest,
            _ => self.reading.newest(stretch)?,
        };
        let entry = manifest.entry(stretch, lane).cloned();
        self.newest = Some((stretch, manifest));
        Ok(entry)
    }

    /// What was not compared, and what is wrong with files.
    pub(super) fn said(&self) -> Said {
        let mut said = Said::default();
        for (lane, from_ms) in &self.not_yet {
            said.notes.push(format!(
                "lane {lane} of the lake is not compared from {} on: it is closed and not there yet \
                 (`marquee run` brings it)",
                format_time_ms(*from_ms)
            ));
        }
        if self.counts_only > 0 {
            said.notes.push(format!(
                "{} cells of the lake have no lists of requests: their counts alone were compared",
                self.counts_only
            ));
        }
        let mut changed = Vec::new();
        for (file, fault) in self.reading.faulty() {
            let words = format!("{} in the lake {fault}", file.path);
            match fault {
                FileFault::Changed => changed.push(words),
                FileFault::Gone | FileFault::Broken(_) => {
                    said.broken.push(words);
                    said.broken_in.insert((file.stretch_ms, file.lane));
                }
            }
        }
        let more = changed.len().saturating_sub(NAMED);
        said.notes.extend(changed.into_iter().take(NAMED));
        if more > 0 {
            said.notes.push(format!("{more} more files in the lake are not what was written"));
        }
        said
    }
}

impl Place for LakeCells {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn starts_ms(&mut self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, VerifyError> {
        let longest_ms = self.reading.layout().longest_ms;
        let mut starts_ms = BTreeSet::new();
        self.reading.entries(from_ms, to_ms, &mut |entry| {
            // Which of them have cells would have to be read; it is looked for in each.
            let epochs = (entry.from_ms..entry.to_ms).step_by(longest_ms as usize);
            let touches = |start: &i64| *start < to_ms && start + longest_ms > from_ms;
            if entry.rows > 0 {
                starts_ms.extend(epochs.filter(touches));
            }
        })?;
        Ok(starts_ms)
    }

    fn counts(
        &mut self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Option<BTreeMap<CellKey, CellCounts>>, VerifyError> {
        let stretch = self.stretch_of(from_ms);
        let entry = self.entry(stretch, lane)?;
        let mut counts: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        match &entry {
            Some(entry) => self.reading.counts(entry, &mut |key, of_cell| {
                if (from_ms..to_ms).contains(&key.epoch_start_ms) {
                    // Who reads a cell that is there twice adds it up.
                    let sum = counts.entry(key).or_default();
                    *sum = sum.plus(of_cell);
                }
            })?,
            None => {
                let last = self.last.get(lane as usize).copied().flatten();
                if last.is_none_or(|last| stretch > last) {
                    self.not_yet.entry(lane).or_insert(stretch);
                    return Ok(None);
                }
            }
        }
        self.entries.insert(lane, entry);
        Ok(Some(counts))
    }

    fn members(
        &mut self,
        lane: u32,
        cells: &[&CellKey],
    ) -> Result<Option<BTreeMap<CellKey, Kept>>, VerifyError> {
        let mut found: BTreeMap<CellKey, Kept> = BTreeMap::new();
        let Some(Some(entry)) = self.entries.get(&lane) else { return Ok(Some(found)) };
        let wanted: BTreeSet<&CellKey> = cells.iter().copied().collect();
        let mut counts_only = 0;
        self.reading.rows(entry, &|key| wanted.contains(key), &mut |row, is_as_written| {
            let kept = found.entry(row.key).or_insert_with(Kept::nothing);
            kept.goes |= !is_as_written;
            kept.sets = match (kept.sets.take(), row.requests) {
                (Some(mut sets), [Some(shown), Some(played)]) => {
                    sets[0].extend(shown);
                    sets[1].extend(played);
                    Some(sets)
                }
                _ => {
                    counts_only += 1;
                    None
                }
            };
        })?;
        self.counts_only += counts_only;
        Ok(Some(found))
    }
}
