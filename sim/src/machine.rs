//! Runs a script: processes with real owners, whose steps are interleaved as the script says.

use crate::cluster::{SECRET, SharedStore};
use crate::judge::{self, Fault, Owners};
use crate::script::{Action, Harm, Script};
use crate::source::{Membership, SCRIPTED, SimSource};
use crate::store::{Kept, SimLetterbox, SimSnapshots, SimStore};
use crate::truth::{TOPIC_NAMES, Truth};
use crate::world::Shared;
use marquee_runtime::lanes::{
    LaneError, LanesSettings, Next, Owner, SnapshotsSettings, StateMemory,
};
use marquee_runtime::status::StatusBoard;
use marquee_sinks::Sink;
use marquee_sources::Source;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Steps of all owners until everything must have been counted at the end.
const REST: usize = 4_000;

/// Steps that each owner makes after everything was read: two batches.
const MORE_ROUNDS: usize = 12;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went against the contract, if anything did.
    pub fault: Option<Fault>,
    /// What happened, line by line, if that was asked for.
    pub trace: Vec<String>,
    /// Steps that owners made.
    pub steps: u64,
}

/// Runs a script. A panic of the product is a fault like others.
pub fn run(script: &Script, is_told: bool) -> Outcome {
    catch_unwind(|| run_on(script, is_told)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| {
            panic.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned())
        });
        let fault = Some(Fault { rule: "no bug ends an owner", words });
        Outcome { fault, trace: Vec::new(), steps: 0 }
    })
}

fn run_on(script: &Script, is_told: bool) -> Outcome {
    let mut machine = Machine::new(script, is_told);
    for action in &script.actions {
        machine.act(action);
        if machine.is_over() {
            return machine.outcome();
        }
    }
    machine.finish(script.last);
    machine.outcome()
}

struct Machine {
    shared: Arc<Shared>,
    running: Vec<Option<Process>>,
    produced: usize,
    steps: u64,
}

/// One process at work.
struct Process {
    owners: Vec<Worker>,
    stop: Arc<AtomicBool>,
    status: Arc<StatusBoard>,
}

struct Worker {
    /// `None` once it has ended.
    owner: Option<Owner>,
    /// It sleeps until then.
    sleeps_until_ms: u64,
    membership: Arc<Membership>,
}

/// What a step of an owner leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Pauses,
    Ended,
}

impl Machine {
    fn new(script: &Script, is_told: bool) -> Self {
        let shared = Shared::new(Truth::of(script), is_told);
        let running = (0..script.setup.processes).map(|_| None).collect();
        Machine { shared, running, produced: 0, steps: 0 }
    }

    fn is_over(&self) -> bool {
        self.shared.world().judge.fault().is_some()
    }

    fn outcome(mut self) -> Outcome {
        for process in 0..self.running.len() {
            self.kill(process);
        }
        let mut world = self.shared.world();
        let fault = world.judge.fault().cloned();
        Outcome { fault, trace: world.take_trace(), steps: self.steps }
    }

