//! Verify against the oracle, on random logs and stores: what differs is found, all of it and
//! nothing else; a repair leaves the union; and a log that has lost its beginning calls no member
//! wrong that the oracle knows.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_expr::{Declared, Type};
use marquee_model::{CellCounts, CellKey, Kind, Partitioner, lane_of};
use marquee_oracle as oracle;
use marquee_pipeline::Settings;
use marquee_pipeline::chunk::{self, IdRef};
use marquee_pipeline::prepare::Stream;
use marquee_pipeline::settings::{EpochOfPlay, Impressions, Match};
use marquee_runtime::backfill::{Events, LogEvents};
use marquee_runtime::sealer::{self, SealerSettings};
use marquee_runtime::verify::{Difference, LakeCells, Report, Verify};
use marquee_runtime::{Plan, StreamPlan};
use marquee_sinks::embedded::{EmbeddedStore, StoreMemory};
use marquee_sinks::lake::{Bucket, LakePlace, SealingSettings, Stop};
use marquee_sinks::{CellQuery, ClosedCell, Gap, Identity, LaneState, Repair, Store};
use marquee_sources::json::{Decoder, Mapping, TimeUnit};
use marquee_sources::{Limit, Record, Replay, SourceError};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const LANES: u32 = 2;
const EPOCH_MS: i64 = 10;
const WITHIN_MS: i64 = 12;
const EARLY_MS: i64 = 2;
const LATENESS_MS: i64 = 6;
const MAX_AHEAD_MS: i64 = 4;

/// A record, its lane the one of its request.
#[derive(Clone, Debug)]
struct Written {
    request: String,
    video: String,
    country: Option<&'static str>,
    time_ms: i64,
    record_ms: i64,
}

impl Written {
    fn is_dead(&self) -> bool {
        self.time_ms - self.record_ms > MAX_AHEAD_MS
    }

    fn payload(&self) -> Vec<u8> {
        serde_json::json!({ "request_id": self.request, "video_id": self.video,
                            "ts": self.time_ms, "country": self.country })
        .to_string()
        .into_bytes()
    }
}

/// Impressions, plays.
type Topics = [Vec<Written>; 2];

/// Records arrive in time, but for some disorder; events are older than that, or a little ahead, or
/// so far that they are dead letters.
fn topic(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Written>> {
    let lag_ms = prop_oneof![6 => 0_i64..8, 2 => 0_i64..70, 2 => -4_i64..0, 1 => -30_i64..-4];
    let record = (0_u8..6, 0_u8..2, 0_u8..3, 0_i64..3, 0..LATENESS_MS, lag_ms);
    proptest::collection::vec(record, len).prop_map(|drawn| {
        let mut now_ms = 60;
        let mut write =
            |(request, video, country, pace, early_ms, lag_ms): (u8, u8, u8, i64, i64, i64)| {
                now_ms += pace;
                let record_ms = now_ms - early_ms;
                let request = match request {
                    0..3 => format!("r{request}"),
                    n => format!("00000000-0000-4000-8000-00000000000{n}"),
                };
                let country = [None, Some("US"), Some("CH")][usize::from(country)];
                let time_ms = (record_ms - lag_ms).max(0);
                Written { request, video: format!("v{video}"), country, time_ms, record_ms }
            };
        drawn.into_iter().map(&mut write).collect()
    })
}

/// Settings that decide what is counted.
fn settings() -> impl Strategy<Value = oracle::Settings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(match_video, impressions_joined, epoch_of_play_is_play, is_sliced)| oracle::Settings {
            match_video,
            impressions_joined,
            epoch_of_play_is_play,
            within_ms: WITHIN_MS,
            early_ms: EARLY_MS,
            epochs_ms: if is_sliced { vec![EPOCH_MS, EPOCH_MS / 2] } else { vec![EPOCH_MS] },
            slices: match is_sliced {
                true => vec![vec![], vec!["country".to_owned()]],
                false => vec![vec![]],
            },
        },
    )
}

