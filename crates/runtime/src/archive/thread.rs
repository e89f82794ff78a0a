//! The thread of a running service that copies what its lanes have committed. Counting never waits
//! for it.

use super::follow::{Follower, Sizes};
use super::{ArchiveError, ArchiveStatus};
use crate::backfill::LogEvents;
use crate::examples::OpenLog;
use crate::plan::Plan;
use crate::status::StatusBoard;
use marquee_sinks::lake::{
    Bucket, EventsArchive, EventsLog, EventsOf, LakePlace, ObjectError, Stop, short_log,
};
use marquee_sinks::{SinkError, Store};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After the first failure it is tried again after this long, then after twice as long, ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// ... but not after longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a thread that pauses looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// How long a stop waits for it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A topic is silent when nothing came while it was looked so often, or for so long.
const SILENT_LOOKS: u32 = 12;
const SILENCE: Duration = Duration::from_secs(60);

/// No call to the lake takes longer, its own repetitions included.
const CALL: Duration = Duration::from_secs(180);

/// How a log is copied.
#[derive(Clone)]
pub struct ArchiveSettings {
    /// What is counted.
    pub plan: Arc<Plan>,
    /// Where the lake is.
    pub place: LakePlace,
    /// For each topic an id that no other log has.
    pub log_ids: Vec<String>,
    /// A file is ended when it has so many bytes.
    pub file_bytes: usize,
    /// A file has records of so much time, milliseconds, and of no more than an hour.
    pub slot_ms: i64,
    /// How often it looks what was committed.
    pub interval: Duration,
    /// The time, milliseconds since 1970 UTC.
    pub now_ms: fn() -> i64,
}

/// The thread, while the service runs.
pub struct Archive {
    stop: Stop,
    thread: JoinHandle<()>,
}

impl Archive {
    /// Starts it for a store and a log. `on_failure` is called if it meets a bug, or a broken store.
    ///
    /// # Errors
    /// The lake's place cannot be used at all. One that does not answer now is no error.
    pub fn start(
        settings: ArchiveSettings,
        store: Arc<dyn Store>,
        open: OpenLog,
        status: Arc<StatusBoard>,
        on_failure: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, ObjectError> {
        let stop = Stop::default();
        let archive = EventsArchive::new(Arc::new(Bucket::open(&settings.place, stop.clone())?));
        let mut work = Work::new(settings, archive, store, stop.clone());
        status.note_archive(ArchiveStatus::default());
        let run = move || {
            let copy = || work.run(&open, &status);
            match catch_unwind(AssertUnwindSafe(copy)) {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => on_failure(&broken),
                // Invariant CONTAINED: a bug ends the process.
                Err(_) => on_failure("the archive of events met a bug and ends; nothing is lost"),
            }
        };
        let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(run);
        Ok(Archive { stop, thread: thread.expect("the system starts threads") })
    }

    /// Ends it, in the middle of a file if need be: that is read again after the next start. Where it
    /// waits for a broker that is away it is not waited for.
    pub fn stop(self) {
        self.stop.stop();
        let until = Instant::now() + STOP_PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                tracing::warn!("the archive of events is left in the middle of its work");
                return;
            }
            std::thread::sleep(LOOK);
        }
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Work {
    settings: ArchiveSettings,
    archive: EventsArchive,
    store: Arc<dyn Store>,
    stop: Stop,
    followers: Vec<Follower>,
    status: ArchiveStatus,
    /// `None` until the log has answered, and after a failure.
    log: Option<LogEvents>,
}

impl Work {
    fn new(
        settings: ArchiveSettings,
        archive: EventsArchive,
        store: Arc<dyn Store>,
        stop: Stop,
    ) -> Self {
        let lanes = settings.plan.lanes;
        let mut followers = Vec::new();
        for lane in 0..lanes {
            for (topic, name) in settings.plan.topics().into_iter().enumerate() {
                let id = settings.log_ids[topic].clone();
                let of = EventsOf { topic: name, log: short_log(&id), lane };
                followers.push(Follower::new(topic, of, EventsLog { id, lanes }));
            }
        }
        let status = ArchiveStatus::default();
        Work { settings, archive, store, stop, followers, status, log: None }
    }

    /// `Err`: the service must end.
    fn run(&mut self, open: &OpenLog, board: &StatusBoard) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        let mut has_failed = false;
        while !self.stop.is_set() {
            let done = self.tick(open);
            self.status.waiting = self.followers.iter().map(Follower::waiting).sum();
            let sleep_for = match done {
                Ok(is_more) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!("the archive of events is written again");
                    }
                    pause = FIRST_PAUSE;
                    if is_more { Duration::ZERO } else { self.settings.interval }
                }
                Err(error) if error.is_stop() => return Ok(()),
                // A lane that met it would end, too.
                Err(ArchiveError::Store(
                    broken @ (SinkError::Failed { .. } | SinkError::Damaged { .. }),
                )) => return Err(broken.to_string()),
                Err(error) => {
                    self.status.failures += 1;
                    has_failed = true;
                    self.log = None;
                    tracing::warn!(
                        waiting = self.status.waiting,
                        next_try_seconds = pause.as_secs(),
                        "events could not be copied into the lake: {error}; counting goes on, and \
                         the log keeps them for its retention"
                    );
                    let now = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    now
                }
            };
            board.note_archive(self.status);
            self.sleep(sleep_for);
        }
        Ok(())
    }

    /// Looks at all lanes once, and says whether there is more to do at once. A lane that fails keeps
    /// no other one.
    fn tick(&mut self, open: &OpenLog) -> Result<bool, ArchiveError> {
        let log = match &mut self.log {
            Some(log) => log,
            closed => closed.insert(open().map_err(ArchiveError::Closed)?),
        };
        let replay = log.readers.first_mut().expect("there is a reader").as_mut();
        let (settings, now_ms) = (&self.settings, (self.settings.now_ms)());
        let sizes = Sizes {
            file_bytes: settings.file_bytes,
            slot_ms: settings.slot_ms,
            silence_ms: (settings.interval * SILENT_LOOKS).min(SILENCE).as_millis() as i64,
            call: CALL,
        };
        let (mut failed, mut is_more) = (None, false);
        for follower in &mut self.followers {
            if self.stop.is_set() {
                return Ok(false);
            }
            let state = self.store.lane_state(follower.of.lane)?.unwrap_or_default();
            let committed = state.next_offsets.get(follower.topic).copied().unwrap_or(0);
            let how = (sizes, now_ms);
            match follower.step(&self.archive, replay, committed, how, &mut self.status) {
                Err(error) if !error.is_stop() => failed = failed.or(Some(error)),
                done => is_more |= done?,
            }
        }
        failed.map_or(Ok(is_more), Err)
    }

    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stop.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}
