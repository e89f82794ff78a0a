//! Gaps and repairs: what is known to be missing, so that a cell that may lack members says so, and
//! what was added later.
//!
//! A gap is written before anything is counted after it, and is never taken back: what fills it is
//! a repair, which names it. Both are sets that only grow, and a cell is complete when every gap
//! that touches it is filled there.

use serde::{Deserialize, Serialize};

/// Records that a lane did not count, and the cells that may lack members because of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gap {
    /// The lane.
    pub lane: u32,
    /// Name of the topic.
    pub topic: String,
    /// First offset that is missing.
    pub from_offset: u64,
    /// First offset after it that is there.
    pub to_offset: u64,
    /// Start of the first cell that may lack members, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// End of the last one.
    pub to_ms: i64,
    /// Why, in a word that stays: `trimmed` (the log has deleted them) or `elsewhere` (another
    /// member of the group has counted them, into its own store).
    pub reason: String,
}

impl Gap {
    /// Adds gaps to a list that holds each once.
    pub fn add(list: &mut Vec<Gap>, gaps: impl IntoIterator<Item = Gap>) {
        for gap in gaps {
            if !list.contains(&gap) {
                list.push(gap);
            }
        }
    }

    /// One gap that covers all of some, where they are too many to be told one by one; `None` of
    /// none. It takes its other words from the first.
    pub fn covering(gaps: &[Gap]) -> Option<Gap> {
        let mut all = gaps.first()?.clone();
        for gap in gaps {
            all.from_ms = all.from_ms.min(gap.from_ms);
            all.to_ms = all.to_ms.max(gap.to_ms);
        }
        Some(all)
    }

    /// Whether a cell of this epoch may lack members.
    pub fn touches(&self, epoch_start_ms: i64, epoch_ms: i64) -> bool {
        epoch_start_ms < self.to_ms && epoch_start_ms.saturating_add(epoch_ms) > self.from_ms
    }
}

impl Gap {
    /// What no repair has filled of some gaps: the parts of each that are left, as gaps.
    pub fn unrepaired(gaps: Vec<Gap>, repairs: &[Repair]) -> Vec<Gap> {
        let left = |gap: Gap| {
            let mut of_gap: Vec<&Repair> =
                repairs.iter().filter(|repair| repair.gap.as_ref() == Some(&gap)).collect();
            of_gap.sort_unstable_by_key(|repair| repair.from_ms);
            let (mut parts, mut from_ms) = (Vec::new(), gap.from_ms);
            for repair in of_gap {
                if repair.from_ms > from_ms && from_ms < gap.to_ms {
                    let to_ms = repair.from_ms.min(gap.to_ms);
                    parts.push(Gap { from_ms, to_ms, ..gap.clone() });
                }
                from_ms = from_ms.max(repair.to_ms);
            }
            if from_ms < gap.to_ms {
                parts.push(Gap { from_ms, ..gap });
            }
            parts
        };
        gaps.into_iter().flat_map(left).collect()
    }
}

/// Members were added, by union, to cells of closed epochs of a lane. It holds no time of day: the
/// same repair again is the same element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repair {
    /// The lane.
    pub lane: u32,
    /// Start of the first epoch that was compared, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// End of the last one.
    pub to_ms: i64,
    /// Where the members came from, in a word that stays: [`Repair::LOG`] or [`Repair::FILES`].
    pub source: String,
    /// The gap that it fills within that stretch, written after the members. Without one, members
    /// were added that no gap explains (late events, a backfill), and it is written before them: who
    /// compares with a log must know that they need not stand there.
    pub gap: Option<Gap>,
}

impl Repair {
    /// From the log.
    pub const LOG: &str = "log";
    /// From files that somebody has given.
    pub const FILES: &str = "files";

    /// Whether it has to do with an epoch.
    pub fn touches(&self, epoch_start_ms: i64, epoch_ms: i64) -> bool {
        epoch_start_ms < self.to_ms && epoch_start_ms.saturating_add(epoch_ms) > self.from_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from_ms: i64, to_ms: i64) -> Gap {
        let (topic, reason) = ("plays".to_owned(), "trimmed".to_owned());
        Gap { lane: 1, topic, from_offset: 3, to_offset: 9, from_ms, to_ms, reason }
    }

    /// What is left of a gap of 10 to 50 after repairs of it.
    #[track_caller]
    fn check(repairs: &[(i64, i64)], expected: &[(i64, i64)]) {
        let repair = |(from_ms, to_ms): &(i64, i64)| Repair {
            lane: 1,
            from_ms: *from_ms,
            to_ms: *to_ms,
            source: Repair::LOG.to_owned(),
            gap: Some(gap(10, 50)),
        };
        let repairs: Vec<Repair> = repairs.iter().map(repair).collect();
        let left = Gap::unrepaired(vec![gap(10, 50)], &repairs);
        let left: Vec<_> = left.iter().map(|gap| (gap.from_ms, gap.to_ms)).collect();
        assert_eq!(left, expected, "{repairs:?}");
    }

    #[test]
    fn what_repairs_do_not_cover_of_a_gap_is_left() {
        check(&[], &[(10, 50)]);
        check(&[(10, 50)], &[]);
        check(&[(0, 100)], &[]);
        check(&[(20, 30)], &[(10, 20), (30, 50)]);
        check(&[(40, 60), (0, 20)], &[(20, 40)]);
        check(&[(10, 40), (20, 30), (40, 50)], &[]);
        check(&[(0, 10), (50, 60)], &[(10, 50)]);
    }

    #[test]
    fn a_repair_of_another_gap_or_of_none_fills_nothing() {
        let repair = |gap| Repair { lane: 1, from_ms: 0, to_ms: 99, source: "log".into(), gap };
        let repairs = [repair(None), repair(Some(gap(10, 49)))];
        assert_eq!(Gap::unrepaired(vec![gap(10, 50)], &repairs), [gap(10, 50)]);
    }
}