fn plan(settings: &oracle::Settings) -> Plan {
    let country = Declared { name: "country".to_owned(), ty: Type::String, optional: true };
    let stream = |kind: Kind, topic: &str| {
        let path = |name: &str| vec![name.to_owned()];
        let mapping = Mapping {
            record_filter: None,
            explode: None,
            request_id: path("request_id"),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Milliseconds,
            attributes: vec![(country.clone(), path("country"))],
        };
        let by_slice = kind == Kind::Impression || settings.epoch_of_play_is_play;
        let declared = std::slice::from_ref(&country);
        let stream = Stream::new(kind, declared, "", "", &settings.slices, by_slice).unwrap();
        StreamPlan { decoder: Decoder::new(mapping), stream, topic: topic.to_owned() }
    };
    Plan {
        impressions: stream(Kind::Impression, "impressions"),
        plays: stream(Kind::Play, "plays"),
        settings: Settings {
            match_: if settings.match_video { Match::RequestAndVideo } else { Match::Request },
            impressions: match settings.impressions_joined {
                true => Impressions::Joined,
                false => Impressions::All,
            },
            epoch_of_play: match settings.epoch_of_play_is_play {
                true => EpochOfPlay::Play,
                false => EpochOfPlay::Impression,
            },
            within_ms: WITHIN_MS,
            early_ms: EARLY_MS,
            lateness_ms: LATENESS_MS,
            epochs_ms: settings.epochs_ms.clone(),
            groupings: settings.slices.len(),
            ..Settings::default()
        },
        max_ahead_ms: MAX_AHEAD_MS,
        lanes: LANES,
        uses_keys: false,
        partitioner: Partitioner::Murmur2,
        fingerprint: serde_json::json!({ "test": 1 }),
    }
}

fn lane(request: &str) -> u32 {
    lane_of(Partitioner::Murmur2, request.as_bytes(), LANES)
}

/// Times and payloads of a lane of a topic.
type LaneRecords = Vec<(i64, Vec<u8>)>;

/// A log in memory that answers as Kafka does.
struct Memory {
    /// By topic and lane.
    records: Vec<Vec<LaneRecords>>,
    /// First offsets that are left, by topic and lane.
    starts: Vec<Vec<u64>>,
    at: (usize, usize, u64),
    /// The first offset that anybody went to, and what was given out.
    given: std::sync::Arc<std::sync::Mutex<u64>>,
}

impl Memory {
    fn of(topics: &Topics, cuts: &[[usize; LANES as usize]; 2]) -> Memory {
        let mut records = vec![vec![Vec::new(); LANES as usize]; 2];
        for (topic, written) in topics.iter().enumerate() {
            for record in written {
                let lane = lane(&record.request) as usize;
                records[topic][lane].push((record.record_ms, record.payload()));
            }
        }
        let start = |topic: usize, lane: usize| {
            let len: usize = records[topic][lane].len();
            cuts[topic][lane].min(len) as u64
        };
        let starts = (0..2).map(|topic| (0..LANES as usize).map(|l| start(topic, l)).collect());
        Memory { starts: starts.collect(), records, at: (0, 0, 0), given: Default::default() }
    }
}

impl Replay for Memory {
    fn bounds(&mut self, topic: usize, lane: u32) -> Result<(u64, u64), SourceError> {
        let lane = lane as usize;
        Ok((self.starts[topic][lane], self.records[topic][lane].len() as u64))
    }

    fn first_at(&mut self, topic: usize, lane: u32, time_ms: i64) -> Result<u64, SourceError> {
        let (start, end) = self.bounds(topic, lane)?;
        let records = &self.records[topic][lane as usize];
        let is_later = |offset: &u64| records[*offset as usize].0 >= time_ms;
        Ok((start..end).find(is_later).unwrap_or(end))
    }

    fn seek(&mut self, topic: usize, lane: u32, offset: u64) -> Result<(), SourceError> {
        assert!(offset >= self.starts[topic][lane as usize], "it is gone");
        self.at = (topic, lane as usize, offset);
        Ok(())
    }

