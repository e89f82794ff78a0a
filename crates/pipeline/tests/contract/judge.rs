//! What the oracle says about a history, and the comparison with what was written.
//!
//! Members and cells have numbers here: a history is judged at every commit.

use crate::history::{History, Record, Setup};
use marquee_model::{CellCounts, Partitioner, lane_of};
use marquee_oracle::{Cell, Member, Side};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a check finds.
pub(crate) type Judged = Result<(), TestCaseError>;

/// All members that a log makes.
pub(crate) struct Truth {
    /// The members in ascending order, each with all its proofs: places in the log. A record that
    /// repeats an event is an event of its own here, so that an event is late only if all its
    /// copies are.
    members: Vec<(Member, Vec<Vec<usize>>)>,
    numbers: HashMap<Member, usize>,
    cells: HashMap<Cell, usize>,
    /// By member.
    lane_of: Vec<u32>,
    cell_of: Vec<usize>,
    epoch_of: Vec<i64>,
}

impl Truth {
    /// The oracle's members of a log.
    pub(crate) fn of(log: &[Record], setup: &Setup) -> Self {
        let members: Vec<_> = proofs(log, setup).into_iter().collect();
        let mut cells = HashMap::new();
        let mut number_of = |cell: &Cell| {
            let next = cells.len();
            *cells.entry(cell.clone()).or_insert(next)
        };
        let longest_ms = setup.epochs_ms[0];
        Truth {
            cell_of: members.iter().map(|(member, _)| number_of(&member.cell)).collect(),
            numbers: members.iter().enumerate().map(|(n, (m, _))| (m.clone(), n)).collect(),
            lane_of: members.iter().map(|(m, _)| lane(&m.request_id, setup.lanes)).collect(),
            epoch_of: members.iter().map(|(m, _)| m.cell.epoch_start_ms / longest_ms).collect(),
            cells,
            members,
        }
    }

    /// The number of a member that was written: rule 1, and the lane of its request.
    pub(crate) fn number(&self, member: &Member, lane: u32) -> Result<usize, TestCaseError> {
        let number = self.numbers.get(member).copied();
        prop_assert!(number.is_some(), "a wrong member: {:?}", member);
        let number = number.unwrap();
        prop_assert_eq!(lane, self.lane_of[number], "the lane of {:?}", member);
        Ok(number)
    }

    /// The number of a cell that was written.
    pub(crate) fn cell(&self, cell: &Cell) -> Result<usize, TestCaseError> {
        let number = self.cells.get(cell).copied();
        prop_assert!(number.is_some(), "a wrong cell: {:?}", cell);
        Ok(number.unwrap())
    }

    /// The member of a number.
    pub(crate) fn member(&self, number: usize) -> &Member {
        &self.members[number].0
    }

    /// Whether a member's request belongs to a lane.
    pub(crate) fn is_of_lane(&self, number: usize, lane: u32) -> bool {
        self.lane_of[number] == lane
    }

    /// The longest epoch that a member is counted in.
    pub(crate) fn epoch_of(&self, number: usize) -> i64 {
        self.epoch_of[number]
    }

    /// The records that appear in any proof of a member.
    pub(crate) fn records_of(&self, number: usize) -> impl Iterator<Item = usize> {
        self.members[number].1.iter().flatten().copied()
    }

    /// The cardinalities of sets, by cell.
    pub(crate) fn counts(
        &self,
        members: impl Iterator<Item = usize>,
    ) -> BTreeMap<usize, CellCounts> {
        let mut counts = BTreeMap::<usize, CellCounts>::new();
        for number in members {
            let counts = counts.entry(self.cell_of[number]).or_default();
            match self.member(number).side {
                Side::Impressions => counts.impressions += 1,
                Side::Plays => counts.plays += 1,
            }
        }
        counts
    }

    /// Rules 1 and 2 for one lane: each member that was written has a proof that was read, and
    /// each that is missing would be added by the late output, because every proof of it that was
    /// read has a late event in it.
    pub(crate) fn judge(
        &self,
        lane: u32,
        written: &BTreeSet<usize>,
        read: &[bool],
        late: &BTreeSet<usize>,
    ) -> Judged {
        for (number, (member, proofs)) in self.members.iter().enumerate() {
            if self.lane_of[number] != lane {
                continue;
            }
            let mut proofs = proofs.iter().filter(|proof| proof.iter().all(|event| read[*event]));
            if written.contains(&number) {
                prop_assert!(proofs.next().is_some(), "a member too early: {:?}", member);
                continue;
            }
            let in_time = proofs.find(|proof| !proof.iter().any(|event| late.contains(event)));
            prop_assert!(in_time.is_none(), "lost, though in time by {in_time:?}: {member:?}");
        }
        Ok(())
    }

    /// All members.
    pub(crate) fn all(&self) -> impl Iterator<Item = usize> {
        0..self.members.len()
    }
}

/// The oracle's members of a whole history.
pub(crate) fn members(history: &History) -> BTreeSet<Member> {
    proofs(&history.log(), &history.setup).into_keys().collect()
}

/// The lane of a request.
pub(crate) fn lane(request_id: &str, lanes: u32) -> u32 {
    lane_of(Partitioner::Murmur2, request_id.as_bytes(), lanes)
}

fn proofs(log: &[Record], setup: &Setup) -> BTreeMap<Member, Vec<Vec<usize>>> {
    let alive: Vec<usize> = (0..log.len()).filter(|n| !log[*n].is_dead(setup)).collect();
    let events: Vec<_> = alive.iter().map(|number| log[*number].event()).collect();
    let mut proofs = marquee_oracle::proofs(&events, &setup.for_oracle());
    for event in proofs.values_mut().flatten().flatten() {
        *event = alive[*event];
    }
    proofs
}
