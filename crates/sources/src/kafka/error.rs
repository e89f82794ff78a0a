//! What can go wrong between this process and Kafka, and what the operator does next.
//!
//! A broker that cannot be reached is no error: it is waited for. What stands here needs a person.

use thiserror::Error;

/// Why Kafka cannot be used as it is. Each text ends with the next step.
#[derive(Debug, Clone, Error)]
pub enum KafkaError {
    /// librdkafka refuses a setting.
    #[error("the Kafka client refuses its settings: {reason}. {remedy}")]
    Settings {
        /// What librdkafka says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No broker answers at the start.
    #[error(
        "no broker answers at {brokers}: {reason}. Start it, or correct [log] brokers (and \
         properties, if it asks for TLS or a password)"
    )]
    Unreachable {
        /// `[log] brokers`.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// A topic does not exist.
    #[error(
        "there is no topic {topic:?} at {brokers}. Create it (with as many partitions as the other \
         one), or correct [{section}] topic; `marquee generate --out kafka` creates both"
    )]
    NoTopic {
        /// Its name.
        topic: String,
        /// `[log] brokers`.
        brokers: String,
        /// `impressions` or `plays`.
        section: &'static str,
    },
    /// Both topics must have the same number of partitions.
    #[error(
        "topic {one:?} has {of_one} partitions and topic {other:?} has {of_other}: a request's \
         events would not meet in one lane. Create one of them anew with as many partitions as the \
         other has, and copy its records by key"
    )]
    UnequalPartitions {
        /// A topic.
        one: String,
        /// Its partitions.
        of_one: usize,
        /// The other topic.
        other: String,
        /// Its partitions.
        of_other: usize,
    },
    /// The number of partitions has changed under us.
    #[error(
        "topic {topic:?} has {found} partitions now and had {expected} when this process started: \
         requests have moved to other partitions. A generation has one number of partitions: start \
         a new one, with another [log] group and [store] path"
    )]
    PartitionsChanged {
        /// Its name.
        topic: String,
        /// Partitions now.
        found: usize,
        /// Partitions at the start.
        expected: usize,
    },
    /// A compacted topic forgets events.
    #[error(
        "topic {topic:?} has cleanup.policy={policy}: compaction keeps one record of each key, and \
         events of a request share their key, so events would be lost. Set \
         cleanup.policy=delete on it"
    )]
    Compacted {
        /// Its name.
        topic: String,
        /// Its setting.
        policy: String,
    },
    /// A topic was deleted and made again.
    #[error(
        "topic {topic:?} was deleted and created again (its id was {was}, now it is {is}): offsets \
         of the old one mean nothing in the new one. Start a new generation, with another [log] \
         group and [store] path"
    )]
    Recreated {
        /// Its name.
        topic: String,
        /// Id at the last commit.
        was: String,
        /// Id now.
        is: String,
    },
    /// The consumer cannot go on.
    #[error(
        "the Kafka consumer of group {group:?} cannot go on: {reason}. If the group is used by \
         another program, give marquee a group of its own ([log] group)"
    )]
    Fatal {
        /// `[log] group`.
        group: String,
        /// What librdkafka says.
        reason: String,
    },
    /// Records could not be written.
    #[error(
        "Kafka did not take {failed} of {all} records: {reason}. Nothing is lost: what was not \
         acknowledged is sent again by whoever sent it. Look at the broker"
    )]
    Refused {
        /// Records that were not acknowledged.
        failed: usize,
        /// Records that were sent.
        all: usize,
        /// The first reason.
        reason: String,
    },
    /// A topic could not be created.
    #[error("topic {topic:?} cannot be created: {reason}. Create it by hand, or allow it")]
    Create {
        /// Its name.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

impl KafkaError {
    /// Whether it is the configuration that is wrong, and not the world.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            KafkaError::Settings { .. }
                | KafkaError::NoTopic { .. }
                | KafkaError::UnequalPartitions { .. }
                | KafkaError::Compacted { .. }
        )
    }
}
