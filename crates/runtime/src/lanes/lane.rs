//! One lane: reads its topics in step, feeds the pipeline, and writes what comes out.

use super::gaps::{self, FirstRecords, Unread};
use super::letters::{Letters, Place};
use super::misplaced::Misplaced;
use super::resume::Resumption;
use super::room::Room;
use super::snapshots::Saving;
use super::{LaneError, LanesSettings};
use crate::clock::Clock;
use crate::history::LetterSample;
use crate::plan::{Plan, StreamPlan};
use crate::status::LaneStatus;
use marquee_expr::Value;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::lane::{LaneSettings, Verdict};
use marquee_pipeline::prepare::{DeadReason, REQUEST_ID, TIME};
use marquee_sinks::letters::LetterKind;
use marquee_sinks::{Gap, LaneCommit, LaneState};
use marquee_sources::{Limit, Record, Source, SourceError};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Records read at a time from one topic; then the topic that is behind has its turn.
const TURN_RECORDS: usize = 4096;
const TURN_BYTES: usize = 4 << 20;
/// Turns of a lane before the next lane of its owner has its own.
const TURNS: usize = 8;
/// Bytes of records in a batch, about: large records make batches of fewer.
const BATCH_BYTES: usize = 64 << 20;
/// How long the topic that is behind is waited for while its records are on their way; then the
/// other one goes on alone, for as long as that one brings nothing.
const STARVES_AFTER: Duration = Duration::from_millis(500);
/// Over how long a rate is measured.
const RATE_OVER: Duration = Duration::from_secs(10);

/// The owner's side of a lane.
pub(super) struct LaneOwner {
    pub(super) lane: u32,
    pub(super) plan: Arc<Plan>,
    /// Names of the topics, in the order of their indices.
    pub(super) topics: Vec<String>,
    /// `topic/lane` of each topic, for letters.
    sources: Vec<String>,
    pub(super) pipeline: LanePipeline,
    /// Where the lane is: durable up to the last commit, the rest is being worked on.
    pub(super) state: LaneState,
    /// Records that are gone unread; what they held is judged by the first record after them.
    unread: Vec<Unread>,
    /// Whether it is not known yet what these records may have held.
    waits: bool,
    /// What the first records of each topic that were read here say of those before them.
    first_records: Vec<FirstRecords>,
    letters: Letters,
    misplaced: Option<Misplaced>,
    /// Texts of records, while they are decoded.
    buffer: Vec<u8>,
    batch_events: usize,
    pub(super) room: Room,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether the store is where the lane began.
    is_own: bool,
    /// Whether a rebuild has found members that the store gets with the first batch only.
    pub(super) is_unwritten: bool,
    /// Whether the state differs from what the store holds.
    pub(super) changed: bool,
    /// Whether the last `commit` gave something to write.
    is_committing: bool,
    batch_records: u64,
    batch_bytes: usize,
    /// Commits that the log was told of and has not confirmed: number and frontier.
    told: VecDeque<(u64, i64)>,
    /// Since when the topic that is behind has had nothing to give.
    starving_since: Option<Duration>,
    pub(super) replayed_records: u64,
    pub(super) rebuild_records: (u64, u64),
    pub(super) rebuild_left: Option<Duration>,
    /// Records that moved the position, and since when they are counted.
    moved: (u64, Duration),
    pub(super) saving: Saving,
    progress: LaneStatus,
}

/// What one call of `LaneOwner::read` did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Records that were applied.
    pub(super) records: usize,
    /// Whether the log holds more.
    pub(super) is_behind: bool,
    /// Whether the batch is as large as it may become.
    pub(super) is_full: bool,
}

