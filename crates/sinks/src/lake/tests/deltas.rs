//! Deltas of what is open: what a reader has of them, when they are written, and that they go.

use super::*;

/// A minute of a lake that writes a delta every minute.
const MINUTE_MS: i64 = 60_000;

fn with_deltas() -> SealingSettings {
    SealingSettings { deltas_ms: Some(MINUTE_MS), ..settings() }
}

fn newest(memory: &Arc<Memory>) -> Manifest {
    let layout = Layout::new("generation", LANES, EPOCH_MS, EPOCH_MS);
    let manifests = Manifests { objects: memory.clone(), layout };
    manifests.newest(&day_of(0)).expect("it is readable")
}

/// Rows of the last delta of a lane's stretch.
fn last_delta(memory: &Arc<Memory>, from_ms: i64, lane: u32) -> Vec<Row> {
    let manifest = newest(memory);
    let files = &manifest.open_entry(from_ms, lane).expect("it is listed").files;
    let path = &files.last().expect("there is one").path;
    let bytes = memory.get(path).expect("it is memory").expect("it is there");
    let mut rows = Vec::new();
    parquet::read(bytes, path, &mut |row| rows.push(row)).expect("it is whole");
    rows
}

#[test]
fn deltas_are_the_store_as_it_was_and_hold_only_what_is_new() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    let mut sealing = sealing_with(with_deltas(), &store, memory.clone());
    for id in 0..5 {
        store.add(0, 0, 0, id, false);
    }
    store.add(1, 2, 0, 1, true);
    sealing.tick(0).expect("it works");
    let before = store.sets();
    assert_eq!(read_lake(&memory), before, "all of it is open, and there");
    store.add(0, 0, 0, 7, false);
    store.add(0, 0, 1, 7, false);
    store.add(0, 0, 0, 7, true);
    let puts = memory.puts();
    sealing.tick(MINUTE_MS - 1).expect("it works");
    assert_eq!((memory.puts(), read_lake(&memory)), (puts, before), "it is not time yet");

    sealing.tick(MINUTE_MS).expect("it works");
    assert_eq!(read_lake(&memory), store.sets());
    let rows = last_delta(&memory, 0, 0);
    assert_eq!(
        rows.iter().map(|row| &row.key).collect::<Vec<_>>(),
        [&cell(0, false), &cell(0, true)]
    );
    assert_eq!(rows[0].counts, CellCounts { impressions: 6, plays: 1 }, "as they are now");
    let ids = |row: &Row| row.requests.clone().map(|set| set.map(|set| set.len()));
    // The last id of the first delta comes again: whatever else has its position must not be missed.
    assert_eq!(ids(&rows[0]), [Some(2), Some(1)], "and of six members those that are new");
    assert_eq!(newest(&memory).open_entry(2 * EPOCH_MS, 1).expect("it is there").files.len(), 1);

    let puts = memory.puts();
    sealing.tick(3 * MINUTE_MS).expect("it works");
    assert_eq!(memory.puts(), puts, "without news there is no delta");
}

#[test]
fn what_is_sealed_has_no_deltas_any_more() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    let mut sealing = sealing_with(with_deltas(), &store, memory.clone());
    for minute in 0..4 {
        store.add(0, 0, 0, minute as u8, false);
        store.add(0, 1, 0, minute as u8, false);
        sealing.tick(minute * MINUTE_MS).expect("it works");
    }
    let files = newest(&memory).open_entry(0, 0).expect("it is open").files.clone();
    assert_eq!(files.len(), 4);
    store.close(0, 1);
    for _ in 0..3 {
        sealing.tick(4 * MINUTE_MS).expect("it works");
    }
    let manifest = newest(&memory);
    assert!(manifest.entry(0, 0).is_some() && manifest.open_entry(0, 0).is_none());
    assert!(manifest.open_entry(EPOCH_MS, 0).is_some(), "the next one is still open");
    assert_eq!(read_lake(&memory), store.sets());
    for file in files {
        assert_eq!(memory.get(&file.path).expect("it is memory"), None, "it was taken away");
    }
    // Names of files will do for what is sealed.
    let names = memory.files();
    assert_eq!(names.iter().filter(|(path, _)| path.starts_with("cells/")).count(), 1);
}

/// A lane that was started anew may have written anything again, under positions that it had before.
#[test]
fn after_a_restart_a_delta_holds_all_members_of_what_has_changed() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    let mut sealing = sealing_with(with_deltas(), &store, memory.clone());
    for id in 0..5 {
        store.add(0, 0, 0, id, false);
    }
    sealing.tick(0).expect("it works");
    store.restart(0);
    store.add(0, 0, 0, 9, false);
    sealing.tick(MINUTE_MS).expect("it works");
    assert_eq!(read_lake(&memory), store.sets());
    let rows = last_delta(&memory, 0, 0);
    assert_eq!(rows[0].requests[0].as_ref().map(BTreeSet::len), Some(6));
}

#[test]
fn another_process_makes_no_delta_before_its_time() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    let mut first = sealing_with(with_deltas(), &store, memory.clone());
    first.tick(0).expect("it works");
    store.add(0, 0, 0, 2, false);
    let mut second = sealing_with(with_deltas(), &store, memory.clone());
    second.tick(MINUTE_MS / 2).expect("it works");
    let deltas = || newest(&memory).open_entry(0, 0).map(|entry| entry.files.len());
    assert_eq!(deltas(), Some(1));
    // It takes over if the first is no more, and writes what it does not know to be there.
    second.tick(MINUTE_MS).expect("it works");
    assert_eq!(deltas(), Some(1), "the first one would be due now");
    second.tick(MINUTE_MS + MINUTE_MS / 8).expect("it works");
    assert_eq!((deltas(), read_lake(&memory)), (Some(2), store.sets()));
}

#[test]
fn without_members_deltas_have_counts_and_null_lists() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.keep_no_members();
    let mut sealing = sealing_with(with_deltas(), &store, memory.clone());
    sealing.tick(0).expect("it works");
    let rows = last_delta(&memory, 0, 0);
    assert_eq!(rows[0].counts, CellCounts { impressions: 1, plays: 0 });
    assert_eq!(rows[0].requests[0], None);
}

/// The lake has seen more than the store holds now: it is not taken back at sealing.
#[test]
fn what_a_restored_store_lacks_is_taken_from_the_deltas() {
    let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
    store.add(0, 0, 0, 1, false);
    store.add(0, 0, 0, 2, true);
    sealing_with(with_deltas(), &store, memory.clone()).tick(0).expect("it works");
    let before = read_lake(&memory);
    store.forget(&cell(0, true));
    store.close_all();
    seal_all(&store, &memory);
    assert!(newest(&memory).open.is_empty());
    assert_eq!(read_lake(&memory), before);
}
