//! The world that the owners live in, apart from what they keep in memory: the log, the group, each
//! process's store and letters, and the time. Owners reach it through the traits of the product;
//! every call may go wrong as the script says.

use crate::cluster::Tables;
use crate::group::Group;
use crate::judge::Judge;
use crate::script::{Acks, Effect, Mood, Point, START_MS, TOPICS};
use crate::store::StoreState;
use crate::truth::{TOPIC_NAMES, Truth};
use marquee_runtime::Clock;
use marquee_sinks::Gap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Everything that outlives a process, behind the one lock of a run. A run has one thread: the lock
/// is there because the product's traits ask for it.
pub(crate) struct Shared {
    pub(crate) truth: Truth,
    pub(crate) time: Arc<Time>,
    world: Mutex<World>,
}

impl Shared {
    pub(crate) fn new(truth: Truth, is_told: bool) -> Arc<Self> {
        let world = World::new(&truth, is_told);
        Arc::new(Shared { truth, time: Arc::default(), world: Mutex::new(world) })
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // A panic is told as a fault; what the world was like by then does not matter.
        self.world.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The clock of a process, which may be wrong.
    pub(crate) fn wall_ms(&self, world: &World, process: usize) -> i64 {
        self.time.true_ms() + world.processes[process].clock.0.load(Ordering::Relaxed)
    }
}

/// What changes in a run.
pub(crate) struct World {
    /// First offset that is there, and the end, by lane and topic.
    pub(crate) starts: Vec<[u64; TOPICS]>,
    pub(crate) ends: Vec<[u64; TOPICS]>,
    pub(crate) group: Group,
    pub(crate) processes: Vec<ProcessState>,
    pub(crate) judge: Judge,
    /// The store of all processes, where they share one.
    pub(crate) tables: Tables,
    trace: Option<Vec<String>>,
}

/// What is true of one process, whether it runs or not.
#[derive(Default)]
pub(crate) struct ProcessState {
    pub(crate) store: StoreState,
    /// Late and dead letters by lane, as bytes that are durable.
    pub(crate) letters: BTreeMap<(marquee_sinks::letters::LetterKind, u32), Vec<u8>>,
    /// Snapshots by lane and name.
    pub(crate) snapshots: BTreeMap<(u32, String), Vec<u8>>,
    pub(crate) moods: BTreeMap<(usize, u32), Mood>,
    /// The latest time that a topic of a lane has shown since the lane was started here.
    pub(crate) shown_ms: BTreeMap<(usize, u32), i64>,
    pub(crate) acks: Option<(Acks, u32)>,
    /// Calls that will go wrong.
    plans: Vec<Plan>,
    /// Set once it has died: it does nothing more.
    pub(crate) is_doomed: bool,
    clock: ClockOffset,
}

#[derive(Clone, Default)]
struct ClockOffset(Arc<AtomicI64>);

/// A call that will go wrong.
struct Plan {
    point: Point,
    /// After so many more of them.
    after: u32,
    effect: Effect,
    /// Whether the process dies of it at once.
    is_death: bool,
}

impl World {
    fn new(truth: &Truth, is_told: bool) -> World {
        let lanes = truth.setup.lanes as usize;
        World {
            starts: vec![[0; TOPICS]; lanes],
            ends: vec![[0; TOPICS]; lanes],
            group: Group::new(lanes),
            processes: (0..truth.setup.processes).map(|_| ProcessState::default()).collect(),
            judge: Judge::new(lanes),
            tables: Tables::default(),
            trace: is_told.then(Vec::new),
        }
    }

    /// Notes what happens, where somebody wants to know.
    pub(crate) fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(words());
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// A process notes gaps.
    pub(crate) fn judge_gaps(&mut self, shared: &Shared, process: usize, gaps: &[Gap]) {
        for gap in gaps {
            let topic = usize::from(gap.topic == TOPIC_NAMES[1]);
            let is_blind = gap.to_offset == self.ends[gap.lane as usize][topic];
            let now_ms = shared.wall_ms(self, process);
            let shown_ms = &self.processes[process].shown_ms;
            let known_ms =
                shown_ms.get(&(1 - topic, gap.lane)).map_or(now_ms, |ms| now_ms.max(*ms));
            self.judge.doubts(process, gap, is_blind.then_some((topic, known_ms)));
            self.tell(|| {
                let Gap { lane, topic, from_offset, to_offset, from_ms, to_ms, reason } = gap;
                format!(
                    "p{process}: notes a gap in lane {lane}: {topic} {from_offset}..{to_offset} \
                     {reason}, cells {from_ms}..{to_ms}"
                )
            });
        }
    }

    /// Whether this call goes wrong, and how far it comes all the same.
    pub(crate) fn goes_wrong(&mut self, process: usize, point: Point) -> Option<Effect> {
        let state = &mut self.processes[process];
        if state.is_doomed {
            return Some(Effect::None);
        }
        let place = state.plans.iter().position(|plan| plan.point == point)?;
        match state.plans[place].after.checked_sub(1) {
            Some(left) => {
                state.plans[place].after = left;
                None
            }
            None => {
                let Plan { effect, is_death, .. } = state.plans.remove(place);
                state.is_doomed = is_death;
                self.tell(|| {
                    let verb = if is_death { "it dies in" } else { "an error ends" };
                    format!("p{process}: {verb} {point:?}, {}", effect_words(effect))
                });
                Some(effect)
            }
        }
    }

    pub(crate) fn plan(
        &mut self,
        process: usize,
        point: Point,
        after: u32,
        effect: Effect,
        is_death: bool,
    ) {
        self.processes[process].plans.push(Plan { point, after, effect, is_death });
    }

    /// All that is wrong with a process is over.
    pub(crate) fn heal(&mut self, process: usize) {
        let state = &mut self.processes[process];
        state.plans.clear();
        state.moods.clear();
        (state.acks, state.is_doomed) = (None, false);
    }

    pub(crate) fn mood(&self, process: usize, topic: usize, lane: u32) -> Mood {
        self.processes[process].moods.get(&(topic, lane)).copied().unwrap_or(Mood::Well)
    }

    pub(crate) fn clock(&self, process: usize, time: &Arc<Time>) -> ProcessClock {
        ProcessClock { time: time.clone(), offset: self.processes[process].clock.clone() }
    }

    pub(crate) fn set_clock(&mut self, process: usize, offset_ms: i64) {
        self.processes[process].clock.0.store(offset_ms, Ordering::Relaxed);
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "before it takes effect",
        Effect::Torn => "half done",
        Effect::All => "after it has taken effect",
    }
}

/// The time of the world, milliseconds since it began.
#[derive(Default)]
pub(crate) struct Time(AtomicU64);

impl Time {
    pub(crate) fn passed_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn true_ms(&self) -> i64 {
        START_MS + self.passed_ms() as i64
    }

    /// Goes on to a time; never back.
    pub(crate) fn reach(&self, passed_ms: u64) {
        self.0.fetch_max(passed_ms, Ordering::Relaxed);
    }
}

/// The clock that a process sees.
pub(crate) struct ProcessClock {
    time: Arc<Time>,
    offset: ClockOffset,
}

impl Clock for ProcessClock {
    fn now_ms(&self) -> i64 {
        self.time.true_ms() + self.offset.0.load(Ordering::Relaxed)
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.time.passed_ms())
    }
}
