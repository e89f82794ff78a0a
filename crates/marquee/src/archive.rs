//! The raw events that the lake keeps: who writes them in a running service, and how a command reads
//! them, with the log behind them or alone.

use crate::commands::Failure;
use crate::config::{Config, LogKind};
use crate::log::LogAgain;
use crate::wiring;
use marquee_runtime::Plan;
use marquee_runtime::archive::{
    Archive, ArchiveSettings, ArchivedLog, ArchivedTopic, EventsArchive, FoundLog, short_log,
};
use marquee_runtime::backfill::LogEvents;
use marquee_runtime::lanes::Lanes;
use marquee_sinks::lake::{Bucket, LakeError, LakePlace, Stop};
use marquee_sinks::{Generation, Store};
use marquee_sources::Replay;
use std::sync::Arc;
use std::time::Duration;

/// What the lake keeps; `None` where the configuration keeps no events.
pub(crate) fn of(config: &Config) -> Result<Option<EventsArchive>, Failure> {
    match (&config.lake.place, config.lake.events) {
        (Some(place), true) => Ok(Some(open(place)?)),
        _ => Ok(None),
    }
}

fn open(place: &LakePlace) -> Result<EventsArchive, Failure> {
    let bucket = Bucket::open(place, Stop::default()).map_err(Failure::failed)?;
    Ok(EventsArchive::new(Arc::new(bucket)))
}

/// The ids of topics; a generation stands for those that have none.
pub(crate) fn known_ids(generation: &Generation, ids: &[String]) -> Vec<String> {
    let known = |id: &String| if id.is_empty() { generation.id.clone() } else { id.clone() };
    ids.iter().map(known).collect()
}

/// The topics of a plan, as the lake names them.
pub(crate) fn topics(plan: &Plan, ids: &[String]) -> Vec<ArchivedTopic> {
    let topic = |(topic, id): (String, &String)| {
        let log = Some(short_log(id));
        ArchivedTopic { topic, log }
    };
    plan.topics().into_iter().zip(ids).map(topic).collect()
}

/// Copies what the lanes commit, where that is wanted.
pub(crate) fn start(
    config: &Config,
    plan: &Arc<Plan>,
    log: LogAgain,
    store: &Arc<dyn Store>,
    lanes: &Lanes,
    on_failure: impl Fn(&str) + Send + 'static,
) -> Result<Option<Archive>, Failure> {
    let lake = &config.lake;
    let Some(place) = lake.place.clone().filter(|_| lake.events) else { return Ok(None) };
    let log = log.with_headers();
    let settings = ArchiveSettings {
        plan: plan.clone(),
        place,
        log_ids: log.ids(&**store, plan),
        file_bytes: lake.file_bytes as usize,
        slot_ms: lake.events_interval_ms,
        interval: Duration::from_millis(lake.interval_ms as u64),
        now_ms: wiring::now_ms,
    };
    let (plan, lanes_of) = (plan.clone(), store.clone());
    let open = move || {
        let events = log.events(&*lanes_of, &plan, 1);
        events.map_err(|failure| failure.lines().join("; "))
    };
    let status = lanes.status().clone();
    let archive = Archive::start(settings, store.clone(), Box::new(open), status, on_failure);
    Ok(Some(archive.map_err(Failure::failed)?))
}

/// The raw events of a lake, without the log that they were copied from.
pub(crate) struct Alone {
    archive: EventsArchive,
    /// By topic.
    logs: Vec<Vec<FoundLog>>,
    topics: Vec<String>,
}

impl Alone {
    /// Looks what there is.
    ///
    /// # Errors
    /// The configuration keeps no events, or there are none.
    pub(crate) fn find(config: &Config, plan: &Plan) -> Result<Alone, Failure> {
        let Some(archive) = of(config)? else {
            let words = "--lake reads the raw events that the lake keeps, and this configuration keeps \
                         none: it needs [lake] url, and events = true";
            return Err(Failure::Usage(words.to_owned()));
        };
        let failed = |error: LakeError| Failure::Failed(error.to_string());
        let topics = plan.topics();
        let logs = topics.iter().map(|topic| archive.logs(topic)).collect::<Result<Vec<_>, _>>();
        let logs = logs.map_err(failed)?;
        if let Some((topic, _)) = topics.iter().zip(&logs).find(|(_, logs)| logs.is_empty()) {
            let place = config.lake.place.as_ref().expect("it was opened");
            return Err(Failure::Failed(format!(
                "the lake {place} has no raw events of topic {topic}: `marquee run` with [lake] \
                 events = true copies them there, each hour when it is over"
            )));
        }
        Ok(Alone { archive, logs, topics })
    }

