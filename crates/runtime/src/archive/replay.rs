//! The copy of a log, read as the log is read: alone, or in front of the log, which has deleted its
//! beginning. Whoever reads it sees one long log.
//!
//! Where the copy ends before the log begins, or has a gap itself, only what is behind that is shown:
//! a reader takes what it is shown for whole. Who wants all that is there says so.

use marquee_sinks::lake::{
    EventsArchive, EventsEnd, EventsFile, EventsOf, EventsReader, EventsRows, LakeError,
};
use marquee_sources::{Limit, Record, Replay, STRETCH, STRETCH_BYTES, SourceError};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// A topic of a log, as the lake names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedTopic {
    /// Its name.
    pub topic: String,
    /// Short name of its log; `None`: the lake has nothing of this topic.
    pub log: Option<String>,
}

/// The copy of a log, and maybe the log.
pub struct ArchivedLog {
    archive: EventsArchive,
    topics: Vec<ArchivedTopic>,
    log: Option<Box<dyn Replay>>,
    /// Whether what is before a gap is shown, too.
    shows_gaps: bool,
    /// What the lake has, by topic and lane, as it was when [`Replay::bounds`] was asked.
    known: HashMap<(usize, u32), Arc<Kept>>,
    reading: Reading,
}

/// Files of a lane that follow on each other.
struct Kept {
    of: EventsOf,
    /// From the last gap on; empty where they are of no use.
    files: Vec<EventsFile>,
    end: EventsEnd,
    /// The first offset that the log itself has; `u64::MAX` without one.
    log_start: u64,
}

impl Kept {
    fn start(&self) -> Option<u64> {
        self.files.first().map(|file| file.from)
    }

    /// The first file whose successor begins behind an offset: the one that has it.
    fn file_of(&self, offset: u64) -> usize {
        self.files.partition_point(|file| file.from <= offset).saturating_sub(1)
    }

    /// Where the log takes over: at the first file that it has wholly, or after the last one.
    fn switch(&self) -> u64 {
        let whole = self.files.iter().find(|file| file.from >= self.log_start);
        whole.map_or(self.end.to, |file| file.from)
    }
}

/// What is read now.
enum Reading {
    Nothing,
    Log,
    Files(Box<Files>),
}

struct Files {
    topic: usize,
    kept: Arc<Kept>,
    /// The next file.
    next: usize,
    /// The file that is open, where it ends, and the rows that are read of it.
    open: Option<(EventsReader, EventsEnd)>,
    rows: Option<(EventsRows, usize)>,
    position: u64,
    /// The log takes over here; the end, where there is none.
    until: u64,
}

impl ArchivedLog {
    /// A reader of its own; the topics are in the order of their numbers.
    pub fn new(
        archive: EventsArchive,
        topics: Vec<ArchivedTopic>,
        log: Option<Box<dyn Replay>>,
    ) -> Self {
        let (known, reading) = (HashMap::new(), Reading::Nothing);
        ArchivedLog { archive, topics, log, shows_gaps: false, known, reading }
    }

    /// The copy alone, with what is before its gaps: all that is there, whole or not.
    pub fn all_of(archive: EventsArchive, topics: Vec<ArchivedTopic>) -> Self {
        ArchivedLog { shows_gaps: true, ..ArchivedLog::new(archive, topics, None) }
    }

    fn kept(&mut self, topic: usize, lane: u32) -> Result<Arc<Kept>, SourceError> {
        if let Some(kept) = self.known.get(&(topic, lane)) {
            return Ok(kept.clone());
        }
        self.look(topic, lane)
    }

    /// Asks the lake what it has of a lane, where the log has not everything itself.
    fn look(&mut self, topic: usize, lane: u32) -> Result<Arc<Kept>, SourceError> {
        let log_start = match &mut self.log {
            Some(log) => log.bounds(topic, lane)?.0,
            None => u64::MAX,
        };
        let ArchivedTopic { topic: name, log } = &self.topics[topic];
        let of = EventsOf { topic: name.clone(), log: log.clone().unwrap_or_default(), lane };
        let (files, end) = (Vec::new(), EventsEnd::default());
        let mut kept = Kept { of, files, end, log_start };
        if log.is_some() && log_start > 0 {
            let mut files = self.archive.files(&kept.of).map_err(failed)?;
            let gap = files.iter().rposition(|file| file.is_after_gap);
            if let Some(gap) = gap.filter(|_| !self.shows_gaps) {
                files.drain(..gap);
            }
            let begins_before = files.first().is_some_and(|file| file.from < log_start);
            if begins_before && let Some(last) = files.last() {
                kept.end = self.archive.end(&kept.of, last).map_err(failed)?;
                // Without a log it is all there is; with one it must reach it.
                if self.log.is_none() || kept.end.to >= log_start {
                    kept.files = files;
                }
            }
        }
        let kept = Arc::new(kept);
        self.known.insert((topic, lane), kept.clone());
        Ok(kept)
    }
}

fn failed(error: LakeError) -> SourceError {
    SourceError::Archive(format!("the archive of events cannot be read: {error}"))
}

impl Replay for ArchivedLog {
    fn bounds(&mut self, topic: usize, lane: u32) -> Result<(u64, u64), SourceError> {
        let kept = self.look(topic, lane)?;
        let Some(log) = &mut self.log else {
            return Ok(kept.start().map_or((0, 0), |start| (start, kept.end.to)));
        };
        let (start, end) = log.bounds(topic, lane)?;
        Ok((kept.start().map_or(start, |kept| kept.min(start)), end))
    }

