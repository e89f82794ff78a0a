//! What an owner sees of the log and the group: the product's `Source`, simulated.

use crate::script::{Acks, Effect, Mood, Point, TOPICS};
use crate::truth::TOPIC_NAMES;
use crate::world::{Shared, World};
use marquee_sources::embedded::LogError;
use marquee_sources::{AssignedLane, Change, Commit, Limit, Record, STRETCH, Source, SourceError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// One owner's share.
pub(crate) struct SimSource {
    shared: Arc<Shared>,
    process: usize,
    /// What it is in the group; `None` where the log has no group.
    membership: Option<Arc<Membership>>,
    /// Lanes of the embedded log that it was not given yet.
    embedded: Option<Vec<u32>>,
    /// Whether it has lanes, as far as it knows.
    holds: bool,
    positions: BTreeMap<u32, [u64; TOPICS]>,
    /// Since when a topic has had nothing to read, by the clock of the process.
    idle_since: std::sync::Mutex<BTreeMap<(usize, u32), i64>>,
    sent: u64,
    confirmed: u64,
    refused: u64,
    /// Commits that are on their way.
    on_the_way: VecDeque<(u64, Sent)>,
}

/// What an owner is in the group.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Its number there.
    pub(crate) member: AtomicU64,
    /// Looks until it learns that the group has lost sight of it.
    pub(crate) learns_after: AtomicU32,
}

/// A commit as it was sent: lane, offsets, note.
type Sent = Vec<(u32, Vec<u64>, String)>;

/// How a scripted failure is told from a fault.
pub(crate) const SCRIPTED: &str = "the script says so";

pub(crate) fn scripted() -> SourceError {
    SourceError::Embedded(LogError::Unusable(SCRIPTED.to_owned()))
}

impl SimSource {
    /// Of a member of the group.
    pub(crate) fn of_group(
        shared: &Arc<Shared>,
        process: usize,
        membership: Arc<Membership>,
    ) -> Self {
        Self::new(shared, process, Some(membership), None)
    }

    /// Of a log that one process has to itself.
    pub(crate) fn embedded(shared: &Arc<Shared>, process: usize, lanes: Vec<u32>) -> Self {
        Self::new(shared, process, None, Some(lanes))
    }

    fn new(
        shared: &Arc<Shared>,
        process: usize,
        membership: Option<Arc<Membership>>,
        embedded: Option<Vec<u32>>,
    ) -> Self {
        SimSource {
            shared: shared.clone(),
            process,
            membership,
            embedded,
            holds: false,
            positions: BTreeMap::new(),
            idle_since: Default::default(),
            sent: 0,
            confirmed: 0,
            refused: 0,
            on_the_way: VecDeque::new(),
        }
    }

    fn member(&self) -> Option<u64> {
        self.membership.as_ref().map(|membership| membership.member.load(Ordering::Relaxed))
    }

    /// Whether the group has lost sight of this owner, and it has learnt that.
    fn has_learnt(&self, world: &World) -> bool {
        self.membership.as_ref().is_some_and(|membership| {
            let is_lost = !world.group.knows(membership.member.load(Ordering::Relaxed));
            is_lost && membership.learns_after.load(Ordering::Relaxed) == 0
        })
    }

    fn look_up(&self, world: &World, lanes: &[u32]) -> Vec<AssignedLane> {
        let note = |committed: &crate::group::Committed| committed.clone().map(|(_, note)| note);
        let lane = |lane: &u32| {
            let place = *lane as usize;
            AssignedLane {
                lane: *lane,
                start_offsets: world.starts[place].to_vec(),
                end_offsets: world.ends[place].to_vec(),
                notes: match self.membership {
                    Some(_) => world.group.commits[place].iter().filter_map(note).collect(),
                    None => Vec::new(),
                },
            }
        };
        lanes.iter().map(lane).collect()
    }

    /// What is on its way arrives.
    fn deliver(&mut self, world: &mut World) {
        let Some(member) = self.member() else { return };
        while let Some((number, sent)) = self.on_the_way.pop_front() {
            let is_taken = take(world, self.process, member, &sent, TOPICS);
            match is_taken {
                true => self.confirmed = number,
                false => self.refused = number,
            }
        }
    }

    fn position(&self, topic: usize, lane: u32) -> u64 {
        self.positions.get(&lane).map_or(0, |positions| positions[topic])
    }
}

