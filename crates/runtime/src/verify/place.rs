//! Where cells are kept that can be compared: the store, and the lake (`lake`), which learns to answer
//! the same three questions.

use super::VerifyError;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use marquee_sinks::{CellQuery, Store};
use std::collections::{BTreeMap, BTreeSet};

/// What a place keeps of a cell besides its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Both sets; `None` where it does not keep them whole.
    pub sets: Option<[BTreeSet<Id>; 2]>,
    /// Whether a repair gives up what is in them: it is not what was written.
    pub goes: bool,
}

impl Kept {
    /// Of a cell that has no members.
    pub fn nothing() -> Self {
        Kept { sets: Some(Default::default()), goes: false }
    }
}

/// What a place holds of the cells of lanes. Only closed epochs are asked for, one after the other.
pub trait Place {
    /// What it is called in differences.
    fn name(&self) -> &'static str;

    /// Starts of the epochs of all its cells that start within a stretch of time, milliseconds.
    fn starts_ms(&mut self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, VerifyError>;

    /// Counts of all cells of a lane that start within a stretch of time; `None` where it has nothing
    /// of this lane yet that could be compared.
    fn counts(
        &mut self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Option<BTreeMap<CellKey, CellCounts>>, VerifyError>;

    /// What it keeps of some cells of a lane whose counts were asked for last, of each that has any
    /// member; `None` where it keeps members of no cell.
    fn members(
        &mut self,
        lane: u32,
        cells: &[&CellKey],
    ) -> Result<Option<BTreeMap<CellKey, Kept>>, VerifyError>;
}

/// The store as a place.
pub(super) struct StorePlace<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) keeps_members: bool,
    /// Members of epochs that ended before this time are not there any more.
    pub(super) forgotten_before_ms: Option<i64>,
}

impl Place for StorePlace<'_> {
    fn name(&self) -> &'static str {
        "store"
    }

    fn starts_ms(&mut self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, VerifyError> {
        let query =
            CellQuery { from_ms: Some(from_ms), to_ms: Some(to_ms), ..CellQuery::default() };
        let mut starts_ms = BTreeSet::new();
        self.store.cells(&query, &mut |cell, _| {
            starts_ms.insert(cell.epoch_start_ms);
        })?;
        Ok(starts_ms)
    }

    fn counts(
        &mut self,
        lane: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Option<BTreeMap<CellKey, CellCounts>>, VerifyError> {
        let mut counts = BTreeMap::new();
        self.store.counts_between(Some(lane), from_ms, to_ms, &mut |_, cell, of_cell| {
            counts.insert(cell, of_cell);
        })?;
        Ok(Some(counts))
    }

    fn members(
        &mut self,
        lane: u32,
        cells: &[&CellKey],
    ) -> Result<Option<BTreeMap<CellKey, Kept>>, VerifyError> {
        if !self.keeps_members {
            return Ok(None);
        }
        let before_ms = self.forgotten_before_ms.unwrap_or(i64::MIN);
        let is_gone = |cell: &&CellKey| cell.epoch_start_ms + cell.epoch_ms <= before_ms;
        let (gone, there): (Vec<&CellKey>, Vec<&CellKey>) = cells.iter().partition(|c| is_gone(c));
        let members = self.store.members_of_cells(lane, &there)?;
        let kept =
            members.into_iter().map(|(cell, sets)| (cell, Kept { sets: Some(sets), goes: false }));
        let gone = gone.into_iter().map(|cell| (cell.clone(), Kept { sets: None, goes: false }));
        Ok(Some(kept.chain(gone).collect()))
    }
}
