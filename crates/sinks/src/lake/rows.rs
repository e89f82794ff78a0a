//! Rows of the lake, and what the counts of the store are known by.

use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use siphasher::sip::SipHasher13;
use std::collections::BTreeSet;
use std::hash::Hasher;

/// What one lane has counted in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The cell.
    pub key: CellKey,
    /// Its counts in this lane.
    pub counts: CellCounts,
    /// The sets themselves, impressions and plays; `None` where not all members are kept.
    pub requests: [Option<BTreeSet<Id>>; 2],
    /// Whether it surely has all members.
    pub complete: bool,
}

impl Row {
    /// A row of what the store holds: its counts, and as many members as it keeps.
    pub(super) fn of_store(
        key: CellKey,
        counts: CellCounts,
        sets: [BTreeSet<Id>; 2],
        complete: bool,
    ) -> Self {
        // Members may have been added since the counts were read; that makes the sets no smaller.
        let [impressions, plays] = sets;
        let kept = |set: BTreeSet<Id>, count: u64| (set.len() as u64 >= count).then_some(set);
        let requests = [kept(impressions, counts.impressions), kept(plays, counts.plays)];
        let mut row = Row { key, counts, requests, complete };
        row.count();
        row
    }

    /// Adds what another reading of the same cell has found: sets only grow, so the union of two is
    /// what was emitted until now. Where one of them keeps no set, the larger count stands for it,
    /// unless the other's set is as large.
    pub(super) fn unite(&mut self, other: Row) {
        let sizes = |counts: CellCounts| [counts.impressions, counts.plays];
        let sizes = sizes(self.counts).into_iter().zip(sizes(other.counts));
        let sides = self.requests.iter_mut().zip(other.requests);
        for ((mine, theirs), (my_count, their_count)) in sides.zip(sizes) {
            *mine = match (mine.take(), theirs) {
                (Some(mut mine), Some(theirs)) => {
                    mine.extend(theirs);
                    Some(mine)
                }
                (Some(mine), None) => (mine.len() as u64 >= their_count).then_some(mine),
                (None, Some(theirs)) => (theirs.len() as u64 >= my_count).then_some(theirs),
                (None, None) => None,
            };
        }
        let (counts, others) = (&mut self.counts, other.counts);
        counts.impressions = counts.impressions.max(others.impressions);
        counts.plays = counts.plays.max(others.plays);
        self.count();
    }

    /// A count is the size of its set, where that is kept.
    fn count(&mut self) {
        let [impressions, plays] = &self.requests;
        let size =
            |set: &Option<BTreeSet<Id>>, count| set.as_ref().map_or(count, |s| s.len() as u64);
        self.counts = CellCounts {
            impressions: size(impressions, self.counts.impressions),
            plays: size(plays, self.counts.plays),
        };
    }

    /// Request ids in it.
    pub(super) fn ids(&self) -> usize {
        self.requests.iter().flatten().map(BTreeSet::len).sum()
    }
}

/// What the counts of some cells are known by. The order in which they are seen does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn see(&mut self, key: &CellKey, counts: CellCounts, complete: bool) {
        let mut hasher = SipHasher13::new();
        for text in [&key.video, &key.slice] {
            hasher.write_u64(text.len() as u64);
            hasher.write(text.as_bytes());
        }
        hasher.write_i64(key.epoch_start_ms);
        hasher.write_i64(key.epoch_ms);
        hasher.write_u64(counts.impressions);
        hasher.write_u64(counts.plays);
        hasher.write_u8(complete.into());
        self.0 = self.0.wrapping_add(hasher.finish());
    }

    pub(super) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(video: &str) -> CellKey {
        CellKey { video: video.into(), epoch_start_ms: 0, slice: String::new(), epoch_ms: 1000 }
    }

    fn counts(impressions: u64, plays: u64) -> CellCounts {
        CellCounts { impressions, plays }
    }

    fn ids(names: &[&str]) -> BTreeSet<Id> {
        names.iter().map(|name| Id::of(name)).collect()
    }

    #[test]
    fn counts_are_the_sizes_of_sets_that_are_whole() {
        let sets = [ids(&["a", "b", "c"]), ids(&["a"])];
        let row = Row::of_store(key("v"), counts(2, 1), sets, true);
        assert_eq!(row.counts, counts(3, 1), "a member was added after the counts were read");
        let row = Row::of_store(key("v"), counts(9, 0), [ids(&["a"]), ids(&[])], true);
        assert_eq!(row.requests, [None, Some(ids(&[]))], "nine were counted, one is kept");
        assert_eq!(row.counts, counts(9, 0));
    }

    #[test]
    fn two_readings_unite_and_never_shrink() {
        let of = |shown: &[&str], played: &[&str]| {
            let sizes = counts(shown.len() as u64, played.len() as u64);
            Row::of_store(key("v"), sizes, [ids(shown), ids(played)], true)
        };
        let mut row = of(&["a", "b"], &["a"]);
        row.unite(of(&["b", "c"], &[]));
        assert_eq!(row, of(&["a", "b", "c"], &["a"]));
        row.unite(Row::of_store(key("v"), counts(7, 0), Default::default(), true));
        assert_eq!((row.counts, &row.requests[0]), (counts(7, 1), &None));
    }

    /// Manifests that were written hold it: another one would have every file written again.
    #[test]
    fn fingerprints_never_change() {
        let [mut one, mut other] = [Fingerprint::default(); 2];
        one.see(&key("a"), counts(1, 0), true);
        one.see(&key("b"), counts(2, 1), false);
        other.see(&key("b"), counts(2, 1), false);
        other.see(&key("a"), counts(1, 0), true);
        assert_eq!(one, other);
        let mut changed = other;
        changed.see(&key("c"), counts(1, 0), true);
        assert_ne!(changed, other);
        assert_eq!(one.text(), "66d99500edcd9517");
    }
}
