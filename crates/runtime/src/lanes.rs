//! The lanes of a running service: one owner thread for several lanes, nothing shared between
//! lanes but the log and the store.
//!
//! Which lanes an owner has is the log's business: all of its share for ever in the embedded log,
//! what the consumer group says in Kafka. It takes them ([`resume`](self) decides where each goes
//! on, `rebuild` makes its state whole), works, and gives them up after its last commit.
//!
//! An owner works in batches: read, apply, write counts, members and the lane's position as one,
//! sync once for all its lanes, and only then let time and the visible position move, and tell the
//! log (invariant LOG: nothing is committed before it is durable).

mod gaps;
mod lane;
mod letters;
mod misplaced;
mod note;
mod rebuild;
mod resume;

pub use lane::LaneOwner;

use crate::plan::Plan;
use crate::status::StatusBoard;
use marquee_sinks::{Sink, SinkError};
use marquee_sources::{AssignedLane, Change, Commit, Source, SourceError};
use note::Note;
use resume::Resumption;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often an idle owner looks up, so that idle topics and a stop are noticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long an owner sleeps while records are on their way.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// How long a stop may take to count what was accepted before it.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

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
    /// Folder of the late and the dead-letter output.
    pub letters: PathBuf,
    /// The clock of this machine, milliseconds since 1970 UTC.
    pub clock: fn() -> i64,
    /// Whether somebody else places records in lanes, so that each must be looked at.
    pub checks_partitions: bool,
    /// Ids of the topics, by topic; empty where the log has none.
    pub topic_ids: Vec<String>,
    /// Short name of what is counted, by [`LanesSettings::name_of`]: it tells the commits of this
    /// generation from those of others.
    pub name: String,
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
        let claims = Arc::new(Claims::default());
        let start = |(thread, source): (usize, Box<dyn Source>)| {
            let owner = Owner {
                number: thread,
                given: Vec::new(),
                claims: claims.clone(),
                settings: settings.clone(),
                source,
                store: store.clone(),
                status: status.clone(),
                stop: stop.clone(),
            };
            let on_failure = on_failure.clone();
            let name = format!("owner-{thread}");
            let run = move || owner.run_to_the_end(&on_failure);
            std::thread::Builder::new().name(name).spawn(run).expect("the system starts threads")
        };
        let threads = sources.into_iter().enumerate().map(start).collect();
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
    number: usize,
    /// All lanes that were given, also those that are still being rebuilt.
    given: Vec<u32>,
    claims: Arc<Claims>,
    settings: LanesSettings,
    source: Box<dyn Source>,
    store: Arc<dyn Sink>,
    status: Arc<StatusBoard>,
    stop: Arc<AtomicBool>,
}

