//! Opening one lane: which segments there are, whether they follow on each other, and where the
//! last one really ends.
//!
//! Appends are acknowledged after they are synced, and a segment is followed by another only when
//! all of it is synced. So a crash can leave unfinished bytes in one place only: behind the last
//! whole frame of the last segment. Everything else that does not check is damage to what was
//! promised, and is reported, never repaired. What follows the first bad frame tells the two
//! apart: nothing but garbage is a torn write and is cut off; a whole frame with an offset that
//! can stand there means that the log had gone on behind the bad one.
//!
//! (After a power failure a file system might, rarely, have kept the later part of the very last
//! write and not its beginning. That looks the same as damage and is reported as damage: the
//! operator, who knows of the power failure, can cut; we could not bring back what we cut.)

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    error::LogError,
    folder::{UNFINISHED, create_folder, sync_folder},
    frame::{self, HEAD_LEN, HEADER_LEN, Header},
    segment::{self, Place, Segment},
};

/// What a lane holds.
#[derive(Debug)]
pub(super) struct Recovered {
    /// In order, at least one.
    pub(super) segments: Vec<Segment>,
    /// The offset that the next record gets.
    pub(super) end: u64,
}

/// Makes sure that a lane which was never used has its first segment.
pub(super) fn create_lane(folder: &Path, salt: u32) -> Result<(), LogError> {
    create_folder(folder)?;
    if list(folder)?.is_empty() {
        segment::create(folder, &Header { base: 0, before: None, salt })?;
    }
    Ok(())
}

/// Opens a lane that must be there.
pub(super) fn open_lane(folder: &Path) -> Result<Recovered, LogError> {
    let mut segments: Vec<Segment> = Vec::new();
    let bases = list(folder)?;
    for base in &bases {
        let path = segment::file_of(folder, *base);
        let file = File::open(&path).map_err(|error| LogError::io("open", &path, error))?;
        let header = segment::read_header(&file, &path, *base)?;
        follows(folder, segments.last(), &header)?;
        let length = file.metadata().map_err(|error| LogError::io("read", &path, error))?.len();
        segments.push(Segment::new(&header, length));
    }
    let Some(last) = segments.last_mut() else {
        return Err(LogError::corrupt(folder, 0, "the lane has no segment any more"));
    };
    let end = recover_tail(&segment::file_of(folder, last.base), last)?;
    // A name may have been given just before a crash and not be durable yet.
    sync_folder(folder)?;
    Ok(Recovered { segments, end })
}

/// The bases of the segments in a folder, rising; what was never finished is removed.
fn list(folder: &Path) -> Result<Vec<u64>, LogError> {
    let failed = |error| LogError::io("list", folder, error);
    let mut bases = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LogError::corrupt(folder, 0, "the lane's folder is missing"));
        }
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") if stem.len() == 20 => bases.extend(stem.parse::<u64>()),
            Some(UNFINISHED) => {
                fs::remove_file(&path).map_err(|error| LogError::io("remove", &path, error))?;
            }
            _ => {}
        }
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Whether the segment of `header` is the one that was begun after `before`.
fn follows(folder: &Path, before: Option<&Segment>, header: &Header) -> Result<(), LogError> {
    let (named, found) = (header.before, before.map(|segment| segment.base));
    let named_base = named.map(|(base, _)| base);
    if named_base != found {
        let missing = named_base.map_or_else(
            || "the segments before it are strangers to it".to_owned(),
            |base| format!("the segment {base:020}.log before it is missing"),
        );
        return Err(LogError::corrupt(&segment::file_of(folder, header.base), 0, missing));
    }
    match (named, before) {
        (Some((base, length)), Some(segment)) if segment.length != length => {
            let detail = format!("it has {} bytes, but had {length} when full", segment.length);
            let position = length.min(segment.length);
            Err(LogError::corrupt(&segment::file_of(folder, base), position, detail))
        }
        _ => Ok(()),
    }
}

