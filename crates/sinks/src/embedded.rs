//! The embedded store: a folder with an LSM tree (fjall), owned by one process.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `generation` | the [`Generation`], as JSON |
//! | `lanes` | lane, 4 bytes | the [`LaneState`], as JSON |
//! | `counts` | a row: some cells of one lane ([`keys`]) | videos, impressions and plays ([`rows`]) |
//! | `members` | the row, name of what a batch adds to it | videos and chunks of request ids |
//! | `gaps` | the [`Gap`], as JSON | nothing |
//! | `repairs` | the [`Repair`], as JSON | nothing |
//!
//! The batches of an owner's lanes and the lanes' states after them are one atomic write, synced
//! before anybody can read it, so counts, members and position can never disagree; a lost tail of
//! the journal is a longer replay, never a wrong number.

mod keys;
mod read;
mod rows;
mod write;

use crate::layout::{CellWrite, RowKey, beside, bucket_of, cell_writes};
use crate::{
    CellQuery, ClosedCell, Gap, Generation, Identity, LaneCommit, LaneState, Members, Repair, Sink,
};
use crate::{SinkError, Store};
use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::{ChunkError, Id};
use rows::Recent;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use write::Writing;

/// Under which key the generation stands.
const GENERATION: &str = "generation";

/// Version of the layout.
const FORMAT: u32 = 2;

/// Rows written lately that a lane may keep at least, bytes.
const RECENT_BYTES: u64 = 256 << 10;

/// Size of a table on disk at least, about, bytes.
const TABLE_BYTES: u64 = 64 << 20;

/// Where the owner of a store writes its address, for commands that find the store in use.
pub const OWNER_FILE: &str = "owner.json";

/// How much memory a store may take, about.
#[derive(Clone, Copy, Debug)]
pub struct StoreMemory {
    /// Blocks of tables that were read, and rows that were written lately, bytes: half of it each.
    cache_bytes: u64,
    /// Keys and values that a keyspace gathers before it writes a table, bytes. The memory that
    /// they take is about three times as much, in each of two keyspaces.
    table_bytes: u64,
}

impl StoreMemory {
    /// A fair part of what a whole process may take, bytes.
    pub fn of_process(bytes: u64) -> Self {
        StoreMemory {
            cache_bytes: (bytes / 16).clamp(4 << 20, 1 << 30),
            table_bytes: (bytes / 64).clamp(2 << 20, 64 << 20),
        }
    }
}

impl Default for StoreMemory {
    /// That of a process with 1 GiB.
    fn default() -> Self {
        StoreMemory::of_process(1 << 30)
    }
}

/// An open store.
#[derive(Clone)]
pub struct EmbeddedStore {
    path: PathBuf,
    db: Database,
    meta: Keyspace,
    lanes: Keyspace,
    counts: Keyspace,
    members: Keyspace,
    gaps: Keyspace,
    repairs: Keyspace,
    generation: Generation,
    /// Whether members are kept, or counts only.
    keeps_members: bool,
    /// Shared by all who have the store open here.
    recent: Arc<Recent>,
}

impl EmbeddedStore {
    /// Opens the store in a folder, makes it when there is none, and refuses one that belongs to
    /// other settings.
    pub fn open(
        path: &Path,
        identity: &Identity,
        keeps_members: bool,
        memory: StoreMemory,
    ) -> Result<Self, SinkError> {
        let is_new = !path.join("db").exists();
        let mut store = Self::open_any(path, keeps_members, memory)?;
        store.generation = match store.stored_generation()? {
            Some(generation) => generation.checked(identity, &path.display().to_string())?,
            None if is_new || store.is_empty()? => store.create(identity)?,
            None => return Err(store.damaged("it holds cells, but no generation")),
        };
        let lanes = u64::from(store.generation.lanes.max(1));
        let most_bytes = (memory.cache_bytes / 2 / lanes).max(RECENT_BYTES);
        store.recent = Arc::new(Recent::new(most_bytes as usize));
        Ok(store)
    }

    /// Opens a store that is there, and makes none.
    pub fn open_existing(
        path: &Path,
        identity: &Identity,
        keeps_members: bool,
    ) -> Result<Self, SinkError> {
        if !path.join("db").exists() {
            return Err(SinkError::Absent { path: path.display().to_string() });
        }
        Self::open(path, identity, keeps_members, StoreMemory::default())
    }

