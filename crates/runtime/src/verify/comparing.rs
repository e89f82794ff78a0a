//! Epoch by epoch and lane by lane: the cells that were counted once more beside those of the store,
//! and of the lake where there is one. Only some cells' members are in memory at a time.

use super::difference::{Difference, Held, compare, sizes};
use super::lake::LakeCells;
use super::place::{Kept, Place, StorePlace};
use super::repairing::{Fix, Repairing};
use super::whole::Whole;
use super::{LakeTally, Tally, VerifyError};
use crate::backfill::{ExpectedCell, RecomputeError, Recomputed};
use marquee_model::{CellCounts, CellKey};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Cells compared together, at most: so many, or with so many members.
const CELLS: usize = 10_000;
const MEMBERS: u64 = 500_000;

/// A comparison with a store, and a lake.
pub(super) struct Comparing<'a> {
    pub(super) store: StorePlace<'a>,
    pub(super) lake: Option<LakeCells>,
    pub(super) whole: &'a Whole,
    pub(super) lanes: u32,
    pub(super) longest_ms: i64,
    /// Cells that start in this stretch are compared, milliseconds.
    pub(super) range_ms: Range<i64>,
    pub(super) repairing: Option<Repairing<'a>>,
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
    pub(super) each: &'a mut dyn FnMut(&Difference) -> std::io::Result<()>,
    pub(super) tally: Tally,
    pub(super) lake_tally: LakeTally,
}

/// A cell, and the counts that store and lake have of it.
type Waiting = (ExpectedCell, [CellCounts; 2]);

/// Places in [`Waiting`] and [`LaneEpoch::left`].
const STORE: usize = 0;
const LAKE: usize = 1;

/// A lane's epoch, while it is compared.
struct LaneEpoch {
    lane: u32,
    epoch: i64,
    /// Cells of store and lake that the source has not named yet.
    left: [BTreeMap<CellKey, CellCounts>; 2],
    /// Whether the lake has something to compare.
    has_lake: bool,
    /// Cells that wait to be compared.
    waiting: Vec<Waiting>,
    waiting_members: u64,
}

impl LaneEpoch {
    fn wait(&mut self, cell: ExpectedCell) {
        let counts = self.left.each_mut().map(|left| left.remove(&cell.cell).unwrap_or_default());
        let of_places = counts[STORE].plus(counts[LAKE]);
        let sum = sizes(&cell.members).plus(of_places);
        self.waiting_members = self.waiting_members.saturating_add(sum.impressions + sum.plays);
        self.waiting.push((cell, counts));
    }

    /// A cell that only a place has.
    fn first_left(&self) -> Option<CellKey> {
        self.left
            .iter()
            .filter_map(|left| left.first_key_value())
            .map(|(key, _)| key)
            .min()
            .cloned()
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= CELLS || self.waiting_members >= MEMBERS
    }
}

