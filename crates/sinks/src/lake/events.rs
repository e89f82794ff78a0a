//! Raw records in the lake: a second log of what the lanes have read, for whoever counts again after
//! the first one has forgotten.
//!
//! ```text
//! events/topic=plays/lane=3/day=2016-11-21/hour=13/<log>-<from>-<latest>.parquet
//! ```
//!
//! A file is a stretch of offsets of one lane. Files of a lane follow on each other: each begins where
//! the one before it ended, and is named by where it begins. It is made by a conditional put, so of
//! several writers one makes it, and the others go on where it ends. That is all there is to keep
//! records from being in two files: no manifest, no owner, no state beside the files.
//!
//! All that is in a name follows from what stands before the file, and from its first record, which
//! never change: so all writers give it the same one. `<log>` tells a topic from another of the same
//! name that was made after it; `<latest>` is the latest record time in all files before it, so that
//! names alone say from which file on a time can stand; folders are the day and hour of the first
//! record. Where a log has deleted records before they could be kept, the next file's name ends with
//! `-gap`.
//!
//! Who reads the log, and when a file is ended, is not known here.

mod columns;

pub use columns::{EventsReader, EventsRows, EventsWriter, RawRecord};

use super::objects::{Objects, Put};
use super::{FORMAT, LakeError};
use bytes::Bytes;
use marquee_model::format_time_ms;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

/// The folder of all of it.
const FOLDER: &str = "events";

/// Times in names, milliseconds: up to the end of the year 9998, which is near the last that can be
/// written.
const LAST_MS: i64 = 253_370_764_799_999;

/// A lane of a topic of one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventsOf {
    /// The topic.
    pub topic: String,
    /// Short name of the log, by [`short_log`].
    pub log: String,
    /// The lane.
    pub lane: u32,
}

/// Whose log it is, for whoever looks into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsLog {
    /// Its whole id.
    pub id: String,
    /// Its number of lanes.
    pub lanes: u32,
}

/// How far a lane's files reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsEnd {
    /// The offset after the last one that they cover.
    pub to: u64,
    /// The latest record time in all of them, milliseconds; 0 where there is none.
    pub latest_ms: i64,
}

/// A file of a lane, as far as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsFile {
    /// Path within the lake.
    pub path: String,
    /// The offset that it begins at.
    pub from: u64,
    /// The latest record time in the files before it, milliseconds; 0 where there is none.
    pub latest_before_ms: i64,
    /// Whether the log had lost records before it.
    pub is_after_gap: bool,
}

/// What stands in a file beside its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) format: u32,
    pub(super) topic: String,
    pub(super) lane: u32,
    pub(super) lanes: u32,
    /// The whole id of the log.
    pub(super) log: String,
    /// The offsets that it covers; none of them is missing, though not all need have a record.
    pub(super) from: u64,
    pub(super) to: u64,
    /// As in [`EventsEnd`].
    pub(super) latest_ms: i64,
}

/// A file that waits to be put.
#[derive(Debug)]
pub struct NewEvents {
    /// Where it goes.
    pub path: String,
    /// How far the lane reaches with it.
    pub end: EventsEnd,
    /// How many records are in it.
    pub records: u64,
    /// The file.
    pub bytes: Bytes,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutEvents {
    /// It is there, by this call.
    Made(EventsEnd),
    /// Another writer has made it, or this one without having heard of it; it ends there.
    WasThere(EventsEnd),
}

/// A log of which the lake has files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// Its short name.
    pub log: String,
    /// Its number of lanes.
    pub lanes: u32,
    /// How often it had lost records before they were copied, over all lanes.
    pub gaps: u64,
}

/// A name for the id of a log that fits into names of files.
pub fn short_log(id: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(id.as_bytes());
    format!("{:012x}", hasher.finish() >> 16)
}

/// The records in a lake.
#[derive(Clone)]
pub struct EventsArchive {
    objects: Arc<dyn Objects>,
}

