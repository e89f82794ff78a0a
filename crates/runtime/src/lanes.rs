//! The lanes of a running service: one owner thread for several lanes, nothing shared between
//! lanes but the log and the store.
//!
//! An owner works in batches: read, apply, write counts, members and the lane's position as one,
//! sync once for all its lanes, and only then let time and the visible position move (invariant
//! LOG: nothing is committed before it is durable).

mod lane;
mod letters;
mod rebuild;

pub use lane::LaneOwner;

use crate::plan::Plan;
use crate::status::StatusBoard;
use marquee_sinks::{Sink, SinkError};
use marquee_sources::Source;
use marquee_sources::embedded::LogError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often an idle owner looks up, so that idle topics and a stop are noticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long a stop may take to count what was accepted before it.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// What the lanes of a service need.
#[derive(Clone)]
pub struct LanesSettings {
    /// What is counted.
    pub plan: Arc<Plan>,
    /// The generation's secret.
    pub secret: [u8; 16],
    /// Owner threads, at least 1.
    pub threads: usize,
    /// A small batch waits this long for more.
    pub batch_interval: Duration,
    /// Events of a lane in one batch, at most.
    pub batch_events: usize,
    /// Folder of the late and the dead-letter output.
    pub letters: PathBuf,
    /// The clock of this machine, milliseconds since 1970 UTC.
    pub clock: fn() -> i64,
}

/// Why an owner cannot go on. The process ends; the log replays.
#[derive(Debug, Error)]
pub enum LaneError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The log does not hold what the store has counted.
    #[error(
        "lane {lane} of topic {topic}: the store has counted up to offset {committed}, but the log \
         holds {start} to {end}; the log was replaced or cut. Restore it, or start with a new \
         [store] path"
    )]
    LogLost {
        /// The lane.
        lane: u32,
        /// Name of the topic.
        topic: String,
        /// What is needed.
        committed: u64,
        /// The first offset that is there.
        start: u64,
        /// The end of the log.
        end: u64,
    },
    /// The store holds counts that the log does not prove.
    #[error(
        "lane {lane}: the store counts members that the log does not hold, first in the cell of \
         video {video:?} at {epoch_start_ms} ms; store and log do not belong together, or one is \
         damaged. Restore them, or start with a new [store] path"
    )]
    Unproven {
        /// The lane.
        lane: u32,
        /// Video of the first such cell.
        video: String,
        /// Start of its epoch.
        epoch_start_ms: i64,
    },
}

/// Owner threads at work.
pub struct Lanes {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), LaneError>>>,
    status: Arc<StatusBoard>,
}

impl Lanes {
    /// Starts the owners. `on_failure` is called once for each owner that ends with an error or a
    /// panic, after the board says so.
    pub fn start(
        settings: &LanesSettings,
        log: Arc<dyn Source>,
        store: Arc<dyn Sink>,
        on_failure: impl Fn(&str) + Send + Sync + Clone + 'static,
    ) -> Self {
        let lanes = settings.plan.lanes;
        let status = Arc::new(StatusBoard::new(lanes));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = settings.threads.clamp(1, lanes as usize);
        let start = |thread: usize| {
            let owner = Owner {
                settings: settings.clone(),
                lanes: (0..lanes).filter(|lane| *lane as usize % threads == thread).collect(),
                log: log.clone(),
                store: store.clone(),
                status: status.clone(),
                stop: stop.clone(),
            };
            let on_failure = on_failure.clone();
            let name = format!("owner-{thread}");
            let run = move || owner.run_to_the_end(&on_failure);
            std::thread::Builder::new().name(name).spawn(run).expect("the system starts threads")
        };
        let threads = (0..threads).map(start).collect();
        Lanes { stop, threads, status }
    }

    /// How the lanes are doing.
    pub fn status(&self) -> &Arc<StatusBoard> {
        &self.status
    }

    /// Lets every owner count and commit what was accepted until now, and waits for that.
    pub fn stop(self) -> Result<(), LaneError> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }
}

/// One owner thread.
struct Owner {
    settings: LanesSettings,
    lanes: Vec<u32>,
    log: Arc<dyn Source>,
    store: Arc<dyn Sink>,
    status: Arc<StatusBoard>,
    stop: Arc<AtomicBool>,
}

impl Owner {
    /// Runs, and tells of an error or a panic before it ends the thread: a bug ends the process and
    /// the log replays, nothing is swallowed (invariant CONTAINED).
    fn run_to_the_end(self, on_failure: &impl Fn(&str)) -> Result<(), LaneError> {
        let status = self.status.clone();
        let fail = |reason: &str| {
            status.fail(reason);
            on_failure(reason);
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run())) {
            Ok(result) => result.inspect_err(|error| fail(&error.to_string())),
            Err(panic) => {
                fail("an owner thread met a bug and ends; its lanes replay after a restart");
                std::panic::resume_unwind(panic)
            }
        }
    }

    fn run(&self) -> Result<(), LaneError> {
        let mut lanes = Vec::new();
        for &lane in &self.lanes {
            let owner = LaneOwner::resume(lane, &self.settings, &*self.log, &*self.store, &|s| {
                self.status.set(s);
                self.stops()
            })?;
            let Some(owner) = owner else { return Ok(()) };
            self.status.set(owner.status(&*self.log));
            lanes.push(owner);
        }
        let mut seen = 0;
        while !self.stops() {
            let counter = self.log.wait_for_data(0, Duration::ZERO);
            let started = Instant::now();
            let full = self.batch(&mut lanes, started)?;
            if !full {
                self.rest(started, counter, &mut seen);
            }
        }
        self.finish(&mut lanes)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One batch of all lanes, durable on return. Tells whether there is more to do at once.
    fn batch(&self, lanes: &mut [LaneOwner], started: Instant) -> Result<bool, LaneError> {
        let mut full = false;
        for lane in lanes.iter_mut() {
            full |= lane.read(&*self.log)?;
        }
        let mut commits = Vec::new();
        for lane in lanes.iter_mut() {
            commits.extend(lane.commit()?);
        }
        if !commits.is_empty() {
            self.store.commit(&commits)?;
        }
        drop(commits);
        for lane in lanes {
            lane.committed(started.elapsed());
            self.status.set(lane.status(&*self.log));
        }
        Ok(full)
    }

    /// After a stop: counts what the log holds by now, so that everything accepted before the stop
    /// is in the store when the process ends. Bounded: what is left is counted after the restart.
    fn finish(&self, lanes: &mut [LaneOwner]) -> Result<(), LaneError> {
        let ends: Vec<Vec<u64>> = lanes.iter().map(|lane| lane.ends(&*self.log)).collect();
        let until = Instant::now() + FINISH_WITHIN;
        let is_behind =
            |lanes: &[LaneOwner]| lanes.iter().zip(&ends).any(|(lane, ends)| lane.is_behind(ends));
        while is_behind(lanes) && Instant::now() < until {
            self.batch(lanes, Instant::now())?;
        }
        Ok(())
    }

    /// Waits until the interval is over, then for data. A steady trickle is thus taken in batches.
    fn rest(&self, started: Instant, counter: u64, seen: &mut u64) {
        if *seen < counter {
            // There was something: give it the rest of the interval to become a batch.
            let rest = self.settings.batch_interval.saturating_sub(started.elapsed());
            let until = Instant::now() + rest;
            while Instant::now() < until && !self.stops() {
                std::thread::sleep(until.saturating_duration_since(Instant::now()).min(HEARTBEAT));
            }
            *seen = counter;
        }
        self.log.wait_for_data(counter, HEARTBEAT);
    }
}
