//! One lane: reads its topics in step, feeds the pipeline, and writes what comes out.

use super::letters::{Letters, Place};
use super::{LaneError, LanesSettings};
use crate::plan::Plan;
use crate::status::LaneStatus;
use marquee_expr::Value;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::lane::{LaneSettings, Verdict};
use marquee_pipeline::prepare::{DeadReason, TIME};
use marquee_sinks::{LaneCommit, LaneState};
use marquee_sources::Source;
use marquee_sources::embedded::{RecordBatch, RecordRef};
use marquee_sources::json::RecordMeta;
use std::sync::Arc;
use std::time::Duration;

/// Records read at a time from one topic; then the topic that is behind has its turn.
const TURN_RECORDS: usize = 4096;
const TURN_BYTES: usize = 4 << 20;
/// Bytes of records in a batch, about: large records make batches of fewer.
const BATCH_BYTES: usize = 64 << 20;

/// The owner's side of a lane.
pub struct LaneOwner {
    pub(super) lane: u32,
    pub(super) plan: Arc<Plan>,
    /// Names of the topics, in the order of their indices.
    pub(super) topics: Vec<String>,
    /// `topic/lane` of each topic, for letters.
    sources: Vec<String>,
    pub(super) pipeline: LanePipeline,
    /// Where the lane is: durable up to the last commit, the rest is being worked on.
    pub(super) state: LaneState,
    letters: Letters,
    batch_events: usize,
    clock: fn() -> i64,
    buffer: RecordBatch,
    /// Whether the state differs from what the store holds.
    pub(super) changed: bool,
    batch_records: u64,
    batch_bytes: usize,
    pub(super) replayed_records: u64,
    progress: LaneStatus,
}

impl LaneOwner {
    /// A lane whose pipeline stands at `state`, whole or to be rebuilt.
    pub(super) fn new(
        lane: u32,
        settings: &LanesSettings,
        pipeline: LanePipeline,
        state: LaneState,
    ) -> Result<Self, LaneError> {
        let topics = settings.plan.topics();
        Ok(LaneOwner {
            lane,
            sources: topics.iter().map(|topic| format!("{topic}/{lane}")).collect(),
            topics,
            plan: settings.plan.clone(),
            pipeline,
            letters: Letters::open(&settings.letters, lane, &state)?,
            state,
            batch_events: settings.batch_events,
            clock: settings.clock,
            buffer: RecordBatch::new(),
            changed: false,
            batch_records: 0,
            batch_bytes: 0,
            replayed_records: 0,
            progress: LaneStatus::default(),
        })
    }

    /// The settings of this lane's pipeline.
    pub(super) fn pipeline_settings(settings: &LanesSettings) -> LaneSettings {
        LaneSettings {
            settings: settings.plan.settings.clone(),
            max_ahead_ms: Some(settings.plan.max_ahead_ms),
            secret: settings.secret,
            topics: settings.plan.topics().len(),
        }
    }

    /// Reads and applies one batch; tells whether there may be more to read at once. Topics that have nothing
    /// more to read say so to the watermark.
    pub(super) fn read(&mut self, log: &dyn Source) -> Result<bool, LaneError> {
        let mut records = 0;
        self.batch_bytes = 0;
        while records < self.batch_events && self.batch_bytes < BATCH_BYTES {
            let ends = self.ends(log);
            let at = self.state.next_offsets.clone();
            let Some(topic) = self.topic_behind(&at, &ends) else { break };
            records += self.turn(log, topic, at[topic], ends[topic])?;
        }
        for topic in 0..self.topics.len() {
            if self.state.next_offsets[topic] == log.end_offset(topic, self.lane) {
                self.pipeline.nothing_to_read(topic, (self.clock)());
            }
        }
        self.batch_records = records as u64;
        Ok(records >= self.batch_events || self.batch_bytes >= BATCH_BYTES)
    }

    /// The topic that has records and is behind in event time: the one that is ahead waits, so
    /// that on catch-up the state holds no more than the windows need.
    pub(super) fn topic_behind(&self, at: &[u64], ends: &[u64]) -> Option<usize> {
        (0..ends.len())
            .filter(|topic| at[*topic] < ends[*topic])
            .min_by_key(|topic| self.pipeline.progress_ms(*topic))
    }

    /// Reads and applies some records of one topic, and moves the lane's offset.
    fn turn(
        &mut self,
        log: &dyn Source,
        topic: usize,
        from: u64,
        end: u64,
    ) -> Result<usize, LaneError> {
        let next = self.apply_from(log, topic, from, end)?;
        self.state.next_offsets[topic] = next;
        self.changed = true;
        Ok((next - from) as usize)
    }

    /// Reads and applies records from an offset on, before `end`. Returns the next offset.
    pub(super) fn apply_from(
        &mut self,
        log: &dyn Source,
        topic: usize,
        from: u64,
        end: u64,
    ) -> Result<u64, LaneError> {
        let records = TURN_RECORDS.min((end - from) as usize);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        log.read(topic, self.lane, from, records, TURN_BYTES, &mut buffer)?;
        for record in buffer.iter() {
            self.record(topic, &record);
        }
        self.batch_bytes += buffer.bytes();
        let next = buffer.last().map_or(from, |record| record.offset + 1);
        self.buffer = buffer;
        Ok(next)
    }

