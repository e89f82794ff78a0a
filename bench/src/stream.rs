//! The real lanes on an [`endless`](crate::endless) log, into a real store or into none: everything
//! that a service does with an event, but for the log that it comes from.
//!
//! A process of its own (a hidden command), so that its memory and its processors can be told from
//! those of whoever measures. At each milestone it writes a line of JSON, a [`Milestone`].

use crate::endless::{self, LANES};
use crate::process::{cpu_of_threads, rss_bytes};
use anyhow::{Result, anyhow, ensure};
use marquee::commands::Failure;
use marquee::config::Config;
use marquee::{store, wiring};
use marquee_e2e::data::example;
use marquee_model::{CellCounts, CellKey, Side};
use marquee_pipeline::chunk::Id;
use marquee_runtime::lanes::{Lanes, LanesSettings, SnapshotsSettings, StateFolder, StateMemory};
use marquee_runtime::{Plan, SystemClock};
use marquee_sinks::letters::LetterFolder;
use marquee_sinks::snapshots::SnapshotFolder;
use marquee_sinks::{Gap, LaneCommit, LaneState, Sink, SinkError};
use marquee_sources::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the lanes.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events, about
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) events: u64,
    /// Requests that start in each half hour of event time (about 8.7 events each)
    #[arg(long, default_value_t = 20_000)]
    pub(crate) requests: u64,
    /// Threads that own the four lanes
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Keep no results: what is left is reading, joining and making what would be written
    #[arg(long)]
    pub(crate) no_store: bool,
    /// End a batch after so many events of a lane, and not after the time that is usual: where the
    /// clock does not go as usual
    #[arg(long, value_name = "EVENTS")]
    pub(crate) batch_events: Option<usize>,
    /// `[runtime] memory`, MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u64>,
    /// Say after so many events what they have cost
    #[arg(long, value_delimiter = ',')]
    pub(crate) milestones: Vec<u64>,
}

/// What has been used up to some number of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Milestone {
    pub(crate) events: u64,
    pub(crate) late: u64,
    pub(crate) seconds: f64,
    /// CPU of the threads that own lanes.
    pub(crate) owners_seconds: f64,
    /// CPU of all others, but that which only looks: the store's.
    pub(crate) others_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) state_bytes: u64,
    /// Bytes of the state that lie on disk.
    pub(crate) state_disk_bytes: u64,
    pub(crate) disk_bytes: u64,
}

