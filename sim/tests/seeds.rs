//! Runs many seeds, and checks the simulation itself.
//!
//! `MARQUEE_CASES=100000 cargo test --release -p marquee-sim --test seeds` looks longer; so does
//! `cargo xtask sim --count 100000`.

use marquee_sim::{Action, run, script, short_story, shrink, trace_hash};

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
