//! Copies of a log in memory: by several writers that are refused, cut off and killed at any call,
//! of a log that grows and forgets; and the copy read as a log.

use super::follow::{Follower, Sizes};
use super::{ArchiveStatus, ArchivedLog, ArchivedTopic, EventsArchive, EventsLog, short_log};
use bytes::Bytes;
use marquee_sinks::lake::{EventsOf, Listed, ObjectError, Objects, Put};
use marquee_sources::{Limit, Record, Replay, SourceError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// An hour of the slides' day.
const NOON_MS: i64 = 1_479_729_600_000;

/// A lane of a log: what is before `start` is deleted.
#[derive(Clone, Debug, Default)]
struct Log {
    times_ms: Vec<i64>,
    start: u64,
}

/// Shared, so that it may grow and forget while it is read.
#[derive(Clone, Default)]
struct Again {
    log: Arc<Mutex<Log>>,
    position: u64,
    end: u64,
}

impl Again {
    fn add(&self, times_ms: impl IntoIterator<Item = i64>) {
        self.log.lock().expect("nobody panics").times_ms.extend(times_ms);
    }

    fn trim(&self, start: u64) {
        self.log.lock().expect("nobody panics").start = start;
    }

    fn end(&self) -> u64 {
        self.log.lock().expect("nobody panics").times_ms.len() as u64
    }
}

fn payload(offset: u64) -> String {
    format!("{{\"n\": {offset}}}")
}

impl Replay for Again {
    fn bounds(&mut self, _: usize, _: u32) -> Result<(u64, u64), SourceError> {
        let log = self.log.lock().expect("nobody panics");
        Ok((log.start, log.times_ms.len() as u64))
    }

    fn first_at(&mut self, _: usize, _: u32, time_ms: i64) -> Result<u64, SourceError> {
        let log = self.log.lock().expect("nobody panics");
        let mut offsets = log.start..log.times_ms.len() as u64;
        let first = offsets.find(|offset| log.times_ms[*offset as usize] >= time_ms);
        Ok(first.unwrap_or(log.times_ms.len() as u64))
    }

    fn seek(&mut self, _: usize, _: u32, offset: u64) -> Result<(), SourceError> {
        (self.position, self.end) = (offset, self.end());
        Ok(())
    }

    fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError> {
        let log = self.log.lock().expect("nobody panics");
        let (position, end) = (self.position, self.end.min(limit.before));
        if position < log.start {
            let (topic, topic_index, lane, start) = ("t".to_owned(), 0, 0, log.start);
            return Err(SourceError::OutOfRange { topic, topic_index, lane, position, start, end });
        }
        if position >= end {
            return Ok(None);
        }
        let payload = payload(position);
        each(&[Record {
            offset: position,
            record_time_ms: Some(log.times_ms[position as usize]),
            key: None,
            payload: Some(payload.as_bytes()),
            headers: &[],
        }]);
        self.position += 1;
        Ok(Some(self.position))
    }
}

/// All objects.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Bytes>>);

impl Objects for Memory {
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError> {
        let mut objects = self.0.lock().expect("nobody panics");
        if objects.contains_key(path) {
            return Ok(Put::WasThere);
        }
        objects.insert(path.to_owned(), bytes);
        Ok(Put::Made)
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.0.lock().expect("nobody panics").get(path).cloned())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        let objects = self.0.lock().expect("nobody panics");
        let inside = objects.iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")));
        let listed = inside.map(|(path, bytes)| Listed {
            path: path.clone(),
            bytes: bytes.len() as u64,
            modified_ms: 0,
        });
        Ok(listed.collect())
    }

    fn delete(&self, path: &str) -> Result<(), ObjectError> {
        self.0.lock().expect("nobody panics").remove(path);
        Ok(())
    }
}

