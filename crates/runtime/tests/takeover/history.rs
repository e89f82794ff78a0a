//! What happens: two topics, and the processes that have the lane one after the other.

use marquee_expr::Declared;
use marquee_model::{Kind, Partitioner};
use marquee_pipeline::Settings;
use marquee_pipeline::prepare::Stream;
use marquee_pipeline::settings::Idle;
use marquee_runtime::{Plan, StreamPlan};
use marquee_sources::json::{Decoder, Mapping, TimeUnit};
use proptest::prelude::*;

pub(crate) const PROCESSES: usize = 3;
/// Windows as short as an epoch: faults hide at its borders.
pub(crate) const EPOCH_MS: i64 = 10;
const WITHIN_MS: i64 = 12;
const EARLY_MS: i64 = 2;
const LATENESS_MS: i64 = 6;

/// One event of one topic.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    request: u8,
    video: u8,
    pub(crate) time_ms: i64,
}

impl Event {
    pub(crate) fn request_id(&self) -> String {
        format!("r{}", self.request)
    }

    fn video(&self) -> String {
        format!("v{}", self.video)
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let (request_id, video, ts) = (self.request_id(), self.video(), self.time_ms);
        serde_json::json!({ "request_id": request_id, "video_id": video, "ts": ts })
            .to_string()
            .into_bytes()
    }
}

/// How a process gives up the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, when it has read what it sees.
    Stops,
    /// Before it reads its n-th record.
    DiesReading(usize),
    /// The group takes the lane away once so many records were read, also in a rebuild.
    IsRevoked(usize),
    /// After its n-th batch is in the store, before the group knows.
    DiesCommitting(usize),
    /// It goes on, but from the n-th commit on none reaches the group.
    LosesCommits(usize),
}

/// One process has the lane for a while.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) process: usize,
    /// How far it sees each topic: processes read the two at different paces.
    pub(crate) sees: [u64; 2],
    /// The log loses its records before these offsets, before the process begins.
    pub(crate) trims: [u64; 2],
    pub(crate) batch_events: usize,
    /// Records that one read gives out.
    pub(crate) chunk: usize,
    pub(crate) end: End,
    /// How long after one snapshot the next one is due; `None`: the process knows none.
    pub(crate) saves_after_ms: Option<u64>,
    /// What happens to the snapshots of the process before it begins.
    pub(crate) damage: Damage,
}

/// What happens to the snapshots of a process while it is away. Numbers say where.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    None,
    OfNewest(usize),
    OfAll(usize),
    NewestIsTorn(usize),
    OldestIsLost,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Impressions, plays.
    pub(crate) topics: [Vec<Event>; 2],
    pub(crate) runs: Vec<Run>,
}

impl History {
    pub(crate) fn oracle_events(&self) -> Vec<marquee_oracle::Event> {
        let kinds = [marquee_oracle::Kind::Impression, marquee_oracle::Kind::Play];
        let mut events = Vec::new();
        for (topic, kind) in self.topics.iter().zip(kinds) {
            events.extend(topic.iter().map(|event| marquee_oracle::Event {
                kind,
                request_id: event.request_id(),
                video: event.video(),
                time_ms: event.time_ms,
                attributes: Default::default(),
            }));
        }
        events
    }

    /// Topic and offset of an event of `oracle_events`.
    pub(crate) fn place_of(&self, event: usize) -> (usize, u64) {
        match event.checked_sub(self.topics[0].len()) {
            None => (0, event as u64),
            Some(offset) => (1, offset as u64),
        }
    }

    pub(crate) fn oracle_settings(&self) -> marquee_oracle::Settings {
        marquee_oracle::Settings {
            match_video: true,
            impressions_joined: false,
            epoch_of_play_is_play: false,
            within_ms: WITHIN_MS,
            early_ms: EARLY_MS,
            epochs_ms: vec![EPOCH_MS],
            slices: vec![vec![]],
        }
    }
}

/// A history that was found by chance: the lane comes back to a process whose store is behind.
pub(crate) fn comes_back() -> History {
    let event = |(request, video, time_ms): &(u8, u8, i64)| Event {
        request: *request,
        video: *video,
        time_ms: *time_ms,
    };
    let impressions = [
        (2, 0, 42),
        (3, 1, 39),
        (3, 0, 43),
        (3, 0, 42),
        (1, 1, 14),
        (0, 0, 29),
        (2, 1, 48),
        (0, 1, 50),
        (0, 1, 49),
        (2, 1, 50),
        (1, 1, 55),
        (0, 0, 53),
        (3, 0, 54),
        (2, 0, 49),
        (0, 0, 57),
        (2, 0, 60),
        (1, 0, 59),
        (1, 1, 62),
        (3, 0, 62),
        (0, 0, 59),
        (0, 0, 60),
        (0, 0, 62),
        (3, 1, 52),
        (0, 1, 69),
        (1, 0, 69),
        (2, 1, 71),
        (2, 0, 69),
        (1, 1, 73),
        (3, 0, 72),
        (3, 1, 78),
        (3, 1, 76),
        (0, 1, 76),
        (3, 0, 74),
        (0, 1, 81),
        (1, 1, 82),
        (2, 0, 51),
        (3, 1, 85),
        (2, 0, 88),
        (0, 1, 92),
        (1, 1, 93),
        (2, 1, 90),
        (0, 0, 94),
        (3, 1, 94),
        (3, 0, 95),
        (2, 0, 67),
        (3, 1, 96),
        (0, 1, 95),
        (2, 1, 96),
        (0, 0, 98),
        (1, 1, 101),
        (1, 0, 100),
        (0, 0, 99),
        (1, 1, 105),
    ];
    let plays = [
        (3, 1, 41),
        (3, 0, 43),
        (2, 1, 43),
        (2, 1, 43),
        (0, 1, 44),
        (2, 0, 48),
        (0, 0, 43),
        (2, 0, 48),
        (3, 0, 53),
    ];
    let run = |process, sees, batch_events, chunk, end| Run {
        process,
        sees,
        trims: [0, 0],
        batch_events,
        chunk,
        end,
        saves_after_ms: Some(0),
        damage: Damage::None,
    };
    History {
        topics: [impressions.iter().map(event).collect(), plays.iter().map(event).collect()],
        runs: vec![
            run(1, [31, 5], 6, 3, End::DiesReading(6)),
            run(0, [3, 0], 3, 2, End::DiesReading(35)),
            run(1, [3, 2], 10, 1, End::Stops),
            run(0, [38, 5], 11, 3, End::DiesCommitting(1)),
            run(1, [u64::MAX; 2], 5, 3, End::Stops),
        ],
    }
}

