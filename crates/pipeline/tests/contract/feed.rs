//! Puts one record into a lane, as the decoder does.

use crate::history::{Record, Setup};
use marquee_expr::{Declared, Type, Value};
use marquee_model::Kind;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::lane::Verdict;
use marquee_pipeline::prepare::Stream;
use std::borrow::Cow;

/// The streams of both topics.
pub(crate) struct Streams([Stream; 2]);

impl Streams {
    /// Without filter and transform.
    pub(crate) fn of(setup: &Setup) -> Self {
        let declared = [("c", Type::String), ("d", Type::Int)].map(|(name, ty)| Declared {
            name: name.to_owned(),
            ty,
            optional: true,
        });
        let stream = |kind, counts_by_slice| {
            Stream::new(kind, &declared, "", "", &setup.slices(), counts_by_slice).unwrap()
        };
        let plays_by_slice = setup.epoch_of_play_is_play;
        Streams([stream(Kind::Impression, true), stream(Kind::Play, plays_by_slice)])
    }

    /// One record of a history.
    pub(crate) fn feed(&self, lane: &mut LanePipeline, record: &Record) -> Verdict {
        let (request_id, video_id) = (&record.request_id(), &record.video_id());
        let Record { kind, time_ms, device, .. } = *record;
        let record_ms = record.record_ms();
        let country = record.c();
        self.put(lane, &Decoded { kind, request_id, video_id, time_ms, record_ms, country, device })
    }

    /// One event, which counts as decoded.
    pub(crate) fn put(&self, lane: &mut LanePipeline, event: &Decoded<'_>) -> Verdict {
        let text = |text| Value::String(Cow::Borrowed(text));
        let values = [
            text(event.request_id),
            text(event.video_id),
            Value::Int(event.time_ms),
            Value::Int(event.record_ms),
            Value::Null,
            Value::StringMap(&[]),
            event.country.map_or(Value::Null, text),
            event.device.map_or(Value::Null, Value::Int),
        ];
        let topic = usize::from(event.kind == Kind::Play);
        lane.decoded(1);
        lane.event(&self.0[topic], topic, &values)
    }
}

/// One event and the time of its record.
pub(crate) struct Decoded<'a> {
    pub(crate) kind: Kind,
    pub(crate) request_id: &'a str,
    pub(crate) video_id: &'a str,
    pub(crate) time_ms: i64,
    pub(crate) record_ms: i64,
    /// Attribute `c`.
    pub(crate) country: Option<&'a str>,
    /// Attribute `d`.
    pub(crate) device: Option<i64>,
}
