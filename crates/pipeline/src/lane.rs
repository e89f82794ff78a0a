//! One lane: the stages put together.
//!
//! Events go in one by one, or are taken and then applied a few at a time, and heartbeats between
//! them; at the end of a batch [`LanePipeline::batch`] gives what must be written, and after it is
//! durable [`LanePipeline::advance`] lets time move on. A lane is driven by one thread and shares
//! nothing.

use crate::aggregate::{Aggregate, CellChange, CellPlace, RequestId};
use crate::chunk;
use crate::join::cold::{ColdError, ColdPlace};
use crate::join::{Applied, Join, StateSize};
use crate::matches::Matches;
use crate::prepare::{DeadReason, Prepared, RECORD_TIME, REQUEST_ID, Stream, TIME};
use crate::settings::Settings;
use crate::symbols::Symbols;
use crate::waiting::{Taken, Waiting};
use crate::watermark::Watermark;
use marquee_expr::Value;
use marquee_model::{CellCounts, CellKey, RequestHasher, RequestKey, Side};
use std::hint::black_box;

/// What a generation has settled once and for all about its lanes.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// The join.
    pub settings: Settings,
    /// Events more than this ahead of their record are dead letters; `None` is no limit.
    pub max_ahead_ms: Option<i64>,
    /// The generation's secret, from which hash keys are made.
    pub secret: [u8; 16],
    /// Number of topics that feed a lane.
    pub topics: usize,
}

/// Where a lane goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resume {
    /// The frontier of the last commit.
    pub frontier: i64,
    /// Counters of the last commit.
    pub counters: Counters,
}

/// What has been read up to the lane's position. Functions of the log position: a replay does not
/// change them (invariant HONEST).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Events that were read (a record may hold several), bad ones included.
    pub events: u64,
    /// Events that a filter refused.
    pub filtered: u64,
    /// Records and events in the dead-letter output.
    pub dead: u64,
    /// Events in the late output.
    pub late: u64,
    /// Events that were there before.
    pub duplicates: u64,
}

/// Why an event is in the late output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateReason {
    /// A group that it could need has gone.
    ClosedEpoch,
    /// Its request has too many facts in its epoch.
    MaxFacts,
}

impl LateReason {
    /// The stable code in late outputs.
    pub fn code(self) -> &'static str {
        match self {
            LateReason::ClosedEpoch => "closed_epoch",
            LateReason::MaxFacts => "max_facts",
        }
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A filter refused it.
    Filtered,
    /// It goes to the dead-letter output.
    Dead(DeadReason),
    /// It goes to the late output; what could still be counted was.
    Late(LateReason),
    /// It was applied.
    Counted,
    /// It was there before.
    Duplicate,
}

impl Verdict {
    /// Whether the event goes to the late or the dead-letter output.
    #[inline]
    pub fn has_letter(&self) -> bool {
        matches!(self, Verdict::Late(_) | Verdict::Dead(_))
    }
}

/// Whether members are written while a lane catches up with its last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing to catch up with.
    Live,
    /// Members that an earlier run is certain to have written are counted only.
    Rebuilding,
    /// All members are written again.
    RebuildingLoudly,
}

/// The stages of one lane.
#[derive(Debug)]
pub struct LanePipeline {
    settings: LaneSettings,
    hasher: RequestHasher,
    symbols: Symbols,
    watermark: Watermark,
    join: Join,
    aggregate: Aggregate,
    counters: Counters,
    matches: Matches,
    mode: Mode,
    waiting: Waiting,
    scratch: Vec<u8>,
}

impl LanePipeline {
    /// A lane without history.
    pub fn new(settings: LaneSettings) -> Self {
        Self::with(settings, Resume::default(), 0, Mode::Live)
    }

