//! Cells and what is counted in them.

/// What happened: a video was shown, or a video was played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A video appeared in the viewport.
    Impression,
    /// The member played a video.
    Play,
}

impl Kind {
    /// The name used in topics, messages and files: `impressions` or `plays`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Impression => "impressions",
            Kind::Play => "plays",
        }
    }
}

/// One of the two sets of a cell. It has the same two values as [`Kind`], but another meaning: a
/// play (a [`Kind`]) can add members to both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Requests that showed the video.
    Impressions,
    /// Requests that played it.
    Plays,
}

impl Side {
    /// Both, in the order in which they are told everywhere.
    pub const BOTH: [Side; 2] = [Side::Impressions, Side::Plays];
}

/// One `(video, epoch, slice)`, across all lanes.
///
/// Ordered as the contract sorts cells: by video id (bytewise), epoch, slice; then by length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The video that is counted, after the transform.
    pub video: String,
    /// Start of the epoch, milliseconds since 1970 UTC.
    pub epoch_start_ms: i64,
    /// The slice as compact JSON with sorted keys; empty for the empty slice.
    pub slice: String,
    /// Length of the epoch in milliseconds.
    pub epoch_ms: i64,
}

/// The cardinalities of a cell's two sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellCounts {
    /// Number of distinct requests that showed the video.
    pub impressions: u64,
    /// Number of distinct requests that played it.
    pub plays: u64,
}

impl CellCounts {
    /// The sum of two counts of disjoint sets (other lanes, other buckets of requests).
    pub fn plus(self, other: CellCounts) -> CellCounts {
        CellCounts {
            impressions: self.impressions + other.impressions,
            plays: self.plays + other.plays,
        }
    }

    /// Plays per impression; `None` where nothing was shown.
    pub fn take_rate(self) -> Option<f64> {
        (self.impressions > 0).then(|| self.plays as f64 / self.impressions as f64)
    }
}
