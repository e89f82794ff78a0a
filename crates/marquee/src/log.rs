//! The log that the configuration names: a folder of this process, or Kafka.

use crate::archive;
use crate::commands::Failure;
use crate::config::{Config, LogKind};
use crate::wiring;
use marquee_runtime::Plan;
use marquee_runtime::archive::{ArchivedLog, EventsArchive};
use marquee_runtime::backfill::LogEvents;
use marquee_sinks::Store;
use marquee_sources::embedded::{EmbeddedLog, EmbeddedReplay, EmbeddedSource, LogError};
use marquee_sources::kafka::{KafkaAppender, KafkaCluster, KafkaError, KafkaReplay, KafkaSource};
use marquee_sources::{Appender, Replay, Source};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a start waits for a broker that does not answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(60);
const BROKER_PAUSE: Duration = Duration::from_secs(2);

/// An open log.
pub(crate) enum Log {
    Embedded { log: EmbeddedLog, topics: usize },
    Kafka { cluster: KafkaCluster, appender: KafkaAppender },
}

/// Connects to Kafka, if that is the log, which says how many lanes there are.
pub(crate) fn connect(
    config: &Config,
    plan: Plan,
) -> Result<(Plan, Option<KafkaCluster>), Failure> {
    match config.log.kind {
        LogKind::Embedded => Ok((plan, None)),
        LogKind::Kafka => {
            let cluster = cluster(config, &plan)?;
            Ok((wiring::with_lanes(plan, cluster.lanes()), Some(cluster)))
        }
    }
}

/// The same for a command that does not read the log: a store that is there knows its lanes.
pub(crate) fn lanes_of_store(config: &Config, plan: Plan) -> Result<Plan, Failure> {
    if config.log.kind == LogKind::Embedded {
        return Ok(plan);
    }
    match crate::store::stored_lanes(config)? {
        Some(lanes) => Ok(wiring::with_lanes(plan, lanes)),
        None => connect(config, plan).map(|(plan, _)| plan),
    }
}

/// Waits for a broker to answer: it may be starting, too.
fn cluster(config: &Config, plan: &Plan) -> Result<KafkaCluster, Failure> {
    let until = Instant::now() + BROKER_PATIENCE;
    loop {
        match KafkaCluster::connect(wiring::kafka(config, plan)) {
            Ok(cluster) => return Ok(cluster),
            Err(error @ KafkaError::Unreachable { .. }) if Instant::now() < until => {
                tracing::warn!("{error}. Trying on for a minute");
                std::thread::sleep(BROKER_PAUSE);
            }
            Err(error) => return Err(kafka_failure(error)),
        }
    }
}

impl Log {
    /// Opens the log; `cluster` is Kafka as [`connect`] found it.
    pub(crate) fn open(
        config: &Config,
        plan: &Plan,
        cluster: Option<KafkaCluster>,
    ) -> Result<Log, Failure> {
        let topics = plan.topics();
        let Some(cluster) = cluster else {
            let log = EmbeddedLog::open(&config.log.path, &topics, plan.lanes);
            let log = log.map_err(embedded_failure)?;
            return Ok(Log::Embedded { log, topics: topics.len() });
        };
        let properties = &config.log.properties.0;
        let appender = KafkaAppender::new(&config.log.brokers, properties, &topics);
        Ok(Log::Kafka { appender: appender.map_err(kafka_failure)?, cluster })
    }

    /// A share of the log for each of so many owners, or fewer where there are fewer lanes.
    pub(crate) fn sources(&self, owners: usize) -> Result<Vec<Box<dyn Source>>, Failure> {
        match self {
            Log::Embedded { log, topics } => {
                let shares = EmbeddedSource::shares(log, *topics, owners);
                Ok(shares.into_iter().map(|share| Box::new(share) as Box<dyn Source>).collect())
            }
            Log::Kafka { cluster, .. } => {
                let owners = owners.clamp(1, cluster.lanes() as usize);
                let members = KafkaSource::join(cluster, owners).map_err(kafka_failure)?;
                Ok(members.into_iter().map(|member| Box::new(member) as Box<dyn Source>).collect())
            }
        }
    }

    /// Where the collector writes.
    pub(crate) fn appender(&self) -> Arc<dyn Appender> {
        match self {
            Log::Embedded { log, .. } => Arc::new(log.clone()),
            Log::Kafka { appender, .. } => Arc::new(appender.clone()),
        }
    }

    /// The same log, to be read once more.
    pub(crate) fn again(&self) -> LogAgain {
        LogAgain {
            log: match self {
                Log::Embedded { log, .. } => Again::Embedded(log.clone()),
                Log::Kafka { cluster, .. } => Again::Kafka(cluster.clone()),
            },
            archive: None,
        }
    }

