//! Where deltas go. Two small traits: a [`Sink`] takes what lanes commit, a [`Store`] also answers
//! what was counted; one folder for each store behind them: [`embedded`] and [`cassandra`].
//!
//! A sink takes whole batches of one lane: the members that are new, the counts of the changed
//! cells, and the state from which the lane goes on. It never takes anything back (invariant
//! MONO), and it says "durable" only for what is synced.

pub mod cassandra;
pub mod cells;
pub mod embedded;
mod gaps;
mod generation;
pub mod lake;
mod layout;
pub mod letters;
pub mod snapshots;

pub use gaps::{Gap, Repair};
pub use generation::{Generation, Identity};

use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::LaneBatch;
use marquee_pipeline::chunk::Id;
use marquee_pipeline::lane::Counters;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// A store of counts and members.
pub trait Sink: Send + Sync {
    /// Whether other processes may write into it, too, and a commit is not one atomic write. Then it
    /// may hold more of a lane than the state of its last commit tells of, which is no damage.
    fn is_shared(&self) -> bool {
        false
    }

    /// The state of a lane's last durable commit; `None` for a lane without history.
    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError>;

    /// Writes the batches of some lanes and the states after them, all or nothing. Durable on
    /// return, and not visible to readers before it is durable: a count that somebody has seen
    /// must not shrink in a crash.
    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError>;

    /// Counts of one lane in all epochs that start at or after a time, for comparison after a
    /// rebuild.
    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError>;

    /// Calls `each` once with each cell of one lane, in all epochs that start at or after a time,
    /// and both its sets, as far as members are kept: impressions, then plays.
    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError>;

    /// Remembers for ever that cells may lack members. Durable on return.
    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError>;
}

/// Which cells to read. The default: all.
#[derive(Clone, Debug, Default)]
pub struct CellQuery {
    /// Epochs that start at or after this time, milliseconds.
    pub from_ms: Option<i64>,
    /// Epochs that start before this time, milliseconds.
    pub to_ms: Option<i64>,
    /// Only this video.
    pub video: Option<String>,
    /// Only this slice (JSON, empty for the empty slice).
    pub slice: Option<String>,
}

/// A store, as it is seen by those who ask what was counted or add to what is closed.
pub trait Store: Sink {
    /// The generation that it belongs to.
    fn generation(&self) -> &Generation;

