//! Which cells may lack members because records are gone before this lane has counted them, or
//! before it has rebuilt what it needs of them.

use crate::plan::Plan;
use marquee_model::{Kind, MAX_EVENT_TIME_MS};
use marquee_pipeline::settings::{EpochOfPlay, Impressions};
use marquee_sinks::{Gap, LaneState};

/// The log has deleted what the lane needs.
pub(super) const TRIMMED: &str = "trimmed";
/// Another member of the group has counted it, into its own store.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// Records that are gone and were never read by anybody here: what they held is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) topic: usize,
    pub(super) from_offset: u64,
    pub(super) to_offset: u64,
}

/// When the first few records of a topic after some that are gone were stamped. One alone is not
/// believed: its clock may be wrong, and the doubt would not reach far enough, or for ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstRecords {
    times_ms: Vec<i64>,
}

impl FirstRecords {
    pub(crate) const ENOUGH: usize = 16;

    #[inline]
    pub(crate) fn note(&mut self, record_ms: impl FnOnce() -> i64) {
        if !self.is_enough() {
            self.times_ms.push(record_ms());
        }
    }

    #[inline]
    pub(crate) fn is_enough(&self) -> bool {
        self.times_ms.len() >= Self::ENOUGH
    }

    /// The latest time that is believed of them; now, where there are none.
    ///
    /// What is gone was stamped before them, but for disorder: the latest of all is late enough if
    /// only one of their clocks is right. One that is years ahead would make the gap as long, so
    /// what is later than now is believed only as far as half of them have come. Now alone must not
    /// cut it short: this machine's clock may be behind, by any length, and the gap would end before
    /// cells that lack members. And one record that is all there is may be the one whose clock is
    /// behind: a gap that is too wide does less harm than one that is too narrow (HONEST).
    pub(crate) fn latest_ms(&self, now_ms: i64) -> i64 {
        let mut sorted = self.times_ms.clone();
        sorted.sort_unstable_by(|one, other| other.cmp(one));
        match sorted[..] {
            [] => now_ms,
            [only_ms] => now_ms.max(only_ms),
            [latest_ms, ..] => latest_ms.min(now_ms.max(sorted[(sorted.len() - 1) / 2])),
        }
    }
}

/// The cells of open epochs that may lack members because a rebuild can read a topic only from
/// `start` on. The index tells which epochs have lost records: those whose first record is gone.
pub(super) fn of_rebuild(
    plan: &Plan,
    lane: u32,
    state: &LaneState,
    topic: usize,
    start: u64,
) -> Vec<Gap> {
    let needed = plan.settings.oldest_needed_by(state.frontier);
    let length_ms = plan.settings.longest_ms();
    let lost = state.smallest_offsets[topic].range(needed..).filter(|(_, first)| **first < start);
    let gap = |(epoch, first): (&i64, &u64)| {
        let lost_ms = (epoch * length_ms, (epoch + 1) * length_ms);
        let (from_ms, to_ms) = cells_of(plan, topic, lost_ms, state.frontier)?;
        Some(Gap {
            lane,
            topic: plan.topics()[topic].clone(),
            from_offset: *first,
            to_offset: start,
            from_ms,
            to_ms,
            reason: TRIMMED.to_owned(),
        })
    };
    lost.filter_map(gap).collect()
}

/// The same for records that were never read. All that is known of them is that they are older
/// than the first ones that are left, `first_ms`: they were not stamped later than that plus
/// `lateness` (as far as records are out of order), and no event is further ahead of its record
/// than `max_ahead`.
pub(super) fn of_unread(
    plan: &Plan,
    lane: u32,
    frontier: i64,
    unread: &Unread,
    first_ms: i64,
) -> Option<Gap> {
    let latest_ms = latest_event_ms(first_ms, plan.settings.lateness_ms, plan.max_ahead_ms);
    let end_ms = (plan.settings.epoch_of(latest_ms) + 1) * plan.settings.longest_ms();
    let (from_ms, to_ms) = cells_of(plan, unread.topic, (0, end_ms), frontier)?;
    Some(Gap {
        lane,
        topic: plan.topics()[unread.topic].clone(),
        from_offset: unread.from_offset,
        to_offset: unread.to_offset,
        from_ms,
        to_ms,
        reason: TRIMMED.to_owned(),
    })
}