    /// A lane that must first be fed again everything from the recovery horizon to its last
    /// commit, in the order of each topic, and then [`LanePipeline::rebuilt`].
    ///
    /// Facts of closed epochs are kept until the watermark passes them: a play at the start of
    /// the first open epoch may match an impression of the closed one before (invariant WHOLE).
    pub fn rebuild(settings: LaneSettings, resume: Resume, loudly: bool) -> Self {
        let kept_from = settings.settings.oldest_needed_by(resume.frontier);
        let mode = if loudly { Mode::RebuildingLoudly } else { Mode::Rebuilding };
        Self::with(settings, resume, kept_from, mode)
    }

    fn with(settings: LaneSettings, resume: Resume, kept_from: i64, mode: Mode) -> Self {
        let words = u128::from_le_bytes(settings.secret);
        let seed = (words ^ (words >> 64)) as u64;
        LanePipeline {
            hasher: RequestHasher::new(settings.secret),
            symbols: Symbols::new(seed, settings.settings.groupings),
            watermark: Watermark::new(&settings.settings, settings.topics),
            join: Join::new(&settings.settings, seed, resume.frontier, kept_from),
            aggregate: Aggregate::new(seed),
            counters: resume.counters,
            matches: Matches::default(),
            mode,
            waiting: Waiting::default(),
            scratch: Vec::new(),
            settings,
        }
    }

