//! One lane of one topic: its segments, and reading from them.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use super::{
    error::LogError,
    frame::{self, HEAD_LEN},
    handles::Handles,
    record::{Entry, RecordBatch},
    recover::Recovered,
    segment::{self, Milestones, Place, Segment},
};

/// How much is read from the file at once, unless a record is larger.
const CHUNK: u64 = 256 << 10;
/// How much is looked at at once while looking for an offset.
const SEEK_CHUNK: u64 = 16 << 10;

/// One lane of one topic. Readers and the one writer share it; nobody does I/O while holding
/// its lock.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) lane: u32,
    pub(super) folder: PathBuf,
    state: Mutex<State>,
}

/// What is durable, and so visible. Only the leader of a group commit moves it on.
#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: Vec<Segment>,
    pub(super) end: u64,
}

impl State {
    /// The index of the segment that holds `offset`, or that will.
    fn holding(&self, offset: u64) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset) - 1
    }
}

/// How much one read may still add.
struct Room {
    records: usize,
    bytes: usize,
    /// The first record is always taken, so that a reader with little room gets on.
    empty: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.records > 0 && (self.empty || bytes <= self.bytes);
        if fits {
            self.records -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.empty = false;
        }
        fits
    }
}

/// A part of a segment to read: what a reader knows of it without the lock.
struct Span {
    path: PathBuf,
    salt: u32,
    from: Place,
    /// Where the segment's durable part ends.
    to: Place,
}

impl Lane {
    pub(super) fn new(topic: &str, lane: u32, folder: PathBuf, recovered: Recovered) -> Self {
        let Recovered { segments, end } = recovered;
        let state = Mutex::new(State { segments, end });
        Self { topic: topic.to_owned(), lane, folder, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can fail is done under a lane's lock")
    }

    pub(super) fn range(&self) -> (u64, u64) {
        let state = self.state();
        (state.segments[0].base, state.end)
    }

    /// See [`EmbeddedLog::read`](super::EmbeddedLog::read).
    pub(super) fn read(
        &self,
        handles: &Handles,
        from: u64,
        max: (usize, usize),
        into: &mut RecordBatch,
    ) -> Result<(), LogError> {
        let (start, end) = self.range();
        if !(start..=end).contains(&from) {
            let topic = self.topic.clone();
            return Err(LogError::OutOfRange { topic, lane: self.lane, offset: from, start, end });
        }
        let mut room = Room { records: max.0, bytes: max.1, empty: true };
        let mut next = from;
        while next < end && room.records > 0 {
            let (index, span) = self.span(next);
            let mut milestones = Milestones::default();
            let (reached, outcome) =
                read_span(handles, &span, next, &mut room, into, &mut milestones);
            self.remember(index, &milestones, reached);
            match outcome {
                // What stands before the damage is given out first; the next read, which begins
                // at the damage, reports it.
                Err(_) if !room.empty => return Ok(()),
                Err(error) => return Err(error),
                Ok(()) if reached.offset < span.to.offset => return Ok(()),
                Ok(()) => next = reached.offset,
            }
        }
        Ok(())
    }

    fn span(&self, offset: u64) -> (usize, Span) {
        let state = self.state();
        let index = state.holding(offset);
        let segment = &state.segments[index];
        let end = state.segments.get(index + 1).map_or(state.end, |next| next.base);
        let span = Span {
            path: segment::file_of(&self.folder, segment.base),
            salt: segment.salt,
            from: segment.nearest(offset),
            to: Place { offset: end, position: segment.length },
        };
        (index, span)
    }

    fn remember(&self, index: usize, milestones: &Milestones, reached: Place) {
        let mut state = self.state();
        let segment = &mut state.segments[index];
        milestones.places.iter().for_each(|place| segment.learn(*place));
        segment.leave_cursor(reached);
    }
}

/// Reads from one segment until it ends or there is no more room; tells how far it got.
fn read_span(
    handles: &Handles,
    span: &Span,
    offset: u64,
    room: &mut Room,
    into: &mut RecordBatch,
    milestones: &mut Milestones,
) -> (Place, Result<(), LogError>) {
    let mut place = span.from;
    let outcome = handles.get(&span.path).and_then(|file| {
        seek(&file, span, offset, &mut place, milestones)?;
        while place.position < span.to.position {
            if !fill(&file, span, &mut place, room, into, milestones)? {
                return Ok(());
            }
        }
        match place.offset == span.to.offset {
            true => Ok(()),
            false => Err(damage(&span.path, place, "the segment ends too early")),
        }
    });
    (place, outcome)
}

/// Moves `place` on to the frame with `offset`, hopping from head to head. Payloads are not
/// looked at here: they are checked when they are given out.
fn seek(
    file: &File,
    span: &Span,
    offset: u64,
    place: &mut Place,
    milestones: &mut Milestones,
) -> Result<(), LogError> {
    let (mut chunk, mut start) = (Vec::new(), place.position);
    while place.offset < offset {
        let mut at = (place.position - start) as usize;
        if at + HEAD_LEN > chunk.len() {
            (start, at) = (place.position, 0);
            let size = SEEK_CHUNK.min(span.to.position - start);
            chunk.resize(size as usize, 0);
            read_at(file, &span.path, &mut chunk, start)?;
        }
        let head = frame::head(&chunk[at..])
            .filter(|head| head.offset == place.offset)
            .filter(|head| place.position + head.total as u64 <= span.to.position)
            .ok_or_else(|| damage(&span.path, *place, "no record begins there"))?;
        milestones.pass(*place);
        *place = Place { offset: place.offset + 1, position: place.position + head.total as u64 };
    }
    Ok(())
}

/// Reads one chunk straight into the batch and keeps its whole frames. `false` when there is no
/// more room. On an error the batch holds the whole records before it and nothing else.
fn fill(
    file: &File,
    span: &Span,
    place: &mut Place,
    room: &mut Room,
    into: &mut RecordBatch,
    milestones: &mut Milestones,
) -> Result<bool, LogError> {
    let mut kept = into.arena.len();
    let mut outcome = load_chunk(file, span, *place, into).map(|()| true);
    while matches!(outcome, Ok(true)) {
        let (total, entry) = match first_frame(&into.arena[kept..], kept, span, *place) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        };
        if !room.take(total) {
            outcome = Ok(false);
            break;
        }
        into.entries.push(entry);
        milestones.pass(*place);
        kept += total;
        *place = Place { offset: place.offset + 1, position: place.position + total as u64 };
    }
    into.arena.truncate(kept);
    outcome
}