    /// Opens a store that is there, whatever its settings: to look at it, not to write.
    pub fn look(path: &Path) -> Result<Self, SinkError> {
        if !path.join("db").exists() {
            return Err(SinkError::Absent { path: path.display().to_string() });
        }
        let mut store = Self::open_any(path, true, StoreMemory::default())?;
        let absent = || SinkError::Absent { path: path.display().to_string() };
        store.generation = store.stored_generation()?.ok_or_else(absent)?;
        Ok(store)
    }

    /// The number of lanes of the store in a folder; `None` where there is no store.
    pub fn stored_lanes(path: &Path) -> Result<Option<u32>, SinkError> {
        match Self::look(path) {
            Ok(store) => Ok(Some(store.generation.lanes)),
            Err(SinkError::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_any(path: &Path, keeps_members: bool, memory: StoreMemory) -> Result<Self, SinkError> {
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => locked(path),
            error => failed(path, &error),
        };
        std::fs::create_dir_all(path).map_err(|e| failed(e.into()))?;
        let db = Database::builder(path.join("db"))
            .manual_journal_persist(true)
            .cache_size(memory.cache_bytes / 2)
            // With more than one, fjall keeps one free for flushes, which passes every request to
            // compact on to the others and takes it again, busily, until they have time for it.
            .worker_threads(1)
            .journal_compression(CompressionType::None)
            .open()
            .map_err(failed)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memory.table_bytes)
                // Most of it are request ids, which do not get smaller.
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                // One flush is followed by one compaction. So that these keep up, one must move
                // several times as much: a table is larger than what is flushed, and many are merged
                // at once. (With 30 tables that wait, writers would wait, too.)
                .compaction_strategy(Arc::new(
                    Leveled::default()
                        .with_table_target_size(TABLE_BYTES.max(4 * memory.table_bytes))
                        .with_l0_threshold(8),
                ))
        };
        let keyspace = |name| db.keyspace(name, options).map_err(failed);
        // Looked up by ranges of keys alone, for which filters are of no use.
        let unfiltered = || options().filter_policy(FilterPolicy::disabled());
        Ok(EmbeddedStore {
            meta: keyspace("meta")?,
            lanes: keyspace("lanes")?,
            counts: keyspace("counts")?,
            members: db.keyspace("members", unfiltered).map_err(failed)?,
            gaps: keyspace("gaps")?,
            // Stores of before it was there get it now.
            repairs: keyspace("repairs")?,
            path: path.to_owned(),
            generation: Generation::default(),
            recent: Arc::new(Recent::new(0)),
            keeps_members,
            db,
        })
    }

    fn create(&self, identity: &Identity) -> Result<Generation, SinkError> {
        let absent = || SinkError::Absent { path: self.path.display().to_string() };
        let generation = Generation::new(identity, FORMAT).ok_or_else(absent)?;
        self.meta
            .insert(GENERATION, generation.to_json())
            .and_then(|()| self.db.persist(PersistMode::SyncAll))
            .map_err(|e| failed(&self.path, &e))?;
        Ok(generation)
    }

    fn stored_generation(&self) -> Result<Option<Generation>, SinkError> {
        let bytes = self.meta.get(GENERATION).map_err(|e| failed(&self.path, &e))?;
        let name = self.path.display().to_string();
        bytes.map(|bytes| Generation::of_json(&bytes, &name, FORMAT)).transpose()
    }

    fn is_empty(&self) -> Result<bool, SinkError> {
        self.counts.is_empty().map_err(|e| failed(&self.path, &e))
    }

    /// Folder of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether members are kept, or counts only.
    pub fn keeps_members(&self) -> bool {
        self.keeps_members
    }

