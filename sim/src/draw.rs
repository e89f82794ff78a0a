//! Draws a script from a seed: where faults hide. Windows are as short as an epoch, requests and
//! videos are few, time goes on in steps of about an epoch, and processes die and come back near
//! frontiers.

use crate::script::{
    Acks, Action, Effect, Form, Harm, Mood, Point, Rec, START_MS, Script, Setup, TOPICS, UNIT_MS,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

struct Draw(ChaCha8Rng);

impl Draw {
    /// In `0..n`; for small n the bias does not matter.
    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n.max(1)
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// The script of a seed.
pub fn script(seed: u64) -> Script {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
    let mut setup = setup(&mut draw);
    // Drawn apart, so that the other seeds draw what they drew before there was this; the number is one
    // with which none of those that are remembered is among them.
    let mut apart = Draw(ChaCha8Rng::seed_from_u64(seed ^ (17 << 40)));
    setup.is_shared = !setup.is_embedded && apart.one_in(2);
    let mut records = records(&mut draw, &setup);
    let mut actions = actions(&mut draw, &setup, records.len());
    let last = 1 + draw.below((1 << setup.processes) - 1) as u8;
    if setup.is_shared && apart.one_in(2) {
        actions = with_rivals(&mut apart, &setup, actions);
        records = of_one_cell(&mut apart, &records);
    }
    Script { setup, records, actions, last }
}

fn setup(draw: &mut Draw) -> Setup {
    let units = |n: i64| n * UNIT_MS;
    let is_embedded = draw.one_in(4);
    let is_plain = draw.one_in(2);
    let lanes = draw.pick(&[1, 1, 2, 3]);
    let early_ms = units(draw.pick(&[2, 2, 0, 7]));
    Setup {
        lanes,
        processes: if is_embedded { 1 } else { draw.pick(&[1, 2, 2, 3]) },
        owners: if lanes > 1 { draw.pick(&[1, 1, 2]) } else { 1 },
        is_embedded,
        is_shared: false,
        epochs_ms: match draw.below(if is_plain { 1 } else { 4 }) {
            0 | 1 => vec![units(10)],
            2 => vec![units(10), units(5)],
            _ => vec![units(12), units(6), units(4)],
        },
        within_ms: units(draw.pick(&[12, 12, 10, 4, 25])),
        early_ms,
        lateness_ms: units(draw.pick(&[6, 6, 2, 0, 15])),
        idle_ms: draw.pick(&[None, Some(units(12)), Some(units(3))]),
        support: draw.pick(&[2, 1, 3]),
        max_facts: if is_plain { 10_000 } else { draw.pick(&[10_000, 10_000, 2, 4]) },
        max_ahead_ms: units(draw.pick(&[1_000, 1_000, 8])),
        by_request: !is_plain && draw.one_in(2),
        joined: !is_plain && draw.one_in(3),
        by_play: !is_plain && draw.one_in(3),
        slices: !is_plain && draw.one_in(3),
        filter: !is_plain && draw.one_in(4),
        memory_bytes: draw.pick(&[1 << 30, 1 << 30, 1 << 30, 0, 60_000]),
        batch_events: draw.between(1, 12) as usize,
        chunk: draw.between(1, 6) as usize,
        batch_interval_ms: draw.pick(&[1, 100, 1_000]),
        snapshots_ms: draw.pick(&[None, Some(0), Some(0), Some(10_000), Some(60_000)]),
        nap_ms: draw.pick(&[1, 100, 600, 2_000]),
    }
}

/// Time goes on, with some disorder, some late and some doubled events, and some bad clocks.
fn records(draw: &mut Draw, setup: &Setup) -> Vec<Rec> {
    let count = draw.between(8, 90);
    let (requests, videos) = (draw.pick(&[2_u64, 4, 4, 8]), draw.pick(&[1_u64, 2, 3]));
    let plays_in = draw.pick(&[2_u64, 3, 6]);
    let (max_step, disorder) = (draw.pick(&[2, 4, 4, 10]), draw.pick(&[1, 5, 5, 8]));
    let (late_in, bad_in) = (draw.pick(&[8_u64, 30, 1_000]), draw.pick(&[15_u64, 60, 1_000]));
    let mut at_ms = START_MS;
    let mut misplaced = 0;
    let mut records: Vec<Rec> = Vec::new();
    for _ in 0..count {
        if draw.one_in(12) && !records.is_empty() {
            let again = draw.pick(&records);
            let record_ms = if draw.one_in(2) { at_ms } else { again.record_ms };
            records.push(Rec { at_ms, record_ms, form: Form::Good, ..again });
            continue;
        }
        at_ms += draw.between(0, max_step * UNIT_MS);
        let ago = match draw.one_in(late_in) {
            true => draw.between(0, 60 * UNIT_MS),
            false => draw.between(0, disorder * UNIT_MS),
        };
        let (mut time_ms, mut record_ms) = (at_ms - ago, at_ms);
        if draw.one_in(4) {
            // Just at a border of an epoch.
            let longest_ms = setup.epochs_ms[0];
            time_ms = time_ms / longest_ms * longest_ms - draw.between(0, 1);
        }
        if draw.one_in(bad_in) {
            let wrong_ms = draw.between(-40 * UNIT_MS, 40 * UNIT_MS);
            match draw.below(3) {
                0 => time_ms += wrong_ms,
                1 => record_ms += wrong_ms,
                _ => (time_ms, record_ms) = (time_ms + wrong_ms, record_ms + wrong_ms),
            }
        }
        let mut form = Form::Good;
        if draw.one_in(2 * bad_in) {
            form = draw.pick(&[Form::Misplaced, Form::Broken, Form::Tombstone]);
        }
        if form == Form::Misplaced {
            misplaced += 1;
            // More would be a pattern, and the owner would rightly refuse it.
            let fits = setup.lanes > 1 && misplaced < 8;
            form = if fits { form } else { Form::Good };
        }
        records.push(Rec {
            topic: usize::from(draw.one_in(plays_in)),
            request: draw.below(requests) as u8,
            video: draw.below(videos) as u8,
            country: draw.below(3) as u8,
            at_ms,
            time_ms: time_ms.max(0),
            record_ms,
            form,
        });
    }
    records
}

fn actions(draw: &mut Draw, setup: &Setup, records: usize) -> Vec<Action> {
    let count = draw.between(10, 90);
    let is_calm = draw.one_in(6);
    let portion = (2 * records as u64 / (count as u64).max(1)).max(1) + 2;
    let mut actions: Vec<Action> = (0..setup.processes).map(Action::Start).collect();
    for _ in 0..count {
        let action = match draw.below(if is_calm { 60 } else { 100 }) {
            0..15 => Action::Produce(1 + draw.below(portion) as usize),
            15..20 => {
                let longest_ms = setup.epochs_ms[0];
                Action::Pass(draw.pick(&[UNIT_MS, longest_ms, longest_ms, 2 * longest_ms]))
            }
            20..60 => Action::Step {
                process: draw.below(setup.processes as u64) as usize,
                owner: draw.below(setup.owners as u64) as usize,
                steps: draw.between(1, 25) as u32,
            },
            _ => fault(draw, setup),
        };
        actions.push(action);
    }
    actions
}

/// The same records, but all of one video and of about one time, from many requests: rivals then count
/// in one cell.
fn of_one_cell(draw: &mut Draw, records: &[Rec]) -> Vec<Rec> {
    let start_ms = records.first().map_or(START_MS, |record| record.at_ms);
    let plays_in = draw.pick(&[2, 2, 3]);
    let near = |number: usize| {
        let at_ms = start_ms + number as i64;
        Rec {
            topic: usize::from(draw.one_in(plays_in)),
            request: draw.below(12) as u8,
            video: 0,
            country: 0,
            at_ms,
            time_ms: at_ms,
            record_ms: at_ms,
            form: Form::Good,
        }
    };
    (0..records.len()).map(near).collect()
}

/// More processes that think a lane is theirs, and read its topics at another pace than others do:
/// where they share a store, that is what it must bear.
fn with_rivals(draw: &mut Draw, setup: &Setup, actions: Vec<Action>) -> Vec<Action> {
    let mut more = Vec::new();
    for process in 0..setup.processes {
        for lane in 0..setup.lanes {
            let topic = (process + lane as usize) % TOPICS;
            more.push(Action::Partition { process, topic, lane, mood: Mood::Slow });
        }
    }
    for action in actions {
        more.push(action);
        if !draw.one_in(3) {
            continue;
        }
        let process = draw.below(setup.processes as u64) as usize;
        let owner = draw.below(setup.owners as u64) as usize;
        let lane = draw.below(setup.lanes.into()) as u32;
        more.push(match draw.below(4) {
            0 => Action::Expel { process, owner, learns_after: 5 + draw.below(40) as u32 },
            1 => Action::Start(process),
            2 => {
                let topic = draw.below(TOPICS as u64) as usize;
                let mood = draw.pick(&[Mood::Well, Mood::Slow, Mood::Slow]);
                Action::Partition { process, topic, lane, mood }
            }
            _ => Action::Step { process, owner, steps: draw.between(3, 30) as u32 },
        });
    }
    more
}

fn fault(draw: &mut Draw, setup: &Setup) -> Action {
    let process = draw.below(setup.processes as u64) as usize;
    let owner = draw.below(setup.owners as u64) as usize;
    let (topic, lane) = (draw.below(TOPICS as u64) as usize, draw.below(setup.lanes.into()) as u32);
    let points = [
        Point::Read,
        Point::Letters,
        Point::Gaps,
        Point::Commit,
        Point::Commit,
        Point::Tell,
        Point::Snapshot,
    ];
    let effects = [Effect::None, Effect::Torn, Effect::All, Effect::All];
    match draw.below(18) {
        0..4 => Action::Start(process),
        4 => Action::Stop(process),
        5 => Action::Kill(process),
        6 | 7 => Action::KillAt {
            process,
            point: draw.pick(&points),
            nth: draw.below(6) as u32,
            effect: draw.pick(&effects),
        },
        8 => Action::FailAt {
            process,
            point: draw.pick(&points[1..]),
            nth: draw.below(4) as u32,
            effect: draw.pick(&effects),
        },
        9 => Action::Expel { process, owner, learns_after: draw.below(8) as u32 },
        10 => Action::Rebalance,
        11 => Action::Acks {
            process,
            acks: draw.pick(&[Acks::Lost, Acks::Refused, Acks::Slow, Acks::Torn]),
            count: draw.between(1, 5) as u32,
        },
        12 | 13 => Action::Partition {
            process,
            topic,
            lane,
            mood: draw.pick(&[Mood::Well, Mood::Slow, Mood::Paused]),
        },
        16 | 17 if draw.one_in(2) => Action::Snapshot {
            process,
            lane,
            harm: match draw.below(5) {
                0 | 1 => Harm::Lost,
                2 => Harm::Flipped(draw.below(1_000) as u16),
                3 => Harm::Torn(draw.below(1_000) as u16),
                _ => Harm::Foreign,
            },
        },
        14 if draw.one_in(2) => Action::Trim { topic, lane, keep: draw.below(20) },
        _ => Action::Clock { process, offset_ms: draw.between(-20, 20) * UNIT_MS },
    }
}
