//! Random histories: the settings, what the topics hold, and what happens to the lanes.
//!
//! Epochs are tens of milliseconds long, and there are few requests and videos, so that windows,
//! duplicates and frontiers meet all the time. A history is plain data: proptest shrinks it.

use marquee_model::Kind;
use marquee_oracle as oracle;
use marquee_pipeline::lane::LaneSettings;
use marquee_pipeline::settings::{EpochOfPlay, Idle, Impressions, Match, Settings};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) setup: Setup,
    pub(crate) records: Vec<Record>,
    /// What happens, in this order. Afterwards every lane reads what is left.
    pub(crate) steps: Vec<Step>,
    /// How many records are read between two commits, once the steps are done.
    pub(crate) rest_in_batches_of: usize,
}

/// The settings of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) match_video: bool,
    pub(crate) joined: bool,
    pub(crate) epoch_of_play_is_play: bool,
    pub(crate) within_ms: i64,
    pub(crate) early_ms: i64,
    pub(crate) lateness_ms: i64,
    pub(crate) support: usize,
    pub(crate) idle_after_ms: Option<i64>,
    pub(crate) max_ahead_ms: Option<i64>,
    pub(crate) epochs_ms: Vec<i64>,
    pub(crate) sliced: bool,
    pub(crate) lanes: u32,
    pub(crate) max_facts: u32,
}

/// One record of a topic: it holds one event.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) request: usize,
    pub(crate) video: usize,
    pub(crate) time_ms: i64,
    /// When it arrives after its event time: the order of the topic.
    pub(crate) delay_ms: i64,
    /// How far its event time is ahead of its record time; 0 mostly.
    pub(crate) ahead_ms: i64,
    /// Whether the record time is the client's, too, and so says nothing of the delay.
    pub(crate) client_time: bool,
    /// It arrives again this much later.
    pub(crate) again_after_ms: Option<i64>,
    pub(crate) country: Option<usize>,
    pub(crate) device: Option<i64>,
}

/// Something that happens to a lane (numbers are taken modulo the number of lanes).
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Read {
        lane: usize,
        topic: usize,
        records: usize,
    },
    Commit {
        lane: usize,
    },
    /// Said only of a topic that has nothing to read by then.
    NothingToRead {
        lane: usize,
        topic: usize,
        now_ms: i64,
    },
    /// A snapshot, where the state is that of the last commit.
    Save {
        lane: usize,
    },
    /// The oldest part of the state goes to disk, if it takes so many bytes.
    Spill {
        lane: usize,
        at_least: usize,
    },
    Crash {
        lane: usize,
        after: After,
        replay: Replay,
    },
}

/// How far a batch had come when its process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Reading,
    /// The store has the batch, the offsets are not committed.
    Storing,
    Committing,
}

/// How a lane is rebuilt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    pub(crate) loudly: bool,
    /// Which snapshot it begins with, the newest being 0, if that one will do.
    pub(crate) saved: Option<usize>,
    /// Decides how the topics interleave, and when time passes.
    pub(crate) seed: u64,
}

impl Setup {
    /// The same without anything that makes an event late.
    pub(crate) fn patient(&self) -> Setup {
        Setup { lateness_ms: 1_000_000, idle_after_ms: None, max_facts: u32::MAX, ..self.clone() }
    }

    /// The grouping sets.
    pub(crate) fn slices(&self) -> Vec<Vec<String>> {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        if self.sliced {
            vec![names(&[]), names(&["c"]), names(&["c", "d"])]
        } else {
            vec![names(&[])]
        }
    }

    /// As the pipeline takes them.
    pub(crate) fn for_lanes(&self) -> LaneSettings {
        let choose = |first: bool| usize::from(!first);
        let settings = Settings {
            match_: [Match::RequestAndVideo, Match::Request][choose(self.match_video)],
            impressions: [Impressions::Joined, Impressions::All][choose(self.joined)],
            epoch_of_play: [EpochOfPlay::Play, EpochOfPlay::Impression]
                [choose(self.epoch_of_play_is_play)],
            within_ms: self.within_ms,
            early_ms: self.early_ms,
            lateness_ms: self.lateness_ms,
            idle: self.idle_after_ms.map_or(Idle::Hold, Idle::After),
            watermark_support: self.support,
            max_facts: self.max_facts,
            epochs_ms: self.epochs_ms.clone(),
            groupings: self.slices().len(),
        };
        let max_ahead_ms = self.max_ahead_ms;
        LaneSettings { settings, max_ahead_ms, secret: *b"sixteen bytes ok", topics: 2 }
    }

