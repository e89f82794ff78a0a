//! What a lane leaves with its committed offsets for its next owner, who may be another process
//! with another store: the metadata of the commit.
//!
//! It is a small JSON text, far below the 4,096 bytes that a broker takes: both positions (so that
//! the note of either topic tells all), the frontier, the index of offsets where a rebuild begins,
//! the counters, what open epochs may lack, and what tells a commit of another generation or of
//! another topic.

use marquee_pipeline::Settings;
use marquee_pipeline::lane::Counters;
use marquee_sinks::{Gap, LaneState};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeMap;
use std::hash::Hasher;

/// Brokers take 4,096 bytes; a longer index is left out, and only its smallest offsets are kept.
const MAX_BYTES: usize = 3000;

const VERSION: u32 = 1;

/// Stands in an index for epochs that it does not tell: their smallest offset is no smaller.
pub(super) const ANY_EPOCH: i64 = i64::MAX;

/// One commit of one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Version of this format.
    marquee: u32,
    /// Stands for the settings that decide what is counted.
    pub(super) settings: String,
    /// The next offset to read, by topic.
    pub(super) next: Vec<u64>,
    frontier: i64,
    /// For each topic the offset where a rebuild begins.
    from: Vec<u64>,
    /// For each topic pairs of an epoch and its smallest offset; left out where it is long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    index: Vec<Vec<(i64, u64)>>,
    /// Events, filtered, dead, late, duplicates.
    counters: [u64; 5],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
    /// What open epochs may lack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<Gap>,
}

/// A short name for the settings that decide what is counted.
pub(super) fn name_of(fingerprint: &serde_json::Value) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(fingerprint.to_string().as_bytes());
    format!("{:032x}", hasher.finish128().as_u128())
}

impl Note {
    /// The note of a state that is durable.
    pub(super) fn text(state: &LaneState, settings: &Settings, name: &str) -> String {
        let needed = settings.oldest_needed_by(state.frontier);
        let from = (0..state.next_offsets.len()).map(|topic| first_needed(state, topic, needed));
        let Counters { events, filtered, dead, late, duplicates } = state.counters;
        let index = |offsets: &BTreeMap<i64, u64>| offsets.clone().into_iter().collect();
        let mut note = Note {
            marquee: VERSION,
            settings: name.to_owned(),
            next: state.next_offsets.clone(),
            frontier: state.frontier,
            from: from.collect(),
            index: state.smallest_offsets.iter().map(index).collect(),
            counters: [events, filtered, dead, late, duplicates],
            topics: state.topic_ids.clone(),
            gaps: state.gaps.clone(),
        };
        if note.to_json().len() > MAX_BYTES {
            note.index.clear();
        }
        if note.to_json().len() > MAX_BYTES {
            note.gaps = Gap::covering(&note.gaps).into_iter().collect();
        }
        note.to_json()
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts always serialize")
    }

    /// The version of a note that a newer program wrote.
    pub(super) fn newer_version(text: &str) -> Option<u64> {
        let note: serde_json::Value = serde_json::from_str(text).ok()?;
        note["marquee"].as_u64().filter(|version| *version > u64::from(VERSION))
    }

    /// Reads a note. `None` for what this program did not write, or a newer version did.
    pub(super) fn read(text: &str, topics: usize) -> Option<Note> {
        let note: Note = serde_json::from_str(text).ok()?;
        let is_whole = note.next.len() == topics && note.from.len() == topics;
        let has_index = note.index.is_empty() || note.index.len() == topics;
        (note.marquee == VERSION && is_whole && has_index).then_some(note)
    }

    /// The first epoch that was open.
    pub(super) fn frontier(&self) -> i64 {
        self.frontier
    }

    /// How far it is: all offsets together.
    pub(super) fn offsets_sum(&self) -> u64 {
        self.next.iter().sum()
    }

    /// The state that it tells of. Its letters are in another store.
    pub(super) fn state(&self) -> LaneState {
        let smallest_offsets = match self.index.is_empty() {
            false => self.index.iter().map(|pairs| pairs.iter().copied().collect()).collect(),
            true => self.from.iter().map(|at| BTreeMap::from([(ANY_EPOCH, *at)])).collect(),
        };
        let [events, filtered, dead, late, duplicates] = self.counters;
        LaneState {
            next_offsets: self.next.clone(),
            frontier: self.frontier,
            smallest_offsets,
            counters: Counters { events, filtered, dead, late, duplicates },
            topic_ids: self.topics.clone(),
            gaps: self.gaps.clone(),
            seeded_to: 0,
            told_frontier: self.frontier,
            late_bytes: 0,
            dead_bytes: 0,
            life: 0,
            snapshot: String::new(),
            letters: String::new(),
        }
    }
}

/// Where a rebuild of a topic begins: the first record of any epoch from `needed` on.
pub(super) fn first_needed(state: &LaneState, topic: usize, needed: i64) -> u64 {
    let committed = state.next_offsets[topic];
    let smallest = state.smallest_offsets[topic].range(needed..).map(|(_, offset)| *offset).min();
    smallest.unwrap_or(committed).min(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epochs: i64) -> LaneState {
        LaneState {
            next_offsets: vec![1000, 200],
            frontier: 5,
            smallest_offsets: vec![
                (2..2 + epochs).map(|epoch| (epoch, 10 * epoch as u64)).collect(),
                BTreeMap::from([(4, 7)]),
            ],
            counters: Counters { events: 9, late: 2, ..Counters::default() },
            topic_ids: vec!["a".to_owned(), "b".to_owned()],
            ..LaneState::default()
        }
    }

    #[test]
    fn a_note_reads_as_what_was_written() {
        let settings = Settings::default();
        let text = Note::text(&state(6), &settings, "s");
        assert!(text.len() < 400, "{} bytes", text.len());
        let note = Note::read(&text, 2).expect("it is ours");
        let expected = LaneState { told_frontier: 5, ..state(6) };
        assert_eq!(note.state(), expected);
        assert_eq!(Note::read(&text, 1), None, "another number of topics");
        assert_eq!(Note::read("offset of a Spark job", 2), None);
        assert_eq!(Note::read(&text.replace("\"marquee\":1", "\"marquee\":2"), 2), None);
    }

    #[test]
    fn many_gaps_become_one_that_covers_them() {
        let gap = |n: i64| Gap {
            lane: 1,
            topic: "impressions".to_owned(),
            from_offset: n as u64,
            to_offset: n as u64 + 1,
            from_ms: 10 * n,
            to_ms: 10 * n + 10,
            reason: "trimmed".to_owned(),
        };
        let settings = Settings::default();
        let many = LaneState { gaps: (3..100).map(gap).collect(), ..state(6) };
        let text = Note::text(&many, &settings, "s");
        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        let read = Note::read(&text, 2).expect("it is ours").state().gaps;
        assert_eq!((read.len(), read[0].from_ms, read[0].to_ms), (1, 30, 1000));
    }

    #[test]
    fn a_long_index_is_left_out_and_the_rebuild_begins_where_it_did() {
        let settings = Settings::default();
        let text = Note::text(&state(3000), &settings, "s");
        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        let read = Note::read(&text, 2).expect("it is ours").state();
        let needed = settings.oldest_needed_by(5);
        for topic in 0..2 {
            let whole = first_needed(&state(3000), topic, needed);
            assert_eq!(first_needed(&read, topic, needed), whole);
        }
    }
}
