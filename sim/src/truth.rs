//! What is true of a script, whoever reads it and when: the log's content, what each record is, and
//! which members the oracle proves by which records.

use crate::script::{Form, Rec, Script, Setup, TOPICS};
use marquee_expr::{Declared, Type};
use marquee_model::{CellKey, Kind, Partitioner, lane_of};
use marquee_pipeline::Settings;
use marquee_pipeline::chunk::Id;
use marquee_pipeline::prepare::Stream;
use marquee_pipeline::settings::{EpochOfPlay, Idle, Impressions, Match};
use marquee_runtime::{Plan, StreamPlan};
use marquee_sources::json::{Decoder, Mapping, TimeUnit};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names of the topics.
pub(crate) const TOPIC_NAMES: [&str; TOPICS] = ["impressions", "plays"];

/// One record as the log holds it.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) key: String,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) record_ms: i64,
    /// When it was sent, by a clock that is right.
    pub(crate) at_ms: i64,
    /// Event time, and whether it moves the watermark; `None` for what is no event of this lane.
    pub(crate) event: Option<LoggedEvent>,
    /// What is said of it in words.
    pub(crate) words: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedEvent {
    pub(crate) time_ms: i64,
    request: u8,
    /// What it says to the watermark.
    pub(crate) seen_ms: i64,
    is_filtered: bool,
    is_too_far_ahead: bool,
}

impl LoggedEvent {
    /// Whether the event moves the watermark.
    pub(crate) fn is_observed(&self) -> bool {
        !self.is_too_far_ahead
    }
}

/// One partition: its records, and for each offset what is true of all records before it.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) records: Vec<Logged>,
    before: Vec<Before>,
}

/// What is true of all records before an offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    pub(crate) dead: u64,
    pub(crate) filtered: u64,
    /// The time that enough distinct requests have reached.
    pub(crate) supported_ms: Option<i64>,
    largest: BTreeMap<u8, i64>,
}

impl Partition {
    pub(crate) fn before(&self, offset: u64) -> &Before {
        &self.before[offset as usize]
    }

    fn push(&mut self, record: Logged, support: usize) {
        if self.before.is_empty() {
            self.before.push(Before::default());
        }
        let mut now = self.before.last().expect("it has one").clone();
        match record.event {
            None => now.dead += 1,
            Some(event) if event.is_too_far_ahead => now.dead += 1,
            Some(event) => {
                now.filtered += u64::from(event.is_filtered);
                let largest = now.largest.entry(event.request).or_insert(event.seen_ms);
                *largest = (*largest).max(event.seen_ms);
                let mut sorted: Vec<i64> = now.largest.values().copied().collect();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                now.supported_ms = sorted.get(support - 1).copied();
            }
        }
        self.before.push(now);
        self.records.push(record);
    }
}

/// Topic and offset, in the lane of the request.
pub(crate) type Place = (usize, u64);

/// A member's lane, and every set of records that proves it.
#[derive(Debug, Default)]
pub(crate) struct Proven {
    pub(crate) lane: u32,
    pub(crate) proofs: Vec<Vec<Place>>,
}

/// What the oracle says of one cell: impressions, plays.
pub(crate) type Sets = [BTreeMap<Id, Proven>; 2];

/// What is true of a script.
pub(crate) struct Truth {
    pub(crate) setup: Setup,
    pub(crate) plan: Arc<Plan>,
    /// By lane and topic.
    pub(crate) log: Vec<[Partition; TOPICS]>,
    /// Where each record of the script goes, in the order of the script.
    pub(crate) order: Vec<(u32, usize)>,
    /// When the log takes it.
    pub(crate) at_ms: Vec<i64>,
    pub(crate) cells: BTreeMap<CellKey, Sets>,
}

