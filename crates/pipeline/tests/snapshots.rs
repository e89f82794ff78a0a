//! Snapshots as bytes: every version that was ever written is read, what is damaged is refused, and
//! what somebody made up, with checksums that are right, neither panics nor takes memory.
//!
//! That a lane goes on from one as if nothing had happened is tested in `contract.rs`.
//!
//! `MARQUEE_WRITE_FIXTURE=1 cargo test -p marquee-pipeline --test snapshots` writes the fixture of
//! the current version anew; those of older ones are never written again.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_expr::{Declared, Type, Value};
use marquee_model::Kind::{self, Impression, Play};
use marquee_model::Side;
use marquee_pipeline::lane::{LaneSettings, Resume, Verdict};
use marquee_pipeline::prepare::Stream;
use marquee_pipeline::settings::Idle;
use marquee_pipeline::snapshot::{About, Loader, SnapshotError, read_header};
use marquee_pipeline::{LanePipeline, Settings};
use proptest::prelude::*;
use std::borrow::Cow;
use std::path::PathBuf;

const MAGIC_AND_VERSION: usize = 12;

/// What was written by version 1, and the frontier of its commit.
const FIXTURES: [(&str, i64); 1] = [("version-1.snapshot", 6)];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name)
}

fn settings() -> LaneSettings {
    let settings = Settings {
        within_ms: 12,
        early_ms: 2,
        lateness_ms: 5,
        idle: Idle::Hold,
        watermark_support: 2,
        epochs_ms: vec![20, 10],
        groupings: 2,
        ..Settings::default()
    };
    LaneSettings { settings, max_ahead_ms: None, secret: *b"of this fixture!", topics: 2 }
}

fn stream(kind: Kind) -> Stream {
    let declared = [Declared { name: "c".to_owned(), ty: Type::String, optional: true }];
    let slices = [vec![], vec!["c".to_owned()]];
    Stream::new(kind, &declared, "", "", &slices, kind == Impression).unwrap()
}

fn put(lane: &mut LanePipeline, kind: Kind, request: &str, video: &str, ms: i64) -> Verdict {
    with_values(request, video, ms, |values| {
        lane.decoded(1);
        lane.event(&stream(kind), usize::from(kind == Play), values)
    })
}

