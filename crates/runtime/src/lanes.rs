//! The lanes of a running service: one owner thread for several lanes, nothing shared between
//! lanes but the log and the store.
//!
//! Which lanes an owner has is the log's business: all of its share for ever in the embedded log,
//! what the consumer group says in Kafka. It takes them ([`resume`](self) decides where each goes
//! on, `rebuild` makes its state whole), works, and gives them up after its last commit.
//!
//! An [`Owner`] works in small steps, never waits itself, and is told the time: a thread of
//! [`Lanes`] runs its steps one after the other, and a simulation interleaves the steps of many.

pub(crate) mod gaps;
mod lane;
mod letters;
mod misplaced;
mod note;
mod owner;
mod rebuild;
mod resume;
mod room;
mod snapshots;

pub use owner::{Next, Owner};
pub use room::{StateFolder, StateMemory};
pub use snapshots::SnapshotsSettings;

use crate::clock::Clock;
use crate::plan::Plan;
use crate::status::StatusBoard;
use marquee_pipeline::join::cold::ColdError;
use marquee_sinks::letters::Letterbox;
use marquee_sinks::{Sink, SinkError};
use marquee_sources::{Source, SourceError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;

/// What the lanes of a service need.
#[derive(Clone)]
pub struct LanesSettings {
    /// What is counted.
    pub plan: Arc<Plan>,
    /// The generation's secret.
    pub secret: [u8; 16],
    /// A small batch waits this long for more.
    pub batch_interval: Duration,
    /// Events of a lane in one batch, at most.
    pub batch_events: usize,
    /// Memory of the join states of all lanes.
    pub memory: StateMemory,
    /// The late and the dead-letter output.
    pub letters: Arc<dyn Letterbox>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whether somebody else places records in lanes, so that each must be looked at.
    pub checks_partitions: bool,
    /// Ids of the topics, by topic; empty where the log has none.
    pub topic_ids: Vec<String>,
    /// Short name of what is counted, by [`LanesSettings::name_of`]: it tells the commits of this
    /// generation from those of others.
    pub name: String,
    /// Snapshots of the state; `None`: there are none, and a restart reads the log again.
    pub snapshots: Option<SnapshotsSettings>,
}

impl LanesSettings {
    /// A short name for what a plan counts.
    pub fn name_of(plan: &Plan) -> String {
        note::name_of(&plan.fingerprint)
    }
}

/// Why an owner cannot go on. The process ends; the log replays.
#[derive(Debug, Error)]
pub enum LaneError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] SourceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The log does not hold what the store has counted.
    #[error(
        "lane {lane} of topic {topic}: the store has counted up to offset {committed}, but the log \
         holds {start} to {end}; the log was replaced or cut (or a broker has just come back: then \
         start again). Restore it, or start with a new \
         [store] path (and, with Kafka, a new [log] group)"
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
    /// The group belongs to another generation.
    #[error(
        "lane {lane}: the consumer group has committed offsets for settings that count otherwise. \
         Restore these settings, or give the new ones another [log] group and [store] path"
    )]
    OtherGroup {
        /// The lane.
        lane: u32,
    },
    /// The group's note was written by a newer version.
    #[error(
        "lane {lane}: the consumer group has committed offsets with a note of version {version}, \
         which this program does not know: it was written by a newer one. Use that"
    )]
    NewerNote {
        /// The lane.
        lane: u32,
        /// Version of the note.
        version: u64,
    },
    /// A topic was deleted and made again.
    #[error(
        "topic {topic:?} was deleted and created again since offsets were committed (its id was \
         {was}, now it is {is}): what was counted belongs to the old one. Start a new generation, \
         with another [log] group and [store] path"
    )]
    Recreated {
        /// Name of the topic.
        topic: String,
        /// Its id at the last commit.
        was: String,
        /// Its id now.
        is: String,
    },
    /// The producers place requests otherwise than the configuration says.
    #[error(
        "lane {lane}: {misplaced} of {checked} events stand in a partition that is not their \
         request's (first: {example}); a request's events would never meet. {remedy}"
    )]
    Misplaced {
        /// The lane.
        lane: u32,
        /// Events in the wrong lane.
        misplaced: u32,
        /// Events that were looked at.
        checked: u32,
        /// One of them.
        example: String,
        /// What to do.
        remedy: String,
    },
    /// A part of the state that lies on disk is gone.
    #[error(
        "lane {lane}: the state is not whole any more: {error} and start again, the log replays"
    )]
    State {
        /// The lane.
        lane: u32,
        /// What could not be read.
        error: ColdError,
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
    /// Starts an owner for each source. `on_failure` is called once for each owner that ends with
    /// an error or a panic, after the board says so.
    pub fn start(
        settings: &LanesSettings,
        sources: Vec<Box<dyn Source>>,
        store: Arc<dyn Sink>,
        on_failure: impl Fn(&str) + Send + Sync + Clone + 'static,
    ) -> Self {
        let status = Arc::new(StatusBoard::new(settings.plan.lanes, sources.len()));
        let stop = Arc::new(AtomicBool::new(false));
        let start = |owner: Owner| {
            let (on_failure, status) = (on_failure.clone(), status.clone());
            let name = format!("owner-{}", owner.number());
            let run = move || run_to_the_end(owner, &status, &on_failure);
            std::thread::Builder::new().name(name).spawn(run).expect("the system starts threads")
        };
        let owners = Owner::all(settings, sources, &store, &status, &stop);
        let threads = owners.into_iter().map(start).collect();
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

/// Runs an owner, and tells of an error or a panic before it ends the thread: a bug ends the process
/// and the log replays, nothing is swallowed (invariant CONTAINED).
fn run_to_the_end(
    mut owner: Owner,
    status: &StatusBoard,
    on_failure: &impl Fn(&str),
) -> Result<(), LaneError> {
    let fail = |reason: &str| {
        status.fail(reason);
        on_failure(reason);
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut owner))) {
        Ok(result) => result.inspect_err(|error| fail(&error.to_string())),
        Err(panic) => {
            fail("an owner thread met a bug and ends; its lanes replay after a restart");
            std::panic::resume_unwind(panic)
        }
    }
}

fn run(owner: &mut Owner) -> Result<(), LaneError> {
    loop {
        match owner.step()? {
            Next::Step => {}
            Next::Sleep(time) => std::thread::sleep(time),
            Next::Wait(time) => owner.wait(time),
            Next::Ended => return Ok(()),
        }
    }
}
