//! A store in memory that checks what is written into it.

use crate::{Counts, member};
use marquee_model::{CellCounts, CellKey};
use marquee_oracle::{Member, Side};
use marquee_pipeline::chunk::{self, Id};
use marquee_sinks::{Gap, LaneCommit, LaneState, Sink, SinkError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Option<LaneState>,
    counts: Counts,
    members: BTreeMap<CellKey, [BTreeSet<Id>; 2]>,
    gaps: BTreeSet<Gap>,
    /// The first check that failed: it must fail the test, and not only the owner's thread.
    fault: Option<String>,
}

impl MemoryStore {
    pub(crate) fn members(&self) -> BTreeSet<Member> {
        let inner = self.inner.lock().unwrap();
        let mut members = BTreeSet::new();
        for (cell, sides) in &inner.members {
            for (side, ids) in [Side::Impressions, Side::Plays].into_iter().zip(sides) {
                let id = |id: &Id| member(&cell.video, cell.epoch_start_ms, side, &id.to_string());
                members.extend(ids.iter().map(id));
            }
        }
        members
    }

    /// Whether a gap of this reason says that the member's cell may lack members.
    pub(crate) fn doubts(&self, member: &Member, reason: &str) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.gaps.iter().any(|gap| gap.reason == reason && touches(gap, member))
    }

    pub(crate) fn doubts_at_all(&self, member: &Member) -> bool {
        self.inner.lock().unwrap().gaps.iter().any(|gap| touches(gap, member))
    }

    /// Whether a gap names this offset, and begins after an epoch that ends at this time.
    pub(crate) fn lost_when_closed(&self, topic: usize, offset: u64, closed_ms: i64) -> bool {
        let topic = ["impressions", "plays"][topic];
        let inner = self.inner.lock().unwrap();
        inner.gaps.iter().any(|gap| {
            let names = gap.topic == topic && (gap.from_offset..gap.to_offset).contains(&offset);
            names && gap.reason == "trimmed" && gap.from_ms >= closed_ms
        })
    }

    /// Panics if a check failed.
    pub(crate) fn check(&self) {
        let fault = self.inner.lock().unwrap().fault.clone();
        assert!(fault.is_none(), "{}", fault.unwrap());
    }
}

fn touches(gap: &Gap, member: &Member) -> bool {
    gap.touches(member.cell.epoch_start_ms, member.cell.epoch_ms)
}

impl Inner {
    fn must(&mut self, is_so: bool, fault: impl FnOnce() -> String) {
        if !is_so {
            self.fault.get_or_insert_with(fault);
        }
    }

    fn write(&mut self, commit: &LaneCommit<'_>) {
        for changed in commit.batch.cells() {
            let cell = CellKey {
                video: changed.cell.video.to_owned(),
                epoch_start_ms: changed.cell.epoch_start_ms,
                epoch_ms: changed.cell.epoch_ms,
                slice: changed.cell.slice.to_owned(),
            };
            let sets = self.members.entry(cell.clone()).or_default();
            for (set, side) in sets.iter_mut().zip(marquee_model::Side::BOTH) {
                let bytes = changed.chunk(side);
                if !bytes.is_empty() {
                    chunk::decode_into(&bytes, set).unwrap();
                }
            }
            let sizes =
                CellCounts { impressions: sets[0].len() as u64, plays: sets[1].len() as u64 };
            let counts = changed.cell.counts;
            let before = self.counts.insert(cell.clone(), counts).unwrap_or_default();
            // Contract 3: the cardinality of a set that was really emitted, and it never shrinks.
            self.must(counts == sizes, || format!("{cell:?} counts {counts:?}, holds {sizes:?}"));
            let grows = counts.impressions >= before.impressions && counts.plays >= before.plays;
            self.must(grows, || format!("{cell:?} shrinks from {before:?} to {counts:?}"));
        }
        let before = self.state.replace(commit.state.clone()).unwrap_or_default();
        let (was, is) = (before.frontier, commit.state.frontier);
        self.must(is >= was, || format!("the frontier moves back from {was} to {is}"));
    }
}

impl Sink for MemoryStore {
    fn lane_state(&self, _: u32) -> Result<Option<LaneState>, SinkError> {
        Ok(self.inner.lock().unwrap().state.clone())
    }

    fn commit(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        let mut inner = self.inner.lock().unwrap();
        commits.iter().for_each(|commit| inner.write(commit));
        Ok(())
    }

    fn counts_of_lane(&self, _: u32, from_ms: i64) -> Result<Counts, SinkError> {
        let inner = self.inner.lock().unwrap();
        let open = inner.counts.iter().filter(|(cell, _)| cell.epoch_start_ms >= from_ms);
        Ok(open.map(|(cell, counts)| (cell.clone(), *counts)).collect())
    }

    fn members_of_lane(
        &self,
        _: u32,
        from_ms: i64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        let inner = self.inner.lock().unwrap();
        let open = inner.members.iter().filter(|(cell, _)| cell.epoch_start_ms >= from_ms);
        open.for_each(|(cell, sets)| each(cell.clone(), sets.clone()));
        Ok(())
    }

    fn add_gaps(&self, gaps: &[Gap]) -> Result<(), SinkError> {
        self.inner.lock().unwrap().gaps.extend(gaps.iter().cloned());
        Ok(())
    }
}
