//! What is missing is added, by union, to closed epochs; nothing is ever taken away (invariant
//! MONO), and no count goes down (invariant COUNT).

use super::VerifyError;
use super::difference::sizes;
use super::whole::Whole;
use crate::plan::Plan;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::{self, Id, IdRef};
use marquee_sinks::{ClosedCell, Repair, Store};
use std::collections::BTreeSet;
use std::ops::Range;

/// What one cell gets.
pub(super) struct Fix {
    /// The larger of what it has and of the size of the union.
    counts: CellCounts,
    /// Chunks of what is missing, empty where nothing is.
    chunks: [Vec<u8>; 2],
    added: u64,
    /// Whether its counts differ from those that it has.
    is_other: bool,
    /// Whether its counts are the sizes of its sets then.
    pub(super) is_whole: bool,
}

impl Fix {
    pub(super) fn of(
        expected: &[BTreeSet<Id>; 2],
        found: &[BTreeSet<Id>; 2],
        counts: CellCounts,
    ) -> Self {
        let mut union = sizes(found);
        let side = |side: usize, size: &mut u64| {
            let missing: Vec<String> =
                expected[side].difference(&found[side]).map(Id::to_string).collect();
            *size += missing.len() as u64;
            match missing.is_empty() {
                true => Vec::new(),
                false => chunk::encode(missing.iter().map(|id| IdRef::of(id))),
            }
        };
        let chunks = [side(0, &mut union.impressions), side(1, &mut union.plays)];
        let had = sizes(found);
        let larger = CellCounts {
            impressions: counts.impressions.max(union.impressions),
            plays: counts.plays.max(union.plays),
        };
        Fix {
            chunks,
            added: union.impressions + union.plays - had.impressions - had.plays,
            is_other: larger != counts,
            is_whole: larger == union,
            counts: larger,
        }
    }
}

/// Writes what is missing into a store.
pub(super) struct Repairing<'a> {
    store: &'a dyn Store,
    /// Names this run, and no other.
    run: u64,
    source: &'static str,
    /// What is compared.
    range_ms: Range<i64>,
    longest_ms: i64,
    /// Lanes, and starts of what was recorded of them.
    recorded: BTreeSet<(u32, i64)>,
    /// Members that were added.
    pub(super) members: u64,
}

impl<'a> Repairing<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        run: u64,
        source: &'static str,
        range_ms: Range<i64>,
        longest_ms: i64,
    ) -> Self {
        let recorded = BTreeSet::new();
        Repairing { store, run, source, range_ms, longest_ms, recorded, members: 0 }
    }

    /// Adds to cells of one epoch of a lane.
    pub(super) fn write(
        &mut self,
        lane: u32,
        epoch: i64,
        fixes: Vec<(&CellKey, Fix)>,
    ) -> Result<(), VerifyError> {
        let mut writes = Vec::new();
        for (key, fix) in fixes {
            if fix.added > 0 || fix.is_other {
                self.members += fix.added;
                writes.push(ClosedCell { key, counts: fix.counts, chunks: fix.chunks });
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        // First, or a crash in between would leave members of which nobody knows where they are
        // from.
        let stretch_ms = self.recorded_with(epoch);
        if self.recorded.insert((lane, stretch_ms.start)) {
            self.store.add_repairs(&[self.repair(lane, stretch_ms)])?;
        }
        // Cells of one row are written together.
        writes.sort_by_key(|cell| (cell.key.epoch_ms, cell.key.epoch_start_ms));
        Ok(self.store.write_closed(lane, self.run, &writes, None)?)
    }

    /// What is recorded where an epoch gets members. From files it is that epoch, since a log is not
    /// asked there any more; from the log nobody asks for more than that there was a repair, and a
    /// service makes one every few hours.
    fn recorded_with(&self, epoch: i64) -> Range<i64> {
        match self.source {
            Repair::FILES => epoch * self.longest_ms..(epoch + 1) * self.longest_ms,
            _ => self.range_ms.clone(),
        }
    }

    fn repair(&self, lane: u32, Range { start, end }: Range<i64>) -> Repair {
        let source = self.source.to_owned();
        Repair { lane, from_ms: start, to_ms: end, source, gap: None }
    }

    /// Records which gaps are filled now: those, or the parts of them, of which the source has
    /// everything, and where nothing is left that differs. What is left may mean that the source has
    /// not everything after all. Returns how many.
    pub(super) fn fill_gaps(
        &self,
        plan: &Plan,
        whole: &Whole,
        left: &BTreeSet<(u32, i64)>,
    ) -> Result<u64, VerifyError> {
        let longest_ms = plan.settings.longest_ms();
        let mut repairs = Vec::new();
        let known = self.store.repairs()?;
        for gap in self.store.gaps()? {
            let Some(epochs) = whole.fills(plan, &gap) else { continue };
            if left.range((gap.lane, epochs.start)..(gap.lane, epochs.end)).next().is_some() {
                tracing::warn!(
                    lane = gap.lane,
                    topic = gap.topic,
                    "a gap stays: cells of its epochs still differ"
                );
                continue;
            }
            let from_ms = (epochs.start * longest_ms).max(self.range_ms.start).max(gap.from_ms);
            let to_ms = (epochs.end * longest_ms).min(self.range_ms.end).min(gap.to_ms);
            let mut repair = self.repair(gap.lane, from_ms..to_ms);
            repair.gap = Some(gap);
            if from_ms < to_ms && !known.contains(&repair) {
                repairs.push(repair);
            }
        }
        self.store.add_repairs(&repairs)?;
        Ok(repairs.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(texts: [&[&str]; 2]) -> [BTreeSet<Id>; 2] {
        texts.map(|ids| ids.iter().map(|id| Id::of(id)).collect())
    }

    #[test]
    fn a_union_is_counted_and_a_count_never_goes_down() {
        let expected = sets([&["a", "b", "c"], &["b"]]);
        let counts = |impressions, plays| CellCounts { impressions, plays };
        let of = |found: [&[&str]; 2], had| {
            let fix = Fix::of(&expected, &sets(found), had);
            (fix.counts, fix.added, fix.is_other, fix.is_whole)
        };
        assert_eq!(of([&["a"], &[]], counts(1, 0)), (counts(3, 1), 3, true, true));
        assert_eq!(of([&["a", "x"], &["b"]], counts(2, 1)), (counts(4, 1), 2, true, true));
        // A member is gone, its count is not.
        assert_eq!(of([&["a", "c"], &["b"]], counts(3, 1)), (counts(3, 1), 1, false, true));
        // A count that is too high stays, and is no size of a set.
        assert_eq!(of([&["a"], &["b"]], counts(9, 1)), (counts(9, 1), 2, false, false));
        assert_eq!(of([&["a", "b", "c"], &["b"]], counts(2, 1)), (counts(3, 1), 0, true, true));
    }
}
