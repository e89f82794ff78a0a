//! The Cassandra store: a keyspace that any number of processes write into, without a lock, a
//! transaction or a read before a write.
//!
//! | table | partition | row | column |
//! |---|---|---|---|
//! | `counts` | generation, epoch, slice, bucket | video, lane | impressions, plays |
//! | `members` | the same, lane, part | name of what a batch adds | videos and chunks of request ids |
//! | `pages`, `slices`, `parts` | | which partitions there are | |
//! | `lanes` | generation | lane | the first open epoch; the [`LaneState`], as JSON |
//! | `gaps`, `repairs` | generation | the [`Gap`] or [`Repair`], as JSON | |
//!
//! **Counts** (invariant COUNT). Each one is written under the timestamp *start of its epoch in
//! microseconds + the count*. Of two writes the cluster keeps the one with the larger timestamp, which
//! is the larger count, in whatever order they come, from however many writers. Impressions and plays
//! have timestamps of their own. Nothing is ever deleted: a tombstone of today would hide every such
//! write for ever.
//!
//! **Order.** A commit writes what partitions there are, then counts and members, and when all of that
//! is acknowledged the lanes' states; whoever calls it then tells the log (invariant LOG). It is not
//! one atomic write: after a crash the counts may be ahead of the state, and are then written again,
//! or are larger already ([`Sink::is_shared`]).
//!
//! **Waiting.** What fails because the cluster is down, slow or overloaded is tried again for as long
//! as the [`Patience`] of the one who asks lasts.

pub mod cluster;
mod known;
pub mod patience;
mod reading;
pub mod schema;
pub mod session;
mod statements;
mod tls;
mod views;
mod writing;

use crate::layout;
use crate::{
    CellQuery, ClosedCell, Gap, Generation, Identity, LaneCommit, LaneState, Members, Repair, Sink,
    SinkError, Store,
};
use cluster::{Cluster, ClusterError, Column, LaneRow, Write};
use known::Known;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use patience::Patience;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use views::Views;

/// Version of the layout.
const FORMAT: u32 = 1;

/// Epochs on a page of the index.
const PAGE_EPOCHS: i64 = 64;

/// The page of an epoch.
fn page_of(epoch_ms: i64, epoch_start_ms: i64) -> i64 {
    epoch_start_ms.div_euclid(epoch_ms * PAGE_EPOCHS)
}

/// How a store is used.
#[derive(Clone)]
pub struct StoreOptions {
    /// What people call it.
    pub name: String,
    /// Into how many partitions the videos of a slice of an epoch are divided, 1 to 256, where the
    /// store is new; afterwards what it was made with holds.
    pub buckets: u16,
    /// Whether members are kept, or counts only.
    pub keeps_members: bool,
    /// How long a cell is kept after the end of its epoch, milliseconds; `None`: for ever.
    pub retention_ms: Option<i64>,
    /// How long the members of a cell are kept after the end of its epoch, and after they were written,
    /// milliseconds; `None`: as long as the cell.
    pub members_retention_ms: Option<i64>,
    /// The time of this machine, milliseconds since 1970 UTC: for the retention.
    pub clock: fn() -> i64,
    /// Where this process begins to number parts of members: random, so that it mostly begins new ones.
    pub first_part: i32,
    /// Rows of counts that are kept in memory for readers, at most; 0: they always ask the cluster.
    pub view_rows: usize,
}

/// An open store. Clones share it.
#[derive(Clone)]
pub struct CassandraStore {
    shared: Arc<Shared>,
    patience: Arc<dyn Patience>,
}

struct Shared {
    cluster: Arc<dyn Cluster>,
    options: StoreOptions,
    generation: Generation,
    buckets: u16,
    known: Known,
    views: Views,
    /// Cells that were not written because their time was over.
    expired_cells: AtomicU64,
    /// The patience of the one who opened it, and writes: its trouble is everybody's.
    writer: Arc<dyn Patience>,
}

/// What stands in the table `generations`.
#[derive(Serialize, Deserialize)]
struct Stored {
    buckets: u16,
    generation: Generation,
}

impl CassandraStore {
    /// Opens the store of a keyspace, gives the keyspace to a new generation when it has none, and
    /// refuses one that belongs to other settings. `opening` is the patience for that, `patience` the
    /// one that comes after it.
    pub fn open(
        cluster: Arc<dyn Cluster>,
        identity: &Identity,
        options: StoreOptions,
        opening: &dyn Patience,
        patience: Arc<dyn Patience>,
    ) -> Result<Self, SinkError> {
        let name = &options.name;
        let stored = match retry(opening, name, || cluster.generation())? {
            Some(stored) => stored,
            None => {
                let new = Generation::new(identity, FORMAT);
                let generation = new.ok_or_else(|| SinkError::Absent { path: name.clone() })?;
                let stored = Stored { buckets: options.buckets.clamp(1, 256), generation };
                let stored = serde_json::to_string(&stored).expect("plain data always serializes");
                retry(opening, name, || cluster.create_generation(&stored))?
            }
        };
        let (buckets, generation) = read_stored(&stored, name)?;
        let generation = generation.checked(identity, name)?;
        Ok(Self::with(cluster, options, patience, buckets, generation))
    }

