//! Where records come from. In the order of the data: [`files`] that end and logs that do not (one
//! folder each, behind the small trait [`Source`]), and the decoding of their records, [`json`].

pub mod embedded;
pub mod files;
pub mod json;

use embedded::{EmbeddedLog, LogError, RecordBatch};
use std::time::Duration;

/// A log of topics, each of which has the same number of lanes.
pub trait Source: Send + Sync {
    /// Adds to `into` records of a lane from an offset on, up to the given numbers.
    fn read(
        &self,
        topic: usize,
        lane: u32,
        from_offset: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut RecordBatch,
    ) -> Result<(), LogError>;

    /// The first offset that is still there.
    fn start_offset(&self, topic: usize, lane: u32) -> u64;

    /// The offset that the next record will get.
    fn end_offset(&self, topic: usize, lane: u32) -> u64;

    /// Sleeps until something was appended since the counter stood at `seen`, or until the time is
    /// over, and returns the counter.
    fn wait_for_data(&self, seen: u64, timeout: Duration) -> u64;
}

impl Source for EmbeddedLog {
    fn read(
        &self,
        topic: usize,
        lane: u32,
        from_offset: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut RecordBatch,
    ) -> Result<(), LogError> {
        EmbeddedLog::read(self, topic, lane, from_offset, max_records, max_bytes, into)
    }

    fn start_offset(&self, topic: usize, lane: u32) -> u64 {
        EmbeddedLog::start_offset(self, topic, lane)
    }

    fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        EmbeddedLog::end_offset(self, topic, lane)
    }

    fn wait_for_data(&self, seen: u64, timeout: Duration) -> u64 {
        EmbeddedLog::wait_for_data(self, seen, timeout)
    }
}
