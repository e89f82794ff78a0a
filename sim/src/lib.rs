//! A simulation of whole histories: the real owners of lanes (`marquee-runtime`) and the real
//! pipeline against a simulated log, group, store, letters and clock, in one thread, with faults.
//!
//! A run is a function of its seed: [`script`] draws what happens, [`run`] lets it happen and judges
//! every write by the contract of docs/semantics.md and by `marquee-oracle`; [`shrink`] and [`story`]
//! make a failing one short and readable. Nothing here sleeps, asks for the time, or touches a disk.

mod cluster;
mod draw;
mod group;
mod judge;
mod machine;
mod script;
mod shrink;
mod source;
mod store;
mod story;
mod truth;
mod world;

pub use draw::script;
pub use judge::Fault;
pub use machine::{Outcome, run};
pub use script::{Acks, Action, Effect, Form, Harm, Mood, Point, Rec, Script, Setup};
pub use shrink::shrink;
pub use story::story;

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Runs that a search for a shorter script may take.
const TRIES: usize = 20_000;

/// Stands for all that happened in a run.
pub fn trace_hash(outcome: &Outcome) -> u64 {
    let mut hasher = SipHasher13::new();
    for line in &outcome.trace {
        hasher.write(line.as_bytes());
        hasher.write_u8(b'\n');
    }
    hasher.finish()
}

/// The story of the shortest script found that breaks the same rule as a seed does.
pub fn short_story(seed: u64, fault: &Fault) -> String {
    let whole = script(seed);
    let breaks_it =
        |script: &Script| run(script, false).fault.is_some_and(|other| other.rule == fault.rule);
    let short = shrink(&whole, TRIES, breaks_it);
    format!(
        "seed {seed}, shortened to {} records and {} actions:\n{}",
        short.records.len(),
        short.actions.len(),
        story(&short, &run(&short, true))
    )
}