/// The group takes a commit, of the first so many partitions of each lane, if it lets this member.
fn take(world: &mut World, process: usize, member: u64, sent: &Sent, topics: usize) -> bool {
    let is_let = sent.iter().all(|(lane, ..)| world.group.lets_commit(member, *lane));
    world.tell(|| {
        let said: Vec<String> =
            sent.iter().map(|(lane, next, _)| format!("lane {lane} at {next:?}")).collect();
        let verb = if is_let { "takes" } else { "refuses" };
        format!("p{process}: the group {verb} {}", said.join(", "))
    });
    if is_let {
        for (lane, next, note) in sent {
            world.judge.told(*lane, note);
            for (topic, next) in next.iter().enumerate().take(topics) {
                let committed = Some((*next, note.clone()));
                world.group.commits[*lane as usize][topic] = committed;
            }
        }
    }
    is_let
}

impl Source for SimSource {
    fn change(&mut self) -> Result<Change, SourceError> {
        let shared = self.shared.clone();
        let mut world = shared.world();
        self.deliver(&mut world);
        let Some(member) = self.member() else {
            let Some(lanes) = self.embedded.take() else { return Ok(Change::None) };
            self.holds = true;
            return Ok(Change::Assigned(self.look_up(&world, &lanes)));
        };
        let membership = self.membership.as_ref().expect("it is a member");
        if !world.group.knows(member) {
            let left = membership.learns_after.load(Ordering::Relaxed);
            membership.learns_after.store(left.saturating_sub(1), Ordering::Relaxed);
        }
        if self.holds && (world.group.wants_back(member) || self.has_learnt(&world)) {
            return Ok(Change::Revoked);
        }
        if !self.holds && self.has_learnt(&world) {
            membership.member.store(world.group.join(), Ordering::Relaxed);
            return Ok(Change::None);
        }
        let Some(lanes) = world.group.accept(member) else { return Ok(Change::None) };
        self.holds = true;
        let process = self.process;
        world.tell(|| format!("p{process}: is given lanes {lanes:?}"));
        Ok(Change::Assigned(self.look_up(&world, &lanes)))
    }

    fn is_revoked(&mut self) -> bool {
        let world = self.shared.world();
        let wants = self.member().is_some_and(|member| world.group.wants_back(member));
        self.holds && (wants || self.has_learnt(&world))
    }

    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError> {
        self.positions.clear();
        self.idle_since.lock().unwrap_or_else(|e| e.into_inner()).clear();
        let is_started = |lane: u32| from.iter().any(|(started, _)| *started == lane);
        let mut world = self.shared.world();
        world.processes[self.process].shown_ms.retain(|(_, lane), _| !is_started(*lane));
        drop(world);
        from.iter().try_for_each(|(lane, offsets)| self.seek(*lane, offsets))
    }

    fn seek(&mut self, lane: u32, from: &[u64]) -> Result<(), SourceError> {
        self.positions.insert(lane, [from[0], from[1]]);
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        let mut world = self.shared.world();
        self.holds = false;
        self.positions.clear();
        let process = self.process;
        world.tell(|| format!("p{process}: releases its lanes"));
        if let Some(member) = self.member() {
            world.group.release(member);
        }
        Ok(())
    }

    fn read(
        &mut self,
        topic: usize,
        lane: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        let position = self.position(topic, lane);
        let mut world = self.shared.world();
        if world.goes_wrong(self.process, Point::Read).is_some() {
            return Err(scripted());
        }
        if world.mood(self.process, topic, lane) != Mood::Well {
            return Ok(position);
        }
        let (start, end) = (world.starts[lane as usize][topic], world.ends[lane as usize][topic]);
        if position < start {
            let topic_index = topic;
            let topic = TOPIC_NAMES[topic].to_owned();
            return Err(SourceError::OutOfRange { topic, topic_index, lane, position, start, end });
        }
        drop(world);
        let many = self.shared.truth.setup.chunk.min(limit.records) as u64;
        let next = end.min(limit.before).min(position + many).max(position);
        let partition = &self.shared.truth.log[lane as usize][topic];
        let mut stretch = Vec::new();
        for offset in position..next {
            let record = &partition.records[offset as usize];
            if let Some(event) = record.event.filter(|event| event.is_observed()) {
                self.idle_since.lock().unwrap_or_else(|e| e.into_inner()).remove(&(topic, lane));
                let mut world = self.shared.world();
                let shown = &mut world.processes[self.process].shown_ms;
                let shown_ms = shown.entry((topic, lane)).or_insert(event.seen_ms);
                *shown_ms = event.seen_ms.max(*shown_ms);
            }
            stretch.push(Record {
                offset,
                record_time_ms: Some(record.record_ms),
                key: Some(record.key.as_bytes()),
                payload: record.payload.as_deref(),
                headers: &[],
            });
        }
        stretch.chunks(STRETCH).for_each(each);
        self.positions.get_mut(&lane).expect("a lane that was started")[topic] = next;
        Ok(next)
    }

