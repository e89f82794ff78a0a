//! What the stores share of their layout: cells lie in **rows** of some videos each, and what a batch
//! adds to the members of a row is one value.
//!
//! Members that a batch adds to a row: for each cell length (LEB128) and bytes of the video, then
//! for either side length and bytes of a chunk ([`chunk`]), empty where there is none. Cells stand in
//! the order of their videos.

use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::LaneBatch;
use marquee_pipeline::chunk::{self, ChunkError, Id};
use marquee_pipeline::lane::CellView;
use siphasher::sip::SipHasher13;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hasher;

/// Whose cells a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey<'a> {
    pub(crate) epoch_ms: i64,
    pub(crate) epoch_start_ms: i64,
    pub(crate) slice: &'a str,
    pub(crate) bucket: u8,
    pub(crate) lane: u32,
}

impl RowKey<'_> {
    /// The cell of a video in it.
    pub(crate) fn cell(&self, video: &str) -> CellKey {
        let RowKey { epoch_ms, epoch_start_ms, slice, .. } = *self;
        CellKey { video: video.to_owned(), epoch_start_ms, epoch_ms, slice: slice.to_owned() }
    }
}

/// The bucket of a video, of 256: a part of the formats, the same for ever.
pub(crate) fn bucket_of(video: &str) -> u8 {
    let mut hasher = SipHasher13::new();
    hasher.write(video.as_bytes());
    hasher.finish() as u8
}

/// What the names of members begin with that are not of a batch: they were added to closed epochs.
const BESIDE: u64 = 1 << 63;

/// Where a lane is that has read up to some offsets: the names of what its batches add begin with it,
/// so that what was added since is found by name.
pub(crate) fn position(next_offsets: &[u64]) -> u64 {
    next_offsets.iter().fold(0_u64, |sum, offset| sum.saturating_add(*offset)).min(BESIDE - 1)
}

/// The place of such a position for what was added beside the lane: behind all of them, so that it is
/// always found.
pub(crate) fn beside(name: u64) -> u64 {
    name | BESIDE
}

/// What a lane writes of a cell.
pub(crate) struct CellWrite<'c> {
    pub(crate) row: RowKey<'c>,
    pub(crate) video: &'c str,
    pub(crate) counts: CellCounts,
    /// Which one it is, for its new members.
    pub(crate) number: usize,
}

/// What a batch writes of a lane, with a bucket for each video.
pub(crate) fn cell_writes<'b>(
    lane: u32,
    batch: &'b LaneBatch<'_>,
    bucket_of: impl Fn(&str) -> u8,
) -> Vec<CellWrite<'b>> {
    let write = |number| {
        let CellView { epoch_start_ms, epoch_ms, slice, video, counts } = batch.cell(number).cell;
        let row = RowKey { epoch_ms, epoch_start_ms, slice, bucket: bucket_of(video), lane };
        CellWrite { row, video, counts, number }
    };
    (0..batch.len()).map(write).collect()
}

/// A cell's place in the order of rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InRow {
    /// Number of the epoch and slice, in the order in which they are met, and bucket.
    pub(crate) row: u64,
    pub(crate) number: u32,
}

/// The numbers of cells, those of a row together. Cells of one epoch and slice mostly come one after
/// the other, and there are few of these, so small numbers are sorted.
pub(crate) fn by_rows(cells: &[CellWrite<'_>]) -> Vec<InRow> {
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

/// Appends the members that a batch adds to a cell: the chunks of both sides.
pub(crate) fn write_members(bytes: &mut Vec<u8>, video: &str, chunks: [&[u8]; 2]) {
    write_text(bytes, video.as_bytes());
    chunks.into_iter().for_each(|chunk| write_text(bytes, chunk));
}

/// Reads the members that a batch has added to a row: for each cell the chunks of both sides.
pub(crate) fn read_members<'b>(
    mut bytes: &'b [u8],
    mut each: impl FnMut(&'b str, [&'b [u8]; 2]) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    while !bytes.is_empty() {
        let video = read_video(&mut bytes)?;
        each(video, [read_text(&mut bytes)?, read_text(&mut bytes)?])?;
    }
    Ok(())
}

/// Adds the ids of both chunks, each of which may be empty, to the sets.
pub(crate) fn decode_both(
    chunks: [&[u8]; 2],
    sets: &mut [BTreeSet<Id>; 2],
) -> Result<(), ChunkError> {
    let decode = |(set, chunk): (&mut BTreeSet<Id>, &[u8])| match chunk.is_empty() {
        true => Ok(()),
        false => chunk::decode_into(chunk, set),
    };
    sets.iter_mut().zip(chunks).try_for_each(decode)
}

/// Appends length and bytes.
pub(crate) fn write_text(bytes: &mut Vec<u8>, text: &[u8]) {
    chunk::write_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

fn read_text<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], ChunkError> {
    let len = usize::try_from(chunk::read_number(bytes)?).map_err(|_| ChunkError::TOO_SHORT)?;
    let (text, rest) = bytes.split_at_checked(len).ok_or(ChunkError::TOO_SHORT)?;
    *bytes = rest;
    Ok(text)
}

/// Reads what [`write_text`] wrote of a video, and moves on behind it.
pub(crate) fn read_video<'b>(bytes: &mut &'b [u8]) -> Result<&'b str, ChunkError> {
    std::str::from_utf8(read_text(bytes)?).map_err(|_| ChunkError::NOT_UTF8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_read_as_what_was_written(
            cells in proptest::collection::vec((".{0,20}", any::<[Vec<u8>; 2]>()), 0..9),
        ) {
            let mut bytes = Vec::new();
            for (video, chunks) in &cells {
                write_members(&mut bytes, video, [&chunks[0], &chunks[1]]);
            }
            let mut read = Vec::new();
            read_members(&bytes, |video, chunks| {
                read.push((video.to_owned(), chunks.map(<[u8]>::to_vec)));
                Ok(())
            }).expect("it is what was written");
            prop_assert_eq!(read, cells);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = read_members(&bytes, |_, _| Ok(()));
        }
    }

    #[test]
    fn positions_grow_and_what_is_beside_them_comes_last() {
        assert_eq!(position(&[3, 4]), 7);
        assert_eq!(position(&[u64::MAX, 4]), BESIDE - 1);
        assert!(beside(0) > position(&[u64::MAX]));
        assert_eq!(beside(u64::MAX), u64::MAX);
    }

    /// Stores that were written must be found again by every later version.
    #[test]
    fn the_bucket_of_a_video_never_changes() {
        assert_eq!(["", "80192098", "video-1", "été"].map(bucket_of), [44, 75, 34, 151]);
    }
}
