//! Copies one lane of one topic into the lake, a file at a time: from where its files end, up to what
//! was committed.
//!
//! A file is read from the log when it is due and not before, so that one is in memory at a time,
//! however many lanes there are. It is due when its hour is over (or a shorter slot of it), or when
//! it is full. Where it ends is up to whoever makes it; the next one begins there.

use super::{ArchiveError, ArchiveStatus};
use crate::backfill::RecomputeError;
use marquee_sinks::lake::{
    EventsArchive, EventsBegin, EventsEnd, EventsLog, EventsOf, EventsWriter, PutEvents, RawRecord,
};
use marquee_sources::{Limit, Record, Replay};
use std::time::{Duration, Instant};

/// Records are read from the log in such pieces.
const TURN: Limit = Limit { before: u64::MAX, records: 4096, bytes: 4 << 20 };

/// What a record takes in a file, until one was made.
const RECORD_BYTES: u64 = 60;

/// Files of one lane that are made before the others have their turn.
const FILES_AT_ONCE: usize = 4;

const HOUR_MS: i64 = 3_600_000;

/// When files are ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// A file is ended when it has so many bytes.
    pub(super) file_bytes: usize,
    /// A file has records of so much time, milliseconds, and of no more than an hour.
    pub(super) slot_ms: i64,
    /// A topic is silent when nothing came for so long, milliseconds: the file of a slot that is over
    /// is not waited for any longer.
    pub(super) silence_ms: i64,
    /// No call to the lake takes longer than this: what nobody has written until then is not on its
    /// way.
    pub(super) call: Duration,
}

impl Sizes {
    /// The end of the slot that a time is in.
    fn slot_end_ms(&self, time_ms: i64) -> i64 {
        let end = |length: i64| time_ms.saturating_sub(time_ms.rem_euclid(length)) + length;
        end(self.slot_ms).min(end(HOUR_MS))
    }
}

/// One lane of one topic.
pub(super) struct Follower {
    pub(super) topic: usize,
    pub(super) of: EventsOf,
    log: EventsLog,
    /// How far the files reach; `None` until the lake was asked.
    reached: Option<Reached>,
    /// The end of the slot of the file that is next, once there is a record for it.
    slot_end_ms: Option<i64>,
    /// What was committed, and when that was first seen.
    committed: (u64, i64),
    /// What was committed when a file was read that turned out not to be due.
    tried: u64,
    /// Since when the log is known to have lost what should be next.
    gap_since: Option<Instant>,
    record_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    end: EventsEnd,
    is_after_gap: bool,
    /// Whether nothing stands before the next file: no other writer need have begun there.
    is_beginning: bool,
}

/// What became of a file that seemed due.
enum Built {
    Put,
    /// It is not due; so many bytes were read for it.
    NotDue,
}

impl Follower {
    pub(super) fn new(topic: usize, of: EventsOf, log: EventsLog) -> Self {
        Follower {
            topic,
            of,
            log,
            reached: None,
            slot_end_ms: None,
            committed: (0, i64::MIN),
            tried: 0,
            gap_since: None,
            record_bytes: RECORD_BYTES,
        }
    }

    /// Forgets what it knows of the lake: another writer, or itself, may have made files.
    pub(super) fn ask_again(&mut self) {
        (self.reached, self.slot_end_ms, self.tried) = (None, None, 0);
    }

    /// Offsets that are committed and not copied.
    pub(super) fn waiting(&self) -> u64 {
        self.reached.map_or(0, |reached| self.committed.0.saturating_sub(reached.end.to))
    }

