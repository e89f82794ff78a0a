//! Epoch by epoch and lane by lane: the cells that were counted once more beside those of a place.
//! Only some cells' members are in memory at a time.

use super::difference::{Difference, Held, compare, sizes};
use super::place::Place;
use super::repairing::{Fix, Repairing};
use super::whole::Whole;
use super::{Tally, VerifyError};
use crate::backfill::{ExpectedCell, RecomputeError, Recomputed};
use marquee_model::{CellCounts, CellKey};
use marquee_sinks::Members;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Cells compared together, at most: so many, or with so many members.
const CELLS: usize = 10_000;
const MEMBERS: u64 = 500_000;

/// A comparison with one place.
pub(super) struct Comparing<'a> {
    pub(super) place: &'a dyn Place,
    pub(super) whole: &'a Whole,
    pub(super) lanes: u32,
    pub(super) longest_ms: i64,
    /// Cells that start in this stretch are compared, milliseconds.
    pub(super) range_ms: Range<i64>,
    pub(super) repairing: Option<Repairing<'a>>,
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
    pub(super) each: &'a mut dyn FnMut(&Difference) -> std::io::Result<()>,
    pub(super) tally: Tally,
}

/// A lane's epoch, while it is compared.
struct LaneEpoch {
    lane: u32,
    epoch: i64,
    /// Cells of the place that the source has not named yet.
    left: BTreeMap<CellKey, CellCounts>,
    /// Cells that wait to be compared, with the counts that the place has.
    waiting: Vec<(ExpectedCell, CellCounts)>,
    waiting_members: u64,
}

impl LaneEpoch {
    fn wait(&mut self, cell: ExpectedCell, counts: CellCounts) {
        let sum = sizes(&cell.members).plus(counts);
        self.waiting_members = self.waiting_members.saturating_add(sum.impressions + sum.plays);
        self.waiting.push((cell, counts));
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= CELLS || self.waiting_members >= MEMBERS
    }
}

impl Comparing<'_> {
    /// All epochs in which the place or the source has any cell.
    pub(super) fn run(&mut self, expected: &mut Recomputed) -> Result<(), VerifyError> {
        let Range { start, end } = self.range_ms;
        let starts_ms = self.place.starts_ms(start, end)?;
        let mut held: BTreeSet<i64> =
            starts_ms.into_iter().map(|ms| ms.div_euclid(self.longest_ms)).collect();
        loop {
            let next = [held.first().copied(), expected.peek().map(|(epoch, _)| epoch)];
            let Some(epoch) = next.into_iter().flatten().min() else { return Ok(()) };
            held.remove(&epoch);
            for lane in 0..self.lanes {
                self.lane_epoch(expected, lane, epoch)?;
            }
            self.tally.epochs += 1;
        }
    }

    fn lane_epoch(
        &mut self,
        expected: &mut Recomputed,
        lane: u32,
        epoch: i64,
    ) -> Result<(), VerifyError> {
        let from_ms = (epoch * self.longest_ms).max(self.range_ms.start);
        let to_ms = ((epoch + 1) * self.longest_ms).min(self.range_ms.end);
        let left = self.place.counts(lane, from_ms, to_ms)?;
        let (waiting, waiting_members) = (Vec::new(), 0);
        let mut at = LaneEpoch { lane, epoch, left, waiting, waiting_members };
        while expected.peek() == Some((epoch, lane))
            && let Some(cell) = expected.next_cell()?
        {
            if self.range_ms.contains(&cell.cell.epoch_start_ms) {
                let counts = at.left.remove(&cell.cell).unwrap_or_default();
                at.wait(cell, counts);
                self.compare_if(&mut at, false)?;
            }
        }
        while let Some((cell, counts)) = at.left.pop_first() {
            at.wait(ExpectedCell { cell, members: Default::default() }, counts);
            self.compare_if(&mut at, false)?;
        }
        self.compare_if(&mut at, true)
    }

    /// Compares the cells that wait, if these are enough, or if nothing more comes.
    fn compare_if(&mut self, at: &mut LaneEpoch, is_over: bool) -> Result<(), VerifyError> {
        if !is_over && !at.is_full() {
            return Ok(());
        }
        if (self.stop)() {
            return Err(RecomputeError::Stopped.into());
        }
        at.waiting_members = 0;
        let waiting = std::mem::take(&mut at.waiting);
        let keys: Vec<&CellKey> = waiting.iter().map(|(cell, _)| &cell.cell).collect();
        let members = match keys.is_empty() {
            true => None,
            false => self.place.members(at.lane, &keys)?,
        };
        self.tally.cells += waiting.len() as u64;
        let (mut differences, fixes) = self.judge(at, &waiting, members.as_ref());
        if let Some(repairing) = &mut self.repairing {
            repairing.write(at.lane, at.epoch, fixes)?;
        }
        let order =
            |d: &Difference| (d.epoch_ms, d.epoch_start_ms, d.video.clone(), d.slice.clone());
        differences.sort_by_cached_key(order);
        for difference in &differences {
            self.tally.take(difference, at.epoch);
            (self.each)(difference).map_err(VerifyError::Output)?;
        }
        Ok(())
    }

    /// Which of these cells differ, and what would mend them.
    fn judge<'c>(
        &self,
        at: &LaneEpoch,
        cells: &'c [(ExpectedCell, CellCounts)],
        members: Option<&Members>,
    ) -> (Vec<Difference>, Vec<(&'c CellKey, Fix)>) {
        let none = Default::default();
        let is_whole = self.whole.is_whole(at.lane, at.epoch);
        let (mut differences, mut fixes) = (Vec::new(), Vec::new());
        for (ExpectedCell { cell, members: expected }, counts) in cells {
            let found = members.map(|members| members.get(cell).unwrap_or(&none));
            let held = Held { counts: *counts, members: found };
            let Some(differing) = compare(expected, &held, is_whole) else { continue };
            let both = (sizes(expected), *counts);
            let name = self.place.name();
            let mut difference = Difference::of(cell.clone(), at.lane, name, both, differing);
            if self.repairing.is_some() {
                let fix = found.map(|found| Fix::of(expected, found, *counts));
                let has_extra = difference.extra.as_ref().is_some_and(|extra| extra.total() > 0);
                let is_mended = !has_extra && fix.as_ref().is_some_and(|fix| fix.is_whole);
                difference.repaired = Some(is_mended);
                fixes.extend(fix.map(|fix| (cell, fix)));
            }
            differences.push(difference);
        }
        (differences, fixes)
    }
}
