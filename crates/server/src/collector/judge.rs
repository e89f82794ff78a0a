//! Decides on one item: the records to write, or why it is rejected.
//!
//! An item is judged as the pipeline will judge its records, with the same decoder and the same
//! expressions: what would end as a dead letter there is rejected here, where its sender still
//! listens. What a filter refuses is accepted, though it counts nowhere.

use super::clients::{Added, Client, Full};
use super::signed::{Codes, Signed};
use super::split;
use crate::app::App;
use crate::mapping;
use crate::tiles::Refusal;
use marquee_expr::Value;
use marquee_model::{Kind, lane_of};
use marquee_pipeline::prepare::{DeadReason, KEY, Prepared, REQUEST_ID, TIME, VIDEO};
use marquee_runtime::StreamPlan;
use marquee_sources::embedded::MAX_RECORD_BYTES;
use marquee_sources::json::{Mapping, RecordMeta, Values};
use serde::de::IgnoredAny;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bytes of cut items that one body may lead to: cutting repeats what their elements share.
const SPLIT_BYTES: usize = 16 << 20;

/// One record to write.
#[derive(Debug)]
pub(super) struct Record<'b> {
    /// The request id of its first event.
    pub(super) key: String,
    pub(super) lane: u32,
    /// The item's own bytes, unless it had to be cut.
    pub(super) payload: Cow<'b, [u8]>,
}

/// Who sends, and what is asked of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sender {
    /// `None`: nobody knows.
    pub(super) client: Option<Client>,
    /// It has shown the token of servers: it is neither limited nor asked for codes.
    pub(super) is_server: bool,
}

/// Events that were looked at, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// With the code of their tile, and without any.
    pub(crate) signed: u64,
    pub(crate) unsigned: u64,
    /// Refused: by [`Refused`].
    pub(crate) refused: [u64; 4],
}

impl Tally {
    /// All of them.
    pub(super) fn events(&self) -> u64 {
        self.signed + self.unsigned + self.refused.iter().sum::<u64>()
    }
}

/// Why an event that can be read is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Forged,
    Expired,
    Unsigned,
    Capped,
}

impl Refused {
    /// All of them, in the order of [`Tally::refused`], as metrics call them.
    pub(crate) const NAMES: [&'static str; 4] = ["forged", "expired", "unsigned", "capped"];

    fn words(self) -> &'static str {
        match self {
            Refused::Forged => "code: it is not the code of this request, video, row and position",
            Refused::Expired => {
                "code: the tile was not on a page at the time of the event, which is too late for it or \
                 before it was served"
            }
            Refused::Unsigned => {
                "code: there is none, and this collector takes only what /v1/rank has served \
                 ([collector] require_signed)"
            }
            Refused::Capped => {
                "this client has sent as many events for this video as it may within an hour \
                 ([collector] client_video_events)"
            }
        }
    }
}

/// What is found out where it is asked whether a sender may send what it sends.
struct Asked {
    tally: Tally,
    added: Vec<Added>,
}

/// What is wrong with an event.
enum Fault {
    Dead(DeadReason),
    Refused(Refused),
}

/// Judges the items of one body.
pub(super) struct Judge<'a> {
    app: &'a App,
    kind: Kind,
    stream: &'a StreamPlan,
    mapping: &'a Mapping,
    /// The stream of the other kind, if it reads the same topic.
    other: Option<&'a StreamPlan>,
    now_ms: i64,
    sender: Sender,
    pub(super) tally: Tally,
    /// What the items that were accepted have taken of what their client may add.
    pub(super) added: Vec<Added>,
    /// What is left of [`SPLIT_BYTES`].
    split_bytes: usize,
}

/// What the events of an item say of where it belongs.
#[derive(Debug, Default)]
struct Events {
    /// The lane of each event, in their order.
    lanes: Vec<u32>,
    /// For each lane the first request id there.
    keys: BTreeMap<u32, String>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(app: &'a App, kind: Kind, sender: Sender, now_ms: i64) -> Self {
        let other = match kind {
            Kind::Impression => Kind::Play,
            Kind::Play => Kind::Impression,
        };
        let (stream, other) = (app.plan.stream(kind), app.plan.stream(other));
        Judge {
            app,
            kind,
            stream,
            mapping: stream.decoder.mapping(),
            other: (stream.topic == other.topic).then_some(other),
            now_ms,
            sender,
            tally: Tally::default(),
            added: Vec::new(),
            split_bytes: SPLIT_BYTES,
        }
    }

