//! A manifest: which files of a day are alive. Pure; `manifests` reads and writes them.
//!
//! The rule of who may replace what: a writer reads the newest manifest, *then* the store, and
//! proposes an entry together with the one that it found there for the same lane and stretch (its
//! base). It is taken only where that is still the one there is. Whoever was stopped in between and
//! comes late has a base that is no longer there, is refused, and begins anew, with what the lake
//! and the store hold then: an older set can never replace a newer one.
//!
//! Of a stretch that a lane has not closed there may be delta files, which are listed by the same rule
//! as *open*. They are dropped by the version that lists its entry: so the newest manifest never lists
//! both, and nobody counts twice.
//!
//! Files that are not alive are deleted, and only such as a manifest says it of (*dropped*). A file
//! that was dropped is never listed again: what was alive once had a place that is taken now, and
//! before files that nobody lists are dropped `sweeps` is raised, which refuses every proposal that
//! was begun before.

use super::{FORMAT, LakeError, Layout};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One version of what is alive of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Id of the generation.
    pub generation: String,
    /// The UTC day in which its stretches begin, `2016-11-21`.
    pub day: String,
    /// Number of this version, from 1; 0 is that of a day without a manifest.
    pub version: u64,
    /// How many lanes there are: a stretch is sealed when each has an entry.
    pub lanes: u32,
    /// How often files were dropped that nobody had listed.
    pub sweeps: u64,
    /// What is alive, by stretch and lane.
    pub entries: Vec<Entry>,
    /// What is alive of stretches that are not closed, by stretch and lane.
    #[serde(default)]
    pub open: Vec<OpenEntry>,
    /// Files that are not alive any more and are deleted after a while.
    pub dropped: Vec<Dropped>,
}

/// What one lane has counted in one stretch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The lane.
    pub lane: u32,
    /// Start of the stretch, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// Rows in all files.
    pub rows: u64,
    /// Sum of their impressions, over all slices and lengths of epochs.
    pub impressions: u64,
    /// The same of their plays.
    pub plays: u64,
    /// Rows that may lack members.
    pub incomplete_rows: u64,
    /// Whether every row has both lists of requests. (Builds before this field did not say so.)
    #[serde(default)]
    pub lists: bool,
    /// What the counts of the store were when it was written: the same as long as they are.
    pub fingerprint: String,
    /// Of examples: for each topic the offset before which every event was looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_to: Vec<u64>,
    /// Its files, in the order of their rows. None where the lane has no cells in the stretch.
    pub files: Vec<LakeFile>,
}

/// What one lane has counted until now in a stretch that it has not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEntry {
    /// The lane.
    pub lane: u32,
    /// Start of the stretch, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
    /// When the last delta was made, milliseconds since 1970 UTC.
    pub made_ms: i64,
    /// Which start of the lane had written what is in it ([`crate::LaneState::life`]).
    pub life: u64,
    /// What the lane had read when the last delta was begun.
    pub next_offsets: Vec<u64>,
    /// Sum of the impressions of all cells then.
    pub impressions: u64,
    /// The same of their plays.
    pub plays: u64,
    /// All delta files, the oldest first.
    pub files: Vec<LakeFile>,
}

/// A file that is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeFile {
    /// Path within the lake.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// A file that is not alive any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Path within the lake.
    pub path: String,
    /// Since when, milliseconds since 1970 UTC by the clock of who dropped it.
    pub since_ms: i64,
}

/// What a writer wants to be alive.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) wanted: Wanted,
    /// What was there for its lane and stretch when the writer began.
    pub(super) base: Base,
    /// [`Manifest::sweeps`] then.
    pub(super) sweeps: u64,
}

/// What shall be alive of a lane and stretch.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// The entry of a closed stretch, in place of everything that there was of it.
    Closed(Entry),
    /// One more delta of an open one.
    Open(OpenEntry),
}

impl Wanted {
    /// Stretch and lane.
    pub(super) fn place(&self) -> (i64, u32) {
        match self {
            Wanted::Closed(entry) => (entry.from_ms, entry.lane),
            Wanted::Open(entry) => (entry.from_ms, entry.lane),
        }
    }
}

