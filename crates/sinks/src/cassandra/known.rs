//! What this process remembers of what it has written, so that it is not written again: which
//! partitions there are, which part of members is being filled, and the timestamps of states.

use super::cluster::Partition;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

/// Bytes of a part of members, about: far below 100 MB, beyond which partitions are a burden.
const PART_BYTES: usize = 32 << 20;

/// Partitions that are remembered at most. What is forgotten is written again.
const REMEMBERED: usize = 200_000;

/// Partitions of a lane whose parts are remembered at most. Then all are forgotten, and new parts begin.
const PARTS_OF_A_LANE: usize = 20_000;
/// How far apart the parts lie that begin then.
const NEXT_BASE: i32 = 1 << 12;

/// What is remembered.
#[derive(Debug)]
pub(super) struct Known {
    memory: Mutex<Memory>,
    first_part: i32,
}

/// A page of epochs: length of the epochs, number of the page.
pub(super) type Page = (i64, i64);
/// A slice of an epoch: length and start of the epoch, slice.
pub(super) type Slice = (i64, i64, String);

#[derive(Debug, Default)]
struct Memory {
    pages: HashSet<Page>,
    slices: HashSet<Slice>,
    /// By lane, the part that a partition begins with, once some were forgotten.
    bases: HashMap<u32, i32>,
    /// By lane and partition.
    parts: HashMap<u32, HashMap<Partition<'static>, Filling>>,
    /// By lane, the timestamp of the state.
    states: HashMap<u32, i64>,
    /// By lane, the frontier that was written last.
    frontiers: HashMap<u32, i64>,
}

/// The part that is being filled.
#[derive(Clone, Copy, Debug)]
struct Filling {
    part: i32,
    bytes: usize,
    is_told: bool,
}