/// The memory as one writer sees it: before each of its calls a rival may work, and the call may fail
/// with or without having been done.
struct Shaky {
    memory: Arc<Memory>,
    draw: Mutex<Draw>,
    rival: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Shaky {
    fn call<T>(
        &self,
        call: impl FnOnce(&Memory) -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let (rival, fault) = {
            let mut draw = self.draw.lock().expect("nobody panics");
            (draw.below(3) == 0, draw.below(6))
        };
        if rival && let Some(rival) = &mut *self.rival.lock().expect("nobody panics") {
            rival();
        }
        let failed = || ObjectError::Failed {
            call: "do",
            path: String::new(),
            error: "a test wants it".to_owned(),
        };
        match fault {
            0 => Err(failed()),
            1 => call(&self.memory).and_then(|_| Err(failed())),
            _ => call(&self.memory),
        }
    }
}

impl Objects for Shaky {
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError> {
        self.call(|memory| memory.put_new(path, bytes))
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError> {
        self.call(|memory| memory.get(path))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        self.call(|memory| memory.list(folder))
    }

    fn delete(&self, path: &str) -> Result<(), ObjectError> {
        self.call(|memory| memory.delete(path))
    }
}

/// Numbers by a seed.
#[derive(Clone)]
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

const SIZES: Sizes =
    Sizes { file_bytes: 64 << 20, slot_ms: HOUR_MS, silence_ms: MINUTE_MS, call: Duration::ZERO };

fn of(id: &str) -> EventsOf {
    EventsOf { topic: "t".to_owned(), log: short_log(id), lane: 0 }
}

fn follower(id: &str) -> Follower {
    Follower::new(0, of(id), EventsLog { id: id.to_owned(), lanes: 1 })
}

fn archive(memory: &Arc<Memory>) -> EventsArchive {
    EventsArchive::new(memory.clone())
}

/// A writer at work on all that the log has.
fn step(follower: &mut Follower, log: &Again, memory: &Arc<Memory>, now_ms: i64) -> ArchiveStatus {
    let mut status = ArchiveStatus::default();
    let (committed, mut log) = (log.end(), log.clone());
    let archive = archive(memory);
    let how = (SIZES, now_ms);
    while follower.step(&archive, &mut log, committed, how, &mut status).expect("memory works") {}
    status
}

/// Every record of all files: offset, time and folder, in the order of the files.
fn rows(memory: &Arc<Memory>, id: &str) -> Vec<(u64, i64, String)> {
    let archive = archive(memory);
    let mut found = Vec::new();
    for file in archive.files(&of(id)).expect("memory works") {
        let (mut reader, _) = archive.read(&of(id), &file).expect("it is whole");
        while let Some(rows) = reader.next_rows().expect("it is whole") {
            for row in 0..rows.len() {
                let offset = rows.offset(row);
                assert_eq!(rows.value(row), Some(payload(offset).as_bytes()));
                let folder = file.path.split('/').nth(4).expect("it has folders").to_owned();
                found.push((offset, rows.record_time_ms(row).expect("it has one"), folder));
            }
        }
    }
    found
}

fn offsets(memory: &Arc<Memory>, id: &str) -> Vec<u64> {
    rows(memory, id).into_iter().map(|(offset, ..)| offset).collect()
}

#[test]
fn an_hour_is_a_file_and_the_one_that_is_not_over_waits_until_the_topic_is_silent() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add([5, 10, 70, 65, 50, 130].map(|minutes| NOON_MS + minutes * MINUTE_MS));
    let mut follower = follower("a");
    let at = |minutes: i64| NOON_MS + minutes * MINUTE_MS;
    // First seen now: for all it knows more of the third hour is on its way.
    assert_eq!(step(&mut follower, &log, &memory, at(135)).files, 2);
    let hours = |id: &str| -> Vec<(u64, String)> {
        rows(&memory, id).into_iter().map(|(offset, _, hour)| (offset, hour)).collect()
    };
    let hour = |n: u64| format!("hour={n}");
    let two = [(0, hour(12)), (1, hour(12)), (2, hour(13)), (3, hour(13)), (4, hour(13))];
    assert_eq!(hours("a"), two, "what is late by its time stays where it stands");
    assert_eq!(follower.waiting(), 1);
    assert_eq!(step(&mut follower, &log, &memory, at(179)).files, 0, "its hour is not over");
    log.add([at(179)]);
    assert_eq!(step(&mut follower, &log, &memory, at(181)).files, 0, "it is not silent");
    assert_eq!(step(&mut follower, &log, &memory, at(182)).files, 1);
    assert_eq!(offsets(&memory, "a"), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(follower.waiting(), 0);
    // Another one, which was not there, finds nothing to do.
    assert_eq!(step(&mut self::follower("a"), &log, &memory, at(500)), ArchiveStatus::default());
}

#[test]
fn a_clock_that_is_ahead_neither_ends_files_nor_keeps_one_open() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    let now_ms = NOON_MS + HOUR_MS + MINUTE_MS;
    let in_2030 = NOON_MS + 13 * 365 * 24 * HOUR_MS;
    log.add([NOON_MS, in_2030, NOON_MS + 1, in_2030, NOON_MS + 2, NOON_MS + HOUR_MS]);
    let mut follower = follower("a");
    assert_eq!(step(&mut follower, &log, &memory, now_ms).files, 1);
    assert_eq!(offsets(&memory, "a"), [0, 1, 2, 3, 4]);
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add([in_2030, NOON_MS]);
    let mut follower = self::follower("a");
    step(&mut follower, &log, &memory, NOON_MS);
    step(&mut follower, &log, &memory, now_ms);
    assert_eq!(offsets(&memory, "a"), [0, 1], "it is over with the hour in which it was seen");
}

#[test]
fn a_full_file_is_ended_before_its_hour() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add((0..60_000).map(|n| NOON_MS + n));
    let sizes = Sizes { file_bytes: 100_000, ..SIZES };
    let (mut status, mut follower) = (ArchiveStatus::default(), follower("a"));
    let (archive, how) = (archive(&memory), (sizes, NOON_MS + 60_000));
    let mut log = log.clone();
    let first = follower.step(&archive, &mut log, 60_000, how, &mut status).expect("memory works");
    assert!(first && status.files == 4, "the others have their turn: {status:?}");
    while follower.step(&archive, &mut log, 60_000, how, &mut status).expect("memory works") {}
    assert!(status.files >= 2 && follower.waiting() > 0, "{status:?}");
    let copied = 60_000 - follower.waiting();
    assert_eq!(offsets(&memory, "a"), (0..copied).collect::<Vec<_>>());
    assert!(status.bytes / status.files < 400_000, "{status:?}");
}

