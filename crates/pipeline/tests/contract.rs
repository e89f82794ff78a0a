//! The contract of docs/semantics.md, tested on the real pipeline.
//!
//! `history` draws settings, two topics full of disorder and duplicates, and what happens to the
//! lanes: reads, commits, heartbeats, crashes. `machine` is the smallest runtime that could be
//! right: it plays a history through real `LanePipeline`s with a store and durable positions.
//! `judge` compares what was written with `marquee-oracle`. `examples` are the cases that
//! semantics.md itself tells, and the ones that must not eat the machine.
//!
//! `MARQUEE_CASES=100000 cargo test -p marquee-pipeline --test contract` looks longer than the
//! default does, `PROPTEST_RNG_SEED` makes a run repeatable. A failing history is shrunk, printed,
//! and its seed kept in `tests/contract/regressions.txt`.

#![allow(clippy::unwrap_used)]

#[path = "contract/clock.rs"]
mod clock;
#[path = "contract/cold.rs"]
mod cold;
#[path = "contract/examples.rs"]
mod examples;
#[path = "contract/feed.rs"]
mod feed;
#[path = "contract/history.rs"]
mod history;
#[path = "contract/judge.rs"]
mod judge;
#[path = "contract/machine.rs"]
mod machine;

use history::{History, Step};
use machine::Machine;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// `MARQUEE_CASES`, or as many cases as take some seconds (ten times as many in slow runs).
fn config(default_cases: u32) -> ProptestConfig {
    let asked = std::env::var("MARQUEE_CASES").ok().and_then(|text| text.parse().ok());
    let slow = std::env::var_os("MARQUEE_SLOW").is_some();
    ProptestConfig {
        cases: asked.unwrap_or(if slow { 10 * default_cases } else { default_cases }),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/contract/regressions.txt",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    /// Rules 1 to 4: at every commit and at the end, whatever is late, repeated or lost.
    #[test]
    fn every_history_keeps_the_contract(history in history::any()) {
        Machine::play(&history)?;
    }
}

proptest! {
    #![proptest_config(config(1_500))]

    /// Invariant PURE: the same inputs in the same order give the same bytes.
    #[test]
    fn the_same_history_writes_the_same_bytes(history in history::any()) {
        let first = Machine::play(&history)?;
        prop_assert_eq!(first, Machine::play(&history)?);
    }

    /// What lies on disk is state like any other, also in a snapshot.
    #[test]
    fn a_state_on_disk_writes_the_same_bytes(history in history::any()) {
        let is_spill = |step: &Step| matches!(step, Step::Spill { .. });
        let steps = history.steps.iter().filter(|step| !is_spill(step)).cloned().collect();
        let in_memory = Machine::play(&History { steps, ..history.clone() })?;
        prop_assert_eq!(in_memory, Machine::play(&history)?);
    }

    /// Members do not depend on how the log is cut into batches, nor on restarts, as long as
    /// nothing is late; then they are the oracle's.
    #[test]
    fn without_late_events_only_the_log_decides(history in history::any()) {
        let patient = History { setup: history.setup.patient(), ..history };
        let eventful = Machine::play(&patient)?;
        let of_batches = |size: usize| Machine::play(&patient.in_batches_of(size));
        let (one_by_one, at_once) = (of_batches(1)?, of_batches(usize::MAX)?);
        prop_assert_eq!(at_once.late, 0);
        prop_assert_eq!(&at_once.members, &judge::members(&patient));
        for other in [eventful, one_by_one] {
            prop_assert_eq!(&at_once.members, &other.members);
            prop_assert_eq!(&at_once.counts, &other.counts);
            prop_assert_eq!(&at_once.counters, &other.counters);
        }
    }
}