impl Truth {
    pub(crate) fn of(script: &Script) -> Truth {
        let setup = script.setup.clone();
        let empty = || Partition { records: Vec::new(), before: vec![Before::default()] };
        let mut log: Vec<[Partition; TOPICS]> =
            (0..setup.lanes).map(|_| [empty(), empty()]).collect();
        let (mut order, mut events, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for rec in &script.records {
            let lane = lane(rec, &setup);
            let partition = &mut log[lane as usize][rec.topic];
            let logged = logged(rec, &setup);
            if let Some(event) = &logged.event
                && !event.is_filtered
                && !event.is_too_far_ahead
            {
                events.push(oracle_event(rec));
                places.push((lane, (rec.topic, partition.records.len() as u64)));
            }
            order.push((lane, rec.topic));
            partition.push(logged, setup.support);
        }
        let cells = cells(&events, &places, &setup);
        let plan = Arc::new(plan(&setup));
        let at_ms = script.records.iter().map(|rec| rec.at_ms).collect();
        Truth { setup, plan, log, order, at_ms, cells }
    }

    /// The first epoch that is open at a watermark: "the group of epoch e goes when
    /// `W > end(e) + within + early`".
    pub(crate) fn first_open(&self, watermark_ms: i64) -> i64 {
        let setup = &self.setup;
        let length_ms = setup.epochs_ms[0];
        let is_gone =
            |e: i64| watermark_ms > (e + 1) * length_ms + setup.within_ms + setup.early_ms;
        let mut epoch = (watermark_ms / length_ms - 60).max(0);
        while is_gone(epoch) {
            epoch += 1;
        }
        epoch
    }

    /// The oldest epoch that an event could need.
    pub(crate) fn oldest_needed(&self, topic: usize, time_ms: i64) -> i64 {
        let back_ms = [self.setup.early_ms, self.setup.within_ms][topic];
        (time_ms - back_ms).max(0).div_euclid(self.setup.epochs_ms[0])
    }
}

fn request_id(request: u8) -> String {
    match request % 2 {
        0 => format!("00000000-0000-4000-8000-0000000000{request:02x}"),
        _ => format!("r{request}"),
    }
}

fn country(country: u8) -> Option<String> {
    (country > 0).then(|| format!("c{country}"))
}

/// The lane in which a record stands.
fn lane(rec: &Rec, setup: &Setup) -> u32 {
    let own = lane_of(Partitioner::Murmur2, request_id(rec.request).as_bytes(), setup.lanes);
    match rec.form {
        Form::Misplaced if setup.lanes > 1 => (own + 1) % setup.lanes,
        _ => own,
    }
}

fn logged(rec: &Rec, setup: &Setup) -> Logged {
    let (request_id, video, time_ms) = (request_id(rec.request), rec.video, rec.time_ms);
    let mut json = format!(r#"{{"request_id":"{request_id}","video_id":"v{video}","ts":{time_ms}"#);
    if let Some(country) = country(rec.country) {
        json.push_str(&format!(r#","c":"{country}""#));
    }
    json.push('}');
    let event = LoggedEvent {
        time_ms,
        request: rec.request,
        seen_ms: time_ms.min(rec.record_ms),
        is_filtered: setup.filter && rec.topic == 0 && rec.country == 1,
        is_too_far_ahead: time_ms - rec.record_ms > setup.max_ahead_ms,
    };
    let is_well = rec.form == Form::Good || (rec.form == Form::Misplaced && setup.lanes < 2);
    let kind = ["impression", "play"][rec.topic];
    let country = country(rec.country).map_or(String::new(), |c| format!(", country {c}"));
    let form = match rec.form {
        Form::Good => String::new(),
        form => format!(" ({form:?})"),
    };
    let words = format!(
        "{kind} of r{} v{video} at {time_ms}, record time {}{country}{form}",
        rec.request, rec.record_ms
    );
    let payload = match rec.form {
        Form::Tombstone => None,
        Form::Broken => Some(b"{\"request_id\":".to_vec()),
        Form::Good | Form::Misplaced => Some(json.into_bytes()),
    };
    let event = is_well.then_some(event);
    Logged { key: request_id, payload, record_ms: rec.record_ms, at_ms: rec.at_ms, event, words }
}

fn oracle_event(rec: &Rec) -> marquee_oracle::Event {
    let country = country(rec.country).map(|c| ("c".to_owned(), format!("\"{c}\"")));
    marquee_oracle::Event {
        kind: [marquee_oracle::Kind::Impression, marquee_oracle::Kind::Play][rec.topic],
        request_id: request_id(rec.request),
        video: format!("v{}", rec.video),
        time_ms: rec.time_ms,
        attributes: country.into_iter().collect(),
    }
}

fn slices(setup: &Setup) -> Vec<Vec<String>> {
    let mut slices = vec![vec![]];
    if setup.slices {
        slices.push(vec!["c".to_owned()]);
    }
    slices
}

fn cells(
    events: &[marquee_oracle::Event],
    places: &[(u32, Place)],
    setup: &Setup,
) -> BTreeMap<CellKey, Sets> {
    let settings = marquee_oracle::Settings {
        match_video: !setup.by_request,
        impressions_joined: setup.joined,
        epoch_of_play_is_play: setup.by_play,
        within_ms: setup.within_ms,
        early_ms: setup.early_ms,
        epochs_ms: setup.epochs_ms.clone(),
        slices: slices(setup),
    };
    let mut cells: BTreeMap<CellKey, Sets> = BTreeMap::new();
    for (member, proofs) in marquee_oracle::proofs(events, &settings) {
        let marquee_oracle::Member { cell, side, request_id } = member;
        let key = CellKey {
            video: cell.video,
            epoch_start_ms: cell.epoch_start_ms,
            slice: cell.slice,
            epoch_ms: cell.epoch_ms,
        };
        let lane = places[proofs[0][0]].0;
        let place = |proof: Vec<usize>| proof.into_iter().map(|event| places[event].1).collect();
        let proven = Proven { lane, proofs: proofs.into_iter().map(place).collect() };
        let side = usize::from(side == marquee_oracle::Side::Plays);
        cells.entry(key).or_default()[side].insert(Id::of(&request_id), proven);
    }
    cells
}

/// The settings, compiled.
fn plan(setup: &Setup) -> Plan {
    let declared = [Declared { name: "c".to_owned(), ty: Type::String, optional: true }];
    let stream = |kind: Kind, topic: &str, filter: &str, counts_by_slice: bool| {
        let path = |name: &str| vec![name.to_owned()];
        let attributes = declared.iter().map(|declared| (declared.clone(), path("c"))).collect();
        let mapping = Mapping {
            record_filter: None,
            explode: None,
            request_id: path("request_id"),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Milliseconds,
            attributes,
        };
        let stream = Stream::new(kind, &declared, filter, "", &slices(setup), counts_by_slice)
            .expect("the settings are right");
        StreamPlan { decoder: Decoder::new(mapping), stream, topic: topic.to_owned() }
    };
    let filter = if setup.filter { "c != \"c1\"" } else { "" };
    Plan {
        impressions: stream(Kind::Impression, TOPIC_NAMES[0], filter, true),
        plays: stream(Kind::Play, TOPIC_NAMES[1], "", setup.by_play),
        settings: Settings {
            match_: if setup.by_request { Match::Request } else { Match::RequestAndVideo },
            impressions: if setup.joined { Impressions::Joined } else { Impressions::All },
            epoch_of_play: match setup.by_play {
                true => EpochOfPlay::Play,
                false => EpochOfPlay::Impression,
            },
            within_ms: setup.within_ms,
            early_ms: setup.early_ms,
            lateness_ms: setup.lateness_ms,
            idle: setup.idle_ms.map_or(Idle::Hold, Idle::After),
            watermark_support: setup.support,
            max_facts: setup.max_facts,
            epochs_ms: setup.epochs_ms.clone(),
            groupings: slices(setup).len(),
        },
        max_ahead_ms: setup.max_ahead_ms,
        lanes: setup.lanes,
        uses_keys: false,
        partitioner: Partitioner::Murmur2,
        fingerprint: serde_json::json!({ "simulation": 1 }),
    }
}