/// No event is later than the year 9999, whatever time its record was given.
pub(crate) fn latest_event_ms(first_ms: i64, lateness_ms: i64, max_ahead_ms: i64) -> i64 {
    first_ms.saturating_add(lateness_ms).saturating_add(max_ahead_ms).min(MAX_EVENT_TIME_MS)
}

/// The stretch of open cells to which events of a stretch of event time may add members, as start
/// and end; `None` where there is none.
fn cells_of(plan: &Plan, topic: usize, lost_ms: (i64, i64), frontier: i64) -> Option<(i64, i64)> {
    let settings = &plan.settings;
    let (mut from, mut to) = (i64::MAX, i64::MIN);
    let mut touch = |from_ms: i64, last_ms: i64| {
        from = from.min(settings.epoch_of(from_ms));
        to = to.max(settings.epoch_of(last_ms) + 1);
    };
    let by_play = settings.epoch_of_play == EpochOfPlay::Play;
    let (start_ms, last_ms) = (lost_ms.0, lost_ms.1 - 1);
    for stream in plan.streams_of(&plan.topics()[topic]) {
        match stream.stream.kind() {
            Kind::Impression => {
                touch(start_ms, last_ms);
                if by_play {
                    touch(start_ms - settings.early_ms, last_ms + settings.within_ms);
                }
            }
            Kind::Play => {
                if by_play {
                    touch(start_ms, last_ms);
                }
                if !by_play || settings.impressions == Impressions::Joined {
                    touch(start_ms - settings.within_ms, last_ms + settings.early_ms);
                }
            }
        }
    }
    let from = from.max(frontier);
    let length_ms = settings.longest_ms();
    (from < to).then(|| (from * length_ms, to * length_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is believed of records stamped at these times.
    #[track_caller]
    fn check(times_ms: &[i64], now_ms: i64, expected_ms: i64) {
        let mut records = FirstRecords::default();
        times_ms.iter().for_each(|ms| records.note(|| *ms));
        assert_eq!(records.latest_ms(now_ms), expected_ms, "{times_ms:?} at {now_ms}");
    }

    #[test]
    fn the_latest_of_the_first_records_is_believed_but_not_clocks_that_are_ahead() {
        check(&[50, 10, 40], 100, 50);
        check(&[50, 1_000_000, 40], 100, 100);
        let ahead = [50, 60, 70, 80, 90, 51, 61, 71, 81].into_iter().chain([1_000_000; 7]);
        check(&ahead.collect::<Vec<_>>(), 100, 100);
    }

    #[test]
    fn a_machine_whose_clock_is_behind_does_not_end_a_gap_too_early() {
        check(&[500, 510, 520], 100, 510);
        check(&[500, 510], 100, 510);
        check(&[500], 100, 500);
        // Half of the producers' clocks may be behind as well.
        let behind = [1; 8].into_iter().chain(500..508);
        check(&behind.collect::<Vec<_>>(), 100, 500);
    }

    #[test]
    fn one_record_that_is_all_there_is_is_not_believed_alone() {
        check(&[40], 100, 100);
        check(&[40, 30], 100, 40);
    }

    /// A producer may give a record any time; the gap must not be lost to an overflow.
    #[test]
    fn a_record_from_the_end_of_time_leaves_a_gap_all_the_same() {
        assert_eq!(latest_event_ms(1_000, 20, 3), 1_023);
        for first_ms in [i64::MAX, i64::MAX - 1, MAX_EVENT_TIME_MS] {
            assert_eq!(latest_event_ms(first_ms, 3_600_000, 600_000), MAX_EVENT_TIME_MS);
        }
    }

    #[test]
    fn no_more_than_the_first_16_are_looked_at() {
        let times_ms: Vec<i64> = (0..100).collect();
        check(&times_ms, 1_000, 15);
        check(&[], 1_000, 1_000);
    }
}
