//! Group commit: one sync for all who wait for one.
//!
//! A sync takes milliseconds however much it makes durable. So callers put their records into
//! the **group** that is *forming*. The first who finds nobody writing becomes the **leader**: it
//! takes the group, writes and syncs it for all who are in it, and tells them how it went.
//! Meanwhile the others form the next group. No thread of the log's own waits for work.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock},
};

use super::{
    error::LogError,
    frame,
    record::{NewRecord, Position},
};

/// For each slot the offset of the group's first record there, or why nothing was written.
type Outcome = Result<Vec<u64>, LogError>;

/// The records that go to disk together.
#[derive(Debug)]
pub(super) struct Group {
    /// One for each lane of each topic, most of them often empty.
    pub(super) parts: Vec<Part>,
    bytes: usize,
    /// Set once, by the leader; everybody who is in the group holds it too.
    outcome: Arc<OnceLock<Outcome>>,
}

/// The records of one group for one lane.
#[derive(Debug, Default, Clone)]
pub(super) struct Part {
    /// Frames without offsets: those are known only when it is the group's turn.
    pub(super) frames: Vec<u8>,
    pub(super) records: u64,
}

/// Why a group was not written, and whether another may be.
#[derive(Debug)]
pub(super) enum Failure {
    /// The disk is as it was before: the next group may be luckier.
    Undone(LogError),
    /// What is on disk is not known: no group may follow.
    Unknown(LogError),
}

/// The groups' queue, which is never longer than one being written and one forming.
#[derive(Debug)]
pub(super) struct Commit {
    group_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Rung when a leader has finished.
    finished: Condvar,
    /// Rung when a leader has taken the forming group, so that there is room in a new one.
    taken: Condvar,
}

#[derive(Debug)]
struct Queue {
    forming: Group,
    /// The memory of the group written before.
    spare: Option<Group>,
    has_leader: bool,
    poison: Option<String>,
}

/// The memory that a part keeps for the next group.
const PART_BYTES_KEPT: usize = 1 << 20;

impl Group {
    fn new(slots: usize) -> Self {
        Self { parts: vec![Part::default(); slots], bytes: 0, outcome: Arc::default() }
    }

    /// Adds the records and tells where each will stand: its offset still counts from the
    /// group's first record in its lane.
    fn add(
        &mut self,
        batch: &[NewRecord<'_>],
        slots: impl Fn(usize, u32) -> usize,
    ) -> Vec<Position> {
        let mut positions = Vec::with_capacity(batch.len());
        for record in batch {
            let part = &mut self.parts[slots(record.topic, record.lane)];
            frame::push_unstamped(record, &mut part.frames);
            let (topic, lane, offset) = (record.topic, record.lane, part.records);
            positions.push(Position { topic, lane, offset });
            part.records += 1;
            self.bytes += frame::size_of(record);
        }
        positions
    }

    fn clear(&mut self) {
        for part in &mut self.parts {
            part.frames.clear();
            part.frames.shrink_to(PART_BYTES_KEPT);
            part.records = 0;
        }
        self.bytes = 0;
        self.outcome = Arc::default();
    }
}

impl Commit {
    pub(super) fn new(slots: usize, group_bytes_max: usize) -> Self {
        let forming = Group::new(slots);
        let queue = Queue { forming, spare: None, has_leader: false, poison: None };
        let (finished, taken) = Default::default();
        Self { group_bytes_max, queue: Mutex::new(queue), finished, taken }
    }

    pub(super) fn poison(&self) -> Option<String> {
        self.lock().poison.clone()
    }

    /// Returns when the batch is durable. `slots` numbers the lanes; `write` writes a whole group
    /// and is called only by the leader, so never twice at once.
    pub(super) fn submit(
        &self,
        batch: &[NewRecord<'_>],
        slots: impl Fn(usize, u32) -> usize + Copy,
        write: impl FnOnce(&mut Group) -> Result<Vec<u64>, Failure>,
    ) -> Result<Vec<Position>, LogError> {
        let bytes: usize = batch.iter().map(frame::size_of).sum();
        let full = |queue: &mut Queue| {
            queue.forming.bytes > 0 && queue.forming.bytes + bytes > self.group_bytes_max
        };
        let wait = self.taken.wait_while(self.lock(), full);
        let mut queue = wait.expect("a panic under the queue's lock is a bug");
        refuse_if_poisoned(&queue)?;
        let outcome = Arc::clone(&queue.forming.outcome);
        let mut positions = queue.forming.add(batch, slots);
        while queue.has_leader && outcome.get().is_none() {
            let wait = self.finished.wait(queue);
            queue = wait.expect("a panic under the queue's lock is a bug");
        }
        if outcome.get().is_none() {
            self.lead(queue, write);
        } else {
            drop(queue);
        }
        let firsts = outcome.get().expect("a leader sets the outcome of its own group");
        let firsts = firsts.as_ref().map_err(LogError::clone)?;
        for position in &mut positions {
            position.offset += firsts[slots(position.topic, position.lane)];
        }
        Ok(positions)
    }

    /// Writes the forming group, which nobody else has taken.
    fn lead(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        write: impl FnOnce(&mut Group) -> Result<Vec<u64>, Failure>,
    ) {
        let next = queue.spare.take().unwrap_or_else(|| Group::new(queue.forming.parts.len()));
        let mut turn = Turn { commit: self, group: mem::replace(&mut queue.forming, next) };
        let refused = refuse_if_poisoned(&queue);
        queue.has_leader = true;
        drop(queue);
        self.taken.notify_all();
        let outcome = match refused {
            Err(error) => Err(error),
            Ok(()) => write(&mut turn.group).map_err(|failure| match failure {
                Failure::Undone(error) => error,
                Failure::Unknown(error) => {
                    self.lock().poison.get_or_insert(error.to_string());
                    error
                }
            }),
        };
        turn.group.outcome.set(outcome).expect("only the group's one leader sets its outcome");
    }

    #[cfg(test)]
    pub(super) fn forming_records(&self) -> u64 {
        self.lock().forming.parts.iter().map(|part| part.records).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("a panic under the queue's lock is a bug")
    }
}

fn refuse_if_poisoned(queue: &Queue) -> Result<(), LogError> {
    queue.poison.clone().map_or(Ok(()), |reason| Err(LogError::Poisoned { reason }))
}

/// A leader's turn. It ends when this is dropped, also by a panic: those who wait for the group
/// must not wait for ever.
struct Turn<'a> {
    commit: &'a Commit,
    group: Group,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Ok(mut queue) = self.commit.queue.lock() else { return };
        if self.group.outcome.get().is_none() {
            let reason = "a bug ended the thread that was writing".to_owned();
            let _ = self.group.outcome.set(Err(LogError::Poisoned { reason: reason.clone() }));
            queue.poison.get_or_insert(reason);
        }
        queue.has_leader = false;
        let mut group = mem::replace(&mut self.group, Group::new(0));
        group.clear();
        queue.spare = Some(group);
        self.commit.finished.notify_all();
    }
}
