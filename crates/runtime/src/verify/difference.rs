//! One cell of one lane, as it should be and as it is: pure, so that each code has its test.

use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeSet;

/// Ids of either side that are shown; how many there are is always said.
const SAMPLE: usize = 5;

/// How a cell differs. These words stay (docs/contract.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The place holds nothing of it.
    Absent,
    /// The members are right as far as they are kept, the count is not.
    Count,
    /// The members are wrong, and the count is the size of the set beside it.
    Members,
    /// The members are wrong, and the count is not even the size of the set beside it.
    CountMembers,
}

impl What {
    /// The word.
    pub fn code(self) -> &'static str {
        match self {
            What::Absent => "absent",
            What::Count => "count",
            What::Members => "members",
            What::CountMembers => "count_members",
        }
    }
}

/// Some of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// How many there are.
    pub total: u64,
    /// The first of them.
    pub ids: Vec<String>,
}

impl Sample {
    fn of<'i>(ids: impl Iterator<Item = &'i Id>) -> Self {
        let mut sample = Sample::default();
        for id in ids {
            sample.total += 1;
            if sample.ids.len() < SAMPLE {
                sample.ids.push(id.to_string());
            }
        }
        sample
    }
}

/// A sample of each side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// Request ids that showed the video.
    pub impressions: Sample,
    /// Request ids that played it.
    pub plays: Sample,
}

impl Samples {
    /// What the first sets have and the second have not.
    fn without(sets: &[BTreeSet<Id>; 2], others: &[BTreeSet<Id>; 2]) -> Self {
        let side = |side: usize| Sample::of(sets[side].difference(&others[side]));
        Samples { impressions: side(0), plays: side(1) }
    }

    /// Members of both sides.
    pub fn total(&self) -> u64 {
        self.impressions.total + self.plays.total
    }
}

/// Both counts, as they stand in a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    impressions: u64,
    plays: u64,
}

impl From<CellCounts> for Counts {
    fn from(counts: CellCounts) -> Self {
        Counts { impressions: counts.impressions, plays: counts.plays }
    }
}

/// A cell that differs in a lane: a line of `marquee verify`.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The video.
    pub video: String,
    /// Start of the epoch, milliseconds since 1970 UTC.
    pub epoch_start_ms: i64,
    /// Length of the epoch.
    pub epoch_ms: i64,
    /// The slice, an object.
    #[serde(serialize_with = "as_object")]
    pub slice: String,
    /// The lane.
    pub lane: u32,
    /// The place that differs: `store` or `lake`.
    pub place: &'static str,
    /// How.
    pub what: What,
    /// Sizes of the sets that were counted once more: where the source is not whole, at least so
    /// many.
    pub expected: Counts,
    /// The counts that the place has.
    pub found: Counts,
    /// Members that the place lacks; `null` where it keeps none.
    pub missing: Option<Samples>,
    /// Members that it has too many; `null` where that cannot be judged.
    pub extra: Option<Samples>,
    /// Whether nothing of it is left, after a repair; absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<bool>,
}

/// What a place holds of a cell.
pub(super) struct Held<'a> {
    pub(super) counts: CellCounts,
    /// `None` where it keeps no members.
    pub(super) members: Option<&'a [BTreeSet<Id>; 2]>,
}

/// How a cell differs, if it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) what: What,
    pub(super) missing: Option<Samples>,
    pub(super) extra: Option<Samples>,
}

/// Compares. `is_whole`: whether `expected` has everything, so that what is not among it is wrong.
pub(super) fn compare(
    expected: &[BTreeSet<Id>; 2],
    held: &Held<'_>,
    is_whole: bool,
) -> Option<Differing> {
    let counts = held.counts;
    let is_absent = counts == CellCounts::default()
        && held.members.is_none_or(|sets| sets.iter().all(BTreeSet::is_empty));
    let Some(members) = held.members else {
        let wanted = sizes(expected);
        let is_less = counts.impressions < wanted.impressions || counts.plays < wanted.plays;
        let differs = if is_whole { counts != wanted } else { is_less };
        let what = if is_absent { What::Absent } else { What::Count };
        return differs.then_some(Differing { what, missing: None, extra: None });
    };
    let missing = Samples::without(expected, members);
    let extra = is_whole.then(|| Samples::without(members, expected));
    let sets_differ = missing.total() > 0 || extra.as_ref().is_some_and(|extra| extra.total() > 0);
    let what = match (sets_differ, counts == sizes(members)) {
        (false, true) => return None,
        (true, _) if is_absent => What::Absent,
        (true, true) => What::Members,
        (true, false) => What::CountMembers,
        (false, false) => What::Count,
    };
    Some(Differing { what, missing: Some(missing), extra })
}

pub(super) fn sizes(sets: &[BTreeSet<Id>; 2]) -> CellCounts {
    CellCounts { impressions: sets[0].len() as u64, plays: sets[1].len() as u64 }
}

impl Difference {
    /// The cell.
    pub fn cell(&self) -> CellKey {
        CellKey {
            video: self.video.clone(),
            epoch_start_ms: self.epoch_start_ms,
            slice: self.slice.clone(),
            epoch_ms: self.epoch_ms,
        }
    }

    pub(super) fn of(
        cell: CellKey,
        lane: u32,
        place: &'static str,
        (expected, found): (CellCounts, CellCounts),
        Differing { what, missing, extra }: Differing,
    ) -> Self {
        let CellKey { video, epoch_start_ms, epoch_ms, slice } = cell;
        let (expected, found, repaired) = (expected.into(), found.into(), None);
        Difference {
            video,
            epoch_start_ms,
            epoch_ms,
            slice,
            lane,
            place,
            what,
            expected,
            found,
            missing,
            extra,
            repaired,
        }
    }
}