    /// The name of a file says how late any record before it is stamped.
    fn first_at(&mut self, topic: usize, lane: u32, time_ms: i64) -> Result<u64, SourceError> {
        let kept = self.kept(topic, lane)?;
        let in_log = match &mut self.log {
            Some(log) => Some(log.first_at(topic, lane, time_ms)?),
            None => None,
        };
        let Some(start) = kept.start() else { return Ok(in_log.unwrap_or(0)) };
        let is_before = |file: &&EventsFile| file.latest_before_ms < time_ms;
        let in_files = match kept.end.latest_ms < time_ms {
            true => kept.end.to,
            // The times in names only grow.
            false => kept.files.iter().rev().find(is_before).map_or(start, |file| file.from),
        };
        // The log knows of its own records only.
        Ok(match in_log {
            Some(in_log) if in_files >= kept.log_start => in_files.max(in_log),
            _ => in_files.max(start),
        })
    }

    fn seek(&mut self, topic: usize, lane: u32, offset: u64) -> Result<(), SourceError> {
        let kept = self.kept(topic, lane)?;
        let until = if self.log.is_some() { kept.switch() } else { kept.end.to };
        let is_kept = kept.start().is_some_and(|start| (start..until).contains(&offset));
        if let (false, Some(log)) = (is_kept, &mut self.log) {
            log.seek(topic, lane, offset)?;
            self.reading = Reading::Log;
            return Ok(());
        }
        let next = kept.file_of(offset);
        let (open, rows, position) = (None, None, offset);
        let files = Files { topic, kept, next, open, rows, position, until };
        self.reading = Reading::Files(Box::new(files));
        Ok(())
    }

    fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError> {
        loop {
            match &mut self.reading {
                Reading::Nothing => return Ok(None),
                Reading::Log => {
                    let log = self.log.as_mut().expect("it is read");
                    return log.read(limit, each);
                }
                Reading::Files(files) => {
                    let until = files.until;
                    if files.position >= limit.before.min(until) {
                        let (topic, lane) = (files.topic, files.kept.of.lane);
                        match &mut self.log {
                            Some(log) if limit.before > until => {
                                log.seek(topic, lane, until)?;
                                self.reading = Reading::Log;
                                continue;
                            }
                            _ => return Ok(None),
                        }
                    }
                    return files.read(&self.archive, limit, each).map(Some);
                }
            }
        }
    }
}

impl Files {
    /// Gives out some records, or goes on to the next rows or to the next file.
    fn read(
        &mut self,
        archive: &EventsArchive,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        if let Some((rows, row)) = &mut self.rows {
            let before = limit.before.min(self.until);
            let lent = lend(rows, *row, (self.position, before), limit, each);
            (*row, self.position) = (lent.row, lent.position);
            if lent.row >= rows.len() {
                self.rows = None;
            }
            return Ok(self.position);
        }
        if let Some((reader, end)) = &mut self.open {
            match reader.next_rows().map_err(failed)? {
                Some(rows) => self.rows = Some((rows, 0)),
                None => {
                    // What is left of it has no record.
                    self.position = self.position.max(end.to.min(self.until));
                    self.open = None;
                }
            }
            return Ok(self.position);
        }
        let Some(file) = self.kept.files.get(self.next) else {
            return Err(self.missing(self.until));
        };
        if file.from > self.position {
            // Of the first file it does not matter what was before it.
            if !file.is_after_gap || self.next == 0 {
                return Err(self.missing(file.from));
            }
            self.position = file.from;
        }
        self.open = Some(archive.read(&self.kept.of, file).map_err(failed)?);
        self.next += 1;
        Ok(self.position)
    }

    fn missing(&self, to: u64) -> SourceError {
        let (of, from) = (&self.kept.of, self.position);
        SourceError::Archive(format!(
            "the archive of events has no file with the offsets {from} to {to} of lane {} of topic \
             {}, and has had one: bring it back, or take away all files before it",
            of.lane, of.topic
        ))
    }
}

/// How far records were given out.
struct Lent {
    row: usize,
    position: u64,
}

/// Gives out records from a row on, those before the first offset left out, as a source does.
fn lend(
    rows: &EventsRows,
    mut row: usize,
    (mut position, before): (u64, u64),
    limit: Limit,
    each: &mut dyn FnMut(&[Record<'_>]),
) -> Lent {
    let (mut left, mut left_bytes) = (limit.records.max(1), limit.bytes);
    while row < rows.len() && left > 0 {
        let mut headers: Vec<Vec<(Cow<'_, str>, Cow<'_, str>)>> = Vec::new();
        let (mut at, mut bytes) = (row, 0);
        while at < rows.len() && headers.len() < STRETCH.min(left) {
            let len = rows.value(at).map_or(0, <[u8]>::len);
            if rows.offset(at) >= before || (!headers.is_empty() && bytes + len > STRETCH_BYTES) {
                break;
            }
            bytes += len;
            headers.push(rows.headers(at));
            at += 1;
        }
        if headers.is_empty() {
            // The rest was not asked for.
            return Lent { row: rows.len(), position: before };
        }
        let mut records: Vec<Record<'_>> = Vec::with_capacity(headers.len());
        for (row, headers) in (row..at).zip(&headers) {
            // A rival may have made a file of a part of this one, or the reading began in its middle.
            if rows.offset(row) < position {
                continue;
            }
            position = rows.offset(row) + 1;
            records.push(Record {
                offset: rows.offset(row),
                record_time_ms: rows.record_time_ms(row),
                key: rows.key(row),
                payload: rows.value(row),
                headers,
            });
        }
        if !records.is_empty() {
            each(&records);
            left -= records.len().min(left);
        }
        row = at;
        if bytes >= left_bytes {
            break;
        }
        left_bytes -= bytes;
    }
    Lent { row, position }
}
