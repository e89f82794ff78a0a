//! The first half, from a log that is read once more: records become events, as lanes read them,
//! and the log says of which events it still has all.
//!
//! What a lane would refuse is refused here, too: a record without a value, a request that belongs
//! to another lane, an event too far ahead of its record.

use super::in_threads;
use super::intake::Intake;
use super::recompute::RecomputeError;
use crate::lanes::gaps::{FirstRecords, latest_event_ms};
use crate::plan::{Plan, StreamPlan};
use marquee_expr::Value;
use marquee_model::lane_of;
use marquee_pipeline::prepare::{DeadReason, RECORD_TIME, REQUEST_ID, TIME};
use marquee_sources::{Limit, Record, Replay};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Records read before somebody may say stop.
const TURN: Limit = Limit { before: u64::MAX, records: 4096, bytes: 4 << 20 };

/// A log, to be read once more.
pub struct LogEvents {
    /// A reader for each thread.
    pub readers: Vec<Box<dyn Replay>>,
    /// Whether a request may stand in another lane than its own: then it is no event.
    pub checks_partitions: bool,
    /// For each lane and topic the offset up to which its results are durable: a log that ends
    /// before it is another one.
    pub committed: Vec<Vec<u64>>,
    /// The time of this machine.
    pub now_ms: i64,
    /// Whether it may end before what was committed: a copy that is made behind the lanes. Then it
    /// has not everything, and nothing is held against a store.
    pub may_end_early: bool,
}

/// What a log has of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// For each topic the first offset that is there.
    pub start_offsets: Vec<u64>,
    /// For each topic the offset before which everything that is there was read.
    pub read_to: Vec<u64>,
    /// All events at or after this time are there; of earlier ones some may have been deleted.
    pub whole_from_ms: i64,
}

/// One thread's work.
pub(crate) struct LogReader<'a, I> {
    pub(crate) plan: &'a Plan,
    pub(crate) intake: I,
    pub(crate) checks_partitions: bool,
    pub(crate) now_ms: i64,
    /// No event that is wanted has a record that was stamped earlier.
    pub(crate) earliest_record_ms: i64,
    /// For each topic an offset: every record from there on is wanted, whenever it was stamped.
    pub(crate) from_offsets: Vec<u64>,
    pub(crate) stop: &'a (dyn Fn() -> bool + Sync),
    /// Records that all threads have read.
    pub(crate) records: &'a AtomicU64,
    pub(crate) progress: &'a (dyn Fn(u64) + Sync),
    pub(crate) buffer: Vec<u8>,
    /// As [`LogEvents::may_end_early`].
    pub(crate) may_end_early: bool,
}

/// How a whole log is read.
pub(super) struct Reading<'a> {
    pub(super) plan: &'a Plan,
    pub(super) earliest_record_ms: i64,
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

impl Reading<'_> {
    /// Reads so many lanes of a log, in a thread for each of its readers, and says what it has of
    /// each. `intake` is called once in each thread.
    pub(super) fn all<I: Intake + Send>(
        &self,
        log: LogEvents,
        lanes: u32,
        intake: impl Fn() -> I + Sync,
    ) -> Result<(Vec<I>, Vec<LogPart>), RecomputeError> {
        let LogEvents { readers, checks_partitions, committed, now_ms, may_end_early } = log;
        let (next, records) = (AtomicU32::new(0), AtomicU64::new(0));
        let found: Mutex<Vec<Option<LogPart>>> = Mutex::new(vec![None; lanes as usize]);
        let readers: Vec<Mutex<Box<dyn Replay>>> = readers.into_iter().map(Mutex::new).collect();
        let parts = in_threads(readers.len(), |thread| {
            let mut log = readers[thread].lock().unwrap_or_else(|e| e.into_inner());
            let mut reader = LogReader {
                plan: self.plan,
                intake: intake(),
                checks_partitions,
                now_ms,
                earliest_record_ms: self.earliest_record_ms,
                from_offsets: Vec::new(),
                stop: self.stop,
                records: &records,
                progress: self.progress,
                buffer: Vec::new(),
                may_end_early,
            };
            loop {
                let lane = next.fetch_add(1, Ordering::Relaxed);
                if lane >= lanes {
                    break;
                }
                let committed = committed.get(lane as usize).map_or(&[][..], Vec::as_slice);
                let part = reader.lane(&mut **log, lane, committed)?;
                found.lock().unwrap_or_else(|e| e.into_inner())[lane as usize] = Some(part);
            }
            reader.intake.finish().map_err(RecomputeError::Spill)?;
            Ok::<_, RecomputeError>(reader.intake)
        });
        let found = found.into_inner().unwrap_or_else(|e| e.into_inner());
        let intakes = parts.into_iter().collect::<Result<_, _>>()?;
        Ok((intakes, found.into_iter().flatten().collect()))
    }
}

