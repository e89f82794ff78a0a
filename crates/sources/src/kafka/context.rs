//! What librdkafka tells us on its own account: assignments, errors, log lines.
//!
//! It is called on the keeper's thread (see `source`) and only passes on: the owner decides when it
//! is ready to take lanes or to give them up.

use crate::SourceError;
use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the group wants of an owner.
#[derive(Debug)]
pub(super) enum GroupEvent {
    /// These partitions are yours: nothing is read from them before they are assigned.
    Assigned(Vec<(String, i32)>),
    /// Give up all partitions.
    Revoked,
    /// Nothing works any more.
    Fatal(SourceError),
}

/// Called by librdkafka.
pub(super) struct Context {
    events: Sender<GroupEvent>,
    /// Once the owner has left nobody answers a revocation but we ourselves.
    closing: AtomicBool,
    /// Why nothing comes, while no broker answers.
    trouble: Mutex<Option<String>>,
    /// A topic that is not there, while brokers answer.
    gone: Mutex<Option<String>>,
}

impl Context {
    /// A context, and where its events come out.
    pub(super) fn new() -> (Context, Receiver<GroupEvent>) {
        let (events, receiver) = channel();
        let (trouble, gone) = (Mutex::default(), Mutex::default());
        (Context { events, closing: AtomicBool::new(false), trouble, gone }, receiver)
    }

    /// From now on a revocation is answered at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock().unwrap_or_else(|e| e.into_inner());
        match (&*known, &trouble) {
            (None, Some(trouble)) => tracing::warn!("{trouble}"),
            (Some(_), None) => tracing::info!("a Kafka broker answers again"),
            _ => {}
        }
        *known = trouble;
    }

    pub(super) fn gone(&self) -> Option<String> {
        let gone = self.gone.lock().unwrap_or_else(|e| e.into_inner());
        gone.as_ref().map(|topic| {
            format!("there is no topic {topic:?} any more: it was deleted; waiting for it")
        })
    }

    pub(super) fn set_gone(&self, topic: Option<String>) {
        let mut known = self.gone.lock().unwrap_or_else(|e| e.into_inner());
        match (&*known, &topic) {
            (None, Some(topic)) => {
                tracing::warn!("topic {topic:?} was deleted; waiting for it");
            }
            (Some(topic), None) => tracing::info!("topic {topic:?} is there again"),
            _ => {}
        }
        *known = topic;
    }

    /// Passes on an event; when the owner has gone there is nobody to tell.
    pub(super) fn tell(&self, event: GroupEvent) {
        let _ = self.events.send(event);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let trouble = "no Kafka broker answers; waiting for one";
                self.set_trouble(Some(trouble.to_owned()));
            }
            // librdkafka's own log has a line for each of these already.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => tracing::debug!("Kafka: {reason}"),
            _ => tracing::warn!("Kafka: {error}: {reason}"),
        }
    }
}

/// One line of librdkafka's log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug => tracing::debug!("Kafka: {facility} {message}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
            tracing::info!("Kafka: {facility} {message}");
        }
        _ => tracing::warn!("Kafka: {facility} {message}"),
    }
}

impl ConsumerContext for Context {
    /// The answer, an `assign` or `unassign`, is the owner's: see `source`.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: Code,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            let _ = consumer.unassign();
        } else if code == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let elements = partitions.elements();
            let partition = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                (e.topic().to_owned(), e.partition())
            };
            self.tell(GroupEvent::Assigned(elements.iter().map(partition).collect()));
        } else {
            self.tell(GroupEvent::Revoked);
        }
    }
}
