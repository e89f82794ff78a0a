//! Who may make the next call: writers are threads, and a test decides which of them goes on and
//! what becomes of its call.

use std::sync::{Condvar, Mutex, MutexGuard};

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Whose call is made.
    pub(super) writer: usize,
    pub(super) fault: Fault,
    /// What becomes of the store before.
    pub(super) change: Option<Change>,
}

/// What becomes of the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// It gets a member: lane, epoch, side, id, which video.
    Adds(u32, i64, u8, u8, bool),
    /// A lane closes its first open epoch.
    Closes(u32),
    /// A lane is started anew.
    Restarts(u32),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It is not done, and fails.
    Refused,
    /// It is done, and fails.
    AnswerLost,
    /// It may be done (every second time), and the process is no more.
    Killed,
}

#[derive(Debug)]
struct State {
    /// Writers that wait to make a call.
    waiting: Vec<bool>,
    /// Whose call may be made now, and what becomes of it.
    granted: Option<(usize, Fault)>,
    /// All calls are made at once, without faults.
    over: bool,
}

#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    pub(super) fn new(writers: usize) -> Self {
        let state = State { waiting: vec![false; writers], granted: None, over: false };
        Turns { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs one life of a writer after the other, until it is over.
    pub(super) fn run(&self, writer: usize, mut life: impl FnMut()) {
        while !self.is_over() {
            life();
        }
        self.lock().waiting[writer] = true;
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// A writer is about to make a call; returns when it may.
    pub(super) fn wait(&self, writer: usize) -> Fault {
        let mut state = self.lock();
        state.waiting[writer] = true;
        self.changed.notify_all();
        loop {
            if state.over {
                return Fault::None;
            }
            if let Some((granted, fault)) = state.granted
                && granted == writer
            {
                state.granted = None;
                state.waiting[writer] = false;
                return fault;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Lets one writer make its call and come to its next one.
    pub(super) fn step(&self, step: Step) {
        let mut state = self.wait_for_all(self.lock());
        state.granted = Some((step.writer, step.fault));
        self.changed.notify_all();
        while state.granted.is_some() {
            state = self.changed.wait_timeout(state, TICK).unwrap_or_else(|e| e.into_inner()).0;
        }
        drop(self.wait_for_all(state));
    }

    fn wait_for_all<'t>(&'t self, mut state: MutexGuard<'t, State>) -> MutexGuard<'t, State> {
        while !state.waiting.iter().all(|waits| *waits) {
            state = self.changed.wait_timeout(state, TICK).unwrap_or_else(|e| e.into_inner()).0;
        }
        state
    }

    /// What ends it when it is dropped: from then on nobody waits.
    pub(super) fn ends(&self) -> Ends<'_> {
        Ends(self)
    }
}

pub(super) struct Ends<'t>(&'t Turns);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

const TICK: std::time::Duration = std::time::Duration::from_millis(1);
