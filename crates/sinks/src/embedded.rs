//! The embedded store: a folder with an LSM tree (fjall), owned by one process.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `generation` | the [`Generation`], as JSON |
//! | `lanes` | lane, 4 bytes | the [`LaneState`], as JSON |
//! | `counts` | cell and lane ([`keys`]) | impressions and plays, 8 bytes each, little-endian |
//! | `members` | cell, lane, side, name of the chunk | a chunk of request ids |
//! | `gaps` | the [`Gap`], as JSON | nothing |
//!
//! The batches of an owner's lanes and the lanes' states after them are one atomic write, synced
//! before anybody can read it, so counts, members and position can never disagree; a lost tail of
//! the journal is a longer replay, never a wrong number.

mod generation;
mod keys;
mod read;

pub use generation::{Generation, Identity};
pub use read::CellQuery;

use crate::{Gap, LaneCommit, LaneState, Sink, SinkError};
use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of a table on disk, about.
const TABLE_BYTES: u64 = 16 << 20;

/// Where the owner of a store writes its address, for commands that find the store in use.
pub const OWNER_FILE: &str = "owner.json";

/// How much memory a store may take, about.
#[derive(Clone, Copy, Debug)]
pub struct StoreMemory {
    /// Blocks of tables that were read, bytes.
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
    generation: Generation,
    /// Whether members are kept, or counts only.
    keeps_members: bool,
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
        store.generation = match generation::read(&store.meta, path)? {
            Some(generation) => generation.checked(identity, path)?,
            None if is_new || store.is_empty()? => store.create(identity)?,
            None => return Err(store.damaged("it holds cells, but no generation")),
        };
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
        store.generation = generation::read(&store.meta, path)?.ok_or_else(absent)?;
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
            .cache_size(memory.cache_bytes)
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
                // Cells are looked up by ranges of keys, for which filters are of no use.
                .filter_policy(FilterPolicy::disabled())
                // What is open is in the last tables of a level: small ones, of which little is
                // rewritten, and rarely what is over.
                .compaction_strategy(Arc::new(
                    Leveled::default().with_table_target_size(TABLE_BYTES),
                ))
        };
        let keyspace = |name| db.keyspace(name, options).map_err(failed);
        Ok(EmbeddedStore {
            meta: keyspace("meta")?,
            lanes: keyspace("lanes")?,
            counts: keyspace("counts")?,
            members: keyspace("members")?,
            gaps: keyspace("gaps")?,
            path: path.to_owned(),
            generation: Generation::default(),
            keeps_members,
            db,
        })
    }

    fn create(&self, identity: &Identity) -> Result<Generation, SinkError> {
        let absent = || SinkError::Absent { path: self.path.display().to_string() };
        let generation = Generation::new(identity).ok_or_else(absent)?;
        self.meta
            .insert(generation::KEY, generation.to_json())
            .and_then(|()| self.db.persist(PersistMode::SyncAll))
            .map_err(|e| failed(&self.path, &e))?;
        Ok(generation)
    }

    fn is_empty(&self) -> Result<bool, SinkError> {
        self.counts.is_empty().map_err(|e| failed(&self.path, &e))
    }

    /// The generation that the store belongs to.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Folder of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether members are kept, or counts only.
    pub fn keeps_members(&self) -> bool {
        self.keeps_members
    }

    /// Adds members to closed epochs of a lane, by union: `cells` gives for each cell the chunk of
    /// the impressions and that of the plays, and the counts of the union. Durable on return.
    pub fn write_closed<'c>(
        &self,
        lane: u32,
        name: u64,
        cells: impl Iterator<Item = (&'c CellKey, CellCounts, [Vec<u8>; 2])>,
        state: &LaneState,
    ) -> Result<(), SinkError> {
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        for (cell, counts, chunks) in cells {
            let mut key = keys::cell(cell.epoch_ms, cell.epoch_start_ms, &cell.slice, &cell.video);
            key.extend_from_slice(&lane.to_be_bytes());
            self.add_chunks(&mut write, &key, name, chunks);
            write.insert(&self.counts, key, counts_value(counts));
        }
        write.insert(&self.lanes, lane.to_be_bytes(), state_json(state));
        write.commit().map_err(|e| failed(&self.path, &e))
    }

    fn add_chunks(
        &self,
        write: &mut fjall::OwnedWriteBatch,
        key: &[u8],
        name: u64,
        chunks: [Vec<u8>; 2],
    ) {
        if !self.keeps_members {
            return;
        }
        for (side, chunk) in chunks.into_iter().enumerate() {
            if !chunk.is_empty() {
                write.insert(&self.members, keys::chunk(key, side as u8, name, &chunk), chunk);
            }
        }
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
        // With this durability the journal is synced before anything reaches the memtable, where
        // readers see it and from where it might be flushed ahead of its journal.
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        let mut changed = Vec::new();
        for LaneCommit { lane, batch, state } in commits {
            let name = batch_name(*lane, state);
            changed.extend(batch.cells().map(|cell| (keys::counts(&cell.cell, *lane), name, cell)));
            write.insert(&self.lanes, lane.to_be_bytes(), state_json(state));
        }
        // In the order of the keys: neighbours find the memtable's nodes on their way in the cache.
        changed.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        for (key, name, cell) in changed {
            self.add_chunks(&mut write, &key, name, [cell.impressions, cell.plays]);
            write.insert(&self.counts, key, counts_value(cell.cell.counts));
        }
        write.commit().map_err(|e| failed(&self.path, &e))
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

    fn members_of_lane(&self, lane: u32, cell: &CellKey) -> Result<[BTreeSet<Id>; 2], SinkError> {
        Ok([self.members(cell, lane, Side::Impressions)?, self.members(cell, lane, Side::Plays)?])
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        let mut write = self.db.batch().durability(Some(PersistMode::SyncAll));
        for gap in gaps {
            let key = serde_json::to_vec(gap).expect("numbers and texts always serialize");
            write.insert(&self.gaps, key, []);
        }
        write.commit().map_err(|e| failed(&self.path, &e))
    }
}

/// Names what one batch covers: the same offsets give the same name.
fn batch_name(lane: u32, state: &LaneState) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    lane.hash(&mut hasher);
    state.next_offsets.hash(&mut hasher);
    hasher.finish()
}

fn counts_value(counts: CellCounts) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&counts.impressions.to_le_bytes());
    value[8..].copy_from_slice(&counts.plays.to_le_bytes());
    value
}

fn state_json(state: &LaneState) -> Vec<u8> {
    serde_json::to_vec(state).expect("numbers and lists always serialize")
}

fn side_byte(side: Side) -> u8 {
    match side {
        Side::Impressions => 0,
        Side::Plays => 1,
    }
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