#[test]
fn what_is_not_committed_is_not_copied() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add([NOON_MS, NOON_MS + 1, NOON_MS + HOUR_MS]);
    let (mut status, mut follower, archive) =
        (ArchiveStatus::default(), follower("a"), archive(&memory));
    for now_ms in [NOON_MS + 9 * HOUR_MS, NOON_MS + 10 * HOUR_MS] {
        let how = (SIZES, now_ms);
        follower.step(&archive, &mut log.clone(), 1, how, &mut status).expect("memory works");
    }
    assert_eq!(offsets(&memory, "a"), [0]);
    let error = follower.step(&archive, &mut log.clone(), 4, (SIZES, NOON_MS), &mut status);
    let error = error.expect_err("the log ends before what was committed").to_string();
    assert!(error.contains("offset 4 was committed, but the log ends at 3"), "{error}");
}

#[test]
fn a_topic_that_was_made_anew_has_files_of_its_own() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add([NOON_MS, NOON_MS + HOUR_MS]);
    for id in ["first", "second"] {
        let mut follower = follower(id);
        for hours in [5, 6] {
            step(&mut follower, &log, &memory, NOON_MS + hours * HOUR_MS);
        }
        assert_eq!(offsets(&memory, id), [0, 1], "{id}");
    }
    assert_eq!(archive(&memory).logs("t").expect("memory works").len(), 2);
}

#[test]
fn what_the_log_has_deleted_is_a_gap_that_is_seen() {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    log.add((0..10).map(|n| NOON_MS + n * HOUR_MS / 2));
    let mut follower = follower("a");
    step(&mut follower, &log, &memory, NOON_MS + HOUR_MS + MINUTE_MS);
    assert_eq!(offsets(&memory, "a"), [0, 1]);
    log.trim(5);
    let late_ms = NOON_MS + 20 * HOUR_MS;
    let status = step(&mut follower, &log, &memory, late_ms);
    assert_eq!(status.lost, 3);
    step(&mut follower, &log, &memory, late_ms + HOUR_MS);
    assert_eq!(offsets(&memory, "a"), [0, 1, 5, 6, 7, 8, 9]);
    let files = archive(&memory).files(&of("a")).expect("memory works");
    let gaps: Vec<_> = files.iter().filter(|f| f.is_after_gap).map(|f| f.from).collect();
    assert_eq!(gaps, [5]);
    // Only what is behind the gap is whole.
    let mut alone = archived(&memory, None);
    assert_eq!(alone.bounds(0, 0).expect("memory works"), (5, 10));
    assert_eq!(read_from(&mut alone, 5), [5, 6, 7, 8, 9]);
    let topics = vec![ArchivedTopic { topic: "t".to_owned(), log: Some(short_log("a")) }];
    let mut all = ArchivedLog::all_of(archive(&memory), topics);
    assert_eq!(all.bounds(0, 0).expect("memory works"), (0, 10));
    assert_eq!(read_from(&mut all, 0), [0, 1, 5, 6, 7, 8, 9]);
    assert_eq!(archive(&memory).logs("t").expect("memory works")[0].gaps, 1);
}