impl<I: Intake> LogReader<'_, I> {
    /// Reads all that is needed of one lane.
    pub(crate) fn lane(
        &mut self,
        log: &mut dyn Replay,
        lane: u32,
        committed: &[u64],
    ) -> Result<LogPart, RecomputeError> {
        let (start_offsets, read_to) = (Vec::new(), Vec::new());
        let mut part = LogPart { start_offsets, read_to, whole_from_ms: i64::MIN };
        for (topic, name) in self.plan.topics().iter().enumerate() {
            let (start, end) = log.bounds(topic, lane)?;
            let is_short = committed.get(topic).is_some_and(|committed| *committed > end);
            if is_short && !self.may_end_early {
                let (topic, committed) = (name.clone(), committed[topic]);
                return Err(RecomputeError::OtherLog { topic, lane, committed, end });
            }
            let whole_from_ms = self.topic(log, (topic, name), lane, start)?;
            let whole_from_ms = if is_short { i64::MAX } else { whole_from_ms };
            part.whole_from_ms = part.whole_from_ms.max(whole_from_ms);
            part.start_offsets.push(start);
            part.read_to.push(end);
        }
        Ok(part)
    }

    /// Reads one topic, and says from which event time on all its events are there.
    fn topic(
        &mut self,
        log: &mut dyn Replay,
        (topic, name): (usize, &str),
        lane: u32,
        start: u64,
    ) -> Result<i64, RecomputeError> {
        let plan = self.plan;
        let from = self.from_offsets.get(topic).copied().unwrap_or(u64::MAX);
        let first = log.first_at(topic, lane, self.earliest_record_ms)?;
        // So many records that are older say that what was deleted before them is older, too.
        let is_older = first >= start.saturating_add(FirstRecords::ENOUGH as u64);
        log.seek(topic, lane, if is_older { first.min(from).max(start) } else { start })?;
        let streams = plan.streams_of(name);
        let (mut first_records, now_ms) = (FirstRecords::default(), self.now_ms);
        loop {
            if (self.stop)() {
                return Err(RecomputeError::Stopped);
            }
            if let Some(error) = self.intake.failed() {
                return Err(RecomputeError::Spill(error));
            }
            let read = log.read(TURN, &mut |records| {
                for record in records {
                    first_records.note(|| record.record_time_ms.unwrap_or(now_ms));
                }
                self.stretch(&streams, (topic, lane), from, records);
            });
            if read.map_err(RecomputeError::while_reading)?.is_none() {
                break;
            }
        }
        if start == 0 {
            return Ok(i64::MIN);
        }
        let first_ms = match is_older {
            true => self.earliest_record_ms,
            false => first_records.latest_ms(now_ms),
        };
        Ok(latest_event_ms(first_ms, plan.settings.lateness_ms, plan.max_ahead_ms) + 1)
    }

    /// Takes the events of records that were read together.
    fn stretch(
        &mut self,
        streams: &[&StreamPlan],
        (topic, lane): (usize, u32),
        from: u64,
        records: &[Record<'_>],
    ) {
        let more = records.len() as u64;
        let read = self.records.fetch_add(more, Ordering::Relaxed) + more;
        if read >> 16 != (read - more) >> 16 {
            (self.progress)(read);
        }
        let earliest_ms = self.earliest_record_ms;
        let is_wanted = |record: &Record<'_>| {
            record.offset >= from
                || record.record_time_ms.is_none_or(|time_ms| time_ms >= earliest_ms)
        };
        let class = |record: &Record<'_>| (is_wanted(record), record.payload.is_some());
        for records in records.chunk_by(|a, b| class(a) == class(b)) {
            match class(&records[0]) {
                (false, _) => {}
                (true, false) => {
                    self.intake.summary().events += records.len() as u64;
                    self.intake.summary().dead += records.len() as u64;
                }
                (true, true) => {
                    streams.iter().for_each(|stream| self.events(stream, topic, lane, records));
                }
            }
        }
    }

    fn events(&mut self, stream: &StreamPlan, topic: usize, lane: u32, records: &[Record<'_>]) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let plan = self.plan;
        let payloads = records
            .iter()
            .map(|record| (record.payload.unwrap_or_default(), plan.meta_of(lane, record)));
        stream.decoder.decode_all(payloads, &mut buffer, |number, event| {
            self.intake.at(topic, lane, records[number].offset);
            let event = event.map(|values| values.as_slice());
            let event = event.and_then(|values| match self.refusal(lane, values) {
                Some(reason) => Err(reason),
                None => Ok(values),
            });
            if self.intake.take(stream, None, event).is_err() {
                self.intake.summary().dead += 1;
            }
        });
        self.buffer = buffer;
    }

    /// Why a lane would take an event for a dead letter, as far as its record says so.
    fn refusal(&self, lane: u32, values: &[Value<'_>]) -> Option<DeadReason> {
        if self.checks_partitions
            && let Value::String(request_id) = &values[REQUEST_ID]
            && lane_of(self.plan.partitioner, request_id.as_bytes(), self.plan.lanes) != lane
        {
            return Some(DeadReason::Malformed("it belongs to another lane".to_owned()));
        }
        let (Value::Int(time_ms), Value::Int(record_ms)) = (&values[TIME], &values[RECORD_TIME])
        else {
            return None;
        };
        let (ahead_ms, max_ahead_ms) = (time_ms - record_ms, self.plan.max_ahead_ms);
        (ahead_ms > max_ahead_ms).then_some(DeadReason::TooFarAhead { ahead_ms, max_ahead_ms })
    }
}