/// Time goes on, with some disorder: events of the past, and some that are late.
fn topic(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Event>> {
    let event = (0_u8..4, 0_u8..2, 0_i64..4, prop_oneof![8 => 0_i64..5, 1 => 0_i64..40]);
    proptest::collection::vec(event, len).prop_map(|drawn| {
        let mut now_ms = 40;
        let event = |(request, video, step_ms, ago_ms)| {
            now_ms += step_ms;
            Event { request, video, time_ms: now_ms - ago_ms }
        };
        drawn.into_iter().map(event).collect()
    })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::Stops),
        2 => (0_usize..40).prop_map(End::DiesReading),
        2 => (0_usize..40).prop_map(End::IsRevoked),
        2 => (0_usize..6).prop_map(End::DiesCommitting),
        1 => (0_usize..6).prop_map(End::LosesCommits),
    ]
}

fn run(lens: [usize; 2]) -> impl Strategy<Value = Run> {
    let sees = (0..=lens[0] as u64, 0..=lens[1] as u64);
    let trims = prop_oneof![
        6 => Just([0, 0]),
        1 => (0..=lens[0] as u64, 0..=lens[1] as u64).prop_map(|(i, p)| [i, p]),
    ];
    (process(), sees, trims, 1_usize..12, 1_usize..6, end(), saves_after_ms(), damage()).prop_map(
        |(process, sees, trims, batch_events, chunk, end, saves_after_ms, damage)| Run {
            process,
            sees: [sees.0, sees.1],
            trims,
            batch_events,
            chunk,
            end,
            saves_after_ms,
            damage,
        },
    )
}

/// One process has the lane more often than others: it meets its own snapshots again.
fn process() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(0), 1 => 0..PROCESSES]
}

fn saves_after_ms() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(Some(0)), 1 => (1_u64..4).prop_map(Some), 1 => Just(None)]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => Just(Damage::None),
        1 => (0_usize..4000).prop_map(Damage::OfNewest),
        1 => (0_usize..4000).prop_map(Damage::OfAll),
        1 => (0_usize..1000).prop_map(Damage::NewestIsTorn),
        1 => Just(Damage::OldestIsLost),
    ]
}

pub(crate) fn any() -> impl Strategy<Value = History> {
    (topic(1..60), topic(1..30)).prop_flat_map(|(impressions, plays)| {
        let lens = [impressions.len(), plays.len()];
        (proptest::collection::vec(run(lens), 1..7), process()).prop_map(move |(runs, last)| {
            let all = Run {
                process: last,
                sees: [u64::MAX; 2],
                trims: [0, 0],
                batch_events: 5,
                chunk: 3,
                end: End::Stops,
                saves_after_ms: Some(0),
                damage: Damage::None,
            };
            let topics = [impressions.clone(), plays.clone()];
            History { topics, runs: runs.into_iter().chain([all]).collect() }
        })
    })
}

/// The settings, compiled.
pub(crate) fn plan() -> Plan {
    let stream = |kind: Kind, topic: &str| {
        let path = |name: &str| vec![name.to_owned()];
        let mapping = Mapping {
            record_filter: None,
            explode: None,
            request_id: path("request_id"),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Milliseconds,
            attributes: Vec::new(),
        };
        let none: [Declared; 0] = [];
        let stream = Stream::new(kind, &none, "", "", &[vec![]], true).unwrap();
        StreamPlan { decoder: Decoder::new(mapping), stream, topic: topic.to_owned() }
    };
    Plan {
        impressions: stream(Kind::Impression, "impressions"),
        plays: stream(Kind::Play, "plays"),
        settings: Settings {
            within_ms: WITHIN_MS,
            early_ms: EARLY_MS,
            lateness_ms: LATENESS_MS,
            idle: Idle::Hold,
            watermark_support: 2,
            epochs_ms: vec![EPOCH_MS],
            ..Settings::default()
        },
        max_ahead_ms: 1_000,
        lanes: 1,
        uses_keys: false,
        partitioner: Partitioner::Murmur2,
        fingerprint: serde_json::json!({ "test": 1 }),
    }
}
