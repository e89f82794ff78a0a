//! The pure pipeline alone: decoded events in, changed cells out, in one thread.

use crate::page::Row;
use crate::process::thread_cpu_ns;
use crate::{Arguments, median};
use anyhow::{Result, anyhow};
use marquee::commands::Failure;
use marquee::config::Config;
use marquee_e2e::data::{Data, example};
use marquee_expr::Value;
use marquee_model::{Kind, Side};
use marquee_pipeline::lane::{LanePipeline, LaneSettings};
use marquee_pipeline::prepare::{Stream, TIME};
use marquee_sources::json::{Decoder, RecordMeta};
use std::borrow::Cow;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// More would measure the memory that the decoded events take, not the pipeline.
const REQUESTS_MAX: u64 = 100_000;

/// Events between two writes, as a lane that keeps up would have them.
const BATCH: usize = 50_000;

/// An event that owns its texts.
struct Decoded {
    kind: Kind,
    values: Vec<Value<'static>>,
}

impl Decoded {
    fn copy(&self) -> Decoded {
        Decoded { kind: self.kind, values: self.values.iter().map(owned).collect() }
    }
}

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    let config =
        Config::load(&example("reference.toml")).map_err(|f| failed(Failure::Config(f)))?;
    let plan = marquee::wiring::plan(&config).map_err(failed)?;
    let data = Data::generated(arguments.requests.min(REQUESTS_MAX), 7);
    let mut events = decode(Kind::Impression, &plan.impressions.decoder, &data.impressions)?;
    events.extend(decode(Kind::Play, &plan.plays.decoder, &data.plays)?);
    events.sort_by_key(time_ms);
    // Copied, so that they lie in memory in the order in which they are read.
    let events: Vec<Decoded> = events.iter().map(Decoded::copy).collect();
    eprintln!("the core alone, {} events, {} runs", events.len(), arguments.runs);
    let settings = LaneSettings {
        settings: plan.settings.clone(),
        max_ahead_ms: Some(plan.max_ahead_ms),
        secret: [7; 16],
        topics: 2,
    };
    let streams = [&plan.impressions.stream, &plan.plays.stream];
    let (mut ns, mut expiry) = (Vec::new(), Vec::new());
    let mut cells = 0;
    let mut state_bytes = 0;
    for _ in 0..arguments.runs {
        let mut lane = LanePipeline::new(settings.clone());
        let start = thread_cpu_ns()?;
        let letting_go;
        (cells, letting_go) = feed(&mut lane, streams, &events);
        let all_ns = (thread_cpu_ns()? - start) as f64;
        ns.push(all_ns / events.len() as f64);
        expiry.push(100.0 * letting_go.as_nanos() as f64 / all_ns);
        state_bytes = lane.size().memory_bytes;
    }
    let ns = median(&ns);
    Ok(vec![Row {
        what: format!("the core alone, one lane, {} events, {cells} cell writes", events.len()),
        result: format!(
            "{ns:.0} ns of a core per event, {:.2} M events/s; letting epochs go {:.2} % of it",
            1e3 / ns,
            median(&expiry)
        ),
        memory: format!("{} MB at the end", state_bytes / 1_000_000),
    }])
}

/// Feeds all events in batches; the number of changed cells that had to be written, and the time
/// that it took to let epochs go.
fn feed(lane: &mut LanePipeline, streams: [&Stream; 2], events: &[Decoded]) -> (usize, Duration) {
    let (mut cells, mut letting_go) = (0, Duration::ZERO);
    for batch in events.chunks(BATCH) {
        for event in batch {
            let topic = usize::from(event.kind == Kind::Play);
            black_box(lane.event(streams[topic], topic, &event.values));
        }
        let changed = lane.batch();
        cells += changed.len();
        for cell in changed.cells() {
            Side::BOTH.into_iter().for_each(|side| drop(black_box(cell.chunk(side))));
        }
        let start = Instant::now();
        lane.advance();
        letting_go += start.elapsed();
    }
    (cells, letting_go)
}

fn decode(kind: Kind, decoder: &Decoder, path: &Path) -> Result<Vec<Decoded>> {
    let text = std::fs::read(path)?;
    let mut events = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        decoder.decode(line, &RecordMeta::default(), |values| {
            // What is generated is good; a dead letter would not reach the core.
            let values = values.iter().flat_map(|values| values.iter()).map(owned).collect();
            events.push(Decoded { kind, values });
        });
    }
    Ok(events)
}

fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Null | Value::StringMap(_) => Value::Null,
        Value::Bool(value) => Value::Bool(*value),
        Value::Int(value) => Value::Int(*value),
        Value::Double(value) => Value::Double(*value),
        Value::String(text) => Value::String(Cow::Owned(text.clone().into_owned())),
    }
}

fn time_ms(event: &Decoded) -> i64 {
    match event.values.get(TIME) {
        Some(Value::Int(time_ms)) => *time_ms,
        _ => 0,
    }
}

fn failed(failure: Failure) -> anyhow::Error {
    anyhow!(failure.lines().join("\n"))
}