    fn has_data(&self, topic: usize, lane: u32) -> bool {
        let world = self.shared.world();
        let is_well = world.mood(self.process, topic, lane) == Mood::Well;
        is_well && self.position(topic, lane) < world.ends[lane as usize][topic]
    }

    fn is_idle(&self, topic: usize, lane: u32) -> bool {
        let mut world = self.shared.world();
        let is_well = world.mood(self.process, topic, lane) == Mood::Well;
        let is_idle = is_well && self.position(topic, lane) >= world.ends[lane as usize][topic];
        if is_idle {
            let now_ms = self.shared.wall_ms(&world, self.process);
            let mut idle_since = self.idle_since.lock().unwrap_or_else(|e| e.into_inner());
            let since_ms = *idle_since.entry((topic, lane)).or_insert(now_ms);
            world.judge.is_idle(&self.shared.truth, lane, topic, since_ms, now_ms);
        }
        is_idle
    }

    fn ends_now(&self, lane: u32) -> Option<Vec<u64>> {
        Some(self.shared.world().ends[lane as usize].to_vec())
    }

    fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        let world = self.shared.world();
        match world.mood(self.process, topic, lane) {
            Mood::Paused => self.position(topic, lane),
            _ => world.ends[lane as usize][topic].max(self.position(topic, lane)),
        }
    }

    fn commit(&mut self, commits: &[Commit<'_>]) -> Result<u64, SourceError> {
        let Some(member) = self.member() else { return Ok(0) };
        if commits.is_empty() {
            return Ok(self.sent);
        }
        let sent: Sent =
            commits.iter().map(|c| (c.lane, c.next_offsets.to_vec(), c.note.clone())).collect();
        let shared = self.shared.clone();
        let mut world = shared.world();
        let world = &mut *world;
        for (lane, next, _) in &sent {
            world.judge.tells(self.process, *lane, next, &world.processes[self.process].store);
        }
        let wrong = world.goes_wrong(self.process, Point::Tell);
        if wrong == Some(Effect::None) {
            return Err(scripted());
        }
        self.deliver(world);
        self.sent += 1;
        let acks = acks(world, self.process);
        match acks {
            Acks::Prompt | Acks::Slow => {
                self.on_the_way.push_back((self.sent, sent));
                if acks == Acks::Prompt {
                    self.deliver(world);
                }
            }
            Acks::Lost => {
                take(world, self.process, member, &sent, TOPICS);
            }
            Acks::Torn => {
                take(world, self.process, member, &sent, 1);
                self.refused = self.sent;
            }
            Acks::Refused => self.refused = self.sent,
        }
        if wrong.is_some() {
            return Err(scripted());
        }
        Ok(self.sent)
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn refused(&self) -> u64 {
        self.refused
    }

    fn flush_commits(&mut self) {
        let shared = self.shared.clone();
        self.deliver(&mut shared.world());
    }

    fn wait(&mut self, _: Duration) {
        self.flush_commits();
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn ends_with_process(&self) -> bool {
        self.membership.is_none()
    }
}

/// What the next commit of a process meets.
fn acks(world: &mut World, process: usize) -> Acks {
    let state = &mut world.processes[process];
    let Some((acks, left)) = state.acks else { return Acks::Prompt };
    state.acks = (left > 1).then_some((acks, left - 1));
    acks
}

impl Drop for SimSource {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        let mut world = shared.world();
        let Some(member) = self.member() else { return };
        if world.processes[self.process].is_doomed {
            // What it has sent last may still arrive, and the group does not know yet.
            self.deliver(&mut world);
            world.group.die(member);
        } else {
            world.group.expel(member);
        }
    }
}
