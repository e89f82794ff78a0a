//! The thread that polls the client of an owner, also while that is busy, and looks after the topics.

use super::KafkaError;
use super::cluster::KafkaCluster;
use super::context::{Context, GroupEvent};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the topics are looked at again.
const CHECK_EVERY: Duration = Duration::from_secs(20);
/// The same while one of them is gone.
const CHECK_GONE_EVERY: Duration = Duration::from_secs(2);

/// Polls the client, so that the group sees that this member lives.
pub(super) struct Keeper {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) cluster: KafkaCluster,
    pub(super) stop: Arc<AtomicBool>,
    /// Whether it also looks, now and then, whether the topics are still the same ones.
    pub(super) checks: bool,
}

impl Keeper {
    /// Until it is told to stop.
    pub(super) fn run(self) {
        let mut check_at = Instant::now() + CHECK_EVERY;
        while !self.stop.load(Ordering::SeqCst) {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(_)) => self.fatal("a record came past the queue of its partition"),
                Some(Err(error)) if is_fatal(&error) => self.fatal(&error.to_string()),
                // librdkafka tries again: a broker that is away comes back.
                Some(Err(error)) => tracing::debug!("Kafka: {error}"),
            }
            if self.consumer.context().trouble().is_some() {
                self.ask_whether_it_is_over();
            }
            if self.checks && Instant::now() >= check_at {
                check_at = Instant::now() + self.check();
            }
        }
    }

    /// Looks whether the topics are the same ones; when to do it again.
    fn check(&self) -> Duration {
        let context = self.consumer.context();
        match self.cluster.check(&self.consumer, Duration::from_secs(2)) {
            Ok(gone) => context.set_gone(gone),
            Err(error) => context.tell(GroupEvent::Fatal(error.into())),
        }
        if context.gone().is_some() { CHECK_GONE_EVERY } else { CHECK_EVERY }
    }

    /// librdkafka tells when all brokers are gone, and not when one is back.
    fn ask_whether_it_is_over(&self) {
        let (topic, _) = &self.cluster.options().topics[0];
        if self.consumer.fetch_metadata(Some(topic), Duration::from_secs(1)).is_ok() {
            self.consumer.context().set_trouble(None);
        }
    }

    fn fatal(&self, reason: &str) {
        let (group, reason) = (self.cluster.options().group.clone(), reason.to_owned());
        let error = KafkaError::Fatal { group, reason };
        self.consumer.context().tell(GroupEvent::Fatal(error.into()));
    }
}

fn is_fatal(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::error::{KafkaError as E, RDKafkaErrorCode as Code};
    matches!(
        error,
        E::MessageConsumptionFatal(_)
            | E::MessageConsumption(
                Code::GroupAuthorizationFailed
                    | Code::TopicAuthorizationFailed
                    | Code::SaslAuthenticationFailed
                    | Code::FencedInstanceId
                    | Code::InconsistentGroupProtocol
            )
    )
}
