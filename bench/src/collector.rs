//! The collector: clients post batches to a running service, each waiting for its answer, which
//! comes when the events are durable.

use crate::Arguments;
use crate::page::Row;
use anyhow::{Result, ensure};
use marquee_e2e::data::{Data, example};
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::Service;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const EVENTS_PER_BATCH: usize = 500;

/// More would only take longer.
const REQUESTS_MAX: u64 = 100_000;

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let what = format!("collector, {CLIENTS} clients, batches of {EVENTS_PER_BATCH}");
    if run(&mut marquee(["run", "--help"])).code != Some(0) {
        return Ok(vec![Row::note(&what, "not measured: this binary has no `run`")]);
    }
    eprintln!("{what}");
    let data = Data::generated(arguments.requests.min(REQUESTS_MAX), 7);
    let config = data.write("collector.toml", settings()?);
    let service = Service::start(&config, &data.file("service.log"));
    let text = std::fs::read_to_string(&data.impressions)?;
    let lines: Vec<&str> = text.lines().collect();
    let bodies: Vec<String> = lines.chunks(EVENTS_PER_BATCH).map(|part| part.join("\n")).collect();
    let start = Instant::now();
    let mut latencies = post_all(&service.address, &bodies)?;
    let seconds = start.elapsed().as_secs_f64();
    let code = service.terminate();
    ensure!(code == Some(0), "the service ended with {code:?}");
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_millis();
    Ok(vec![Row {
        what: format!("{what}, {} events", lines.len()),
        result: format!("{:.0} accepted events/s", lines.len() as f64 / seconds),
        memory: format!("p50 {} ms, p99 {} ms", at(0.5), at(0.99)),
    }])
}

/// The reference job as a service on a free port, its folders beside its file.
fn settings() -> Result<String> {
    let reference = std::fs::read_to_string(example("reference.toml"))?;
    // Nothing is late here: what is measured is the way in.
    Ok(reference + "\n[http]\nlisten = \"127.0.0.1:0\"\n")
}

/// Posts each body once, by as many clients at once as there are; how long each took.
fn post_all(address: &str, bodies: &[String]) -> Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<Vec<Duration>> {
        // One agent for all posts of a client: it keeps its connection.
        let agent = ureq::Agent::new_with_defaults();
        let mut latencies = Vec::new();
        while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
            latencies.push(post(&agent, address, body)?);
        }
        Ok(latencies)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut latencies = Vec::new();
        for client in clients {
            let client = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            latencies.extend(client?);
        }
        Ok(latencies)
    })
}

/// Posts one body until it is accepted: under pressure the collector asks to wait.
fn post(agent: &ureq::Agent, address: &str, body: &str) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let request = agent.post(format!("{address}/v1/impressions"));
        let answer = request.content_type("application/x-ndjson").send(body);
        match answer {
            Ok(answer) => {
                ensure!(answer.status() == 202, "the collector answers {}", answer.status());
                return Ok(start.elapsed());
            }
            Err(ureq::Error::StatusCode(429 | 503)) => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
}
