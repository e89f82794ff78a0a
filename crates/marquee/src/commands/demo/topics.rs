//! Topics on somebody's Kafka, for one demo alone.

use super::Failure;
use crate::config::{Config, LogKind};
use crate::log::kafka_failure;
use crate::wiring::now_ms;
use marquee_sources::kafka::{create_topics, delete_topics};
use std::collections::BTreeMap;

const PARTITIONS: u32 = 4;

/// What the topics and the consumer group of a demo are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) brokers: String,
    /// What all of them begin with.
    pub(super) prefix: String,
}

impl Names {
    fn impressions(&self) -> String {
        format!("{}-impressions", self.prefix)
    }

    fn plays(&self) -> String {
        format!("{}-plays", self.prefix)
    }

    /// Makes a configuration use them.
    pub(super) fn set(&self, config: &mut Config) {
        config.log.kind = LogKind::Kafka;
        config.log.brokers.clone_from(&self.brokers);
        config.log.group = format!("{}-group", self.prefix);
        // The next processor is the same member of the group: it has its lanes back at once, instead of
        // when the broker misses the one that was killed.
        let member = ("group.instance.id".to_owned(), format!("{}-member", self.prefix));
        config.log.properties.0.extend([member]);
        config.impressions.topic = self.impressions();
        config.plays.topic = self.plays();
    }
}

/// Topics that are there as long as this is.
pub(super) struct Topics {
    pub(super) names: Names,
}

impl Topics {
    pub(super) fn create(brokers: &str) -> Result<Topics, Failure> {
        let prefix = format!("marquee-demo-{}", now_ms());
        let topics = Topics { names: Names { brokers: brokers.to_owned(), prefix } };
        let names = topics.both();
        create_topics(brokers, &BTreeMap::new(), &names, PARTITIONS).map_err(kafka_failure)?;
        eprintln!("The log is Kafka at {brokers}, topics {}.", names.join(" and "));
        Ok(topics)
    }

    fn both(&self) -> Vec<String> {
        vec![self.names.impressions(), self.names.plays()]
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let deleted = delete_topics(&self.names.brokers, &BTreeMap::new(), &self.both());
        if let Err(error) = deleted {
            tracing::warn!("the topics of the demo are left behind: {error}");
        }
    }
}
