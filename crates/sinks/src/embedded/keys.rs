//! Keys of the embedded store.
//!
//! A cell of one lane: length of the epoch and its start (8 bytes each, big-endian, so that a
//! range of time is a range of keys), length and bytes of the slice, length and bytes of the video
//! (2-byte lengths), lane (4 bytes). All lanes of a cell lie side by side.

use marquee_model::{CellKey, Side};
use marquee_pipeline::lane::CellView;
use std::hash::{DefaultHasher, Hasher};

/// The part of a cell's key that all its lanes share.
pub(super) fn cell(epoch_ms: i64, epoch_start_ms: i64, slice: &str, video: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(32 + slice.len() + video.len());
    key.extend_from_slice(&(epoch_ms as u64).to_be_bytes());
    key.extend_from_slice(&(epoch_start_ms as u64).to_be_bytes());
    push_text(&mut key, slice);
    push_text(&mut key, video);
    key
}

/// Where the cells of an epoch begin.
pub(super) fn cell_start(epoch_ms: i64, epoch_start_ms: i64) -> Vec<u8> {
    [(epoch_ms as u64).to_be_bytes(), (epoch_start_ms as u64).to_be_bytes()].concat()
}

/// Key of the counts of a cell in a lane.
pub(super) fn counts(cell_key: &CellView<'_>, lane: u32) -> Vec<u8> {
    let CellView { epoch_ms, epoch_start_ms, slice, video, .. } = cell_key;
    let mut key = cell(*epoch_ms, *epoch_start_ms, slice, video);
    key.extend_from_slice(&lane.to_be_bytes());
    key
}

/// Key of a chunk of members: the key of the counts, the side, then a name made of the offsets
/// that the batch covers and of the content, so that a replay mostly overwrites itself and nobody
/// can overwrite another's.
pub(super) fn chunk(counts_key: &[u8], side: u8, batch_name: u64, content: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new(); // its keys are fixed: the same content, the same name
    hasher.write(content);
    let mut key = Vec::with_capacity(counts_key.len() + 17);
    key.extend_from_slice(counts_key);
    key.push(side);
    key.extend_from_slice(&batch_name.to_be_bytes());
    key.extend_from_slice(&hasher.finish().to_be_bytes());
    key
}

/// Reads the key of counts. `None` for a key that no version of this program writes.
pub(super) fn read_counts(key: &[u8]) -> Option<(CellKey, u32)> {
    let (epoch_ms, rest) = read_number(key)?;
    let (epoch_start_ms, rest) = read_number(rest)?;
    let (slice, rest) = read_text(rest)?;
    let (video, rest) = read_text(rest)?;
    let lane = u32::from_be_bytes(rest.try_into().ok()?);
    let (slice, video) = (slice.to_owned(), video.to_owned());
    Some((CellKey { video, epoch_start_ms, epoch_ms, slice }, lane))
}

/// Reads the key of a chunk: its cell, lane and side.
pub(super) fn read_chunk(key: &[u8]) -> Option<(CellKey, u32, Side)> {
    const TAIL: usize = 1 + 8 + 8;
    let (counts_key, tail) = key.split_at_checked(key.len().checked_sub(TAIL)?)?;
    let (cell, lane) = read_counts(counts_key)?;
    let side = match tail.first()? {
        0 => Side::Impressions,
        1 => Side::Plays,
        _ => return None,
    };
    Some((cell, lane, side))
}

fn push_text(key: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("ids and slices are bounded far below 64 KiB");
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn read_number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number) as i64, rest))
}

fn read_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*len) as usize)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_model::CellCounts;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_reads_as_what_was_written(
            epoch_ms in 1..10_i64, epoch_start_ms in 0..1_i64 << 50,
            slice in ".{0,40}", video in ".{1,40}", lane: u32,
        ) {
            let counts = CellCounts::default();
            let view =
                CellView { epoch_ms, epoch_start_ms, slice: &slice, video: &video, counts };
            let key = super::counts(&view, lane);
            let expected = CellKey { video: video.clone(), epoch_start_ms, epoch_ms, slice: slice.clone() };
            prop_assert_eq!(read_counts(&key), Some((expected.clone(), lane)));
            let chunk = super::chunk(&key, 1, epoch_start_ms as u64, b"ids");
            prop_assert_eq!(read_chunk(&chunk), Some((expected, lane, Side::Plays)));
        }
    }
}
