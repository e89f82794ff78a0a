//! Flame graphs for the documents: where a backfill and a service that catches up with Kafka spend
//! their time, by samples of perf, drawn by inferno. A picture, not a measurement: for figures see
//! [`stages`](crate::stages).

use crate::kafka;
use anyhow::{Context, Result, bail, ensure};
use marquee_e2e::data::{Data, example};
use marquee_e2e::program::{binary, root};
use marquee_e2e::service::Service;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Requests of the generated data (about 8.7 events each)
    #[arg(long, default_value_t = 600_000)]
    requests: u64,
}

/// Samples in a second of a core: no divisor of what programs do in a second.
const PER_SECOND: &str = "-F997";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for (tool, package) in [
        ("perf", "the package linux-perf"),
        ("inferno-collapse-perf", "cargo install inferno"),
        ("inferno-flamegraph", "cargo install inferno"),
    ] {
        let mut help = Command::new(tool);
        help.arg("--help").stdout(Stdio::null()).stderr(Stdio::null());
        if help.status().is_err() {
            bail!("{tool} is missing ({package}): install it, and try again");
        }
    }
    let folder = tempfile::tempdir()?;
    let samples = folder.path().join("samples");
    backfill(arguments, &samples)?;
    draw(&samples, "marquee backfill: NDJSON to CSV", "flame-backfill.svg")?;
    catch_up(arguments, &samples)?;
    draw(&samples, "marquee run: Kafka to the durable store", "flame-kafka.svg")
}

fn record(samples: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "cpu-clock", PER_SECOND, "--call-graph", "dwarf,8192", "-o"]);
    perf.arg(samples).stdin(Stdio::null());
    perf
}

fn backfill(arguments: &Arguments, samples: &Path) -> Result<()> {
    let data = Data::generated(arguments.requests, 7);
    let mut perf = record(samples);
    perf.arg("--").arg(binary()).args(["backfill", "-c"]).arg(example("reference.toml"));
    perf.arg("--impressions").arg(&data.impressions).arg("--plays").arg(&data.plays);
    perf.arg("--out").arg(data.file("cells.csv"));
    ensure!(perf.status()?.success(), "{perf:?} failed");
    Ok(())
}

/// A service that catches up with what stands in Kafka. perf ends with it.
fn catch_up(arguments: &Arguments, samples: &Path) -> Result<()> {
    let (kafka, data, config) = kafka::filled(arguments.requests)?;
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(config).env_remove("RUST_LOG");
    let service = Service::of(&mut command, &data.file("service.log"));
    let mut perf = record(samples).args(["-p", &service.pid().to_string()]).spawn()?;
    service.wait_until_counted(data.events());
    ensure!(service.terminate() == Some(0), "the service failed");
    ensure!(perf.wait()?.success(), "perf failed");
    drop(kafka);
    Ok(())
}

fn draw(samples: &Path, title: &str, name: &str) -> Result<()> {
    let folded = samples.with_extension("folded");
    let mut script = Command::new("perf");
    script.args(["script", "-i"]).arg(samples).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut script = script.spawn()?;
    let stacks = script.stdout.take().context("it is piped")?;
    let mut collapse = Command::new("inferno-collapse-perf");
    collapse.stdin(stacks).stdout(File::create(&folded)?).stderr(Stdio::null());
    ensure!(collapse.status()?.success() && script.wait()?.success(), "{collapse:?} failed");
    let path = root().join("docs").join(name);
    let mut flame = Command::new("inferno-flamegraph");
    flame.args(["--title", title, "--minwidth", "0.8", "--width", "1100"]).arg(&folded);
    ensure!(flame.stdout(File::create(&path)?).status()?.success(), "{flame:?} failed");
    println!("docs/{name}: {} bytes", std::fs::metadata(&path)?.len());
    Ok(())
}
