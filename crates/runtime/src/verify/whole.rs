//! Of which epochs does the source have everything? Only there may a member be called wrong, or a
//! gap filled; a member that the source proves is right wherever it stands, since sets only grow.

use crate::backfill::{LogPart, reach_ms};
use crate::plan::Plan;
use marquee_model::format_time_ms;
use marquee_sinks::{Gap, Repair};
use std::ops::Range;

/// What is asked for, and what is known of the source.
pub(super) struct Asked<'a> {
    pub(super) plan: &'a Plan,
    /// Numbers of the (longest) epochs that are compared.
    pub(super) epochs: Range<i64>,
    /// What the user has asked for.
    pub(super) from_ms: Option<i64>,
    pub(super) to_ms: Option<i64>,
    /// Repairs of the store.
    pub(super) repairs: &'a [Repair],
}

/// Where the source is whole, by lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// For each lane, as numbers of epochs.
    pub(super) lanes: Vec<Range<i64>>,
    /// What the log has of each lane; empty for files.
    log: Vec<LogPart>,
    /// Stretches of lanes whose members need not stand in the log: they came from files.
    from_files: Vec<(u32, Range<i64>)>,
}

impl Whole {
    /// A log has all events from some time on, up to now.
    pub(super) fn of_log(asked: &Asked<'_>, log: Vec<LogPart>) -> Self {
        let longest_ms = asked.plan.settings.longest_ms();
        let lane = |part: &LogPart| {
            let from_ms = part.whole_from_ms.max(0).saturating_add(match part.whole_from_ms {
                i64::MIN => 0,
                _ => reach_ms(asked.plan),
            });
            clip(&asked.epochs, ceil(from_ms, longest_ms)..i64::MAX)
        };
        let from_files = asked.repairs.iter().filter(|repair| repair.source == Repair::FILES);
        let from_files = from_files.map(|repair| {
            let first = repair.from_ms.div_euclid(longest_ms);
            (repair.lane, first..ceil(repair.to_ms, longest_ms))
        });
        Whole { lanes: log.iter().map(lane).collect(), from_files: from_files.collect(), log }
    }

    /// Files have all events that they begin and end around; more, where somebody says so: whoever
    /// gives them for a stretch of time says that they hold all that belongs to it.
    pub(super) fn of_files(asked: &Asked<'_>, seen_ms: [Option<(i64, i64)>; 2]) -> Self {
        let (longest_ms, reach_ms) = (asked.plan.settings.longest_ms(), reach_ms(asked.plan));
        let both = match seen_ms {
            [Some(shown), Some(played)] => Some((shown.0.max(played.0), shown.1.min(played.1))),
            _ => None,
        };
        let first = match (asked.from_ms, both) {
            (Some(from_ms), _) => ceil(from_ms, longest_ms),
            (None, Some((first_ms, _))) => ceil(first_ms.saturating_add(reach_ms), longest_ms),
            (None, None) => i64::MAX,
        };
        let last = match (asked.to_ms, both) {
            (Some(to_ms), _) => to_ms.div_euclid(longest_ms),
            (None, Some((_, last_ms))) => last_ms.saturating_sub(reach_ms).div_euclid(longest_ms),
            (None, None) => i64::MIN,
        };
        let lanes = vec![clip(&asked.epochs, first..last); asked.plan.lanes as usize];
        Whole { lanes, log: Vec::new(), from_files: Vec::new() }
    }

    /// Whether what a lane's epoch holds beyond the source's members is wrong.
    pub(super) fn is_whole(&self, lane: u32, epoch: i64) -> bool {
        let mut from_files = self.from_files.iter();
        self.lanes[lane as usize].contains(&epoch)
            && !from_files.any(|(of, epochs)| *of == lane && epochs.contains(&epoch))
    }

    /// The part of a gap that the source can fill, as numbers of epochs; of records that a log has
    /// deleted it can fill nothing.
    pub(super) fn fills(&self, plan: &Plan, gap: &Gap) -> Option<Range<i64>> {
        let topic = plan.topics().iter().position(|topic| *topic == gap.topic)?;
        let part = self.log.get(gap.lane as usize);
        if part.is_some_and(|part| part.start_offsets[topic] > gap.from_offset) {
            return None;
        }
        let longest_ms = plan.settings.longest_ms();
        let gap_epochs = gap.from_ms.div_euclid(longest_ms)..ceil(gap.to_ms, longest_ms);
        let filled = clip(self.lanes.get(gap.lane as usize)?, gap_epochs);
        (!filled.is_empty()).then_some(filled)
    }

    /// What cannot be judged, in words.
    pub(super) fn notes(&self, asked: &Asked<'_>) -> Vec<String> {
        let longest_ms = asked.plan.settings.longest_ms();
        let time = |epoch: i64| format_time_ms(epoch.saturating_mul(longest_ms));
        let mut notes = Vec::new();
        for (lane, whole) in self.lanes.iter().enumerate() {
            if *whole == asked.epochs || asked.epochs.is_empty() {
                continue;
            }
            let of_lane = match self.log.is_empty() {
                true => String::new(),
                false => format!(" of lane {lane}"),
            };
            let why = match self.log.is_empty() {
                true => {
                    "the files need not hold all of the others' events (give --from and --to if \
                     they do)"
                }
                false => "the log has deleted records that others may have come from",
            };
            let part = match whole.is_empty() {
                true => format!("for no epoch{of_lane}"),
                false => {
                    let (first, last) = (time(whole.start), time(whole.end));
                    format!("for epochs{of_lane} from {first} to {last} only")
                }
            };
            notes.push(format!("extra members are judged {part}: {why}"));
        }
        notes.dedup();
        for (lane, epochs) in &self.from_files {
            let epochs = clip(&asked.epochs, epochs.clone());
            if !epochs.is_empty() {
                let (first, last) = (time(epochs.start), time(epochs.end));
                notes.push(format!(
                    "extra members of lane {lane} from {first} to {last} are not judged: a \
                     backfill or a repair has added members from files, which the log need not hold"
                ));
            }
        }
        notes
    }
}

/// Number of the first epoch that starts at or after a time.
fn ceil(time_ms: i64, longest_ms: i64) -> i64 {
    let floor = time_ms.div_euclid(longest_ms);
    if time_ms.rem_euclid(longest_ms) == 0 { floor } else { floor + 1 }
}

/// What two stretches share; where that is nothing, an empty one within the first.
fn clip(one: &Range<i64>, other: Range<i64>) -> Range<i64> {
    let start = other.start.clamp(one.start, one.end);
    start..other.end.clamp(start, one.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_cut_and_times_rounded_up() {
        assert_eq!(clip(&(3..9), 5..i64::MAX), 5..9);
        assert_eq!(clip(&(3..9), Range { start: i64::MAX, end: i64::MIN }), 9..9);
        assert_eq!(clip(&(3..9), 1..2), 3..3);
        assert_eq!([0, 1, 10, 11].map(|time_ms| ceil(time_ms, 10)), [0, 1, 1, 2]);
    }
}
