//! Compares what was written with the oracle.

use crate::history::{History, Record, Setup};
use marquee_model::CellCounts;
use marquee_oracle::{Cell, Member, Side};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet};

/// What a check finds.
pub type Judged = Result<(), TestCaseError>;

/// The oracle's members of a whole history.
pub fn all_members(history: &History) -> BTreeSet<Member> {
    let log = history.log();
    let alive = log.iter().filter(|record| !record.is_dead(&history.setup));
    let events: Vec<_> = alive.map(Record::event).collect();
    marquee_oracle::members(&events, &history.setup.for_oracle())
}

/// The proofs of all members that some records make, as indices into the log.
///
/// A record that repeats an event is an event of its own here, so that an event is only late if
/// all its copies are.
pub fn proofs(
    log: &[Record],
    setup: &Setup,
    read: impl Iterator<Item = usize>,
) -> BTreeMap<Member, Vec<Vec<usize>>> {
    let alive: Vec<usize> = read.filter(|number| !log[*number].is_dead(setup)).collect();
    let events: Vec<_> = alive.iter().map(|number| log[*number].event()).collect();
    let mut proofs = marquee_oracle::proofs(&events, &setup.for_oracle());
    for event in proofs.values_mut().flatten().flatten() {
        *event = alive[*event];
    }
    proofs
}

/// Rules 1 and 2: no member is wrong, and each one that is missing would be added by the late
/// output, because every proof of it has a late event in it.
pub fn members(
    written: &BTreeSet<Member>,
    proofs: &BTreeMap<Member, Vec<Vec<usize>>>,
    late: &BTreeSet<usize>,
) -> Judged {
    for member in written {
        prop_assert!(proofs.contains_key(member), "a wrong member: {member:?}");
    }
    for (member, proofs) in proofs.iter().filter(|(member, _)| !written.contains(member)) {
        let in_time = proofs.iter().find(|proof| !proof.iter().any(|event| late.contains(event)));
        prop_assert!(in_time.is_none(), "lost, though in time by {in_time:?}: {member:?}");
    }
    Ok(())
}

/// The cardinalities of sets.
pub fn counts<'m>(members: impl Iterator<Item = &'m Member>) -> BTreeMap<Cell, CellCounts> {
    let mut counts = BTreeMap::<Cell, CellCounts>::new();
    for member in members {
        let counts = counts.entry(member.cell.clone()).or_default();
        match member.side {
            Side::Impressions => counts.impressions += 1,
            Side::Plays => counts.plays += 1,
        }
    }
    counts
}
