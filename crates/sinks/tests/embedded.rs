//! The embedded store by what it gives back: rows, buckets and what is remembered of them must not
//! show.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_expr::Value;
use marquee_model::{CellCounts, CellKey, Kind};
use marquee_pipeline::chunk::{self, Id, IdRef};
use marquee_pipeline::lane::LaneSettings;
use marquee_pipeline::prepare::Stream;
use marquee_pipeline::{LanePipeline, Settings};
use marquee_sinks::embedded::{EmbeddedStore, StoreMemory};
use marquee_sinks::{
    CellQuery, ClosedCell, Gap, Identity, LaneCommit, LaneState, Members, Repair, Sink, Store,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const LANES: u32 = 2;
const EPOCH_MS: i64 = 1000;

fn identity() -> Identity {
    Identity {
        settings: serde_json::json!({}),
        lanes: Some(LANES),
        epochs_ms: vec![EPOCH_MS],
        new_id: "generation".to_owned(),
        new_secret: [7; 16],
    }
}

fn memory() -> StoreMemory {
    StoreMemory::of_process(0)
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, &identity(), true, memory()).unwrap()
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
            .map(|(cell, (counts, ids))| {
                let chunks = [chunk(&ids[0]), chunk(&ids[1])];
                ClosedCell { key: cell, counts: **counts, chunks }
            })
            .collect();
        store.write_closed(lane, name, &cells, Some(&LaneState::default())).unwrap();
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

    /// What is asked of a stretch of time: no more of it, and no less.
    fn check_between(
        &self,
        store: &EmbeddedStore,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<(), TestCaseError> {
        let is_in = |cell: &CellKey| (from_ms..to_ms).contains(&cell.epoch_start_ms);
        let (mut epochs, mut of_all) = (BTreeSet::new(), BTreeMap::new());
        for lane in 0..LANES {
            let mut counts = BTreeMap::new();
            let each = &mut |of_lane, cell: CellKey, c| {
                assert_eq!(of_lane, lane);
                assert_eq!(counts.insert(cell, c), None, "told twice");
            };
            store.counts_between(Some(lane), from_ms, to_ms, each).unwrap();
            let mut wanted = self.counts[lane as usize].clone();
            wanted.retain(|cell, _| is_in(cell));
            prop_assert_eq!(&counts, &wanted);
            epochs.extend(wanted.keys().map(|cell| cell.epoch_start_ms));
            of_all.extend(wanted.into_iter().map(|(cell, c)| ((lane, cell), c)));

            let wants = |cell: &CellKey| cell.video.len() % 2 == 1;
            let mut members = Members::new();
            let each = &mut |cell, sets| assert_eq!(members.insert(cell, sets), None, "told twice");
            store.members_between(lane, from_ms, to_ms, &wants, each).unwrap();
            let mut wanted = self.members[lane as usize].clone();
            wanted.retain(|cell, _| is_in(cell) && wants(cell));
            prop_assert_eq!(members, wanted);
        }
        let mut found = BTreeMap::new();
        let each = &mut |lane, cell, c| assert_eq!(found.insert((lane, cell), c), None);
        store.counts_between(None, from_ms, to_ms, each).unwrap();
        prop_assert_eq!(found, of_all);
        prop_assert_eq!(store.epochs_between(from_ms, to_ms).unwrap(), epochs);
        Ok(())
    }

    /// All that the store can be asked.
    fn check(&self, store: &EmbeddedStore) -> Result<(), TestCaseError> {
        for (from_ms, to_ms) in [(0, i64::MAX), (0, EPOCH_MS), (EPOCH_MS, 2 * EPOCH_MS), (5, 5)] {
            self.check_between(store, from_ms, to_ms)?;
        }
        let mut sums: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        for lane in 0..LANES {
            let (counts, members) = (&self.counts[lane as usize], &self.members[lane as usize]);
            prop_assert_eq!(&store.counts_of_lane(lane, 0).unwrap(), counts);
            prop_assert_eq!(&members_of_lane(store, lane, 0), members);
            let later = |cell: &CellKey| cell.epoch_start_ms >= EPOCH_MS;
            let open = members.iter().filter(|(cell, _)| later(cell));
            let open: Members = open.map(|(cell, sets)| (cell.clone(), sets.clone())).collect();
            prop_assert_eq!(members_of_lane(store, lane, EPOCH_MS), open);
            let some: Vec<&CellKey> = members.keys().step_by(3).collect();
            let of_cell = |cell: &&CellKey| ((*cell).clone(), members[*cell].clone());
            let wanted: Members = some.iter().map(of_cell).collect();
            prop_assert_eq!(store.members_of_cells(lane, &some).unwrap(), wanted);
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
            let each =
                &mut |cell, counts| assert_eq!(found.insert(cell, counts), None, "told twice");
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

/// A lane that counts every impression at once: `minute` is the epoch, in minutes.
fn show(lane: &mut LanePipeline, minute: i64, video: &str, request: &str) {
    let stream = Stream::new(Kind::Impression, &[], "", "", &[vec![]], true).unwrap();
    let text = |text| Value::String(Cow::Borrowed(text));
    let (time, headers) = (Value::Int(minute * 60_000), Value::StringMap(&[]));
    let values = [text(request), text(video), time.clone(), time, Value::Null, headers];
    lane.event(&stream, 0, &values);
}

/// Two lanes in one write, again and again: rows grow by what each batch changes, whether they are
/// remembered or read from the disk.
#[test]
fn what_lanes_commit_is_what_their_store_holds() {
    let lane = || {
        let settings = Settings { epochs_ms: vec![60_000], ..Settings::default() };
        LanePipeline::new(LaneSettings { settings, max_ahead_ms: None, secret: [7; 16], topics: 2 })
    };
    let identity = || Identity { epochs_ms: vec![60_000], ..identity() };
    let folder = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(folder.path(), &identity(), true, memory()).unwrap();
    let (mut store, mut lanes) = (open(), [lane(), lane()]);
    let mut expected: [Members; 2] = Default::default();
    for batch in 0..6_u64 {
        for (number, lane) in lanes.iter_mut().enumerate() {
            for n in 0..700 {
                // Most videos in each batch, more of them than buckets, in two epochs.
                let (minute, video) = (n % 2, format!("video-{}", (n * 7 + batch as i64) % 400));
                let request = format!("request-{number}-{batch}-{n}");
                show(lane, minute, &video, &request);
                let epoch_start_ms = minute * 60_000;
                let cell =
                    CellKey { video, epoch_start_ms, epoch_ms: 60_000, slice: String::new() };
                expected[number].entry(cell).or_default()[0].insert(Id::of(&request));
            }
        }
        let state = LaneState { next_offsets: vec![batch, 0], ..LaneState::default() };
        let [one, two] = &mut lanes;
        store
            .commit(&[
                LaneCommit { lane: 0, batch: one.batch(), state: &state },
                LaneCommit { lane: 1, batch: two.batch(), state: &state },
            ])
            .unwrap();
        lanes.iter_mut().for_each(LanePipeline::advance);
        if batch % 2 == 1 {
            drop(store);
            store = open();
        }
        for (number, members) in (0..).zip(&expected) {
            assert_eq!(members_of_lane(&store, number, 0), *members, "lane {number}, {batch}");
            let size = |(cell, sets): (&CellKey, &[BTreeSet<Id>; 2])| {
                (cell.clone(), CellCounts { impressions: sets[0].len() as u64, plays: 0 })
            };
            let counts: BTreeMap<_, _> = members.iter().map(size).collect();
            assert_eq!(store.counts_of_lane(number, 0).unwrap(), counts, "lane {number}, {batch}");
            assert_eq!(store.lane_state(number).unwrap().as_ref(), Some(&state));
        }
    }
}

/// A repair writes closed epochs while the lane goes on with later ones: neither undoes the other's
/// counts, though the lane still remembers the rows as it wrote them.
#[test]
fn closed_epochs_are_written_beside_a_lane_that_remembers_their_rows() {
    let settings = Settings { epochs_ms: vec![60_000], ..Settings::default() };
    let (max_ahead_ms, secret) = (None, [7; 16]);
    let mut lane = LanePipeline::new(LaneSettings { settings, max_ahead_ms, secret, topics: 2 });
    let identity = Identity { epochs_ms: vec![60_000], ..identity() };
    let folder = tempfile::tempdir().unwrap();
    // Enough memory to remember all of them.
    let memory = StoreMemory::of_process(1 << 30);
    let store = EmbeddedStore::open(folder.path(), &identity, true, memory).unwrap();
    let mut batch = 0;
    let mut commit = |lane: &mut LanePipeline, minute: i64| {
        for n in 0..600 {
            show(lane, minute, &format!("video-{n}"), &format!("request-{batch}-{n}"));
        }
        let state = LaneState { next_offsets: vec![batch, 0], ..LaneState::default() };
        store.commit(&[LaneCommit { lane: 0, batch: lane.batch(), state: &state }]).unwrap();
        lane.advance();
        batch += 1;
        state
    };
    commit(&mut lane, 0);
    let cell = |n: i64| CellKey {
        video: format!("video-{n}"),
        epoch_start_ms: 0,
        epoch_ms: 60_000,
        slice: String::new(),
    };
    for part in 0..2 {
        let keys: Vec<CellKey> = (0..600).filter(|n| n % 2 == part).map(cell).collect();
        let counts = CellCounts { impressions: 2, plays: 0 };
        let chunk = chunk::encode([IdRef::of("late")].into_iter());
        let closed = |key| ClosedCell { key, counts, chunks: [chunk.clone(), Vec::new()] };
        let cells: Vec<ClosedCell<'_>> = keys.iter().map(closed).collect();
        store.write_closed(0, 77, &cells, None).unwrap();
        let state = commit(&mut lane, 1);
        assert_eq!(store.lane_state(0).unwrap(), Some(state), "a repair moves no lane");
    }
    let mut counts = store.counts_of_lane(0, 0).unwrap();
    counts.retain(|cell, _| cell.epoch_start_ms < 60_000);
    assert_eq!(counts.len(), 600);
    assert!(counts.values().all(|counts| counts.impressions == 2), "{counts:?}");
    assert_eq!(
        members_of_lane(&store, 0, 0).iter().filter(|(c, _)| c.epoch_start_ms == 0).count(),
        600
    );
}

#[test]
fn repairs_are_there_after_the_store_was_opened_again_each_once() {
    let gap = Gap {
        lane: 1,
        topic: "plays".to_owned(),
        from_offset: 3,
        to_offset: 9,
        from_ms: 1000,
        to_ms: 5000,
        reason: "trimmed".to_owned(),
    };
    let of = |gap| Repair { lane: 1, from_ms: 1000, to_ms: 3000, source: Repair::LOG.into(), gap };
    let repairs = [of(None), of(Some(gap.clone()))];
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = open(folder.path());
        store.add_repairs(&repairs).unwrap();
        store.add_gaps(std::slice::from_ref(&gap)).unwrap();
    }
    let store = open(folder.path());
    let mut found = store.repairs().unwrap();
    found.sort();
    assert_eq!(found, repairs);
    let left = Gap::unrepaired(store.gaps().unwrap(), &found);
    assert_eq!(left, [Gap { from_ms: 3000, ..gap }]);
}

/// No join leaves such a store, but what its damage left must be sealed and compared, too.
#[test]
fn a_cell_whose_longest_epoch_is_lost_still_shows_its_epoch() {
    let identity = Identity { epochs_ms: vec![60_000, 20_000], ..identity() };
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), &identity, true, memory()).unwrap();
    let key = |epoch_start_ms, epoch_ms| CellKey {
        video: "v".to_owned(),
        epoch_start_ms,
        epoch_ms,
        slice: String::new(),
    };
    let keys = [key(100_000, 20_000), key(180_000, 60_000), key(220_000, 20_000)];
    let counts = CellCounts { impressions: 1, plays: 0 };
    let chunk = chunk::encode([IdRef::of("request")].into_iter());
    let cell = |key| ClosedCell { key, counts, chunks: [chunk.clone(), Vec::new()] };
    let cells: Vec<ClosedCell<'_>> = keys.iter().map(cell).collect();
    store.write_closed(0, 1, &cells, Some(&LaneState::default())).unwrap();
    let epochs = |from_ms, to_ms| Vec::from_iter(store.epochs_between(from_ms, to_ms).unwrap());
    assert_eq!(epochs(0, i64::MAX), [60_000, 180_000]);
    assert_eq!(epochs(0, 180_000), [60_000]);
    assert_eq!(epochs(180_000, 240_000), [180_000]);
}