    fn read(
        &mut self,
        _: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError> {
        let (topic, lane, from) = self.at;
        let records = &self.records[topic][lane];
        let some: Vec<Record<'_>> = (from..records.len() as u64)
            .take(3)
            .map(|offset| {
                let (time_ms, payload) = &records[offset as usize];
                let (record_time_ms, payload) = (Some(*time_ms), Some(payload.as_slice()));
                Record { offset, record_time_ms, key: None, payload, headers: &[] }
            })
            .collect();
        if some.is_empty() {
            return Ok(None);
        }
        *self.given.lock().unwrap() += some.len() as u64;
        each(&some);
        self.at.2 += some.len() as u64;
        Ok(Some(self.at.2))
    }
}

/// Both sets of cells of lanes, ids as texts.
type Sets = BTreeMap<(u32, CellKey), [BTreeSet<String>; 2]>;

fn by_oracle(topics: &Topics, settings: &oracle::Settings) -> Sets {
    let kinds = [oracle::Kind::Impression, oracle::Kind::Play];
    let mut events = Vec::new();
    for (written, kind) in topics.iter().zip(kinds) {
        for record in written.iter().filter(|record| !record.is_dead()) {
            let country = record.country.map_or("null".to_owned(), |c| format!("\"{c}\""));
            events.push(oracle::Event {
                kind,
                request_id: record.request.clone(),
                video: record.video.clone(),
                time_ms: record.time_ms,
                attributes: [("country".to_owned(), country)].into(),
            });
        }
    }
    let mut sets = Sets::new();
    for oracle::Member { cell, side, request_id } in oracle::members(&events, settings) {
        let oracle::Cell { video, epoch_ms, epoch_start_ms, slice } = cell;
        let key = (lane(&request_id), CellKey { video, epoch_start_ms, epoch_ms, slice });
        let side = usize::from(side == oracle::Side::Plays);
        sets.entry(key).or_default()[side].insert(request_id);
    }
    sets
}

fn sizes(sets: &[BTreeSet<String>; 2]) -> CellCounts {
    CellCounts { impressions: sets[0].len() as u64, plays: sets[1].len() as u64 }
}

/// A store with these cells, all lanes closed before an epoch.
fn store(folder: &std::path::Path, plan: &Plan, cells: &Sets, frontier: i64) -> EmbeddedStore {
    let identity = Identity {
        settings: plan.fingerprint.clone(),
        lanes: Some(LANES),
        epochs_ms: plan.settings.epochs_ms.clone(),
        new_id: "generation".to_owned(),
        new_secret: [7; 16],
    };
    let store = EmbeddedStore::open(folder, &identity, true, StoreMemory::of_process(0)).unwrap();
    let chunk = |ids: &BTreeSet<String>| match ids.is_empty() {
        true => Vec::new(),
        false => chunk::encode(ids.iter().map(|id| IdRef::of(id))),
    };
    for lane in 0..LANES {
        let of_lane = cells.iter().filter(|((of, _), _)| *of == lane);
        let writes: Vec<ClosedCell<'_>> = of_lane
            .map(|((_, key), sets)| ClosedCell {
                key,
                counts: sizes(sets),
                chunks: [chunk(&sets[0]), chunk(&sets[1])],
            })
            .collect();
        let state = LaneState { frontier, next_offsets: vec![0, 0], ..LaneState::default() };
        store.write_closed(lane, 1, &writes, Some(&state)).unwrap();
    }
    store
}

/// What a store holds now.
fn held(store: &EmbeddedStore) -> Sets {
    let mut sets = Sets::new();
    store
        .each_member(|cell, lane, side, id| {
            sets.entry((lane, cell.clone())).or_default()[side as usize].insert(id.to_string());
        })
        .unwrap();
    let mut counts = BTreeMap::new();
    store
        .scan(&CellQuery::default(), |cell, lane, of_cell| {
            counts.insert((lane, cell), of_cell);
        })
        .unwrap();
    counts.retain(|_, counts| *counts != CellCounts::default());
    let expected: BTreeMap<_, _> = sets.iter().map(|(key, of)| (key.clone(), sizes(of))).collect();
    assert_eq!(counts, expected, "counts are sizes of sets");
    sets
}

fn verify(
    plan: &Plan,
    store: &EmbeddedStore,
    log: Memory,
    range: (Option<i64>, Option<i64>),
    repairs: bool,
) -> (Vec<Difference>, Report) {
    verify_with(plan, (store, None), log, range, repairs)
}

fn verify_with(
    plan: &Plan,
    (store, lake): (&EmbeddedStore, Option<LakeCells>),
    log: Memory,
    range: (Option<i64>, Option<i64>),
    repairs: bool,
) -> (Vec<Difference>, Report) {
    let now_ms = 1_000_000;
    let verify = Verify {
        plan,
        store,
        keeps_members: true,
        forgotten_before_ms: None,
        lake,
        from_ms: range.0,
        to_ms: range.1,
        repair: repairs.then_some(77),
        threads: 2,
        memory_bytes: 0,
        secret: [3; 16],
        stop: &|| false,
        progress: &|_, _| {},
    };
    let readers: Vec<Box<dyn Replay>> = vec![Box::new(log)];
    let events = LogEvents {
        readers,
        checks_partitions: true,
        committed: Vec::new(),
        now_ms,
        may_end_early: false,
    };
    let mut found = Vec::new();
    let report = verify.run(Events::Log(events), &mut |difference| {
        found.push(difference.clone());
        Ok(())
    });
    (found, report.unwrap())
}

/// What should be found: cell, missing and extra members.
fn expected(
    oracle: &Sets,
    stored: &Sets,
    is_compared: impl Fn(&CellKey) -> bool,
) -> BTreeMap<(u32, CellKey), (u64, u64)> {
    let none = Default::default();
    let keys: BTreeSet<_> = oracle.keys().chain(stored.keys()).cloned().collect();
    let mut found = BTreeMap::new();
    for key in keys.into_iter().filter(|(_, cell)| is_compared(cell)) {
        let (right, held) = (oracle.get(&key).unwrap_or(&none), stored.get(&key).unwrap_or(&none));
        let without = |a: &[BTreeSet<String>; 2], b: &[BTreeSet<String>; 2]| {
            (0..2).map(|side| a[side].difference(&b[side]).count() as u64).sum::<u64>()
        };
        let (missing, extra) = (without(right, held), without(held, right));
        if missing + extra > 0 {
            found.insert(key, (missing, extra));
        }
    }
    found
}

fn told(found: &[Difference]) -> BTreeMap<(u32, CellKey), (u64, u64)> {
    let told = found.iter().map(|d| {
        let cell = CellKey {
            video: d.video.clone(),
            epoch_start_ms: d.epoch_start_ms,
            epoch_ms: d.epoch_ms,
            slice: d.slice.clone(),
        };
        let missing = d.missing.as_ref().unwrap().total();
        ((d.lane, cell), (missing, d.extra.as_ref().map_or(0, |extra| extra.total())))
    });
    let of_cells: BTreeMap<_, _> = told.collect();
    assert_eq!(of_cells.len(), found.len(), "a cell is told once");
    of_cells
}

/// Takes some members away, and adds some that nobody has made.
fn damage(oracle: &Sets, lost: &[bool], more: &[(u8, bool)]) -> Sets {
    let mut stored = oracle.clone();
    let mut lost = lost.iter().cycle();
    for sets in stored.values_mut().flatten() {
        sets.retain(|_| !lost.next().unwrap());
    }
    let keys: Vec<_> = stored.keys().cloned().collect();
    for (place, is_play) in more.iter().filter(|_| !keys.is_empty()) {
        let key = &keys[usize::from(*place) % keys.len()];
        let intruder = (0..).map(|n| format!("intruder-{n}")).find(|id| lane(id) == key.0).unwrap();
        stored.get_mut(key).unwrap()[usize::from(*is_play)].insert(intruder);
    }
    stored.retain(|_, sets| sets.iter().any(|set| !set.is_empty()));
    stored
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("MARQUEE_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(64), ..ProptestConfig::default() }
}

const WHOLE: [[usize; LANES as usize]; 2] = [[0; LANES as usize]; 2];

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_differs_from_the_oracle_is_found_and_a_repair_leaves_the_union(
        topics in [topic(1..80), topic(1..80)], settings in settings(),
        lost in proptest::collection::vec(prop_oneof![3 => Just(false), 1 => Just(true)], 1..50),
        more in proptest::collection::vec((any::<u8>(), any::<bool>()), 0..3),
        frontier in 9_i64..25, from_ms in proptest::option::of(50_i64..120),
        length_ms in proptest::option::of(0_i64..90),
    ) {
        let (plan, right) = (plan(&settings), by_oracle(&topics, &settings));
        let stored = damage(&right, &lost, &more);
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &plan, &stored, frontier);
        let to_ms = length_ms.map(|length_ms| from_ms.unwrap_or(0) + length_ms);
        let is_compared = |cell: &CellKey| {
            cell.epoch_start_ms < frontier * EPOCH_MS
                && from_ms.is_none_or(|from_ms| cell.epoch_start_ms >= from_ms)
                && to_ms.is_none_or(|to_ms| cell.epoch_start_ms < to_ms)
        };
        let wanted = expected(&right, &stored, is_compared);
        let range = (from_ms, to_ms);
        let (found, report) = verify(&plan, &store, Memory::of(&topics, &WHOLE), range, false);
        prop_assert_eq!(&told(&found), &wanted);
        prop_assert_eq!(report.left, wanted.len() as u64);
        prop_assert_eq!(&held(&store), &stored, "a comparison changes nothing");

        let (found, _) = verify(&plan, &store, Memory::of(&topics, &WHOLE), range, true);
        prop_assert_eq!(&told(&found), &wanted);
        let mut union = stored;
        for (key, sets) in right.iter().filter(|((_, cell), _)| is_compared(cell)) {
            let of_cell = union.entry(key.clone()).or_default();
            of_cell.iter_mut().zip(sets).for_each(|(ours, theirs)| ours.extend(theirs.clone()));
        }
        prop_assert_eq!(&held(&store), &union);
        let (left, _) = verify(&plan, &store, Memory::of(&topics, &WHOLE), range, false);
        let extra = wanted.into_iter().filter(|(_, (_, extra))| *extra > 0);
        let extra: BTreeMap<_, _> = extra.map(|(key, (_, extra))| (key, (0, extra))).collect();
        prop_assert_eq!(told(&left), extra);
    }