    /// The number of lanes of the store of a keyspace; `None` where it has no generation.
    pub fn stored_lanes(
        cluster: &dyn Cluster,
        name: &str,
        patience: &dyn Patience,
    ) -> Result<Option<u32>, SinkError> {
        let stored = retry(patience, name, || cluster.generation())?;
        let stored = stored.map(|stored| read_stored(&stored, name)).transpose()?;
        Ok(stored.map(|(_, generation)| generation.lanes))
    }

    fn with(
        cluster: Arc<dyn Cluster>,
        options: StoreOptions,
        patience: Arc<dyn Patience>,
        buckets: u16,
        generation: Generation,
    ) -> Self {
        let views = Views::new(options.view_rows);
        let known = Known::new(options.first_part);
        let expired_cells = AtomicU64::new(0);
        let writer = patience.clone();
        let shared =
            Shared { cluster, options, generation, buckets, known, views, expired_cells, writer };
        CassandraStore { shared: Arc::new(shared), patience }
    }

    /// The same store, for somebody with another patience.
    pub fn with_patience(&self, patience: Arc<dyn Patience>) -> Self {
        CassandraStore { shared: self.shared.clone(), patience }
    }

    /// Into how many partitions the videos of a slice of an epoch are divided.
    pub fn buckets(&self) -> u16 {
        self.shared.buckets
    }

    fn id(&self) -> &str {
        &self.shared.generation.id
    }

    fn bucket_of(&self, video: &str) -> u8 {
        (u16::from(layout::bucket_of(video)) % self.shared.buckets) as u8
    }

    /// The epochs that are served start after this time: those before it have outlived the retention.
    fn kept_from(&self, epoch_ms: i64) -> i64 {
        let kept = self.shared.options.retention_ms;
        kept.map_or(i64::MIN, |kept_ms| (self.shared.options.clock)() - kept_ms - epoch_ms + 1)
    }

    /// Asks the cluster until it answers or patience ends.
    fn ask<T>(&self, ask: impl FnMut() -> Result<T, ClusterError>) -> Result<T, SinkError> {
        retry(&*self.patience, &self.shared.options.name, ask)
    }

    /// Writes until everything is acknowledged or patience ends. Every write may be repeated.
    fn write(&self, writes: &[Write<'_>]) -> Result<(), SinkError> {
        let mut left: Option<Vec<Write<'_>>> = None;
        let mut attempt = 0;
        loop {
            let writes = left.as_deref().unwrap_or(writes);
            if writes.is_empty() {
                return Ok(());
            }
            let Err(failed) = self.shared.cluster.write(self.id(), writes) else {
                self.patience.answered();
                return Ok(());
            };
            attempt = if failed.left.len() < writes.len() { 1 } else { attempt + 1 };
            let is_waited_for = matches!(failed.error, ClusterError::Unavailable(_))
                && self.patience.wait(attempt, &failed.error.to_string());
            if !is_waited_for {
                return Err(of_cluster(&self.shared.options.name, failed.error));
            }
            left = Some(failed.left.iter().map(|index| writes[*index].clone()).collect());
        }
    }

    fn damaged(&self, what: &str) -> SinkError {
        SinkError::Damaged { path: self.shared.options.name.clone(), what: what.to_owned() }
    }

    fn read_state(&self, lane: u32, row: &LaneRow) -> Result<Option<LaneState>, SinkError> {
        let Some((json, timestamp)) = &row.state else { return Ok(None) };
        self.shared.known.saw_state(lane, *timestamp);
        let mut state: LaneState = serde_json::from_str(json)
            .map_err(|e| self.damaged(&format!("the state of lane {lane} is unreadable: {e}")))?;
        state.frontier = state.frontier.max(row.frontier.unwrap_or(0));
        Ok(Some(state))
    }
}

fn read_stored(json: &str, name: &str) -> Result<(u16, Generation), SinkError> {
    let stored: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let generation = stored["generation"].to_string();
    let generation = Generation::of_json(generation.as_bytes(), name, FORMAT)?;
    let buckets = stored["buckets"].as_u64().and_then(|buckets| u16::try_from(buckets).ok());
    let buckets = buckets.filter(|buckets| (1..=256).contains(buckets));
    let what = "its number of buckets is unreadable".to_owned();
    let buckets = buckets.ok_or_else(|| SinkError::Damaged { path: name.to_owned(), what })?;
    Ok((buckets, generation))
}

/// Asks until there is an answer or patience ends.
fn retry<T>(
    patience: &dyn Patience,
    name: &str,
    mut ask: impl FnMut() -> Result<T, ClusterError>,
) -> Result<T, SinkError> {
    for attempt in 1.. {
        match ask() {
            Ok(answer) => {
                patience.answered();
                return Ok(answer);
            }
            Err(ClusterError::Unavailable(words)) if patience.wait(attempt, &words) => {}
            Err(error) => return Err(of_cluster(name, error)),
        }
    }
    unreachable!("attempts do not end")
}

/// What an error of a cluster means to somebody who has the store of this name.
pub fn of_cluster(name: &str, error: ClusterError) -> SinkError {
    let path = name.to_owned();
    match error {
        ClusterError::Unavailable(error) => SinkError::Unavailable { path, error },
        ClusterError::Refused(error) => SinkError::Refused { path, error },
        ClusterError::NoTables(error) => SinkError::NoTables { path, error },
    }
}

impl Sink for CassandraStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError> {
        let row = self.ask(|| self.shared.cluster.lane(self.id(), lane))?;
        self.read_state(lane, &row)
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        self.write_commits(commits)
    }

    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        let mut cells = BTreeMap::new();
        self.read_counts(Some(lane), (from_ms, None), &mut |_, cell, counts| {
            cells.insert(cell, counts);
        })?;
        Ok(cells)
    }

    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.read_members(lane, (from_ms, None), 0, each)
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        let json = |gap| serde_json::to_string(gap).expect("numbers and texts always serialize");
        let gaps: Vec<String> = gaps.iter().map(json).collect();
        // There is only one thing to say of a gap.
        let write = |gap| Write { column: Column::Gap { gap }, timestamp: 1, ttl_seconds: 0 };
        self.write(&gaps.iter().map(|gap| write(gap)).collect::<Vec<_>>())
    }
}

