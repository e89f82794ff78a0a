//! Rows of the embedded store: what stands under their keys, and those that were written lately.
//!
//! Counts of a row: for each cell length (LEB128) and bytes of the video, impressions and plays
//! (LEB128 each). What a batch adds to its members is in [`crate::layout`].
//!
//! Cells stand in the order of their videos. A batch writes a whole row of counts again, so the rows
//! of open epochs are kept in memory: the store is only read for a row that was not written lately.

use crate::layout::{read_video, write_text};
use marquee_model::CellCounts;
use marquee_pipeline::chunk::{self, ChunkError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// Writes the counts of a row again, with some that have changed; both are in the order of videos.
pub(super) fn merge_counts<'c>(
    mut row: &[u8],
    changes: impl Iterator<Item = (&'c str, CellCounts)>,
    to: &mut Vec<u8>,
) -> Result<(), ChunkError> {
    let mut changes = changes.peekable();
    while !row.is_empty() {
        let cell = row;
        let (video, _) = read_cell(&mut row)?;
        while let Some((new, counts)) = changes.next_if(|(changed, _)| *changed < video) {
            write_cell(to, new, counts);
        }
        match changes.next_if(|(changed, _)| *changed == video) {
            Some((_, counts)) => write_cell(to, video, counts),
            None => to.extend_from_slice(&cell[..cell.len() - row.len()]),
        }
    }
    changes.for_each(|(new, counts)| write_cell(to, new, counts));
    Ok(())
}

/// Reads the counts of a row.
pub(super) fn read_counts<'b>(
    mut bytes: &'b [u8],
    mut each: impl FnMut(&'b str, CellCounts),
) -> Result<(), ChunkError> {
    while !bytes.is_empty() {
        let (video, counts) = read_cell(&mut bytes)?;
        each(video, counts);
    }
    Ok(())
}

fn write_cell(bytes: &mut Vec<u8>, video: &str, counts: CellCounts) {
    write_text(bytes, video.as_bytes());
    chunk::write_number(bytes, counts.impressions);
    chunk::write_number(bytes, counts.plays);
}

fn read_cell<'b>(bytes: &mut &'b [u8]) -> Result<(&'b str, CellCounts), ChunkError> {
    let video = read_video(bytes)?;
    let (impressions, plays) = (chunk::read_number(bytes)?, chunk::read_number(bytes)?);
    Ok((video, CellCounts { impressions, plays }))
}

/// Rows of counts that lanes have written lately, as the store holds them.
#[derive(Debug)]
pub(super) struct Recent {
    lanes: Mutex<HashMap<u32, LaneRows>>,
    /// Bytes of one lane beyond which rows are let go.
    most_bytes: usize,
}

/// Those of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneRows {
    rows: HashMap<Vec<u8>, RecentRow>,
    /// Numbers the lane's batches.
    batch: u64,
}

#[derive(Debug, Default)]
struct RecentRow {
    bytes: Vec<u8>,
    /// The last batch that changed it.
    changed_in: u64,
}

/// What a row takes beside its bytes: its key, its place in the table.
const ROW_BYTES: usize = 128;

