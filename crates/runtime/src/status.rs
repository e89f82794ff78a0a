//! What the owners of lanes tell everybody else: a board that each lane writes after each commit.
//!
//! All numbers but those named `replayed` are functions of the log position: doing work again
//! does not change them (invariant HONEST).

use crate::archive::ArchiveStatus;
use crate::examples::ExamplesStatus;
use crate::history::{BatchNote, Bucket, History, Kept, LetterSample};
use marquee_pipeline::lane::Counters;
use marquee_pipeline::matches::Matches;
use marquee_sinks::letters::LetterKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How one lane is doing, as of its last commit (or, while it rebuilds, as of its last batch).
#[derive(Clone, Debug, Default)]
pub struct LaneStatus {
    /// Number of the lane.
    pub lane: u32,
    /// Whether an owner of this process has the lane. Without one it has no numbers here.
    pub held: bool,
    /// Whether the store may lack what another process has counted of the lane: it gets it with the
    /// first batch after the rebuild.
    pub is_behind_group: bool,
    /// Whether the state is being rebuilt from the log: results wait until it is whole.
    pub rebuilding: bool,
    /// While it is being rebuilt: records that were read again, of how many.
    pub rebuilt_records: (u64, u64),
    /// While it is being rebuilt: how long the rest of them takes if it goes on as until now.
    pub rebuild_left: Option<Duration>,
    /// Next offset to read by topic: everything before it is durable in the store.
    pub next_offsets: Vec<u64>,
    /// End of the log by topic.
    pub end_offsets: Vec<u64>,
    /// What was read up to `next_offsets`.
    pub counters: Counters,
    /// What has found its partner since the process began to count.
    pub matches: Matches,
    /// Milliseconds since 1970 UTC, `None` before enough was read.
    pub watermark_ms: Option<i64>,
    /// Start of the first open epoch, milliseconds since 1970 UTC.
    pub frontier_ms: i64,
    /// Memory of the join state, in bytes.
    pub state_bytes: u64,
    /// Bytes of it that lie on disk, beyond the memory limit.
    pub state_disk_bytes: u64,
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
    /// Records that the lane's position moved on by, per second, over the last ten seconds or so.
    /// Reading again moves no position.
    pub records_per_second: f64,
    /// The last snapshot of the state that this process has taken.
    pub snapshot: Option<SnapshotStatus>,
}

/// A snapshot that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// When it was durable, milliseconds since 1970 UTC.
    pub taken_ms: i64,
    /// Its length.
    pub bytes: u64,
    /// How long the lane stood still for it.
    pub took: Duration,
}

impl LaneStatus {
    /// Records in the log that are not counted yet.
    pub fn lag(&self) -> u64 {
        let pairs = self.end_offsets.iter().zip(&self.next_offsets);
        pairs.map(|(end, next)| end.saturating_sub(*next)).sum()
    }
}

/// What the scheduled repair has done since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStatus {
    /// Runs that were finished.
    pub runs: u64,
    /// Runs that failed.
    pub failures: u64,
    /// Members that were added to closed epochs.
    pub added_members: u64,
    /// Gaps that were filled, wholly or in part.
    pub filled_gaps: u64,
    /// Cells that still differed after the last run that was finished.
    pub left_cells: u64,
    /// When that was, milliseconds since 1970 UTC.
    pub last_success_ms: Option<i64>,
}

/// All lanes, and whether the process can go on.
#[derive(Debug, Default)]
pub struct StatusBoard {
    inner: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    lanes: Vec<LaneStatus>,
    /// Owners that have been given no lanes yet, or none again.
    waiting: usize,
    /// What keeps an owner from reading, by owner.
    troubles: BTreeMap<usize, String>,
    failure: Option<String>,
    /// `None` where none is scheduled.
    repair: Option<RepairStatus>,
    /// `None` where none are made.
    examples: Option<ExamplesStatus>,
    /// `None` where raw records are not kept.
    archive: Option<ArchiveStatus>,
    history: History,
}

