//! One segment: a file of frames, and a sparse index of where they stand.

use std::{
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    error::LogError,
    folder::create_durably,
    frame::{HEADER_LEN, Header, HeaderFlaw},
};

/// One point of the index for every so many bytes of a segment.
const INDEX_STRIDE: u64 = 256 << 10;

/// Where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) position: u64,
}

/// A segment, as far as it is known.
#[derive(Debug)]
pub(super) struct Segment {
    /// The offset of its first record.
    pub(super) base: u64,
    pub(super) salt: u32,
    /// Its header and its frames, all of them synced. The file may be longer for a moment, while
    /// a group is written: nobody looks there.
    pub(super) length: u64,
    /// Rising, from the first frame on, at least [`INDEX_STRIDE`] apart: 16 bytes of memory for
    /// 256 KiB of log. For the last segment it is whole, for older ones it grows when read.
    index: Vec<Place>,
    /// Where the last reader stopped, which is where it will most likely go on.
    cursor: Place,
}

impl Segment {
    pub(super) fn new(header: &Header, length: u64) -> Self {
        let first = Place { offset: header.base, position: HEADER_LEN as u64 };
        Self { base: header.base, salt: header.salt, length, index: vec![first], cursor: first }
    }

    /// The last known place at or before `offset`.
    pub(super) fn nearest(&self, offset: u64) -> Place {
        let after = self.index.partition_point(|place| place.offset <= offset);
        let indexed = self.index[after - 1];
        let cursor_is_closer = (indexed.offset..=offset).contains(&self.cursor.offset);
        if cursor_is_closer { self.cursor } else { indexed }
    }

    /// Takes notice of a frame; only one that is far enough behind the last indexed one stays.
    pub(super) fn learn(&mut self, place: Place) {
        let last = self.index.last().expect("a segment's index begins with its first frame");
        if place.position >= last.position + INDEX_STRIDE {
            self.index.push(place);
        }
    }

    pub(super) fn leave_cursor(&mut self, place: Place) {
        self.cursor = place;
    }
}

/// Picks from places that come in order the ones that an index may want, so that few are kept.
#[derive(Debug, Default)]
pub(super) struct Milestones {
    pub(super) places: Vec<Place>,
}

impl Milestones {
    pub(super) fn pass(&mut self, place: Place) {
        // A quarter of the stride: the index's own last point is not known here.
        let far = |last: &Place| place.position >= last.position + INDEX_STRIDE / 4;
        if self.places.last().is_none_or(far) {
            self.places.push(place);
        }
    }
}

/// The file name of the segment that begins with `base`.
pub(super) fn file_of(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// A number that nobody can guess, for a new segment: see [`super::frame`].
pub(super) fn new_salt() -> u32 {
    // The standard library seeds its hash maps from the system's randomness.
    RandomState::new().build_hasher().finish() as u32
}

/// A text that no other log has.
pub(super) fn new_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

/// Creates the file of an empty segment, durably and never half.
pub(super) fn create(folder: &Path, header: &Header) -> Result<(), LogError> {
    create_durably(&file_of(folder, header.base), &header.encode())
}

/// Reads a segment's header. It was synced before the file got its name, so a bad one is damage
/// and not the trace of a crash.
pub(super) fn read_header(file: &File, path: &Path, base: u64) -> Result<Header, LogError> {
    let mut bytes = [0; HEADER_LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(LogError::corrupt(path, 0, "the file ends within its header"));
        }
        Err(error) => return Err(LogError::io("read", path, error)),
    }
    match Header::decode(&bytes) {
        Ok(header) if header.base == base => Ok(header),
        Ok(header) => {
            let detail = format!("it holds the segment that begins with offset {}", header.base);
            Err(LogError::corrupt(path, 0, detail))
        }
        Err(HeaderFlaw::Version(found)) => {
            let known = super::frame::VERSION;
            Err(LogError::OtherVersion { file: path.to_owned(), found, known })
        }
        Err(HeaderFlaw::Damaged) => {
            Err(LogError::corrupt(path, 0, "its header does not match its checksum"))
        }
    }
}