fn as_object<S: Serializer>(slice: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let text = if slice.is_empty() { "{}" } else { slice };
    match serde_json::from_str::<Value>(text) {
        Ok(object) => object.serialize(serializer),
        // Slices are JSON. A text that is none is shown as it is.
        Err(_) => serializer.serialize_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sets = [&'static [&'static str]; 2];

    fn sets(texts: Sets) -> [BTreeSet<Id>; 2] {
        texts.map(|ids| ids.iter().map(|id| Id::of(id)).collect())
    }

    /// The code, and how many are missing and too many, where that is judged.
    fn judge(
        expected: Sets,
        (impressions, plays): (u64, u64),
        members: Option<Sets>,
        is_whole: bool,
    ) -> Option<(&'static str, Option<u64>, Option<u64>)> {
        let members = members.map(sets);
        let counts = CellCounts { impressions, plays };
        let held = Held { counts, members: members.as_ref() };
        let differing = compare(&sets(expected), &held, is_whole)?;
        let total = |samples: &Option<Samples>| samples.as_ref().map(Samples::total);
        Some((differing.what.code(), total(&differing.missing), total(&differing.extra)))
    }

    const GOOD: Sets = [&["a", "b", "c"], &["b"]];

    #[test]
    fn a_cell_as_it_should_be_is_no_difference() {
        for is_whole in [true, false] {
            assert_eq!(judge(GOOD, (3, 1), Some(GOOD), is_whole), None);
            assert_eq!(judge(GOOD, (3, 1), None, is_whole), None);
        }
    }

    #[test]
    fn each_corruption_has_its_code() {
        let all = |code, missing, extra| Some((code, Some(missing), Some(extra)));
        assert_eq!(judge(GOOD, (2, 1), Some(GOOD), true), all("count", 0, 0));
        assert_eq!(judge(GOOD, (3, 9), Some(GOOD), true), all("count", 0, 0));
        let less: Sets = [&["a", "c"], &[]];
        assert_eq!(judge(GOOD, (3, 1), Some(less), true), all("count_members", 2, 0));
        assert_eq!(judge(GOOD, (2, 0), Some(less), true), all("members", 2, 0));
        let more: Sets = [&["a", "b", "c", "x"], &["b"]];
        assert_eq!(judge(GOOD, (4, 1), Some(more), true), all("members", 0, 1));
        let other: Sets = [&["a", "b", "x"], &["b"]];
        assert_eq!(judge(GOOD, (3, 1), Some(other), true), all("members", 1, 1));
        assert_eq!(judge(GOOD, (0, 0), Some([&[], &[]]), true), all("absent", 4, 0));
        assert_eq!(judge([&[], &[]], (3, 1), Some(GOOD), true), all("members", 0, 4));
    }

    #[test]
    fn what_the_source_may_have_forgotten_is_not_called_wrong() {
        let more: Sets = [&["a", "b", "c", "x"], &["b"]];
        assert_eq!(judge(GOOD, (4, 1), Some(more), false), None);
        assert_eq!(judge(GOOD, (4, 1), None, false), None);
        let other: Sets = [&["a", "b", "x"], &["b"]];
        assert_eq!(judge(GOOD, (3, 1), Some(other), false), Some(("members", Some(1), None)));
        // A count that is not the size of its own set is wrong whatever the source has.
        assert_eq!(judge(GOOD, (5, 1), Some(more), false), Some(("count", Some(0), None)));
    }

    #[test]
    fn without_members_counts_are_compared() {
        assert_eq!(judge(GOOD, (2, 1), None, true), Some(("count", None, None)));
        assert_eq!(judge(GOOD, (2, 1), None, false), Some(("count", None, None)));
        assert_eq!(judge(GOOD, (4, 1), None, true), Some(("count", None, None)));
        assert_eq!(judge(GOOD, (0, 0), None, true), Some(("absent", None, None)));
    }

    #[test]
    fn a_line_says_all_and_shows_a_few() {
        let ids: BTreeSet<Id> = (0..9).map(|n| Id::of(&format!("r{n}"))).collect();
        let expected = [ids, BTreeSet::new()];
        let members = sets([&[], &[]]);
        let held = Held { counts: CellCounts::default(), members: Some(&members) };
        let differing = compare(&expected, &held, true).expect("it differs");
        let cell = CellKey {
            video: "A".to_owned(),
            epoch_start_ms: 1_800_000,
            epoch_ms: 1_800_000,
            slice: "{\"country\":\"US\"}".to_owned(),
        };
        let counts = (sizes(&expected), held.counts);
        let mut line = Difference::of(cell, 3, "store", counts, differing);
        line.repaired = Some(true);
        assert_eq!(
            serde_json::to_string(&line).expect("it serializes"),
            "{\"video\":\"A\",\"epoch_start_ms\":1800000,\"epoch_ms\":1800000,\
             \"slice\":{\"country\":\"US\"},\"lane\":3,\"place\":\"store\",\"what\":\"absent\",\
             \"expected\":{\"impressions\":9,\"plays\":0},\"found\":{\"impressions\":0,\"plays\":0},\
             \"missing\":{\"impressions\":{\"total\":9,\"ids\":[\"r0\",\"r1\",\"r2\",\"r3\",\"r4\"]},\
             \"plays\":{\"total\":0,\"ids\":[]}},\
             \"extra\":{\"impressions\":{\"total\":0,\"ids\":[]},\"plays\":{\"total\":0,\"ids\":[]}},\
             \"repaired\":true}"
        );
    }
}