    /// Records are at most `lateness` out of order here, as those who keep a log promise.
    #[test]
    fn a_log_that_lost_its_beginning_accuses_no_member_and_fills_no_gap_that_it_made(
        topics in [topic(1..150), topic(1..80)], settings in settings(),
        cuts in [[0_usize..80, 0_usize..80], [0_usize..40, 0_usize..40]],
        lost in proptest::collection::vec(prop_oneof![5 => Just(false), 1 => Just(true)], 1..50),
        frontier in 6_i64..40, from_ms in proptest::option::of(0_i64..200),
    ) {
        let (plan, right) = (plan(&settings), by_oracle(&topics, &settings));
        let folder = tempfile::tempdir().unwrap();
        let stored = damage(&right, &lost, &[]);
        let store = store(folder.path(), &plan, &stored, frontier);
        let gap = Gap {
            lane: 0,
            topic: "impressions".to_owned(),
            from_offset: 0,
            to_offset: cuts[0][0] as u64,
            from_ms: 0,
            to_ms: 10_000,
            reason: "trimmed".to_owned(),
        };
        marquee_sinks::Sink::add_gaps(&store, std::slice::from_ref(&gap)).unwrap();
        let log = Memory::of(&topics, &cuts);
        let is_trimmed = log.starts[0][0] > 0;
        let (found, report) = verify(&plan, &store, log, (from_ms, None), true);
        for difference in &found {
            prop_assert_eq!(difference.extra.as_ref().map_or(0, |e| e.total()), 0, "{:?}", difference);
        }
        // What it has added is right, and all of it is if the log was whole.
        let after = held(&store);
        for (key, sets) in &after {
            let right = right.get(key).cloned().unwrap_or_default();
            prop_assert!(sets.iter().zip(&right).all(|(ours, all)| ours.is_subset(all)), "{:?}", key);
        }
        let repairs = store.repairs().unwrap();
        let fills: Vec<&Repair> = repairs.iter().filter(|r| r.gap.as_ref() == Some(&gap)).collect();
        prop_assert!(!is_trimmed || fills.is_empty(), "{:?}", fills);
        prop_assert_eq!(fills.len() as u64, report.filled_gaps);
        for fill in fills {
            for (key, sets) in right.iter().filter(|((lane, cell), _)| {
                *lane == 0 && fill.touches(cell.epoch_start_ms, cell.epoch_ms)
                    && cell.epoch_start_ms >= fill.from_ms
            }) {
                prop_assert_eq!(after.get(key), Some(sets), "a filled gap lacks members");
            }
        }
    }
}

