//! Decoded events are filtered and transformed, and scattered by request into buckets: one thread's
//! part of it, wherever the events come from.

use super::Summary;
use super::bucket::{Buckets, Writer};
use super::intake::Intake;
use super::memo::Memo;
use super::shared::{FOR_EVER, LocalSymbols, SharedSymbols};
use crate::plan::{Plan, StreamPlan};
use marquee_expr::Value;
use marquee_model::{Kind, RequestHasher, RequestKey, lane_of, parse_uuid};
use marquee_pipeline::join::Event;
use marquee_pipeline::prepare::{DeadReason, Prepared, REQUEST_ID, TIME, VIDEO};
use marquee_sources::json::Columns;
use std::collections::BTreeSet;
use std::ops::Range;
use std::ptr;

/// A stretch of event time outside of which events are not wanted, and what was seen of each kind,
/// there and elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    wanted_ms: Range<i64>,
    /// First and last event time of impressions and of plays.
    pub(super) seen_ms: [Option<(i64, i64)>; 2],
}

impl Stretch {
    pub(super) fn of(wanted_ms: Range<i64>) -> Self {
        Stretch { wanted_ms, seen_ms: [None, None] }
    }

    /// Notes an event; whether it is wanted.
    fn note(&mut self, kind: Kind, time_ms: i64) -> bool {
        let side = usize::from(kind == Kind::Play);
        let seen = &mut self.seen_ms[side];
        let (first_ms, last_ms) = seen.unwrap_or((time_ms, time_ms));
        *seen = Some((first_ms.min(time_ms), last_ms.max(time_ms)));
        self.wanted_ms.contains(&time_ms)
    }

    /// What two threads have seen.
    pub(super) fn add(&mut self, other: &Stretch) {
        for (seen, more) in self.seen_ms.iter_mut().zip(other.seen_ms) {
            *seen = match (*seen, more) {
                (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
                (one, other) => one.or(other),
            };
        }
    }
}

/// One thread's part.
pub(super) struct Scatter<'a> {
    plan: &'a Plan,
    shared: &'a SharedSymbols,
    hasher: RequestHasher,
    symbols: LocalSymbols<'a>,
    /// Keys of the request ids, and numbers of the videos, in a dictionary of Parquet.
    requests: Memo<u128>,
    videos: Memo<u32>,
    writer: Option<Writer<'a>>,
    keep_texts: bool,
    /// For each lane the epochs of its events, where members are wanted.
    pub(super) epochs_of_lanes: Vec<BTreeSet<i64>>,
    /// Which events are wanted; `None`: all.
    pub(super) stretch: Option<Stretch>,
    /// The first error of a temporary file.
    failed: Option<std::io::Error>,
    scratch: Vec<u8>,
    /// The tuple of all events without slices.
    plain_tuple: Option<u32>,
    pub(super) summary: Summary,
}

impl Intake for Scatter<'_> {
    #[inline(always)]
    fn take(
        &mut self,
        stream: &StreamPlan,
        row: Option<usize>,
        event: Result<&[Value<'_>], DeadReason>,
    ) -> Result<(), DeadReason> {
        self.summary.events += 1;
        match event {
            Ok(values) => self.take_good(stream, row, values),
            Err(reason) => Err(reason),
        }
    }

    fn turn_to(&mut self, columns: &Columns) {
        self.requests.turn_to(columns.request_ids());
        self.videos.turn_to(columns.videos());
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }

    fn failed(&mut self) -> Option<std::io::Error> {
        self.failed.take()
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.writer.take().expect("it ends once").finish()
    }
}

impl<'a> Scatter<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        secret: [u8; 16],
        buckets: &'a Buckets,
        shared: &'a SharedSymbols,
        keep_texts: bool,
    ) -> Self {
        Scatter {
            plan,
            shared,
            hasher: RequestHasher::new(secret),
            symbols: shared.local(),
            requests: Memo::new(),
            videos: Memo::new(),
            writer: Some(buckets.writer()),
            keep_texts,
            epochs_of_lanes: vec![BTreeSet::new(); plan.lanes as usize],
            stretch: None,
            failed: None,
            scratch: Vec::new(),
            plain_tuple: None,
            summary: Summary::default(),
        }
    }

    #[inline]
    fn take_good(
        &mut self,
        stream: &StreamPlan,
        row: Option<usize>,
        values: &[Value<'_>],
    ) -> Result<(), DeadReason> {
        if let Some(stretch) = &mut self.stretch
            && let Value::Int(time_ms) = values[TIME]
            && !stretch.note(stream.stream.kind(), time_ms)
        {
            return Ok(());
        }
        match self.event(stream, row, values)? {
            Some(event) => {
                let writer = self.writer.as_mut().expect("the parser is running");
                if let Err(error) = writer.push(&event) {
                    self.failed = Some(error);
                }
            }
            None => self.summary.filtered += 1,
        }
        Ok(())
    }

    #[inline]
    fn event(
        &mut self,
        plan: &StreamPlan,
        row: Option<usize>,
        values: &[Value<'_>],
    ) -> Result<Option<Event>, DeadReason> {
        let video = match plan.stream.prepare(values) {
            Prepared::Video(video) => video,
            Prepared::Filtered => return Ok(None),
            Prepared::Dead(reason) => return Err(reason),
        };
        let (Value::String(request_id), Value::Int(time_ms)) = (&values[REQUEST_ID], &values[TIME])
        else {
            unreachable!("the decoder gives a request id and a time, or a dead letter");
        };
        let request = RequestKey(self.requests.of(row, || self.hasher.key_of(request_id).0));
        if self.keep_texts {
            self.remember(request, request_id, *time_ms);
        }
        let tuple = match self.plain_tuple {
            Some(tuple) if !plan.stream.has_slices() => tuple,
            _ => self.tuple(plan, values),
        };
        // What a transform has made is not the word of the dictionary.
        let is_as_read = matches!(&values[VIDEO], Value::String(read) if ptr::eq(&**read, &*video));
        let video = self.videos.of(row.filter(|_| is_as_read), || self.symbols.video(&video));
        Ok(Some(Event { kind: plan.stream.kind(), request, video, tuple, time_ms: *time_ms }))
    }

    fn tuple(&mut self, plan: &StreamPlan, values: &[Value<'_>]) -> u32 {
        let scratch = &mut self.scratch;
        let tuple =
            self.symbols.tuple(|symbols| plan.stream.tuple(values, FOR_EVER, symbols, scratch));
        if !plan.stream.has_slices() {
            self.plain_tuple = Some(tuple);
        }
        tuple
    }

    /// What a backfill into a store needs besides.
    fn remember(&mut self, request: RequestKey, request_id: &str, time_ms: i64) {
        if parse_uuid(request_id.as_bytes()).is_none() {
            self.shared.remember(request, request_id);
        }
        let lane = lane_of(self.plan.partitioner, request_id.as_bytes(), self.plan.lanes);
        self.epochs_of_lanes[lane as usize].insert(self.plan.settings.epoch_of(time_ms));
    }
}
