//! What goes in comes out, in order, also after reopening.

use proptest::prelude::*;

use super::*;
use crate::embedded::MAX_RECORD_BYTES;

/// A record as the model keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    topic: usize,
    lane: u32,
    record_time_ms: i64,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Kept>),
    Reopen,
    Read { lane: usize, from: prop::sample::Index, records: usize, bytes: usize },
}

fn kept() -> impl Strategy<Value = Kept> {
    let key = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (0..2usize, 0..2u32, any::<i64>(), key, payload).prop_map(
        |(topic, lane, record_time_ms, key, payload)| Kept {
            topic,
            lane,
            record_time_ms,
            key,
            payload,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let read = (0..4usize, any::<prop::sample::Index>(), 0..20usize, 0..600usize);
    prop_oneof![
        4 => prop::collection::vec(kept(), 0..12).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        4 => read.prop_map(|(lane, from, records, bytes)| Step::Read { lane, from, records, bytes }),
    ]
}

fn append_all(log: &EmbeddedLog, batch: &[Kept], model: &mut [Vec<Kept>; 4]) {
    let records: Vec<_> = batch
        .iter()
        .map(|kept| NewRecord {
            topic: kept.topic,
            lane: kept.lane,
            record_time_ms: kept.record_time_ms,
            key: kept.key.as_deref(),
            payload: &kept.payload,
        })
        .collect();
    let positions = log.append(&records).unwrap();
    assert_eq!(positions.len(), batch.len());
    for (kept, position) in batch.iter().zip(positions) {
        let lane = &mut model[kept.topic * 2 + kept.lane as usize];
        let offset = lane.len() as u64;
        assert_eq!(position, Position { topic: kept.topic, lane: kept.lane, offset });
        lane.push(kept.clone());
    }
}

/// Reads once and compares; returns how many records came.
fn read_some(
    log: &EmbeddedLog,
    slot: usize,
    from: usize,
    records: usize,
    bytes: usize,
    model: &[Vec<Kept>; 4],
) -> usize {
    let (topic, lane) = (slot / 2, (slot % 2) as u32);
    let mut batch = RecordBatch::new();
    log.read(topic, lane, from as u64, records, bytes, &mut batch).unwrap();
    assert!(batch.len() <= records);
    assert!(batch.bytes() <= bytes || batch.len() == 1, "only a first record may exceed the room");
    for (index, record) in batch.iter().enumerate() {
        let kept = Kept {
            topic,
            lane,
            record_time_ms: record.record_time_ms,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.to_vec(),
        };
        assert_eq!((record.offset, &kept), ((from + index) as u64, &model[slot][from + index]));
    }
    batch.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn whatever_is_appended_is_read(steps in prop::collection::vec(step(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let mut model: [Vec<Kept>; 4] = Default::default();
        let mut log = open_small(folder.path()).unwrap();
        for step in steps.into_iter().chain([Step::Reopen]) {
            match step {
                Step::Append(batch) => append_all(&log, &batch, &mut model),
                Step::Reopen => {
                    drop(log);
                    log = open_small(folder.path()).unwrap();
                }
                Step::Read { lane, from, records, bytes } => {
                    let from = from.index(model[lane].len() + 1);
                    let came = read_some(&log, lane, from, records, bytes, &model);
                    let must_come = records > 0 && from < model[lane].len();
                    prop_assert_eq!(came > 0, must_come);
                }
            }
            prop_assert!(log.shared.handles.count() <= SMALL.open_files);
        }
        for slot in 0..4 {
            let end = model[slot].len();
            prop_assert_eq!(log.end_offset(slot / 2, (slot % 2) as u32), end as u64);
            prop_assert_eq!(read_some(&log, slot, 0, usize::MAX, usize::MAX, &model), end);
        }
    }
}

#[test]
fn a_far_offset_is_found_through_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).unwrap();
    let payload = [b'x'; 1000];
    let record = NewRecord { topic: 0, lane: 1, record_time_ms: 0, key: None, payload: &payload };
    for _ in 0..4 {
        log.append(&[record; 1000]).unwrap();
    }
    for reopened in [false, true] {
        if reopened {
            drop(log);
            log = open(folder.path()).unwrap();
        }
        let near = log.shared.lanes[1].state().segments[0].nearest(3_900);
        assert!(3_900 - near.offset < 1_000, "the index is too sparse: {near:?}");
        for from in [3_999, 0, 2_500, 2_501, 1] {
            let mut batch = RecordBatch::new();
            log.read(0, 1, from, 3, usize::MAX, &mut batch).unwrap();
            let offsets: Vec<_> = batch.iter().map(|record| record.offset).collect();
            let wanted: Vec<_> = (from..from + 3).filter(|offset| *offset < 4_000).collect();
            assert_eq!(offsets, wanted);
        }
    }
}

#[test]
fn the_largest_record_fits_and_a_larger_one_is_refused_with_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let big = vec![b'x'; MAX_RECORD_BYTES + 1];
    let small = NewRecord { topic: 0, lane: 0, record_time_ms: 0, key: None, payload: b"small" };
    let refused = log.append(&[small, NewRecord { payload: &big, ..small }]);
    assert!(matches!(refused, Err(LogError::TooLarge { bytes, .. }) if bytes == big.len()));
    assert_eq!(log.end_offset(0, 0), 0);

    let largest = NewRecord { payload: &big[1..], ..small };
    assert_eq!(log.append(&[largest, small]).unwrap()[1].offset, 1);
    let mut batch = RecordBatch::new();
    log.read(0, 0, 0, 10, 100, &mut batch).unwrap();
    assert_eq!(
        batch.iter().map(|record| record.payload.len()).collect::<Vec<_>>(),
        [big.len() - 1]
    );
    log.read(0, 0, 1, 10, 100, &mut batch).unwrap();
    assert_eq!(batch.last().unwrap().payload, b"small");
    assert_eq!(batch.len(), 2, "a read adds to what is there");
}

#[test]
fn what_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let record = NewRecord { topic: 0, lane: 2, record_time_ms: 0, key: None, payload: b"" };
    assert!(matches!(log.append(&[record]), Err(LogError::Unusable(_))));
    let record = NewRecord { topic: usize::MAX, lane: 0, ..record };
    assert!(matches!(log.append(&[record]), Err(LogError::Unusable(_))));
    append(&log, b"one").unwrap();
    let beyond = log.read(0, 0, 2, 1, 1, &mut RecordBatch::new());
    assert!(matches!(beyond, Err(LogError::OutOfRange { offset: 2, start: 0, end: 1, .. })));
    drop(log);
    for bad in ["", ".", "../x", "a/b", "lock", "marquee-log"] {
        let opened = EmbeddedLog::open(folder.path(), &[bad.to_owned()], 2);
        assert!(matches!(opened, Err(LogError::Unusable(_))), "{bad:?} was taken");
    }
}

#[test]
fn a_topic_may_be_added_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let open = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        EmbeddedLog::open(folder.path(), &names, 1).unwrap()
    };
    append(&open(&["plays"]), b"first").unwrap();
    append(&open(&["impressions", "plays"]), b"second").unwrap();
    let log = open(&["plays"]);
    assert_eq!(payloads(&log, 0, 0).unwrap(), [b"first"]);
    drop(log);
    assert_eq!(payloads(&open(&["impressions"]), 0, 0).unwrap(), [b"second"]);
}