    /// One event of one topic, in the order of the topic. `values` are its slots as
    /// [`crate::prepare`] numbers them.
    pub fn event(&mut self, stream: &Stream, topic: usize, values: &[Value<'_>]) -> Verdict {
        debug_assert!(self.waiting.is_empty(), "what was taken before is applied before");
        let mut verdict = self.take(stream, topic, values, 0);
        self.apply(|_, applied| verdict = Some(applied));
        verdict.expect("what was taken is applied")
    }

    /// Takes one event, which is applied with others: before a batch ends, and as soon as
    /// [`LanePipeline::is_full`]. Returns its verdict where that is known already;
    /// [`LanePipeline::apply`] says the others, with the number of the `record`.
    #[inline]
    pub fn take(
        &mut self,
        stream: &Stream,
        topic: usize,
        values: &[Value<'_>],
        record: u32,
    ) -> Option<Verdict> {
        let (Value::String(request_id), Value::Int(time_ms)) = (&values[REQUEST_ID], &values[TIME])
        else {
            unreachable!("the decoder gives a request id and a time, or a dead letter");
        };
        let (request_id, time_ms) = (&**request_id, *time_ms);
        let mut seen_ms = time_ms;
        if let Value::Int(record_ms) = values[RECORD_TIME] {
            if let Some(reason) = self.too_far_ahead(time_ms, record_ms) {
                return Some(self.dead(reason));
            }
            seen_ms = seen_ms.min(record_ms);
        }
        let (request, is_uuid) = self.hasher.key_and_is_uuid(request_id);
        self.watermark.observe(topic, request, seen_ms);
        let video = match stream.prepare(values) {
            Prepared::Video(video) => video,
            Prepared::Filtered => {
                self.count(|c| c.filtered += 1);
                return Some(Verdict::Filtered);
            }
            Prepared::Dead(reason) => return Some(self.dead(reason)),
        };
        let join = &self.settings.settings;
        // A play may be counted in the epoch of an impression that is a little younger.
        let used_until = join.epoch_of(time_ms + join.early_ms);
        let taken = Taken {
            request,
            time_ms,
            used_until,
            tuple: stream.tuple(values, used_until, &mut self.symbols, &mut self.scratch),
            record,
            kind: stream.kind(),
            is_uuid,
        };
        self.waiting.push(taken, &video, request_id);
        None
    }

    /// Whether what was taken should be applied before more is taken.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    /// Applies what was taken, in its order, and says what has become of each event.
    pub fn apply(&mut self, mut each: impl FnMut(u32, Verdict)) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.find_videos(|video, used_until| self.symbols.videos.intern(video, used_until));
        let places = waiting.places();
        let settings = &self.settings.settings;
        black_box(self.aggregate.touch(places.map(|(ms, video)| (settings.epoch_of(ms), video))));
        let is_silent = self.mode == Mode::Rebuilding;
        for (event, Taken { is_uuid, record, .. }, text) in waiting.events() {
            let needed = self.settings.settings.epochs_needed(event.kind, event.time_ms);
            let late = needed.0 < self.join.frontier();
            let id = RequestId { text, key: event.request, is_uuid: *is_uuid };
            // What is found again while a state is rebuilt is not news.
            let matches = (self.mode == Mode::Live).then_some(&mut self.matches);
            let mut members = self.aggregate.of_request(id, is_silent, matches);
            let applied = self.join.apply(&event, &self.symbols, &mut members);
            if applied == Applied::New && self.mode == Mode::Live {
                self.matches.note(event.kind);
            }
            each(*record, self.verdict(applied, late));
        }
        waiting.clear();
        self.waiting = waiting;
    }

    fn verdict(&mut self, applied: Applied, late: bool) -> Verdict {
        let verdict = match applied {
            Applied::TooManyFacts => Verdict::Late(LateReason::MaxFacts),
            _ if late => Verdict::Late(LateReason::ClosedEpoch),
            Applied::Duplicate => Verdict::Duplicate,
            Applied::New => Verdict::Counted,
        };
        self.count(|counters| match verdict {
            Verdict::Late(_) => counters.late += 1,
            Verdict::Duplicate => counters.duplicates += 1,
            _ => {}
        });
        verdict
    }

    fn too_far_ahead(&self, time_ms: i64, record_ms: i64) -> Option<DeadReason> {
        let max_ahead_ms = self.settings.max_ahead_ms?;
        let ahead_ms = time_ms - record_ms;
        (ahead_ms > max_ahead_ms).then_some(DeadReason::TooFarAhead { ahead_ms, max_ahead_ms })
    }

    /// A record, or an event of one, that cannot be read.
    pub fn malformed(&mut self) {
        self.count(|counters| counters.events += 1);
        self.count_dead();
    }

    fn dead(&mut self, reason: DeadReason) -> Verdict {
        self.count_dead();
        Verdict::Dead(reason)
    }

    fn count_dead(&mut self) {
        self.count(|counters| counters.dead += 1);
    }

    fn count(&mut self, change: impl FnOnce(&mut Counters)) {
        if self.mode == Mode::Live {
            change(&mut self.counters);
        }
    }

    /// Counts events that were decoded.
    pub fn decoded(&mut self, events: u64) {
        self.count(|counters| counters.events += events);
    }

    /// A heartbeat: at `now_ms` a topic had nothing more to read.
    pub fn nothing_to_read(&mut self, topic: usize, now_ms: i64) {
        self.watermark.nothing_to_read(topic, now_ms);
    }

    /// Takes what the store holds of an open cell, where the log has lost what its state was made
    /// of: from then on the cell grows by what is not among these members. `texts` are request ids
    /// as they were written; `counts` were served. Cells that the settings do not have are left.
    ///
    /// Call it before the first event. What is counted stays a part of the true sets, but a play
    /// whose impression was lost cannot be matched: the caller records a gap.
    pub fn seed(&mut self, cell: &CellKey, members: [Vec<RequestKey>; 2], counts: CellCounts) {
        let settings = &self.settings.settings;
        let longest_ms = settings.longest_ms();
        let epoch = settings.epoch_of(cell.epoch_start_ms);
        let length = settings.epochs_ms.iter().position(|ms| *ms == cell.epoch_ms);
        let Some(length) = length.filter(|_| epoch >= self.join.frontier()) else { return };
        let place = CellPlace {
            epoch,
            video: self.symbols.videos.intern(cell.video.as_bytes(), epoch),
            slice: self.symbols.slices.intern(cell.slice.as_bytes(), epoch),
            length: length as u8,
            start_offset_ms: (cell.epoch_start_ms - epoch * longest_ms) as u32,
        };
        self.aggregate.seed(&place, members, counts);
    }

    /// The key that stands for a request id in this generation.
    pub fn request_key(&self, request_id: &str) -> RequestKey {
        self.hasher.key_of(request_id)
    }

    /// The history has been fed again: the state is whole, and the lane goes on from its commit.
    pub fn rebuilt(&mut self) {
        self.mode = Mode::Live;
    }

    /// Whether the lane still catches up with its last commit.
    pub fn is_rebuilding(&self) -> bool {
        self.mode != Mode::Live
    }

    /// Ends a batch: what must be durable before its offsets are committed.
    pub fn batch(&mut self) -> LaneBatch<'_> {
        debug_assert!(self.waiting.is_empty(), "what was taken is applied before the batch ends");
        debug_assert!(!self.is_rebuilding(), "no count is written from a group that is not whole");
        let cells = self.aggregate.changes();
        LaneBatch { cells, lane: self }
    }

