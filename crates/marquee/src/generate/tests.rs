//! The promises of the generator, checked on whole runs.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use super::arrivals::UnderWay;
use super::request::Requests;
use super::*;
use marquee_model::{Kind, Partitioner, lane_of};
use std::collections::{HashMap, HashSet};

fn all(options: &Options) -> Vec<Arrival> {
    arrivals(options).unwrap().collect()
}

fn json(event: &GeneratedEvent) -> Vec<u8> {
    let mut out = Vec::new();
    event.write_json(&mut out);
    out
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The checksums of both files, and what was written.
fn written(options: &Options) -> (u64, u64, Summary) {
    let dir = tempfile::tempdir().unwrap();
    let summary = write_files(options, &dir.path().join("new/folder")).unwrap();
    let read = |name| std::fs::read(dir.path().join("new/folder").join(name)).unwrap();
    let (impressions, plays) = (read("impressions.ndjson"), read("plays.ndjson"));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!((lines(&impressions), lines(&plays)), (summary.impressions, summary.plays));
    assert_eq!(impressions.len() as u64, summary.impressions_bytes);
    assert_eq!(plays.len() as u64, summary.plays_bytes);
    assert_eq!(std::fs::read_dir(dir.path().join("new/folder")).unwrap().count(), 2);
    (checksum(&impressions), checksum(&plays), summary)
}

/// Whoever changes these numbers breaks the promise that the same flags give the same bytes.
#[test]
fn the_same_flags_give_these_bytes_for_ever() {
    let options = Options::new(2_000, 7);
    let (impressions, plays, summary) = written(&options);
    assert_eq!((impressions, plays), (0xb2dd_9a39_5416_7f97, 0x0015_8787_2831_c7cb));
    assert_eq!((summary.impressions, summary.plays), (17224, 255));
    let (impressions, plays, _) = written(&Options { late_share: 0.02, ..options });
    assert_eq!((impressions, plays), (0x2b9f_eb05_3999_17c7, 0xa971_5d19_04c0_1d39));
}

#[test]
fn no_requests_make_empty_files() {
    for late_share in [0.0, 0.5] {
        let options = Options { late_share, ..Options::new(0, 7) };
        assert_eq!(written(&options).2, Summary::default());
    }
}

#[test]
fn the_stream_is_a_stable_sort_of_all_requests_in_little_memory() {
    for late_share in [0.0, 0.02] {
        let options = Options { late_share, ..Options::new(20_000, 3) };
        let requests = Requests::new(&options).unwrap();
        let mut sorted = Vec::new();
        let mut starts: Vec<i64> = Vec::new();
        (0..options.requests).for_each(|i| starts.push(requests.draw(i, &mut sorted)));
        assert!(starts.is_sorted());
        sorted.sort_by_key(|arrival| arrival.arrival_ms);

        let mut streamed = Vec::new();
        let mut stream = arrivals(&options).unwrap();
        let mut held_max = 0;
        while let Some(arrival) = stream.next() {
            streamed.push(arrival);
            held_max = held_max.max(stream.under_way());
        }
        assert_eq!(streamed, sorted);
        assert!(held_max < if late_share > 0.0 { 7_000 } else { 1_000 }, "{held_max}");
    }
}

#[test]
fn at_the_same_millisecond_the_first_pushed_comes_first() {
    let mut under_way = UnderWay::default();
    let event = all(&Options::new(1, 1)).remove(0).event;
    for (arrival_ms, row) in [(2, 0), (1, 1), (2, 2), (1, 3), (3, 4)] {
        let event = GeneratedEvent { row, ..event.clone() };
        under_way.push(Arrival { arrival_ms, event });
    }
    let rows = std::iter::from_fn(|| under_way.pop_before(3)).map(|next| next.event.row);
    assert_eq!(rows.collect::<Vec<_>>(), [1, 3, 0, 2]);
}

#[test]
fn any_request_can_be_drawn_alone() {
    let options = Options::new(1_000, 5);
    let requests = Requests::new(&options).unwrap();
    let (mut alone, mut after_others) = (Vec::new(), Vec::new());
    requests.draw(999, &mut alone);
    (0..999).for_each(|i| _ = requests.draw(i, &mut Vec::new()));
    requests.draw(999, &mut after_others);
    assert_eq!(alone, after_others);
}

#[test]
fn every_line_is_json_with_the_fields_of_its_kind() {
    let common = ["request_id", "video_id", "ts", "country", "device"];
    for arrival in all(&Options::new(300, 7)) {
        let bytes = json(&arrival.event);
        assert!((135..=170).contains(&bytes.len()), "{}", bytes.len());
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let fields: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        let own: &[&str] = match arrival.event.kind() {
            Kind::Impression => &["row", "position"],
            Kind::Play => &["duration_s"],
        };
        assert_eq!(fields, [&common, own].concat());
        assert_eq!(record["ts"], arrival.event.event_time_ms());
        assert_eq!(record["request_id"], arrival.event.request_id());
        assert!(marquee_model::parse_uuid(arrival.event.request_id().as_bytes()).is_some());
    }
}

/// `found` of `among` is within four deviations of the share.
fn check_share(name: &str, found: usize, among: usize, share: f64) {
    let (found, among) = (found as f64, among as f64);
    let deviation = (share * (1.0 - share) / among).sqrt();
    let off = (found / among - share) / deviation;
    assert!(off.abs() < 4.0, "{name}: {} is {off} deviations off", found / among);
}

#[test]
fn shares_are_those_that_were_asked_for() {
    let requests = 20_000;
    let arrivals = all(&Options::new(requests as u64, 11));
    let (impressions, plays): (Vec<_>, Vec<_>) =
        arrivals.iter().map(|a| &a.event).partition(|event| event.kind == Kind::Impression);
    let distinct =
        |events: &[&GeneratedEvent]| events.iter().map(|e| json(e)).collect::<HashSet<_>>();
    let sightings = distinct(&impressions).len();
    let first_sightings: HashSet<_> =
        impressions.iter().map(|event| (event.request_id, event.position)).collect();
    let shown = first_sightings.len();
    assert!((shown as f64 / requests as f64 - 8.0).abs() < 0.08, "{shown}");
    check_share("delivered twice", impressions.len() - sightings, shown, 0.02);
    check_share("reappear", sightings - shown, shown, 0.05);

    let known: HashSet<_> = impressions.iter().map(|event| event.request_id).collect();
    assert_eq!(known.len(), requests);
    let (prompted, unprompted): (Vec<_>, Vec<_>) =
        plays.iter().copied().partition(|event| known.contains(&event.request_id));
    let played = distinct(&prompted).len();
    check_share("played", played, requests, 0.12);
    check_share("plays delivered twice", prompted.len() - played, played, 0.03);
    check_share("unprompted", unprompted.len(), requests, 0.005);
    assert!(unprompted.iter().all(|play| play.duration_s == 600));

    let devices: HashMap<_, _> = impressions.iter().map(|e| (e.request_id, e.device)).collect();
    let consoles = devices.values().filter(|device| **device == 4).count();
    check_share("consoles", consoles, requests, 0.2);
    let mut delays: Vec<_> = delays_ms(&impressions, &prompted).collect();
    delays.sort_unstable();
    assert!(
        (35_000..46_000).contains(&delays[delays.len() / 2]),
        "median {:?}",
        delays[delays.len() / 2]
    );
    assert!(*delays.last().unwrap() <= 3_500_000);
}

/// Of each play after the first sighting of its video in its request (a video can be there twice).
fn delays_ms<'a>(
    impressions: &[&GeneratedEvent],
    plays: &'a [&GeneratedEvent],
) -> impl Iterator<Item = i64> + use<'a> {
    let sightings: HashMap<_, _> = impressions
        .iter()
        .map(|event| ((event.request_id, event.position), event.event_time_ms))
        .collect();
    let firsts = impressions.iter().fold(sightings, |mut firsts, event| {
        let first = firsts.entry((event.request_id, event.position)).or_insert(i64::MAX);
        *first = event.event_time_ms.min(*first);
        firsts
    });
    plays.iter().map(move |play| play.event_time_ms - firsts[&(play.request_id, play.position)])
}

