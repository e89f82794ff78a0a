//! Puts one record into a lane, as the decoder does.

use crate::history::{Record, Setup};
use marquee_expr::{Declared, Type, Value};
use marquee_model::Kind;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::lane::Verdict;
use marquee_pipeline::prepare::Stream;
use std::borrow::Cow;

/// The streams of both topics.
pub struct Streams([Stream; 2]);

impl Streams {
    /// Without filter and transform.
    pub fn of(setup: &Setup) -> Self {
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

    /// One record, whose event counts as decoded.
    pub fn feed(&self, lane: &mut LanePipeline, record: &Record) -> Verdict {
        let (request_id, video_id) = (record.request_id(), record.video_id());
        let values = [
            Value::String(Cow::Borrowed(&request_id)),
            Value::String(Cow::Borrowed(&video_id)),
            Value::Int(record.time_ms),
            Value::Int(record.record_ms()),
            Value::Null,
            Value::StringMap(&[]),
            record.c().map_or(Value::Null, |c| Value::String(Cow::Borrowed(c))),
            record.device.map_or(Value::Null, Value::Int),
        ];
        lane.decoded(1);
        lane.event(&self.0[record.topic()], record.topic(), &values)
    }
}