impl StatusBoard {
    /// A board for a number of lanes, of which a number of owners wait to be given their shares.
    pub fn new(lanes: u32, owners: usize) -> Self {
        let lane = |lane| LaneStatus { lane, ..LaneStatus::default() };
        let lanes = (0..lanes).map(lane).collect();
        StatusBoard { inner: Mutex::new(Board { lanes, waiting: owners, ..Board::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // A board is plain numbers: it is usable whatever happened to whoever held it.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// An owner was given lanes, which it has to rebuild first. `is_shared`: another process may
    /// have had them.
    pub fn give(&self, lanes: impl Iterator<Item = u32>, is_shared: bool) {
        let mut board = self.lock();
        board.waiting = board.waiting.saturating_sub(1);
        for lane in lanes {
            board.lanes[lane as usize] = LaneStatus {
                lane,
                held: true,
                is_behind_group: is_shared,
                rebuilding: true,
                ..LaneStatus::default()
            };
        }
    }

    /// An owner has given up its lanes and waits for others.
    pub fn take_back(&self, lanes: impl Iterator<Item = u32>) {
        let mut board = self.lock();
        board.waiting += 1;
        for lane in lanes {
            board.lanes[lane as usize] = LaneStatus { lane, ..LaneStatus::default() };
        }
    }

    /// What keeps an owner from reading, if anything does.
    pub fn trouble(&self, owner: usize, trouble: Option<String>) {
        let mut board = self.lock();
        match trouble {
            Some(trouble) => board.troubles.insert(owner, trouble),
            None => board.troubles.remove(&owner),
        };
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

    /// Notes a batch that was written, after the lanes were [`set`](Self::set).
    pub fn note_batch(&self, note: &BatchNote) {
        let Board { lanes, history, .. } = &mut *self.lock();
        history.note_batch(note, lanes);
    }

    /// Keeps samples of letters.
    pub fn note_letters(&self, samples: Vec<(LetterKind, LetterSample)>) {
        let mut board = self.lock();
        samples.into_iter().for_each(|(kind, sample)| board.history.note_letter(kind, sample));
    }

    /// The last letters of a kind that this process has written, the newest first.
    pub fn letters(&self, kind: LetterKind) -> Vec<LetterSample> {
        self.lock().history.letters(kind)
    }

    /// Batches that ended from a time on (milliseconds since 1970 UTC), added up by second (half
    /// an hour of them is kept) or by minute (a day), the oldest first.
    pub fn history(&self, from_ms: i64, by_minute: bool) -> Vec<Bucket> {
        self.lock().history.buckets(from_ms, by_minute)
    }

    pub(crate) fn kept_history(&self) -> Kept {
        self.lock().history.kept()
    }

    pub(crate) fn restore_history(&self, kept: Kept) {
        self.lock().history.restore(kept);
    }

    /// Notes that an owner failed: the process is about to end.
    pub fn fail(&self, reason: &str) {
        self.lock().failure.get_or_insert_with(|| reason.to_owned());
    }

    /// Why the process cannot go on.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Notes what the scheduled repair has done; it is scheduled from the first note on.
    pub fn note_repair(&self, note: impl FnOnce(&mut RepairStatus)) {
        note(self.lock().repair.get_or_insert_default());
    }

    /// Notes what was copied of the log since the start.
    pub fn note_archive(&self, status: ArchiveStatus) {
        self.lock().archive = Some(status);
    }

    /// What was copied of the log; `None` where raw records are not kept.
    pub fn archive(&self) -> Option<ArchiveStatus> {
        self.lock().archive
    }

    /// Notes what was made of training examples since the start.
    pub fn note_examples(&self, status: ExamplesStatus) {
        self.lock().examples = Some(status);
    }

    /// What was made of training examples; `None` where none are made.
    pub fn examples(&self) -> Option<ExamplesStatus> {
        self.lock().examples
    }

    /// What the scheduled repair has done; `None` where none is scheduled.
    pub fn repair(&self) -> Option<RepairStatus> {
        self.lock().repair
    }

    /// Reasons why results are not up to date; empty when ready.
    pub fn reasons_not_ready(&self) -> Vec<String> {
        let board = self.lock();
        let mut reasons: Vec<String> = board.failure.iter().cloned().collect();
        // Several owners mostly have the same trouble.
        reasons.extend(board.troubles.values().cloned().collect::<BTreeSet<_>>());
        if board.waiting > 0 {
            reasons.push("waiting to be given lanes by the consumer group".to_owned());
        }
        let rebuilding = board.lanes.iter().filter(|lane| lane.rebuilding);
        reasons.extend(rebuilding.map(|lane| {
            let (read, all) = lane.rebuilt_records;
            let share = (100 * read).checked_div(all).map(|p| format!(", {p} % of {all} records"));
            let left =
                lane.rebuild_left.map(|left| format!(", about {} s left", left.as_secs() + 1));
            let (share, left) = (share.unwrap_or_default(), left.unwrap_or_default());
            format!("lane {} is rebuilding its state{share}{left}", lane.lane)
        }));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_says_how_far_it_is_and_how_long_the_rest_takes() {
        let board = StatusBoard::new(1, 1);
        board.give([0].into_iter(), false);
        assert_eq!(board.reasons_not_ready(), ["lane 0 is rebuilding its state"]);
        let rebuilding = LaneStatus {
            rebuilding: true,
            rebuilt_records: (250, 1000),
            rebuild_left: Some(Duration::from_millis(11_200)),
            ..LaneStatus::default()
        };
        board.set(rebuilding);
        let said = "lane 0 is rebuilding its state, 25 % of 1000 records, about 12 s left";
        assert_eq!(board.reasons_not_ready(), [said]);
        board.set(LaneStatus::default());
        assert_eq!(board.reasons_not_ready(), Vec::<String>::new());
    }
}
