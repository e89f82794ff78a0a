//! Freshness: how long after an event was produced the API shows it, its store acknowledged, while
//! so many events a second arrive. Over HTTP into the embedded log, and in Kafka.
//!
//! Among the events are *probes*, each a video of its own, and somebody asks for each until it is
//! there. The clock of a probe starts before it is sent. Clients send what is due; one that is late
//! sends at once, and how far they were behind in the end is told, since a service that does not
//! keep up would otherwise look fresh.

use crate::Arguments;
use crate::endless::{self, LANES, Track};
use crate::page::Row;
use crate::process::cpu_seconds_of;
use anyhow::{Context, Result, anyhow, ensure};
use marquee::commands::Failure;
use marquee::config::Config;
use marquee::wiring;
use marquee_e2e::data::{Data, example};
use marquee_e2e::kafka::Setup;
use marquee_e2e::service::Service;
use marquee_model::{Partitioner, lane_of};
use marquee_services::{Kafka, KafkaOptions, missing_for_kafka};
use marquee_sources::kafka::{KafkaAppender, create_topics};
use marquee_sources::{Appender, NewRecord};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Each sends every fourth batch.
const CLIENTS: usize = LANES as usize;
const EVENTS_PER_SECOND: u64 = 100_000;
const EVENTS_PER_BATCH: u64 = 500;
const SECONDS: u64 = 30;
/// A probe with every so many batches: twenty a second.
const BATCHES_PER_PROBE: u64 = 10;
/// One batch of plays among so many: about their share.
const BATCHES_PER_PLAYS: u64 = 70;
/// Until the service is warm nothing is judged.
const WARM_UP: Duration = Duration::from_secs(5);
/// A probe that takes so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(_: &Arguments) -> Result<Vec<Row>> {
    let mut rows = vec![over_http()?];
    rows.push(match missing_for_kafka() {
        Some(tool) => Row::note("freshness, Kafka", &format!("not measured: no {tool}")),
        None => in_kafka()?,
    });
    Ok(rows)
}

/// Takes a batch of events of one topic (0: impressions, 1: plays): JSON, a line each.
trait Way: Sync {
    fn send(&self, topic: usize, lines: &[u8]) -> Result<()>;
}