/// What is alive of a lane and stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) entry: Option<Entry>,
    pub(super) open: Option<OpenEntry>,
}

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the manifest, or is to be.
    Listed,
    /// Somebody was faster: to be begun anew.
    Stale,
}

impl Manifest {
    pub(super) fn empty(layout: &Layout, day: &str) -> Self {
        Manifest {
            format: FORMAT,
            generation: layout.generation.clone(),
            day: day.to_owned(),
            version: 0,
            lanes: layout.lanes,
            sweeps: 0,
            entries: Vec::new(),
            open: Vec::new(),
            dropped: Vec::new(),
        }
    }

    pub(super) fn of_json(bytes: &[u8], path: &str, layout: &Layout) -> Result<Self, LakeError> {
        let damaged = |what: String| LakeError::Damaged { path: path.to_owned(), what };
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        match json["format"].as_u64() {
            Some(found) if found != u64::from(FORMAT) => {
                return Err(LakeError::OtherFormat { path: path.to_owned(), found });
            }
            _ => {}
        }
        let manifest: Manifest =
            serde_json::from_value(json).map_err(|e| damaged(e.to_string()))?;
        if manifest.generation != layout.generation {
            return Err(damaged(format!("it is of generation {}", manifest.generation)));
        }
        Ok(manifest)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data always serializes")
    }

    /// What is alive of a lane in a stretch.
    pub fn entry(&self, from_ms: i64, lane: u32) -> Option<&Entry> {
        self.place(from_ms, lane).ok().map(|place| &self.entries[place])
    }