    /// Whether cells have changed that no batch has taken yet.
    pub fn has_changes(&self) -> bool {
        self.aggregate.has_changes()
    }

    /// The batch is durable. Drops the epochs that are gone by now, and with them their symbols.
    ///
    /// Time stands still while rebuilding: the log is read again in another interleaving than the
    /// first time, and a group that went before its last event came would come out short.
    pub fn advance(&mut self) {
        if self.is_rebuilding() {
            return;
        }
        debug_assert!(!self.has_changes(), "changes are taken by a batch before time moves");
        self.aggregate.forget_requests();
        let Some(watermark_ms) = self.watermark.advance() else { return };
        let before = self.join.kept_from();
        self.join.drop_before(watermark_ms);
        self.aggregate.drop_before(self.join.frontier());
        if self.join.kept_from() > before {
            self.symbols.sweep(self.join.kept_from());
        }
    }

    /// Moves the oldest part of the state that is worth it, at least so many bytes, to disk. Returns
    /// about how many bytes of memory became free, 0 where there is no such part.
    pub fn make_room(
        &mut self,
        place: &dyn ColdPlace,
        at_least: usize,
    ) -> Result<usize, ColdError> {
        self.join.spill(place, at_least)
    }

    /// Why a part of the state on disk could not be read back, if that has happened: then the state
    /// is not whole any more (invariant WHOLE), and nothing of it may be written.
    pub fn cold_failure(&self) -> Option<&ColdError> {
        self.join.failure()
    }

    /// All cells of open epochs, to be compared with the store after a rebuild.
    pub fn open_cells(&self) -> impl Iterator<Item = CellView<'_>> {
        self.aggregate.open_cells().map(|cell| self.view(&cell))
    }

    /// Number of cells of open epochs.
    pub fn open_cell_count(&self) -> usize {
        self.aggregate.len()
    }

    fn view(&self, cell: &CellChange) -> CellView<'_> {
        let settings = &self.settings.settings;
        let epoch_start_ms = cell.epoch * settings.longest_ms() + i64::from(cell.start_offset_ms);
        CellView {
            video: self.symbols.video_text(cell.video),
            slice: self.symbols.slice_text(cell.slice),
            epoch_start_ms,
            epoch_ms: settings.epochs_ms[cell.length as usize],
            counts: cell.counts,
        }
    }

    /// The first epoch that is open, as a number of longest epochs since 1970.
    pub fn frontier(&self) -> i64 {
        self.join.frontier()
    }

    /// The watermark, milliseconds since 1970 UTC.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.watermark.reached_ms()
    }

    /// The largest event time read from a topic: on catch-up the topic that is ahead waits.
    pub fn progress_ms(&self, topic: usize) -> Option<i64> {
        self.watermark.progress_ms(topic)
    }

    /// What has been read up to the lane's position.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What has found its partner since this state was begun.
    pub fn matches(&self) -> &Matches {
        &self.matches
    }

    /// How large the state is, symbols and cells included.
    pub fn size(&self) -> StateSize {
        let mut size = self.join.size();
        size.memory_bytes += self.symbols.memory_bytes() + self.aggregate.memory_bytes();
        size
    }

    /// The settings of the join.
    pub fn settings(&self) -> &Settings {
        &self.settings.settings
    }
}

/// The stages, as a snapshot writes them.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a LaneSettings,
    pub(crate) symbols: &'a Symbols,
    pub(crate) watermark: &'a Watermark,
    pub(crate) join: &'a Join,
    pub(crate) aggregate: &'a Aggregate,
}