/// The frame that `rest` of a chunk begins with, and its length; `None` when the chunk ends
/// before the frame does.
fn first_frame(
    rest: &[u8],
    start: usize,
    span: &Span,
    place: Place,
) -> Result<Option<(usize, Entry)>, LogError> {
    let bad = || damage(&span.path, place, "the record does not match its checksum");
    let left = span.to.position - place.position;
    if rest.len() < HEAD_LEN {
        let chunk_ends = rest.is_empty() || (rest.len() as u64) < left;
        return if chunk_ends { Ok(None) } else { Err(bad()) };
    }
    let total = frame::head(rest).map(|head| head.total).ok_or_else(bad)?;
    if total as u64 > left {
        return Err(bad());
    }
    if total > rest.len() {
        return Ok(None);
    }
    let entry = frame::check(&rest[..total], start, span.salt)
        .filter(|entry| entry.offset == place.offset)
        .ok_or_else(bad)?;
    Ok(Some((total, entry)))
}

/// Appends to the arena a chunk that begins with the frame at `place` and, if that frame's head
/// is sound, holds at least the whole of it.
fn load_chunk(
    file: &File,
    span: &Span,
    place: Place,
    into: &mut RecordBatch,
) -> Result<(), LogError> {
    let start = into.arena.len();
    let left = span.to.position - place.position;
    let mut loaded = 0;
    let mut wanted = CHUNK.min(left);
    while loaded < wanted {
        into.arena.resize(start + wanted as usize, 0);
        let target = &mut into.arena[start + loaded as usize..];
        let read = read_at(file, &span.path, target, place.position + loaded);
        if let Err(error) = read {
            into.arena.truncate(start);
            return Err(error);
        }
        loaded = wanted;
        let total = frame::head(&into.arena[start..]).map_or(0, |head| head.total as u64);
        wanted = wanted.max(total.min(left));
    }
    Ok(())
}

fn read_at(file: &File, path: &Path, into: &mut [u8], position: u64) -> Result<(), LogError> {
    file.read_exact_at(into, position).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            LogError::corrupt(path, position, "the file has become shorter")
        }
        _ => LogError::io("read", path, error),
    })
}

fn damage(path: &Path, place: Place, what: &str) -> LogError {
    LogError::corrupt(path, place.position, format!("{what} (offset {})", place.offset))
}