impl Comparing<'_> {
    /// All epochs in which a place or the source has any cell.
    pub(super) fn run(&mut self, expected: &mut Recomputed) -> Result<(), VerifyError> {
        let Range { start, end } = self.range_ms;
        let mut starts_ms = self.store.starts_ms(start, end)?;
        if let Some(lake) = &mut self.lake {
            starts_ms.extend(lake.starts_ms(start, end)?);
        }
        let mut held: BTreeSet<i64> =
            starts_ms.into_iter().map(|ms| ms.div_euclid(self.longest_ms)).collect();
        loop {
            let next = [held.first().copied(), expected.peek().map(|(epoch, _)| epoch)];
            let Some(epoch) = next.into_iter().flatten().min() else { return Ok(()) };
            held.remove(&epoch);
            let before = self.tally.cells;
            for lane in 0..self.lanes {
                self.lane_epoch(expected, lane, epoch)?;
            }
            self.tally.epochs += u64::from(self.tally.cells > before);
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
        let of_store = self.store.counts(lane, from_ms, to_ms)?.unwrap_or_default();
        let of_lake = match &mut self.lake {
            Some(lake) => lake.counts(lane, from_ms, to_ms)?,
            None => None,
        };
        let has_lake = of_lake.is_some();
        let left = [of_store, of_lake.unwrap_or_default()];
        let (waiting, waiting_members) = (Vec::new(), 0);
        let mut at = LaneEpoch { lane, epoch, left, has_lake, waiting, waiting_members };
        while expected.peek() == Some((epoch, lane))
            && let Some(cell) = expected.next_cell()?
        {
            if self.range_ms.contains(&cell.cell.epoch_start_ms) {
                at.wait(cell);
                self.compare_if(&mut at, false)?;
            }
        }
        while let Some(cell) = at.first_left() {
            at.wait(ExpectedCell { cell, members: Default::default() });
            self.compare_if(&mut at, false)?;
        }
        self.compare_if(&mut at, true)
    }

    /// Compares the cells that wait, if these are enough, or if nothing more comes.
    fn compare_if(&mut self, at: &mut LaneEpoch, is_over: bool) -> Result<(), VerifyError> {
        if at.waiting.is_empty() || (!is_over && !at.is_full()) {
            return if (self.stop)() { Err(RecomputeError::Stopped.into()) } else { Ok(()) };
        }
        if (self.stop)() {
            return Err(RecomputeError::Stopped.into());
        }
        at.waiting_members = 0;
        let waiting = std::mem::take(&mut at.waiting);
        self.tally.cells += waiting.len() as u64;
        let (mut differences, gone) = self.compare_store(at, &waiting)?;
        if at.has_lake {
            let of_store = differences.iter().filter(|d| d.repaired == Some(false));
            let mut stays: BTreeSet<CellKey> = of_store.map(Difference::cell).collect();
            stays.extend(gone);
            differences.extend(self.compare_lake(at, &waiting, &stays)?);
        }
        let order =
            |d: &Difference| (d.epoch_ms, d.epoch_start_ms, d.video.clone(), d.slice.clone());
        // Stable: of one cell the store comes first.
        differences.sort_by_cached_key(order);
        for difference in &differences {
            (self.each)(difference).map_err(VerifyError::Output)?;
        }
        Ok(())
    }

    /// Which of these cells differ in the store; with a repair, what they lack is written. And the cells
    /// whose members have gone from it, though it keeps others': nothing can be made of them again.
    fn compare_store(
        &mut self,
        at: &LaneEpoch,
        waiting: &[Waiting],
    ) -> Result<(Vec<Difference>, Vec<CellKey>), VerifyError> {
        let kept = self.store.members(at.lane, &keys(waiting))?;
        let is_gone = |(cell, kept): (&CellKey, &Kept)| kept.sets.is_none().then(|| cell.clone());
        let gone = kept.iter().flatten().filter_map(is_gone).collect();
        let is_repair = self.repairing.is_some();
        let (mut differences, mut fixes) = (Vec::new(), Vec::new());
        self.differing(
            at,
            "store",
            STORE,
            waiting,
            kept.as_ref(),
            |mut difference, expected, held| {
                if is_repair {
                    let fix =
                        held.members.map(|found| Fix::of(&expected.members, found, held.counts));
                    let is_whole = fix.as_ref().is_some_and(|fix| fix.is_whole);
                    difference.repaired = Some(!has_extra(&difference) && is_whole);
                    fixes.extend(fix.map(|fix| (&expected.cell, fix)));
                }
                differences.push(difference);
            },
        );
        if let Some(repairing) = &mut self.repairing {
            repairing.write(at.lane, at.epoch, fixes)?;
        }
        differences.iter().for_each(|difference| self.tally.take(difference, at.epoch));
        Ok((differences, gone))
    }

    /// Which of these cells differ in the lake. A repair writes a lane's stretch anew in the end, from
    /// the store: right where that is right, and where nothing that is wrong stays. `stays`: cells of
    /// the store that are not.
    fn compare_lake(
        &mut self,
        at: &LaneEpoch,
        waiting: &[Waiting],
        stays: &BTreeSet<CellKey>,
    ) -> Result<Vec<Difference>, VerifyError> {
        let Some(lake) = &mut self.lake else { return Ok(Vec::new()) };
        let stretch = lake.stretch_of(at.epoch * self.longest_ms);
        let kept = lake.members(at.lane, &keys(waiting))?;
        let (is_repair, none) = (self.repairing.is_some(), Kept::nothing());
        let kept_of = |cell: &CellKey| kept.as_ref().and_then(|k| k.get(cell)).unwrap_or(&none);
        let mut differences = Vec::new();
        self.differing(
            at,
            "lake",
            LAKE,
            waiting,
            kept.as_ref(),
            |mut difference, expected, held| {
                if is_repair {
                    let wanted = sizes(&expected.members);
                    let is_more = held.counts.impressions > wanted.impressions
                        || held.counts.plays > wanted.plays;
                    let is_wrong = has_extra(&difference) || (held.members.is_none() && is_more);
                    let is_kept = is_wrong && !kept_of(&expected.cell).goes;
                    difference.repaired = Some(!is_kept && !stays.contains(&expected.cell));
                }
                differences.push(difference);
            },
        );
        self.lake_tally.cells += waiting.len() as u64;
        let each = differences.iter();
        each.for_each(|difference| self.lake_tally.take(difference, (stretch, at.lane)));
        Ok(differences)
    }

    /// Calls `each` with every cell that differs in a place.
    fn differing<'w>(
        &self,
        at: &LaneEpoch,
        name: &'static str,
        place: usize,
        waiting: &'w [Waiting],
        kept: Option<&BTreeMap<CellKey, Kept>>,
        mut each: impl FnMut(Difference, &'w ExpectedCell, &Held<'_>),
    ) {
        let none = Default::default();
        let is_whole = self.whole.is_whole(at.lane, at.epoch);
        for (expected, counts) in waiting {
            let members = kept.and_then(|kept| match kept.get(&expected.cell) {
                Some(kept) => kept.sets.as_ref(),
                None => Some(&none),
            });
            let held = Held { counts: counts[place], members };
            let Some(differing) = compare(&expected.members, &held, is_whole) else { continue };
            let both = (sizes(&expected.members), held.counts);
            let cell = expected.cell.clone();
            each(Difference::of(cell, at.lane, name, both, differing), expected, &held);
        }
    }
}

fn has_extra(difference: &Difference) -> bool {
    difference.extra.as_ref().is_some_and(|extra| extra.total() > 0)
}

fn keys(waiting: &[Waiting]) -> Vec<&CellKey> {
    waiting.iter().map(|(expected, _)| &expected.cell).collect()
}