impl Store for CassandraStore {
    fn generation(&self) -> &Generation {
        &self.shared.generation
    }

    fn cells(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        self.read_cells(query, each)
    }

    fn gaps(&self) -> Result<Vec<Gap>, SinkError> {
        let gaps = self.ask(|| self.shared.cluster.gaps(self.id()))?;
        let read = |gap: &String| {
            serde_json::from_str(gap)
                .map_err(|e| self.damaged(&format!("a gap is unreadable: {e}")))
        };
        gaps.iter().map(read).collect()
    }

    fn add_repairs(&self, repairs: &[Repair]) -> Result<(), SinkError> {
        let json = |repair| serde_json::to_string(repair).expect("texts always serialize");
        let repairs: Vec<String> = repairs.iter().map(json).collect();
        let write = |repair| {
            let column = Column::Repair { repair };
            Write { column, timestamp: 1, ttl_seconds: 0 }
        };
        self.write(&repairs.iter().map(|repair| write(repair)).collect::<Vec<_>>())
    }

    fn repairs(&self) -> Result<Vec<Repair>, SinkError> {
        let repairs = self.ask(|| self.shared.cluster.repairs(self.id()))?;
        let read = |repair: &String| {
            serde_json::from_str(repair)
                .map_err(|e| self.damaged(&format!("a repair is unreadable: {e}")))
        };
        repairs.iter().map(read).collect()
    }

    fn epochs_between(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError> {
        self.read_epochs(from_ms, to_ms)
    }

    fn counts_between(
        &self,
        lane: Option<u32>,
        from_ms: i64,
        to_ms: i64,
        each: &mut dyn FnMut(u32, CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        self.read_counts(lane, (from_ms, Some(to_ms)), each)
    }

    fn members_between(
        &self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.members_since(lane, (from_ms, to_ms), 0, wants, each)
    }

    fn members_since(
        &self,
        lane: u32,
        (from_ms, to_ms): (i64, i64),
        position: u64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.read_members(lane, (from_ms, Some(to_ms)), position, &mut |key, sets| {
            if wants(&key) {
                each(key, sets);
            }
        })
    }

    fn members_of_cells(&self, lane: u32, cells: &[&CellKey]) -> Result<Members, SinkError> {
        self.read_members_of_cells(lane, cells)
    }

    fn write_closed(
        &self,
        lane: u32,
        name: u64,
        cells: &[ClosedCell<'_>],
        state: Option<&LaneState>,
    ) -> Result<(), SinkError> {
        self.write_closed_cells(lane, name, cells, state)
    }

    fn sealed_before_ms(&self) -> Result<i64, SinkError> {
        let frontiers = self.ask(|| self.shared.cluster.frontiers(self.id()))?;
        let frontiers: BTreeMap<u32, i64> = frontiers.into_iter().collect();
        let of_lane = |lane: u32| frontiers.get(&lane).copied().unwrap_or(0);
        let lowest = (0..self.shared.generation.lanes).map(of_lane).min().unwrap_or(0);
        Ok(lowest.saturating_mul(self.shared.generation.epochs_ms()[0]))
    }

    fn kept_from_ms(&self) -> i64 {
        let longest_ms = self.shared.generation.epochs_ms()[0];
        let kept_ms = self.kept_from(longest_ms).max(0);
        kept_ms.saturating_add(longest_ms - 1) / longest_ms * longest_ms
    }

    fn expired_cells(&self) -> Option<u64> {
        let is_bounded = self.shared.options.retention_ms.is_some();
        is_bounded.then(|| self.shared.expired_cells.load(Ordering::Relaxed))
    }

    fn trouble(&self) -> Option<String> {
        self.shared.writer.trouble()
    }
}