/// Reads the whole last segment, cuts off a torn end, and makes what is left durable: it will be
/// visible to readers, and the process that wrote it may have ended before it had synced it.
fn recover_tail(path: &Path, segment: &mut Segment) -> Result<u64, LogError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| LogError::io("open", path, error))?;
    let mut window = Window { file: &file, path, length: segment.length, start: 0, bytes: vec![] };
    let mut place = Place { offset: segment.base, position: HEADER_LEN as u64 };
    while place.position < segment.length {
        let Some((offset, total)) = window.frame_at(place.position, segment.salt)? else {
            judge(&mut window, place, segment.salt)?;
            let bytes = segment.length - place.position;
            tracing::warn!(
                file = %path.display(), bytes, next_offset = place.offset,
                "cut off the end of a write that a crash had interrupted; \
                 none of it had been acknowledged"
            );
            file.set_len(place.position).map_err(|error| LogError::io("cut", path, error))?;
            segment.length = place.position;
            break;
        };
        if offset != place.offset {
            let detail = format!("offset {offset} stands where {} should", place.offset);
            return Err(LogError::corrupt(path, place.position, detail));
        }
        segment.learn(place);
        place = Place { offset: offset + 1, position: place.position + total as u64 };
    }
    file.sync_data().map_err(|error| LogError::io("sync", path, error))?;
    Ok(place.offset)
}

/// Decides about the bad bytes at `bad`: fine to cut off, or damage.
///
/// Between them and a frame further on there is room for only so many frames, so an offset that
/// belongs there is known within narrow bounds. That makes the search quick: few of the places
/// tried get as far as their checksum.
fn judge(window: &mut Window<'_>, bad: Place, salt: u32) -> Result<(), LogError> {
    let mut position = bad.position + 1;
    while position + HEAD_LEN as u64 <= window.length {
        let head = frame::head(window.load(position, HEAD_LEN)?);
        let offset_max = bad.offset + (position - bad.position) / HEAD_LEN as u64;
        let plausible = head.is_some_and(|it| (bad.offset..=offset_max).contains(&it.offset));
        if plausible && let Some((offset, _)) = window.frame_at(position, salt)? {
            let detail = format!(
                "no whole record with offset {} stands there, but one with offset {offset} follows \
                 at byte {position}",
                bad.offset
            );
            let path = window.path;
            return Err(LogError::corrupt_before_whole_frames(path, bad.position, detail));
        }
        position += 1;
    }
    Ok(())
}

/// A file seen through a piece of memory that moves forward over it.
struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    const SIZE: u64 = 1 << 20;

    /// The offset and the length of the whole, valid frame at `position`, if there is one.
    fn frame_at(&mut self, position: u64, salt: u32) -> Result<Option<(u64, usize)>, LogError> {
        let left = self.length - position;
        if left < HEAD_LEN as u64 {
            return Ok(None);
        }
        let Some(head) = frame::head(self.load(position, HEAD_LEN)?) else {
            return Ok(None);
        };
        if head.total as u64 > left {
            return Ok(None);
        }
        let entry = frame::check(self.load(position, head.total)?, 0, salt);
        Ok(entry.map(|entry| (entry.offset, head.total)))
    }

    /// The `count` bytes at `position`, which the file must have.
    fn load(&mut self, position: u64, count: usize) -> Result<&[u8], LogError> {
        let buffered = self.start..=self.start + self.bytes.len() as u64;
        let end = position + count as u64;
        if !(buffered.contains(&position) && buffered.contains(&end)) {
            let size = (self.length - position).min(Self::SIZE.max(count as u64));
            self.bytes.resize(size as usize, 0);
            self.start = position;
            let read = self.file.read_exact_at(&mut self.bytes, position);
            read.map_err(|error| LogError::io("read", self.path, error))?;
        }
        let from = (position - self.start) as usize;
        Ok(&self.bytes[from..from + count])
    }
}