fn with_values<T>(request: &str, video: &str, ms: i64, f: impl FnOnce(&[Value<'_>]) -> T) -> T {
    let text = |text| Value::String(Cow::Borrowed(text));
    let country = if ms % 2 == 0 { text("US") } else { Value::Null };
    let (time, record) = (Value::Int(ms), Value::Int(ms));
    let headers = Value::StringMap(&[]);
    f(&[text(request), text(video), time, record, Value::Null, headers, country])
}

/// A lane that has closed epochs, and one request with many facts and many plays.
fn lane() -> LanePipeline {
    let mut lane = LanePipeline::new(settings());
    for ms in 0..160 {
        let request = format!("r{}", ms % 7);
        put(&mut lane, Impression, &request, ["A", "Übung"][ms as usize % 2], ms);
        if ms % 3 == 0 {
            put(&mut lane, Play, &request, ["A", "Übung"][ms as usize % 2], ms + 5);
        }
        if ms % 10 == 0 {
            lane.batch();
            lane.advance();
        }
    }
    for n in 0..90 {
        let everybody = "0f8fad5b-d9cb-469f-a165-708677289501";
        put(&mut lane, Impression, everybody, &format!("v{n}"), 150 + n % 10);
        put(&mut lane, Play, everybody, &format!("v{n}"), 155 + n % 10);
    }
    lane.batch();
    lane.advance();
    lane
}

fn saved(lane: &LanePipeline) -> Vec<u8> {
    let about = About {
        settings: "settings".to_owned(),
        shape: "shape".to_owned(),
        lane: 3,
        topic_ids: vec!["impressions".to_owned(), "plays".to_owned()],
        next_offsets: vec![250, 144],
        life: 2,
    };
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok::<(), ()>(())
    };
    lane.save(&about, write).unwrap();
    bytes
}

fn load(bytes: &[u8], frontier: i64) -> Result<LanePipeline, SnapshotError> {
    let resume = Resume { frontier, ..Resume::default() };
    let mut loader = Loader::new(settings(), resume, bytes.len() as u64);
    loader.feed(bytes)?;
    let mut lane = loader.finish()?;
    lane.rebuilt();
    Ok(lane)
}

/// Every open cell: video, slice, start, length, impressions, plays.
fn cells(lane: &LanePipeline) -> Vec<(String, String, i64, i64, u64, u64)> {
    let cells = lane.open_cells().map(|cell| {
        let (video, slice) = (cell.video.to_owned(), cell.slice.to_owned());
        let (impressions, plays) = (cell.counts.impressions, cell.counts.plays);
        (video, slice, cell.epoch_start_ms, cell.epoch_ms, impressions, plays)
    });
    let mut cells: Vec<_> = cells.collect();
    cells.sort();
    cells
}

#[test]
fn what_every_version_has_written_is_read_and_goes_on() {
    let written = lane();
    if std::env::var_os("MARQUEE_WRITE_FIXTURE").is_some() {
        std::fs::write(fixture(FIXTURES[0].0), saved(&written)).unwrap();
    }
    for (name, frontier) in FIXTURES {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let header = read_header(&bytes).unwrap();
        assert_eq!((header.about.lane, header.about.life, header.frontier), (3, 2, frontier));
        assert_eq!(header.about.next_offsets, [250, 144]);
        assert!(header.has_secret(settings().secret) && !header.has_secret([0; 16]));
        let mut lane = load(&bytes, frontier).unwrap();
        assert_eq!(cells(&lane), cells(&written), "{name}");
        assert_eq!(lane.watermark_ms(), written.watermark_ms());
        let shown = |row: &&(String, String, i64, i64, u64, u64)| row.0 == "A" && row.1.is_empty();
        let a = cells(&lane)
            .iter()
            .filter(shown)
            .map(|row| (row.2, row.3, row.4, row.5))
            .collect::<Vec<_>>();
        // By hand: A is shown at each even time, to the requests 1 3 5 0 2 4 6 in turn, and played 5
        // later by those who were shown it at 120, 126, 132 ... 156.
        let by_hand = [
            (120, 10, 5, 2),
            (120, 20, 7, 4),
            (130, 10, 5, 2),
            (140, 10, 5, 1),
            (140, 20, 7, 3),
            (150, 10, 5, 2),
        ];
        assert_eq!(a, by_hand, "{name}");
        // An impression that is there, a play that is there, and one that meets an impression.
        assert_eq!(put(&mut lane, Impression, "r4", "A", 158), Verdict::Duplicate);
        assert_eq!(put(&mut lane, Play, "r2", "A", 161), Verdict::Duplicate);
        assert!(!lane.has_changes());
        assert_eq!(put(&mut lane, Play, "r4", "A", 159), Verdict::Counted);
        assert!(lane.has_changes());
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let (bytes, frontier) = (saved(&lane()), lane().frontier());
    assert!(load(&bytes, frontier).is_ok());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(load(&flipped, frontier).is_err(), "byte {at}");
    }
}

#[test]
fn every_end_but_the_right_one_is_an_error() {
    let (bytes, frontier) = (saved(&lane()), lane().frontier());
    for end in 0..bytes.len() {
        assert!(load(&bytes[..end], frontier).is_err(), "cut at {end}");
    }
    let more = [&bytes[..], &bytes[MAGIC_AND_VERSION..]].concat();
    assert!(load(&more, frontier).is_err(), "twice");
    assert!(load(&[&bytes[..], &[0]].concat(), frontier).is_err(), "one byte more");
    assert!(matches!(load(b"something else, of a length", 0), Err(SnapshotError::NotASnapshot)));
}

#[test]
fn one_of_another_version_secret_or_future_is_refused_by_name() {
    let (bytes, frontier) = (saved(&lane()), lane().frontier());
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert_eq!(load(&newer, frontier).err(), Some(SnapshotError::OtherVersion(2)));
    assert_eq!(read_header(&newer).err(), Some(SnapshotError::OtherVersion(2)));
    let behind = load(&bytes, frontier - 1).err();
    assert_eq!(behind, Some(SnapshotError::Misfit("it is ahead of the commit")));
    let other = LaneSettings { secret: [1; 16], ..settings() };
    let resume = Resume { frontier, ..Resume::default() };
    let fed = Loader::new(other, resume, bytes.len() as u64).feed(&bytes);
    assert_eq!(fed, Err(SnapshotError::Misfit("it is of another generation")));
}

/// Gives frames that were changed the checksums that they should have.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..MAGIC_AND_VERSION]);
    let mut at = MAGIC_AND_VERSION;
    while let Some(head) = bytes.get(at..at + 5) {
        let length = u32::from_le_bytes(head[1..].try_into().unwrap()) as usize;
        let end = at + 5 + length;
        if end + 4 > bytes.len() {
            break;
        }
        crc.update(&bytes[at..end]);
        bytes[end..end + 4].copy_from_slice(&crc.clone().finalize().to_le_bytes());
        at = end + 4;
    }
    bytes
}

