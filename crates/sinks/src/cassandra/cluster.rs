//! The cluster as the store sees it: tables that take writes in any order, and keep of each column
//! the write with the largest timestamp.
//!
//! That is all that the store relies on, so it stands behind a small trait: [`super::session`] is a
//! real cluster, and the simulation puts one in its place that loses acknowledgements and reorders
//! writes. Nothing here decides what is counted.

use marquee_model::Side;
use std::borrow::Cow;
use thiserror::Error;

/// A partition of counts: some videos of one slice of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition<'a> {
    /// Length of the epoch, milliseconds.
    pub epoch_ms: i64,
    /// Start of the epoch, milliseconds since 1970 UTC.
    pub epoch_start_ms: i64,
    /// The slice as JSON, empty for the empty slice.
    pub slice: Cow<'a, str>,
    /// Which of the store's buckets of videos.
    pub bucket: u8,
}

impl Partition<'_> {
    /// With a slice of its own.
    pub fn into_owned(self) -> Partition<'static> {
        Partition { slice: Cow::Owned(self.slice.into_owned()), ..self }
    }
}

/// The name of a value of members: 8 bytes of the position up to which its batch reaches, big-endian, then
/// a hash. Rows of a part are in the order of names.
pub type ValueName = [u8; 24];

/// One column of one row, to be written under a timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where, and what.
    pub column: Column<'a>,
    /// Of two writes to a column the one with the larger timestamp stays, whichever comes last.
    pub timestamp: i64,
    /// After how many seconds the column is gone; 0: never. Of two writes with one timestamp the one
    /// that goes later stays.
    pub ttl_seconds: i32,
}

/// One column of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// A count of one side of one lane's part of a cell.
    Count {
        /// Partition of the cell.
        at: Partition<'a>,
        /// The video.
        video: &'a str,
        /// The lane.
        lane: u32,
        /// Which of both counts.
        side: Side,
        /// The count.
        count: u64,
    },
    /// Members that a batch adds to the cells of a partition.
    Members {
        /// Partition of the cells.
        at: Partition<'a>,
        /// The lane.
        lane: u32,
        /// Which part of the lane's members of the partition.
        part: i32,
        /// Made from offsets and content, so that nobody overwrites another's.
        name: ValueName,
        /// Videos and chunks of request ids.
        ids: &'a [u8],
    },
    /// There is such a part of members.
    Part {
        /// Partition of the cells.
        at: Partition<'a>,
        /// The lane.
        lane: u32,
        /// The part.
        part: i32,
    },
    /// There are cells of this slice and epoch.
    Slice {
        /// Length of the epoch, milliseconds.
        epoch_ms: i64,
        /// Start of the epoch.
        epoch_start_ms: i64,
        /// The slice.
        slice: &'a str,
    },
    /// There are cells in this page of epochs.
    Page {
        /// Length of the epochs, milliseconds.
        epoch_ms: i64,
        /// Number of the page.
        page: i64,
    },
    /// The first open epoch of a lane.
    Frontier {
        /// The lane.
        lane: u32,
        /// Number of the longest epoch.
        frontier: i64,
    },
    /// From where a lane goes on.
    State {
        /// The lane.
        lane: u32,
        /// The state, as JSON.
        state: &'a str,
    },
    /// A gap.
    Gap {
        /// The gap, as JSON.
        gap: &'a str,
    },
    /// A repair.
    Repair {
        /// The repair, as JSON.
        repair: &'a str,
    },
}

impl Column<'_> {
    /// The partition that a count belongs to.
    pub(super) fn partition_of_count(&self) -> Option<&Partition<'_>> {
        match self {
            Column::Count { at, .. } => Some(at),
            _ => None,
        }
    }
}

/// A row of counts. A column that was never written is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountRow {
    /// The video.
    pub video: String,
    /// The lane.
    pub lane: u32,
    /// Requests that showed it.
    pub impressions: u64,
    /// Requests that played it.
    pub plays: u64,
}

/// Which rows of a partition of counts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select<'a> {
    /// All of them.
    All,
    /// Those of one lane.
    Lane(u32),
    /// Those of one video.
    Video(&'a str),
}

/// A part of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Bucket of the partition.
    pub bucket: u8,
    /// The lane.
    pub lane: u32,
    /// The part.
    pub part: i32,
}

/// What is known of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneRow {
    /// The first open epoch; `None` where it was never written.
    pub frontier: Option<i64>,
    /// The state and its timestamp.
    pub state: Option<(String, i64)>,
}

/// Why the cluster did not do what it was asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClusterError {
    /// It does not answer, or not in time, or has too much to do: it may be asked again.
    #[error("{0}")]
    Unavailable(String),
    /// It will not do it however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// It answers, but has no such tables.
    #[error("{0}")]
    NoTables(String),
}

/// Writes that were not all acknowledged. Each one may have happened all the same.
#[derive(Debug)]
pub struct NotWritten {
    /// Indices of those that were not acknowledged, ascending.
    pub left: Vec<usize>,
    /// Why, for one of them.
    pub error: ClusterError,
}

/// Tables of one keyspace. All rows but those of generations belong to the generation that is named.
pub trait Cluster: Send + Sync {
    /// The generation that the keyspace belongs to, as JSON.
    fn generation(&self) -> Result<Option<String>, ClusterError>;

    /// Gives the keyspace to a generation, unless it has one: what it has then.
    fn create_generation(&self, generation: &str) -> Result<String, ClusterError>;

    /// Writes columns in any order; on return all of them are acknowledged.
    fn write(&self, generation: &str, writes: &[Write<'_>]) -> Result<(), NotWritten>;

    /// The pages of epochs that have cells, ascending.
    fn pages(&self, generation: &str, epoch_ms: i64) -> Result<Vec<i64>, ClusterError>;

    /// Starts and slices of the epochs of a page, ascending.
    fn slices(
        &self,
        generation: &str,
        epoch_ms: i64,
        page: i64,
    ) -> Result<Vec<(i64, String)>, ClusterError>;

    /// Rows of some partitions of counts, for each of them by video and lane.
    fn counts(
        &self,
        generation: &str,
        partitions: &[Partition<'_>],
        select: Select<'_>,
    ) -> Result<Vec<Vec<CountRow>>, ClusterError>;

    /// The parts of members of the partitions of a slice of an epoch, whatever `at.bucket` is.
    fn parts(&self, generation: &str, at: &Partition<'_>) -> Result<Vec<Part>, ClusterError>;

    /// Calls `each` with name and content of what stands in a lane's part of members under names not
    /// smaller than this one; an empty one: of all.
    fn members(
        &self,
        generation: &str,
        at: &Partition<'_>,
        of: (u32, i32),
        from_name: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), ClusterError>;

    /// What is known of one lane.
    fn lane(&self, generation: &str, lane: u32) -> Result<LaneRow, ClusterError>;

    /// The frontiers of all lanes that have one.
    fn frontiers(&self, generation: &str) -> Result<Vec<(u32, i64)>, ClusterError>;

    /// All gaps, as JSON.
    fn gaps(&self, generation: &str) -> Result<Vec<String>, ClusterError>;

    /// All repairs, as JSON.
    fn repairs(&self, generation: &str) -> Result<Vec<String>, ClusterError>;
}
