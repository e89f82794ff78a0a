//! A checked configuration, compiled: what every driver of the pipeline needs.

use marquee_model::{Kind, Partitioner};
use marquee_pipeline::Settings;
use marquee_pipeline::prepare::Stream;
use marquee_sources::Record;
use marquee_sources::json::{Decoder, RecordMeta};

/// How one stream is read and prepared.
#[derive(Clone)]
pub struct StreamPlan {
    /// Reads its records.
    pub decoder: Decoder,
    /// Filters and transforms its events.
    pub stream: Stream,
    /// Name of its topic.
    pub topic: String,
}

/// What is counted, and how.
#[derive(Clone)]
pub struct Plan {
    /// The stream of impressions.
    pub impressions: StreamPlan,
    /// The stream of plays.
    pub plays: StreamPlan,
    /// The join and the aggregation.
    pub settings: Settings,
    /// Events more than this ahead of their record time are dead letters.
    pub max_ahead_ms: i64,
    /// Number of lanes.
    pub lanes: u32,
    /// Whether an expression or a path looks at the keys of records.
    pub uses_keys: bool,
    /// Which lane a request belongs to.
    pub partitioner: Partitioner,
    /// Everything that decides what is counted, as JSON: the generation's fingerprint.
    pub fingerprint: serde_json::Value,
}

impl Plan {
    /// The stream of a kind.
    pub fn stream(&self, kind: Kind) -> &StreamPlan {
        match kind {
            Kind::Impression => &self.impressions,
            Kind::Play => &self.plays,
        }
    }

    /// The topics that are read, in the order of their indices: one if both kinds share it.
    pub fn topics(&self) -> Vec<String> {
        let mut topics = vec![self.impressions.topic.clone(), self.plays.topic.clone()];
        topics.dedup();
        topics
    }

    /// What the log knows about a record of a lane.
    pub(crate) fn meta_of<'r>(&self, lane: u32, record: &Record<'r>) -> RecordMeta<'r> {
        RecordMeta {
            record_time_ms: record.record_time_ms,
            key: record.key.filter(|_| self.uses_keys),
            headers: record.headers,
            partition: Some(lane),
            offset: Some(record.offset),
        }
    }

    /// The streams that a topic feeds.
    pub fn streams_of(&self, topic: &str) -> Vec<&StreamPlan> {
        [&self.impressions, &self.plays].into_iter().filter(|s| s.topic == topic).collect()
    }
}
