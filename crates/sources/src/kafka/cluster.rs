//! What must be true before anything starts: the brokers answer, both topics exist, have the same
//! number of partitions, and forget nothing by key.

use super::context::Context;
use super::ffi;
use super::{KafkaError, Role, client, settings};
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

/// How long a broker may take to answer one question at the start.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for questions without whose answers it goes on. (The mock cluster of the tests knows no
/// answer to them.)
const PATIENCE_IF_IT_MAY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long it may take before we look at what the client has to say.
const SHORT: Duration = Duration::from_secs(2);

/// Which Kafka, which topics, and how much memory.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// Settings passed to the client; they go before ours, except where a wrong one loses data.
    pub properties: BTreeMap<String, String>,
    /// The topics by their indices, each with the section of the configuration that names it.
    pub topics: Vec<(String, &'static str)>,
    /// Whether anybody looks at headers.
    pub with_headers: bool,
    /// Bytes of records fetched ahead, over all partitions.
    pub fetch_memory_bytes: u64,
}

/// A Kafka whose topics were looked at and found good.
#[derive(Debug, Clone)]
pub struct KafkaCluster {
    options: KafkaOptions,
    lanes: u32,
    topic_ids: Vec<Option<String>>,
}

impl KafkaCluster {
    /// Connects, and looks at the topics.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn connect(options: KafkaOptions) -> Result<KafkaCluster, KafkaError> {
        let (context, _events) = Context::new();
        let consumer: BaseConsumer<Context> =
            client(&options.brokers, &options.properties, Role::Consumer)
                .create_with_context(context)
                .map_err(|error| settings(&error))?;
        wait_for_brokers(&consumer, &options)?;
        let counts = options
            .topics
            .iter()
            .map(|(topic, section)| {
                partitions(&consumer, &options.brokers, topic, section, PATIENCE)
            })
            .collect::<Result<Vec<_>, _>>()?;
        for ((topic, _), count) in options.topics.iter().zip(&counts) {
            if *count != counts[0] {
                return Err(KafkaError::UnequalPartitions {
                    one: options.topics[0].0.clone(),
                    of_one: counts[0],
                    other: topic.clone(),
                    of_other: *count,
                });
            }
        }
        refuse_compacted(&options)?;
        let topic_ids = ffi::topic_ids(&consumer, &names(&options), PATIENCE_IF_IT_MAY);
        let topic_ids = topic_ids.unwrap_or_else(|error| {
            tracing::warn!("the ids of topics cannot be read: {error}");
            vec![None; options.topics.len()]
        });
        if topic_ids.iter().all(Option::is_none) {
            tracing::warn!(
                "topics have no ids here (brokers before 2.8 give none): one that is deleted and \
                 created again is only noticed by its offsets"
            );
        }
        Ok(KafkaCluster { lanes: counts[0] as u32, topic_ids, options })
    }

    /// Number of partitions of each topic.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// The ids of the topics, empty where the broker is too old to have any. They tell a topic
    /// from another of the same name that was made after it.
    pub fn topic_ids(&self) -> Vec<String> {
        self.topic_ids.iter().map(|id| id.clone().unwrap_or_default()).collect()
    }

    /// The same, for readers that are given the headers of records.
    #[must_use]
    pub fn with_headers(mut self) -> KafkaCluster {
        self.options.with_headers = true;
        self
    }

    /// How it was reached.
    pub fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// Whether the topics are still those that were found at the start; the first one that is not
    /// there now, but may come back. What no broker answers to is not judged.
    pub(super) fn check(
        &self,
        consumer: &BaseConsumer<Context>,
        timeout: Duration,
    ) -> Result<Option<String>, KafkaError> {
        let knows_ids = self.topic_ids.iter().any(Option::is_some);
        let ids = match knows_ids {
            true => ffi::topic_ids(consumer, &names(&self.options), timeout),
            false => Ok(self.topic_ids.clone()),
        };
        let Ok(ids) = ids else { return Ok(None) };
        for (place, (topic, _)) in self.options.topics.iter().enumerate() {
            let (Some(was), Some(is)) = (&self.topic_ids[place], &ids[place]) else { continue };
            if was != is {
                let (topic, was, is) = (topic.clone(), was.clone(), is.clone());
                return Err(KafkaError::Recreated { topic, was, is });
            }
        }
        let mut gone = None;
        for (topic, section) in &self.options.topics {
            let found = match partitions(consumer, &self.options.brokers, topic, section, timeout) {
                Ok(found) => found,
                Err(KafkaError::NoTopic { topic, .. }) => {
                    gone.get_or_insert(topic);
                    continue;
                }
                Err(_) => continue,
            };
            if found != self.lanes as usize {
                let (topic, expected) = (topic.clone(), self.lanes as usize);
                return Err(KafkaError::PartitionsChanged { topic, found, expected });
            }
        }
        Ok(gone)
    }
}