    fn tell(&self, words: impl FnOnce() -> String) {
        self.shared.world().tell(words);
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Produce(count) => self.produce(count),
            Action::Pass(ms) => {
                self.shared.time.reach(self.shared.time.passed_ms() + ms as u64);
                self.tell(|| format!("{ms} ms pass"));
            }
            Action::Step { process, owner, steps } => {
                for _ in 0..steps {
                    if self.step(process, owner) != Then::GoesOn {
                        break;
                    }
                }
            }
            Action::Start(process) => self.start(process),
            Action::Stop(process) => self.stop(process),
            Action::Kill(process) => {
                self.tell(|| format!("p{process}: is killed"));
                self.kill(process);
            }
            Action::KillAt { process, point, nth, effect } => {
                self.shared.world().plan(process, point, nth, effect, true);
            }
            Action::FailAt { process, point, nth, effect } => {
                self.shared.world().plan(process, point, nth, effect, false);
            }
            Action::Expel { process, owner, learns_after } => {
                self.expel(process, owner, learns_after);
            }
            Action::Rebalance => {
                self.tell(|| "the group shares anew".to_owned());
                self.shared.world().group.rebalance();
            }
            Action::Acks { process, acks, count } => {
                self.tell(|| format!("p{process}: its next {count} commits are {acks:?}"));
                self.shared.world().processes[process].acks = Some((acks, count));
            }
            // The embedded log is always at hand.
            Action::Partition { .. } if self.shared.truth.setup.is_embedded => {}
            Action::Partition { process, topic, lane, mood } => {
                self.tell(|| format!("p{process}: {}/{lane} is {mood:?}", TOPIC_NAMES[topic]));
                self.shared.world().processes[process].moods.insert((topic, lane), mood);
            }
            Action::Trim { topic, lane, keep } => self.trim(topic, lane, keep),
            Action::Snapshot { process, lane, harm } => self.harm(process, lane, harm),
            Action::Clock { process, offset_ms } => {
                self.tell(|| format!("p{process}: its clock is wrong by {offset_ms} ms"));
                self.shared.world().set_clock(process, offset_ms);
            }
        }
    }

    fn produce(&mut self, count: usize) {
        let mut world = self.shared.world();
        let truth = &self.shared.truth;
        let until = (self.produced + count).min(truth.order.len());
        for index in self.produced..until {
            let (lane, topic) = truth.order[index];
            let end = &mut world.ends[lane as usize][topic];
            let offset = *end;
            *end += 1;
            let at_ms = truth.at_ms[index] - crate::script::START_MS;
            self.shared.time.reach(at_ms as u64);
            world.tell(|| {
                let logged = &truth.log[lane as usize][topic].records[offset as usize];
                format!("log {}/{lane} {offset}: {}", TOPIC_NAMES[topic], logged.words)
            });
        }
        self.produced = until;
    }

    fn trim(&mut self, topic: usize, lane: u32, keep: u64) {
        let mut world = self.shared.world();
        let end = world.ends[lane as usize][topic];
        let start = &mut world.starts[lane as usize][topic];
        if end.saturating_sub(keep) > *start {
            *start = end - keep;
            let start = *start;
            world.judge.trimmed(lane);
            world.tell(|| format!("log {}/{lane} begins at {start} now", TOPIC_NAMES[topic]));
        }
    }

    /// Something happens to snapshots on disk.
    fn harm(&mut self, process: usize, lane: u32, harm: Harm) {
        let mut world = self.shared.world();
        if harm == Harm::Foreign {
            let other = (process + 1) % world.processes.len();
            let theirs = world.processes[other].snapshots.clone();
            world.processes[process].snapshots.extend(theirs);
        } else {
            let snapshots = &mut world.processes[process].snapshots;
            let Some(last) = snapshots.range_mut(..(lane + 1, String::new())).next_back() else {
                return;
            };
            let at = |share: u16, len: usize| len * usize::from(share) / 1_000;
            match harm {
                Harm::Flipped(share) => {
                    let at = at(share, last.1.len());
                    last.1.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x10);
                }
                Harm::Torn(share) => last.1.truncate(at(share, last.1.len())),
                Harm::Lost | Harm::Foreign => {
                    let last = last.0.clone();
                    snapshots.remove(&last);
                }
            }
        }
        world.tell(|| format!("p{process}: the last snapshot of lane {lane} meets {harm:?}"));
    }

    fn start(&mut self, process: usize) {
        if self.running[process].is_some() {
            return;
        }
        let setup = &self.shared.truth.setup;
        let stop = Arc::new(AtomicBool::new(false));
        let (mut sources, mut handles) = (Vec::<Box<dyn Source>>::new(), Vec::new());
        for owner in 0..setup.owners {
            let mut member = 0;
            if !setup.is_embedded {
                member = self.shared.world().group.join();
            }
            let (member, learns_after) = (AtomicU64::new(member), AtomicU32::new(0));
            let membership = Arc::new(Membership { member, learns_after });
            let is_its = |lane: &u32| *lane as usize % setup.owners == owner;
            let source = match setup.is_embedded {
                true => {
                    let lanes = (0..setup.lanes).filter(is_its).collect();
                    SimSource::embedded(&self.shared, process, lanes)
                }
                false => SimSource::of_group(&self.shared, process, membership.clone()),
            };
            sources.push(Box::new(source));
            handles.push(membership);
        }
        self.tell(|| format!("p{process}: starts"));
        self.shared.world().processes[process].is_doomed = false;
        let store: Arc<dyn Sink> = match setup.is_shared {
            true => Arc::new(SharedStore::open(&self.shared, process)),
            false => Arc::new(SimStore { shared: self.shared.clone(), process }),
        };
        let status = Arc::new(StatusBoard::new(setup.lanes, setup.owners));
        let owners = Owner::all(&self.settings(process), sources, &store, &status, &stop);
        let worker =
            |(owner, membership)| Worker { owner: Some(owner), sleeps_until_ms: 0, membership };
        let owners = owners.into_iter().zip(handles).map(worker).collect();
        self.running[process] = Some(Process { owners, stop, status });
    }

    fn settings(&self, process: usize) -> LanesSettings {
        let truth = &self.shared.truth;
        LanesSettings {
            name: "simulation".to_owned(),
            plan: truth.plan.clone(),
            // Each store has its own.
            secret: match truth.setup.is_shared {
                true => SECRET,
                false => [7 + process as u8; 16],
            },
            batch_interval: Duration::from_millis(truth.setup.batch_interval_ms),
            batch_events: truth.setup.batch_events,
            letters: Arc::new(SimLetterbox { shared: self.shared.clone(), process }),
            memory: StateMemory::new(truth.setup.memory_bytes, Arc::new(Kept)).in_parts_of(600),
            clock: Arc::new(self.shared.world().clock(process, &self.shared.time)),
            snapshots: truth.setup.snapshots_ms.map(|interval_ms| SnapshotsSettings {
                place: Arc::new(SimSnapshots { shared: self.shared.clone(), process }),
                interval: Duration::from_millis(interval_ms),
            }),
            checks_partitions: true,
            topic_ids: vec!["one".to_owned(), "two".to_owned()],
        }
    }

    /// One step of one owner. If it sleeps, time passes until it is awake.
    fn step(&mut self, process: usize, number: usize) -> Then {
        let Some(running) = &mut self.running[process] else { return Then::Ended };
        let worker = &mut running.owners[number];
        let Some(owner) = &mut worker.owner else { return Then::Ended };
        self.steps += 1;
        let time = &self.shared.time;
        time.reach(worker.sleeps_until_ms);
        let nap_ms = self.shared.truth.setup.nap_ms;
        let ms = |time: Duration| time.as_millis() as u64;
        match owner.step() {
            Ok(Next::Step) => Then::GoesOn,
            Ok(Next::Sleep(wanted)) => {
                worker.sleeps_until_ms = time.passed_ms() + ms(wanted).max(nap_ms);
                Then::Pauses
            }
            Ok(Next::Wait(wanted)) => {
                owner.wait(wanted);
                worker.sleeps_until_ms = time.passed_ms() + ms(wanted).min(nap_ms);
                Then::Pauses
            }
            Ok(Next::Ended) => {
                worker.owner = None;
                Then::Ended
            }
            Err(error) => {
                self.died(process, number, &error);
                Then::Ended
            }
        }
    }

    /// An owner ended with an error, and with it its process: the others may end in order, unless it
    /// was killed.
    fn died(&mut self, process: usize, owner: usize, error: &LaneError) {
        let words = error.to_string();
        let mut world = self.shared.world();
        let is_killed = world.processes[process].is_doomed;
        world.tell(|| format!("p{process}: dies: {words}"));
        let is_scripted = words.contains(SCRIPTED);
        world.judge.must(is_scripted, "nothing but what the script says ends a process", || {
            format!("p{process}: {words}")
        });
        drop(world);
        if is_killed || !is_scripted {
            return self.kill(process);
        }
        if let Some(running) = &mut self.running[process] {
            running.owners[owner].owner = None;
        }
        self.stop(process);
    }

    fn kill(&mut self, process: usize) {
        self.shared.world().processes[process].is_doomed = true;
        self.running[process] = None;
    }

    fn stop(&mut self, process: usize) {
        let Some(running) = &self.running[process] else { return };
        running.stop.store(true, Ordering::Relaxed);
        self.tell(|| format!("p{process}: stops"));
        for owner in 0..self.shared.truth.setup.owners {
            let has_ended = (0..400).any(|_| self.step(process, owner) == Then::Ended);
            self.shared.world().judge.must(has_ended, "a stop ends", || {
                format!("p{process}: owner {owner} does not end")
            });
        }
        self.running[process] = None;
    }

    fn expel(&mut self, process: usize, owner: usize, learns_after: u32) {
        let Some(running) = &self.running[process] else { return };
        let worker = &running.owners[owner];
        let mut world = self.shared.world();
        let member = worker.membership.member.load(Ordering::Relaxed);
        if worker.owner.is_some() && world.group.knows(member) {
            worker.membership.learns_after.store(learns_after, Ordering::Relaxed);
            world.group.expel(member);
            world.tell(|| format!("p{process}: the group loses sight of its owner {owner}"));
        }
    }

    /// All faults end, some processes are left, and everything is read.
    fn finish(&mut self, last: u8) {
        self.tell(|| "all faults end".to_owned());
        self.produce(usize::MAX - self.produced);
        let processes = self.running.len();
        for process in 0..processes {
            self.shared.world().heal(process);
            self.shared.world().set_clock(process, 0);
            match last >> process & 1 {
                0 => self.stop(process),
                _ => self.start(process),
            }
        }
        self.shared.world().group.rebalance();
        let owners_each = self.shared.truth.setup.owners;
        let mut left = REST;
        while !self.is_at_rest() {
            for place in 0..processes * owners_each {
                self.step(place / owners_each, place % owners_each);
                if self.is_over() {
                    return;
                }
            }
            left -= 1;
            if left == 0 {
                let ends = self.shared.world().ends.clone();
                self.shared.world().judge.must(false, "everything is counted in the end", || {
                    format!("the log ends at {ends:?}")
                });
                return;
            }
        }
        // A lane that has read everything may still have to write, gaps for one.
        for place in (0..MORE_ROUNDS).flat_map(|_| 0..processes * owners_each) {
            self.step(place / owners_each, place % owners_each);
        }
        let owners = self.owners();
        SharedStore::settle(&self.shared);
        let mut world = self.shared.world();
        judge::at_the_end(&mut world, &self.shared.truth, &owners);
    }

    /// The process that has counted all of each lane.
    fn owners(&self) -> Owners {
        let mut owners = Owners::new();
        for lane in 0..self.shared.truth.setup.lanes {
            let processes = 0..self.running.len();
            if let Some(owner) = processes.into_iter().find(|process| self.is_whole(*process, lane))
            {
                owners.insert(lane, owner);
            }
        }
        owners
    }

    /// Whether a process has a lane, by right, and has counted all of it.
    fn is_whole(&self, process: usize, lane: u32) -> bool {
        let Some(running) = &self.running[process] else { return false };
        let status = &running.status.lanes()[lane as usize];
        let world = self.shared.world();
        let is_member = |member| self.is_of(process, member);
        status.held
            && !status.rebuilding
            && !status.is_behind_group
            && status.next_offsets[..] == world.ends[lane as usize]
            && (self.shared.truth.setup.is_embedded || world.group.is_held_by(lane, is_member))
    }

    fn is_of(&self, process: usize, member: u64) -> bool {
        let running = self.running[process].as_ref();
        running.is_some_and(|running| {
            running
                .owners
                .iter()
                .any(|worker| worker.membership.member.load(Ordering::Relaxed) == member)
        })
    }

    /// Whether each lane has an owner that has counted all of it.
    fn is_at_rest(&self) -> bool {
        let owners = self.owners();
        (0..self.shared.truth.setup.lanes).all(|lane| owners.contains_key(&lane))
    }
}
