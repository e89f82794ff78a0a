//! The thread of a running service that makes examples now and then. Counting never waits for it.

use super::{ExamplesError, ExamplesSettings, ExamplesStatus, Maker};
use crate::backfill::LogEvents;
use crate::status::StatusBoard;
use marquee_sinks::lake::{LakeError, ObjectError, Stop};
use marquee_sinks::{SinkError, Store};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Opens the log for one reader, and says why it cannot.
pub type OpenLog = Box<dyn Fn() -> Result<LogEvents, String> + Send>;

/// After a failure it is tried again after this long, or after the interval where that is shorter.
const PAUSE: Duration = Duration::from_secs(30);

/// How often a thread that pauses looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// How long a stop waits for it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The thread, while the service runs.
pub struct Examples {
    stop: Stop,
    thread: JoinHandle<()>,
}

impl Examples {
    /// Starts it for a store and a log. `on_failure` is called if it meets a bug, or a broken store.
    ///
    /// # Errors
    /// The lake's place cannot be used at all. One that does not answer now is no error.
    pub fn start(
        settings: ExamplesSettings,
        store: Arc<dyn Store>,
        open: OpenLog,
        status: Arc<StatusBoard>,
        on_failure: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, ObjectError> {
        let stop = Stop::default();
        let maker = Maker::new(settings, store, stop.clone())?;
        status.note_examples(ExamplesStatus::default());
        let run = move || {
            let make = || run(maker, &open, &status);
            match catch_unwind(AssertUnwindSafe(make)) {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => on_failure(&broken),
                // Invariant CONTAINED: a bug ends the process.
                Err(_) => on_failure("the maker of examples met a bug and ends; nothing is lost"),
            }
        };
        let thread = std::thread::Builder::new().name("examples".to_owned()).spawn(run);
        Ok(Examples { stop, thread: thread.expect("the system starts threads") })
    }

    /// Ends it, in the middle of a stretch if need be: that is made after the next start. Where it
    /// waits for a broker that is away it is not waited for.
    pub fn stop(self) {
        self.stop.stop();
        let until = Instant::now() + STOP_PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                tracing::warn!("the maker of examples is left in the middle of its work");
                return;
            }
            std::thread::sleep(LOOK);
        }
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// `Err`: the service must end.
fn run(mut maker: Maker, open: &OpenLog, status: &StatusBoard) -> Result<(), String> {
    let interval = maker.settings.interval;
    while !maker.stop.is_set() {
        let before = maker.status;
        let (done, started) = (maker.tick(open), Instant::now());
        match done {
            Ok(()) => {
                maker.status.waiting = 0;
                if maker.status.rows > before.rows {
                    tracing::info!(
                        rows = maker.status.rows - before.rows,
                        corrections = maker.status.corrections - before.corrections,
                        seconds = started.elapsed().as_secs_f64(),
                        "examples were made"
                    );
                }
            }
            Err(error) if error.is_stop() => return Ok(()),
            // A lane that met it would end, too.
            Err(ExamplesError::Store(
                broken @ (SinkError::Failed { .. } | SinkError::Damaged { .. }),
            )) => return Err(broken.to_string()),
            Err(error) => {
                maker.status.failures += 1;
                say(&error);
            }
        }
        let failed = maker.status.failures > before.failures;
        status.note_examples(maker.status);
        sleep(if failed { interval.min(PAUSE) } else { interval }, &maker.stop);
    }
    Ok(())
}

fn say(error: &ExamplesError) {
    let advice = match error {
        ExamplesError::Lake(LakeError::Damaged { .. } | LakeError::OtherFormat { .. }) => "",
        _ => "; it is tried again, and counting goes on",
    };
    tracing::warn!("examples could not be made: {error}{advice}");
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
