//! Real-world events of the live source: a title is in the news, and for some minutes members look
//! for it more often and play it more often.
//!
//! It stands beside `members`, which asks it for each title how much interest has risen. It reads no
//! clock: an event lasts until a moment that whoever starts it names.

/// A factor beyond this would show nothing but the one title.
const MOST: u32 = 20;

/// Of a thousand members who could play a title in the news, so many do at most.
const TAKE_AT_MOST_PER_MILLE: u32 = 900;

/// What is in the news.
#[derive(Debug, Default)]
pub(super) struct Happenings(Vec<Happening>);

#[derive(Debug)]
struct Happening {
    video: u32,
    factor: u32,
    until_ms: i64,
}

impl Happenings {
    /// Interest in a title rises until that moment. What ended before `now_ms` is forgotten.
    pub(super) fn add(&mut self, video: u32, factor: u32, now_ms: i64, until_ms: i64) {
        self.0.retain(|happening| happening.until_ms > now_ms);
        self.0.push(Happening { video, factor: factor.clamp(1, MOST), until_ms });
    }

    /// How much more often a title is looked for: 1 where nothing happened. Of two events the
    /// greater counts.
    pub(super) fn factor(&self, video: u32, time_ms: i64) -> u32 {
        let of_it =
            |happening: &&Happening| happening.video == video && time_ms < happening.until_ms;
        self.0.iter().filter(of_it).map(|happening| happening.factor).max().unwrap_or(1)
    }

    /// How many of a thousand play it, of whom otherwise `per_mille` would.
    pub(super) fn take_per_mille(&self, video: u32, per_mille: u32, time_ms: i64) -> u32 {
        match self.factor(video, time_ms) {
            1 => per_mille,
            factor => (per_mille * factor).min(TAKE_AT_MOST_PER_MILLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_and_the_greater_of_two_counts() {
        let mut happenings = Happenings::default();
        assert_eq!(happenings.factor(3, 0), 1);
        happenings.add(3, 4, 0, 1_000);
        happenings.add(3, 9, 0, 500);
        let of_3: Vec<u32> =
            [0, 499, 500, 999, 1_000].map(|time_ms| happenings.factor(3, time_ms)).into();
        assert_eq!(of_3, [9, 9, 4, 4, 1]);
        assert_eq!(happenings.factor(4, 0), 1);
    }

    #[test]
    fn factors_and_rates_stay_within_reason() {
        let mut happenings = Happenings::default();
        happenings.add(1, 0, 0, 1_000);
        happenings.add(2, u32::MAX, 0, 1_000);
        assert_eq!((happenings.factor(1, 0), happenings.factor(2, 0)), (1, MOST));
        assert_eq!(happenings.take_per_mille(1, 490, 0), 490);
        assert_eq!(happenings.take_per_mille(2, 490, 0), 900);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut happenings = Happenings::default();
        for minute in 0..1_000 {
            happenings.add(1, 5, minute * 60_000, (minute + 2) * 60_000);
        }
        assert_eq!(happenings.0.len(), 2);
    }
}