/// Histories of two writers and a log that grows and forgets, by seeds.
#[test]
fn whoever_is_refused_cut_off_or_killed_no_record_is_there_twice_and_none_is_missing() {
    let mut refused = 0;
    for seed in 0..150 {
        let (memory, log) = (Arc::new(Memory::default()), Again::default());
        let mut draw = Draw(seed);
        let clock = Arc::new(Mutex::new(NOON_MS));
        let mut rival_follower = follower("a");
        let rival = {
            let (memory, log, clock) = (memory.clone(), log.clone(), clock.clone());
            let mut draw = Draw(seed + 3_000_000);
            move || {
                // It sees more than the writer saw when it read its file.
                let now_ms = {
                    let mut now = clock.lock().expect("nobody panics");
                    *now += draw.below(20) as i64 * MINUTE_MS;
                    *now
                };
                let late = 30 + draw.below(60) as i64;
                log.add((0..draw.below(3)).map(|_| now_ms - late * MINUTE_MS));
                // And it waits for nobody: its files end elsewhere than the writer's.
                let sizes = Sizes { slot_ms: HOUR_MS / 4, silence_ms: 0, ..SIZES };
                let (committed, how) = (log.end(), (sizes, now_ms));
                let mut status = ArchiveStatus::default();
                let archive = archive(&memory);
                let stepped =
                    rival_follower.step(&archive, &mut log.clone(), committed, how, &mut status);
                stepped.expect("memory works");
            }
        };
        let shaky = Arc::new(Shaky {
            memory: memory.clone(),
            draw: Mutex::new(Draw(seed + 7_000_000)),
            rival: Mutex::new(Some(Box::new(rival))),
        });
        let mut writer = follower("a");
        for _ in 0..60 {
            let now_ms = {
                let mut now = clock.lock().expect("nobody panics");
                *now += draw.below(40) as i64 * MINUTE_MS;
                *now
            };
            let more = draw.below(5);
            log.add((0..more).map(|_| now_ms - draw.below(30) as i64 * MINUTE_MS));
            if draw.below(8) == 0 {
                writer = follower("a"); // killed, and started again
            }
            let mut status = ArchiveStatus::default();
            let archive = EventsArchive::new(shaky.clone());
            // Now and then it waits for nobody, either, and ends a file at what is committed.
            let silence_ms = if seed % 2 == 0 { 0 } else { MINUTE_MS };
            // Its own calls take no time, so it does not ask again without a reason.
            let call = Duration::from_secs(3600);
            let how = (Sizes { silence_ms, call, ..SIZES }, now_ms);
            // A failed call is tried again in the next round.
            let _ = writer.step(&archive, &mut log.clone(), log.end(), how, &mut status);
            refused += status.refused;
        }
        let end_ms = *clock.lock().expect("nobody panics") + 2 * HOUR_MS;
        let mut last = follower("a");
        step(&mut last, &log, &memory, end_ms);
        step(&mut last, &log, &memory, end_ms + HOUR_MS);
        let all: Vec<u64> = (0..log.end()).collect();
        assert_eq!(offsets(&memory, "a"), all, "seed {seed}");
        assert!(all.len() > 50);
        let mut alone = archived(&memory, None);
        assert_eq!(read_from(&mut alone, 0), all, "seed {seed}");
    }
    assert!(refused > 100, "{refused} refusals prove little");
}

