//! An owner's share of the embedded log: some lanes, given once and for ever.

use super::{EmbeddedLog, RecordBatch};
use crate::{
    AssignedLane, Change, Commit, Limit, Record, STRETCH, STRETCH_BYTES, Source, SourceError,
};
use smallvec::SmallVec;
use std::time::Duration;

/// One owner's share of an [`EmbeddedLog`].
pub struct EmbeddedSource {
    log: EmbeddedLog,
    topics: usize,
    lanes: Vec<u32>,
    is_given: bool,
    /// Where each topic of each lane has been read to.
    positions: Vec<Vec<u64>>,
    /// The log's counter of appends when somebody last looked for data.
    seen: u64,
    buffer: RecordBatch,
}

impl EmbeddedSource {
    /// Deals the lanes of a log out to a number of owners, one at most for each lane.
    pub fn shares(log: &EmbeddedLog, topics: usize, owners: usize) -> Vec<EmbeddedSource> {
        let owners = owners.clamp(1, log.lanes() as usize);
        let share = |owner: usize| EmbeddedSource {
            log: log.clone(),
            topics,
            lanes: (0..log.lanes()).filter(|lane| *lane as usize % owners == owner).collect(),
            is_given: false,
            positions: vec![Vec::new(); log.lanes() as usize],
            seen: 0,
            buffer: RecordBatch::new(),
        };
        (0..owners).map(share).collect()
    }
}

impl Source for EmbeddedSource {
    fn change(&mut self) -> Result<Change, SourceError> {
        if std::mem::replace(&mut self.is_given, true) {
            return Ok(Change::None);
        }
        let log = &self.log;
        let lane = |lane: &u32| AssignedLane {
            lane: *lane,
            start_offsets: (0..self.topics).map(|topic| log.start_offset(topic, *lane)).collect(),
            end_offsets: (0..self.topics).map(|topic| log.end_offset(topic, *lane)).collect(),
            notes: Vec::new(),
        };
        Ok(Change::Assigned(self.lanes.iter().map(lane).collect()))
    }

    fn is_revoked(&mut self) -> bool {
        false
    }

    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError> {
        from.iter().try_for_each(|(lane, offsets)| self.seek(*lane, offsets))
    }

    fn seek(&mut self, lane: u32, from: &[u64]) -> Result<(), SourceError> {
        self.positions[lane as usize] = from.to_vec();
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn read(
        &mut self,
        topic: usize,
        lane: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        let from = self.positions[lane as usize][topic];
        let end = self.log.end_offset(topic, lane).min(limit.before);
        if from >= end {
            return Ok(from);
        }
        let records = limit.records.min((end - from) as usize);
        self.buffer.clear();
        self.log.read(topic, lane, from, records, limit.bytes, &mut self.buffer)?;
        lend(&self.buffer, each);
        let next = self.buffer.last().map_or(from, |record| record.offset + 1);
        self.positions[lane as usize][topic] = next;
        Ok(next)
    }

    fn has_data(&self, topic: usize, lane: u32) -> bool {
        self.positions[lane as usize][topic] < self.log.end_offset(topic, lane)
    }

    fn is_idle(&self, topic: usize, lane: u32) -> bool {
        !self.has_data(topic, lane)
    }

    fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        self.log.end_offset(topic, lane)
    }

    /// The store knows how far results are durable, and nobody else asks.
    fn commit(&mut self, _: &[Commit<'_>]) -> Result<u64, SourceError> {
        Ok(0)
    }

    fn confirmed(&self) -> u64 {
        0
    }

    fn flush_commits(&mut self) {}

    fn wait(&mut self, timeout: Duration) {
        self.seen = self.log.wait_for_data(self.seen, timeout);
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn ends_with_process(&self) -> bool {
        true
    }
}

/// Gives out records that were read, a few at a time.
pub(super) fn lend(buffer: &RecordBatch, each: &mut dyn FnMut(&[Record<'_>])) {
    let records = buffer.iter().map(|record| Record {
        offset: record.offset,
        record_time_ms: Some(record.record_time_ms),
        key: record.key,
        payload: Some(record.payload),
        headers: &[],
    });
    let mut stretch = SmallVec::<[Record<'_>; STRETCH]>::new();
    let mut bytes = 0;
    for record in records {
        let len = record.payload.map_or(0, <[u8]>::len);
        if stretch.len() == STRETCH || (!stretch.is_empty() && bytes + len > STRETCH_BYTES) {
            each(&stretch);
            stretch.clear();
            bytes = 0;
        }
        bytes += len;
        stretch.push(record);
    }
    if !stretch.is_empty() {
        each(&stretch);
    }
}
