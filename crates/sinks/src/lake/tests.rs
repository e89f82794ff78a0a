//! The protocol of the lake under fire: several writers, each stopped, failed or killed at any of
//! its calls, and a store that grows meanwhile. Whoever reads the newest manifest, at any moment,
//! finds every file that it lists, never a member less than before, and in the end all.

mod deltas;
mod fixture;
pub(super) mod place;
pub(super) mod store;
mod turns;

use super::layout::day_of;
use super::*;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use place::{Memory, Place};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{EPOCH_MS, LANES, MemoryStore, cell};
use turns::{Change, Fault, Step, Turns};

const WRITERS: usize = 3;

/// Nothing is too young to be taken away: the worst for the protocol.
const NO_MERCY: Ages = Ages { dropped_ms: 0, unlisted_ms: 0, manifests_ms: 0 };

fn settings() -> SealingSettings {
    SealingSettings {
        file_bytes: 1 << 20,
        span_ms: EPOCH_MS,
        // A few members: there are several ranges.
        memory_bytes: 1000,
        look_again: Duration::ZERO,
        deltas_ms: None,
        members: true,
        forget_after_ms: None,
        ages: NO_MERCY,
    }
}

fn sealing(store: &Arc<MemoryStore>, objects: Arc<dyn Objects>) -> Sealing {
    sealing_with(settings(), store, objects)
}

fn sealing_with(
    settings: SealingSettings,
    store: &Arc<MemoryStore>,
    objects: Arc<dyn Objects>,
) -> Sealing {
    let status = Arc::new(LakeStatus::new("memory".into()));
    Sealing::new(store.clone(), objects, settings, status, Stop::default())
}

/// Ticks until nothing is left to do, also of what is looked at again.
fn seal_all(store: &Arc<MemoryStore>, memory: &Arc<Memory>) {
    seal_all_with(settings(), store, memory);
}

fn seal_all_with(settings: SealingSettings, store: &Arc<MemoryStore>, memory: &Arc<Memory>) {
    let mut sealing = sealing_with(settings, store, memory.clone());
    for _ in 0..20 {
        sealing.tick(0).expect("the memory is always there");
    }
    assert!(sealing.is_done());
}

type Sets = BTreeMap<(u32, CellKey), [BTreeSet<Id>; 2]>;

/// What a reader of the newest manifests finds; panics where a file is missing or not whole.
fn read_lake(memory: &Arc<Memory>) -> Sets {
    let layout = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let manifests = Manifests { objects: memory.clone(), layout };
    let mut sets = Sets::new();
    let manifest = manifests.newest(&day_of(0)).expect("it is readable");
    for entry in &manifest.entries {
        let (mut rows, mut sums) = (0, (0, 0));
        let mut last: Option<CellKey> = None;
        let each = &mut |row: Row| {
            assert!(last.as_ref().is_none_or(|last| *last < row.key), "rows are sorted");
            last = Some(row.key.clone());
            rows += 1;
            sums = (sums.0 + row.counts.impressions, sums.1 + row.counts.plays);
            let kept = row.requests.map(|set| set.expect("members are kept"));
            let sizes = kept.each_ref().map(|set| set.len() as u64);
            assert_eq!(sizes, [row.counts.impressions, row.counts.plays]);
            let twice = sets.insert((entry.lane, row.key), kept);
            assert!(twice.is_none(), "a cell is listed twice");
        };
        // A file that is listed and missing is an error.
        manifests.rows(entry, each).expect("what is listed is there and whole");
        for file in &entry.files {
            let bytes = memory.get(&file.path).expect("it is memory").expect("it was read");
            assert_eq!(bytes.len() as u64, file.bytes);
        }
        assert_eq!((rows, sums), (entry.rows, (entry.impressions, entry.plays)));
    }
    for entry in &manifest.open {
        assert!(manifest.entry(entry.from_ms, entry.lane).is_none(), "a stretch counts twice");
        read_open(&manifests, entry, &mut sets);
    }
    sets
}

/// The same of the deltas of a lane's stretch: the union of the sets, of which counts tell no more.
fn read_open(manifests: &Manifests, entry: &OpenEntry, sets: &mut Sets) {
    let mut counts: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
    let each = &mut |row: Row| {
        let most = counts.entry(row.key.clone()).or_default();
        most.impressions = most.impressions.max(row.counts.impressions);
        most.plays = most.plays.max(row.counts.plays);
        let known = sets.entry((entry.lane, row.key)).or_default();
        for (known, set) in known.iter_mut().zip(row.requests) {
            known.extend(set.expect("members are kept"));
        }
    };
    manifests.rows_of(&entry.files, each).expect("what is listed is there and whole");
    for (key, counts) in counts {
        let found = &sets[&(entry.lane, key)];
        assert!(found[0].len() as u64 >= counts.impressions, "a delta has missed a member");
        assert!(found[1].len() as u64 >= counts.plays, "a delta has missed a member");
    }
}

