//! `marquee backfill` and DuckDB on the same files, in turn: A B A B ... Both read NDJSON, then the
//! same events as Parquet (written by DuckDB, with its defaults), and write CSV with two threads;
//! their results must be equal. Before each pair marquee runs with one thread.
//!
//! For marquee the clock is the whole process, for DuckDB the query alone (Python's start and the
//! import do not count against it). Memory is the kernel's high-water mark of the process.

use crate::page::Row;
use crate::process::{events, peak_bytes_of, sync};
use crate::{Arguments, median, spread};
use anyhow::{Context, Result, ensure};
use marquee_e2e::cells::{assert_same, of_csv};
use marquee_e2e::data::{self, Data, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::program::root;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the high-water mark: the last look may miss what came after it.
const LOOK: Duration = Duration::from_millis(2);

/// One run of one program.
struct Run {
    seconds: f64,
    peak_bytes: u64,
    stdout: String,
}

pub(crate) fn measure(arguments: &Arguments) -> Result<Vec<Row>> {
    eprintln!("backfill and DuckDB, {} requests, {} runs", arguments.requests, arguments.runs);
    let data = Data::generated(arguments.requests, 7);
    sync()?;
    let events = events(&data)?;
    let ndjson = [data.impressions.as_path(), data.plays.as_path()];
    let Some(duckdb) = DuckDb::quietly() else {
        let note = Row::note("DuckDB and Parquet", "not measured: no python3 with duckdb");
        let ndjson = compare(arguments, &data, None, ndjson, events)?;
        return Ok(ndjson.into_iter().chain([note]).collect());
    };
    let parquet = [data.file("impressions.parquet"), data.file("plays.parquet")];
    for (from, to) in [&data.impressions, &data.plays].into_iter().zip(&parquet) {
        let [from, to] = [from, to].map(|path| literal(path));
        // DuckDB takes the ids for UUIDs, whose form in Parquet marquee does not read.
        let copy = format!(
            "copy (select * replace (request_id::varchar as request_id) from read_ndjson({from}))
             to {to} (format parquet)"
        );
        duckdb.rows(&[&copy]);
    }
    sync()?;
    let parquet = [parquet[0].as_path(), parquet[1].as_path()];
    let mut rows = compare(arguments, &data, Some(&duckdb), ndjson, events)?;
    rows.extend(compare(arguments, &data, Some(&duckdb), parquet, events)?);
    Ok(rows)
}

/// Both programs on two files, in turn.
fn compare(
    arguments: &Arguments,
    data: &Data,
    duckdb: Option<&DuckDb>,
    inputs: [&Path; 2],
    events: u64,
) -> Result<Vec<Row>> {
    let form = inputs[0].extension().and_then(|e| e.to_str()).unwrap_or_default();
    let (ours, theirs) = (data.file("marquee.csv"), data.file("duckdb.csv"));
    let (mut marquee_runs, mut single_runs) = (Vec::new(), Vec::new());
    let mut duckdb_runs = Vec::new();
    for _ in 0..arguments.runs {
        single_runs.push(run(&mut backfill(inputs, &ours, 1))?);
        marquee_runs.push(run(&mut backfill(inputs, &ours, 2))?);
        if let Some(duckdb) = duckdb {
            duckdb_runs.push(run_duckdb(duckdb, inputs, &theirs)?);
        }
    }
    let mut rows = vec![
        row(&format!("marquee backfill, {form}"), events, &marquee_runs),
        scale(form, &single_runs, &marquee_runs),
    ];
    if let Some(duckdb) = duckdb {
        assert_same(&cells(&ours)?, &cells(&theirs)?);
        rows.push(row(&format!("DuckDB {}, {form}", duckdb.version()), events, &duckdb_runs));
        rows.push(ratio(&marquee_runs, &duckdb_runs));
    }
    Ok(rows)
}

fn row(name: &str, events: u64, runs: &[Run]) -> Row {
    let rates: Vec<f64> = runs.iter().map(|run| events as f64 / 1e6 / run.seconds).collect();
    let peak = runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0);
    Row {
        what: format!("{name}, {events} events"),
        result: format!("{} M events/s", spread(&rates)),
        memory: format!("{} MB", peak / 1_000_000),
    }
}

fn scale(form: &str, single: &[Run], double: &[Run]) -> Row {
    let ratios = single.iter().zip(double).map(|(one, two)| one.seconds / two.seconds);
    Row {
        what: format!("marquee backfill, {form}, 1 -> 2 threads, pair by pair"),
        result: format!("{} x as fast", spread(&ratios.collect::<Vec<_>>())),
        memory: String::new(),
    }
}

fn ratio(ours: &[Run], theirs: &[Run]) -> Row {
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| theirs.seconds / ours.seconds);
    let ratios: Vec<f64> = ratios.collect();
    let peak = |runs: &[Run]| runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0) as f64;
    Row {
        what: "marquee : DuckDB, median of pairs".to_owned(),
        result: format!("{:.2} x as fast (least {:.2})", median(&ratios), min(&ratios)),
        memory: format!("{:.2} x", peak(ours) / peak(theirs)),
    }
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn backfill([impressions, plays]: [&Path; 2], out: &Path, threads: u32) -> Command {
    let mut command = data::backfill(&example("reference.toml"), impressions, plays);
    command.args(["--threads", &threads.to_string(), "--out"]).arg(out);
    command
}

fn run_duckdb(duckdb: &DuckDb, inputs: [&Path; 2], out: &Path) -> Result<Run> {
    let mut command = Command::new(duckdb.python());
    command.arg(root().join("bench/reference.py")).args(inputs).arg(out);
    let mut run = run(&mut command)?;
    run.seconds = run.stdout.trim().parse().context("reference.py prints its seconds")?;
    Ok(run)
}

/// Runs a command that must succeed, and watches its memory.
fn run(command: &mut Command) -> Result<Run> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut peak_bytes = 0;
    let status = loop {
        peak_bytes = peak_bytes_of(child.id()).unwrap_or(0).max(peak_bytes);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(LOOK);
    };
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?} failed");
    let mut stdout = String::new();
    if let Some(mut from) = child.stdout.take() {
        std::io::Read::read_to_string(&mut from, &mut stdout)?;
    }
    Ok(Run { seconds, peak_bytes, stdout })
}

fn cells(path: &Path) -> Result<Vec<marquee_e2e::cells::Cell>> {
    let csv = std::fs::read_to_string(path)?;
    // DuckDB quotes the empty text, which is no null to it; RFC 4180 sees no difference.
    Ok(of_csv(csv.replace(",\"\",", ",,").as_bytes()))
}
