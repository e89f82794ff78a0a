//! The embedded store by what it gives back: rows, buckets and what is remembered of them must not
//! show.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::{self, Id, IdRef};
use marquee_sinks::embedded::{CellQuery, EmbeddedStore, Identity, StoreMemory};
use marquee_sinks::{LaneState, Members, Sink};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const LANES: u32 = 2;
const EPOCH_MS: i64 = 1000;

fn open(path: &Path) -> EmbeddedStore {
    let identity = Identity {
        settings: serde_json::json!({}),
        lanes: Some(LANES),
        epochs_ms: vec![EPOCH_MS],
        new_id: "generation".to_owned(),
        new_secret: [7; 16],
    };
    EmbeddedStore::open(path, &identity, true, StoreMemory::of_process(0)).unwrap()
}

fn members_of_lane(store: &EmbeddedStore, lane: u32, from_ms: i64) -> Members {
    let mut members = Members::new();
    let each = &mut |cell, sets| assert_eq!(members.insert(cell, sets), None, "told twice");
    store.members_of_lane(lane, from_ms, each).unwrap();
    members
}

/// A cell, its counts, and requests that it gets.
type Write = (CellKey, CellCounts, [BTreeSet<u16>; 2]);

fn write() -> impl Strategy<Value = Write> {
    // More videos than buckets, so that some share one.
    let cell = (0..400_u32, 0..3_i64, prop_oneof!["", "\\{\"a\":1\\}", "\\{\"a\":12\\}"]);
    (cell, 0..9_u64, [btree_set(0..99_u16, 0..4), btree_set(0..99_u16, 0..4)]).prop_map(
        |((video, epoch, slice), impressions, ids)| {
            let epoch_start_ms = EPOCH_MS * epoch;
            let video = format!("video-{video}");
            let cell = CellKey { video, epoch_start_ms, epoch_ms: EPOCH_MS, slice };
            (cell, CellCounts { impressions, plays: 1 }, ids)
        },
    )
}

fn texts(ids: &BTreeSet<u16>) -> Vec<String> {
    ids.iter().map(|id| format!("request-{id}")).collect()
}

/// What a store should hold of each lane.
#[derive(Default)]
struct Expected {
    counts: [BTreeMap<CellKey, CellCounts>; LANES as usize],
    members: [Members; LANES as usize],
}

impl Expected {
    fn write(&mut self, store: &EmbeddedStore, lane: u32, name: u64, writes: &[Write]) {
        // A batch has each cell once.
        let writes: BTreeMap<_, _> = writes.iter().map(|(cell, c, ids)| (cell, (c, ids))).collect();
        let chunk = |ids| match texts(ids) {
            ids if ids.is_empty() => Vec::new(),
            ids => chunk::encode(ids.iter().map(|id| IdRef::of(id))),
        };
        let cells: Vec<_> = writes
            .iter()
            .map(|(cell, (counts, ids))| (*cell, **counts, [chunk(&ids[0]), chunk(&ids[1])]))
            .collect();
        store.write_closed(lane, name, &cells, &LaneState::default()).unwrap();
        for (cell, (counts, ids)) in writes {
            self.counts[lane as usize].insert(cell.clone(), *counts);
            if ids.iter().any(|ids| !ids.is_empty()) {
                let sets = self.members[lane as usize].entry(cell.clone()).or_default();
                for (set, ids) in sets.iter_mut().zip(ids) {
                    set.extend(texts(ids).iter().map(|id| Id::of(id)));
                }
            }
        }
    }

    /// All that the store can be asked.
    fn check(&self, store: &EmbeddedStore) -> Result<(), TestCaseError> {
        let mut sums: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        for lane in 0..LANES {
            let (counts, members) = (&self.counts[lane as usize], &self.members[lane as usize]);
            prop_assert_eq!(&store.counts_of_lane(lane, 0).unwrap(), counts);
            prop_assert_eq!(&members_of_lane(store, lane, 0), members);
            let later = |cell: &CellKey| cell.epoch_start_ms >= EPOCH_MS;
            let open = members.iter().filter(|(cell, _)| later(cell));
            let open: Members = open.map(|(cell, sets)| (cell.clone(), sets.clone())).collect();
            prop_assert_eq!(members_of_lane(store, lane, EPOCH_MS), open);
            let some = members.keys().step_by(3);
            let wanted: Members = some.clone().map(|c| (c.clone(), members[c].clone())).collect();
            prop_assert_eq!(store.members_of_cells(lane, some).unwrap(), wanted);
            for (cell, sets) in members {
                for (side, set) in Side::BOTH.into_iter().zip(sets) {
                    prop_assert_eq!(&store.members(cell, lane, side).unwrap(), set);
                }
            }
            for (cell, counts) in counts {
                let sum = sums.entry(cell.clone()).or_default();
                *sum = sum.plus(*counts);
            }
        }
        let some = sums.keys().next().cloned();
        let queries = some.into_iter().flat_map(|CellKey { video, slice, .. }| {
            let (video, slice) = (Some(video), Some(slice));
            let of = |video: &Option<String>, slice: &Option<String>| CellQuery {
                from_ms: Some(EPOCH_MS),
                video: video.clone(),
                slice: slice.clone(),
                ..CellQuery::default()
            };
            [of(&video, &slice), of(&video, &None), of(&None, &slice)]
        });
        for query in queries.chain([CellQuery::default()]) {
            let mut found = BTreeMap::new();
            let each = |cell, counts| assert_eq!(found.insert(cell, counts), None, "told twice");
            store.cells(&query, each).unwrap();
            let wanted = |cell: &CellKey| {
                query.from_ms.is_none_or(|from_ms| cell.epoch_start_ms >= from_ms)
                    && query.video.as_ref().is_none_or(|video| *video == cell.video)
                    && query.slice.as_ref().is_none_or(|slice| *slice == cell.slice)
            };
            let mut expected = sums.clone();
            expected.retain(|cell, _| wanted(cell));
            prop_assert_eq!(found, expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_store_gives_back_what_was_written_also_after_it_was_opened_again(
        batches in vec((0..LANES, vec(write(), 0..200), any::<bool>()), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, mut expected) = (open(folder.path()), Expected::default());
        for (name, (lane, writes, opens_again)) in batches.into_iter().enumerate() {
            expected.write(&store, lane, name as u64, &writes);
            if opens_again {
                drop(store);
                store = open(folder.path());
            }
            expected.check(&store)?;
        }
    }
}