fn assert_contains(what: &str, larger: &Sets, smaller: &Sets) {
    for (key, sides) in smaller {
        let found = larger.get(key).unwrap_or_else(|| panic!("{what}: {key:?} is missing"));
        for (side, (found, wanted)) in found.iter().zip(sides).enumerate() {
            assert!(found.is_superset(wanted), "{what}: side {side} of {key:?} has shrunk");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        20 => Just(Fault::None),
        2 => Just(Fault::Refused),
        2 => Just(Fault::AnswerLost),
        1 => Just(Fault::Killed),
    ];
    let member = (0..LANES, 0..3_i64, 0..2_u8, 0..6_u8, any::<bool>());
    let change = prop_oneof![
        14 => Just(None),
        4 => member.prop_map(|(lane, epoch, side, id, other)| {
            Some(Change::Adds(lane, epoch, side, id, other))
        }),
        1 => (0..LANES).prop_map(|lane| Some(Change::Closes(lane))),
        1 => (0..LANES).prop_map(|lane| Some(Change::Restarts(lane))),
    ];
    (0..WRITERS, fault, change).prop_map(|(writer, fault, change)| Step { writer, fault, change })
}

fn change(store: &MemoryStore, change: Change) {
    match change {
        Change::Adds(lane, epoch, side, id, other) => store.add(lane, epoch, side, id, other),
        Change::Closes(lane) => store.close_next(lane),
        Change::Restarts(lane) => store.restart(lane),
    }
}

/// Lets writers run through a history, and looks at the lake after each of its steps.
fn run_history(settings: &SealingSettings, store: &Arc<MemoryStore>, steps: &[Step]) {
    let memory = Arc::new(Memory::default());
    let turns = Arc::new(Turns::new(WRITERS));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let place = Place::new(memory.clone(), turns.clone(), writer);
            let (store, turns) = (store.clone(), turns.clone());
            scope.spawn(move || {
                turns.run(writer, || {
                    // After it was killed it starts anew, as another process would.
                    let objects = place.life();
                    let mut sealing = sealing_with(settings.clone(), &store, objects.clone());
                    while !turns.is_over() {
                        // Who has nothing to do makes a call, too: turns are calls.
                        let ticked = sealing.tick(0).and(objects.list("idle").map_err(Into::into));
                        if ticked.is_err_and(|error| error.is_stop()) {
                            break;
                        }
                    }
                })
            });
        }
        // Also where a look panics: the scope waits for its threads.
        let ends = turns.ends();
        let mut seen = Sets::new();
        for step in steps {
            if let Some(of_store) = step.change {
                change(store, of_store);
            }
            turns.step(*step);
            let found = read_lake(&memory);
            assert_contains("since the last look", &found, &seen);
            assert_contains("the store", &store.sets(), &found);
            seen = found;
        }
        drop(ends);
    });
    seal_all_with(settings.clone(), store, &memory);
    let mut wanted = store.sets();
    if settings.deltas_ms.is_none() {
        wanted.retain(|(lane, key), _| key.epoch_start_ms < store.open_from_ms(*lane));
    }
    assert_eq!(read_lake(&memory), wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("MARQUEE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
    ))]
    #[test]
    fn the_newest_manifest_is_whole_and_never_shrinks(
        steps in proptest::collection::vec(step(), 1..250),
        all_closed: bool,
        with_deltas: bool,
    ) {
        let store = Arc::new(MemoryStore::new());
        for id in 0..9 {
            store.add(id % LANES, i64::from(id % 3), 0, id as u8, false);
        }
        if all_closed {
            store.close_all();
        }
        let deltas_ms = with_deltas.then_some(0);
        run_history(&SealingSettings { deltas_ms, ..settings() }, &store, &steps);
    }
}

/// A judge that sees nothing proves nothing: an owner that is let through with an older set.
#[test]
#[should_panic(expected = "has shrunk")]
fn a_stalled_owner_that_is_let_through_is_seen() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    let layout = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let manifests = Manifests { objects: memory.clone(), layout };
    store.add(0, 0, 0, 1, false);
    store.close_all();
    seal_all(&store, &memory);
    let older = manifests.newest(&day_of(0)).expect("it is there").entry(0, 0).cloned();
    let older = older.expect("it was sealed");
    let files = memory.files();
    store.add(0, 0, 0, 2, false);
    seal_all(&store, &memory);
    let seen = read_lake(&memory);

    let newest = manifests.newest(&day_of(0)).expect("it is there");
    let (base, wanted) = (newest.base(0, 0), manifest::Wanted::Closed(older));
    let made_up = manifest::Proposal { wanted, base, sweeps: newest.sweeps };
    for (path, bytes) in files {
        memory.put_new(&path, bytes).expect("it is memory");
    }
    let next = newest.with(&[made_up], 0).0.expect("it changed");
    assert!(manifests.make(&next).expect("it is memory"));
    assert_contains("since the last look", &read_lake(&memory), &seen);
}

#[test]
fn what_was_sealed_is_written_once_and_again_when_it_grows() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.add(1, 1, 1, 2, true);
    store.close_all();
    let mut sealing = sealing(&store, memory.clone());
    sealing.tick(0).expect("it works");
    assert!(sealing.is_done());
    assert_eq!(read_lake(&memory), store.sets());
    let puts = memory.puts();
    for _ in 0..10 {
        sealing.tick(0).expect("it works");
    }
    assert_eq!(memory.puts(), puts, "nothing has changed, and nothing was written");
    store.add(0, 0, 0, 7, false);
    for _ in 0..10 {
        sealing.tick(0).expect("it works");
    }
    assert_eq!(read_lake(&memory), store.sets());
}

