//! Where records come from. In the order of the data: [`files`] that end and logs that do not (one
//! folder each: [`embedded`], [`kafka`]), and the decoding of their records, [`json`].
//!
//! Small traits are the seam to whoever drives the pipeline: a [`Source`] is one owner thread's
//! share of a log, an [`Appender`] takes records for it, and a [`Replay`] reads it once more.

pub mod embedded;
pub mod files;
pub mod json;
pub mod kafka;

use std::borrow::Cow;
use std::time::Duration;
use thiserror::Error;

pub use embedded::NewRecord;

/// One record of a log.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset in its lane of its topic.
    pub offset: u64,
    /// The log's own timestamp, milliseconds since 1970 UTC; `None` where it has none.
    pub record_time_ms: Option<i64>,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its payload; `None` for a null value (Kafka's tombstone), which is no event.
    pub payload: Option<&'a [u8]>,
    /// Its headers, where somebody uses them.
    pub headers: &'a [(Cow<'a, str>, Cow<'a, str>)],
}

/// How many records a source lends at a time: few enough to stay in the cache that is next to a
/// core, with the records that they point into.
pub const STRETCH: usize = 32;
/// And how many bytes of payloads, where more than one record has them.
pub const STRETCH_BYTES: usize = 64 << 10;

/// How much one read may give out.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Only records before this offset.
    pub before: u64,
    /// So many records.
    pub records: usize,
    /// About so many bytes; the first record is given out whatever its size.
    pub bytes: usize,
}

/// A lane that an owner has been given, and what the log knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedLane {
    /// The lane.
    pub lane: u32,
    /// For each topic the first offset that is still there.
    pub start_offsets: Vec<u64>,
    /// For each topic the offset that the next record will get.
    pub end_offsets: Vec<u64>,
    /// What was committed with the lane's offsets, by whoever owned it last; one note for each
    /// topic that has one. Each note tells of all topics.
    pub notes: Vec<String>,
}

/// What has changed in an owner's share.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// These lanes are its share now, all of them new to it. It calls [`Source::start`] next.
    Assigned(Vec<AssignedLane>),
    /// All its lanes are taken away: it finishes what it has read, commits, and calls
    /// [`Source::release`].
    Revoked,
}

/// What an owner tells the log after its results are durable.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The lane.
    pub lane: u32,
    /// The next offset to read, by topic.
    pub next_offsets: &'a [u64],
    /// What the next owner of the lane needs to know.
    pub note: String,
}

/// One owner thread's share of a log of topics, each of which has the same number of lanes.
///
/// Which lanes an owner has may change: [`Source::change`] says so between two batches. An owner
/// reads a lane's topics at the pace that it chooses; what it does not read is not fetched either,
/// beyond a bound.
pub trait Source: Send {
    /// What has changed since the last call.
    fn change(&mut self) -> Result<Change, SourceError>;

    /// Whether the next [`Source::change`] takes the lanes away: long work can be given up.
    fn is_revoked(&mut self) -> bool;

    /// Begins to read all assigned lanes, each topic from an offset on.
    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError>;

    /// Goes to other offsets of a lane that was started.
    fn seek(&mut self, lane: u32, from: &[u64]) -> Result<(), SourceError>;

    /// Gives up all lanes.
    fn release(&mut self) -> Result<(), SourceError>;

    /// Gives out records of a lane that are there, in the order of their offsets, and returns the
    /// offset before which none is left to read. They come a few at a time, at least one and at
    /// most [`STRETCH`] of about [`STRETCH_BYTES`]: whoever takes them can do each step for all.
    fn read(
        &mut self,
        topic: usize,
        lane: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError>;

    /// Whether a read would give something out at once.
    fn has_data(&self, topic: usize, lane: u32) -> bool;

    /// Whether the topic has nothing to read in this lane, and would have told if it had: not while
    /// it is paused, failing, or on its way.
    fn is_idle(&self, topic: usize, lane: u32) -> bool;

    /// The offset that the next record will get, as far as is known here and now; the position,
    /// where everything was read.
    fn end_offset(&self, topic: usize, lane: u32) -> u64;

    /// The end of each topic of a lane, asked anew; `None` where it cannot be asked now.
    fn ends_now(&self, _lane: u32) -> Option<Vec<u64>> {
        None
    }

    /// Tells the log how far results are durable. May return before the log has taken it; the
    /// number that it returns is below or equal to [`Source::confirmed`] once the log has.
    fn commit(&mut self, commits: &[Commit<'_>]) -> Result<u64, SourceError>;

    /// The number of the last commit that the log is known to have taken.
    fn confirmed(&self) -> u64;

    /// The number of the last commit that the log has refused, or that could not be sent: of it and
    /// of those before it nothing more is known, also when a later one, perhaps of other lanes, was
    /// taken. 0 where none was.
    fn refused(&self) -> u64 {
        0
    }

    /// Waits until the log has taken what was committed, for a bounded time.
    fn flush_commits(&mut self);

    /// Sleeps until there is something to read or the share may have changed, at most this long.
    fn wait(&mut self, timeout: Duration);

    /// What keeps records from coming, while something does.
    fn trouble(&self) -> Option<String>;

    /// Whether a stop reads on to the end of the log: where nobody else will read it.
    fn ends_with_process(&self) -> bool;
}

/// A log that is read again, beside those who own its lanes: nothing is taken from them, and nothing
/// is committed. One topic of one lane is read at a time.
pub trait Replay: Send {
    /// The first offset that is there, and the one that the next record will get.
    fn bounds(&mut self, topic: usize, lane: u32) -> Result<(u64, u64), SourceError>;

    /// An offset before which every record that is there is stamped before a time: the start, where
    /// the log keeps no times that it could be asked for.
    fn first_at(&mut self, topic: usize, lane: u32, time_ms: i64) -> Result<u64, SourceError>;

    /// Goes to an offset that is there, or to the end.
    fn seek(&mut self, topic: usize, lane: u32, offset: u64) -> Result<(), SourceError>;

    /// Gives out records from there on as [`Source::read`] does, and returns the offset before which
    /// none is left to read; `None` at the limit, or at the end as it was when it was gone to. Waits
    /// for a moment where records are on their way.
    fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError>;
}

/// Takes records for a log.
pub trait Appender: Send + Sync {
    /// Appends records; durable on return. Says where they stand, in no order, as far as that is known.
    fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<embedded::Position>, SourceError>;
}

impl Appender for embedded::EmbeddedLog {
    fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<embedded::Position>, SourceError> {
        Ok(embedded::EmbeddedLog::append(self, batch)?)
    }
}

/// A log that cannot go on.
#[derive(Debug, Clone, Error)]
pub enum SourceError {
    /// The embedded log failed.
    #[error(transparent)]
    Embedded(#[from] embedded::LogError),
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] kafka::KafkaError),
    /// A copy of the log, which answers for what the log has deleted, failed.
    #[error("{0}")]
    Archive(String),
    /// What should be read next is not there.
    #[error(
        "lane {lane} of topic {topic}: offset {position} should be read next, but the log holds \
         {start} to {end}; the log was cut or replaced. Restore it, or start a new generation, with \
         another [log] group and [store] path"
    )]
    OutOfRange {
        /// The topic's name.
        topic: String,
        /// Its index.
        topic_index: usize,
        /// The lane.
        lane: u32,
        /// What should be read next.
        position: u64,
        /// The first offset held.
        start: u64,
        /// The offset that the next record will get.
        end: u64,
    },
}