impl EventsArchive {
    /// Those of a place.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        EventsArchive { objects }
    }

    /// All files of a lane, in the order of their offsets.
    ///
    /// # Errors
    /// The lake does not answer.
    pub fn files(&self, of: &EventsOf) -> Result<Vec<EventsFile>, LakeError> {
        let listed = self.objects.list(&lane_folder(of))?;
        let files = listed.into_iter().filter_map(|object| parse_name(object.path));
        let mut files: Vec<EventsFile> =
            files.filter(|(log, _)| *log == of.log).map(|(_, file)| file).collect();
        files.sort_by(|a, b| (a.from, &a.path).cmp(&(b.from, &b.path)));
        Ok(files)
    }

    /// The logs of a topic that have files, by name.
    ///
    /// # Errors
    /// The lake does not answer, or a file is not there any more or not whole.
    pub fn logs(&self, topic: &str) -> Result<Vec<FoundLog>, LakeError> {
        let mut found: BTreeMap<String, (String, u64)> = BTreeMap::new();
        for object in self.objects.list(&format!("{FOLDER}/topic={topic}"))? {
            if let Some((log, file)) = parse_name(object.path) {
                let (_, gaps) = found.entry(log).or_insert((file.path, 0));
                *gaps += u64::from(file.is_after_gap);
            }
        }
        let log = |(log, (path, gaps)): (String, (String, u64))| {
            let lanes = columns::about(self.get(&path)?, &path)?.lanes;
            Ok(FoundLog { log, lanes, gaps })
        };
        found.into_iter().map(log).collect()
    }

    /// How far a lane reaches with a file of it.
    ///
    /// # Errors
    /// The lake does not answer, or the file is not there any more or not whole.
    pub fn end(&self, of: &EventsOf, file: &EventsFile) -> Result<EventsEnd, LakeError> {
        self.end_of(of, file.from, &file.path)
    }

    fn end_of(&self, of: &EventsOf, from: u64, path: &str) -> Result<EventsEnd, LakeError> {
        let about = columns::about(self.get(path)?, path)?;
        check(&about, of, from, path)?;
        Ok(EventsEnd { to: about.to, latest_ms: about.latest_ms })
    }

    /// Puts a file, unless there is one.
    ///
    /// # Errors
    /// The lake does not answer: the file may be there all the same.
    pub fn put(&self, of: &EventsOf, new: NewEvents) -> Result<PutEvents, LakeError> {
        let NewEvents { path, end, bytes, .. } = new;
        match self.objects.put_new(&path, bytes)? {
            Put::Made => Ok(PutEvents::Made(end)),
            Put::WasThere => {
                let gone = || LakeError::Gone { path: path.clone() };
                let (_, file) = parse_name(path.clone()).ok_or_else(gone)?;
                Ok(PutEvents::WasThere(self.end_of(of, file.from, &path)?))
            }
        }
    }

    /// Reads a file, and says where it ends.
    ///
    /// # Errors
    /// The lake does not answer, or the file is not there any more or not whole.
    pub fn read(
        &self,
        of: &EventsOf,
        file: &EventsFile,
    ) -> Result<(EventsReader, EventsEnd), LakeError> {
        let (about, reader) = columns::read(self.get(&file.path)?, &file.path)?;
        check(&about, of, file.from, &file.path)?;
        Ok((reader, EventsEnd { to: about.to, latest_ms: about.latest_ms }))
    }

    fn get(&self, path: &str) -> Result<Bytes, LakeError> {
        self.objects.get(path)?.ok_or_else(|| LakeError::Gone { path: path.to_owned() })
    }
}

/// Whether a file is what its name says.
fn check(about: &About, of: &EventsOf, from: u64, path: &str) -> Result<(), LakeError> {
    let damaged =
        |what: &str| Err(LakeError::Damaged { path: path.to_owned(), what: what.to_owned() });
    if about.format != FORMAT {
        return Err(LakeError::OtherFormat {
            path: path.to_owned(),
            found: u64::from(about.format),
        });
    }
    if (about.topic.as_str(), about.lane, about.from) != (of.topic.as_str(), of.lane, from) {
        return damaged("it holds other records than its name says");
    }
    if short_log(&about.log) != of.log {
        return damaged("it holds records of another log than its name says");
    }
    if about.to < about.from {
        return damaged("it ends before it begins");
    }
    Ok(())
}

fn lane_folder(of: &EventsOf) -> String {
    format!("{FOLDER}/topic={}/lane={}", of.topic, of.lane)
}

/// The path of a file whose first record is stamped so.
fn path_of(of: &EventsOf, file: &EventsBegin, first_ms: i64) -> String {
    let time = format_time_ms(first_ms.clamp(0, LAST_MS));
    let (day, hour) = (&time[..10], &time[11..13]);
    let EventsBegin { from, latest_before_ms, is_after_gap } = file;
    let gap = if *is_after_gap { GAP } else { "" };
    format!(
        "{}/day={day}/hour={hour}/{}-{from:020}-{latest_before_ms}{gap}.parquet",
        lane_folder(of),
        of.log
    )
}

const GAP: &str = "-gap";

/// Where a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsBegin {
    /// The first offset that it covers.
    pub from: u64,
    /// The latest record time before it, milliseconds; 0 where there is none.
    pub latest_before_ms: i64,
    /// Whether the log has lost records before it.
    pub is_after_gap: bool,
}

