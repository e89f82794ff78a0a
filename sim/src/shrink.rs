//! Makes a failing script short: leaves out actions, records, processes and settings for as long as
//! it still fails in the same way.

use crate::script::{Action, Script, Setup, UNIT_MS};

/// The shortest script found that still fails, after so many tries at most.
pub fn shrink(script: &Script, mut tries: usize, fails: impl Fn(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut still = |candidate: &Script| {
        tries = tries.saturating_sub(1);
        tries > 0 && fails(candidate)
    };
    loop {
        let before = size(&best);
        let actions = |script: &mut Script, from: usize, to: usize| {
            script.actions.drain(from..to);
        };
        best = without_pieces(best, |script| script.actions.len(), actions, &mut still);
        let records = |script: &mut Script, from: usize, to: usize| {
            script.records.drain(from..to);
        };
        best = without_pieces(best, |script| script.records.len(), records, &mut still);
        best = simpler(best, &mut still);
        if size(&best) >= before {
            return best;
        }
    }
}

fn size(script: &Script) -> usize {
    let steps = script.actions.iter().map(|action| match action {
        Action::Step { steps, .. } => *steps as usize,
        Action::Produce(count) => *count,
        _ => 1,
    });
    steps.sum::<usize>() + 10 * script.actions.len() + 100 * script.records.len()
}

/// Leaves out pieces of a list, large ones first.
fn without_pieces(
    mut best: Script,
    len: impl Fn(&Script) -> usize,
    drain: impl Fn(&mut Script, usize, usize),
    still: &mut impl FnMut(&Script) -> bool,
) -> Script {
    let mut piece = len(&best).max(1);
    loop {
        let mut from = 0;
        while from < len(&best) {
            let mut candidate = best.clone();
            drain(&mut candidate, from, (from + piece).min(len(&best)));
            if still(&candidate) {
                best = candidate;
            } else {
                from += piece;
            }
        }
        if piece == 1 {
            return best;
        }
        piece /= 2;
    }
}

/// Simpler settings, shorter actions, fewer processes.
fn simpler(mut best: Script, still: &mut impl FnMut(&Script) -> bool) -> Script {
    let simplifications: [fn(&mut Setup); 14] = [
        |setup| setup.owners = 1,
        |setup| setup.lanes = 1,
        |setup| setup.epochs_ms.truncate(1),
        |setup| setup.slices = false,
        |setup| setup.filter = false,
        |setup| (setup.by_request, setup.joined, setup.by_play) = (false, false, false),
        |setup| setup.memory_bytes = 1 << 30,
        |setup| setup.max_facts = 10_000,
        |setup| setup.max_ahead_ms = 1_000 * UNIT_MS,
        |setup| setup.idle_ms = None,
        |setup| setup.support = 1,
        |setup| setup.snapshots_ms = None,
        |setup| (setup.chunk, setup.batch_events) = (100, 100),
        |setup| (setup.batch_interval_ms, setup.nap_ms) = (1, 1),
    ];
    for simplify in simplifications {
        let mut candidate = best.clone();
        simplify(&mut candidate.setup);
        if candidate.setup != best.setup && candidate.is_sound() && still(&candidate) {
            best = candidate;
        }
    }
    for last in (0..best.setup.processes).map(|process| 1 << process) {
        let candidate = Script { last, ..best.clone() };
        if best.last.count_ones() > 1 && still(&candidate) {
            best = candidate;
        }
    }
    for place in 0..best.actions.len() {
        let shorter = match best.actions[place].clone() {
            Action::Step { process, owner, steps } if steps > 1 => {
                Action::Step { process, owner, steps: steps / 2 }
            }
            Action::Produce(count) if count > 1 => Action::Produce(count / 2),
            _ => continue,
        };
        let mut candidate = best.clone();
        candidate.actions[place] = shorter;
        if still(&candidate) {
            best = candidate;
        }
    }
    best
}

impl Script {
    /// Whether all that it names is there.
    fn is_sound(&self) -> bool {
        let Setup { owners, lanes, .. } = self.setup;
        self.actions.iter().all(|action| match action {
            Action::Step { owner, .. } | Action::Expel { owner, .. } => *owner < owners,
            Action::Partition { lane, .. }
            | Action::Trim { lane, .. }
            | Action::Snapshot { lane, .. } => *lane < lanes,
            _ => true,
        })
    }
}
