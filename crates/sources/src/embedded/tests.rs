//! Tests of the embedded log, against real files.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod commits;
mod crash;
mod damage;
mod disk;
mod round_trip;

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{EmbeddedLog, LogError, NewRecord, Position, RecordBatch, TUNING, Tuning};

/// Segments of a few records each.
const SMALL: Tuning = Tuning { segment_bytes: 256, group_bytes: 2_000, open_files: 3 };

fn topics() -> Vec<String> {
    vec!["impressions".to_owned(), "plays".to_owned()]
}

fn open(path: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open_tuned(path, &topics(), 2, TUNING)
}

fn open_small(path: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open_tuned(path, &topics(), 2, SMALL)
}

/// Appends one record to topic 0, lane 0.
fn append(log: &EmbeddedLog, payload: &[u8]) -> Result<Position, LogError> {
    let record = NewRecord { topic: 0, lane: 0, record_time_ms: 7, key: Some(b"key"), payload };
    log.append(&[record]).map(|positions| positions[0])
}

/// All payloads of a lane, read in small steps; offsets must have no gap.
fn payloads(log: &EmbeddedLog, topic: usize, lane: u32) -> Result<Vec<Vec<u8>>, LogError> {
    let (mut found, mut batch) = (Vec::new(), RecordBatch::new());
    while found.len() < log.end_offset(topic, lane) as usize {
        batch.clear();
        log.read(topic, lane, found.len() as u64, 7, 1 << 20, &mut batch)?;
        assert!(!batch.is_empty(), "a read before the end must find something");
        for record in batch.iter() {
            assert_eq!(record.offset, found.len() as u64);
            found.push(record.payload.to_vec());
        }
    }
    Ok(found)
}

/// The segment files of topic 0, lane 0, in order.
fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("impressions/0")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A log with one segment of `count` records "record 0", "record 1", ...; returns where in the
/// file each frame begins, and where the last one ends.
fn numbered(path: &Path, count: usize) -> (PathBuf, Vec<usize>) {
    let log = open(path).unwrap();
    let file = segments(path).remove(0);
    let mut ends = vec![fs::metadata(&file).unwrap().len() as usize];
    for number in 0..count {
        append(&log, format!("record {number}").as_bytes()).unwrap();
        ends.push(fs::metadata(&file).unwrap().len() as usize);
    }
    (file, ends)
}

fn is_corrupt(result: Result<EmbeddedLog, LogError>) -> bool {
    matches!(result, Err(LogError::Corrupt { .. }))
}