    /// Calls `each` with every cell that the query selects, lanes added up.
    fn cells(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError>;

    /// All gaps, in no order that means anything.
    fn gaps(&self) -> Result<Vec<Gap>, SinkError>;

    /// What it holds of some cells of a lane: both sets of each that has any member.
    fn members_of_cells(&self, lane: u32, cells: &[&CellKey]) -> Result<Members, SinkError>;

    /// Adds members to closed epochs of a lane, by union. Durable on return. `name` tells this
    /// write from every other one of the lane that is no repetition of it. With a `state` the lane
    /// goes on from there; without one its state stays as it is, so that this may be done while an
    /// owner works on the lane's open epochs.
    fn write_closed(
        &self,
        lane: u32,
        name: u64,
        cells: &[ClosedCell<'_>],
        state: Option<&LaneState>,
    ) -> Result<(), SinkError>;

    /// Remembers repairs for ever. Durable on return.
    fn add_repairs(&self, repairs: &[Repair]) -> Result<(), SinkError>;

    /// All repairs, in no order that means anything.
    fn repairs(&self) -> Result<Vec<Repair>, SinkError>;

    /// Starts of the longest epochs, from a time on and before another, in which any lane has a cell.
    fn epochs_between(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError> {
        let longest_ms = self.generation().epochs_ms()[0];
        let (from_ms, to_ms) = (Some(from_ms), Some(to_ms));
        let query = CellQuery { from_ms, to_ms, ..CellQuery::default() };
        let mut epochs = BTreeSet::new();
        self.cells(&query, &mut |key, _| {
            epochs.insert(key.epoch_start_ms - key.epoch_start_ms.rem_euclid(longest_ms));
        })?;
        Ok(epochs)
    }

    /// Calls `each` with the lane, the cell and the counts of every cell, of one lane or of all, in
    /// the epochs that start from a time on and before another.
    fn counts_between(
        &self,
        lane: Option<u32>,
        from_ms: i64,
        to_ms: i64,
        each: &mut dyn FnMut(u32, CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let lanes = lane.map_or(0..self.generation().lanes, |lane| lane..lane + 1);
        for lane in lanes {
            for (key, counts) in self.counts_of_lane(lane, from_ms)? {
                if key.epoch_start_ms < to_ms {
                    each(lane, key, counts);
                }
            }
        }
        Ok(())
    }

    /// Calls `each` once with each cell of one lane that is wanted, in the epochs that start from a
    /// time on and before another, and both its sets, as far as members are kept.
    fn members_between(
        &self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.members_of_lane(lane, from_ms, &mut |key, sets| {
            if key.epoch_start_ms < to_ms && wants(&key) {
                each(key, sets);
            }
        })
    }

    /// The same of what owners have added since a lane was at a position ([`LaneState::position`]), and
    /// maybe more; all of it where a store cannot tell.
    fn members_since(
        &self,
        lane: u32,
        (from_ms, to_ms): (i64, i64),
        _position: u64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.members_between(lane, from_ms, to_ms, wants, each)
    }

    /// The first epoch (start, milliseconds) that is not sealed: readers call an epoch sealed
    /// when every lane has closed it.
    fn sealed_before_ms(&self) -> Result<i64, SinkError> {
        let longest_ms = self.generation().epochs_ms()[0];
        let mut sealed_before = i64::MAX;
        for lane in 0..self.generation().lanes {
            let frontier = self.lane_state(lane)?.map_or(0, |state| state.frontier);
            sealed_before = sealed_before.min(frontier.saturating_mul(longest_ms));
        }
        Ok(sealed_before)
    }

    /// Lets the members go of all epochs that start from a time on and before another, for good; their
    /// counts stay. For who knows that they are kept elsewhere. A store whose members have a time to
    /// live does nothing.
    fn forget_members(&self, _from_ms: i64, _to_ms: i64) -> Result<(), SinkError> {
        Ok(())
    }

    /// What is the matter with it, while something is that it waits for.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Start of the first longest epoch that is kept, milliseconds: those before it have outlived their
    /// retention, and nothing is written or read of them.
    fn kept_from_ms(&self) -> i64 {
        0
    }

    /// Cells that this process has not written because their retention was over; `None` where there is
    /// no retention.
    fn expired_cells(&self) -> Option<u64> {
        None
    }
}

/// What is added to a cell of a closed epoch.
#[derive(Clone, Debug)]
pub struct ClosedCell<'c> {
    /// The cell.
    pub key: &'c CellKey,
    /// The counts of the union.
    pub counts: CellCounts,
    /// Chunks of the new members (impressions, then plays), empty where there are none.
    pub chunks: [Vec<u8>; 2],
}

/// Both sets of cells: impressions, then plays.
pub type Members = BTreeMap<CellKey, [BTreeSet<Id>; 2]>;

/// What one lane commits.
pub struct LaneCommit<'a> {
    /// The lane.
    pub lane: u32,
    /// Changed cells and new members.
    pub batch: LaneBatch<'a>,
    /// The state after the batch.
    pub state: &'a LaneState,
}

/// From where a lane goes on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    /// The next offset to read, by topic.
    pub next_offsets: Vec<u64>,
    /// The first open epoch, as a number of longest epochs since 1970. Never moves back.
    pub frontier: i64,
    /// For each topic the smallest offset of any event of an epoch: where a rebuild begins.
    pub smallest_offsets: Vec<BTreeMap<i64, u64>>,
    /// What has been read up to `next_offsets`.
    pub counters: Counters,
    /// Bytes of the late output that belong to this commit; what is behind them is written again.
    pub late_bytes: u64,
    /// The same for the dead-letter output.
    pub dead_bytes: u64,
    /// Name of the place that these outputs are in, where the store is shared and each process has
    /// its own; empty where it is the store's.
    #[serde(default)]
    pub letters: String,
    /// Ids of the topics that the offsets belong to, by topic; empty where the log has none.
    #[serde(default)]
    pub topic_ids: Vec<String>,
    /// The frontier of the last commit that the log is known to have taken: whoever has had the lane
    /// since has begun there or later.
    #[serde(default)]
    pub told_frontier: i64,
    /// Epochs before this one may have members in this store that a rebuild does not find: because
    /// the lane went on from what another process had committed, or because the log has lost what
    /// they were made of. As long as one of them is open, a rebuild is seeded from the store.
    #[serde(default)]
    pub seeded_to: i64,
    /// Gaps that touch open epochs: whoever has the lane next, with another store, must know them.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Which start of the lane wrote it, counted in this store; 0 where nobody counted.
    #[serde(default)]
    pub life: u64,
    /// Name of the snapshot from which that start went on; empty where it had none.
    #[serde(default)]
    pub snapshot: String,
}

impl LaneState {
    /// How far it is, as one number, which grows with every event that an owner reads. What a commit
    /// adds to the members has it in its name.
    pub fn position(&self) -> u64 {
        layout::position(&self.next_offsets)
    }
}

/// A store that cannot go on.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Another process has it open.
    #[error(
        "the store {path} is in use by another process{owner}; stop that, or ask it over HTTP \
         (`marquee trends` does)"
    )]
    Locked {
        /// Folder of the store.
        path: String,
        /// ` (http://...)` where known.
        owner: String,
    },
    /// There is none.
    #[error(
        "there is no store at {path}: nothing has been counted yet; `marquee run` or \
         `marquee backfill` without --out makes it"
    )]
    Absent {
        /// Where it should be.
        path: String,
    },
    /// It was made with other settings.
    #[error(
        "the store {path} belongs to generation {generation}, which counts otherwise: {difference}. \
         Restore these settings, or give the new ones another [store] path"
    )]
    OtherGeneration {
        /// Folder of the store.
        path: String,
        /// Id of its generation.
        generation: String,
        /// Which settings differ, and how.
        difference: String,
    },
    /// It was written by another version of the program.
    #[error(
        "the store {path} has format {found}, this program writes {expected}; use that version"
    )]
    OtherFormat {
        /// Folder of the store.
        path: String,
        /// Format of the store.
        found: u32,
        /// Format of this program.
        expected: u32,
    },
    /// What it holds cannot be read.
    #[error("the store {path} is damaged: {what}; move it away and let `marquee run` rebuild it")]
    Damaged {
        /// Folder of the store.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// Reading or writing failed.
    #[error(
        "the store {path} failed: {error}; free space or repair the disk and start again, nothing \
         acknowledged is lost"
    )]
    Failed {
        /// Folder of the store.
        path: String,
        /// What the store says.
        error: String,
    },
    /// It does not answer, or not in time.
    #[error(
        "the store {path} does not answer: {error}. Nothing is lost: what it has not acknowledged is \
         read from the log again"
    )]
    Unavailable {
        /// Name of the store.
        path: String,
        /// What the store, or the way to it, says.
        error: String,
    },
    /// It answers, and will not do what it is asked.
    #[error(
        "the store {path} refuses what it is asked: {error}. Repair that and start again, nothing \
         acknowledged is lost"
    )]
    Refused {
        /// Name of the store.
        path: String,
        /// What the store says.
        error: String,
    },
    /// It has no tables.
    #[error(
        "the store {path} has no tables ({error}): make them by `marquee schema -c FILE --apply`, or \
         show `marquee schema -c FILE --print` to whoever may"
    )]
    NoTables {
        /// Name of the store.
        path: String,
        /// What the store says.
        error: String,
    },
    /// Cells cannot be written to a file.
    #[error("cannot write {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: String,
    },
}