    fn place(&self, from_ms: i64, lane: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&(from_ms, lane), |entry| (entry.from_ms, entry.lane))
    }

    /// What is alive of a lane in a stretch that it has not closed.
    pub fn open_entry(&self, from_ms: i64, lane: u32) -> Option<&OpenEntry> {
        self.open_place(from_ms, lane).ok().map(|place| &self.open[place])
    }

    fn open_place(&self, from_ms: i64, lane: u32) -> Result<usize, usize> {
        self.open.binary_search_by_key(&(from_ms, lane), |entry| (entry.from_ms, entry.lane))
    }

    /// All that is alive of a lane in a stretch.
    pub(super) fn base(&self, from_ms: i64, lane: u32) -> Base {
        let entry = self.entry(from_ms, lane).cloned();
        Base { entry, open: self.open_entry(from_ms, lane).cloned() }
    }

    /// All files that are alive.
    pub fn files(&self) -> impl Iterator<Item = &LakeFile> {
        let open = self.open.iter().flat_map(|entry| &entry.files);
        self.entries.iter().flat_map(|entry| &entry.files).chain(open)
    }

    /// The next version, if anything changes, and what becomes of each proposal.
    pub(super) fn with(
        &self,
        proposals: &[Proposal],
        now_ms: i64,
    ) -> (Option<Manifest>, Vec<Verdict>) {
        let mut next = Manifest { version: self.version + 1, ..self.clone() };
        let mut changes = false;
        let mut judge = |proposal: &Proposal| {
            let Proposal { wanted, base, sweeps } = proposal;
            let (from_ms, lane) = wanted.place();
            let there = self.base(from_ms, lane);
            let is_there = match wanted {
                Wanted::Closed(entry) => there.entry.as_ref() == Some(entry),
                Wanted::Open(entry) => there.open.as_ref() == Some(entry),
            };
            if is_there {
                return Verdict::Listed;
            }
            if there != *base || self.sweeps != *sweeps {
                return Verdict::Stale;
            }
            match wanted {
                Wanted::Closed(entry) => next.replace(entry, now_ms),
                Wanted::Open(entry) => next.add_open(entry),
            }
            changes = true;
            Verdict::Listed
        };
        let verdicts = proposals.iter().map(&mut judge).collect();
        (changes.then_some(next), verdicts)
    }

    fn add_open(&mut self, entry: &OpenEntry) {
        match self.open_place(entry.from_ms, entry.lane) {
            Err(place) => self.open.insert(place, entry.clone()),
            // It was made from what is there, and has all its files.
            Ok(place) => self.open[place] = entry.clone(),
        }
    }

    fn replace(&mut self, entry: &Entry, now_ms: i64) {
        let mut gone = Vec::new();
        if let Ok(place) = self.open_place(entry.from_ms, entry.lane) {
            gone.extend(self.open.remove(place).files);
        }
        match self.place(entry.from_ms, entry.lane) {
            Err(place) => self.entries.insert(place, entry.clone()),
            Ok(place) => {
                gone.extend(std::mem::replace(&mut self.entries[place], entry.clone()).files);
            }
        }
        // A file has one entry; unless somebody has changed a manifest, and then no other entry may
        // suffer for it.
        let alive: BTreeSet<&str> = self.files().map(|file| file.path.as_str()).collect();
        gone.retain(|old| !alive.contains(old.path.as_str()));
        self.dropped
            .extend(gone.into_iter().map(|old| Dropped { path: old.path, since_ms: now_ms }));
    }

    /// The next version, in which of what is in its folder also that is dropped which nobody lists,
    /// and that is forgotten which was deleted. `None`: nothing changes.
    pub(super) fn swept(
        &self,
        unlisted: Vec<String>,
        deleted: &BTreeSet<String>,
        now_ms: i64,
    ) -> Option<Manifest> {
        if unlisted.is_empty() && deleted.is_empty() {
            return None;
        }
        let mut next = Manifest { version: self.version + 1, ..self.clone() };
        next.dropped.retain(|dropped| !deleted.contains(&dropped.path));
        if !unlisted.is_empty() {
            next.sweeps += 1;
            let drop = |path| Dropped { path, since_ms: now_ms };
            next.dropped.extend(unlisted.into_iter().map(drop));
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new("g", 2, 1000, 1000)
    }

    fn entry(lane: u32, from_ms: i64, name: &str, impressions: u64) -> Entry {
        let file = LakeFile { path: name.to_owned(), bytes: 1, rows: 1 };
        Entry {
            lane,
            from_ms,
            to_ms: from_ms + 1000,
            rows: 1,
            impressions,
            plays: 0,
            incomplete_rows: 0,
            lists: true,
            fingerprint: format!("{impressions:016x}"),
            read_to: Vec::new(),
            files: vec![file],
        }
    }

    fn proposal(entry: Entry, base: Option<Entry>) -> Proposal {
        let base = Base { entry: base, open: None };
        Proposal { wanted: Wanted::Closed(entry), base, sweeps: 0 }
    }

    fn open_entry(names: &[&str], position: u64) -> OpenEntry {
        let file = |name: &&str| LakeFile { path: (*name).to_owned(), bytes: 1, rows: 1 };
        OpenEntry {
            lane: 1,
            from_ms: 0,
            to_ms: 1000,
            made_ms: 7,
            life: 1,
            next_offsets: vec![position],
            impressions: position,
            plays: 0,
            files: names.iter().map(file).collect(),
        }
    }

    fn delta(names: &[&str], base: Option<OpenEntry>) -> Proposal {
        let base = Base { entry: None, open: base };
        Proposal { wanted: Wanted::Open(open_entry(names, names.len() as u64)), base, sweeps: 0 }
    }

    #[test]
    fn deltas_go_when_their_stretch_is_listed_and_never_come_back() {
        let none = Manifest::empty(&layout(), "1970-01-01");
        let one = none.with(&[delta(&["a"], None)], 1).0.expect("it changed");
        let first = one.open_entry(0, 1).cloned();
        let two = one.with(&[delta(&["a", "b"], first.clone())], 2).0.expect("it changed");
        assert_eq!(two.open.len(), 1);
        assert_eq!(two.files().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        // Whoever has not seen the second delta replaces it by nothing: no other delta, no entry.
        for late in [delta(&["a", "c"], first.clone()), proposal(entry(1, 0, "cells", 1), None)] {
            assert_eq!(two.with(&[late], 3), (None, vec![Verdict::Stale]));
        }
        let wanted = Wanted::Closed(entry(1, 0, "cells", 2));
        let sealed = Proposal { wanted, base: two.base(0, 1), sweeps: 0 };
        let three = two.with(&[sealed], 4).0.expect("it changed");
        assert_eq!(three.files().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["cells"]);
        let dropped = |path: &str| Dropped { path: path.to_owned(), since_ms: 4 };
        assert_eq!(three.dropped, [dropped("a"), dropped("b")]);
        let late = delta(&["a", "b", "c"], two.open_entry(0, 1).cloned());
        assert_eq!(three.with(&[late], 5), (None, vec![Verdict::Stale]), "it is closed");
        let read = Manifest::of_json(&two.to_json(), "m", &layout()).expect("it reads");
        assert_eq!(read, two);
    }

    #[test]
    fn a_stalled_owner_cannot_replace_what_was_repaired_meanwhile() {
        let none = Manifest::empty(&layout(), "1970-01-01");
        let first = entry(0, 0, "small", 3);
        let (one, verdicts) = none.with(&[proposal(first.clone(), None)], 1);
        assert_eq!(verdicts, [Verdict::Listed]);
        let one = one.expect("it changed");
        // Two have read the same base; one has been repaired since.
        let repaired = entry(0, 0, "repaired", 5);
        let (two, _) = one.with(&[proposal(repaired.clone(), Some(first.clone()))], 2);
        let two = two.expect("it changed");
        let stalled = entry(0, 0, "stalled", 4);
        let (next, verdicts) = two.with(&[proposal(stalled, Some(first))], 3);
        assert_eq!((next, verdicts), (None, vec![Verdict::Stale]));
        assert_eq!(two.entry(0, 0), Some(&repaired));
        assert_eq!(two.dropped, [Dropped { path: "small".into(), since_ms: 2 }]);
    }

    #[test]
    fn who_asks_again_has_it_already() {
        let none = Manifest::empty(&layout(), "1970-01-01");
        let asked = proposal(entry(1, 0, "a", 3), None);
        let (one, _) = none.with(std::slice::from_ref(&asked), 1);
        let (next, verdicts) = one.expect("it changed").with(&[asked], 1);
        assert_eq!((next, verdicts), (None, vec![Verdict::Listed]));
    }

    #[test]
    fn entries_stand_by_stretch_and_lane() {
        let mut manifest = Manifest::empty(&layout(), "1970-01-01");
        for (lane, from_ms) in [(1, 1000), (0, 1000), (1, 0), (0, 2000)] {
            let asked = proposal(entry(lane, from_ms, &format!("{lane} {from_ms}"), 1), None);
            manifest = manifest.with(&[asked], 0).0.expect("it changed");
        }
        let order: Vec<_> = manifest.entries.iter().map(|e| (e.from_ms, e.lane)).collect();
        assert_eq!(order, [(0, 1), (1000, 0), (1000, 1), (2000, 0)]);
        let read = Manifest::of_json(&manifest.to_json(), "m", &layout()).expect("it reads");
        assert_eq!(read, manifest);
    }

    #[test]
    fn what_was_begun_before_a_sweep_is_refused() {
        let none = Manifest::empty(&layout(), "1970-01-01");
        let begun = proposal(entry(0, 0, "orphan", 3), None);
        let swept = none.swept(vec!["orphan".into()], &BTreeSet::new(), 7).expect("it changed");
        assert_eq!(swept.with(std::slice::from_ref(&begun), 8).1, [Verdict::Stale]);
        let deleted = BTreeSet::from(["orphan".to_owned()]);
        let clean = swept.swept(Vec::new(), &deleted, 9).expect("it changed");
        assert_eq!((clean.dropped.len(), clean.with(&[begun], 9).1), (0, vec![Verdict::Stale]));
    }

    #[test]
    fn other_formats_and_generations_are_refused() {
        let read = |text: &str| {
            let error = Manifest::of_json(text.as_bytes(), "m.json", &layout());
            error.expect_err("it is refused").to_string()
        };
        assert!(read(r#"{"format": 2}"#).contains("m.json in the lake has format 2"));
        assert!(read("{").contains("is not what this program writes"));
        let mut other = Manifest::empty(&layout(), "1970-01-01");
        other.generation = "h".into();
        let text = String::from_utf8(other.to_json()).expect("it is JSON");
        assert!(read(&text).contains("it is of generation h"));
    }
}