#[test]
fn starts_are_even_over_the_span_and_gaps_as_promised() {
    let options = Options::new(10_000, 2);
    let requests = Requests::new(&options).unwrap();
    let mut thirds = [0_usize; 3];
    for number in 0..options.requests {
        let mut events = Vec::new();
        let start_ms = requests.draw(number, &mut events);
        thirds[((start_ms - options.start_ms) * 3 / options.span_ms) as usize] += 1;
        let mut firsts: HashMap<u8, i64> = HashMap::new();
        for Arrival { arrival_ms, event } in events {
            assert!(start_ms <= event.event_time_ms && event.event_time_ms <= arrival_ms);
            if event.kind == Kind::Impression {
                let first = firsts.entry(event.position).or_insert(i64::MAX);
                *first = event.event_time_ms.min(*first);
            }
        }
        assert_eq!(firsts[&0], start_ms);
        for position in 1..firsts.len() as u8 {
            let gap_ms = firsts[&position] - firsts[&(position - 1)];
            assert!((200..=2_999).contains(&gap_ms), "{gap_ms}");
        }
    }
    assert!(thirds.iter().all(|count| count.abs_diff(3_333) < 3), "{thirds:?}");
}

/// More requests than milliseconds: strata overlap in whole milliseconds, and stay in order.
#[test]
fn requests_may_be_closer_than_a_millisecond() {
    let options = Options { span_ms: 100, ..Options::new(1_000, 2) };
    let requests = Requests::new(&options).unwrap();
    let starts: Vec<_> = (0..1_000).map(|i| requests.draw(i, &mut Vec::new())).collect();
    assert!(starts.is_sorted());
    assert!(starts.iter().all(|start| (0..100).contains(&(start - options.start_ms))));
    assert!(all(&options).is_sorted_by_key(|arrival| arrival.arrival_ms));
}