impl Owner {
    /// Runs, and tells of an error or a panic before it ends the thread: a bug ends the process and
    /// the log replays, nothing is swallowed (invariant CONTAINED).
    fn run_to_the_end(mut self, on_failure: &impl Fn(&str)) -> Result<(), LaneError> {
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

    fn run(&mut self) -> Result<(), LaneError> {
        let mut lanes: Vec<LaneOwner> = Vec::new();
        while !self.stops() {
            self.status.trouble(self.number, self.source.trouble());
            match self.source.change()? {
                Change::None => {}
                Change::Assigned(assigned) => lanes = self.take(assigned)?,
                Change::Revoked => self.give_up(&mut lanes)?,
            }
            if lanes.is_empty() {
                self.source.wait(HEARTBEAT);
                continue;
            }
            let started = Instant::now();
            match self.batch(&mut lanes, started)? {
                Found::Much => {}
                Found::Some => self.rest(started),
                Found::Nothing => self.source.wait(HEARTBEAT),
            }
        }
        self.finish(&mut lanes)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes lanes: none where that was given up because of a stop or a revocation, which the next
    /// look at the source finds.
    fn take(&mut self, mut assigned: Vec<AssignedLane>) -> Result<Vec<LaneOwner>, LaneError> {
        self.given = assigned.iter().map(|lane| lane.lane).collect();
        let is_shared = !self.source.ends_with_process();
        self.status.give(self.given.iter().copied(), is_shared);
        while !self.claims.take(self.number, &self.given) {
            if self.stops() || self.source.is_revoked() {
                return Ok(Vec::new());
            }
            std::thread::sleep(SHORT_WAIT);
        }
        let plan = |lane: &AssignedLane| Resumption::of(lane, &self.settings, &*self.store);
        let mut resumptions = assigned.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        // Before anything else of these lanes is seen: until they are whole they are in doubt, and
        // after that their gaps are.
        let gaps: Vec<_> = resumptions.iter().flat_map(|r| r.gaps.clone()).collect();
        self.store.add_gaps(&gaps)?;
        let from: Vec<_> = resumptions.iter().map(|r| (r.lane, r.from.clone())).collect();
        self.source.start(&from)?;
        let mut lanes = Vec::new();
        for (resumption, assigned) in resumptions.iter_mut().zip(&mut assigned) {
            let Some(lane) = self.resume(resumption, assigned)? else { return Ok(Vec::new()) };
            self.status.set(lane.status(&*self.source));
            lanes.push(lane);
        }
        Ok(lanes)
    }

    /// Resumes one lane. Where the log was trimmed meanwhile, it is planned anew.
    fn resume(
        &mut self,
        resumption: &mut Resumption,
        assigned: &mut AssignedLane,
    ) -> Result<Option<LaneOwner>, LaneError> {
        loop {
            let (status, stop) = (self.status.clone(), self.stop.clone());
            let mut report = move |lane: &LaneOwner, source: &mut dyn Source| {
                status.set(lane.status(source));
                stop.load(Ordering::Relaxed) || source.is_revoked()
            };
            let (settings, store) = (&self.settings, &*self.store);
            let source = &mut *self.source;
            match LaneOwner::resume(resumption, settings, source, store, &mut report) {
                Err(LaneError::Log(SourceError::OutOfRange { topic_index, start, .. }))
                    if start > assigned.start_offsets[topic_index] =>
                {
                    assigned.start_offsets[topic_index] = start;
                    *resumption = Resumption::of(assigned, settings, store)?;
                    self.store.add_gaps(&resumption.gaps)?;
                    self.source.seek(resumption.lane, &resumption.from)?;
                }
                other => return other,
            }
        }
    }

    /// Lets all lanes go: everything that was read is durable already.
    fn give_up(&mut self, lanes: &mut Vec<LaneOwner>) -> Result<(), LaneError> {
        self.source.flush_commits();
        lanes.clear();
        self.claims.give_up(self.number);
        self.status.take_back(self.given.drain(..));
        self.source.release()?;
        Ok(())
    }

    /// One batch of all lanes, durable on return.
    fn batch(&mut self, lanes: &mut [LaneOwner], started: Instant) -> Result<Found, LaneError> {
        let found = self.read(lanes, started)?;
        let mut gaps = Vec::new();
        for lane in lanes.iter_mut() {
            gaps.extend(lane.take_gaps(&*self.source));
        }
        if !gaps.is_empty() {
            self.store.add_gaps(&gaps)?;
        }
        let mut commits = Vec::new();
        for lane in lanes.iter_mut() {
            commits.extend(lane.commit()?);
        }
        if !commits.is_empty() {
            self.store.commit(&commits)?;
        }
        drop(commits);
        self.tell_log(lanes)?;
        for lane in lanes {
            lane.committed(started.elapsed());
            self.status.set(lane.status(&*self.source));
        }
        Ok(found)
    }

    /// Reads until there is nothing more, or the batch is large or old enough.
    fn read(&mut self, lanes: &mut [LaneOwner], started: Instant) -> Result<Found, LaneError> {
        let mut found = Found::Nothing;
        loop {
            let (mut records, mut is_behind, mut is_full) = (0, false, false);
            for lane in lanes.iter_mut() {
                let reading = lane.read(&mut *self.source)?;
                records += reading.records;
                is_behind |= reading.is_behind;
                is_full |= reading.is_full;
            }
            if records > 0 {
                found = Found::Some;
            }
            let left = self.settings.batch_interval.saturating_sub(started.elapsed());
            if is_full || (is_behind && left.is_zero() && records > 0) {
                return Ok(Found::Much);
            }
            if !is_behind || left.is_zero() || self.stops() {
                return Ok(found);
            }
            if records == 0 {
                // The topics that are behind have their records on the way; what is here of the
                // others must wait, so there is nothing that the source could wake us for.
                std::thread::sleep(SHORT_WAIT.min(left));
            }
        }
    }

    /// What the store holds durably is committed to the log, too.
    fn tell_log(&mut self, lanes: &mut [LaneOwner]) -> Result<(), LaneError> {
        if self.source.ends_with_process() {
            return Ok(()); // nobody else will ever ask it
        }
        let (settings, name) = (&self.settings.plan.settings, &self.settings.name);
        let commit = |lane: &'_ LaneOwner| Note::text(&lane.state, settings, name);
        let committed: Vec<&LaneOwner> = lanes.iter().filter(|l| l.was_committed()).collect();
        let commits: Vec<Commit<'_>> = committed
            .iter()
            .map(|lane| Commit {
                lane: lane.lane,
                next_offsets: &lane.state.next_offsets,
                note: commit(lane),
            })
            .collect();
        let number = self.source.commit(&commits)?;
        let confirmed = self.source.confirmed();
        for lane in lanes {
            if lane.was_committed() {
                lane.told(number);
            }
            lane.confirmed(confirmed);
        }
        Ok(())
    }

    /// After a stop. Where the log ends with this process, counts what it holds by now, so that
    /// everything accepted before the stop is in the store when the process ends. Bounded: what is
    /// left is counted after the restart.
    fn finish(&mut self, lanes: &mut [LaneOwner]) -> Result<(), LaneError> {
        if self.source.ends_with_process() {
            let ends: Vec<_> = lanes.iter().map(|lane| lane.ends(&*self.source)).collect();
            let until = Instant::now() + FINISH_WITHIN;
            let is_behind = |lanes: &[LaneOwner]| {
                lanes.iter().zip(&ends).any(|(lane, ends)| lane.is_behind(ends))
            };
            while is_behind(lanes) && Instant::now() < until {
                self.batch(lanes, Instant::now())?;
            }
        }
        self.source.flush_commits();
        Ok(())
    }

    /// Waits until the interval is over, then for data. A steady trickle is thus taken in batches.
    fn rest(&mut self, started: Instant) {
        let until = started + self.settings.batch_interval;
        while Instant::now() < until && !self.stops() {
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(HEARTBEAT));
        }
        self.source.wait(HEARTBEAT);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.claims.give_up(self.number);
    }
}

/// Which owner of this process works on which lanes. A group may give a lane to one while another
/// one, which it has lost sight of, has not finished its batch: both would write into one store
/// (invariant COUNT).
#[derive(Debug, Default)]
struct Claims(Mutex<BTreeMap<u32, usize>>);

impl Claims {
    /// Claims all of some lanes, if no other owner has any of them.
    fn take(&self, owner: usize, lanes: &[u32]) -> bool {
        let mut claims = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let is_free = |lane: &u32| claims.get(lane).is_none_or(|other| *other == owner);
        let all_free = lanes.iter().all(is_free);
        if all_free {
            claims.extend(lanes.iter().map(|lane| (*lane, owner)));
        }
        all_free
    }

    fn give_up(&self, owner: usize) {
        let mut claims = self.0.lock().unwrap_or_else(|e| e.into_inner());
        claims.retain(|_, other| *other != owner);
    }
}

/// What a batch found to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// All there was.
    Some,
    /// More than one batch takes.
    Much,
}