    /// How often the logs had lost records before they were copied.
    pub(crate) fn gaps(&self) -> u64 {
        self.logs.iter().flatten().map(|log| log.gaps).sum()
    }

    /// The largest number of lanes that any log of it has.
    pub(crate) fn lanes(&self) -> u32 {
        self.logs.iter().flatten().map(|log| log.lanes).max().expect("there is some")
    }

    /// All of it: one log after the other, where a topic was made anew. `lanes` is the number of
    /// lanes that requests are spread over now.
    pub(crate) fn all(&self, config: &Config, lanes: u32, threads: usize) -> Vec<(LogEvents, u32)> {
        let most = self.logs.iter().map(Vec::len).max().expect("there are topics");
        let one = |nth: usize| {
            let of_topic = |logs: &Vec<FoundLog>| logs.get(nth).cloned();
            let logs: Vec<Option<FoundLog>> = self.logs.iter().map(of_topic).collect();
            let of = logs.iter().flatten().map(|log| log.lanes).max().expect("one has it");
            let logs = logs.into_iter().map(|log| log.map(|log| log.log)).collect();
            let events = LogEvents {
                readers: self.readers(logs, threads.clamp(1, of as usize), ArchivedLog::all_of),
                // Where the number has changed, a request stood elsewhere then.
                checks_partitions: config.log.kind == LogKind::Kafka && of == lanes,
                committed: Vec::new(),
                now_ms: wiring::now_ms(),
                may_end_early: true,
            };
            (events, of)
        };
        (0..most).map(one).collect()
    }

    /// What a store was counted from.
    ///
    /// # Errors
    /// It is not there, or not known which it is.
    pub(crate) fn of_store(
        &self,
        config: &Config,
        plan: &Plan,
        store: &dyn Store,
        threads: usize,
    ) -> Result<LogEvents, Failure> {
        let mut committed = Vec::new();
        let mut ids = Vec::new();
        for lane in 0..plan.lanes {
            let state = store.lane_state(lane).map_err(Failure::failed)?.unwrap_or_default();
            if ids.is_empty() {
                ids = known_ids(store.generation(), &state.topic_ids);
            }
            committed.push(state.next_offsets);
        }
        let mut logs = Vec::new();
        for (nth, (topic, found)) in self.topics.iter().zip(&self.logs).enumerate() {
            let wanted = ids.get(nth).map(|id| short_log(id));
            let log = match (wanted, &found[..]) {
                (Some(wanted), _) => found.iter().find(|log| log.log == wanted),
                (None, [only]) => Some(only),
                (None, _) => None,
            };
            let Some(log) = log.filter(|log| log.lanes == plan.lanes) else {
                let names: Vec<&str> = found.iter().map(|log| log.log.as_str()).collect();
                return Err(Failure::Failed(format!(
                    "the raw events of topic {topic} in the lake are of other logs ({}) than the \
                     one that the store was counted from; compare with the log, or with files \
                     (--impressions, --plays)",
                    names.join(", ")
                )));
            };
            logs.push(Some(log.log.clone()));
        }
        let threads = threads.clamp(1, plan.lanes.max(1) as usize);
        let whole = |archive, topics| ArchivedLog::new(archive, topics, None);
        Ok(LogEvents {
            readers: self.readers(logs, threads, whole),
            checks_partitions: config.log.kind == LogKind::Kafka,
            committed,
            now_ms: wiring::now_ms(),
            may_end_early: true,
        })
    }

    /// Readers of one log for each topic.
    fn readers(
        &self,
        logs: Vec<Option<String>>,
        threads: usize,
        reader: impl Fn(EventsArchive, Vec<ArchivedTopic>) -> ArchivedLog,
    ) -> Vec<Box<dyn Replay>> {
        let names = self.topics.iter().cloned();
        let topics: Vec<ArchivedTopic> =
            names.zip(logs).map(|(topic, log)| ArchivedTopic { topic, log }).collect();
        let one = |_| -> Box<dyn Replay> { Box::new(reader(self.archive.clone(), topics.clone())) };
        (0..threads).map(one).collect()
    }
}
