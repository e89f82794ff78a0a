//! The first half: lines become events, scattered by request.

use super::bucket::{Buckets, Writer};
use super::dead::DeadLetters;
use super::memo::Memo;
use super::shared::{FOR_EVER, LocalSymbols, SharedSymbols};
use super::{Backfill, BackfillError, Summary};
use crate::plan::{Plan, StreamPlan};
use marquee_expr::Value;
use marquee_model::{RequestHasher, RequestKey, lane_of, parse_uuid};
use marquee_pipeline::join::Event;
use marquee_pipeline::prepare::{DeadReason, Prepared, REQUEST_ID, TIME, VIDEO};
use marquee_sources::files::{Chunk, FileSet, RowGroup, Rows};
use std::collections::BTreeSet;
use std::ptr;
use std::sync::Mutex;

/// A line that holds a list may have as many bad events as elements, and each letter holds the
/// whole line: these are enough.
const LETTERS_A_LINE: usize = 4;

/// One thread's work.
pub(super) struct Parser<'a> {
    plan: &'a Plan,
    files: &'a FileSet,
    shared: &'a SharedSymbols,
    dead: &'a Mutex<DeadLetters>,
    hasher: RequestHasher,
    symbols: LocalSymbols<'a>,
    /// Keys of the request ids, and numbers of the videos, in a dictionary of Parquet.
    requests: Memo<u128>,
    videos: Memo<u32>,
    writer: Option<Writer<'a>>,
    keep_texts: bool,
    /// For each lane the epochs of its events, where members are wanted.
    epochs_of_lanes: Vec<BTreeSet<i64>>,
    /// The last line that was bad, and how many letters it has.
    last_bad: (usize, u64, usize),
    /// The first error of a temporary file in this chunk.
    failed: Option<std::io::Error>,
    scratch: Vec<u8>,
    /// The tuple of all events without slices.
    plain_tuple: Option<u32>,
    summary: Summary,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        backfill: &Backfill<'a>,
        files: &'a FileSet,
        buckets: &'a Buckets,
        shared: &'a SharedSymbols,
        dead: &'a Mutex<DeadLetters>,
    ) -> Self {
        Parser {
            plan: backfill.plan,
            files,
            shared,
            dead,
            hasher: RequestHasher::new(backfill.secret),
            symbols: shared.local(),
            requests: Memo::new(),
            videos: Memo::new(),
            writer: Some(buckets.writer()),
            keep_texts: backfill.with_members,
            epochs_of_lanes: vec![BTreeSet::new(); backfill.plan.lanes as usize],
            last_bad: (usize::MAX, 0, 0),
            failed: None,
            scratch: Vec::new(),
            plain_tuple: None,
            summary: Summary::default(),
        }
    }

    pub(super) fn run(
        &mut self,
        thread: usize,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(Summary, Vec<BTreeSet<i64>>), BackfillError> {
        let mut chunk = Chunk::default();
        while self.files.next_chunk(thread, &mut chunk)? {
            let (read, total) = self.files.progress();
            progress(read, total);
            self.chunk(&mut chunk)?;
            if let Some(error) = self.failed.take() {
                return Err(BackfillError::Spill(error));
            }
        }
        let writer = self.writer.take().expect("a parser runs once");
        writer.finish().map_err(BackfillError::Spill)?;
        Ok((self.summary, std::mem::take(&mut self.epochs_of_lanes)))
    }

    fn chunk(&mut self, chunk: &mut Chunk) -> Result<(), BackfillError> {
        let (input, first) = (chunk.input, chunk.first_line);
        let Some(mut group) = chunk.rows.take() else {
            self.lines(input, first, chunk.bytes());
            return Ok(());
        };
        while let Some(rows) = group.next_rows()? {
            self.rows(input, &mut group, &rows)?;
        }
        Ok(())
    }

    fn lines(&mut self, input: usize, first: u64, lines: &[u8]) {
        let (source, kind) = self.files.input(input);
        let plan: &'a Plan = self.plan;
        let stream = plan.stream(kind);
        stream.decoder.decode_lines(lines, first, |line, record, event| {
            if let Err(reason) = self.take(stream, None, event.map(|values| values.as_slice())) {
                self.dead(input, source, line, &reason, record);
            }
        });
    }

    fn rows(
        &mut self,
        input: usize,
        group: &mut RowGroup,
        rows: &Rows,
    ) -> Result<(), BackfillError> {
        let (source, kind) = self.files.input(input);
        let plan: &'a Plan = self.plan;
        let stream = plan.stream(kind);
        let mut record = Vec::new();
        if stream.decoder.columns().is_none() {
            for row in 0..rows.len() {
                group.write_record(rows, row, &mut record)?;
                record.push(b'\n');
            }
            self.lines(input, rows.first, &record);
            return Ok(());
        }
        let mut bad = Vec::new();
        let columns = stream.decoder.find_columns(&rows.columns);
        self.requests.turn_to(columns.request_ids());
        self.videos.turn_to(columns.videos());
        stream.decoder.decode_rows(&columns, |row, event| {
            if let Err(reason) = self.take(stream, Some(row), event) {
                bad.push((row, reason));
            }
        });
        for (row, reason) in bad {
            record.clear();
            group.write_record(rows, row, &mut record)?;
            self.dead(input, source, rows.first + row as u64, &reason, &record);
        }
        Ok(())
    }

    /// Takes one event, good or bad, and the place of its row, if it is one.
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

    #[inline]
    fn take_good(
        &mut self,
        stream: &StreamPlan,
        row: Option<usize>,
        values: &[Value<'_>],
    ) -> Result<(), DeadReason> {
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

    #[cold]
    fn dead(&mut self, input: usize, source: &str, line: u64, reason: &DeadReason, record: &[u8]) {
        self.summary.dead += 1;
        let letters = match self.last_bad {
            (i, l, letters) if (i, l) == (input, line) => letters + 1,
            _ => 1,
        };
        self.last_bad = (input, line, letters);
        if letters > LETTERS_A_LINE {
            return;
        }
        let mut dead = self.dead.lock().unwrap_or_else(|e| e.into_inner());
        dead.take(source, line, &reason.to_string(), record);
    }
}