    /// As the oracle takes them.
    pub(crate) fn for_oracle(&self) -> oracle::Settings {
        oracle::Settings {
            match_video: self.match_video,
            impressions_joined: self.joined,
            epoch_of_play_is_play: self.epoch_of_play_is_play,
            within_ms: self.within_ms,
            early_ms: self.early_ms,
            epochs_ms: self.epochs_ms.clone(),
            slices: self.slices(),
        }
    }
}

impl History {
    /// The records in the order of their arrival, those that arrive again twice.
    pub(crate) fn log(&self) -> Vec<Record> {
        let mut log = self.records.clone();
        log.extend(self.records.iter().filter_map(Record::again));
        log.sort_by_key(|record| record.time_ms + record.delay_ms);
        log
    }

    /// The same log without steps, cut into batches of this many records.
    pub(crate) fn in_batches_of(&self, records: usize) -> History {
        History { steps: Vec::new(), rest_in_batches_of: records, ..self.clone() }
    }
}

impl Record {
    fn again(&self) -> Option<Record> {
        let delay_ms = self.delay_ms + self.again_after_ms?;
        Some(Record { delay_ms, ..self.clone() })
    }

    /// 0 for the topic of impressions, 1 for that of plays.
    pub(crate) fn topic(&self) -> usize {
        usize::from(self.kind == Kind::Play)
    }

    /// UUIDs, short texts, and one text that is a UUID in upper case: another request.
    pub(crate) fn request_id(&self) -> String {
        let uuid = |n| format!("0f8fad5b-d9cb-469f-a165-7086772{n:05x}");
        match self.request {
            0 => uuid(1),
            1 => uuid(1).to_uppercase(),
            n if n % 2 == 0 => uuid(n),
            n => format!("r{n}"),
        }
    }

    /// The video id.
    pub(crate) fn video_id(&self) -> String {
        ["A", "B", "Übung"][self.video].to_owned()
    }

    /// The attribute `c`, a text.
    pub(crate) fn c(&self) -> Option<&'static str> {
        self.country.map(|c| ["US", "D\"E"][c])
    }

    /// The log's own timestamp.
    pub(crate) fn record_ms(&self) -> i64 {
        let delay_ms = if self.client_time { 0 } else { self.delay_ms };
        self.time_ms + delay_ms - self.ahead_ms
    }

    /// Whether it is a dead letter.
    pub(crate) fn is_dead(&self, setup: &Setup) -> bool {
        setup.max_ahead_ms.is_some_and(|limit| self.time_ms - self.record_ms() > limit)
    }

    /// The event, as the oracle takes it.
    pub(crate) fn event(&self) -> oracle::Event {
        let c = self.c().map(|c| ("c".to_owned(), format!("\"{}\"", c.replace('"', "\\\""))));
        let d = self.device.map(|d| ("d".to_owned(), d.to_string()));
        oracle::Event {
            kind: match self.kind {
                Kind::Impression => oracle::Kind::Impression,
                Kind::Play => oracle::Kind::Play,
            },
            request_id: self.request_id(),
            video: self.video_id(),
            time_ms: self.time_ms,
            attributes: c.into_iter().chain(d).collect::<BTreeMap<_, _>>(),
        }
    }
}

