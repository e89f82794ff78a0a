//! What the lake says of itself: numbers that whoever asks can have at any time.

use std::sync::{Mutex, MutexGuard};

/// The numbers of one process since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LakeNumbers {
    /// Where it is.
    pub place: String,
    /// Looks at what has closed that went well, to the end.
    pub looks: u64,
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Delta files of open stretches written.
    pub delta_files: u64,
    /// Their bytes.
    pub delta_bytes: u64,
    /// Pieces of late and dead letters written.
    pub letter_files: u64,
    /// Their bytes.
    pub letter_bytes: u64,
    /// Stretches of lanes that were written and listed, those without cells included.
    pub sealed: u64,
    /// Of these, stretches that were there and were written anew.
    pub rewritten: u64,
    /// Times that another writer was faster, and one began anew.
    pub stale: u64,
    /// Files that were taken away.
    pub deleted: u64,
    /// Times that the lake, or the store, did not do what it was asked for.
    pub failures: u64,
    /// Closed stretches that are not known to be in the lake as the store has them.
    pub waiting: u64,
    /// Start of the first of them, milliseconds since 1970 UTC.
    pub waiting_from_ms: Option<i64>,
    /// What keeps the lake from being written; `None` when nothing does.
    pub trouble: Option<Trouble>,
}

/// What keeps the lake from being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: i64,
    /// How often it was tried since.
    pub tries: u64,
    /// What the last try said.
    pub error: String,
}

impl LakeNumbers {
    /// How it is doing, in a sentence.
    pub fn words(&self) -> String {
        match (&self.trouble, self.waiting) {
            (Some(Trouble { tries, error, .. }), waiting) => format!(
                "{waiting} closed stretches wait for the lake {}, which failed {tries} times: {error}",
                self.place
            ),
            (None, 0) => "all closed stretches are in the lake".to_owned(),
            (None, waiting) => format!("{waiting} closed stretches are on their way into the lake"),
        }
    }
}

/// The same, shared between who writes and who asks.
#[derive(Debug, Default)]
pub struct LakeStatus(Mutex<LakeNumbers>);

impl LakeStatus {
    /// Of a lake at a place.
    pub fn new(place: String) -> Self {
        LakeStatus(Mutex::new(LakeNumbers { place, ..LakeNumbers::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, LakeNumbers> {
        // Plain numbers are usable whatever happened to whoever held them.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// As it is now.
    pub fn numbers(&self) -> LakeNumbers {
        self.lock().clone()
    }

    /// Changes some numbers.
    pub(super) fn change(&self, change: impl FnOnce(&mut LakeNumbers)) {
        change(&mut self.lock());
    }

    /// A try has failed.
    pub fn failed(&self, error: String, now_ms: i64) {
        let mut numbers = self.lock();
        numbers.failures += 1;
        let before = numbers.trouble.take();
        let (since_ms, tries) = before.map_or((now_ms, 0), |t| (t.since_ms, t.tries));
        numbers.trouble = Some(Trouble { since_ms, tries: tries + 1, error });
    }

    /// A try was good; returns what kept it until now.
    pub fn worked(&self) -> Option<Trouble> {
        self.lock().trouble.take()
    }
}
