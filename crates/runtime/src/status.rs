//! What the owners of lanes tell everybody else: a board that each lane writes after each commit.
//!
//! All numbers but those named `replayed` are functions of the log position: doing work again
//! does not change them (invariant HONEST).

use marquee_pipeline::lane::Counters;
use std::sync::{Mutex, MutexGuard};

/// How one lane is doing, as of its last commit (or, while it rebuilds, as of its last batch).
#[derive(Clone, Debug, Default)]
pub struct LaneStatus {
    /// Number of the lane.
    pub lane: u32,
    /// Whether the state is being rebuilt from the log: results wait until it is whole.
    pub rebuilding: bool,
    /// Next offset to read by topic: everything before it is durable in the store.
    pub next_offsets: Vec<u64>,
    /// End of the log by topic.
    pub end_offsets: Vec<u64>,
    /// What was read up to `next_offsets`.
    pub counters: Counters,
    /// Milliseconds since 1970 UTC, `None` before enough was read.
    pub watermark_ms: Option<i64>,
    /// Start of the first open epoch, milliseconds since 1970 UTC.
    pub frontier_ms: i64,
    /// Memory of the join state, in bytes.
    pub state_bytes: u64,
    /// Cells of open epochs.
    pub open_cells: u64,
    /// Records read again to rebuild the state since the process started.
    pub replayed_records: u64,
    /// Batches since the process started.
    pub batches: u64,
    /// Seconds that the last batch took, from reading to the durable commit.
    pub last_batch_seconds: f64,
    /// Records in the last batch.
    pub last_batch_records: u64,
}

impl LaneStatus {
    /// Records in the log that are not counted yet.
    pub fn lag(&self) -> u64 {
        let pairs = self.end_offsets.iter().zip(&self.next_offsets);
        pairs.map(|(end, next)| end.saturating_sub(*next)).sum()
    }
}

/// All lanes, and whether the process can go on.
#[derive(Debug, Default)]
pub struct StatusBoard {
    inner: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    lanes: Vec<LaneStatus>,
    failure: Option<String>,
}

impl StatusBoard {
    /// A board for a number of lanes, all of which are still rebuilding.
    pub fn new(lanes: u32) -> Self {
        let lane = |lane| LaneStatus { lane, rebuilding: true, ..LaneStatus::default() };
        let board = Board { lanes: (0..lanes).map(lane).collect(), failure: None };
        StatusBoard { inner: Mutex::new(board) }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // A board is plain numbers: it is usable whatever happened to whoever held it.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// All lanes as they are now.
    pub fn lanes(&self) -> Vec<LaneStatus> {
        self.lock().lanes.clone()
    }

    /// Replaces what is known of a lane.
    pub fn set(&self, status: LaneStatus) {
        let lane = status.lane as usize;
        self.lock().lanes[lane] = status;
    }

    /// Notes that an owner failed: the process is about to end.
    pub fn fail(&self, reason: &str) {
        self.lock().failure.get_or_insert_with(|| reason.to_owned());
    }

    /// Why the process cannot go on.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Reasons why results are not up to date; empty when ready.
    pub fn reasons_not_ready(&self) -> Vec<String> {
        let board = self.lock();
        let mut reasons: Vec<String> = board.failure.iter().cloned().collect();
        let rebuilding = board.lanes.iter().filter(|lane| lane.rebuilding);
        reasons
            .extend(rebuilding.map(|lane| format!("lane {} is rebuilding its state", lane.lane)));
        reasons
    }
}