    /// Ids of the topics, where the log has any.
    pub(crate) fn topic_ids(&self) -> Vec<String> {
        match self {
            Log::Embedded { .. } => Vec::new(),
            Log::Kafka { cluster, .. } => cluster.topic_ids(),
        }
    }
}

/// The log, for whoever reads it once more: no lane is taken, and nothing is committed.
#[derive(Clone)]
pub(crate) struct LogAgain {
    log: Again,
    /// What answers for the records that the log has deleted.
    archive: Option<EventsArchive>,
}

#[derive(Clone)]
enum Again {
    Embedded(EmbeddedLog),
    Kafka(KafkaCluster),
}

impl LogAgain {
    /// Opens a log that is there; `cluster` is Kafka as [`connect`] found it.
    pub(crate) fn open(
        config: &Config,
        plan: &Plan,
        cluster: Option<KafkaCluster>,
    ) -> Result<LogAgain, Failure> {
        if let Some(cluster) = cluster {
            return Ok(LogAgain { log: Again::Kafka(cluster), archive: None });
        }
        let path = &config.log.path;
        if !EmbeddedLog::is_at(path) {
            return Err(Failure::Failed(format!(
                "there is no log at {}: name files that hold the events, with --impressions and \
                 --plays",
                path.display()
            )));
        }
        let log = EmbeddedLog::open(path, &plan.topics(), plan.lanes).map_err(embedded_failure)?;
        Ok(LogAgain { log: Again::Embedded(log), archive: None })
    }

    /// The same with the lake's raw events in front of it, where the configuration keeps them.
    pub(crate) fn with_archive(self, config: &Config) -> Result<LogAgain, Failure> {
        Ok(LogAgain { archive: archive::of(config)?, ..self })
    }

    /// The same with the headers of records, whether an expression uses them or not.
    pub(crate) fn with_headers(self) -> LogAgain {
        let log = match self.log {
            Again::Kafka(cluster) => Again::Kafka(cluster.with_headers()),
            embedded => embedded,
        };
        LogAgain { log, ..self }
    }

    /// For each topic an id that no other log has. Where brokers give topics no ids, a generation
    /// stands for them.
    pub(crate) fn ids(&self, store: &dyn Store, plan: &Plan) -> Vec<String> {
        match &self.log {
            Again::Embedded(log) => vec![log.id().to_owned(); plan.topics().len()],
            Again::Kafka(cluster) => archive::known_ids(store.generation(), &cluster.topic_ids()),
        }
    }

    /// Its events, read by so many threads, for a store that was counted from it.
    pub(crate) fn events(
        &self,
        store: &dyn Store,
        plan: &Plan,
        threads: usize,
    ) -> Result<LogEvents, Failure> {
        let mut committed = Vec::new();
        for lane in 0..plan.lanes {
            let state = store.lane_state(lane).map_err(Failure::failed)?.unwrap_or_default();
            self.check_topics(plan, &state.topic_ids)?;
            committed.push(state.next_offsets);
        }
        let threads = threads.clamp(1, plan.lanes.max(1) as usize);
        let reader = |_| -> Result<Box<dyn Replay>, Failure> {
            let log: Box<dyn Replay> = match &self.log {
                Again::Embedded(log) => Box::new(EmbeddedReplay::new(log)),
                Again::Kafka(cluster) => {
                    Box::new(KafkaReplay::new(cluster).map_err(kafka_failure)?)
                }
            };
            let Some(archive) = &self.archive else { return Ok(log) };
            let topics = archive::topics(plan, &self.ids(store, plan));
            Ok(Box::new(ArchivedLog::new(archive.clone(), topics, Some(log))))
        };
        Ok(LogEvents {
            readers: (0..threads).map(reader).collect::<Result<_, _>>()?,
            checks_partitions: matches!(self.log, Again::Kafka(_)),
            committed,
            now_ms: wiring::now_ms(),
            may_end_early: false,
        })
    }

    /// Offsets of a topic that was deleted and made again mean nothing.
    fn check_topics(&self, plan: &Plan, known: &[String]) -> Result<(), Failure> {
        let Again::Kafka(cluster) = &self.log else { return Ok(()) };
        for ((was, is), topic) in known.iter().zip(cluster.topic_ids()).zip(plan.topics()) {
            if !was.is_empty() && !is.is_empty() && *was != is {
                let was = was.clone();
                return Err(kafka_failure(KafkaError::Recreated { topic, was, is }));
            }
        }
        Ok(())
    }
}

fn embedded_failure(error: LogError) -> Failure {
    match error {
        LogError::OtherLanes { .. } | LogError::OtherVersion { .. } | LogError::Unusable(_) => {
            Failure::Usage(error.to_string())
        }
        other => Failure::failed(other),
    }
}

/// What is wrong with the configuration, or with the world.
pub(crate) fn kafka_failure(error: KafkaError) -> Failure {
    match error.is_usage() {
        true => Failure::Usage(error.to_string()),
        false => Failure::failed(error),
    }
}