/// The rule of docs/semantics.md, "Time and state", with the defaults but for what is given.
struct Watermarks {
    lanes: u32,
    support: usize,
    early_ms: i64,
    /// By lane and topic: the latest times of distinct requests, the latest first.
    latest: HashMap<(u32, Kind), Vec<(i64, String)>>,
}

impl Watermarks {
    /// Whether the event is late where all that arrived before it has been read.
    fn read(&mut self, arrival: &Arrival) -> bool {
        let event = &arrival.event;
        let request_id = event.request_id();
        let lane = lane_of(Partitioner::Murmur2, request_id.as_bytes(), self.lanes);
        let late = self.is_late(lane, event);
        let latest = self.latest.entry((lane, event.kind)).or_default();
        let mut time_ms = event.event_time_ms.min(arrival.arrival_ms);
        if let Some(place) = latest.iter().position(|(_, request)| *request == request_id) {
            time_ms = time_ms.max(latest.remove(place).0);
        }
        let place = latest.partition_point(|(other_ms, _)| *other_ms >= time_ms);
        latest.insert(place, (time_ms, request_id));
        latest.truncate(self.support);
        late
    }

    fn is_late(&self, lane: u32, event: &GeneratedEvent) -> bool {
        let (epoch_ms, within_ms) = (1_800_000, 3_600_000);
        let needed_ms = match event.kind {
            Kind::Impression => event.event_time_ms - self.early_ms,
            Kind::Play => event.event_time_ms - within_ms,
        };
        let epoch_end_ms = needed_ms.div_euclid(epoch_ms) * epoch_ms + epoch_ms;
        self.watermark_ms(lane) > epoch_end_ms + within_ms + self.early_ms
    }

    fn watermark_ms(&self, lane: u32) -> i64 {
        let topic = |kind| {
            let latest = self.latest.get(&(lane, kind))?;
            latest.get(self.support - 1).map(|(time_ms, _)| time_ms - 600_000)
        };
        let both = [Kind::Impression, Kind::Play].map(|kind| topic(kind).unwrap_or(i64::MIN));
        both[0].min(both[1])
    }
}

/// The late ones of all events.
fn late(arrivals: &[Arrival], lanes: u32, support: usize, early_ms: i64) -> Vec<&Arrival> {
    let mut watermarks = Watermarks { lanes, support, early_ms, latest: HashMap::new() };
    arrivals.iter().filter(|arrival| watermarks.read(arrival)).collect()
}

