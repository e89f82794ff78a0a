//! The scheduled repair of a service: now and then its closed epochs are compared with the log, and
//! what they lack (late events, mostly) is added by union.
//!
//! It has a thread of its own and reads the log beside the lanes, which it neither asks nor stops:
//! they add nothing to closed epochs, and it adds to nothing else.

use crate::commands::Failure;
use crate::config::Config;
use crate::log::LogAgain;
use crate::wiring;
use marquee_model::format_time_ms;
use marquee_runtime::Plan;
use marquee_runtime::backfill::{Events, RecomputeError};
use marquee_runtime::lanes::Lanes;
use marquee_runtime::status::StatusBoard;
use marquee_runtime::verify::{Report, Verify, VerifyError};
use marquee_sinks::{SinkError, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory for events and members of a comparison, at most, bytes; the rest goes to temporary files.
const MOST_BYTES: u64 = 64 << 20;

/// How long a stop waits for it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// So many differences that stay are written to the log, each time.
const SHOWN: usize = 5;

/// The thread, while the service runs.
pub(crate) struct Repairs {
    /// Dropped to wake the thread.
    awake: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct Repairing {
    plan: Arc<Plan>,
    log: LogAgain,
    store: Arc<dyn Store>,
    status: Arc<StatusBoard>,
    keeps_members: bool,
    members_go_after_ms: Option<i64>,
    horizon_ms: i64,
    memory_bytes: u64,
    stop: Arc<AtomicBool>,
}

/// Why a comparison was not finished.
enum Ended {
    /// The service stops.
    Stopped,
    /// The next one may succeed.
    Failed(String),
    /// The store is broken: nothing may go on.
    Broken(String),
}

impl Repairs {
    /// Starts it, where the configuration wants it.
    pub(crate) fn start(
        config: &Config,
        plan: &Arc<Plan>,
        log: LogAgain,
        store: Arc<dyn Store>,
        lanes: &Lanes,
        on_failure: impl Fn(&str) + Send + 'static,
    ) -> Option<Repairs> {
        if config.repair.interval_ms == 0 {
            return None;
        }
        let interval = Duration::from_millis(config.repair.interval_ms as u64);
        let stop = Arc::new(AtomicBool::new(false));
        let repairing = Repairing {
            plan: plan.clone(),
            log,
            store,
            status: lanes.status().clone(),
            keeps_members: config.store.members.in_store(),
            members_go_after_ms: config.store.members_go_after_ms(),
            horizon_ms: config.repair.horizon_ms,
            memory_bytes: (config.runtime.memory_bytes / 16).min(MOST_BYTES),
            stop: stop.clone(),
        };
        repairing.status.note_repair(|_| {});
        let (awake, asleep) = channel::<()>();
        let work = move || {
            let _end = EndOnPanic(&on_failure);
            // Nobody sends anything: the end of the service ends the wait.
            while asleep.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Err(reason) = repairing.run() {
                    on_failure(&reason);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("repair".to_owned()).spawn(work);
        Some(Repairs { awake, stop, thread: thread.expect("the system starts threads") })
    }

    /// Ends it, in the middle of a comparison if need be: what was added until then stays. Where it
    /// waits for a broker that is away it is not waited for: the end of the process ends it, and each
    /// of its writes is whole or nothing.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.awake);
        let until = Instant::now() + STOP_PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                tracing::warn!("the repair of closed epochs is left in the middle of its work");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A bug in the thread ends the service, as one of a lane does (invariant CONTAINED).
struct EndOnPanic<'f, F: Fn(&str)>(&'f F);

impl<F: Fn(&str)> Drop for EndOnPanic<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)("the repair of closed epochs has failed by a bug; its message stands above");
        }
    }
}

impl Repairing {
    /// Compares once. `Err`: the service must end.
    fn run(&self) -> Result<(), String> {
        let started = Instant::now();
        match self.compare() {
            Ok(report) => {
                self.say(&report, started.elapsed());
                self.status.note_repair(|status| {
                    status.runs += 1;
                    status.added_members += report.added_members;
                    status.filled_gaps += report.filled_gaps;
                    status.left_cells = report.left;
                    status.last_success_ms = Some(wiring::now_ms());
                });
            }
            Err(Ended::Stopped) => {}
            Err(Ended::Failed(reason)) => {
                tracing::error!("closed epochs could not be compared with the log: {reason}");
                self.status.note_repair(|status| status.failures += 1);
            }
            Err(Ended::Broken(reason)) => return Err(reason),
        }
        Ok(())
    }

    fn compare(&self) -> Result<Report, Ended> {
        let failed = |failure: Failure| Ended::Failed(failure.lines().join("; "));
        let sealed_ms = self.store.sealed_before_ms().map_err(|error| ended(error.into()))?;
        let events = self.log.events(&*self.store, &self.plan, 1).map_err(failed)?;
        let [run, _] = wiring::random_words();
        let verify = Verify {
            plan: &self.plan,
            store: &*self.store,
            keeps_members: self.keeps_members,
            forgotten_before_ms: self.members_go_after_ms.map(|ms| wiring::now_ms() - ms),
            // What changes here changes there: the sealer compares the lake with the store.
            lake: None,
            from_ms: Some(self.first_ms(sealed_ms)),
            to_ms: Some(sealed_ms),
            repair: self.keeps_members.then_some(run),
            threads: 1,
            memory_bytes: self.memory_bytes,
            secret: wiring::secret(),
            stop: &|| self.stop.load(Ordering::Relaxed),
            progress: &|_, _| {},
        };
        let mut shown = 0;
        let report = verify.run(Events::Log(events), &mut |difference| {
            if difference.repaired != Some(true) && shown < SHOWN {
                shown += 1;
                tracing::warn!(
                    video = difference.video,
                    epoch = format_time_ms(difference.epoch_start_ms),
                    lane = difference.lane,
                    what = difference.what.code(),
                    "a closed cell is not what the log proves, and adding does not mend it; \
                     `marquee verify` says more"
                );
            }
            Ok(())
        });
        report.map_err(ended)
    }

    /// The horizon before the end of the newest sealed epoch, cut to whole epochs.
    fn first_ms(&self, sealed_ms: i64) -> i64 {
        let longest_ms = self.plan.settings.longest_ms();
        let first_ms = sealed_ms.saturating_sub(self.horizon_ms).max(0);
        first_ms.div_euclid(longest_ms) * longest_ms
    }

    fn say(&self, report: &Report, took: Duration) {
        for note in &report.notes {
            tracing::info!("{note}");
        }
        tracing::info!(
            cells = report.cells,
            epochs = report.epochs,
            differing = report.differences(),
            added_members = report.added_members,
            filled_gaps = report.filled_gaps,
            left = report.left,
            seconds = took.as_secs_f64(),
            "closed epochs were compared with the log"
        );
    }
}

fn ended(error: VerifyError) -> Ended {
    match error {
        VerifyError::Recompute(RecomputeError::Stopped) => Ended::Stopped,
        // A lane that met it would end, too (invariant CONTAINED).
        VerifyError::Store(broken @ (SinkError::Failed { .. } | SinkError::Damaged { .. })) => {
            Ended::Broken(broken.to_string())
        }
        other => Ended::Failed(other.to_string()),
    }
}