/// The log and the rest of what a path says; `None` for what is no file of records.
fn parse_name(path: String) -> Option<(String, EventsFile)> {
    let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
    let (name, is_after_gap) = match name.strip_suffix(GAP) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let mut parts = name.split('-');
    let (log, from, latest) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || from.len() != 20 || !is_number(from) || !is_number(latest) {
        return None;
    }
    let (log, from, latest_before_ms) = (log.to_owned(), from.parse().ok()?, latest.parse().ok()?);
    Some((log, EventsFile { path, from, latest_before_ms, is_after_gap }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::place::Memory;
    use super::*;

    fn of() -> EventsOf {
        EventsOf { topic: "plays".into(), log: short_log("a log"), lane: 3 }
    }

    fn file(from: u64, before: EventsEnd, records: &[(u64, i64)], to: u64) -> NewEvents {
        let begin = EventsBegin { from, latest_before_ms: before.latest_ms, is_after_gap: false };
        let log = EventsLog { id: "a log".into(), lanes: 4 };
        let mut writer = EventsWriter::new(&of(), &log, begin, 1 << 20);
        for (offset, time_ms) in records {
            let record = RawRecord {
                offset: *offset,
                record_time_ms: Some(*time_ms),
                key: None,
                value: Some(b"{}"),
                headers: &[],
            };
            writer.add(&record).expect("memory works");
        }
        writer.finish(to).expect("memory works").expect("there are records")
    }

    #[test]
    fn names_never_change() {
        assert_eq!(short_log(""), "d1fba762150c");
        let begin = EventsBegin { from: 51_200, latest_before_ms: 7, is_after_gap: false };
        let of = EventsOf { topic: "plays".into(), log: "d1fba762150c".into(), lane: 3 };
        let path = path_of(&of, &begin, 1_479_733_200_000);
        assert_eq!(
            path,
            "events/topic=plays/lane=3/day=2016-11-21/hour=13/\
             d1fba762150c-00000000000000051200-7.parquet"
        );
        let (log, file) = parse_name(path.clone()).expect("it is one");
        let (from, latest_before_ms) = (begin.from, begin.latest_before_ms);
        assert_eq!(log, of.log);
        assert_eq!(file, EventsFile { path, from, latest_before_ms, is_after_gap: false });
        let gap = path_of(&of, &EventsBegin { is_after_gap: true, ..begin }, i64::MAX);
        assert!(gap.contains("day=9998-12-31/hour=23/") && gap.ends_with("-7-gap.parquet"));
        assert!(parse_name(gap).is_some_and(|(_, file)| file.is_after_gap));
        let early = path_of(&of, &begin, i64::MIN);
        assert!(early.contains("day=1970-01-01/hour=00/"), "{early}");
        for other in ["a/x.parquet", "a/1-2-3.parquet", "x-00000000000000051200-7.tmp"] {
            assert_eq!(parse_name(other.to_owned()), None, "{other}");
        }
    }

    #[test]
    fn of_two_writers_one_makes_a_file_and_the_other_goes_on_where_it_ends() {
        let archive = EventsArchive::new(Arc::new(Memory::default()));
        let start = EventsEnd::default();
        let first = file(0, start, &[(0, 10), (1, 30), (2, 20)], 4);
        let end = EventsEnd { to: 4, latest_ms: 30 };
        assert_eq!(archive.put(&of(), first).expect("it works"), PutEvents::Made(end));
        // The other has read less, and is told how far the first one came.
        let second = file(0, start, &[(0, 10)], 1);
        assert_eq!(archive.put(&of(), second).expect("it works"), PutEvents::WasThere(end));
        let next = file(4, end, &[(7, 5)], 9);
        assert!(next.path.ends_with("-00000000000000000004-30.parquet"), "{}", next.path);
        archive.put(&of(), next).expect("it works");

        let files = archive.files(&of()).expect("it works");
        let begins: Vec<_> = files.iter().map(|f| (f.from, f.latest_before_ms)).collect();
        assert_eq!(begins, [(0, 0), (4, 30)]);
        assert_eq!(archive.end(&of(), &files[1]).expect("it works").to, 9);
        let other = EventsOf { log: short_log("another"), ..of() };
        assert_eq!(archive.files(&other).expect("it works"), []);
        let found = archive.logs("plays").expect("it works");
        assert_eq!(found, [FoundLog { log: of().log, lanes: 4, gaps: 0 }]);
    }

    #[test]
    fn a_file_under_a_wrong_name_is_refused() {
        let memory = Arc::new(Memory::default());
        let archive = EventsArchive::new(memory.clone());
        let new = file(0, EventsEnd::default(), &[(0, 10)], 1);
        let moved = new.path.replace(&format!("{:020}", 0), &format!("{:020}", 5));
        memory.put_new(&moved, new.bytes).expect("it works");
        let files = archive.files(&of()).expect("it works");
        let error = archive.end(&of(), &files[0]).expect_err("it is another file");
        assert!(error.to_string().contains("than its name says"), "{error}");
        let error = archive.read(&of(), &files[0]).err().expect("it is another file");
        assert!(matches!(error, LakeError::Damaged { .. }), "{error}");
    }
}