fn over_http() -> Result<Row> {
    let data = Data::of("", "");
    let reference = std::fs::read_to_string(example("reference.toml"))?;
    let config = data.write("fresh.toml", reference + "\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let service = Service::start(&config, &data.file("service.log"));
    let collector = Collector { address: service.address.clone() };
    judge("freshness, HTTP to embedded log", service, &collector)
}

struct Collector {
    address: String,
}

thread_local! {
    /// It keeps the connection of its client.
    static AGENT: ureq::Agent = ureq::Agent::new_with_defaults();
}

impl Way for Collector {
    fn send(&self, topic: usize, lines: &[u8]) -> Result<()> {
        let url = format!("{}/v1/{}", self.address, ["impressions", "plays"][topic]);
        loop {
            let request = AGENT.with(|agent| agent.post(&url));
            match request.content_type("application/x-ndjson").send(lines) {
                Ok(answer) => {
                    ensure!(answer.status() == 202, "the collector answers {}", answer.status());
                    return Ok(());
                }
                Err(ureq::Error::StatusCode(429 | 503)) => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn in_kafka() -> Result<Row> {
    let kafka = Kafka::start(KafkaOptions::default())?;
    let data = Data::of("", "");
    let setup = Setup::new(&kafka.bootstrap(), &data, "fresh");
    let path = setup.config("store", "", "");
    let log = topics(&path)?;
    let service = Service::start(&path, &data.file("service.log"));
    let broker_before = cpu_seconds_of(kafka.pid())?;
    let seconds = (SECONDS + WARM_UP.as_secs()) as f64;
    let mut row = judge("freshness, Kafka", service, &Topics { log })?;
    let broker = (cpu_seconds_of(kafka.pid())? - broker_before) / seconds;
    row.result += &format!("; the broker {:.0} % of a core", 100.0 * broker);
    Ok(row)
}

/// Creates the topics of a configuration, and takes records for them.
fn topics(config: &Path) -> Result<KafkaAppender> {
    let failed = |failure: Failure| anyhow!(failure.lines().join("\n"));
    let config = Config::load(config).map_err(|f| failed(Failure::Config(f)))?;
    let plan = wiring::plan(&config).map_err(failed)?;
    let (brokers, properties) = (&config.log.brokers, &config.log.properties.0);
    create_topics(brokers, properties, &plan.topics(), LANES)?;
    Ok(KafkaAppender::new(brokers, properties, &plan.topics())?)
}

struct Topics {
    log: KafkaAppender,
}

impl Way for Topics {
    fn send(&self, topic: usize, lines: &[u8]) -> Result<()> {
        let record_time_ms = wiring::now_ms();
        let record = |payload| -> Option<NewRecord<'_>> {
            let key = endless::request_id_of(payload)?;
            let lane = lane_of(Partitioner::Murmur2, key, LANES);
            Some(NewRecord { topic, lane, record_time_ms, key: Some(key), payload })
        };
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records = lines.map(record).collect::<Option<Vec<_>>>();
        self.log.append(&records.context("each event has a request id")?)?;
        Ok(())
    }
}

/// A probe on its way.
struct Probe {
    video: String,
    produced: Instant,
}

/// Feeds a service for a while, and ends it.
fn judge(what: &str, service: Service, way: &dyn Way) -> Result<Row> {
    eprintln!("{what}, {EVENTS_PER_SECOND} events/s for {SECONDS} s");
    let tracks = endless::tracks(20_000)?;
    let start = Instant::now();
    let (probes, probed) = channel();
    let (next, behind) = (AtomicU64::new(0), Mutex::new(Duration::ZERO));
    let client = |mut tracks: [Track; 2], probes: Sender<Probe>| -> Result<()> {
        while let Some((batch, due)) = next_batch(&next) {
            thread::sleep(due.saturating_sub(start.elapsed()));
            let late = start.elapsed().saturating_sub(due);
            *behind.lock().map_err(|_| anyhow!("a client failed"))? = late;
            send(batch, &mut tracks, way, &probes)?;
        }
        Ok(())
    };
    let client = &client;
    let address = &service.address;
    let mut latencies = thread::scope(|scope| -> Result<Vec<Duration>> {
        let watcher = scope.spawn(move || watch(address, &probed, start));
        let clients: Vec<_> = tracks
            .into_iter()
            .take(CLIENTS)
            .map(|tracks| (tracks, probes.clone()))
            .map(|(tracks, probes)| scope.spawn(move || client(tracks, probes)))
            .collect();
        drop(probes);
        for client in clients {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds_of(service.pid())? / seconds;
    let code = service.terminate();
    ensure!(code == Some(0), "the service ended with {code:?}");
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_millis();
    let behind = behind.lock().map_err(|_| anyhow!("a client failed"))?.as_millis();
    let row = Row {
        what: format!("{what}, {EVENTS_PER_SECOND} events/s, {} probes", latencies.len()),
        result: format!("p50 {} ms, p99 {} ms, max {} ms", at(0.5), at(0.99), at(1.0)),
        memory: format!("{:.0} % of a core; clients {behind} ms behind at the end", 100.0 * cpu),
    };
    eprintln!("  {}; {}", row.result, row.memory);
    Ok(row)
}

/// The number of the next batch, and when it is due after the start; `None` after the last.
fn next_batch(next: &AtomicU64) -> Option<(u64, Duration)> {
    let batch = next.fetch_add(1, Ordering::Relaxed);
    let due = Duration::from_secs(1) * (batch * EVENTS_PER_BATCH) as u32 / EVENTS_PER_SECOND as u32;
    (due < WARM_UP + Duration::from_secs(SECONDS)).then_some((batch, due))
}

/// Makes a batch and sends it, with a probe now and then.
fn send(batch: u64, tracks: &mut [Track; 2], way: &dyn Way, probes: &Sender<Probe>) -> Result<()> {
    let topic = usize::from(batch.is_multiple_of(BATCHES_PER_PLAYS));
    let (produced, now_ms) = (Instant::now(), wiring::now_ms());
    let mut lines = Vec::with_capacity(160 * EVENTS_PER_BATCH as usize);
    for _ in 0..EVENTS_PER_BATCH {
        lines.extend_from_slice(tracks[topic].lend_at(now_ms));
        lines.push(b'\n');
    }
    let probe = (topic == 0 && batch % BATCHES_PER_PROBE == 1).then(|| format!("probe-{batch}"));
    if let Some(video) = &probe {
        let id = format!("request-of-{video}");
        let event = serde_json::json!({ "request_id": id, "video_id": video, "ts": now_ms });
        lines.extend_from_slice(event.to_string().as_bytes());
    }
    way.send(topic, &lines)?;
    if let Some(video) = probe {
        // After the sending: nobody needs to ask before.
        let _ = probes.send(Probe { video, produced });
    }
    Ok(())
}

/// Asks for each probe until it is there; how long that took, but for those of the warm-up.
fn watch(address: &str, probed: &Receiver<Probe>, start: Instant) -> Result<Vec<Duration>> {
    let agent = ureq::Agent::new_with_defaults();
    let mut latencies = Vec::new();
    for Probe { video, produced } in probed {
        // The newest epochs are enough: a probe happens now.
        let from = wiring::now_ms() - 2 * endless::LAP_MS;
        let url = format!("{address}/v1/trends?video={video}&from={from}");
        loop {
            let page: serde_json::Value = agent.get(&url).call()?.body_mut().read_json()?;
            if page["cells"][0]["impressions"] == 1 {
                break;
            }
            ensure!(produced.elapsed() < PATIENCE, "{video} does not come: {page}");
            thread::sleep(Duration::from_millis(1));
        }
        if produced - start > WARM_UP {
            latencies.push(produced.elapsed());
        }
    }
    ensure!(!latencies.is_empty(), "there was no probe");
    Ok(latencies)
}