impl Milestone {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "events": self.events, "late": self.late, "seconds": self.seconds,
            "owners_seconds": self.owners_seconds, "others_seconds": self.others_seconds,
            "rss_bytes": self.rss_bytes, "state_bytes": self.state_bytes,
            "state_disk_bytes": self.state_disk_bytes,
            "disk_bytes": self.disk_bytes,
        })
    }

    /// A line that [`run`] has written.
    pub(crate) fn of_json(line: &str) -> Result<Milestone> {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let number = |name: &str| value[name].as_u64().unwrap_or_default();
        let seconds = |name: &str| value[name].as_f64().unwrap_or_default();
        Ok(Milestone {
            events: number("events"),
            late: number("late"),
            seconds: seconds("seconds"),
            owners_seconds: seconds("owners_seconds"),
            others_seconds: seconds("others_seconds"),
            rss_bytes: number("rss_bytes"),
            state_bytes: number("state_bytes"),
            state_disk_bytes: number("state_disk_bytes"),
            disk_bytes: number("disk_bytes"),
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let failed = |failure: Failure| anyhow!(failure.lines().join("\n"));
    let mut config =
        Config::load(&example("reference.toml")).map_err(|f| failed(Failure::Config(f)))?;
    if let Some(mib) = arguments.memory {
        config.runtime.memory_bytes = mib << 20;
    }
    let plan = Arc::new(wiring::with_lanes(wiring::plan(&config).map_err(failed)?, LANES));
    let folder = tempfile::Builder::new().prefix("marquee-bench-").tempdir()?;
    config.store.path = folder.path().join("store");
    let sink: Arc<dyn Sink> = match arguments.no_store {
        true => Arc::new(Nowhere),
        false => store::open(&config, &plan).map_err(failed)?.lanes,
    };
    let (sources, total) =
        endless::sources(arguments.requests, arguments.events, arguments.threads)?;
    let sources = sources.into_iter().map(|source| Box::new(source) as Box<dyn Source>).collect();
    let mut settings = settings(&config, &plan, folder.path());
    if let Some(events) = arguments.batch_events {
        (settings.batch_events, settings.batch_interval) = (events, Duration::from_secs(3600));
    }
    let start = Instant::now();
    let lanes = Lanes::start(&settings, sources, sink, |reason: &str| {
        eprintln!("{reason}");
        std::process::exit(1);
    });
    let mut milestones = arguments.milestones.clone();
    milestones.retain(|events| *events < total);
    milestones.push(total);
    for milestone in milestones {
        let reached = wait_for(&lanes, milestone, start, folder.path())?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", reached.to_json())?;
        stdout.flush()?;
    }
    lanes.stop()?;
    Ok(())
}

fn settings(config: &Config, plan: &Arc<Plan>, folder: &Path) -> LanesSettings {
    let state = Arc::new(StateFolder::new(folder.join("state")));
    LanesSettings {
        name: LanesSettings::name_of(plan),
        plan: plan.clone(),
        secret: [7; 16],
        checks_partitions: false,
        topic_ids: Vec::new(),
        batch_interval: Duration::from_millis(config.runtime.batch_interval_ms as u64),
        batch_events: wiring::batch_events(config, plan),
        memory: StateMemory::new(wiring::state_bytes(config), state),
        letters: Arc::new(LetterFolder::new(folder.to_owned())),
        clock: Arc::new(SystemClock::new(wiring::now_ms)),
        snapshots: Some(SnapshotsSettings {
            place: Arc::new(SnapshotFolder::new(folder.join("snapshots"))),
            interval: Duration::from_millis(config.snapshots.interval_ms as u64),
        }),
    }
}

/// Waits until so many events are counted; what they have cost.
fn wait_for(lanes: &Lanes, events: u64, start: Instant, folder: &Path) -> Result<Milestone> {
    loop {
        let status = lanes.status().lanes();
        let counted: u64 = status.iter().map(|lane| lane.counters.events).sum();
        if counted >= events {
            let [owners_seconds, others_seconds] = cpu_of_threads("owner-")?;
            return Ok(Milestone {
                events: counted,
                late: status.iter().map(|lane| lane.counters.late).sum(),
                seconds: start.elapsed().as_secs_f64(),
                owners_seconds,
                others_seconds,
                rss_bytes: rss_bytes()?,
                state_bytes: status.iter().map(|lane| lane.state_bytes).sum(),
                state_disk_bytes: status.iter().map(|lane| lane.state_disk_bytes).sum(),
                disk_bytes: bytes_in(folder)?,
            });
        }
        ensure!(lanes.status().failure().is_none(), "{:?}", lanes.status().failure());
        thread::sleep(LOOK);
    }
}

/// Bytes of all files in a folder. Some may go while they are looked at.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)?.flatten() {
        bytes += match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_in(&entry.path()).unwrap_or(0),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

/// A store that keeps nothing: what would be written is made, and dropped.
struct Nowhere;

impl Sink for Nowhere {
    fn lane_state(&self, _: u32) -> Result<Option<LaneState>, SinkError> {
        Ok(None)
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        for commit in commits {
            for cell in commit.batch.cells() {
                Side::BOTH.into_iter().for_each(|side| drop(black_box(cell.chunk(side))));
            }
        }
        Ok(())
    }

    fn counts_of_lane(&self, _: u32, _: i64) -> Result<BTreeMap<CellKey, CellCounts>, SinkError> {
        Ok(BTreeMap::new())
    }

    fn members_of_lane(
        &self,
        _: u32,
        _: i64,
        _: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        Ok(())
    }

    fn add_gaps(&self, _: &[Gap]) -> Result<(), SinkError> {
        Ok(())
    }
}