/// A lake in a folder, whose files hold so many epochs.
fn lake(folder: &std::path::Path, span_ms: i64) -> SealerSettings {
    SealerSettings {
        place: LakePlace::Folder(folder.to_owned()),
        sealing: SealingSettings { span_ms, ..SealingSettings::default() },
        letters: None,
        interval: Duration::ZERO,
        now_ms: || 0,
    }
}

fn lake_cells(settings: &SealerSettings, store: &EmbeddedStore) -> LakeCells {
    let bucket = Bucket::open(&settings.place, Stop::default()).unwrap();
    LakeCells::open(Arc::new(bucket), store, 0).unwrap().expect("it was sealed")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 2, ..cases() })]

    /// A lake that was sealed from a store with other members than the one that is compared now, whose
    /// files are all as they were written.
    #[test]
    fn what_a_lake_lacks_is_found_and_written_anew(
        topics in [topic(1..80), topic(1..80)], settings in settings(),
        lost in proptest::collection::vec(prop_oneof![3 => Just(false), 1 => Just(true)], 1..50),
        more in proptest::collection::vec((any::<u8>(), any::<bool>()), 0..3),
        frontier in 9_i64..25, epochs in prop_oneof![Just(1_i64), Just(3)],
    ) {
        let (plan, right) = (plan(&settings), by_oracle(&topics, &settings));
        let in_lake = damage(&right, &lost, &more);
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let span_ms = epochs * EPOCH_MS;
        let lake = lake(folders[0].path(), span_ms);
        let other = store(folders[1].path(), &plan, &in_lake, frontier);
        sealer::seal_now(&lake, Arc::new(other)).unwrap();
        let store = Arc::new(store(folders[2].path(), &plan, &right, frontier));

        let stretch = |cell: &CellKey| cell.epoch_start_ms.div_euclid(span_ms) * span_ms;
        let is_closed = |stretch: &i64| stretch + span_ms <= frontier * EPOCH_MS;
        let last = in_lake.keys().map(|(_, cell)| stretch(cell)).filter(is_closed).max();
        let is_compared = |cell: &CellKey| last.is_some_and(|last| stretch(cell) <= last);
        let wanted = expected(&right, &in_lake, is_compared);
        let compare = |repairs| {
            let lake = lake_cells(&lake, &store);
            let log = Memory::of(&topics, &WHOLE);
            verify_with(&plan, (&store, Some(lake)), log, (None, None), repairs)
        };
        let (found, report) = compare(false);
        prop_assert!(found.iter().all(|d| d.place == "lake" && d.repaired.is_none()));
        prop_assert_eq!(&told(&found), &wanted);
        let of_lake = report.lake.unwrap();
        prop_assert_eq!((report.left, of_lake.left), (0, wanted.len() as u64));
        prop_assert_eq!((of_lake.broken, of_lake.anew), (Vec::new(), BTreeSet::new()));
        let has_later = right.keys().any(|(_, cell)| {
            cell.epoch_start_ms < frontier * EPOCH_MS && !is_compared(cell)
        });
        let notes = report.notes.iter().filter(|note| note.contains("not there yet")).count();
        prop_assert!(notes > 0 || !has_later, "{:?}", report.notes);

        let (found, report) = compare(true);
        prop_assert_eq!(&told(&found), &wanted);
        for difference in &found {
            let has_extra = difference.extra.as_ref().is_some_and(|extra| extra.total() > 0);
            prop_assert_eq!(difference.repaired, Some(!has_extra), "{:?}", difference);
        }
        sealer::write_anew(&lake, store.clone(), &report.lake.unwrap().anew).unwrap();
        let (found, report) = compare(false);
        let extra = wanted.into_iter().filter(|(_, (_, extra))| *extra > 0);
        let extra: BTreeMap<_, _> = extra.map(|(key, (_, extra))| (key, extra)).collect();
        let left: BTreeMap<_, _> =
            told(&found).into_iter().map(|(key, (_, extra))| (key, extra)).collect();
        prop_assert_eq!(left, extra);
        prop_assert_eq!(report.left, 0, "the store was right all the time");
    }
}

#[test]
fn a_late_stretch_is_read_from_the_first_record_that_can_matter() {
    let written = |n: i64| Written {
        request: format!("r{}", n % 7),
        video: "v".to_owned(),
        country: None,
        time_ms: 10 * n,
        record_ms: 10 * n,
    };
    let topics: Topics = [(0..1000).map(written).collect(), (0..1000).map(written).collect()];
    let settings = oracle::Settings {
        within_ms: WITHIN_MS,
        early_ms: EARLY_MS,
        epochs_ms: vec![EPOCH_MS],
        ..oracle::Settings::default()
    };
    let (plan, right) = (plan(&settings), by_oracle(&topics, &settings));
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &plan, &right, 990);
    let log = Memory::of(&topics, &WHOLE);
    let given = log.given.clone();
    let (found, report) = verify(&plan, &store, log, (Some(9_800), None), false);
    assert_eq!((found.len(), report.left), (0, 0));
    assert_eq!(report.epochs, 10);
    let given = *given.lock().unwrap();
    assert!((40..80).contains(&given), "{given} of 2,000 records were read");
}
