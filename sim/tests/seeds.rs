//! Runs many seeds, and checks the simulation itself.
//!
//! `MARQUEE_CASES=100000 cargo test --release -p marquee-sim --test seeds` looks longer; so does
//! `cargo xtask sim --count 100000`.

use marquee_sim::{Action, run, script, short_story, shrink, trace_hash};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Seeds that have found something, what it was, and which history they stood for then. Each fails
/// with its repair undone, and only as long as it draws that history: where [`script`] draws another
/// one, look for a new seed (undo the repair, `cargo xtask sim`) or take the row out.
const REMEMBERED: [(u64, u64, &str); 4] = [
    (
        4,
        0x9cb7_2ee2_2995_047c,
        "an idle lane's frontier moved on, and who had it next went on with an older one",
    ),
    (
        206,
        0xcda7_8bc5_ab42_e793,
        "an owner that had waited for another one of its process took the log for cut",
    ),
    (93_393, 0x2f21_1995_f5a0_c630, "a machine's clock that was behind ended a gap too early"),
    (
        197_719,
        0x0102_dd75_a6d4_4c19,
        "one old record was all that was left, and a gap ended with it",
    ),
];

fn cases() -> u64 {
    let asked = std::env::var("MARQUEE_CASES").ok().and_then(|text| text.parse().ok());
    let slow = std::env::var_os("MARQUEE_SLOW").is_some();
    asked.unwrap_or(if slow { 10_000 } else { 300 })
}

fn check(seed: u64) {
    if let Some(fault) = run(&script(seed), false).fault {
        panic!("{}", short_story(seed, &fault));
    }
}

#[test]
fn whatever_happens_the_contract_holds() {
    (0..cases()).for_each(check);
}

#[test]
fn what_was_found_once_stays_repaired() {
    for (seed, expected, found) in REMEMBERED {
        let mut hasher = SipHasher13::new();
        // As it was written before processes could share a store: these seeds draw what they drew.
        let history = script(seed);
        assert!(!history.setup.is_shared, "seed {seed} draws another history ({found})");
        hasher.write(format!("{history:?}").replace(" is_shared: false,", "").as_bytes());
        let drawn = hasher.finish();
        assert_eq!(drawn, expected, "seed {seed} draws another history: {drawn:#018x} ({found})");
        check(seed);
    }
}

#[test]
fn the_same_seed_has_the_same_trace_and_another_one_another() {
    let hash = |seed| trace_hash(&run(&script(seed), true));
    let hashes: Vec<u64> = (1_000..1_040).map(hash).collect();
    assert_eq!(hashes, (1_000..1_040).map(hash).collect::<Vec<_>>());
    let different: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(different.len(), hashes.len());
}

#[test]
fn a_script_is_shrunk_to_what_matters() {
    // Stands for a failure: a process that was given a lane is killed.
    let fails = |script: &marquee_sim::Script| {
        let trace = run(script, true).trace;
        let given = trace.iter().position(|line| line.contains("is given lanes [0]"));
        let killed = trace.iter().rposition(|line| line.contains("is killed"));
        given.zip(killed).is_some_and(|(given, killed)| given < killed)
    };
    let whole = (0..).map(script).find(fails).expect("there is one soon");
    let short = shrink(&whole, 2_000, fails);
    assert!(fails(&short));
    assert_eq!(short.records.len(), 0, "{short:?}");
    assert!(short.actions.len() <= 3, "{short:?}");
    assert!(short.actions.iter().any(|action| matches!(action, Action::Kill(_))));
}
