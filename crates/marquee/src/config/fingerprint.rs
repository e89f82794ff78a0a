//! What of a configuration decides counts: the settings that a generation is known by.

use super::defaults::names::{self, name_of};
use super::value::format_path;
use super::{Attribute, Config, LogKind, Stream};
use serde_json::{Value, json};

impl Config {
    /// Everything that decides which members a cell has, as JSON with sorted keys: two
    /// configurations with the same settings count the same from the same log, and a process whose
    /// settings differ from those of a stored generation must not write into it.
    ///
    /// Defaults are written out, so that a later version with another default differs. The order of
    /// slices, epochs and attributes does not matter, nor do blanks around an expression; an
    /// expression that is spelt otherwise is another one, even if it means the same.
    ///
    /// Not in it, on purpose:
    /// - `lateness`, `idle_grace`, `idle` and `watermark_support` decide when state goes, and so
    ///   which events are *late*. The members emitted and those that the late output would add are
    ///   together the same sets under any value (semantics, contract 2), so an operator may change
    ///   them at any time.
    /// - where data is and how fast it moves: folders, brokers, group, properties, retention,
    ///   `members`, `[snapshots]`, `[repair]`, `[runtime]`, `[http]`, `[collector]`.
    ///
    /// `lanes` is `null` for Kafka: there it is the number of partitions, which the caller learns
    /// from the brokers and has to add.
    pub fn fingerprint_settings(&self) -> Value {
        let lanes = match self.log.kind {
            LogKind::Embedded => json!(self.log.lanes),
            LogKind::Kafka => Value::Null,
        };
        let mut slices = self.transform.slices.clone();
        slices.sort();
        let mut epochs_ms = self.aggregate.epochs_ms.clone();
        epochs_ms.sort();
        let join = &self.join;
        let mut settings = json!({
            "lanes": lanes,
            "partitioner": name_of(names::PARTITIONER, &self.log.partitioner_in_force()),
            "impressions": stream_settings(&self.impressions),
            "plays": stream_settings(&self.plays),
            "join": {
                "match": name_of(names::MATCH, &join.match_),
                "impressions": name_of(names::IMPRESSIONS, &join.impressions),
                "epoch_of_play": name_of(names::EPOCH_OF_PLAY, &join.epoch_of_play),
                "within_ms": join.within_ms,
                "early_ms": join.early_ms,
                "max_ahead_ms": join.max_ahead_ms,
                "max_facts": join.max_facts,
            },
            "transform": { "video": self.transform.video.source, "slices": slices },
            "aggregate": { "epochs_ms": epochs_ms },
        });
        if self.log.kind == LogKind::Kafka {
            // Offsets of one kind of log mean nothing in the other.
            settings["log"] = json!("kafka");
        }
        settings.sort_all_objects();
        settings
    }
}

fn stream_settings(stream: &Stream) -> Value {
    let attributes: serde_json::Map<String, Value> = stream
        .attributes
        .iter()
        .map(|attribute| (attribute.name.clone(), attribute_settings(attribute)))
        .collect();
    json!({
        "topic": stream.topic,
        "where": stream.where_.source,
        "explode": stream.explode.as_deref().map(format_path),
        "request_id": format_path(&stream.request_id),
        "video": format_path(&stream.video),
        "time": format_path(&stream.time),
        "time_unit": name_of(names::TIME_UNIT, &stream.time_unit),
        "attributes": attributes,
        "filter": stream.filter.source,
    })
}

fn attribute_settings(attribute: &Attribute) -> Value {
    json!({
        "path": format_path(&attribute.path),
        "type": attribute.ty.name(),
        "optional": attribute.optional,
    })
}