fn names(options: &KafkaOptions) -> Vec<CString> {
    let name = |(topic, _): &(String, _)| CString::new(topic.as_str()).expect("topics are checked");
    options.topics.iter().map(name).collect()
}

/// Waits until a broker answers, or as long as one may take. A question does not let the client say
/// what it meets meanwhile (a port that refuses, a wrong name, a wrong password), and whoever has
/// started the program should read it before the patience is at its end.
fn wait_for_brokers(
    consumer: &BaseConsumer<Context>,
    options: &KafkaOptions,
) -> Result<(), KafkaError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&options.topics[0].0), SHORT) else {
            return Ok(());
        };
        // Nothing is subscribed: all that can come is what the client has to say.
        let _ = consumer.poll(Duration::ZERO);
        if Instant::now() >= until {
            let (brokers, reason) = (options.brokers.clone(), error.to_string());
            return Err(KafkaError::Unreachable { brokers, reason });
        }
    }
}

fn partitions(
    consumer: &BaseConsumer<Context>,
    brokers: &str,
    topic: &str,
    section: &'static str,
    timeout: Duration,
) -> Result<usize, KafkaError> {
    let unreachable = |reason: String| KafkaError::Unreachable { brokers: brokers.into(), reason };
    let metadata =
        consumer.fetch_metadata(Some(topic), timeout).map_err(|e| unreachable(e.to_string()))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let count = found.map_or(0, |found| found.partitions().len());
    if count == 0 {
        let (topic, brokers) = (topic.to_owned(), brokers.to_owned());
        return Err(KafkaError::NoTopic { topic, brokers, section });
    }
    Ok(count)
}

/// A compacted topic keeps one record a key, and a request's events share their key.
fn refuse_compacted(options: &KafkaOptions) -> Result<(), KafkaError> {
    let admin: AdminClient<DefaultClientContext> =
        client(&options.brokers, &options.properties, Role::Administrator)
            .create()
            .map_err(|error| settings(&error))?;
    let asked: Vec<ResourceSpecifier<'_>> =
        options.topics.iter().map(|(topic, _)| ResourceSpecifier::Topic(topic)).collect();
    let request = AdminOptions::new().request_timeout(Some(PATIENCE_IF_IT_MAY));
    let answer = block_on(admin.describe_configs(&asked, &request));
    let unknown = |reason: String| {
        tracing::warn!(
            "the settings of topics cannot be read ({reason}): make sure that their \
             cleanup.policy is delete"
        );
    };
    let answers = match answer {
        Ok(answers) => answers,
        Err(error) => {
            unknown(error.to_string());
            return Ok(());
        }
    };
    for ((topic, _), answer) in options.topics.iter().zip(answers) {
        match answer {
            Ok(config) => {
                let policy = config.get("cleanup.policy").and_then(|entry| entry.value.clone());
                if let Some(policy) = policy.filter(|policy| policy.contains("compact")) {
                    return Err(KafkaError::Compacted { topic: topic.clone(), policy });
                }
            }
            Err(error) => unknown(error.to_string()),
        }
    }
    Ok(())
}
