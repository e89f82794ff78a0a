//! Verify: what a store and a lake hold, beside the same cells counted once more from the log or from
//! files.
//!
//! The second count is a backfill ([`Recompute`]): it sees all events before it counts any, so it
//! knows neither watermark nor frontier, and no event is late in it. What it proves and the store
//! lacks (a late event, a lost write) is *missing*, and can be added. What the store has and it does
//! not prove is *extra*, and is wrong if the source has everything of that epoch: that it has is
//! found out first (`whole`), and a member is never called wrong because a log has forgotten it.
//!
//! Only epochs that are sealed in all lanes are compared, since no owner adds to them any more; so
//! this may be done beside running owners, who are neither asked nor stopped.

mod comparing;
mod difference;
mod lake;
mod place;
mod repairing;
mod whole;

pub use difference::{Counts, Difference, Sample, Samples, What};
pub use lake::LakeCells;
pub use place::{Kept, Place};

use crate::backfill::{Events, Recompute, RecomputeError, Recomputed, Summary};
use crate::plan::Plan;
use comparing::Comparing;
use lake::Said;
use marquee_model::{format_duration_ms, format_time_ms};
use marquee_sinks::lake::LakeError;
use marquee_sinks::{Repair, SinkError, Store};
use place::StorePlace;
use repairing::Repairing;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use thiserror::Error;
use whole::{Asked, Whole};

/// What is compared.
pub struct Verify<'a> {
    /// What is counted.
    pub plan: &'a Plan,
    /// The store.
    pub store: &'a dyn Store,
    /// Whether it keeps members, or counts only.
    pub keeps_members: bool,
    /// Members of epochs that ended before this time are not in the store any more: their counts are
    /// compared, and nothing is added. `None`: it keeps them all.
    pub forgotten_before_ms: Option<i64>,
    /// The lake, if it is to be compared, too.
    pub lake: Option<LakeCells>,
    /// Cells of epochs that start at or after this time, milliseconds.
    pub from_ms: Option<i64>,
    /// Cells of epochs that start before this time.
    pub to_ms: Option<i64>,
    /// To add what is missing: a name for this run that is never used again.
    pub repair: Option<u64>,
    /// Threads to use, at least 1.
    pub threads: usize,
    /// Bytes of memory for events and members; beyond it they go to temporary files.
    pub memory_bytes: u64,
    /// Random, for the hashes of this run.
    pub secret: [u8; 16],
    /// Asked now and then whether to stop.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// As [`Recompute::progress`].
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
}

/// Why a comparison was not finished.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Nothing could be counted.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The lake failed, or what stands in it was not written by this program.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Members cannot be added where none are kept.
    #[error(
        "the store keeps counts only ([store] members = \"off\"): nothing can be added to sets that \
         are not there. Compare without --repair"
    )]
    NoMembers,
    /// Differences cannot be told.
    #[error("a difference cannot be written: {0}")]
    Output(std::io::Error),
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Events that were read.
    pub events: Summary,
    /// Epochs (of the longest length) that were compared.
    pub epochs: u64,
    /// Cells of lanes that were compared.
    pub cells: u64,
    /// Those that differ in the store, by how.
    pub differing: BTreeMap<What, u64>,
    /// Those that still differ there, after a repair; all of them without one.
    pub left: u64,
    /// The lake, where it was compared.
    pub lake: Option<LakeReport>,
    /// Members that were added.
    pub added_members: u64,
    /// Gaps that were filled, wholly or in part.
    pub filled_gaps: u64,
    /// What was not compared or not judged, and why.
    pub notes: Vec<String>,
}

/// What was found in the lake.
#[derive(Clone, Debug, Default)]
pub struct LakeReport {
    /// Cells of lanes that were compared.
    pub cells: u64,
    /// Those that differ, by how.
    pub differing: BTreeMap<What, u64>,
    /// Those that differ also after [`LakeReport::anew`] was written; all of them without a repair.
    pub left: u64,
    /// Listed files that cannot be used, one line each.
    pub broken: Vec<String>,
    /// With a repair: stretches (their starts) of lanes that must be written anew from the store, which
    /// was repaired before ([`crate::sealer::write_anew`]).
    pub anew: BTreeSet<(i64, u32)>,
}

impl LakeReport {
    /// Cells that differ.
    pub fn differences(&self) -> u64 {
        self.differing.values().sum()
    }
}

impl Report {
    /// Cells of the store that differ.
    pub fn differences(&self) -> u64 {
        self.differing.values().sum()
    }
}

/// What is counted while cells are compared.
#[derive(Debug, Default)]
struct Tally {
    epochs: u64,
    cells: u64,
    differing: BTreeMap<What, u64>,
    left: u64,
    /// Lanes' epochs in which something still differs.
    left_in: BTreeSet<(u32, i64)>,
    has_missing: bool,
}

impl Tally {
    fn take(&mut self, difference: &Difference, epoch: i64) {
        *self.differing.entry(difference.what).or_default() += 1;
        self.has_missing |= difference.missing.as_ref().is_some_and(|m| m.total() > 0);
        if difference.repaired != Some(true) {
            self.left += 1;
            self.left_in.insert((difference.lane, epoch));
        }
    }
}

/// The same of the lake.
#[derive(Debug, Default)]
struct LakeTally {
    cells: u64,
    differing: BTreeMap<What, u64>,
    left: u64,
    /// Stretches of lanes in which something is mended by writing them anew.
    mended: BTreeSet<(i64, u32)>,
}

impl LakeTally {
    fn take(&mut self, difference: &Difference, stretch: (i64, u32)) {
        *self.differing.entry(difference.what).or_default() += 1;
        match difference.repaired {
            Some(true) => {
                self.mended.insert(stretch);
            }
            _ => self.left += 1,
        }
    }

