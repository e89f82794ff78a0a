//! The contract of docs/semantics.md, looked at with every write and at the end.
//!
//! The oracle says what the sets are; beyond that the judge knows how far the watermark can have
//! come: from the records before the positions that were committed, and from topics that were seen
//! to have nothing to read. It shares no code with the product.

use crate::script::TOPICS;
use crate::store::{PROCESS_NAMES, StoreState, Written};
use crate::truth::{TOPIC_NAMES, Truth};
use crate::world::World;
use marquee_model::CellKey;
use marquee_pipeline::chunk::Id;
use marquee_sinks::letters::{ALL_OF_IT, LetterKind};
use marquee_sinks::{Gap, LaneState};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What went against the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which rule.
    pub rule: &'static str,
    /// What happened.
    pub words: String,
}

#[derive(Debug)]
pub(crate) struct Judge {
    fault: Option<Fault>,
    lanes: Vec<LaneJudge>,
}

/// What is known of a lane, over all processes.
#[derive(Debug, Default)]
struct LaneJudge {
    /// The furthest position of each topic that a store has acknowledged.
    reached: [u64; TOPICS],
    /// The latest time that an idle topic has let the watermark follow.
    idle_ms: [Option<i64>; TOPICS],
    /// The frontier of the last commit that the group took.
    told_frontier: i64,
    /// Processes that have written the lane.
    writers: BTreeSet<usize>,
    /// Whether records of it were deleted.
    is_trimmed: bool,
    /// For each topic and offset the frontier with which a store has first passed it, if it was gone
    /// by then.
    passed: [Vec<Option<i64>>; TOPICS],
    /// Gaps that were noted when nothing of their topic was left: topic, offsets, and the latest time
    /// of which whoever noted it could know.
    blind: Vec<(usize, Range<u64>, i64)>,
}

impl LaneJudge {
    /// The largest frontier that what was read and seen allows.
    fn may_close(&self, truth: &Truth, lane: u32) -> i64 {
        let topic = |topic: usize| {
            let partition = &truth.log[lane as usize][topic];
            let supported_ms = partition.before(self.reached[topic]).supported_ms;
            let read_ms = supported_ms.map(|ms| ms - truth.setup.lateness_ms);
            read_ms.max(self.idle_ms[topic])
        };
        match (topic(0), topic(1)) {
            (Some(one), Some(two)) => truth.first_open(one.min(two)),
            _ => 0,
        }
    }
}

