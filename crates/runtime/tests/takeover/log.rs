//! A log in memory with one lane, what a group knows of it, and a source that follows a script.

use crate::history::{End, Event, Run};
use marquee_sources::embedded::LogError;
use marquee_sources::{AssignedLane, Change, Commit, Limit, Record, Source, SourceError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a death is told from a failure.
pub(crate) const DEATH: &str = "the script says that the process dies here";

pub(crate) struct Log {
    records: [Vec<(String, Vec<u8>, i64)>; 2],
    /// The first offset of each topic that is still there.
    pub(crate) start: [u64; 2],
    /// Offsets and note of the group's last commit.
    pub(crate) commit: Option<(Vec<u64>, String)>,
}

impl Log {
    pub(crate) fn new(topics: &[Vec<Event>; 2]) -> Log {
        let record = |event: &Event| (event.request_id(), event.payload(), event.time_ms);
        let records = [0, 1].map(|topic: usize| topics[topic].iter().map(record).collect());
        Log { records, start: [0, 0], commit: None }
    }

    /// Retention deletes the first records of each topic.
    pub(crate) fn trim(&mut self, before: [u64; 2], topics: &[Vec<Event>; 2]) {
        for topic in 0..2 {
            let end = topics[topic].len() as u64;
            self.start[topic] = self.start[topic].max(before[topic]).min(end);
        }
    }
}

pub(crate) struct ScriptedSource {
    log: Arc<Mutex<Log>>,
    run: Run,
    is_given: bool,
    /// Whether the owner was asked to give the lane up.
    is_asked: bool,
    is_released: Arc<AtomicBool>,
    positions: [u64; 2],
    /// Calls of `commit` so far.
    commits: usize,
    /// The last of them that the group has taken, counted from 1.
    confirmed: u64,
    /// Records read so far.
    reads: usize,
    done: Arc<AtomicBool>,
}

impl ScriptedSource {
    pub(crate) fn new(log: Arc<Mutex<Log>>, run: Run, done: Arc<AtomicBool>) -> Self {
        let (positions, commits, reads) = ([0, 0], 0, 0);
        let (is_given, is_asked, confirmed) = (false, false, 0);
        ScriptedSource {
            log,
            run,
            is_given,
            is_asked,
            is_released: Arc::default(),
            positions,
            commits,
            confirmed,
            reads,
            done,
        }
    }

    /// Becomes true when nothing more happens.
    pub(crate) fn done(&self) -> Arc<AtomicBool> {
        self.done.clone()
    }

    /// Becomes true when the owner has given the lane up.
    pub(crate) fn released(&self) -> Arc<AtomicBool> {
        self.is_released.clone()
    }

    /// Up to where this process sees the topic.
    fn visible(&self, topic: usize) -> u64 {
        let log = self.log.lock().unwrap();
        let end = log.records[topic].len() as u64;
        self.run.sees[topic].min(end).max(log.start[topic])
    }

    fn death() -> SourceError {
        SourceError::Embedded(LogError::Unusable(DEATH.to_owned()))
    }
}

impl Source for ScriptedSource {
    fn change(&mut self) -> Result<Change, SourceError> {
        if std::mem::replace(&mut self.is_given, true) {
            let is_revoked = self.is_revoked() && !std::mem::replace(&mut self.is_asked, true);
            return Ok(if is_revoked { Change::Revoked } else { Change::None });
        }
        let log = self.log.lock().unwrap();
        let notes = log.commit.iter().flat_map(|(_, note)| [note.clone(), note.clone()]);
        Ok(Change::Assigned(vec![AssignedLane {
            lane: 0,
            start_offsets: log.start.to_vec(),
            end_offsets: log.records.iter().map(|topic| topic.len() as u64).collect(),
            notes: notes.collect(),
        }]))
    }

    fn is_revoked(&mut self) -> bool {
        matches!(self.run.end, End::IsRevoked(after) if self.reads >= after)
    }

    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError> {
        self.seek(0, &from[0].1)
    }

    fn seek(&mut self, _: u32, from: &[u64]) -> Result<(), SourceError> {
        self.positions = [from[0], from[1]];
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        self.is_released.store(true, Ordering::SeqCst);
        self.done.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn read(
        &mut self,
        topic: usize,
        _: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        // What was committed is there to be read again, whatever the script lets this one see.
        let end = match limit.before {
            u64::MAX => self.visible(topic),
            before => before,
        };
        let log = self.log.lock().unwrap();
        let mut left = self.run.chunk.min(limit.records);
        while self.positions[topic] < end && left > 0 {
            if self.run.end == End::DiesReading(self.reads) {
                return Err(Self::death());
            }
            let offset = self.positions[topic];
            let (key, payload, time_ms) = &log.records[topic][offset as usize];
            each(&[Record {
                offset,
                record_time_ms: Some(*time_ms),
                key: Some(key.as_bytes()),
                payload: Some(payload),
                headers: &[],
            }]);
            (self.positions[topic], self.reads, left) = (offset + 1, self.reads + 1, left - 1);
        }
        Ok(self.positions[topic])
    }

    fn has_data(&self, topic: usize, _: u32) -> bool {
        self.positions[topic] < self.visible(topic)
    }

    fn is_idle(&self, topic: usize, lane: u32) -> bool {
        !self.has_data(topic, lane)
    }

    fn end_offset(&self, topic: usize, _: u32) -> u64 {
        self.visible(topic).max(self.positions[topic])
    }

    fn commit(&mut self, commits: &[Commit<'_>]) -> Result<u64, SourceError> {
        for commit in commits {
            match self.run.end {
                End::DiesCommitting(at) if at == self.commits => return Err(Self::death()),
                // The store is ahead of what the group knows, now and ever more.
                End::LosesCommits(from) if self.commits >= from => {}
                _ => {
                    let mut log = self.log.lock().unwrap();
                    log.commit = Some((commit.next_offsets.to_vec(), commit.note.clone()));
                    self.confirmed = self.commits as u64 + 1;
                }
            }
            self.commits += 1;
        }
        Ok(self.commits as u64)
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn flush_commits(&mut self) {}

    fn wait(&mut self, _: Duration) {
        // One that is to be revoked waits for that, if it comes.
        if !self.is_revoked() || self.is_asked {
            self.done.store(true, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_micros(100));
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn ends_with_process(&self) -> bool {
        false
    }
}
