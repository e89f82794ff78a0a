//! One partition: its queue, and how far it has been read.
//!
//! Offsets of a partition have holes: markers of transactions, aborted records. So a reader's
//! *position* is not the last offset plus one but the offset before which no record is left to
//! read; it also moves at the end of a partition, where librdkafka says up to where it has looked.

use super::ffi::{Code, Messages, Queue};
use crate::{Limit, Record, STRETCH, STRETCH_BYTES};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Messages taken from the queue at a time.
const TAKE: usize = 4096;

/// Headers of a record, by name.
type Headers<'m> = Vec<(Cow<'m, str>, Cow<'m, str>)>;

/// Why reading stopped for good.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// What should be read next is not there: trimmed, or the log is another one.
    OutOfRange,
    /// Something that no further reading will mend.
    Failed(String),
}

pub(super) struct PartitionReader {
    /// Before the queue, so that its messages are dropped first.
    messages: Messages,
    queue: Queue,
    /// No record before it is left to read.
    position: u64,
    /// No record lies in `position..nothing_before`.
    nothing_before: u64,
    /// The end of the partition when it was assigned: nothing is fetched before it is known.
    first_end: u64,
    /// Whether the end of the partition was reached at `nothing_before`.
    at_end: bool,
    with_headers: bool,
}

impl PartitionReader {
    pub(super) fn new(queue: Queue, position: u64, first_end: u64, with_headers: bool) -> Self {
        PartitionReader {
            messages: Messages::default(),
            queue,
            position,
            nothing_before: position,
            first_end,
            at_end: false,
            with_headers,
        }
    }

    /// Starts again from another position, after the client was told to fetch from there.
    pub(super) fn jump(&mut self, position: u64) {
        self.messages.clear();
        (self.position, self.nothing_before, self.at_end) = (position, position, false);
    }

    /// Drops all that waits.
    pub(super) fn discard(&mut self) {
        loop {
            self.queue.take(TAKE, &mut self.messages);
            if self.messages.len() == 0 {
                return;
            }
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Records and events that wait.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.messages.len() + self.queue.len()
    }

    /// Whether a read would find something at once.
    pub(super) fn has_data(&self) -> bool {
        self.messages.len() > 0 || self.queue.len() > 0
    }

    /// Whether everything was read, and the broker has said so.
    pub(super) fn is_idle(&self) -> bool {
        self.at_end && !self.has_data()
    }

    /// The end of the partition as it is known now: the position where everything was read,
    /// otherwise what the last fetch said.
    pub(super) fn end(&self, known: Option<u64>) -> u64 {
        if self.at_end && !self.has_data() {
            return self.nothing_before.max(self.position);
        }
        known.unwrap_or(self.first_end).max(self.nothing_before).max(self.position)
    }

    /// Gives out records that are there, within the limit, and returns the new position.
    pub(super) fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, Stop> {
        let (mut left, mut is_first) = (limit, true);
        loop {
            if self.messages.len() == 0 {
                self.queue.take(TAKE, &mut self.messages);
            }
            let Some(message) = self.messages.first() else { break };
            if let Some(code) = message.error() {
                let (offset, text) = (message.offset(), message.error_text());
                self.messages.pop(1);
                self.event(code, offset, &text)?;
                continue;
            }
            let offset = message.offset();
            self.at_end = false;
            if offset < self.position {
                // After a change of leader librdkafka may begin to fetch a little earlier. It adds
                // nothing, but would be counted as read twice (invariant HONEST).
                self.messages.pop(1);
                continue;
            }
            if offset >= limit.before {
                self.nothing_before = self.nothing_before.max(offset);
                break;
            }
            let (records, bytes) = self.fitting(left, std::mem::take(&mut is_first));
            if records == 0 {
                break;
            }
            self.position = self.lend(records, each);
            left.records = left.records.saturating_sub(records);
            left.bytes = left.bytes.saturating_sub(bytes);
        }
        self.nothing_before = self.nothing_before.max(self.position);
        self.position = self.nothing_before.min(limit.before).max(self.position);
        Ok(self.position)
    }

    /// How many messages from the first one on, which is a record that is due, are a stretch of
    /// records within the limit, and their bytes. The first record of all is, whatever its size.
    fn fitting(&self, limit: Limit, is_first: bool) -> (usize, usize) {
        let (mut records, mut bytes, mut next) = (0, 0, self.position);
        for message in self.messages.iter().take(STRETCH) {
            let offset = message.offset();
            if message.error().is_some() || offset < next || offset >= limit.before {
                break;
            }
            let len = message.payload().map_or(0, <[u8]>::len);
            let is_within = records < limit.records && bytes + len <= limit.bytes;
            let is_allowed = is_within || (is_first && records == 0);
            if !is_allowed || (records > 0 && bytes + len > STRETCH_BYTES) {
                break;
            }
            (records, bytes, next) = (records + 1, bytes + len, offset + 1);
        }
        (records, bytes)
    }

    /// Gives out the first messages, lets them go and returns the offset after them.
    fn lend(&mut self, count: usize, each: &mut dyn FnMut(&[Record<'_>])) -> u64 {
        self.messages.prefetch(count, count);
        let mut headers: Vec<Headers<'_>> = Vec::new();
        if self.with_headers {
            headers.extend(self.messages.iter().take(count).map(|message| message.headers()));
        }
        let mut stretch = SmallVec::<[Record<'_>; STRETCH]>::new();
        for (number, message) in self.messages.iter().take(count).enumerate() {
            stretch.push(message.record(headers.get(number).map_or(&[], Vec::as_slice)));
        }
        each(&stretch);
        let next = stretch.last().map_or(self.position, |record| record.offset + 1);
        drop(stretch);
        drop(headers);
        self.messages.pop(count);
        next
    }

    /// What the partition says between its records.
    fn event(&mut self, code: Code, offset: u64, text: &str) -> Result<(), Stop> {
        match code {
            Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                self.nothing_before = self.nothing_before.max(offset);
                self.at_end = true;
                Ok(())
            }
            Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => Err(Stop::OutOfRange),
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
            | Code::RD_KAFKA_RESP_ERR__FATAL => Err(Stop::Failed(text.to_owned())),
            // librdkafka tries again by itself: a leader that moves, a broker that restarts, a
            // message larger than a fetch (the next one is larger).
            other => {
                self.at_end = false;
                tracing::warn!("Kafka: {text} ({other:?}); trying on");
                Ok(())
            }
        }
    }
}