impl Known {
    pub(super) fn new(first_part: i32) -> Self {
        Known { memory: Mutex::default(), first_part }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn has_page(&self, page: &Page) -> bool {
        self.lock().pages.contains(page)
    }

    pub(super) fn has_slice(&self, slice: &Slice) -> bool {
        self.lock().slices.contains(slice)
    }

    /// The part of a lane's members of a partition that takes so many bytes more, and whether the
    /// cluster knows that it is there.
    pub(super) fn part(&self, lane: u32, at: &Partition<'_>, bytes: usize) -> (i32, bool) {
        let mut memory = self.lock();
        let base = memory.bases.get(&lane).copied().unwrap_or(self.first_part);
        let parts = memory.parts.entry(lane).or_default();
        if parts.len() >= PARTS_OF_A_LANE && !parts.contains_key(&at.clone().into_owned()) {
            parts.clear();
            memory.bases.insert(lane, base.wrapping_add(NEXT_BASE));
        }
        let base = memory.bases.get(&lane).copied().unwrap_or(base);
        let parts = memory.parts.entry(lane).or_default();
        let new = || Filling { part: base, bytes: 0, is_told: false };
        let filling = parts.entry(at.clone().into_owned()).or_insert_with(new);
        if filling.bytes > 0 && filling.bytes + bytes > PART_BYTES {
            let part = filling.part.wrapping_add(1);
            *filling = Filling { part, bytes: 0, is_told: false };
        }
        filling.bytes += bytes;
        (filling.part, filling.is_told)
    }

    /// The cluster has acknowledged what there is.
    pub(super) fn told(
        &self,
        pages: impl IntoIterator<Item = Page>,
        slices: impl IntoIterator<Item = Slice>,
        parts: impl IntoIterator<Item = (u32, Partition<'static>, i32)>,
    ) {
        let mut memory = self.lock();
        if memory.slices.len() > REMEMBERED {
            memory.slices.clear();
            memory.pages.clear();
        }
        memory.pages.extend(pages);
        memory.slices.extend(slices);
        for (lane, at, part) in parts {
            let filling = memory.parts.get_mut(&lane).and_then(|parts| parts.get_mut(&at));
            if let Some(filling) = filling.filter(|filling| filling.part == part) {
                filling.is_told = true;
            }
        }
    }

    /// A lane's state was read, which had this timestamp.
    pub(super) fn saw_state(&self, lane: u32, timestamp: i64) {
        let mut memory = self.lock();
        let known = memory.states.entry(lane).or_default();
        *known = (*known).max(timestamp);
    }

    /// A timestamp for the next state of a lane. It grows with the offsets, so that of two owners the
    /// one that is further wins, and with every write, so that an owner's own last word is its last.
    pub(super) fn next_state(&self, lane: u32, next_offsets: &[u64]) -> i64 {
        /// States with the same offsets that can be told apart from those with the next ones.
        const SHIFT: u32 = 8;
        let sum = next_offsets.iter().fold(0_u64, |sum, offset| sum.saturating_add(*offset));
        let of_offsets = (sum.min(i64::MAX as u64 >> (SHIFT + 1)) << SHIFT) as i64;
        let mut memory = self.lock();
        let known = memory.states.entry(lane).or_default();
        *known = (*known + 1).max(of_offsets);
        *known
    }

    /// Whether a lane's frontier differs from what was written last. Once it has moved, what is
    /// remembered of closed epochs is forgotten.
    pub(super) fn moves_frontier(&self, lane: u32, frontier: i64, open_from_ms: i64) -> bool {
        let mut memory = self.lock();
        if memory.frontiers.get(&lane) == Some(&frontier) {
            return false;
        }
        if let Some(parts) = memory.parts.get_mut(&lane) {
            parts.retain(|at, _| at.epoch_start_ms >= open_from_ms);
        }
        true
    }

    /// A lane's frontier was written.
    pub(super) fn moved_frontier(&self, lane: u32, frontier: i64) {
        self.lock().frontiers.insert(lane, frontier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn at(bucket: u8) -> Partition<'static> {
        Partition { epoch_ms: 60, epoch_start_ms: 120, slice: Cow::Borrowed(""), bucket }
    }

    #[test]
    fn a_part_is_full_some_time_and_another_one_begins() {
        let known = Known::new(7);
        let half = PART_BYTES / 2 + 1;
        assert_eq!(known.part(0, &at(1), half), (7, false));
        known.told([], [], [(0, at(1), 7)]);
        assert_eq!(known.part(0, &at(1), 10), (7, true));
        assert_eq!(known.part(0, &at(1), half), (8, false), "it would be too large");
        assert_eq!(known.part(0, &at(2), half), (7, false), "each partition has its own");
        assert_eq!(known.part(1, &at(1), half), (7, false), "and each lane");
        known.told([], [], [(0, at(1), 7)]);
        assert_eq!(known.part(0, &at(1), 1), (8, false), "that was said of the part before");
        assert_eq!(known.part(0, &at(1), 2 * PART_BYTES), (9, false), "one value is never cut");
    }

    #[test]
    fn states_win_by_offsets_and_then_by_age() {
        let known = Known::new(0);
        let first = known.next_state(3, &[10, 4]);
        let second = known.next_state(3, &[10, 4]);
        assert!(second > first, "the same offsets, another state");
        assert!(known.next_state(3, &[10, 5]) > second);
        let other = Known::new(0);
        other.saw_state(3, second);
        assert!(other.next_state(3, &[10, 4]) > second, "a new owner has the last word");
        assert!(other.next_state(3, &[9, 4]) > 0, "an old one writes, too, and may lose");
        assert!(Known::new(0).next_state(3, &[9, 4]) < first, "by what it has read");
        assert!(known.next_state(4, &[u64::MAX, u64::MAX]) > 0);
    }

    #[test]
    fn of_too_many_partitions_all_are_forgotten_and_new_parts_begin() {
        let known = Known::new(7);
        let of = |epoch: i64| Partition { epoch_start_ms: epoch * 60, ..at(1) };
        for epoch in 0..PARTS_OF_A_LANE as i64 {
            assert_eq!(known.part(0, &of(epoch), 1), (7, false));
        }
        known.told([], [], [(0, of(0), 7)]);
        assert_eq!(known.part(0, &of(0), 1), (7, true), "none was forgotten");
        let (next, is_told) = known.part(0, &of(-1), 1);
        assert!(next != 7 && !is_told);
        assert_eq!(known.part(0, &of(0), 1), (next, false), "a part that is not filled up again");
        assert_eq!(known.part(1, &of(0), 1), (7, false), "other lanes have their own");
        assert_eq!(known.lock().parts[&0].len(), 2);
    }

    #[test]
    fn what_is_closed_is_forgotten() {
        let known = Known::new(0);
        known.part(0, &at(1), 10);
        assert!(known.moves_frontier(0, 3, 180));
        assert!(known.moves_frontier(0, 3, 180), "until it is written");
        known.moved_frontier(0, 3);
        assert!(!known.moves_frontier(0, 3, 180));
        assert!(known.lock().parts[&0].is_empty());
    }
}
