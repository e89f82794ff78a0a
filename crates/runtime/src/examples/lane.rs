//! One lane's share: which of its stretches want examples, and which were written before events of
//! theirs came.
//!
//! An entry says up to which offsets its maker has looked. Whatever belongs to the stretch and stands
//! behind them came late, and makes it *late* itself: it is made once more, and what differs is added
//! as corrections. So nothing has to be remembered across a restart: the first reading after one
//! begins at the smallest of these offsets.

use marquee_sinks::lake::Layout;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a lane.
#[derive(Debug, Default)]
pub(super) struct LaneWork {
    /// Stretches that end here or before were examined.
    pub(super) examined_ms: i64,
    /// Stretches that are listed and may still be corrected, with the offsets up to which they were
    /// looked at, by topic.
    pub(super) watched: BTreeMap<i64, Vec<u64>>,
    /// Those of them of which something came later.
    pub(super) late: BTreeSet<i64>,
    /// Up to where the last reading has looked, by topic; `None` before the first.
    pub(super) read_to: Option<Vec<u64>>,
    /// When corrections were made last, milliseconds since 1970 UTC.
    pub(super) corrected_ms: i64,
}

impl LaneWork {
    /// Forgets what is too old to be corrected.
    pub(super) fn forget(&mut self, layout: &Layout, closed_ms: i64, corrections_ms: i64) {
        let first_ms = match corrections_ms {
            0 => i64::MAX,
            _ => closed_ms - corrections_ms - layout.stretch_ms,
        };
        self.watched.retain(|from_ms, _| *from_ms > first_ms);
        self.late.retain(|from_ms| *from_ms > first_ms);
    }

    /// From which offsets on every record must be seen, by topic: what came since the last reading,
    /// or, after a restart, since the first of the entries that may still be corrected.
    pub(super) fn first_offsets(&self, topics: usize) -> Vec<u64> {
        if let Some(read_to) = &self.read_to {
            return read_to.clone();
        }
        let first = |topic: usize| {
            let of = |read_to: &Vec<u64>| read_to.get(topic).copied().unwrap_or(0);
            self.watched.values().map(of).min().unwrap_or(u64::MAX)
        };
        (0..topics).map(first).collect()
    }

    /// What of the late is due: a reading goes far back, so it is done a few times only while a
    /// stretch may be corrected.
    pub(super) fn due(&self, now_ms: i64, corrections_ms: i64) -> BTreeSet<i64> {
        const TIMES: i64 = 4;
        match now_ms >= self.corrected_ms + corrections_ms / TIMES {
            true => self.late.clone(),
            false => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reading_begins_where_the_first_entry_ended_and_others_where_the_last_did() {
        let mut lane = LaneWork::default();
        assert_eq!(lane.first_offsets(2), [u64::MAX; 2], "nothing to correct");
        lane.watched = BTreeMap::from([(0, vec![7, 30]), (100, vec![9, 20])]);
        assert_eq!(lane.first_offsets(2), [7, 20]);
        // Written by a backfill from files, which knows no offsets.
        lane.watched.insert(200, Vec::new());
        assert_eq!(lane.first_offsets(2), [0, 0]);
        lane.read_to = Some(vec![11, 40]);
        assert_eq!(lane.first_offsets(2), [11, 40]);
    }

    #[test]
    fn late_stretches_are_due_a_few_times_and_forgotten_when_they_are_old() {
        let layout = Layout::new("g", 1, 100, 100);
        let mut lane = LaneWork { late: BTreeSet::from([0, 300]), ..LaneWork::default() };
        lane.watched = BTreeMap::from([(0, vec![1]), (300, vec![1])]);
        lane.corrected_ms = 1000;
        assert_eq!(lane.due(1099, 400), BTreeSet::new());
        assert_eq!(lane.due(1100, 400), BTreeSet::from([0, 300]));
        lane.forget(&layout, 500, 400);
        assert_eq!(lane.late, BTreeSet::from([300]));
        assert_eq!(lane.watched.keys().collect::<Vec<_>>(), [&300]);
        lane.forget(&layout, 500, 0);
        assert!(lane.watched.is_empty() && lane.late.is_empty(), "nothing is corrected");
    }
}
