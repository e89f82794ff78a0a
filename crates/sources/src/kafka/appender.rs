//! Writes records to Kafka: the collector's way in, and that of `generate`.

use super::context::log;
use super::{KafkaError, Role, client, settings};
use crate::embedded::Position;
use crate::{Appender, NewRecord, SourceError};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Pause while the client's queue is full.
const FULL: Duration = Duration::from_millis(5);

/// A producer. Clones share it.
#[derive(Clone)]
pub struct KafkaAppender {
    producer: Arc<ThreadedProducer<Deliveries>>,
    /// Names of the topics, by their indices.
    topics: Arc<[String]>,
}

impl KafkaAppender {
    /// Connects to brokers. `topics` gives the indices of [`NewRecord::topic`] their names.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn new(
        brokers: &str,
        properties: &BTreeMap<String, String>,
        topics: &[String],
    ) -> Result<KafkaAppender, KafkaError> {
        let mut config = client(brokers, properties, Role::Producer);
        let mut default = |name: &str, value: &str| {
            if !properties.contains_key(name) {
                config.set(name, value);
            }
        };
        default("compression.type", "lz4");
        default("linger.ms", "5");
        // Longer than this, and a sender is told to come back later.
        default("message.timeout.ms", "30000");
        default("message.max.bytes", "16777216");
        // Written once and in order, acknowledged by all replicas.
        config.set("enable.idempotence", "true");
        let producer: ThreadedProducer<Deliveries> =
            config.create_with_context(Deliveries).map_err(|error| settings(&error))?;
        Ok(KafkaAppender { producer: Arc::new(producer), topics: topics.into() })
    }

    /// The last record in each partition that got any: the others are before it.
    fn positions(&self, batch: &Batch) -> Vec<Position> {
        let outcomes = batch.outcomes();
        let position = |(topic, lane, offset): &(String, i32, i64)| {
            let topic = self.topics.iter().position(|name| name == topic)?;
            let (lane, offset) = (u32::try_from(*lane).ok()?, u64::try_from(*offset).ok()?);
            Some(Position { topic, lane, offset })
        };
        outcomes.last.iter().filter_map(position).collect()
    }

    /// Hands one record to the client; whether it arrived is told to `batch`.
    fn send(&self, record: &NewRecord<'_>, batch: &Arc<Batch>) -> Result<(), ClientError> {
        let mut message = BaseRecord::<[u8], [u8], Arc<Batch>>::with_opaque_to(
            &self.topics[record.topic],
            batch.clone(),
        )
        .partition(record.lane as i32)
        .timestamp(record.record_time_ms)
        .payload(record.payload);
        if let Some(key) = record.key {
            message = message.key(key);
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    std::thread::sleep(FULL);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

impl Appender for KafkaAppender {
    /// Returns when all replicas have all records, or when one could not be delivered: then some
    /// of the others may be there.
    fn append(&self, records: &[NewRecord<'_>]) -> Result<Vec<Position>, SourceError> {
        let batch = Arc::new(Batch::default());
        for record in records {
            // Counted first: its outcome may come before `send` returns.
            batch.outcomes().sent += 1;
            if let Err(error) = self.send(record, &batch) {
                batch.settle(Some(error));
            }
        }
        match batch.wait() {
            (0, _) => Ok(self.positions(&batch)),
            (failed, reason) => {
                Err(KafkaError::Refused { failed, all: records.len(), reason }.into())
            }
        }
    }
}

impl Drop for KafkaAppender {
    fn drop(&mut self) {
        // Nobody waits for anything any more: `append` has waited for its own.
        if Arc::strong_count(&self.producer) == 1 {
            let _ = self.producer.flush(Duration::from_secs(1));
        }
    }
}

/// What became of the records of one `append`.
#[derive(Default)]
struct Batch {
    outcomes: Mutex<Outcomes>,
    settled: Condvar,
}

#[derive(Default)]
struct Outcomes {
    sent: usize,
    settled: usize,
    failed: usize,
    reason: String,
    /// Topic, partition and the largest offset that was given there.
    last: Vec<(String, i32, i64)>,
}

impl Batch {
    fn outcomes(&self) -> std::sync::MutexGuard<'_, Outcomes> {
        // Plain numbers: usable whatever happened to whoever held them.
        self.outcomes.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn settle(&self, error: Option<ClientError>) {
        let mut outcomes = self.outcomes();
        outcomes.settled += 1;
        if let Some(error) = error {
            outcomes.failed += 1;
            if outcomes.reason.is_empty() {
                outcomes.reason = error.to_string();
            }
        }
        self.settled.notify_all();
    }

    /// Records that failed, and why the first did.
    fn wait(&self) -> (usize, String) {
        let outcomes = self.outcomes();
        let is_open = |o: &mut Outcomes| o.settled < o.sent;
        let outcomes =
            self.settled.wait_while(outcomes, is_open).unwrap_or_else(|e| e.into_inner());
        (outcomes.failed, outcomes.reason.clone())
    }
}

/// Called by the producer's own thread.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        match error.rdkafka_error_code() {
            // The consumers say the same.
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::debug!("Kafka: {reason}");
            }
            _ => tracing::warn!("Kafka: {error}: {reason}"),
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        if let Ok(message) = result {
            let (topic, partition, offset) =
                (message.topic(), message.partition(), message.offset());
            let mut outcomes = batch.outcomes();
            let of_place = |last: &&mut (String, i32, i64)| last.0 == topic && last.1 == partition;
            match outcomes.last.iter_mut().find(of_place) {
                Some(last) => last.2 = last.2.max(offset),
                None => outcomes.last.push((topic.to_owned(), partition, offset)),
            }
        }
        batch.settle(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}