impl Judge {
    pub(crate) fn new(lanes: usize) -> Self {
        Judge { fault: None, lanes: (0..lanes).map(|_| LaneJudge::default()).collect() }
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(crate) fn must(&mut self, is_so: bool, rule: &'static str, words: impl FnOnce() -> String) {
        if !is_so && self.fault.is_none() {
            self.fault = Some(Fault { rule, words: words() });
        }
    }

    /// A topic was seen to have nothing to read.
    pub(crate) fn is_idle(
        &mut self,
        truth: &Truth,
        lane: u32,
        topic: usize,
        since_ms: i64,
        now_ms: i64,
    ) {
        let Some(grace_ms) = truth.setup.idle_ms else { return };
        if now_ms - since_ms >= grace_ms {
            let follows_ms = now_ms - truth.setup.lateness_ms - grace_ms;
            let idle_ms = &mut self.lanes[lane as usize].idle_ms[topic];
            *idle_ms = (*idle_ms).max(Some(follows_ms));
        }
    }

    pub(crate) fn trimmed(&mut self, lane: u32) {
        self.lanes[lane as usize].is_trimmed = true;
    }

    /// A store is about to take a batch of one lane.
    pub(crate) fn stores(
        &mut self,
        truth: &Truth,
        process: usize,
        store: &StoreState,
        written: &Written,
        starts: [u64; TOPICS],
    ) {
        let Written { lane, state, cells } = written;
        let before = store.lanes.get(lane);
        let frontier = before.map_or(0, |before| before.frontier);
        self.frontier(truth, process, written, frontier);
        for (cell, counts, sets) in cells {
            self.cell(truth, process, store, written, (cell, sets));
            let held = store.members.get(lane).and_then(|cells| cells.get(cell));
            let size = |side: usize| {
                let held = held.map_or(0, |held| held[side].difference(&sets[side]).count());
                (held + sets[side].len()) as u64
            };
            let is_exact = (counts.impressions, counts.plays) == (size(0), size(1));
            self.must(is_exact, "a count is the cardinality of a set that was emitted", || {
                let sizes = (size(0), size(1));
                format!("p{process}, lane {lane}, {cell:?}: counts {counts:?}, holds {sizes:?}")
            });
            let was = store.counts.get(lane).and_then(|cells| cells.get(cell));
            let was = was.copied().unwrap_or_default();
            let grows = counts.impressions >= was.impressions && counts.plays >= was.plays;
            self.must(grows, "a count never shrinks", || {
                format!("p{process}, lane {lane}, {cell:?}: from {was:?} to {counts:?}")
            });
            let epoch = cell.epoch_start_ms.div_euclid(truth.setup.epochs_ms[0]);
            self.must(epoch >= frontier, "epochs before the frontier never emit again", || {
                format!("p{process}, lane {lane}, {cell:?}: the frontier is {frontier}")
            });
        }
        self.counters(truth, process, written);
        self.reaches(process, *lane, state, starts);
    }

    /// A process is about to write a batch of one lane into the store that all share. Another one may
    /// have written more of it, or write it now: a count is then one of both, and which one stays is
    /// judged where it stands.
    pub(crate) fn stores_shared(
        &mut self,
        truth: &Truth,
        process: usize,
        acknowledged: Option<&LaneState>,
        tables: &StoreState,
        written: &Written,
        starts: [u64; TOPICS],
    ) {
        let Written { lane, state, cells } = written;
        let frontier = acknowledged.map_or(0, |before| before.frontier);
        self.frontier(truth, process, written, frontier);
        for (cell, counts, sets) in cells {
            self.cell(truth, process, tables, written, (cell, sets));
            let held = tables.members.get(lane).and_then(|cells| cells.get(cell));
            let size = |side: usize| {
                let held = held.map_or(0, |held| held[side].difference(&sets[side]).count());
                (held + sets[side].len()) as u64
            };
            let is_emitted = counts.impressions <= size(0) && counts.plays <= size(1);
            self.must(is_emitted, "a count is the cardinality of a set that was emitted", || {
                let sizes = (size(0), size(1));
                format!("p{process}, lane {lane}, {cell:?}: counts {counts:?}, holds {sizes:?}")
            });
        }
        self.counters(truth, process, written);
        self.reaches(process, *lane, state, starts);
    }

    fn frontier(&mut self, truth: &Truth, process: usize, written: &Written, before: i64) {
        let Written { lane, state, .. } = written;
        let allowed = self.lanes[*lane as usize].may_close(truth, *lane);
        self.must(state.frontier >= before, "the frontier never moves back", || {
            format!("p{process}, lane {lane}: from {before} to {}", state.frontier)
        });
        self.must(state.frontier <= allowed, "an epoch goes when the watermark is past it", || {
            format!("p{process}, lane {lane}: frontier {}, allowed {allowed}", state.frontier)
        });
    }

    fn reaches(&mut self, process: usize, lane: u32, state: &LaneState, starts: [u64; TOPICS]) {
        let judge = &mut self.lanes[lane as usize];
        judge.writers.insert(process);
        for (topic, next) in state.next_offsets.iter().enumerate() {
            judge.reached[topic] = judge.reached[topic].max(*next);
            let passed = &mut judge.passed[topic];
            let is_gone = |offset: usize| (offset as u64) < starts[topic];
            let new = passed.len()..passed.len().max(*next as usize);
            passed.extend(new.map(|offset| is_gone(offset).then_some(state.frontier)));
        }
    }

    /// Members are the oracle's, and proven by what lies before the position that is stored with
    /// them.
    fn cell(
        &mut self,
        truth: &Truth,
        process: usize,
        store: &StoreState,
        written: &Written,
        (cell, sets): (&CellKey, &[BTreeSet<Id>; 2]),
    ) {
        let Written { lane, state, .. } = written;
        for (side, ids) in sets.iter().enumerate() {
            for id in ids {
                let proven = truth.cells.get(cell).and_then(|sets| sets[side].get(id));
                let is_true = proven.is_some_and(|proven| proven.lane == *lane);
                self.must(is_true, "members are the oracle's", || {
                    format!("p{process}, lane {lane}, {cell:?}: {id} is none")
                });
                let Some(proven) = proven else { return };
                let is_read = |place: &(usize, u64)| place.1 < state.next_offsets[place.0];
                let is_proven = proven.proofs.iter().any(|proof| proof.iter().all(is_read))
                    || store.has(*lane, cell, side, id);
                self.must(is_proven, "members are proven by what was read", || {
                    let at = &state.next_offsets;
                    format!("p{process}, lane {lane}, {cell:?}: {id}, position {at:?}")
                });
            }
        }
    }

    /// Counters are functions of the position.
    fn counters(&mut self, truth: &Truth, process: usize, written: &Written) {
        let (lane, state) = (written.lane as usize, &written.state);
        let mut expected = [0; 3];
        for topic in 0..TOPICS {
            let next = state.next_offsets[topic];
            let before = truth.log[lane][topic].before(next);
            for (sum, more) in expected.iter_mut().zip([next, before.dead, before.filtered]) {
                *sum += more;
            }
        }
        let counters = state.counters;
        let found = [counters.events, counters.dead, counters.filtered];
        // What was deleted before anybody read it is not counted.
        let is_so = found == expected
            || (self.lanes[lane].is_trimmed && found.iter().zip(&expected).all(|(f, e)| f <= e));
        self.must(is_so, "counters are functions of the position", || {
            let at = &state.next_offsets;
            format!(
                "p{process}, lane {lane} at {at:?}: events, dead, filtered are {found:?}, should \
                 be {expected:?}"
            )
        });
    }

    /// A process notes a gap. Where nothing is left of its topic, `blind` says which it is, and the
    /// latest time of which the process could know.
    pub(crate) fn doubts(&mut self, process: usize, gap: &Gap, blind: Option<(usize, i64)>) {
        let judge = &mut self.lanes[gap.lane as usize];
        let others = judge.writers.iter().any(|writer| *writer != process);
        let is_so = match gap.reason.as_str() {
            "trimmed" => judge.is_trimmed,
            _ => others,
        };
        let offsets = gap.from_offset..gap.to_offset;
        judge.blind.extend(blind.map(|(topic, known_ms)| (topic, offsets, known_ms)));
        self.must(is_so, "a gap has a reason", || format!("p{process}: {gap:?}"));
    }

    /// A process tells the group how far a lane is.
    pub(crate) fn tells(&mut self, process: usize, lane: u32, next: &[u64], store: &StoreState) {
        let durable = store.lanes.get(&lane).map(|state| &state.next_offsets[..]);
        self.must(durable == Some(next), "no commit before the store has acknowledged it", || {
            format!(
                "p{process}, lane {lane}: the group is told {next:?}, the store has {durable:?}"
            )
        });
    }

    /// The group has taken a commit.
    pub(crate) fn told(&mut self, lane: u32, note: &str) {
        let note: serde_json::Value = serde_json::from_str(note).unwrap_or_default();
        let frontier = note["frontier"].as_i64().unwrap_or(-1);
        let before = self.lanes[lane as usize].told_frontier;
        self.must(frontier >= before, "the group's frontier never moves back", || {
            format!("lane {lane}: from {before} to {frontier}")
        });
        self.lanes[lane as usize].told_frontier = frontier;
    }
}

/// Whoever has a lane at the end.
pub(crate) type Owners = BTreeMap<u32, usize>;

/// Everything was read: what is missing would be added by the late output, or its cell says so.
pub(crate) fn at_the_end(world: &mut World, truth: &Truth, owners: &Owners) {
    let late = late_letters(world, truth);
    if truth.setup.is_shared {
        counts_are_sets(world, truth, &late);
        // What one has written, all have.
        let mut all = world.tables.state.clone();
        for process in &mut world.processes {
            all.lanes = std::mem::take(&mut process.store.lanes);
            process.store = all.clone();
        }
    }
    let mut faults = Vec::new();
    for (cell, sets) in &truth.cells {
        for (side, ids) in sets.iter().enumerate() {
            for (id, proven) in ids {
                let lane = proven.lane;
                let Some(&owner) = owners.get(&lane) else { continue };
                let stores = || world.processes.iter().map(|process| &process.store);
                let is_late = || {
                    let in_time =
                        |place: &(usize, u64)| !is_late(world, truth, &late, lane, place, cell);
                    !proven.proofs.iter().any(|proof| proof.iter().all(in_time))
                };
                let is_counted = stores().any(|store| store.has(lane, cell, side, id));
                let is_doubted = stores().any(|store| store.doubts(lane, cell, Some("trimmed")));
                let own = &world.processes[owner].store;
                let is_owned = own.has(lane, cell, side, id) || own.doubts(lane, cell, None);
                if ((!is_counted && !is_doubted) || !is_owned) && !is_late() {
                    let whose = if is_counted { format!("p{owner}") } else { "all".to_owned() };
                    faults.push(format!(
                        "{} {id} of {cell:?}, lane {lane}, missing in {whose}, is proven by {:?}",
                        ["impressions", "plays"][side],
                        proven.proofs
                    ));
                }
            }
        }
    }
    if let Some(words) = faults.into_iter().next() {
        world.judge.must(false, "what is missing would be added by the late output", || words);
    }
}

/// Where nothing was late and nothing is missing, the counts that stand in the end are the
/// cardinalities of the oracle's sets, however many have written them.
fn counts_are_sets(world: &mut World, truth: &Truth, late: &BTreeSet<Spot>) {
    if !late.is_empty() || !world.tables.state.gaps.is_empty() {
        return;
    }
    for (cell, sets) in &truth.cells {
        for lane in 0..truth.setup.lanes {
            let of_lane = |side: usize| sets[side].values().filter(|p| p.lane == lane).count();
            let expected = (of_lane(0) as u64, of_lane(1) as u64);
            let counts = world.tables.state.counts.get(&lane).and_then(|cells| cells.get(cell));
            let found = counts.map_or((0, 0), |counts| (counts.impressions, counts.plays));
            world.judge.must(found == expected, "counts are the oracle's in the end", || {
                format!("lane {lane}, {cell:?}: {found:?}, should be {expected:?}")
            });
        }
    }
}

/// A record: lane, topic and offset.
type Spot = (u32, usize, u64);

/// Lane, topic and offset of every event in a late output. What is bad must be in a dead-letter
/// output, unless it was deleted.
fn late_letters(world: &mut World, truth: &Truth) -> BTreeSet<Spot> {
    let (mut late, mut dead) = (BTreeSet::new(), BTreeSet::new());
    let mut faults = Vec::new();
    for (number, process) in world.processes.iter().enumerate() {
        for ((kind, lane), bytes) in &process.letters {
            let length = |state: &LaneState| match kind {
                LetterKind::Late => state.late_bytes,
                LetterKind::Dead => state.dead_bytes,
            };
            let committed = match truth.setup.is_shared {
                // Of those whose lane others have had since, nothing is cut off.
                true => {
                    let state = world.tables.lane_state(*lane);
                    let own = state.filter(|state| state.letters == PROCESS_NAMES[number]);
                    own.as_ref().map_or(ALL_OF_IT, length)
                }
                false => process.store.lanes.get(lane).map_or(0, length),
            };
            // What is behind it is cut off when it is opened next.
            let end = match committed {
                ALL_OF_IT => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
                committed => bytes.len().min(committed as usize),
            };
            let bytes = &bytes[..end];
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Ok(letter) = serde_json::from_slice::<serde_json::Value>(line) else {
                    faults.push(format!("p{number}: {:?}", String::from_utf8_lossy(line)));
                    continue;
                };
                let topic = TOPIC_NAMES
                    .iter()
                    .position(|name| letter["source"] == format!("{name}/{lane}"))
                    .unwrap_or(TOPICS);
                let offset = letter["position"].as_u64().unwrap_or(u64::MAX);
                let logged = truth.log[*lane as usize]
                    .get(topic)
                    .and_then(|partition| partition.records.get(offset as usize));
                let is_so = match (kind, logged.map(|logged| logged.event)) {
                    (LetterKind::Dead, Some(event)) => event.is_none_or(|e| !e.is_observed()),
                    (LetterKind::Late, Some(Some(event))) => {
                        let closed = world.judge.lanes[*lane as usize].may_close(truth, *lane);
                        letter["code"] == "max_facts"
                            || truth.oldest_needed(topic, event.time_ms) < closed
                    }
                    _ => false,
                };
                if !is_so {
                    faults.push(format!("p{number}: {letter}"));
                }
                let letters = if *kind == LetterKind::Late { &mut late } else { &mut dead };
                letters.insert((*lane, topic, offset));
            }
        }
    }
    for words in faults {
        world.judge.must(false, "letters are about what is late or bad", || words);
    }
    for (lane, topics) in (0..).zip(&truth.log) {
        if world.judge.lanes[lane as usize].is_trimmed {
            continue;
        }
        for (topic, partition) in topics.iter().enumerate() {
            for (offset, logged) in (0..).zip(&partition.records) {
                let is_bad = logged.event.is_none_or(|event| !event.is_observed());
                let is_so = !is_bad || dead.contains(&(lane, topic, offset));
                world.judge.must(is_so, "what is bad is in the dead letters", || {
                    format!("lane {lane}, {} {offset}: {}", TOPIC_NAMES[topic], logged.words)
                });
            }
        }
    }
    late
}

