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
    /// What the store has of a cell: its counts, and as many members as it keeps. To be settled.
    pub(super) fn of_store(
        key: CellKey,
        counts: CellCounts,
        sets: [BTreeSet<Id>; 2],
        complete: bool,
    ) -> Self {
        Row { key, counts, requests: sets.map(Some), complete }
    }

    /// What the store has counted of a cell, without its sets.
    pub(super) fn of_counts(key: CellKey, counts: CellCounts, complete: bool) -> Self {
        Row { key, counts, requests: [None, None], complete }
    }

    /// Adds what another reading of the same cell has found: sets only grow, so the union of two is
    /// what was emitted until now. To be settled.
    pub(super) fn add(&mut self, other: Row) {
        for (mine, theirs) in self.requests.iter_mut().zip(other.requests) {
            match (mine.as_mut(), theirs) {
                (Some(mine), Some(theirs)) => mine.extend(theirs),
                (None, Some(theirs)) => *mine = Some(theirs),
                (_, None) => {}
            }
        }
        let (counts, others) = (&mut self.counts, other.counts);
        counts.impressions = counts.impressions.max(others.impressions);
        counts.plays = counts.plays.max(others.plays);
    }

    /// Once everything is added: a set that is smaller than its count is not whole, and is not kept; of
    /// one that is whole the size is the count. (Members may have been added after the counts were read,
    /// so it may be larger.)
    pub(super) fn settle(&mut self) {
        let CellCounts { impressions, plays } = &mut self.counts;
        for (set, count) in self.requests.iter_mut().zip([impressions, plays]) {
            match set.as_ref().map(|set| set.len() as u64) {
                Some(size) if size >= *count => *count = size,
                _ => *set = None,
            }
        }
    }

    /// Request ids in it.
    pub(super) fn ids(&self) -> usize {
        self.requests.iter().flatten().map(BTreeSet::len).sum()
    }
}

/// What the counts of some cells are known by. The order in which they are seen does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// A number for a cell.
pub(super) fn cell_hash(key: &CellKey) -> u64 {
    let mut hasher = SipHasher13::new();
    write_key(&mut hasher, key);
    hasher.finish()
}

fn write_key(hasher: &mut SipHasher13, key: &CellKey) {
    for text in [&key.video, &key.slice] {
        hasher.write_u64(text.len() as u64);
        hasher.write(text.as_bytes());
    }
    hasher.write_i64(key.epoch_start_ms);
    hasher.write_i64(key.epoch_ms);
}

impl Fingerprint {
    pub(super) fn see(&mut self, key: &CellKey, counts: CellCounts, complete: bool) {
        let mut hasher = SipHasher13::new();
        write_key(&mut hasher, key);
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

    fn settled(mut row: Row) -> Row {
        row.settle();
        row
    }

    #[test]
    fn counts_are_the_sizes_of_sets_that_are_whole() {
        let sets = [ids(&["a", "b", "c"]), ids(&["a"])];
        let row = settled(Row::of_store(key("v"), counts(2, 1), sets, true));
        assert_eq!(row.counts, counts(3, 1), "a member was added after the counts were read");
        let sets = [ids(&["a"]), ids(&[])];
        let row = settled(Row::of_store(key("v"), counts(9, 0), sets, true));
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
        row.add(of(&["b", "c"], &[]));
        assert_eq!(settled(row.clone()), of(&["a", "b", "c"], &["a"]));
        row.add(Row::of_store(key("v"), counts(7, 0), Default::default(), true));
        let row = settled(row);
        assert_eq!((row.counts, &row.requests[0]), (counts(7, 1), &None));
    }

    /// The store has forgotten what the lake has: what is new in it must not make the row lose its set.
    #[test]
    fn parts_of_a_set_are_whole_together() {
        let part = |shown: &[&str], impressions| {
            Row::of_store(key("v"), counts(impressions, 0), [ids(shown), ids(&[])], true)
        };
        let mut row = part(&["c"], 3);
        row.add(part(&["a", "b"], 2));
        assert_eq!(settled(row).requests[0], Some(ids(&["a", "b", "c"])));
        let mut row = part(&["c"], 4);
        row.add(part(&["a", "b"], 2));
        let row = settled(row);
        assert_eq!((row.counts, &row.requests[0]), (counts(4, 0), &None), "one is nowhere");
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
