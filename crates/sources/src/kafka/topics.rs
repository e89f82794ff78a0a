//! Creates and deletes topics, for commands that write invented events.

use super::{KafkaError, Role, client, settings};
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Creates the topics that are not there, each with so many partitions, kept for ever
/// (`retention.ms=-1`): a broker would delete events of years ago at once.
///
/// # Errors
/// If the broker refuses, or cannot be reached.
pub fn create_topics(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topics: &[String],
    partitions: u32,
) -> Result<(), KafkaError> {
    let admin = admin(brokers, properties)?;
    let new = topics.iter().map(|topic| {
        NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(-1))
            .set("retention.ms", "-1")
            .set("cleanup.policy", "delete")
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let answers = block_on(admin.create_topics(&new, &options)).map_err(|error| {
        KafkaError::Unreachable { brokers: brokers.to_owned(), reason: error.to_string() }
    })?;
    for answer in answers {
        match answer {
            Ok(_) => {}
            Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => tracing::warn!(
                "topic {topic} was there already: its own partitions and retention hold (a broker \
                 deletes events of years ago unless retention.ms is -1)"
            ),
            Err((topic, code)) => {
                return Err(KafkaError::Create { topic, reason: code.to_string() });
            }
        }
    }
    topics.iter().for_each(|topic| wait_for(&admin, topic));
    Ok(())
}

/// Waits until a topic that was created is there for whoever looks: brokers learn of it a moment
/// after the one that has answered. If it does not come, the next one who looks for it says so.
fn wait_for(admin: &AdminClient<DefaultClientContext>, topic: &str) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE);
        let is_there = metadata.is_ok_and(|metadata| {
            let mut found = metadata.topics().iter().filter(|found| found.name() == topic);
            found.any(|found| found.error().is_none() && !found.partitions().is_empty())
        });
        if is_there {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes topics; one that is not there is no error.
///
/// # Errors
/// If the broker cannot be reached.
pub fn delete_topics(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topics: &[String],
) -> Result<(), KafkaError> {
    let admin = admin(brokers, properties)?;
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    block_on(admin.delete_topics(&names, &options)).map_err(|error| KafkaError::Unreachable {
        brokers: brokers.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(())
}

fn admin(
    brokers: &str,
    properties: &BTreeMap<String, String>,
) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    client(brokers, properties, Role::Administrator).create().map_err(|error| settings(&error))
}