    /// Makes files that are due, a few at a time, and says whether there may be more of them.
    pub(super) fn step(
        &mut self,
        archive: &EventsArchive,
        replay: &mut dyn Replay,
        committed: u64,
        (sizes, now_ms): (Sizes, i64),
        status: &mut ArchiveStatus,
    ) -> Result<bool, ArchiveError> {
        if committed > self.committed.0 || self.committed.1 == i64::MIN {
            self.committed = (committed, now_ms);
        }
        for _ in 0..FILES_AT_ONCE {
            let Some(reached) = self.next(archive, replay, sizes, status)? else {
                return Ok(false);
            };
            let pending = committed.saturating_sub(reached.end.to);
            if pending == 0 || !self.is_due(replay, reached.end.to, (sizes, now_ms))? {
                return Ok(false);
            }
            match self.build(archive, replay, reached, (sizes, now_ms), status)? {
                Built::Put => {}
                Built::NotDue => {
                    self.tried = committed;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Where the next file begins; `None` where it is not known yet, or nothing is committed there.
    fn next(
        &mut self,
        archive: &EventsArchive,
        replay: &mut dyn Replay,
        sizes: Sizes,
        status: &mut ArchiveStatus,
    ) -> Result<Option<Reached>, ArchiveError> {
        let reached = match self.reached {
            Some(reached) => reached,
            None => {
                let reached = self.ask(archive, replay)?;
                *self.reached.insert(reached)
            }
        };
        if self.committed.0 <= reached.end.to {
            return Ok(None);
        }
        let (start, end) = replay.bounds(self.topic, self.of.lane)?;
        if self.committed.0 > end {
            let (topic, lane, committed) = (self.of.topic.clone(), self.of.lane, self.committed.0);
            return Err(RecomputeError::OtherLog { topic, lane, committed, end }.into());
        }
        if start <= reached.end.to {
            self.gap_since = None;
            return Ok(Some(reached));
        }
        self.jump(archive, start, sizes, status)
    }

    /// What the lake says.
    fn ask(
        &self,
        archive: &EventsArchive,
        replay: &mut dyn Replay,
    ) -> Result<Reached, ArchiveError> {
        let files = archive.files(&self.of)?;
        let Some(last) = files.last() else {
            let (start, _) = replay.bounds(self.topic, self.of.lane)?;
            let end = EventsEnd { to: start, latest_ms: 0 };
            return Ok(Reached { end, is_after_gap: false, is_beginning: true });
        };
        let end = archive.end(&self.of, last)?;
        Ok(Reached { end, is_after_gap: false, is_beginning: false })
    }

    /// Goes on behind what the log has deleted. First it waits as long as another writer, who may
    /// have read it before, could need to write it.
    fn jump(
        &mut self,
        archive: &EventsArchive,
        start: u64,
        sizes: Sizes,
        status: &mut ArchiveStatus,
    ) -> Result<Option<Reached>, ArchiveError> {
        if self.gap_since.get_or_insert_with(Instant::now).elapsed() < sizes.call {
            return Ok(None);
        }
        let before = self.reached.expect("it is known").end;
        let files = archive.files(&self.of)?;
        let is_first = files.is_empty();
        let mut end = before;
        if let Some(last) = files.last() {
            end = archive.end(&self.of, last)?;
        }
        self.gap_since = None;
        self.slot_end_ms = None;
        let is_lost = start > end.to;
        if is_lost {
            let lost = start - end.to;
            tracing::warn!(
                topic = self.of.topic,
                lane = self.of.lane,
                from = end.to,
                to = start,
                "{lost} offsets are lost for the archive of events: the log has deleted them before \
                 they were copied. Give the log a longer retention, or find out what kept the lake \
                 from being written"
            );
            status.lost += lost;
            end.to = start;
        }
        let reached = Reached { end, is_after_gap: is_lost && !is_first, is_beginning: is_lost };
        self.reached = Some(reached);
        Ok((self.committed.0 > end.to).then_some(reached))
    }

    /// Whether the file that begins at an offset may be due.
    fn is_due(
        &mut self,
        replay: &mut dyn Replay,
        from: u64,
        (sizes, now_ms): (Sizes, i64),
    ) -> Result<bool, ArchiveError> {
        let (committed, since_ms) = self.committed;
        let slot_end_ms = match self.slot_end_ms {
            Some(slot_end_ms) => slot_end_ms,
            None => {
                let first_ms = self.first_ms(replay, from)?.unwrap_or(now_ms);
                // A clock that is ahead must not keep a file open for years.
                *self.slot_end_ms.insert(sizes.slot_end_ms(first_ms.min(now_ms)))
            }
        };
        let pending = committed - from;
        if pending.saturating_mul(self.record_bytes) >= sizes.file_bytes as u64 {
            return Ok(pending >= 2 * self.tried.saturating_sub(from));
        }
        if now_ms < slot_end_ms.saturating_add(sizes.silence_ms) {
            return Ok(false);
        }
        let is_silent = now_ms >= since_ms.saturating_add(sizes.silence_ms);
        Ok(is_silent || pending >= 2 * self.tried.saturating_sub(from))
    }

    /// The record time of the first record from an offset on.
    fn first_ms(&self, replay: &mut dyn Replay, from: u64) -> Result<Option<i64>, ArchiveError> {
        let mut first_ms = None;
        let limit = Limit { before: self.committed.0, records: 1, bytes: 1 };
        replay.seek(self.topic, self.of.lane, from)?;
        while first_ms.is_none() {
            let read = replay.read(limit, &mut |records| {
                first_ms = records.first().map(|record| record.record_time_ms);
            })?;
            if read.is_none() {
                break;
            }
        }
        Ok(first_ms.flatten())
    }

    /// Reads a file from the log, and puts it into the lake if it is due.
    fn build(
        &mut self,
        archive: &EventsArchive,
        replay: &mut dyn Replay,
        reached: Reached,
        (sizes, now_ms): (Sizes, i64),
        status: &mut ArchiveStatus,
    ) -> Result<Built, ArchiveError> {
        let begin = EventsBegin {
            from: reached.end.to,
            latest_before_ms: reached.end.latest_ms,
            is_after_gap: reached.is_after_gap,
        };
        let slot_end_ms = self.slot_end_ms.expect("it is due");
        let (committed, since_ms) = self.committed;
        let mut file = Filling {
            writer: EventsWriter::new(&self.of, &self.log, begin, sizes.file_bytes),
            slot_end_ms,
            believed_ms: sizes.slot_end_ms(now_ms),
            ends_at: None,
            failed: None,
        };
        replay.seek(self.topic, self.of.lane, begin.from)?;
        let limit = Limit { before: committed, ..TURN };
        while file.ends_at.is_none() {
            let read = replay.read(limit, &mut |records| file.take(records))?;
            if let Some(error) = file.failed.take() {
                return Err(error.into());
            }
            if read.is_none() {
                break;
            }
        }
        let is_over = now_ms >= slot_end_ms.saturating_add(sizes.silence_ms)
            && now_ms >= since_ms.saturating_add(sizes.silence_ms);
        let (records, bytes) = (file.writer.records(), file.writer.written_bytes());
        if file.ends_at.is_none() && !is_over {
            self.record_bytes = (bytes / records.max(1)).max(1);
            return Ok(Built::NotDue);
        }
        // All that is committed was read, or the log would have said so.
        let to = file.ends_at.unwrap_or(committed);
        let Some(new) = file.writer.finish(to)? else { return Ok(Built::NotDue) };
        self.record_bytes = (new.bytes.len() as u64 / new.records).max(1);
        let (records, bytes, started) = (new.records, new.bytes.len() as u64, Instant::now());
        let end = match archive.put(&self.of, new) {
            Ok(PutEvents::Made(end)) => {
                (status.files, status.records) = (status.files + 1, status.records + records);
                status.bytes += bytes;
                end
            }
            Ok(PutEvents::WasThere(end)) => {
                status.refused += 1;
                end
            }
            Err(error) => {
                // It may be there all the same.
                self.ask_again();
                return Err(error.into());
            }
        };
        (self.slot_end_ms, self.tried) = (None, 0);
        self.reached = Some(Reached { end, is_after_gap: false, is_beginning: false });
        if reached.is_beginning || started.elapsed() >= sizes.call {
            // Where nothing stood before, or after a standstill, another writer may have begun
            // elsewhere.
            self.ask_again();
        }
        Ok(Built::Put)
    }
}

/// A file that is being read.
struct Filling {
    writer: EventsWriter,
    slot_end_ms: i64,
    /// A record that is stamped from here on has a wrong clock, and ends no slot.
    believed_ms: i64,
    /// The offset that the file ends before, once that is known.
    ends_at: Option<u64>,
    failed: Option<marquee_sinks::lake::LakeError>,
}

impl Filling {
    fn take(&mut self, records: &[Record<'_>]) {
        for record in records {
            if self.ends_at.is_some() || self.failed.is_some() {
                return;
            }
            let is_later = record
                .record_time_ms
                .is_some_and(|time_ms| time_ms >= self.slot_end_ms && time_ms < self.believed_ms);
            if is_later && self.writer.records() > 0 {
                self.ends_at = Some(record.offset);
                return;
            }
            let raw = RawRecord {
                offset: record.offset,
                record_time_ms: record.record_time_ms,
                key: record.key,
                value: record.payload,
                headers: record.headers,
            };
            match self.writer.add(&raw) {
                Ok(false) => {}
                Ok(true) => self.ends_at = Some(record.offset + 1),
                Err(error) => self.failed = Some(error),
            }
        }
    }
}
