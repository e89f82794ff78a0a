//! Where cells are kept that can be compared: the store, and whatever else learns to answer the same
//! three questions.

use marquee_model::{CellCounts, CellKey};
use marquee_sinks::{CellQuery, Members, SinkError, Store};
use std::collections::{BTreeMap, BTreeSet};

/// What a place holds of the cells of lanes. Only closed epochs are asked for.
pub trait Place {
    /// What it is called in differences.
    fn name(&self) -> &'static str;

    /// Starts of the epochs of all its cells that start within a stretch of time, milliseconds.
    fn starts_ms(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError>;

    /// Counts of all cells of a lane that start within a stretch of time.
    fn counts(
        &self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError>;

    /// Both sets of some cells of a lane, of each that has any member; `None` where it keeps none.
    fn members(&self, lane: u32, cells: &[&CellKey]) -> Result<Option<Members>, SinkError>;
}

/// The store as a place.
pub(super) struct StorePlace<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) keeps_members: bool,
}

impl Place for StorePlace<'_> {
    fn name(&self) -> &'static str {
        "store"
    }

    fn starts_ms(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError> {
        let query =
            CellQuery { from_ms: Some(from_ms), to_ms: Some(to_ms), ..CellQuery::default() };
        let mut starts_ms = BTreeSet::new();
        self.store.cells(&query, &mut |cell, _| {
            starts_ms.insert(cell.epoch_start_ms);
        })?;
        Ok(starts_ms)
    }

    fn counts(
        &self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        let mut counts = BTreeMap::new();
        self.store.counts_between(Some(lane), from_ms, to_ms, &mut |_, cell, of_cell| {
            counts.insert(cell, of_cell);
        })?;
        Ok(counts)
    }

    fn members(&self, lane: u32, cells: &[&CellKey]) -> Result<Option<Members>, SinkError> {
        if !self.keeps_members {
            return Ok(None);
        }
        self.store.members_of_cells(lane, cells).map(Some)
    }
}