    /// A row of counts as it is stored; empty where it was never written.
    fn stored_row(&self, key: &[u8]) -> Result<Vec<u8>, SinkError> {
        let row = self.counts.get(key).map_err(|e| failed(&self.path, &e))?;
        Ok(row.map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    /// Adds to a set that only grows, whose elements are keys.
    fn add_to<T: serde::Serialize>(&self, to: &Keyspace, elements: &[T]) -> Result<(), SinkError> {
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        for element in elements {
            let key = serde_json::to_vec(element).expect("numbers and texts always serialize");
            write.insert(to, key, []);
        }
        write.commit().map_err(|e| failed(&self.path, &e))
    }

    fn unreadable(&self, what: &str, error: &ChunkError) -> SinkError {
        self.damaged(&format!("{what} is unreadable: {error}"))
    }

    fn damaged(&self, what: &str) -> SinkError {
        SinkError::Damaged { path: self.path.display().to_string(), what: what.to_owned() }
    }
}

impl Sink for EmbeddedStore {
    fn lane_state(&self, lane: u32) -> Result<Option<LaneState>, SinkError> {
        let value = self.lanes.get(lane.to_be_bytes()).map_err(|e| failed(&self.path, &e))?;
        let read = |value: fjall::UserValue| {
            serde_json::from_slice(&value)
                .map_err(|e| self.damaged(&format!("the state of lane {lane} is unreadable: {e}")))
        };
        value.map(read).transpose()
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        let mut writing = Writing::new(self);
        for LaneCommit { lane, batch, state } in commits {
            let writes = cell_writes(*lane, batch, bucket_of);
            writing.lane(*lane, &writes, state, |number, side, bytes| {
                batch.cell(number).write_chunk(side, bytes);
            })?;
        }
        writing.commit()
    }

    fn counts_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        let mut cells = BTreeMap::new();
        let query = CellQuery { from_ms: Some(from_ms), ..CellQuery::default() };
        self.scan(&query, |cell, of_lane, counts| {
            if of_lane == lane {
                cells.insert(cell, counts);
            }
        })?;
        Ok(cells)
    }

    fn members_of_lane(
        &self,
        lane: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.each_row_of_members((from_ms, i64::MAX), 0, |row, members| {
            if row.lane == lane {
                let tell = |(video, sets): (String, _)| each(row.cell(&video), sets);
                members()?.into_iter().for_each(tell);
            }
            Ok(())
        })
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        self.add_to(&self.gaps, gaps)
    }
}

impl Store for EmbeddedStore {
    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn cells(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        self.sums(query, each)
    }

    fn gaps(&self) -> Result<Vec<Gap>, SinkError> {
        self.all_of(&self.gaps, "a gap")
    }

    fn add_repairs(&self, repairs: &[Repair]) -> Result<(), SinkError> {
        self.add_to(&self.repairs, repairs)
    }

    fn repairs(&self) -> Result<Vec<Repair>, SinkError> {
        self.all_of(&self.repairs, "a repair")
    }

    fn members_of_cells(&self, lane: u32, cells: &[&CellKey]) -> Result<Members, SinkError> {
        self.stored_members(lane, cells)
    }

    fn epochs_between(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError> {
        self.stored_epochs(from_ms, to_ms)
    }

    fn forget_members(&self, from_ms: i64, to_ms: i64) -> Result<(), SinkError> {
        self.remove_members(from_ms, to_ms)
    }

    fn counts_between(
        &self,
        lane: Option<u32>,
        from_ms: i64,
        to_ms: i64,
        each: &mut dyn FnMut(u32, CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        self.stored_counts(lane, from_ms, to_ms, each)
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
        between_ms: (i64, i64),
        position: u64,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        self.each_row_of_members(between_ms, position, |row, members| {
            if row.lane != lane {
                return Ok(());
            }
            for (video, sets) in members()? {
                let key = row.cell(&video);
                if wants(&key) {
                    each(key, sets);
                }
            }
            Ok(())
        })
    }

    fn write_closed(
        &self,
        lane: u32,
        name: u64,
        cells: &[ClosedCell<'_>],
        state: Option<&LaneState>,
    ) -> Result<(), SinkError> {
        let mut writes = Vec::with_capacity(cells.len());
        for (number, ClosedCell { key, counts, .. }) in cells.iter().enumerate() {
            let CellKey { ref video, epoch_start_ms, epoch_ms, ref slice } = **key;
            let row = RowKey { epoch_ms, epoch_start_ms, slice, bucket: bucket_of(video), lane };
            writes.push(CellWrite { row, video, counts: *counts, number });
        }
        let write_chunk = |number: usize, side: Side, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(&cells[number].chunks[side as usize]);
        };
        let mut writing = Writing::new(self);
        writing.closed(lane, beside(name), &writes, state, write_chunk)?;
        writing.commit()
    }
}

fn state_json(state: &LaneState) -> Vec<u8> {
    serde_json::to_vec(state).expect("numbers and lists always serialize")
}

#[cold]
fn failed(path: &Path, error: &fjall::Error) -> SinkError {
    SinkError::Failed { path: path.display().to_string(), error: error.to_string() }
}

fn locked(path: &Path) -> SinkError {
    let owner = std::fs::read_to_string(path.join(OWNER_FILE)).unwrap_or_default();
    let owner: serde_json::Value = serde_json::from_str(&owner).unwrap_or_default();
    let owner = owner["address"].as_str().map(|a| format!(" ({a})")).unwrap_or_default();
    SinkError::Locked { path: path.display().to_string(), owner }
}
