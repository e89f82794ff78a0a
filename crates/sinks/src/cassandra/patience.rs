//! What the store does while the cluster does not answer: it waits and says so (invariant
//! CONTAINED), for as long as the process wants to go on.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Whether something that failed is tried again.
pub trait Patience: Send + Sync {
    /// Called after a failure, the first of its kind or the `attempt`th in a row: waits, and returns
    /// whether to try again.
    fn wait(&self, attempt: u32, error: &str) -> bool;

    /// Called when the cluster has answered again.
    fn answered(&self);

    /// What is the matter, while something is.
    fn trouble(&self) -> Option<String>;
}

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How often a pause looks whether the process wants to end.
const GLANCE: Duration = Duration::from_millis(50);
/// How long something fails before it is said.
const SAID_AFTER: Duration = Duration::from_millis(500);
/// How often it is said again in the log.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Waits as long as it takes: for the lanes, which must not go on without.
#[derive(Debug, Default)]
pub struct ForEver(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    gives_up_at: Option<Instant>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    said: Option<Instant>,
    error: String,
}

impl ForEver {
    /// From now on waits this long at most: the process wants to end.
    pub fn give_up_after(&self, time: Duration) {
        self.lock().gives_up_at = Some(Instant::now() + time);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn gives_up(&self) -> bool {
        self.lock().gives_up_at.is_some_and(|at| at <= Instant::now())
    }

    fn note(&self, error: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        let trouble = state.trouble.get_or_insert_with(|| {
            let error = String::new();
            Trouble { since: now, said: None, error }
        });
        error.clone_into(&mut trouble.error);
        let since = now - trouble.since;
        if since >= SAID_AFTER && trouble.said.is_none_or(|said| now - said >= SAY_EVERY) {
            trouble.said = Some(now);
            let seconds = since.as_secs();
            tracing::warn!(
                seconds,
                "the store does not take what is counted: {error}. Nothing is committed to the log \
                 meanwhile, and nothing is lost: trying on"
            );
        }
    }
}

/// The pause after so many failures in a row.
fn pause_after(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LAST_PAUSE)
}

impl Patience for ForEver {
    fn wait(&self, attempt: u32, error: &str) -> bool {
        self.note(error);
        let until = Instant::now() + pause_after(attempt);
        while !self.gives_up() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(GLANCE));
        }
        false
    }

    fn answered(&self) {
        let Some(trouble) = self.lock().trouble.take() else { return };
        if trouble.said.is_some() {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(seconds, "the store answers again");
        }
    }

    fn trouble(&self) -> Option<String> {
        let state = self.lock();
        let trouble = state.trouble.as_ref()?;
        let seconds = trouble.since.elapsed();
        (seconds >= SAID_AFTER).then(|| {
            let seconds = seconds.as_secs();
            let error = &trouble.error;
            format!("the store has not taken what is counted for {seconds} s: {error}")
        })
    }
}

/// Tries a few times, in a second or so: for people who wait for an answer.
#[derive(Clone, Copy, Debug)]
pub struct ForPeople;

impl Patience for ForPeople {
    fn wait(&self, attempt: u32, _error: &str) -> bool {
        std::thread::sleep(pause_after(attempt));
        attempt < 4
    }

    fn answered(&self) {}

    fn trouble(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause_after(1), FIRST_PAUSE);
        assert_eq!(pause_after(2), 2 * FIRST_PAUSE);
        assert_eq!(pause_after(100), LAST_PAUSE);
    }

    #[test]
    fn an_end_is_not_waited_for() {
        let patience = ForEver::default();
        assert!(patience.wait(1, "down"));
        patience.give_up_after(Duration::ZERO);
        assert!(!patience.wait(100, "down"), "the process wants to end");
    }

    #[test]
    fn trouble_is_said_after_a_while_and_goes_with_an_answer() {
        let patience = ForEver::default();
        patience.note("down");
        assert_eq!(patience.trouble(), None, "one failure is no trouble yet");
        std::thread::sleep(SAID_AFTER);
        let said = patience.trouble().expect("half a second is");
        assert!(said.contains("down"), "{said}");
        patience.answered();
        assert_eq!(patience.trouble(), None);
    }
}
