//! The sealer: a thread of a running service that brings closed epochs into the lake, and now and then
//! what is new in open ones.
//!
//! Counting never waits for it. A lake that does not answer is tried again, later and later, and
//! what waits for it is in the store meanwhile; log, status and metrics say so.

use marquee_sinks::Store;
use marquee_sinks::lake::{
    Bucket, LakeError, LakeNumbers, LakePlace, LakeStatus, LetterCopies, ObjectError, Sealing,
    SealingSettings, Stop,
};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After the first failure it is tried again after this long, then after twice as long, ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// ... but not after longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a thread that pauses looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// How often a command that must end looks until nothing is left to do: somebody else may have been
/// faster.
const ROUNDS: u32 = 20;

/// What a sealer works with.
#[derive(Clone)]
pub struct SealerSettings {
    /// Where the lake is.
    pub place: LakePlace,
    /// How it is written.
    pub sealing: SealingSettings,
    /// Where the late and dead letters of the store's lanes are; `None`: they are not copied.
    pub letters: Option<PathBuf>,
    /// How often it looks what has closed.
    pub interval: Duration,
    /// What time it is, milliseconds since 1970 UTC.
    pub now_ms: fn() -> i64,
}

/// A sealer at work.
pub struct Sealer {
    stop: Stop,
    thread: JoinHandle<()>,
    status: Arc<LakeStatus>,
}

impl Sealer {
    /// Starts one for a store. `on_failure` is called if it meets a bug.
    ///
    /// # Errors
    /// The place cannot be used at all: its folder cannot be made, or its settings are wrong. One
    /// that does not answer now is no error.
    pub fn start(
        settings: SealerSettings,
        store: Arc<dyn Store>,
        on_failure: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, ObjectError> {
        let (stop, status) = (Stop::default(), status_of(&settings));
        let work = Work::new(&settings, store, &status, &stop)?;
        let run = {
            let (status, stop) = (status.clone(), stop.clone());
            move || {
                let seal = || run(work, &settings, &status, &stop);
                if catch_unwind(AssertUnwindSafe(seal)).is_err() {
                    // Invariant CONTAINED: a bug ends the process.
                    on_failure("the sealer of the lake met a bug and ends; nothing is lost");
                }
            }
        };
        let thread = std::thread::Builder::new().name("sealer".to_owned()).spawn(run);
        let thread = thread.expect("the system starts threads");
        Ok(Sealer { stop, thread, status })
    }

    /// How it is doing.
    pub fn status(&self) -> &Arc<LakeStatus> {
        &self.status
    }

    /// Ends it, whatever it waits for. What is not in the lake then comes after the next start.
    pub fn stop(self) {
        self.stop.stop();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Brings into the lake what is closed in a store now, and returns what was done.
///
/// # Errors
/// The lake or the store failed: the lake has a part of it.
pub fn seal_now(
    settings: &SealerSettings,
    store: Arc<dyn Store>,
) -> Result<LakeNumbers, LakeError> {
    let status = status_of(settings);
    let mut settings = settings.clone();
    // What is open is a service's.
    settings.sealing.deltas_ms = None;
    let mut work = Work::new(&settings, store, &status, &Stop::default())?;
    for _ in 0..ROUNDS {
        work.sealing.tick((settings.now_ms)())?;
        if work.sealing.is_done() {
            break;
        }
    }
    Ok(status.numbers())
}

/// Writes stretches of lanes anew that were found wrong in the lake, and returns what was done, and how
/// many were left: the store no longer has what the lake had of them.
///
/// # Errors
/// The lake or the store failed: some of them may be left.
pub fn write_anew(
    settings: &SealerSettings,
    store: Arc<dyn Store>,
    stretches: &BTreeSet<(i64, u32)>,
) -> Result<(LakeNumbers, usize), LakeError> {
    let status = status_of(settings);
    let mut work = Work::new(settings, store, &status, &Stop::default())?;
    let left = work.sealing.write_anew(stretches, (settings.now_ms)())?;
    Ok((status.numbers(), left.len()))
}

fn status_of(settings: &SealerSettings) -> Arc<LakeStatus> {
    Arc::new(LakeStatus::new(settings.place.to_string()))
}

/// What is brought into the lake.
struct Work {
    sealing: Sealing,
    copies: Option<LetterCopies>,
}

impl Work {
    fn new(
        settings: &SealerSettings,
        store: Arc<dyn Store>,
        status: &Arc<LakeStatus>,
        stop: &Stop,
    ) -> Result<Self, ObjectError> {
        let bucket = Arc::new(Bucket::open(&settings.place, stop.clone())?);
        let how = settings.sealing.clone();
        let sizes = (how.file_bytes as u64, how.span_ms);
        let copies = settings.letters.clone().map(|folder| {
            let (store, bucket) = (store.clone(), bucket.clone());
            LetterCopies::new(store, bucket, folder, sizes, status.clone(), stop.clone())
        });
        let sealing = Sealing::new(store, bucket, how, status.clone(), stop.clone());
        Ok(Work { sealing, copies })
    }

    fn tick(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let sealed = self.sealing.tick(now_ms);
        match (&sealed, &mut self.copies) {
            // What is wrong with one day of cells is nothing to letters.
            (Ok(()) | Err(LakeError::Damaged { .. }), Some(copies)) => {
                copies.tick(now_ms).and(sealed)
            }
            _ => sealed,
        }
    }
}

fn run(mut work: Work, settings: &SealerSettings, status: &LakeStatus, stop: &Stop) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_set() {
        let now_ms = (settings.now_ms)();
        match work.tick(now_ms) {
            Ok(()) => {
                if let Some(trouble) = status.worked() {
                    tracing::info!(tries = trouble.tries, "the lake is written again");
                }
                pause = FIRST_PAUSE;
                sleep(settings.interval, stop);
            }
            Err(error) if error.is_stop() => return,
            Err(error) => {
                status.failed(error.to_string(), now_ms);
                tracing::warn!(
                    waiting = status.numbers().waiting,
                    next_try_seconds = pause.as_secs(),
                    "{error}; counting goes on, and the store keeps what the lake lacks"
                );
                sleep(pause, stop);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn sleep(time: Duration, stop: &Stop) {
    let until = Instant::now() + time;
    while !stop.is_set() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}