fn cases() -> ProptestConfig {
    let asked = std::env::var("MARQUEE_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(3_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever it makes of them: an error, or a lane that works.
    #[test]
    fn made_up_bytes_with_right_checksums_do_not_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        later in 0_i64..4,
    ) {
        let (mut bytes, frontier) = (saved(&lane()), lane().frontier());
        for (at, byte) in changes {
            let at = MAGIC_AND_VERSION + at.index(bytes.len() - MAGIC_AND_VERSION);
            bytes[at] = byte;
        }
        if let Ok(mut lane) = load(&with_checksums(bytes), frontier + later) {
            cells(&lane);
            for (kind, ms) in [(Impression, 158), (Play, 159), (Impression, 300), (Play, 301)] {
                for request in ["r1", "r2", "0f8fad5b-d9cb-469f-a165-708677289501"] {
                    put(&mut lane, kind, request, "A", ms);
                }
            }
            lane.batch();
            lane.advance();
            saved(&lane);
        }
    }
}

/// What a batch writes: every changed cell with its counts and both chunks.
fn written(lane: &mut LanePipeline) -> Vec<String> {
    let batch = lane.batch();
    let line = |cell: marquee_pipeline::lane::ChangedCell<'_>| {
        let chunks = Side::BOTH.map(|side| cell.chunk(side));
        format!("{:?} {chunks:?}", cell.cell)
    };
    batch.cells().map(line).collect()
}

proptest! {
    /// The verdicts, what is written, the counters and the state do not depend on how many events
    /// are taken before they are applied.
    #[test]
    fn events_that_are_applied_together_are_what_they_are_one_by_one(
        events in proptest::collection::vec(
            (any::<bool>(), 0..6_usize, "[ab]{1,2}", 0..90_i64), 1..300),
        together in proptest::collection::vec(1..40_usize, 1..40),
    ) {
        let settings = || {
            let LaneSettings { mut settings, max_ahead_ms, secret, topics } = settings();
            settings.max_facts = 3;
            LaneSettings { settings, max_ahead_ms, secret, topics }
        };
        let (mut one, mut other) = (LanePipeline::new(settings()), LanePipeline::new(settings()));
        let requests = ["a", "bb", "", "0f8fad5b-d9cb-469f-a165-708677289501", "ccc",
            "1f8fad5b-d9cb-469f-a165-708677289501"];
        let mut rest = &events[..];
        for count in together.iter().cycle() {
            let (now, later) = rest.split_at((*count).min(rest.len()));
            rest = later;
            let (mut expected, mut found) = (Vec::new(), vec![None; now.len()]);
            for (number, (is_play, request, video, ms)) in now.iter().enumerate() {
                let kind = if *is_play { Play } else { Impression };
                expected.push(Some(put(&mut one, kind, requests[*request], video, *ms)));
                found[number] = with_values(requests[*request], video, *ms, |values| {
                    other.decoded(1);
                    other.take(&stream(kind), usize::from(*is_play), values, number as u32)
                });
            }
            other.apply(|number, verdict| {
                assert!(found[number as usize].replace(verdict).is_none());
            });
            prop_assert_eq!(found, expected);
            prop_assert_eq!(written(&mut one), written(&mut other));
            one.advance();
            other.advance();
            prop_assert_eq!(one.counters(), other.counters());
            prop_assert_eq!(one.frontier(), other.frontier());
            prop_assert_eq!(saved(&one), saved(&other));
            if rest.is_empty() {
                break;
            }
        }
    }
}
