//! Kafka as the log: consumers that read whole batches, one for each owner thread, in one consumer
//! group; and a producer for what the collector accepts.
//!
//! In the order of the data:
//! - `appender`: writes records, acknowledged by all replicas;
//! - `topics`: creates the topics that `generate` and the demo write to;
//! - `cluster`: what must be true before anything starts: brokers, topics, partitions;
//! - `source`: an owner's share of the topics, from the group's assignment to its commits;
//! - `replay`: the same topics read once more, beside the group;
//! - `reader`: one partition and how far it was read; `ffi`: batches, straight from librdkafka;
//! - `context`: what librdkafka tells us on its own account.
//!
//! **What is Kafka's here.** A lane is a partition; both topics have the same number of them, and
//! the *range* assignor gives an owner the same partitions of both. An offset is committed after
//! the store has synced what came before it, with a *note* for the next owner of the lane (what is
//! in it is the runtime's business).
//!
//! **Memory.** Each partition has a queue of its own with a bound of bytes and of records; one that
//! is full is not fetched any further. So a slow store, or a topic that waits for the other one,
//! holds back its partitions without being paused: a pause would throw away what is queued and
//! fetch it again. Meanwhile a thread of its own (the *keeper*) goes on polling the client, so that
//! the group never takes a slow owner for a dead one.
//!
//! **What it never does.** It commits nothing by itself, resets no offset by itself, and never
//! skips a record in silence: what is not there any more is reported with its offsets.

mod appender;
mod cluster;
mod context;
mod error;
mod ffi;
mod keeper;
mod reader;
mod replay;
mod source;
#[cfg(test)]
mod tests;
mod topics;

pub use appender::KafkaAppender;
pub use cluster::{KafkaCluster, KafkaOptions};
pub use error::KafkaError;
pub use replay::KafkaReplay;
pub use source::KafkaSource;
pub use topics::{create_topics, delete_topics};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use std::collections::BTreeMap;

/// Who connects. librdkafka warns of every property that is another role's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Consumer,
    Producer,
    Administrator,
}

impl Role {
    /// How the names of properties begin that only consumers, or only producers, have.
    const OF_CONSUMERS: [&str; 10] = [
        "auto.",
        "check.crcs",
        "fetch.",
        "group.",
        "heartbeat.",
        "max.partition.fetch",
        "max.poll.",
        "offset.",
        "queued.",
        "session.",
    ];
    const OF_PRODUCERS: [&str; 12] = [
        "acks",
        "batch.",
        "compression.",
        "delivery.",
        "linger.",
        "message.send",
        "message.timeout",
        "partitioner",
        "queue.buffering.",
        "queuing.",
        "request.required",
        "sticky.",
    ];

    fn takes(self, name: &str) -> bool {
        let is_of = |names: &[&str]| names.iter().any(|begin| name.starts_with(begin));
        (self == Role::Consumer || !is_of(&Self::OF_CONSUMERS))
            && (self == Role::Producer || !is_of(&Self::OF_PRODUCERS))
    }
}

/// What consumers, producers and the administrator share: where to connect, and as whom.
fn client(brokers: &str, properties: &BTreeMap<String, String>, role: Role) -> ClientConfig {
    let mut config = ClientConfig::new();
    // Whoever asks librdkafka to tell more (`debug`) wants to hear it.
    let level = match properties.contains_key("debug") {
        true => RDKafkaLogLevel::Debug,
        false => RDKafkaLogLevel::Warning,
    };
    config.set("client.id", "marquee").set_log_level(level);
    // A broker that is away is looked for twice a second, and each try is a line in the log.
    config.set("reconnect.backoff.ms", "500").set("reconnect.backoff.max.ms", "5000");
    for (name, value) in properties.iter().filter(|(name, _)| role.takes(name)) {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    config
}

/// librdkafka refuses a setting when a client is made.
fn settings(error: &rdkafka::error::KafkaError) -> KafkaError {
    let reason = error.to_string();
    let needs_tls = ["OpenSSL", "ssl", "SASL", "sasl"].iter().any(|word| reason.contains(word));
    let remedy = match needs_tls {
        true => {
            "TLS and SCRAM need a marquee that was built with them (cargo build --release \
             --features kafka-ssl, with the headers of OpenSSL); otherwise correct [log] properties"
        }
        false => "Correct [log] properties",
    };
    KafkaError::Settings { reason, remedy }
}
