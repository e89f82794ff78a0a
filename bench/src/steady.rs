//! Whether an event costs the same after days as in the first minutes, whether memory grows, and
//! what a second thread brings: [`stream`](crate::stream) in processes of its own.

use crate::page::{self, Row};
use crate::stream::Milestone;
use crate::{endless, median};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events of the long run
    #[arg(long, default_value_t = 200_000_000)]
    events: u64,
    /// Events of each run with one thread and with two
    #[arg(long, default_value_t = 5_000_000)]
    scale_events: u64,
    /// Pairs of such runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Requests that start in each half hour of event time (about 8.7 events each)
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Keep no results
    #[arg(long)]
    no_store: bool,
}

/// Runs of so many events each, and the long one: what an event costs over a whole run.
const LENGTHS: [u64; 5] = [1_000_000, 1_000_000, 1_000_000, 10_000_000, 50_000_000];
/// Where the long run is looked at: after so many percent.
const LOOKS: [u64; 4] = [5, 25, 50, 75];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut rows = Vec::new();
    if arguments.runs > 0 {
        rows.push(scale(arguments)?);
    }
    if arguments.events > 0 {
        rows.extend(flat(arguments)?);
    }
    println!("{}", page::table(&rows));
    Ok(())
}

/// Runs of all lengths, and what an event costs in each.
fn flat(arguments: &Arguments) -> Result<Vec<Row>> {
    let making_ns = endless::cost_ns(arguments.requests)?;
    eprintln!("making an event costs {making_ns:.0} ns, which is taken off");
    let (mut rows, mut costs) = (Vec::new(), Vec::new());
    let lengths = LENGTHS.into_iter().filter(|length| *length < arguments.events);
    for length in lengths.chain([arguments.events]) {
        let looks = if length == arguments.events { LOOKS.as_slice() } else { &[] };
        let looks: Vec<u64> = looks.iter().map(|percent| length / 100 * percent).collect();
        let start = Milestone::default();
        let reached = stream(arguments, length, 2, &looks)?;
        let last = reached.last().context("it says what it has done")?;
        if !looks.is_empty() {
            let starts = std::iter::once(&start).chain(&reached);
            let parts = starts.zip(&reached).map(|(a, b)| row(arguments, a, b, making_ns));
            rows.extend(parts.map(|(row, _)| row));
        }
        let (row, cost) = row(arguments, &start, last, making_ns);
        rows.push(row);
        costs.push((length, cost));
    }
    let of = |length| {
        let costs = costs.iter().filter(|(other, _)| *other == length);
        median(&costs.map(|(_, cost)| *cost).collect::<Vec<_>>())
    };
    rows.push(Row {
        what: format!("cost of an event, {} M events : 1 M", arguments.events / 1_000_000),
        result: format!("{:.2} x", of(arguments.events) / of(LENGTHS[0])),
        memory: String::new(),
    });
    Ok(rows)
}

/// What the events between two milestones have cost: a row, and nanoseconds of a core an event.
fn row(arguments: &Arguments, from: &Milestone, to: &Milestone, making_ns: f64) -> (Row, f64) {
    let events = (to.events - from.events) as f64;
    let ns = |of: fn(&Milestone) -> f64| (of(to) - of(from)) * 1e9 / events;
    let owners = ns(|m| m.owners_seconds) - making_ns;
    let others = ns(|m| m.others_seconds);
    let rate = events / (to.seconds - from.seconds) / 1e6;
    let [from_days, to_days] = [from, to].map(|m| days(m, arguments.requests));
    let row = Row {
        what: format!(
            "events {:.1} M to {:.1} M, days {from_days:.1} to {to_days:.1}",
            from.events as f64 / 1e6,
            to.events as f64 / 1e6,
        ),
        result: format!(
            "{:.0} ns of a core an event ({owners:.0} owners, {others:.0} the store's threads); \
             {rate:.2} M events/s; {} late",
            owners + others,
            to.late
        ),
        memory: format!(
            "{} MB, of it state {:.1} MB; {} MB on disk",
            to.rss_bytes / 1_000_000,
            to.state_bytes as f64 / 1e6,
            to.disk_bytes / 1_000_000
        ),
    };
    eprintln!("  {}: {}; {}", row.what, row.result, row.memory);
    (row, owners + others)
}

/// Days of event time, about.
fn days(reached: &Milestone, requests: u64) -> f64 {
    const EVENTS_A_REQUEST: f64 = 8.73;
    let laps = reached.events as f64 / (requests as f64 * EVENTS_A_REQUEST);
    laps * endless::LAP_MS as f64 / 86_400_000.0
}

/// One thread and two, in turn.
fn scale(arguments: &Arguments) -> Result<Row> {
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..arguments.runs {
        for threads in [1, 2] {
            let reached = stream(arguments, arguments.scale_events, threads, &[])?;
            let last = reached.last().context("it says what it has done")?;
            rates[threads - 1].push(last.events as f64 / last.seconds / 1e6);
        }
        let [one, two] = [0, 1].map(|place| rates[place].last().copied().unwrap_or(f64::NAN));
        eprintln!("  one thread {one:.2} M/s, two {two:.2} M/s: {:.2} x", two / one);
        ratios.push(two / one);
    }
    Ok(Row {
        what: format!("lanes, 1 -> 2 threads, {} events", arguments.scale_events),
        result: format!(
            "{} x ({:.2} -> {:.2} M events/s)",
            crate::spread(&ratios),
            median(&rates[0]),
            median(&rates[1])
        ),
        memory: String::new(),
    })
}

/// Runs the lanes on so many events; what they said on the way.
fn stream(
    arguments: &Arguments,
    events: u64,
    threads: usize,
    looks: &[u64],
) -> Result<Vec<Milestone>> {
    let looks: Vec<String> = looks.iter().map(u64::to_string).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("stream").arg(format!("--events={events}"));
    command.arg(format!("--requests={}", arguments.requests));
    command.arg(format!("--threads={threads}"));
    if !looks.is_empty() {
        command.arg(format!("--milestones={}", looks.join(",")));
    }
    if arguments.no_store {
        command.arg("--no-store");
    }
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let reached = lines.map(|line| Milestone::of_json(&line?)).collect::<Result<Vec<_>>>()?;
    ensure!(child.wait()?.success(), "{command:?} failed");
    Ok(reached)
}