impl Recent {
    pub(super) fn new(most_bytes: usize) -> Self {
        Recent { lanes: Mutex::default(), most_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, LaneRows>> {
        self.lanes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes the rows of a lane, for one batch. Where that fails they are not given back, and the
    /// next one reads them from the store.
    pub(super) fn take(&self, lane: u32) -> LaneRows {
        let mut rows = self.lock().remove(&lane).unwrap_or_default();
        rows.batch += 1;
        rows
    }

    /// Gives back what is durable now.
    pub(super) fn give_back(&self, lane: u32, mut rows: LaneRows) {
        rows.let_go(self.most_bytes);
        self.lock().insert(lane, rows);
    }
}

impl LaneRows {
    /// The bytes of a row, for a change; `read` reads them from the store where they are not known.
    pub(super) fn row<E>(
        &mut self,
        key: &[u8],
        read: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<&mut Vec<u8>, E> {
        if !self.rows.contains_key(key) {
            let row = RecentRow { bytes: read()?, changed_in: 0 };
            self.rows.insert(key.to_vec(), row);
        }
        let recent = self.rows.get_mut(key).expect("it is there now");
        recent.changed_in = self.batch;
        Ok(&mut recent.bytes)
    }

    fn bytes(&self) -> usize {
        self.rows.values().map(|recent| ROW_BYTES + recent.bytes.capacity()).sum()
    }

    /// Lets rows go, those first that were not changed for the longest, if there are too many.
    fn let_go(&mut self, most_bytes: usize) {
        let mut bytes = self.bytes();
        if bytes <= most_bytes {
            return;
        }
        let mut oldest: Vec<(u64, Vec<u8>)> =
            self.rows.iter().map(|(key, recent)| (recent.changed_in, key.clone())).collect();
        oldest.sort_unstable();
        // Some more than it must, so that not every batch has to sort.
        for (_, key) in oldest {
            if bytes <= most_bytes / 8 * 7 {
                break;
            }
            if let Some(recent) = self.rows.remove(&key) {
                bytes -= ROW_BYTES + recent.bytes.capacity();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    const COUNTS: CellCounts = CellCounts { impressions: 3, plays: 1 };

    proptest! {
        #[test]
        fn rows_are_what_was_written_last(
            writes in proptest::collection::vec(
                proptest::collection::btree_map("[a-d]{0,2}", (0..1_u64 << 60, 0..300_u64), 0..9),
                0..5,
            ),
        ) {
            let (mut row, mut expected) = (Vec::new(), BTreeMap::new());
            for cells in &writes {
                let of = |(impressions, plays): (u64, u64)| CellCounts { impressions, plays };
                let changes = cells.iter().map(|(video, counts)| (video.as_str(), of(*counts)));
                let mut next = Vec::new();
                merge_counts(&row, changes.clone(), &mut next).expect("it is what was written");
                expected.extend(changes);
                row = next;
                let mut read = Vec::new();
                read_counts(&row, |video, counts| read.push((video, counts))).expect("it is what was written");
                prop_assert_eq!(&read, &expected.iter().map(|(v, c)| (*v, *c)).collect::<Vec<_>>());
            }
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = read_counts(&bytes, |_, _| ());
            let _ = merge_counts(&bytes, [("a", COUNTS)].into_iter(), &mut Vec::new());
        }
    }

    #[test]
    fn a_cut_row_is_an_error() {
        let mut bytes = Vec::new();
        merge_counts(&[], [("video", COUNTS)].into_iter(), &mut bytes)
            .expect("it is what was written");
        for end in 1..bytes.len() {
            assert!(read_counts(&bytes[..end], |_, _| ()).is_err(), "{end}");
        }
    }

    #[test]
    fn old_rows_are_let_go_and_read_again() {
        let most = 3 * (1000 + ROW_BYTES);
        let (recent, reads) = (Recent::new(most), Cell::new(0));
        let read = || {
            reads.set(reads.get() + 1);
            Ok::<_, ()>(vec![0; 1000])
        };
        for key in 0..5 {
            let mut rows = recent.take(7);
            rows.row(&[key], read).expect("it is what was written");
            rows.row(&[key], read).expect("it is what was written");
            recent.give_back(7, rows);
        }
        assert!(recent.lock()[&7].bytes() <= most);
        assert_eq!(reads.get(), 5, "a row is read once in a batch");
        let mut rows = recent.take(7);
        rows.row(&[4], read).expect("it is what was written");
        assert_eq!(reads.get(), 5, "what the last batch has written is known");
        rows.row(&[0], read).expect("it is what was written");
        assert_eq!(reads.get(), 6, "what was written long ago is read again");
        drop(rows); // a batch that fails gives nothing back
        recent.take(7).row(&[4], read).expect("it is what was written");
        assert_eq!(reads.get(), 7, "what a batch that failed had changed is read again");
    }
}
