//! Chunks: how a batch's members of one side of one cell are written.
//!
//! A set is the union of its chunks, however they were cut, so a chunk may be written twice, late
//! or beside another that repeats its ids. The format, version 1: the byte 1; the number of UUIDs
//! as LEB128; the UUIDs, 16 bytes each, big-endian, ascending; then every other id as LEB128
//! length and bytes, ascending.

use marquee_model::parse_uuid;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use thiserror::Error;

const VERSION: u8 = 1;

/// A chunk that cannot be read: the store is damaged, or was written by a newer version.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a chunk of members cannot be read: {0}")]
pub struct ChunkError(&'static str);

impl ChunkError {
    /// The bytes end too early.
    pub const TOO_SHORT: ChunkError = ChunkError("too short");
    /// A text is not what it should be.
    pub const NOT_UTF8: ChunkError = ChunkError("not UTF-8");
}

/// One request id as it stands in a chunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// A UUID in canonical lower-case form.
    Uuid(u128),
    /// Any other text.
    Text(Box<str>),
}

impl Id {
    /// Of a request id.
    pub fn of(request_id: &str) -> Self {
        match parse_uuid(request_id.as_bytes()) {
            Some(uuid) => Id::Uuid(uuid),
            None => Id::Text(request_id.into()),
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Id::Text(text) => f.write_str(text),
            Id::Uuid(uuid) => {
                let part = |shift: u32, bits: u32| (uuid >> shift) & ((1 << bits) - 1);
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    part(96, 32),
                    part(80, 16),
                    part(64, 16),
                    part(48, 16),
                    part(0, 48)
                )
            }
        }
    }
}

/// One request id to write.
#[derive(Clone, Copy, Debug)]
pub enum IdRef<'t> {
    /// A UUID in canonical lower-case form.
    Uuid(u128),
    /// The bytes of any other text.
    Text(&'t [u8]),
}

impl<'t> IdRef<'t> {
    /// Of a request id.
    pub fn of(request_id: &'t str) -> Self {
        match parse_uuid(request_id.as_bytes()) {
            Some(uuid) => IdRef::Uuid(uuid),
            None => IdRef::Text(request_id.as_bytes()),
        }
    }
}

/// A chunk of request ids, which come in any order.
pub fn encode<'t>(request_ids: impl Iterator<Item = IdRef<'t>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, request_ids);
    bytes
}

/// Appends a chunk of request ids, which come in any order.
pub fn encode_into<'t>(bytes: &mut Vec<u8>, request_ids: impl Iterator<Item = IdRef<'t>>) {
    let (mut uuids, mut texts) = (SmallVec::<[u128; 32]>::new(), Vec::new());
    for id in request_ids {
        match id {
            IdRef::Uuid(uuid) => uuids.push(uuid),
            IdRef::Text(text) => texts.push(text),
        }
    }
    uuids.sort_unstable();
    uuids.dedup();
    texts.sort_unstable();
    texts.dedup();
    bytes.reserve(4 + uuids.len() * 16);
    bytes.push(VERSION);
    write_number(bytes, uuids.len() as u64);
    for uuid in uuids {
        bytes.extend_from_slice(&uuid.to_be_bytes());
    }
    for text in texts {
        write_number(bytes, text.len() as u64);
        bytes.extend_from_slice(text);
    }
}

/// Adds the ids of a chunk to a set.
pub fn decode_into(bytes: &[u8], ids: &mut BTreeSet<Id>) -> Result<(), ChunkError> {
    let Some((&VERSION, mut rest)) = bytes.split_first() else {
        return Err(ChunkError("unknown version"));
    };
    let uuids = read_number(&mut rest)?;
    for _ in 0..uuids {
        let (uuid, after) = rest.split_first_chunk::<16>().ok_or(ChunkError::TOO_SHORT)?;
        ids.insert(Id::Uuid(u128::from_be_bytes(*uuid)));
        rest = after;
    }
    while !rest.is_empty() {
        let len = usize::try_from(read_number(&mut rest)?).map_err(|_| ChunkError("too long"))?;
        let (text, after) = rest.split_at_checked(len).ok_or(ChunkError::TOO_SHORT)?;
        let text = std::str::from_utf8(text).map_err(|_| ChunkError::NOT_UTF8)?;
        ids.insert(Id::Text(text.into()));
        rest = after;
    }
    Ok(())
}

/// Appends a number as LEB128.
pub fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a number that [`write_number`] wrote, and moves on behind it.
///
/// # Errors
/// The bytes end within it, or it is larger than 63 bits.
pub fn read_number(bytes: &mut &[u8]) -> Result<u64, ChunkError> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(ChunkError::TOO_SHORT)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(ChunkError("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_chunk_holds_what_was_written(
            texts in proptest::collection::vec(".{1,300}", 0..20),
            uuids in proptest::collection::vec(any::<u128>(), 0..20),
        ) {
            let mut all: Vec<String> = texts;
            all.extend(uuids.iter().map(|u| Id::Uuid(*u).to_string()));
            let mut ids = BTreeSet::new();
            let bytes = encode(all.iter().map(|id| IdRef::of(id)));
            prop_assert_eq!(decode_into(&bytes, &mut ids), Ok(()));
            let written: BTreeSet<String> = all.into_iter().collect();
            prop_assert_eq!(ids.iter().map(Id::to_string).collect::<BTreeSet<_>>(), written);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = decode_into(&bytes, &mut BTreeSet::new());
        }
    }

    #[test]
    fn a_cut_chunk_is_an_error() {
        let bytes =
            encode(["a", "01234567-89ab-cdef-0123-456789abcdef"].map(IdRef::of).into_iter());
        for end in 0..bytes.len() - 2 {
            assert!(decode_into(&bytes[..end], &mut BTreeSet::new()).is_err(), "{end}");
        }
    }
}