    /// Adds the item's records, or says why there are none.
    pub(super) fn judge<'b>(
        &mut self,
        item: &'b [u8],
        records: &mut Vec<Record<'b>>,
    ) -> Result<(), String> {
        let mut asked = Asked { tally: self.tally, added: Vec::new() };
        let events = self.events(item, Some(&mut asked));
        self.tally = asked.tally;
        let records = events.and_then(|events| self.records(item, events, records));
        match records {
            Ok(()) => self.added.extend(asked.added),
            // Nothing is written of it, so it may be sent again, without what was wrong.
            Err(_) => self.app.clients.give_back(&asked.added),
        }
        records
    }

    /// Adds the records of an item whose events are all good.
    fn records<'b>(
        &mut self,
        item: &'b [u8],
        events: Events,
        records: &mut Vec<Record<'b>>,
    ) -> Result<(), String> {
        let mut keys = events.keys.into_iter();
        if let (Some((lane, key)), None) = (keys.next(), keys.next()) {
            let record = Record { key, lane, payload: Cow::Borrowed(item) };
            self.check(&record)?;
            records.push(record);
            return Ok(());
        }
        let path = self.mapping.explode.as_deref().unwrap_or_default();
        let parts = split::split(item, path, &events.lanes, &mut self.split_bytes)?;
        let cut = parts.into_iter().map(|(lane, bytes)| self.part(lane, bytes));
        // Nothing is written of an item if one of its records cannot be.
        records.extend(cut.collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }

    /// A record cut from an item. It is judged again: `where` may look at the list that was cut.
    fn part(&self, lane: u32, bytes: Vec<u8>) -> Result<Record<'static>, String> {
        let cut = |reason| format!("cut into the lanes of its elements it would be bad: {reason}");
        let mut events = self.events(&bytes, None).map_err(cut)?;
        let Some((found, key)) = events.keys.pop_first() else { return Err(cut(String::new())) };
        if found != lane || !events.keys.is_empty() {
            return Err(cut("its elements change their request ids".to_owned()));
        }
        let record = Record { key, lane, payload: Cow::Owned(bytes) };
        self.check(&record)?;
        Ok(record)
    }

    /// The lanes and keys of an item whose events are all good. Where it is asked it is also looked at
    /// whether its sender may send them.
    fn events(&self, item: &[u8], asked: Option<&mut Asked>) -> Result<Events, String> {
        if item.first() != Some(&b'{')
            && let Some(kind) = kind_of_json(item)
        {
            return Err(format!("the item is {kind}, not a JSON object"));
        }
        let (mut events, mut count, mut fault) = (Events::default(), 0, None);
        let list = self.mapping.explode.as_deref().unwrap_or_default();
        let mut codes = asked.map(|asked| (Codes::new(item, list), asked));
        let meta = RecordMeta { record_time_ms: Some(self.now_ms), ..RecordMeta::default() };
        self.stream.decoder.decode(item, &meta, |event| {
            let judged = event.map_err(Fault::Dead).and_then(|values| {
                let video = self.event(values, &mut events).map_err(Fault::Dead)?;
                match &mut codes {
                    Some((codes, asked)) => self.permit(values, &video, codes, asked, count),
                    None => Ok(()),
                }
            });
            if fault.is_none()
                && let Err(reason) = judged
            {
                fault = Some((count, reason));
            }
            count += 1;
        });
        match fault {
            Some((place, reason)) => Err(self.reason(item, place, &reason)),
            None if count == 0 => Err(self.no_events(item)),
            None => Ok(events),
        }
    }

    /// Whether the sender may send an event that can be read. `counted` is the video that it counts under.
    fn permit(
        &self,
        values: &Values<'_>,
        counted: &str,
        codes: &mut Codes<'_>,
        asked: &mut Asked,
        element: usize,
    ) -> Result<(), Fault> {
        let tally = &mut asked.tally;
        let (Value::String(request_id), Value::String(video), Value::Int(time_ms)) =
            (&values[REQUEST_ID], &values[VIDEO], &values[TIME])
        else {
            unreachable!("the decoder gives a request id, a video and a time, or a dead letter");
        };
        let is_asked = self.app.require_signed && !self.sender.is_server;
        let refused = match codes.check(self.app, (request_id, video, *time_ms), element) {
            Signed::Bad(Refusal::Forged) => Some(Refused::Forged),
            Signed::Bad(Refusal::Expired) => Some(Refused::Expired),
            Signed::Unsigned if is_asked => Some(Refused::Unsigned),
            signed => match self.add(counted) {
                Err(Full) => Some(Refused::Capped),
                Ok(added) => {
                    asked.added.extend(added);
                    match signed {
                        Signed::Good => tally.signed += 1,
                        _ => tally.unsigned += 1,
                    }
                    None
                }
            },
        };
        let Some(refused) = refused else { return Ok(()) };
        tally.refused[refused as usize] += 1;
        Err(Fault::Refused(refused))
    }

    fn add(&self, video: &str) -> Result<Option<Added>, Full> {
        match self.sender.is_server {
            true => Ok(None),
            false => self.app.clients.add(self.sender.client, self.kind, video, self.now_ms),
        }
    }

    /// The video that an event counts under; its own, where a filter leaves it out.
    fn event<'v>(
        &self,
        values: &'v Values<'_>,
        events: &mut Events,
    ) -> Result<Cow<'v, str>, DeadReason> {
        let (Value::String(request_id), Value::Int(time_ms)) = (&values[REQUEST_ID], &values[TIME])
        else {
            unreachable!("the decoder gives a request id and a time, or a dead letter");
        };
        let ahead_ms = time_ms - self.now_ms;
        let max_ahead_ms = self.app.plan.max_ahead_ms;
        if ahead_ms > max_ahead_ms {
            return Err(DeadReason::TooFarAhead { ahead_ms, max_ahead_ms });
        }
        let plan = &self.app.plan;
        let lane = lane_of(plan.partitioner, request_id.as_bytes(), plan.lanes);
        events.lanes.push(lane);
        let key = events.keys.entry(lane).or_insert_with(|| request_id.to_string());
        // Expressions may look at the key that the record will have.
        let mut keyed = Values::new();
        values.iter().for_each(|value| keyed.push(value.clone()));
        keyed[KEY] = Value::String(Cow::Borrowed(key));
        match self.stream.stream.prepare(&keyed) {
            Prepared::Dead(reason) => Err(reason),
            Prepared::Filtered => Ok(Cow::Borrowed(match &values[VIDEO] {
                Value::String(video) => video,
                _ => "",
            })),
            Prepared::Video(video) => match &values[VIDEO] {
                Value::String(own) if *own == video => Ok(Cow::Borrowed(own)),
                _ => Ok(Cow::Owned(video.into_owned())),
            },
        }
    }

    /// What a whole record has to keep besides: the log's limit, and, where both kinds share a
    /// topic, that the other kind finds no request of another lane in it.
    fn check(&self, record: &Record<'_>) -> Result<(), String> {
        let bytes = record.key.len() + record.payload.len();
        if bytes > MAX_RECORD_BYTES {
            return Err(format!(
                "the record has {bytes} bytes with its key; at most {MAX_RECORD_BYTES} are allowed"
            ));
        }
        let Some(other) = self.other else { return Ok(()) };
        let (mut is_astray, mut is_both, plan) = (false, false, &self.app.plan);
        let meta = RecordMeta { record_time_ms: Some(self.now_ms), ..RecordMeta::default() };
        other.decoder.decode(&record.payload, &meta, |event| {
            if let Ok(values) = event
                && let Value::String(id) = &values[REQUEST_ID]
            {
                is_both = true;
                is_astray |= lane_of(plan.partitioner, id.as_bytes(), plan.lanes) != record.lane;
            }
        });
        // What it would count as besides has been asked for nothing.
        let is_bounded = self.app.require_signed || self.app.clients.limits().video_events > 0;
        match (is_astray, is_both && is_bounded && !self.sender.is_server) {
            (false, false) => Ok(()),
            (false, true) => Err(format!(
                "both kinds share a topic, and the record is also one of [{}], which nobody has allowed; let \
                 `where` tell them apart",
                other.stream.kind().plural()
            )),
            (true, _) => Err(format!(
                "both kinds share a topic, and the record is also one of [{}] with a request id \
                 of another lane; let `where` tell them apart",
                other.stream.kind().plural()
            )),
        }
    }

    /// The reason, with the element that it is about.
    #[cold]
    fn reason(&self, item: &[u8], place: usize, fault: &Fault) -> String {
        let (is_where, reason) = match fault {
            Fault::Dead(reason) => {
                (matches!(reason, DeadReason::Expression { what: "where", .. }), reason.to_string())
            }
            Fault::Refused(refused) => (false, refused.words().to_owned()),
        };
        match self.elements(item) {
            Some(_) if !is_where => format!("element {place}: {reason}"),
            _ => reason,
        }
    }

    #[cold]
    fn no_events(&self, item: &[u8]) -> String {
        let path = self.mapping.explode.as_deref().unwrap_or_default().join(".");
        let is_empty = self.elements(item) == Some(0);
        match (is_empty, mapping::where_source(self.mapping)) {
            (true, _) => format!("explode: the list at {path:?} is empty, so there is no event"),
            (false, source) => format!(
                "[{}] where `{source}` is not true for it: it is of another kind",
                self.kind.plural()
            ),
        }
    }

    /// How many elements the exploded list of an item has, if it has that list.
    fn elements(&self, item: &[u8]) -> Option<usize> {
        let path = self.mapping.explode.as_deref()?;
        let record: Json = serde_json::from_slice(item).ok()?;
        Some(mapping::lookup(&record, path)?.as_array()?.len())
    }
}

/// How messages call a JSON value that is no object; `None` for what is no JSON at all.
fn kind_of_json(item: &[u8]) -> Option<&'static str> {
    serde_json::from_slice::<IgnoredAny>(item).ok()?;
    Some(match item.first()? {
        b'[' => "a list",
        b'"' => "a text",
        b'n' => "null",
        b't' | b'f' => "a boolean",
        _ => "a number",
    })
}
