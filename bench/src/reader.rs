//! The bare reader: what Kafka and its client cost without us. It joins a group as `marquee run`
//! does and reads both topics whole by the same [`KafkaSource`], one thread for each owner, but only
//! adds up: it neither decodes nor stores.
//!
//! A process of its own (a hidden command), so that it is measured as a service is. It says what it
//! has read and then waits for the end of its standard input, so that it can be looked at.

use anyhow::{Context, Result, anyhow};
use marquee::commands::Failure;
use marquee::config::Config;
use marquee::wiring;
use marquee_sources::kafka::{KafkaCluster, KafkaSource};
use marquee_sources::{AssignedLane, Change, Limit, Record, Source};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let (lanes_done, all_lanes) = (&AtomicUsize::new(0), cluster.lanes() as usize);
    let sums = thread::scope(|scope| {
        let owner = |source| {
            let (lanes, positions) = (Vec::new(), Vec::new());
            let (sum, is_done) = (Sum::default(), false);
            let owner = Owner { source, topics, lanes, positions, sum, is_done };
            // An owner that fails must not leave the others waiting for its lanes.
            let end = move |_: &anyhow::Error| lanes_done.store(all_lanes, Ordering::SeqCst);
            scope.spawn(move || owner.run(lanes_done, all_lanes).inspect_err(end))
        };
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

/// One owner at its work.
struct Owner<'a> {
    source: &'a mut KafkaSource,
    topics: usize,
    lanes: Vec<AssignedLane>,
    /// By lane, then by topic.
    positions: Vec<Vec<u64>>,
    sum: Sum,
    is_done: bool,
}

impl Owner<'_> {
    /// Reads what it is given, whole, and answers the group until all lanes were read.
    fn run(mut self, lanes_done: &AtomicUsize, all_lanes: usize) -> Result<Sum> {
        while lanes_done.load(Ordering::SeqCst) < all_lanes {
            match self.source.change()? {
                Change::None => {}
                Change::Assigned(lanes) => self.begin(lanes)?,
                Change::Revoked => {
                    if std::mem::take(&mut self.is_done) {
                        lanes_done.fetch_sub(self.lanes.len(), Ordering::SeqCst);
                    }
                    (self.lanes, self.sum) = (Vec::new(), Sum::default());
                    self.source.release()?;
                }
            }
            if !self.read()? {
                thread::sleep(SHORT_WAIT);
            }
            if !self.is_done && self.is_at_end() {
                self.is_done = true;
                lanes_done.fetch_add(self.lanes.len(), Ordering::SeqCst);
            }
        }
        Ok(self.sum)
    }

    fn begin(&mut self, lanes: Vec<AssignedLane>) -> Result<()> {
        self.positions = vec![vec![0; self.topics]; lanes.len()];
        let from = lanes.iter().map(|lane| (lane.lane, vec![0; self.topics]));
        self.source.start(&from.collect::<Vec<_>>())?;
        self.lanes = lanes;
        Ok(())
    }

    /// Reads what is there; whether that was anything.
    fn read(&mut self) -> Result<bool> {
        let Sum { mut records, mut bytes, .. } = self.sum;
        for (lane, positions) in self.lanes.iter().zip(&mut self.positions) {
            for (topic, position) in positions.iter_mut().enumerate() {
                *position = self.source.read(topic, lane.lane, LIMIT, &mut |stretch| {
                    let bytes_of = |record: &Record<'_>| record.payload.map_or(0, <[u8]>::len);
                    records += stretch.len() as u64;
                    bytes += stretch.iter().map(bytes_of).sum::<usize>() as u64;
                })?;
            }
        }
        if records == self.sum.records {
            return Ok(false);
        }
        let now = Instant::now();
        let first = self.sum.times.map_or(now, |(first, _)| first);
        self.sum = Sum { records, bytes, times: Some((first, now)) };
        Ok(true)
    }

    fn is_at_end(&self) -> bool {
        let mut lanes = self.lanes.iter().zip(&self.positions);
        !self.lanes.is_empty()
            && lanes.all(|(lane, at)| at.iter().zip(&lane.end_offsets).all(|(at, end)| at >= end))
    }
}