impl LaneOwner {
    /// A lane whose pipeline stands at the resumption's state, whole or to be rebuilt.
    pub(super) fn new(
        resumption: &Resumption,
        settings: &LanesSettings,
        pipeline: LanePipeline,
    ) -> Result<Self, LaneError> {
        let topics = settings.plan.topics();
        let Resumption { lane, state, .. } = resumption;
        Ok(LaneOwner {
            lane: *lane,
            sources: topics.iter().map(|topic| format!("{topic}/{lane}")).collect(),
            first_records: vec![FirstRecords::default(); topics.len()],
            topics,
            plan: settings.plan.clone(),
            pipeline,
            letters: Letters::open(&*settings.letters, *lane, state, resumption.is_new)?,
            state: state.clone(),
            unread: resumption.unread.clone(),
            waits: false,
            misplaced: settings.checks_partitions.then(|| Misplaced::new(&settings.plan, *lane)),
            buffer: Vec::new(),
            batch_events: settings.batch_events,
            room: Room::of(&settings.memory),
            clock: settings.clock.clone(),
            is_own: resumption.is_own,
            is_unwritten: false,
            changed: false,
            is_committing: false,
            batch_records: 0,
            batch_bytes: 0,
            told: VecDeque::new(),
            starving_since: None,
            replayed_records: 0,
            rebuild_records: (0, 0),
            rebuild_left: None,
            moved: (0, settings.clock.passed()),
            saving: Saving::new(resumption, settings),
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

    /// Reads and applies what is there, up to a bound. Topics that have nothing more to read say so
    /// to the watermark.
    pub(super) fn read(&mut self, log: &mut dyn Source) -> Result<Reading, LaneError> {
        let mut reading = Reading::default();
        for _ in 0..TURNS {
            reading.is_full = self.is_full();
            let ends = self.ends(log);
            let behind = self.topic_behind(&self.state.next_offsets, &ends);
            reading.is_behind = behind.is_some();
            if reading.is_full {
                break;
            }
            let Some(topic) = behind.and_then(|topic| self.readable(topic, log)) else { break };
            reading.records += self.turn(log, topic)?;
        }
        if let Some(misplaced) = &mut self.misplaced {
            misplaced.refuse()?;
        }
        for topic in 0..self.topics.len() {
            if log.is_idle(topic, self.lane) {
                self.pipeline.nothing_to_read(topic, self.clock.now_ms());
            }
        }
        Ok(reading)
    }

    fn is_full(&self) -> bool {
        self.batch_records as usize >= self.batch_events || self.batch_bytes >= BATCH_BYTES
    }

    /// The topic that has records and is behind in event time: the one that is ahead waits, so
    /// that on catch-up the state holds no more than the windows need.
    pub(super) fn topic_behind(&self, at: &[u64], ends: &[u64]) -> Option<usize> {
        (0..ends.len())
            .filter(|topic| at[*topic] < ends[*topic])
            .min_by_key(|topic| self.pipeline.progress_ms(*topic))
    }

    /// The topic that is behind, if its records are here. If they are not, they are on their way,
    /// and the other topic waits for a while: for ever it must not, or a partition that fails
    /// would stop a lane.
    fn readable(&mut self, behind: usize, log: &dyn Source) -> Option<usize> {
        if self.waits {
            // Nothing is written before this record has come, so nothing else piles up.
            let mut awaited = self.unread.iter().map(|unread| unread.topic);
            return awaited.find(|topic| {
                !self.first_records[*topic].is_enough() && log.has_data(*topic, self.lane)
            });
        }
        if log.has_data(behind, self.lane) {
            self.starving_since = None;
            return Some(behind);
        }
        let passed = self.clock.passed();
        let since = *self.starving_since.get_or_insert(passed);
        let mut topics = 0..self.topics.len();
        let other = topics.find(|topic| *topic != behind && log.has_data(*topic, self.lane));
        other.filter(|_| passed - since >= STARVES_AFTER)
    }

    /// Reads and applies some records of one topic, and moves the lane's offset.
    fn turn(&mut self, log: &mut dyn Source, topic: usize) -> Result<usize, LaneError> {
        let from = self.state.next_offsets[topic];
        let (next, records) = match self.apply_from(log, topic, u64::MAX) {
            Err(LaneError::Log(SourceError::OutOfRange { start, .. })) if start > from => {
                self.skip(log, topic, start)?;
                (start, 0)
            }
            other => other?,
        };
        if next > from {
            self.state.next_offsets[topic] = next;
            self.changed = true;
            self.moved.0 += next - from;
        }
        self.batch_records += records as u64;
        Ok(records)
    }

    /// Records that were not read yet have been deleted: goes on behind them, and says so.
    fn skip(&mut self, log: &mut dyn Source, topic: usize, start: u64) -> Result<(), LaneError> {
        let from_offset = self.state.next_offsets[topic];
        tracing::error!(
            lane = self.lane,
            topic = self.topics[topic],
            from_offset,
            to_offset = start,
            "the log has deleted records before they were counted: their cells are served as \
             incomplete. Give the topic a longer retention"
        );
        let mut at = self.state.next_offsets.clone();
        at[topic] = start;
        log.seek(self.lane, &at)?;
        self.first_records[topic] = FirstRecords::default();
        self.unread.push(Unread { topic, from_offset, to_offset: start });
        Ok(())
    }

    /// Reads and applies records of a topic, before an offset. Returns the next offset and how many
    /// records there were.
    pub(super) fn apply_from(
        &mut self,
        log: &mut dyn Source,
        topic: usize,
        before: u64,
    ) -> Result<(u64, usize), LaneError> {
        let (mut records, mut bytes) = (0, 0);
        let limit = Limit { before, records: TURN_RECORDS, bytes: TURN_BYTES };
        let lane = self.lane;
        // Once for all of them: all threads count the plan's owners in one place.
        let plan = self.plan.clone();
        let streams = plan.streams_of(&self.topics[topic]);
        let next = log.read(topic, lane, limit, &mut |stretch| {
            records += stretch.len();
            bytes += stretch.iter().map(|r| r.payload.map_or(0, <[u8]>::len)).sum::<usize>();
            self.stretch(&plan, &streams, topic, stretch);
        })?;
        self.batch_bytes += bytes;
        Ok((next, records))
    }

    /// Decodes records and applies their events.
    fn stretch(
        &mut self,
        plan: &Plan,
        streams: &[&StreamPlan],
        topic: usize,
        records: &[Record<'_>],
    ) {
        let clock = &self.clock;
        for record in records {
            let time_ms = || record.record_time_ms.unwrap_or_else(|| clock.now_ms());
            self.first_records[topic].note(time_ms);
        }
        for records in records.chunk_by(|a, b| a.payload.is_some() == b.payload.is_some()) {
            match streams {
                _ if records[0].payload.is_none() => {
                    records.iter().for_each(|record| self.tombstone(topic, record));
                }
                [stream] => self.of_one_stream(plan, stream, topic, records),
                _ => {
                    for record in records {
                        self.of_streams(plan, streams, topic, record);
                    }
                }
            }
        }
    }

    /// Records of a topic of its own.
    fn of_one_stream(
        &mut self,
        plan: &Plan,
        stream: &StreamPlan,
        topic: usize,
        records: &[Record<'_>],
    ) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let lane = self.lane;
        let payloads = records
            .iter()
            .map(|record| (record.payload.unwrap_or_default(), plan.meta_of(lane, record)));
        stream.decoder.decode_all(payloads, &mut buffer, |number, event| {
            let record = &records[number];
            let verdict = event
                .and_then(|values| self.take(stream, topic, record, values, number as u32))
                .unwrap_or_else(|reason| Some(self.malformed(reason)));
            self.letter(topic, record, verdict.as_ref());
            if self.pipeline.is_full() {
                self.apply(topic, records);
            }
        });
        self.buffer = buffer;
        self.apply(topic, records);
    }

    /// Applies what was taken of these records.
    fn apply(&mut self, topic: usize, records: &[Record<'_>]) {
        let mut told = SmallVec::<[(u32, Verdict); 4]>::new();
        self.pipeline.apply(|number, verdict| {
            if verdict.has_letter() {
                told.push((number, verdict));
            }
        });
        for (number, verdict) in told {
            self.letter(topic, &records[number as usize], Some(&verdict));
        }
    }

    /// A record of a topic that both kinds share.
    fn of_streams(
        &mut self,
        plan: &Plan,
        streams: &[&StreamPlan],
        topic: usize,
        record: &Record<'_>,
    ) {
        let payload = record.payload.unwrap_or_default();
        let meta = plan.meta_of(self.lane, record);
        let mut of_earlier_stream: Option<DeadReason> = None;
        for stream in streams {
            let mut of_stream = None;
            stream.decoder.decode(payload, &meta, |event| {
                let event = event.and_then(|values| self.take(stream, topic, record, values, 0));
                let verdict = match event {
                    Ok(verdict) => verdict,
                    // What is no JSON is so for both: one letter.
                    Err(reason) if of_earlier_stream.as_ref() == Some(&reason) => return,
                    Err(reason) => {
                        of_stream = Some(reason.clone());
                        Some(self.malformed(reason))
                    }
                };
                self.letter(topic, record, verdict.as_ref());
                if self.pipeline.is_full() {
                    self.apply(topic, std::slice::from_ref(record));
                }
            });
            self.apply(topic, std::slice::from_ref(record));
            of_earlier_stream = of_stream.or(of_earlier_stream);
        }
    }

    /// Takes an event that was decoded, if it belongs here; a verdict, where it is known already.
    #[inline]
    fn take(
        &mut self,
        stream: &StreamPlan,
        topic: usize,
        record: &Record<'_>,
        values: &[Value<'_>],
        number: u32,
    ) -> Result<Option<Verdict>, DeadReason> {
        if let Some(reason) = self.misplacement(record, values) {
            return Err(reason);
        }
        self.pipeline.decoded(1);
        let verdict = self.pipeline.take(&stream.stream, topic, values, number);
        if verdict.is_none() {
            self.note_offset(topic, record.offset, values);
        }
        Ok(verdict)
    }

    #[cold]
    fn malformed(&mut self, reason: DeadReason) -> Verdict {
        self.pipeline.malformed();
        Verdict::Dead(reason)
    }

    /// A record without a value is no event, and nothing else either.
    #[cold]
    fn tombstone(&mut self, topic: usize, record: &Record<'_>) {
        self.pipeline.malformed();
        let reason = "the record has no value (a tombstone), so it is no event".to_owned();
        let verdict = Verdict::Dead(DeadReason::Malformed(reason));
        self.letter(topic, record, Some(&verdict));
    }

    /// Why an event cannot be counted in this lane, if its request belongs to another one: its
    /// other events are there, and in two lanes it would be counted twice (invariant COUNT).
    #[inline]
    fn misplacement(&mut self, record: &Record<'_>, values: &[Value<'_>]) -> Option<DeadReason> {
        let misplaced = self.misplaced.as_mut()?;
        let Value::String(request_id) = &values[REQUEST_ID] else { return None };
        misplaced.check(request_id, record.key)
    }

    /// Remembers the first offset of each epoch that counts anything: a rebuild begins there.
    #[inline]
    fn note_offset(&mut self, topic: usize, offset: u64, values: &[Value<'_>]) {
        if let Value::Int(time_ms) = values[TIME] {
            let epoch = self.plan.settings.epoch_of(time_ms);
            let offsets = &mut self.state.smallest_offsets[topic];
            // Offsets only rise, so the first one met is the smallest. Most events are of the last.
            if offsets.last_key_value().is_none_or(|(last, _)| *last != epoch) {
                offsets.entry(epoch).or_insert(offset);
            }
        }
    }

    /// Writes the letter of an event, if it has one.
    #[inline]
    fn letter(&mut self, topic: usize, record: &Record<'_>, verdict: Option<&Verdict>) {
        if let Some(verdict) = verdict.filter(|verdict| verdict.has_letter()) {
            self.write_letter(topic, record, verdict);
        }
    }

    #[cold]
    fn write_letter(&mut self, topic: usize, record: &Record<'_>, verdict: &Verdict) {
        if self.pipeline.is_rebuilding() {
            return; // it was written before the commit that is being caught up with
        }
        let payload = record.payload.unwrap_or_default();
        let now_ms = self.clock.now_ms();
        let (source, offset) = (&self.sources[topic], record.offset);
        let at = Place { source, offset, record: payload, now_ms };
        match verdict {
            Verdict::Late(reason) => self.letters.late(&at, reason.code()),
            Verdict::Dead(reason) => self.letters.dead(&at, &reason.to_string()),
            Verdict::Filtered | Verdict::Counted | Verdict::Duplicate => {}
        }
    }

    /// What cells may lack because of records that were gone before they were read. Written before
    /// anything that is counted after them.
    /// While a topic's first record is on its way nothing is written: what is gone before it would
    /// have to be guessed, and a gap is for ever.
    pub(super) fn take_gaps(&mut self, log: &dyn Source) -> Vec<Gap> {
        let has_more = |topic: usize| {
            let at = self.state.next_offsets[topic];
            at < log.end_offset(topic, self.lane) || log.has_data(topic, self.lane)
        };
        let is_coming = |u: &Unread| !self.first_records[u.topic].is_enough() && has_more(u.topic);
        self.waits = self.unread.iter().any(is_coming);
        if self.waits {
            return Vec::new();
        }
        let frontier = self.state.frontier;
        let (plan, lane, clock_ms) = (&self.plan, self.lane, self.clock.now_ms());
        let (first_records, pipeline) = (&self.first_records, &self.pipeline);
        let gap = |unread: Unread| {
            // This machine's clock may be behind: it is later than what the other topic shows.
            let others = (0..first_records.len()).filter(|topic| *topic != unread.topic);
            let now_ms =
                others.filter_map(|topic| pipeline.progress_ms(topic)).fold(clock_ms, i64::max);
            let first_ms = first_records[unread.topic].latest_ms(now_ms);
            gaps::of_unread(plan, lane, frontier, &unread, first_ms)
        };
        let gaps: Vec<Gap> = std::mem::take(&mut self.unread).into_iter().filter_map(gap).collect();
        Gap::add(&mut self.state.gaps, gaps.iter().cloned());
        gaps
    }

    /// What has to be committed, if anything changed. Letters are durable before.
    pub(super) fn commit(&mut self) -> Result<Option<LaneCommit<'_>>, LaneError> {
        self.is_committing = false;
        self.check_state()?;
        if self.waits {
            return Ok(None);
        }
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
        let open_ms = self.state.frontier * self.plan.settings.longest_ms();
        self.state.gaps.retain(|gap| gap.to_ms > open_ms);
        self.changed = false;
        self.is_committing = true;
        self.progress.batches += 1;
        let batch = self.pipeline.batch();
        Ok(Some(LaneCommit { lane: self.lane, batch, state: &self.state }))
    }

    /// The log was told of the last commit, under this number.
    pub(super) fn told(&mut self, number: u64) {
        self.told.push_back((number, self.state.frontier));
    }

    /// The log has taken all commits up to a number, but for some up to another one.
    pub(super) fn confirmed(&mut self, number: u64, refused: u64) {
        let is_over = |(told, _): &mut (u64, i64)| *told <= number.max(refused);
        while let Some((told, frontier)) = self.told.pop_front_if(is_over) {
            if told > refused {
                self.state.told_frontier = self.state.told_frontier.max(frontier);
            }
        }
    }

    /// Whether the batch that has just become durable held something of this lane.
    pub(super) fn was_committed(&self) -> bool {
        self.is_committing
    }

    /// Whether the state is that of the last commit: nothing was read since, and nothing awaited.
    pub(super) fn is_as_committed(&self) -> bool {
        !self.changed && !self.is_unwritten && !self.waits && self.unread.is_empty()
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
        let records = std::mem::take(&mut self.batch_records);
        self.batch_bytes = 0;
        if self.waits {
            return;
        }
        self.is_unwritten = false;
        if self.is_committing {
            self.saving.committed();
        }
        self.pipeline.advance();
        self.make_room();
        if records > 0 {
            self.progress.last_batch_seconds = elapsed.as_secs_f64();
            self.progress.last_batch_records = records;
        }
        let ((records, since), passed) = (self.moved, self.clock.passed());
        if passed - since >= RATE_OVER {
            self.progress.records_per_second = records as f64 / (passed - since).as_secs_f64();
            self.moved = (0, passed);
        }
    }

    /// Samples of what was put aside since they were taken last.
    pub(super) fn take_samples(&mut self) -> Vec<(LetterKind, LetterSample)> {
        self.letters.take_samples()
    }

    /// What the board shows.
    pub(super) fn status(&self, log: &dyn Source) -> LaneStatus {
        let longest_ms = self.plan.settings.longest_ms();
        let size = self.pipeline.size();
        LaneStatus {
            lane: self.lane,
            held: true,
            is_behind_group: !self.is_own && (self.pipeline.is_rebuilding() || self.is_unwritten),
            // Until the gaps are written that unread records leave, its cells may look complete.
            rebuilding: self.pipeline.is_rebuilding() || !self.unread.is_empty(),
            rebuilt_records: self.rebuild_records,
            rebuild_left: self.rebuild_left.filter(|_| self.pipeline.is_rebuilding()),
            next_offsets: self.state.next_offsets.clone(),
            end_offsets: self.ends(log),
            counters: self.pipeline.counters(),
            watermark_ms: self.pipeline.watermark_ms(),
            frontier_ms: self.pipeline.frontier() * longest_ms,
            state_bytes: size.memory_bytes as u64,
            state_disk_bytes: size.disk_bytes,
            open_cells: self.pipeline.open_cell_count() as u64,
            replayed_records: self.replayed_records,
            snapshot: self.saving.status(),
            matches: *self.pipeline.matches(),
            ..self.progress.clone()
        }
    }
}
