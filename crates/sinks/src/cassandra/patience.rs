//! What the store does while the cluster does not answer: it waits and says so (invariant
//! CONTAINED), for as long as the process wants to go on.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread::ThreadId;
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

/// Waits: for as long as the process lives, or for so long. Each thread that waits has troubles of its
/// own: that one of them is answered says nothing of the others.
#[derive(Debug, Default)]
pub struct Waits {
    state: Mutex<State>,
    /// How long one thing may fail until it is given up; `None`: for ever.
    limit: Option<Duration>,
    /// Whether it is said in the log that nothing is lost.
    is_quiet: bool,
}

#[derive(Debug, Default)]
struct State {
    troubles: HashMap<ThreadId, Trouble>,
    gives_up_at: Option<Instant>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    said: Option<Instant>,
    error: String,
}

impl Waits {
    /// For the lanes, which must not go on without.
    pub fn for_ever() -> Self {
        Waits::default()
    }

    /// For a start, and for commands that write.
    pub fn at_most(limit: Duration) -> Self {
        Waits { limit: Some(limit), ..Waits::default() }
    }

    /// For people who want an answer: what takes longer than a second after its first failure is given
    /// up, without a word in the log.
    pub fn for_people() -> Self {
        Waits { limit: Some(Duration::from_secs(1)), is_quiet: true, ..Waits::default() }
    }

    /// From now on waits this long at most: the process wants to end.
    pub fn give_up_after(&self, time: Duration) {
        self.lock().gives_up_at = Some(Instant::now() + time);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes a failure of this thread; whether it is the last one that is waited for.
    fn note(&self, error: &str) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let trouble = state.troubles.entry(std::thread::current().id()).or_insert_with(|| {
            let error = String::new();
            Trouble { since: now, said: None, error }
        });
        error.clone_into(&mut trouble.error);
        let since = now - trouble.since;
        let is_due = since >= SAID_AFTER && trouble.said.is_none_or(|said| now - said >= SAY_EVERY);
        if is_due && !self.is_quiet {
            trouble.said = Some(now);
            let seconds = since.as_secs();
            tracing::warn!(
                seconds,
                "the store does not answer: {error}. What it has not acknowledged is not committed to \
                 the log, and nothing is lost: trying on"
            );
        }
        self.limit.is_some_and(|limit| since >= limit)
    }

    fn gives_up(&self) -> bool {
        self.lock().gives_up_at.is_some_and(|at| at <= Instant::now())
    }
}

/// The pause after so many failures in a row.
fn pause_after(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LAST_PAUSE)
}

impl Patience for Waits {
    fn wait(&self, attempt: u32, error: &str) -> bool {
        if self.note(error) {
            self.answered(); // with no: the next thing that is asked has a time of its own
            return false;
        }
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
        let Some(trouble) = self.lock().troubles.remove(&std::thread::current().id()) else {
            return;
        };
        if trouble.said.is_some() {
            let seconds = trouble.since.elapsed().as_secs();
            tracing::info!(seconds, "the store answers again");
        }
    }

    fn trouble(&self) -> Option<String> {
        let state = self.lock();
        let trouble = state.troubles.values().min_by_key(|trouble| trouble.since)?;
        let since = trouble.since.elapsed();
        (since >= SAID_AFTER).then(|| {
            let (seconds, error) = (since.as_secs(), &trouble.error);
            format!("the store has not taken what is counted for {seconds} s: {error}")
        })
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
        let patience = Waits::for_ever();
        assert!(patience.wait(1, "down"));
        patience.give_up_after(Duration::ZERO);
        assert!(!patience.wait(100, "down"), "the process wants to end");
    }

    #[test]
    fn trouble_is_said_after_a_while_and_goes_with_an_answer() {
        let patience = Waits::for_ever();
        patience.note("down");
        assert_eq!(patience.trouble(), None, "one failure is no trouble yet");
        std::thread::sleep(SAID_AFTER);
        let said = patience.trouble().expect("half a second is");
        assert!(said.contains("down"), "{said}");
        std::thread::scope(|scope| {
            scope.spawn(|| patience.answered());
        });
        assert_eq!(patience.trouble(), Some(said), "another thread was answered, not this one");
        patience.answered();
        assert_eq!(patience.trouble(), None);
    }

    #[test]
    fn a_bounded_patience_ends_and_begins_anew() {
        let patience = Waits::at_most(Duration::from_millis(120));
        for _ in 0..2 {
            let begun = Instant::now();
            let attempts = (1..).take_while(|attempt| patience.wait(*attempt, "down")).count();
            assert!(attempts >= 2, "{attempts}");
            assert!(begun.elapsed() >= Duration::from_millis(120));
        }
    }
}
