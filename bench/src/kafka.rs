//! Kafka -> synced store: `marquee run` catches up with two topics, beside a bare [`reader`] of the
//! same records, in turn: A B A B ... The broker is on the same machine and takes its share of it,
//! from both alike.
//!
//! For marquee the clock runs until everything is counted, hence durable: a batch is visible only
//! after its sync. Each run has a group and a store of its own, and its cells must equal those of a
//! backfill of the same events, byte for byte.
//!
//! [`reader`]: crate::reader

use crate::page::Row;
use crate::process::{cpu_seconds_of, events, peak_bytes_of, sync};
use crate::{Arguments, median, spread};
use anyhow::{Context, Result, bail, ensure};
use marquee_e2e::data::{Data, example};
use marquee_e2e::kafka::{Setup, succeed};
use marquee_e2e::program::{binary, run};
use marquee_e2e::service::Service;
use marquee_services::{Kafka, KafkaOptions, missing_for_kafka};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const SEED: u64 = 7;

/// Between two looks at a service that catches up.
const LOOK: Duration = Duration::from_millis(10);
/// No run takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// What all runs share.
struct Bench {
    kafka: Kafka,
    data: Data,
    setup: Setup,
    events: u64,
    /// Cells of a backfill, as CSV.
    expected: Vec<u8>,
    /// Number of the next run, for names.
    next: usize,
}

/// One run of one program.
#[derive(Clone, Copy)]
struct Run {
    /// Events in a second of the whole process, from its start on.
    rate: f64,
    /// The same from the first events on: without the start, and the way into the group.
    rate_at_work: f64,
    cpu_seconds: f64,
    /// What the broker used meanwhile.
    broker_seconds: f64,
    peak_bytes: u64,
}

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    if let Some(tool) = missing_for_kafka() {
        return Ok(vec![Row::note("Kafka to store", &format!("not measured: no {tool}"))]);
    }
    let (requests, runs) = (arguments.requests, arguments.runs);
    eprintln!("Kafka to store, and a bare reader, {requests} requests, {runs} runs");
    let mut bench = Bench::new(requests)?;
    // The broker compiles what it does often while it does it: it must have done it before.
    bench.reader()?;
    let (mut ours, mut bare, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(bench.marquee(&binary())?);
        bare.push(bench.reader()?);
        if let Some(other) = &arguments.vs {
            others.push(bench.marquee(other)?);
        }
    }
    let events = bench.events;
    let mut rows = vec![
        row(&format!("Kafka to synced store, {events} events"), &ours),
        row("Kafka to a bare reader", &bare),
        ratio("Kafka: marquee : bare reader", &ours, &bare),
        cpu("Kafka: CPU of marquee", events, &ours),
        cpu("Kafka: CPU of the bare reader", events, &bare),
    ];
    if let Some(other) = &arguments.vs {
        rows.push(row(&format!("{} on the same", other.display()), &others));
        rows.push(cpu("Kafka: CPU of that", events, &others));
        rows.push(ratio("Kafka: marquee : that", &ours, &others));
    }
    Ok(rows)
}

/// A broker with two topics of generated events, the same events as files, and a configuration for
/// a service that has not seen them.
pub(crate) fn filled(requests: u64) -> Result<(Kafka, Data, PathBuf)> {
    let mut bench = Bench::new(requests)?;
    let (_, config) = bench.configure();
    Ok((bench.kafka, bench.data, config))
}

impl Bench {
    /// Starts a broker and fills two topics. The broker ends with this value.
    fn new(requests: u64) -> Result<Bench> {
        let kafka = Kafka::start(KafkaOptions::default())?;
        let data = Data::generated(requests, SEED);
        let setup = Setup::new(&kafka.bootstrap(), &data, "bench");
        let config = setup.config("generate", "", "");
        succeed(&mut setup.generate(&config, requests, SEED));
        let expected = data.cells(&mut data.backfill(&example("reference.toml")));
        let events = events(&data)?;
        sync()?;
        Ok(Bench { kafka, data, setup, events, expected, next: 0 })
    }

    /// The name of a run, with a configuration of its own in a group of its own.
    fn configure(&mut self) -> (String, PathBuf) {
        self.next += 1;
        let name = format!("run-{}", self.next);
        self.setup.group = format!("group-{name}");
        let config = self.setup.config(&name, "", "");
        (name, config)
    }

    fn marquee(&mut self, binary: &Path) -> Result<Run> {
        let (name, config) = self.configure();
        let broker_before = cpu_seconds_of(self.kafka.pid())?;
        let start = Instant::now();
        let mut command = Command::new(binary);
        command.args(["run", "-c"]).arg(&config).env_remove("RUST_LOG");
        let service = Service::of(&mut command, &self.data.file("service.log"));
        let (events_at_first, first) = wait_for(&service, 1, false)?;
        let (_, last) = wait_for(&service, self.events, true)?;
        let run = Run {
            rate: self.events as f64 / (last - start).as_secs_f64(),
            rate_at_work: (self.events - events_at_first) as f64 / (last - first).as_secs_f64(),
            cpu_seconds: cpu_seconds_of(service.pid())?,
            broker_seconds: cpu_seconds_of(self.kafka.pid())? - broker_before,
            peak_bytes: peak_bytes_of(service.pid()).context("the service has ended")?,
        };
        let code = service.terminate();
        ensure!(code == Some(0), "the service ended with {code:?}");
        self.check(binary, &config)?;
        std::fs::remove_dir_all(self.setup.store(&name))?;
        report("marquee", &run);
        Ok(run)
    }

