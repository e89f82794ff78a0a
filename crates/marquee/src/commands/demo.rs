//! `marquee demo`: the service with simulated members, who send over HTTP like anybody else.

use super::Failure;
use super::run::say_listening;
use crate::config::{Config, LogKind, is_broker_list};
use crate::generate::LiveMembers;
use crate::log::kafka_failure;
use crate::service::{Service, Stopper};
use crate::wiring::now_ms;
use marquee_model::{Kind, parse_duration_ms};
use marquee_sources::kafka::{create_topics, delete_topics};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The configuration of the demo, the same file that users can run and change.
const CONFIG: &str = include_str!("../../../../examples/demo.toml");

/// How often members send what they have collected.
const SEND_EVERY: Duration = Duration::from_millis(100);

/// How often the terminal shows what rises.
const SHOW_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Port on this machine (0 takes a free one)
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// End after this time, for example 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration_ms)]
    for_ms: Option<i64>,
    /// Events a second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=200_000))]
    rate: u64,
    /// Keep log and store here (otherwise in a temporary folder that goes with the demo)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Use a Kafka as the log, in topics of the demo's own that go with it: kafka://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = brokers, conflicts_with = "data")]
    log: Option<String>,
}

/// The brokers of `kafka://HOST:PORT[,HOST:PORT...]`.
fn brokers(url: &str) -> Result<String, String> {
    let brokers = url.strip_prefix("kafka://").filter(|brokers| is_broker_list(brokers));
    brokers.map(str::to_owned).ok_or_else(|| {
        "write kafka://HOST:PORT, several with commas, for example kafka://127.0.0.1:19092"
            .to_owned()
    })
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let temporary = tempfile::tempdir().map_err(Failure::failed)?;
        let folder = self.data.clone().unwrap_or_else(|| temporary.path().to_owned());
        let mut config =
            Config::parse(CONFIG, "examples/demo.toml", &folder).map_err(Failure::Config)?;
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], self.port));
        let topics = self.log.as_ref().map(|brokers| Topics::create(&mut config, brokers));
        let topics = topics.transpose()?;
        let service = Service::start(&config)?;
        service.stop_on_signals()?;
        say_listening(service.address())?;
        let address = service.address();
        eprintln!("Open http://{address} to watch; Ctrl-C ends it.");
        let members = Members::start(address, self.rate, service.stopper(), self.for_ms);
        let result = service.wait();
        let sent = members.finish();
        eprintln!("{sent} events were sent and accepted.");
        drop(topics);
        result
    }
}

/// Topics on somebody's Kafka, for this demo alone.
struct Topics {
    brokers: String,
    names: Vec<String>,
}

impl Topics {
    const PARTITIONS: u32 = 4;

    fn create(config: &mut Config, brokers: &str) -> Result<Topics, Failure> {
        let name = |what: &str| format!("marquee-demo-{}-{what}", now_ms());
        config.log.kind = LogKind::Kafka;
        config.log.brokers = brokers.to_owned();
        config.log.group = name("group");
        (config.impressions.topic, config.plays.topic) = (name("impressions"), name("plays"));
        let names = vec![config.impressions.topic.clone(), config.plays.topic.clone()];
        create_topics(brokers, &BTreeMap::new(), &names, Self::PARTITIONS)
            .map_err(kafka_failure)?;
        eprintln!("The log is Kafka at {brokers}, topics {}.", names.join(" and "));
        Ok(Topics { brokers: brokers.to_owned(), names })
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        if let Err(error) = delete_topics(&self.brokers, &BTreeMap::new(), &self.names) {
            tracing::warn!("the topics of the demo are left behind: {error}");
        }
    }
}

/// Threads that play the members and show what rises.
struct Members {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Members {
    fn start(address: SocketAddr, rate: u64, stopper: Stopper, for_ms: Option<i64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU64::new(0));
        let sender = Sender {
            agent: agent(),
            base: format!("http://{address}"),
            stop: stop.clone(),
            accepted: accepted.clone(),
        };
        let until = for_ms.map(|ms| Instant::now() + Duration::from_millis(ms as u64));
        let screen = Screen { agent: agent(), base: sender.base.clone(), stop: stop.clone() };
        let threads = vec![
            std::thread::spawn(move || {
                sender.play_members(rate, until);
                stopper.stop();
            }),
            std::thread::spawn(move || screen.run()),
        ];
        Members { stop, accepted, threads }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.accepted.load(Ordering::Relaxed)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into()
}

/// Sends what the members show and play.
struct Sender {
    agent: ureq::Agent,
    base: String,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
}

impl Sender {
    fn play_members(&self, rate: u64, until: Option<Instant>) {
        let start_ms = now_ms();
        let mut members = LiveMembers::new(start_ms as u64, start_ms, rate);
        while !self.stops() && until.is_none_or(|until| Instant::now() < until) {
            let (mut impressions, mut plays) = (Vec::new(), Vec::new());
            for (kind, event) in members.take_until(now_ms()) {
                let body = match kind {
                    Kind::Impression => &mut impressions,
                    Kind::Play => &mut plays,
                };
                body.extend_from_slice(&event);
                body.push(b'\n');
            }
            self.send(Kind::Impression, &impressions);
            self.send(Kind::Play, &plays);
            std::thread::sleep(SEND_EVERY);
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends until it is accepted: a member's client keeps what was not acknowledged.
    fn send(&self, kind: Kind, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let url = format!("{}/v1/{}", self.base, kind.plural());
        while !self.stops() {
            let sent = self.agent.post(&url).content_type("application/x-ndjson").send(body);
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(202) => {
                    let events = body.iter().filter(|byte| **byte == b'\n').count();
                    self.accepted.fetch_add(events as u64, Ordering::Relaxed);
                    return;
                }
                Ok(status @ (207 | 400..=428)) => {
                    tracing::warn!(status, "the collector refuses what the demo sends: a bug");
                    return;
                }
                Ok(_) | Err(_) => std::thread::sleep(SEND_EVERY),
            }
        }
    }
}

/// Shows what rises, on a terminal only.
struct Screen {
    agent: ureq::Agent,
    base: String,
    stop: Arc<AtomicBool>,
}

impl Screen {
    fn run(self) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let mut lines = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok(table) = self.table() {
                // Back to the start of the last table, and over it.
                let back = if lines > 0 { format!("\x1b[{lines}A\x1b[J") } else { String::new() };
                let mut out = std::io::stderr().lock();
                let _ = write!(out, "{back}{table}").and_then(|()| out.flush());
                lines = table.lines().count();
            }
            std::thread::sleep(SHOW_EVERY);
        }
    }

    fn table(&self) -> Result<String, ureq::Error> {
        use std::fmt::Write;
        let url = format!("{}/v1/trends?limit=10", self.base);
        let answer: serde_json::Value = self.agent.get(&url).call()?.body_mut().read_json()?;
        let mut table =
            format!("{:<32} {:>12} {:>8} {:>10}\n", "video", "impressions", "plays", "take rate");
        for cell in answer["cells"].as_array().into_iter().flatten() {
            let number = |name: &str| cell[name].as_u64().unwrap_or(0);
            let rate = 100.0 * number("plays") as f64 / number("impressions").max(1) as f64;
            let video = cell["video"].as_str().unwrap_or_default();
            let _ = writeln!(
                table,
                "{video:<32} {:>12} {:>8} {rate:>9.2}%",
                number("impressions"),
                number("plays"),
            );
        }
        Ok(table)
    }
}
