//! The bytes of a segment: one header, then frames. Pure: no file is touched here.
//!
//! ```text
//! header  magic 8 | version u32 | base offset u64 | base of the segment before u64 (all ones:
//!         none) | length in bytes of the segment before u64 | salt u32 | crc32 of all this u32
//! frame   length u32 | crc32 u32 | offset u64 | record time i64 | key length u32 (all ones: no
//!         key) | key | payload
//! ```
//!
//! Numbers are little-endian. A frame's length counts what follows its crc, and the crc covers
//! the same bytes. It starts from the segment's **salt**, a random number: so neither old bytes
//! that a file system brings back nor a payload that somebody made to look like frames can be
//! taken for a frame of this segment. That matters when the end of a segment is judged after a
//! crash. A header that names the segment before it makes a missing or shortened file visible
//! without reading it.

use super::record::{Entry, NewRecord};

pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"mrq-log\n";
/// How long a segment's header is, and so where its first frame begins.
pub(super) const HEADER_LEN: usize = 44;
/// A frame's length and crc.
const PREFIX_LEN: usize = 8;
/// Everything of a frame before its key.
pub(super) const HEAD_LEN: usize = PREFIX_LEN + BODY_MIN;
/// Offset, record time and key length: a frame's length is never smaller.
const BODY_MIN: usize = 8 + 8 + 4;
const NO_KEY: u32 = u32::MAX;

/// The largest key and payload together, in bytes: 16 MiB.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) base: u64,
    /// The base and the length in bytes of the segment before, which was complete and synced
    /// before this one was created.
    pub(super) before: Option<(u64, u64)>,
    pub(super) salt: u32,
}

/// Why a header is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFlaw {
    Damaged,
    Version(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let (before_base, before_len) = self.before.unwrap_or((u64::MAX, 0));
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.base.to_le_bytes());
        bytes[20..28].copy_from_slice(&before_base.to_le_bytes());
        bytes[28..36].copy_from_slice(&before_len.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The version is looked at before the crc, since another version may have another length.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderFlaw> {
        if bytes[..8] != MAGIC {
            return Err(HeaderFlaw::Damaged);
        }
        let whole = u32_at(bytes, 40) == crc32fast::hash(&bytes[..40]);
        match u32_at(bytes, 8) {
            VERSION if whole => {}
            VERSION => return Err(HeaderFlaw::Damaged),
            other => return Err(HeaderFlaw::Version(other)),
        }
        let before = match u64_at(bytes, 20) {
            u64::MAX => None,
            base => Some((base, u64_at(bytes, 28))),
        };
        Ok(Self { base: u64_at(bytes, 12), before, salt: u32_at(bytes, 36) })
    }
}

/// How many bytes the record takes on disk.
pub(super) fn size_of(record: &NewRecord<'_>) -> usize {
    HEAD_LEN + record.size()
}

/// Appends `record` as a frame that still lacks its offset and crc: see [`stamp`].
pub(super) fn push_unstamped(record: &NewRecord<'_>, into: &mut Vec<u8>) {
    let size = record.size();
    assert!(size <= MAX_RECORD_BYTES, "append refuses larger records before it encodes them");
    let key_len = record.key.map_or(NO_KEY, |key| key.len() as u32);
    into.extend_from_slice(&((BODY_MIN + size) as u32).to_le_bytes());
    into.extend_from_slice(&[0; 12]);
    into.extend_from_slice(&record.record_time_ms.to_le_bytes());
    into.extend_from_slice(&key_len.to_le_bytes());
    into.extend_from_slice(record.key.unwrap_or_default());
    into.extend_from_slice(record.payload);
}

/// Gives the frames in `frames` their offsets from `first` on and their crcs, and calls
/// `placed(offset, position in frames)` for each.
pub(super) fn stamp(frames: &mut [u8], first: u64, salt: u32, mut placed: impl FnMut(u64, usize)) {
    let (mut at, mut offset) = (0, first);
    while at < frames.len() {
        let end = at + PREFIX_LEN + u32_at(frames, at) as usize;
        let frame = &mut frames[at..end];
        frame[8..16].copy_from_slice(&offset.to_le_bytes());
        let crc = crc_of(&frame[PREFIX_LEN..], salt);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        placed(offset, at);
        (at, offset) = (end, offset + 1);
    }
}

/// The first bytes of a frame, before anything is known about the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The whole frame, with its length and crc.
    pub(super) total: usize,
    pub(super) offset: u64,
}

/// Reads a frame's head; `None` when no frame can begin like that.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    if bytes.len() < HEAD_LEN {
        return None;
    }
    let length = u32_at(bytes, 0) as usize;
    let possible = (BODY_MIN..=BODY_MIN + MAX_RECORD_BYTES).contains(&length);
    possible.then(|| Head { total: PREFIX_LEN + length, offset: u64_at(bytes, 8) })
}

/// Checks one whole frame, `frame` being exactly its bytes, which start at `start` in some arena.
pub(super) fn check(frame: &[u8], start: usize, salt: u32) -> Option<Entry> {
    if frame.len() < HEAD_LEN || u32_at(frame, 4) != crc_of(&frame[PREFIX_LEN..], salt) {
        return None;
    }
    let data_len = (frame.len() - HEAD_LEN) as u32;
    let key_len = match u32_at(frame, 24) {
        NO_KEY => None,
        length => Some(length),
    };
    Some(Entry {
        offset: u64_at(frame, 8),
        record_time_ms: u64_at(frame, 16) as i64,
        start: start + HEAD_LEN,
        key_len,
        payload_len: data_len.checked_sub(key_len.unwrap_or(0))?,
    })
}

fn crc_of(body: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(body);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes[at..at + 4].try_into().expect("a range of 4 makes an array of 4");
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..at + 8].try_into().expect("a range of 8 makes an array of 8");
    u64::from_le_bytes(field)
}
