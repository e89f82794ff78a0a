//! The bare reader: what Kafka and its client cost without us. It joins a group as `marquee run`
//! does and reads both topics whole by the same [`KafkaSource`], one thread for each owner, but only
//! adds up: it neither decodes nor stores.
//!
//! A process of its own (a hidden command), so that it is measured as a service is. It says what it
//! has read and then waits for the end of its standard input, so that it can be looked at.

use anyhow::{Context, Result, anyhow, ensure};
use marquee::commands::Failure;
use marquee::config::Config;
use marquee::wiring;
use marquee_sources::kafka::{KafkaCluster, KafkaSource};
use marquee_sources::{AssignedLane, Change, Limit, Source};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// As `marquee run` reads.
const LIMIT: Limit = Limit { before: u64::MAX, records: 4096, bytes: 4 << 20 };
const SHORT_WAIT: Duration = Duration::from_millis(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that names brokers, topics and the group
    #[arg(short, long)]
    config: PathBuf,
}

/// What one owner has read since it was given its lanes.
#[derive(Clone, Copy, Default)]
struct Sum {
    records: u64,
    bytes: u64,
    /// When its first record and its last came.
    times: Option<(Instant, Instant)>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let failed = |failure: Failure| anyhow!(failure.lines().join("\n"));
    let config = Config::load(&arguments.config).map_err(|f| failed(Failure::Config(f)))?;
    let plan = wiring::plan(&config).map_err(failed)?;
    let cluster = KafkaCluster::connect(wiring::kafka(&config, &plan))?;
    let mut sources = KafkaSource::join(&cluster, wiring::threads(&config))?;
    let topics = plan.topics().len();
    let sums = thread::scope(|scope| {
        let owner = |source| scope.spawn(move || read_all(source, topics));
        let owners: Vec<_> = sources.iter_mut().map(owner).collect();
        let join = |owner: thread::ScopedJoinHandle<'_, Result<Sum>>| {
            owner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        owners.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let first = sums.iter().filter_map(|sum| sum.times).map(|(first, _)| first).min();
    let last = sums.iter().filter_map(|sum| sum.times).map(|(_, last)| last).max();
    let seconds = (last.context("no records")? - first.context("no records")?).as_secs_f64();
    let records: u64 = sums.iter().map(|sum| sum.records).sum();
    let bytes: u64 = sums.iter().map(|sum| sum.bytes).sum();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{records} {bytes} {seconds}")?;
    stdout.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    // Only here do the members leave: earlier, the others would have to share anew.
    drop(sources);
    Ok(())
}

/// Reads what one owner is given, whole. A group that shares anew begins again.
fn read_all(source: &mut KafkaSource, topics: usize) -> Result<Sum> {
    let mut lanes: Vec<AssignedLane> = Vec::new();
    let mut positions = Vec::new();
    let mut sum = Sum::default();
    loop {
        match source.change()? {
            Change::None => {}
            Change::Assigned(assigned) => {
                ensure!(!assigned.is_empty(), "an owner without lanes");
                lanes = assigned;
                sum = Sum::default();
                positions = vec![vec![0; topics]; lanes.len()];
                let from: Vec<_> = lanes.iter().map(|l| (l.lane, vec![0; topics])).collect();
                source.start(&from)?;
            }
            Change::Revoked => {
                lanes.clear();
                source.release()?;
            }
        }
        let before = sum.records;
        for (lane, positions) in lanes.iter().zip(&mut positions) {
            for (topic, position) in positions.iter_mut().enumerate() {
                *position = source.read(topic, lane.lane, LIMIT, &mut |record| {
                    sum.records += 1;
                    sum.bytes += record.payload.map_or(0, <[u8]>::len) as u64;
                })?;
            }
        }
        if sum.records > before {
            let now = Instant::now();
            sum.times = Some((sum.times.map_or(now, |(first, _)| first), now));
        } else {
            thread::sleep(SHORT_WAIT);
        }
        let mut all = lanes.iter().zip(&positions);
        let is_read = |(lane, at): (&AssignedLane, &Vec<u64>)| {
            at.iter().zip(&lane.end_offsets).all(|(at, end)| at >= end)
        };
        if !lanes.is_empty() && all.all(is_read) {
            return Ok(sum);
        }
    }
}