    /// The cells of a store must be those of the backfill.
    fn check(&self, binary: &Path, config: &Path) -> Result<()> {
        let mut trends = Command::new(binary);
        trends.args(["trends", "--format", "csv", "-c"]).arg(config);
        let cells = run(&mut trends).expect_code(0).stdout;
        ensure!(cells == self.expected, "the store's cells differ from those of a backfill");
        Ok(())
    }

    fn reader(&mut self) -> Result<Run> {
        let (_, config) = self.configure();
        let broker_before = cpu_seconds_of(self.kafka.pid())?;
        let start = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["reader", "-c"]).arg(&config);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut line)?;
        let seconds = start.elapsed().as_secs_f64();
        let [records, _bytes, at_work] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("the bare reader says {line:?}");
        };
        ensure!(records.parse() == Ok(self.events), "the bare reader has read {records} records");
        let run = Run {
            rate: self.events as f64 / seconds,
            rate_at_work: self.events as f64 / at_work.parse::<f64>()?,
            cpu_seconds: cpu_seconds_of(child.id())?,
            broker_seconds: cpu_seconds_of(self.kafka.pid())? - broker_before,
            peak_bytes: peak_bytes_of(child.id()).context("the reader has ended")?,
        };
        // The end of its standard input ends it.
        drop(child.stdin.take());
        ensure!(child.wait()?.success(), "the bare reader failed");
        report("bare reader", &run);
        Ok(run)
    }
}

/// Waits until so many events are counted; how many there were then, and when it was seen.
fn wait_for(service: &Service, events: u64, is_all: bool) -> Result<(u64, Instant)> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let status = service.get("/v1/status");
        let counted = status["totals"]["events"].as_u64().unwrap_or(0);
        ensure!(!is_all || counted <= events, "{counted} events were counted of {events}");
        let is_done = status["ready"] == true && status["lag"] == 0;
        if counted >= events && (is_done || !is_all) {
            return Ok((counted, Instant::now()));
        }
        thread::sleep(LOOK);
    }
    bail!("not counted in time: {}", service.get("/v1/status"))
}

fn report(name: &str, run: &Run) {
    let Run { rate, rate_at_work, cpu_seconds, broker_seconds, peak_bytes } = run;
    eprintln!(
        "  {name}: {:.2} M events/s, {:.2} at work, {cpu_seconds} s of CPU, broker {:.2} s, {} MB",
        rate / 1e6,
        rate_at_work / 1e6,
        broker_seconds,
        peak_bytes / 1_000_000
    );
}

fn row(what: &str, runs: &[Run]) -> Row {
    let of = |value: fn(&Run) -> f64| spread(&runs.iter().map(value).collect::<Vec<_>>());
    let (all, at_work) = (of(|run| run.rate / 1e6), of(|run| run.rate_at_work / 1e6));
    Row {
        what: what.to_owned(),
        result: format!("{all} M events/s; without its start {at_work}"),
        memory: format!("{} MB", peak(runs) / 1_000_000),
    }
}

/// Rates of the first over those of the second, pair by pair.
fn ratio(what: &str, ours: &[Run], theirs: &[Run]) -> Row {
    let pairs = || ours.iter().zip(theirs);
    let all: Vec<f64> = pairs().map(|(a, b)| a.rate / b.rate).collect();
    let at_work: Vec<f64> = pairs().map(|(a, b)| a.rate_at_work / b.rate_at_work).collect();
    Row {
        what: format!("{what}, pair by pair"),
        result: format!("{} x as fast; without starts {}", spread(&all), spread(&at_work)),
        memory: format!("{:.2} x", peak(ours) as f64 / peak(theirs) as f64),
    }
}

fn cpu(what: &str, events: u64, runs: &[Run]) -> Row {
    let million = events as f64 / 1e6;
    let own: Vec<f64> = runs.iter().map(|run| run.cpu_seconds / million).collect();
    let broker: Vec<f64> = runs.iter().map(|run| run.broker_seconds / million).collect();
    let share = runs.iter().map(|run| run.broker_seconds / (run.broker_seconds + run.cpu_seconds));
    let share = median(&share.collect::<Vec<_>>());
    Row {
        what: what.to_owned(),
        result: format!(
            "{} s per M events; the broker meanwhile {}, {:.0} % of both",
            spread(&own),
            spread(&broker),
            100.0 * share
        ),
        memory: String::new(),
    }
}

fn peak(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0)
}