/// The stages, as a snapshot fills them.
pub(crate) struct PartsMut<'a> {
    pub(crate) symbols: &'a mut Symbols,
    pub(crate) watermark: &'a mut Watermark,
    pub(crate) join: &'a mut Join,
    pub(crate) aggregate: &'a mut Aggregate,
}

/// What [`crate::snapshot`] needs.
impl LanePipeline {
    /// Whether a snapshot can hold the state: it is whole, follows from the log alone, and all of it
    /// was given to be written.
    pub fn can_be_saved(&self) -> bool {
        let is_whole = self.mode == Mode::Live && self.join.failure().is_none();
        debug_assert!(self.waiting.is_empty(), "what was taken is applied before it is saved");
        is_whole && !self.has_changes() && !self.aggregate.is_seeded()
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let LanePipeline { settings, symbols, watermark, join, aggregate, .. } = self;
        Parts { settings, symbols, watermark, join, aggregate }
    }

    /// A lane that is filled from a snapshot, and then catches up with its commit.
    pub(crate) fn to_be_loaded(settings: LaneSettings, resume: Resume, kept_from: i64) -> Self {
        Self::with(settings, resume, kept_from, Mode::Rebuilding)
    }

    pub(crate) fn parts_mut(&mut self) -> PartsMut<'_> {
        let LanePipeline { symbols, watermark, join, aggregate, .. } = self;
        PartsMut { symbols, watermark, join, aggregate }
    }

    pub(crate) fn kept_from(&self) -> i64 {
        self.join.kept_from()
    }

    /// Frees the symbols of epochs that have gone since the snapshot.
    pub(crate) fn sweep_symbols(&mut self) {
        self.symbols.sweep(self.join.kept_from());
    }
}

/// A cell with its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellView<'a> {
    /// Start of the cell's epoch.
    pub epoch_start_ms: i64,
    /// Length of the cell's epoch.
    pub epoch_ms: i64,
    /// The slice as JSON, empty for the empty slice.
    pub slice: &'a str,
    /// The video.
    pub video: &'a str,
    /// Cardinalities of this lane's part of the cell's sets.
    pub counts: CellCounts,
}

/// What a batch must write: each changed cell once.
pub struct LaneBatch<'a> {
    cells: Vec<CellChange>,
    lane: &'a LanePipeline,
}

/// A changed cell and the members that the batch adds to it.
pub struct ChangedCell<'a> {
    /// The cell and its counts after the batch.
    pub cell: CellView<'a>,
    change: &'a CellChange,
    lane: &'a LanePipeline,
}

impl LaneBatch<'_> {
    /// Number of changed cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing has to be written.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The changed cells.
    pub fn cells(&self) -> impl Iterator<Item = ChangedCell<'_>> {
        (0..self.len()).map(|number| self.cell(number))
    }

    /// The changed cell of a number below [`LaneBatch::len`].
    pub fn cell(&self, number: usize) -> ChangedCell<'_> {
        let change = &self.cells[number];
        ChangedCell { cell: self.lane.view(change), change, lane: self.lane }
    }
}

impl ChangedCell<'_> {
    /// Whether the batch adds members to one side, and with them to its count.
    pub fn has_new(&self, side: Side) -> bool {
        match side {
            Side::Impressions => !self.change.impressions.is_empty(),
            Side::Plays => !self.change.plays.is_empty(),
        }
    }

    /// Chunk of the new members of one side; empty where there are none.
    pub fn chunk(&self, side: Side) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_chunk(side, &mut bytes);
        bytes
    }

    /// Appends the chunk of the new members of one side, and nothing where there are none.
    pub fn write_chunk(&self, side: Side, bytes: &mut Vec<u8>) {
        let requests = match side {
            Side::Impressions => &self.change.impressions,
            Side::Plays => &self.change.plays,
        };
        if !requests.is_empty() {
            chunk::encode_into(bytes, self.lane.aggregate.added(requests));
        }
    }
}