/// Any history.
pub(crate) fn any() -> impl Strategy<Value = History> {
    let few = (1..=6_usize, 1..=3_usize, 20..=140_i64);
    let records = few.prop_flat_map(|(requests, videos, end_ms)| {
        proptest::collection::vec(record(requests, videos, end_ms), 3..50)
    });
    let steps = proptest::collection::vec(step(), 0..70);
    (setup(), records, steps, 1..8_usize).prop_map(|(setup, records, steps, rest)| History {
        setup,
        records,
        steps,
        rest_in_batches_of: rest,
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let counted = (any_bool(), any_bool(), any_bool(), any_bool());
    let epochs_ms = prop_oneof![Just(vec![10]), Just(vec![20]), Just(vec![20, 5])];
    let windows = (
        prop_oneof![Just(3_i64), Just(12), Just(25), Just(45)],
        prop_oneof![Just(0_i64), Just(1), Just(4), Just(15)],
        prop_oneof![Just(0_i64), Just(5), Just(15)],
    );
    let clocks = (
        1..=3_usize,
        proptest::option::weighted(0.7, prop_oneof![Just(0_i64), Just(5), Just(20)]),
        proptest::option::weighted(0.5, Just(8_i64)),
    );
    let max_facts = prop_oneof![3 => Just(u32::MAX), 1 => 1..=3_u32];
    let lanes = prop_oneof![3 => Just(1_u32), 1 => 2..=4_u32];
    (counted, epochs_ms, windows, clocks, lanes, max_facts).prop_map(
        |(counted, epochs_ms, windows, clocks, lanes, max_facts)| Setup {
            match_video: counted.0,
            joined: counted.1,
            epoch_of_play_is_play: counted.2,
            sliced: counted.3,
            within_ms: windows.0,
            early_ms: windows.1,
            lateness_ms: windows.2,
            support: clocks.0,
            idle_after_ms: clocks.1,
            max_ahead_ms: clocks.2,
            epochs_ms,
            lanes,
            max_facts,
        },
    )
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

fn record(requests: usize, videos: usize, end_ms: i64) -> impl Strategy<Value = Record> {
    let kind = prop_oneof![3 => Just(Kind::Impression), 2 => Just(Kind::Play)];
    let ahead_ms = prop_oneof![20 => Just(0_i64), 1 => 1..40_i64];
    let (country, device) = (proptest::option::of(0..2_usize), proptest::option::of(7..9_i64));
    let again = proptest::option::weighted(0.15, delay());
    let what = (kind, 0..requests, 0..videos, 0..=end_ms);
    (what, delay(), ahead_ms, proptest::bool::weighted(0.2), again, country, device).prop_map(
        |(what, delay_ms, ahead_ms, client_time, again_after_ms, country, device)| Record {
            kind: what.0,
            request: what.1,
            video: what.2,
            time_ms: what.3,
            delay_ms,
            ahead_ms,
            client_time,
            again_after_ms,
            country,
            device,
        },
    )
}

fn delay() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0..3_i64, 3 => 0..20_i64, 1 => 0..100_i64]
}

fn step() -> impl Strategy<Value = Step> {
    let (lane, topic) = (0..4_usize, 0..2_usize);
    let after = prop_oneof![Just(After::Reading), Just(After::Storing), Just(After::Committing)];
    let saved = proptest::option::weighted(0.7, prop_oneof![3 => Just(0_usize), 1 => Just(1)]);
    let replay = (any_bool(), saved, proptest::num::u64::ANY)
        .prop_map(|(loudly, saved, seed)| Replay { loudly, saved, seed });
    prop_oneof![
        12 => (lane.clone(), topic.clone(), 1..7_usize)
            .prop_map(|(lane, topic, records)| Step::Read { lane, topic, records }),
        6 => lane.clone().prop_map(|lane| Step::Commit { lane }),
        3 => lane.clone().prop_map(|lane| Step::Save { lane }),
        2 => (lane.clone(), topic, 0..200_i64)
            .prop_map(|(lane, topic, now_ms)| Step::NothingToRead { lane, topic, now_ms }),
        3 => (lane.clone(), prop_oneof![Just(1_usize), 500..4_000_usize])
            .prop_map(|(lane, at_least)| Step::Spill { lane, at_least }),
        2 => (lane, after, replay)
            .prop_map(|(lane, after, replay)| Step::Crash { lane, after, replay }),
    ]
}
