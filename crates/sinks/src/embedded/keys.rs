//! Keys of the embedded store.
//!
//! The cells of one lane lie in **rows** of some videos each: an epoch and a slice have 256 buckets,
//! and a video is in the one that its name gives. So a batch that changes most cells of an epoch
//! writes a few rows of many cells, and not as many keys as cells.
//!
//! Key of a row: length of the epoch and its start (8 bytes each, big-endian, so that a range of
//! time is a range of keys), length (2 bytes) and bytes of the slice, bucket (1 byte), lane (4
//! bytes). All lanes of a cell lie side by side.

use crate::layout::RowKey;
use std::hash::{DefaultHasher, Hasher};

/// Where the rows of an epoch begin.
pub(super) fn epoch_start(epoch_ms: i64, epoch_start_ms: i64) -> Vec<u8> {
    [(epoch_ms as u64).to_be_bytes(), (epoch_start_ms as u64).to_be_bytes()].concat()
}

/// Bytes of a row's key that tell its lane.
const LANE: usize = 4;

impl<'a> RowKey<'a> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(16 + 2 + self.slice.len() + 1 + LANE);
        key.extend_from_slice(&(self.epoch_ms as u64).to_be_bytes());
        key.extend_from_slice(&(self.epoch_start_ms as u64).to_be_bytes());
        let len = u16::try_from(self.slice.len()).expect("slices are bounded far below 64 KiB");
        key.extend_from_slice(&len.to_be_bytes());
        key.extend_from_slice(self.slice.as_bytes());
        key.push(self.bucket);
        key.extend_from_slice(&self.lane.to_be_bytes());
        key
    }

    /// The part of the key that the rows of all lanes share.
    pub(super) fn of_all_lanes(&self) -> Vec<u8> {
        let mut key = self.bytes();
        key.truncate(key.len() - LANE);
        key
    }

    /// Reads a key. `None` for one that no version of this program writes.
    pub(super) fn read(key: &'a [u8]) -> Option<Self> {
        let (epoch_ms, rest) = read_number(key)?;
        let (epoch_start_ms, rest) = read_number(rest)?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (slice, rest) = rest.split_at_checked(u16::from_be_bytes(*len) as usize)?;
        let slice = std::str::from_utf8(slice).ok()?;
        let (&bucket, lane) = rest.split_first()?;
        let lane = u32::from_be_bytes(lane.try_into().ok()?);
        Some(RowKey { epoch_ms, epoch_start_ms, slice, bucket, lane })
    }

    /// The row that the key of new members belongs to.
    pub(super) fn read_members(key: &'a [u8]) -> Option<Self> {
        Self::read(key.get(..key.len().checked_sub(NAME)?)?)
    }
}

/// Bytes of the name behind the row in a key of members.
const NAME: usize = 16;

/// Key of the members that a batch adds to a row: the row, then a name made of the position up to which
/// the batch reaches (in older stores a hash of its offsets) and of the content, so that what is
/// newer comes later, a replay mostly overwrites itself and nobody can overwrite another's.
pub(super) fn members(row: &[u8], batch_name: u64, content: &[u8]) -> Vec<u8> {
    let mut hasher = DefaultHasher::new(); // its keys are fixed: the same content, the same name
    hasher.write(content);
    let mut key = Vec::with_capacity(row.len() + NAME);
    key.extend_from_slice(row);
    key.extend_from_slice(&batch_name.to_be_bytes());
    key.extend_from_slice(&hasher.finish().to_be_bytes());
    key
}

/// Where the members of a row begin that were added at a position or after it.
pub(super) fn members_from(row: &[u8], position: u64) -> Vec<u8> {
    [row, &position.to_be_bytes()].concat()
}

/// The first key behind all that begins with a row: the next lane's, so to say.
pub(super) fn behind_row(mut row: Vec<u8>) -> Vec<u8> {
    // A name is never as long as this and as large in all of its bytes.
    row.extend_from_slice(&[u8::MAX; NAME + 1]);
    row
}

fn read_number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number) as i64, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_reads_as_what_was_written(
            epoch_ms in 1..10_i64, epoch_start_ms in 0..1_i64 << 50,
            slice in ".{0,40}", bucket: u8, lane: u32,
        ) {
            let row = RowKey { epoch_ms, epoch_start_ms, slice: &slice, bucket, lane };
            let key = row.bytes();
            prop_assert_eq!(RowKey::read(&key), Some(row));
            prop_assert!(key.starts_with(&row.of_all_lanes()));
            let members = super::members(&key, epoch_start_ms as u64, b"ids");
            prop_assert_eq!(RowKey::read_members(&members), Some(row));
        }

        #[test]
        fn what_is_no_key_is_none_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (RowKey::read(&bytes), RowKey::read_members(&bytes));
        }
    }
}
