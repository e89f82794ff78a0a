//! The embedded log, read once more by the process that has it open.

use super::source::lend;
use super::{EmbeddedLog, RecordBatch};
use crate::{Limit, Record, Replay, SourceError};

/// Reads an [`EmbeddedLog`] beside its owners, who do not notice.
pub struct EmbeddedReplay {
    log: EmbeddedLog,
    topic: usize,
    lane: u32,
    position: u64,
    /// Where it ended when it was gone to.
    end: u64,
    buffer: RecordBatch,
}

impl EmbeddedReplay {
    /// A reader of its own.
    pub fn new(log: &EmbeddedLog) -> EmbeddedReplay {
        let (log, buffer) = (log.clone(), RecordBatch::new());
        EmbeddedReplay { log, topic: 0, lane: 0, position: 0, end: 0, buffer }
    }
}

impl Replay for EmbeddedReplay {
    fn bounds(&mut self, topic: usize, lane: u32) -> Result<(u64, u64), SourceError> {
        Ok((self.log.start_offset(topic, lane), self.log.end_offset(topic, lane)))
    }

    /// It has no index of times.
    fn first_at(&mut self, topic: usize, lane: u32, _: i64) -> Result<u64, SourceError> {
        Ok(self.log.start_offset(topic, lane))
    }

    fn seek(&mut self, topic: usize, lane: u32, offset: u64) -> Result<(), SourceError> {
        (self.topic, self.lane, self.position) = (topic, lane, offset);
        self.end = self.log.end_offset(topic, lane);
        Ok(())
    }

    fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError> {
        let end = self.end.min(limit.before);
        if self.position >= end {
            return Ok(None);
        }
        let records = limit.records.min((end - self.position) as usize);
        self.buffer.clear();
        let (topic, lane) = (self.topic, self.lane);
        self.log.read(topic, lane, self.position, records, limit.bytes, &mut self.buffer)?;
        lend(&self.buffer, each);
        self.position = self.buffer.last().map_or(end, |record| record.offset + 1);
        Ok(Some(self.position))
    }
}