/// Whether an event is in a late output; or was lost before anybody read it, when the cell was
/// closed already: then it would have been late.
fn is_late(
    world: &World,
    truth: &Truth,
    late: &BTreeSet<Spot>,
    lane: u32,
    place: &(usize, u64),
    cell: &CellKey,
) -> bool {
    let (topic, offset) = *place;
    let epoch = cell.epoch_start_ms.div_euclid(truth.setup.epochs_ms[0]);
    let judge = &world.judge.lanes[lane as usize];
    // Shown by the frontier of whoever passed it, or by where the gap begins that names it.
    let closed_ms = (epoch + 1) * truth.setup.epochs_ms[0];
    let names = |gap: &Gap| {
        gap.lane == lane
            && gap.topic == TOPIC_NAMES[topic]
            && (gap.from_offset..gap.to_offset).contains(&offset)
            && gap.reason == "trimmed"
            && gap.from_ms >= closed_ms
    };
    let was_closed = || {
        let frontier = judge.passed[topic].get(offset as usize).copied().flatten();
        frontier.is_some_and(|frontier| frontier > epoch)
            || world.processes.iter().any(|process| process.store.gaps.iter().any(names))
    };
    let is_gone = offset < world.starts[lane as usize][topic];
    late.contains(&(lane, topic, offset))
        || (is_gone && (was_closed() || is_beyond_knowing(judge, truth, lane, place)))
}

/// Whether nobody could know that the cells of an event that is gone lack it. A gap reaches as far
/// as docs/semantics.md says, which trusts clocks as far as it can: not where the producer's own was
/// ahead of all others, or where nothing of the topic was left and the machine's own was behind of
/// all that it had been shown.
fn is_beyond_knowing(judge: &LaneJudge, truth: &Truth, lane: u32, place: &(usize, u64)) -> bool {
    let (topic, offset) = *place;
    let record = &truth.log[lane as usize][topic].records[offset as usize];
    let Some(event) = &record.event else { return false };
    let tolerated_ms = truth.setup.lateness_ms + truth.setup.max_ahead_ms;
    let is_beyond = |known_ms: i64| event.time_ms > known_ms + tolerated_ms;
    let is_named =
        |(of, offsets, _): &&(usize, Range<u64>, i64)| *of == topic && offsets.contains(&offset);
    is_beyond(record.at_ms)
        || judge.blind.iter().filter(is_named).any(|(.., known_ms)| is_beyond(*known_ms))
}