    /// Decodes one record and applies its events.
    fn record(&mut self, topic: usize, record: &RecordRef<'_>) {
        let meta = RecordMeta {
            record_time_ms: Some(record.record_time_ms),
            key: record.key,
            headers: &[],
        };
        let plan = self.plan.clone();
        let mut of_earlier_stream: Option<DeadReason> = None;
        for stream in plan.streams_of(&self.topics[topic]) {
            let mut of_stream = None;
            stream.decoder.decode(record.payload, &meta, |event| {
                let verdict = match event {
                    Ok(values) => {
                        self.pipeline.decoded(1);
                        let verdict = self.pipeline.event(&stream.stream, topic, values);
                        self.note_offset(topic, record.offset, values, &verdict);
                        verdict
                    }
                    // Where both kinds share a topic, what is no JSON is so for both: one letter.
                    Err(reason) if of_earlier_stream.as_ref() == Some(&reason) => return,
                    Err(reason) => {
                        self.pipeline.malformed();
                        of_stream = Some(reason.clone());
                        Verdict::Dead(reason)
                    }
                };
                self.letter(topic, record, &verdict);
            });
            of_earlier_stream = of_stream.or(of_earlier_stream);
        }
    }

    /// Remembers the first offset of each epoch: a rebuild begins there.
    fn note_offset(&mut self, topic: usize, offset: u64, values: &[Value<'_>], verdict: &Verdict) {
        if matches!(verdict, Verdict::Dead(_) | Verdict::Filtered) {
            return;
        }
        if let Value::Int(time_ms) = values[TIME] {
            let epoch = self.plan.settings.epoch_of(time_ms);
            // Offsets only rise, so the first one met is the smallest.
            self.state.smallest_offsets[topic].entry(epoch).or_insert(offset);
        }
    }

    fn letter(&mut self, topic: usize, record: &RecordRef<'_>, verdict: &Verdict) {
        if self.pipeline.is_rebuilding() {
            return; // it was written before the commit that is being caught up with
        }
        let at =
            Place { source: &self.sources[topic], offset: record.offset, record: record.payload };
        match verdict {
            Verdict::Late(reason) => self.letters.late(&at, reason.code()),
            Verdict::Dead(reason) => self.letters.dead(&at, &reason.to_string()),
            Verdict::Filtered | Verdict::Counted | Verdict::Duplicate => {}
        }
    }

    /// What has to be committed, if anything changed. Letters are durable before.
    pub(super) fn commit(&mut self) -> Result<Option<LaneCommit<'_>>, LaneError> {
        if self.state.frontier != self.pipeline.frontier() {
            self.state.frontier = self.pipeline.frontier();
            self.changed = true;
        }
        // A rebuild may leave members to be written, before anything new was read.
        if !self.changed && !self.pipeline.has_changes() {
            return Ok(None);
        }
        self.letters.sync(&mut self.state)?;
        self.state.counters = self.pipeline.counters();
        let needed = self.plan.settings.oldest_needed_by(self.state.frontier);
        for offsets in &mut self.state.smallest_offsets {
            *offsets = offsets.split_off(&needed);
        }
        self.changed = false;
        self.progress.batches += 1;
        let batch = self.pipeline.batch();
        Ok(Some(LaneCommit { lane: self.lane, batch, state: &self.state }))
    }

    /// The end of each topic.
    pub(super) fn ends(&self, log: &dyn Source) -> Vec<u64> {
        (0..self.topics.len()).map(|topic| log.end_offset(topic, self.lane)).collect()
    }

    /// Whether there are records that were not read, before these ends of the topics.
    pub(super) fn is_behind(&self, ends: &[u64]) -> bool {
        self.state.next_offsets.iter().zip(ends).any(|(next, end)| next < end)
    }

    /// What was written is durable: time may move.
    pub(super) fn committed(&mut self, elapsed: Duration) {
        self.pipeline.advance();
        if self.batch_records > 0 {
            self.progress.last_batch_seconds = elapsed.as_secs_f64();
            self.progress.last_batch_records = self.batch_records;
        }
    }

    /// What the board shows.
    pub(super) fn status(&self, log: &dyn Source) -> LaneStatus {
        let longest_ms = self.plan.settings.longest_ms();
        LaneStatus {
            lane: self.lane,
            rebuilding: self.pipeline.is_rebuilding(),
            next_offsets: self.state.next_offsets.clone(),
            end_offsets: self.ends(log),
            counters: self.pipeline.counters(),
            watermark_ms: self.pipeline.watermark_ms(),
            frontier_ms: self.pipeline.frontier() * longest_ms,
            state_bytes: self.pipeline.size().memory_bytes as u64,
            open_cells: self.pipeline.open_cell_count() as u64,
            replayed_records: self.replayed_records,
            ..self.progress.clone()
        }
    }
}