fn archived(memory: &Arc<Memory>, log: Option<&Again>) -> ArchivedLog {
    let topics = vec![ArchivedTopic { topic: "t".to_owned(), log: Some(short_log("a")) }];
    let log = log.map(|log| Box::new(log.clone()) as Box<dyn Replay>);
    ArchivedLog::new(archive(memory), topics, log)
}

/// The offsets of all records from there on, each with its right payload.
fn read_from(replay: &mut dyn Replay, offset: u64) -> Vec<u64> {
    read_until(replay, offset, u64::MAX)
}

fn read_until(replay: &mut dyn Replay, offset: u64, before: u64) -> Vec<u64> {
    let mut found = Vec::new();
    replay.seek(0, 0, offset).expect("it is there");
    let limit = Limit { before, records: 3, bytes: 1000 };
    while replay
        .read(limit, &mut |records| {
            assert!(records.len() <= 3);
            for record in records {
                assert_eq!(record.payload, Some(payload(record.offset).as_bytes()));
                found.push(record.offset);
            }
        })
        .expect("it can be read")
        .is_some()
    {}
    found
}

/// A log of 40 records, one each quarter of an hour and some out of order, of which all but the last
/// are copied.
fn copied() -> (Arc<Memory>, Again) {
    let (memory, log) = (Arc::new(Memory::default()), Again::default());
    let mut draw = Draw(1);
    log.add((0..40).map(|n| NOON_MS + (n * 15 - draw.below(40) as i64) * MINUTE_MS));
    step(&mut follower("a"), &log, &memory, NOON_MS + 10 * HOUR_MS - 1);
    (memory, log)
}

#[test]
fn in_front_of_a_log_that_forgets_the_copy_makes_it_long() {
    let (memory, log) = copied();
    let end = archive(&memory)
        .files(&of("a"))
        .and_then(|files| archive(&memory).end(&of("a"), files.last().expect("there are files")));
    let end = end.expect("memory works").to;
    assert!((30..40).contains(&end), "{end}");
    for start in 0..=40 {
        log.trim(start);
        let mut long = archived(&memory, Some(&log));
        let reaches = start <= end;
        let first = if reaches { 0 } else { start };
        assert_eq!(long.bounds(0, 0).expect("it works"), (first, 40), "{start}");
        for from in first..=40 {
            let expected: Vec<u64> = (from..40).collect();
            assert_eq!(read_from(&mut long, from), expected, "{start} {from}");
            let expected: Vec<u64> = (from..(from + 5).min(40)).collect();
            assert_eq!(read_until(&mut long, from, from + 5), expected, "{start} {from}");
        }
        for minutes in (-60..700).step_by(7) {
            let time_ms = NOON_MS + minutes * MINUTE_MS;
            let found = long.first_at(0, 0, time_ms).expect("it works");
            let times = log.log.lock().expect("nobody panics").times_ms.clone();
            let before = &times[first as usize..(found.max(first) as usize)];
            assert!(before.iter().all(|ms| *ms < time_ms), "{start} {minutes} {found}");
        }
    }
    // It is of use: what is late is not looked for in the first files.
    log.trim(35);
    let late = archived(&memory, Some(&log)).first_at(0, 0, NOON_MS + 8 * HOUR_MS);
    assert!(late.expect("it works") > 20);
}

#[test]
fn a_copy_that_lacks_a_file_says_so() {
    let (memory, log) = copied();
    let files = archive(&memory).files(&of("a")).expect("memory works");
    assert!(files.len() > 4, "{}", files.len());
    memory.delete(&files[2].path).expect("memory works");
    log.trim(40);
    let mut alone = archived(&memory, None);
    alone.seek(0, 0, 0).expect("it begins there");
    let limit = Limit { before: u64::MAX, records: 100, bytes: 1 << 20 };
    let error = loop {
        match alone.read(limit, &mut |_| ()) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is read to its end"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains(&format!("offsets {} to {}", files[2].from, files[3].from)), "{error}");
    // The first ones may go: that is how a bucket forgets.
    for file in &files[..2] {
        memory.delete(&file.path).expect("memory works");
    }
    let mut alone = archived(&memory, None);
    let (start, end) = alone.bounds(0, 0).expect("memory works");
    assert_eq!(start, files[3].from);
    assert_eq!(read_from(&mut alone, start), (start..end).collect::<Vec<_>>());
}