#[test]
fn nothing_is_late_unless_it_is_asked_for() {
    for seed in 0..3 {
        // A start away from the edges of epochs must not matter.
        let start_ms = DEFAULT_START_MS + seed as i64 * 437_129;
        let arrivals = all(&Options { start_ms, ..Options::new(20_000, seed) });
        for (lanes, support, early_ms) in [(4, 16, 60_000), (4, 16, 0), (1, 1, 0)] {
            assert_eq!(late(&arrivals, lanes, support, early_ms).len(), 0);
        }
    }
}

#[test]
fn lags_stay_below_the_default_lateness() {
    for Arrival { arrival_ms, event } in all(&Options::new(50_000, 9)) {
        let lag_ms = arrival_ms - event.event_time_ms;
        let lag_ms_max = match event.kind {
            Kind::Impression => 1_200_000,
            Kind::Play => 540_000,
        };
        assert!((0..lag_ms_max).contains(&lag_ms), "{lag_ms}");
    }
}

/// Every event that was delayed on purpose is late under the rule, no other is, and together they
/// are the share that was asked for.
fn check_late_share(options: &Options, lanes: u32, early_ms: i64) {
    let arrivals = all(options);
    let delayed =
        arrivals.iter().filter(|a| a.arrival_ms - a.event.event_time_ms >= 3 * 3_600_000).count();
    let late = late(&arrivals, lanes, 16, early_ms);
    assert_eq!(late.len(), delayed, "{options:?}");
    for kind in [Kind::Impression, Kind::Play] {
        let among = arrivals.iter().filter(|arrival| arrival.event.kind == kind).count();
        let found = late.iter().filter(|arrival| arrival.event.kind == kind).count();
        let off = found as f64 / among as f64 / options.late_share - 1.0;
        let deviation = 1.0 / (among as f64 * options.late_share).sqrt();
        assert!(off.abs() < 0.02 + 4.0 * deviation, "{kind:?}: {found} of {among}");
    }
}

#[test]
fn the_late_share_is_late_under_the_default_settings() {
    let options = Options { late_share: 0.02, ..Options::new(20_000, 7) };
    for (lanes, early_ms) in [(4, 60_000), (4, 0), (1, 60_000)] {
        check_late_share(&options, lanes, early_ms);
    }
    check_late_share(&Options { late_share: 0.2, ..options.clone() }, 4, 60_000);
    check_late_share(&Options { start_ms: 1_479_687_777_777, ..options.clone() }, 4, 60_000);
    check_late_share(&Options { span_ms: 24 * 3_600_000, ..options }, 4, 60_000);
}

/// Few requests move the watermark in long steps.
#[test]
fn the_late_share_is_late_with_few_requests() {
    for seed in 0..5 {
        check_late_share(&Options { late_share: 0.1, ..Options::new(2_000, seed) }, 4, 60_000);
    }
}

#[test]
fn a_late_share_changes_when_events_arrive_and_not_what_they_say() {
    let lines = |late_share| {
        let arrivals = all(&Options { late_share, ..Options::new(3_000, 7) });
        let mut lines: Vec<_> = arrivals.iter().map(|arrival| json(&arrival.event)).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(lines(0.0), lines(0.05));
}

#[test]
fn wrong_options_are_refused_with_what_to_do() {
    let good = Options::new(10_000, 7);
    let cases = [
        (Options { span_ms: 0, ..good.clone() }, "is empty"),
        (Options { start_ms: -1, ..good.clone() }, "would leave the years"),
        (Options { start_ms: i64::MAX, ..good.clone() }, "would leave the years"),
        (Options { requests: u64::MAX, ..good.clone() }, "too many"),
        (Options { late_share: -0.1, ..good.clone() }, "is no share"),
        (Options { late_share: f64::NAN, ..good.clone() }, "is no share"),
        (Options { late_share: 0.9, ..good.clone() }, "at most 0."),
        (Options { late_share: 0.1, span_ms: 3_600_000, ..good }, "a longer --span"),
    ];
    for (options, expected) in cases {
        let error = arrivals(&options).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{options:?}: {error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = write_files(&Options::new(1, 1), &file).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("--out"), "{error}");
}