#[test]
fn lanes_without_cells_are_listed_as_sealed_too() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.close(0, 2);
    let layout = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let manifests = Manifests { objects: memory.clone(), layout };
    seal_all(&store, &memory);
    let lanes = |manifest: Manifest| manifest.entries.iter().map(|e| e.lane).collect::<Vec<_>>();
    assert_eq!(lanes(manifests.newest(&day_of(0)).expect("it is there")), [0]);
    store.close_all();
    seal_all(&store, &memory);
    let manifest = manifests.newest(&day_of(0)).expect("it is there");
    assert!(manifest.entry(0, 1).is_some_and(|entry| entry.files.is_empty() && entry.rows == 0));
    assert_eq!(lanes(manifest), [0, 1]);
}

#[test]
fn what_the_store_has_lost_stays_in_the_lake() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.add(0, 0, 0, 2, true);
    store.close_all();
    seal_all(&store, &memory);
    let before = read_lake(&memory);
    store.forget(&cell(0, true));
    store.add(0, 0, 0, 3, false);
    seal_all(&store, &memory);
    let after = read_lake(&memory);
    assert_contains("the lake", &after, &before);
    assert_contains("the lake", &after, &store.sets());
}

#[test]
fn without_members_there_are_counts_and_null_lists() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.keep_no_members();
    store.close_all();
    seal_all(&store, &memory);
    let mut rows = Vec::new();
    for (path, bytes) in memory.files() {
        parquet::read(bytes, &path, &mut |row| rows.push(row)).expect("it is whole");
    }
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].counts, CellCounts { impressions: 1, plays: 0 });
    assert_eq!(rows[0].requests, [None, Some(BTreeSet::new())], "no play: nothing is lacking");
}

#[test]
fn a_gap_that_is_found_later_makes_rows_incomplete() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.add(0, 1, 0, 1, false);
    store.close_all();
    seal_all(&store, &memory);
    store.add_gap(0, EPOCH_MS);
    seal_all(&store, &memory);
    let layout = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let manifests = Manifests { objects: memory.clone(), layout };
    let manifest = manifests.newest(&day_of(0)).expect("it is there");
    let incomplete: Vec<u64> = manifest.entries.iter().map(|e| e.incomplete_rows).collect();
    assert_eq!(incomplete, [1, 0, 0, 0], "epoch 0 of lane 0");
}

#[test]
fn another_span_is_overruled_by_the_first_writer() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    let first = Layout::new("generation", LANES, EPOCH_MS, 3 * EPOCH_MS);
    Manifests::agree(memory.clone(), first.clone()).expect("it is new");
    let other = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let agreed = Manifests::agree(memory.clone(), other).expect("it gives in");
    assert_eq!(*agreed.layout(), first);
    let other = Layout::new("generation", LANES + 1, EPOCH_MS, EPOCH_MS);
    let error = Manifests::agree(memory.clone(), other).err().expect("it cannot be");
    assert!(error.to_string().contains("of other lanes or epochs"), "{error}");
    store.add(0, 0, 0, 1, false);
    store.close(0, 1);
    seal_all(&store, &memory);
    assert_eq!(read_lake(&memory), Sets::new(), "the stretch of three epochs is not closed");
}

#[test]
fn a_listed_file_that_somebody_removed_is_said_aloud_and_keeps_nothing_else() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.close_all();
    seal_all(&store, &memory);
    let (lost, _) = memory.files().into_iter().next().expect("there is one");
    memory.delete(&lost).expect("it is memory");
    store.add(0, 0, 0, 2, false);
    store.add(0, 1, 0, 1, false);
    let mut sealing = sealing(&store, memory.clone());
    let error = sealing.tick(0).expect_err("it cannot unite with what is lost");
    assert!(error.to_string().contains("is not there"), "{error}");
    assert!(memory.files().iter().any(|(path, _)| path.contains("T000001Z")), "epoch 1 is there");
}

/// Without manifests nobody knows what of a day's files is alive: none is taken away.
#[test]
fn files_of_a_day_whose_manifests_are_lost_are_not_swept() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    for epoch in 0..3 {
        store.add(0, epoch, 0, 1, false);
        store.close(0, epoch + 1);
        store.close(1, epoch + 1);
        seal_all(&store, &memory);
    }
    let files = memory.files();
    for manifest in memory.list("manifests/generation=generation/day=1970-01-01").expect("memory") {
        memory.delete(&manifest.path).expect("it is memory");
    }
    let mut sealing = sealing(&store, memory.clone());
    let error = (0..5).find_map(|_| sealing.tick(0).err()).expect("it is said");
    assert!(error.to_string().contains("manifests are lost"), "{error}");
    for (path, bytes) in files {
        assert_eq!(memory.get(&path).expect("it is memory"), Some(bytes), "{path}");
    }
}