    fn report(self, broken: Vec<String>, broken_in: BTreeSet<(i64, u32)>) -> LakeReport {
        let LakeTally { cells, differing, left, mut mended } = self;
        mended.extend(broken_in);
        LakeReport { cells, differing, left, broken, anew: mended }
    }
}

impl Verify<'_> {
    /// Compares, and calls `each` with every difference, by epoch, lane and cell.
    ///
    /// # Errors
    /// See [`VerifyError`]. What was added until then stays, and is right.
    pub fn run(
        mut self,
        events: Events,
        each: &mut dyn FnMut(&Difference) -> std::io::Result<()>,
    ) -> Result<Report, VerifyError> {
        if self.repair.is_some() && !self.keeps_members {
            return Err(VerifyError::NoMembers);
        }
        let is_log = matches!(events, Events::Log(_));
        // Asked first: what is sealed now was sealed by what the log holds now.
        let sealed_ms = self.store.sealed_before_ms()?;
        let repairs = self.store.repairs()?;
        let (epochs, range_ms) = self.stretch(sealed_ms);
        let asked = Asked {
            plan: self.plan,
            epochs,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            repairs: &repairs,
        };
        let notes = self.notes_of_open(sealed_ms)?;
        if range_ms.is_empty() {
            return Ok(Report { notes, ..Report::default() });
        }
        let (mut expected, whole) = self.count_again(events, &asked)?;
        let source = if is_log { Repair::LOG } else { Repair::FILES };
        let longest_ms = self.plan.settings.longest_ms();
        let repairing = |run| Repairing::new(self.store, run, source, range_ms.clone(), longest_ms);
        let mut comparing = Comparing {
            store: StorePlace {
                store: self.store,
                keeps_members: self.keeps_members,
                forgotten_before_ms: self.forgotten_before_ms,
            },
            lake: self.lake.take(),
            whole: &whole,
            lanes: self.plan.lanes,
            longest_ms,
            repairing: self.repair.map(repairing),
            range_ms: range_ms.clone(),
            stop: self.stop,
            each,
            tally: Tally::default(),
            lake_tally: LakeTally::default(),
        };
        comparing.run(&mut expected)?;
        let Comparing { repairing, lake, tally, lake_tally, .. } = comparing;
        let mut report = Report { notes, events: expected.summary, ..Report::default() };
        report.notes.extend(whole.notes(&asked));
        if !is_log && tally.has_missing {
            report.notes.push(self.note_of_files());
        }
        if let Some(lake) = lake {
            let Said { notes, broken, broken_in } = lake.said();
            report.notes.extend(notes);
            report.lake = Some(lake_tally.report(broken, broken_in));
        }
        if let Some(repairing) = repairing {
            report.added_members = repairing.members;
            report.filled_gaps = repairing.fill_gaps(self.plan, &whole, &tally.left_in)?;
        }
        let Tally { epochs, cells, differing, left, .. } = tally;
        Ok(Report { epochs, cells, differing, left, ..report })
    }

    /// The second count, and where its source has everything.
    fn count_again(
        &self,
        events: Events,
        asked: &Asked<'_>,
    ) -> Result<(Recomputed, Whole), VerifyError> {
        let is_log = matches!(events, Events::Log(_));
        let recompute = Recompute {
            plan: self.plan,
            epochs: asked.epochs.clone(),
            threads: self.threads,
            memory_bytes: self.memory_bytes,
            secret: self.secret,
            stop: self.stop,
            progress: self.progress,
        };
        let mut expected = recompute.run(events)?;
        let whole = match is_log {
            true => Whole::of_log(asked, std::mem::take(&mut expected.log)),
            false => Whole::of_files(asked, expected.seen_ms),
        };
        Ok((expected, whole))
    }

    /// Which epochs, and which stretch of time within them.
    fn stretch(&self, sealed_ms: i64) -> (Range<i64>, Range<i64>) {
        let longest_ms = self.plan.settings.longest_ms();
        let from_ms = self.from_ms.unwrap_or(0).max(self.store.kept_from_ms());
        let to_ms = self.to_ms.unwrap_or(i64::MAX).min(sealed_ms).max(from_ms);
        let first = from_ms.div_euclid(longest_ms);
        let last = to_ms.saturating_add(longest_ms - 1).div_euclid(longest_ms);
        (first..last.max(first), from_ms..to_ms)
    }

    fn notes_of_open(&self, sealed_ms: i64) -> Result<Vec<String>, SinkError> {
        if self.to_ms.is_some_and(|to_ms| to_ms <= sealed_ms) {
            return Ok(Vec::new());
        }
        let mut behind: Option<(i64, u32)> = None;
        for lane in 0..self.plan.lanes {
            let frontier = self.store.lane_state(lane)?.map_or(0, |state| state.frontier);
            behind = behind.into_iter().chain([(frontier, lane)]).min();
        }
        let lane = behind.map_or(0, |(_, lane)| lane);
        Ok(vec![match sealed_ms {
            0 => format!(
                "nothing was compared: no epoch is sealed in all lanes (lane {lane} has closed none)"
            ),
            _ => format!(
                "epochs from {} on are not compared: they are not sealed in all lanes (lane \
                 {lane} is behind), and open ones still change",
                format_time_ms(sealed_ms)
            ),
        }])
    }

    fn note_of_files(&self) -> String {
        format!(
            "files have no record time: an event more than max_ahead ({}) ahead of its record is \
             a dead letter for a service, and its members are listed as missing here",
            format_duration_ms(self.plan.max_ahead_ms)
        )
    }
}
