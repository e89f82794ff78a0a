//! Everything that decides what the join counts, checked before it comes here.

/// When an impression and a play of one request match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// They share the transformed video, too.
    RequestAndVideo,
    /// Sharing the request is enough: the setting of the slides.
    Request,
}

/// Which impressions become members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impressions {
    /// Every impression.
    All,
    /// Only those that match a play.
    Joined,
}

/// Whose epoch and slice a play is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochOfPlay {
    /// Those of every impression that it matches: plays / impressions is a rate over one cohort.
    Impression,
    /// Its own: when people watched.
    Play,
}

/// What a topic that has nothing to read does to the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It holds the watermark for this many milliseconds, then follows the clock.
    After(i64),
    /// It holds the watermark for ever.
    Hold,
}

/// The settings of the join and of the aggregation. All durations are milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Setting `match`.
    pub match_: Match,
    /// Setting `impressions`.
    pub impressions: Impressions,
    /// Setting `epoch_of_play`.
    pub epoch_of_play: EpochOfPlay,
    /// A play matches impressions up to this much older than itself.
    pub within_ms: i64,
    /// A play matches impressions up to this much younger than itself (clock skew).
    pub early_ms: i64,
    /// How far the watermark stays behind the events.
    pub lateness_ms: i64,
    /// What an idle topic does to the watermark.
    pub idle: Idle,
    /// The watermark is carried by this many distinct requests, so that a few clocks that run
    /// ahead cannot move it.
    pub watermark_support: usize,
    /// Facts of one kind that one request may have in one epoch. `u32::MAX` is no limit.
    pub max_facts: u32,
    /// Lengths of epochs, longest first; each divides the longest.
    pub epochs_ms: Vec<i64>,
    /// Number of grouping sets (`[transform] slices`), at least 1.
    pub groupings: usize,
}

impl Default for Settings {
    /// The defaults of docs/semantics.md.
    fn default() -> Self {
        Settings {
            match_: Match::RequestAndVideo,
            impressions: Impressions::All,
            epoch_of_play: EpochOfPlay::Impression,
            within_ms: 3_600_000,
            early_ms: 60_000,
            lateness_ms: 600_000,
            idle: Idle::After(3_600_000),
            watermark_support: 16,
            max_facts: 10_000,
            epochs_ms: vec![1_800_000],
            groupings: 1,
        }
    }
}

impl Settings {
    /// Length of the longest epoch: the one that groups the state.
    #[inline]
    pub fn longest_ms(&self) -> i64 {
        self.epochs_ms[0]
    }

    /// Number of the longest epoch that holds a time (floor, also for times before 1970, which
    /// arise when a window reaches back).
    #[inline]
    pub fn epoch_of(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.longest_ms())
    }

    /// The oldest epoch whose facts may still be needed while `frontier` is the first open epoch:
    /// a play at its very start may match an impression this far back, or the reverse.
    pub fn oldest_needed_by(&self, frontier: i64) -> i64 {
        self.epoch_of(frontier * self.longest_ms() - self.within_ms - self.early_ms)
    }

    /// The first epoch that is not gone at watermark `watermark_ms`. Epoch `e` is gone when
    /// `watermark > end(e) + within + early`.
    pub fn first_open_at(&self, watermark_ms: i64) -> i64 {
        let reach_ms = watermark_ms - self.within_ms - self.early_ms;
        // e is gone when (e + 1) * length < reach; so the first that is not gone is
        // ceil(reach / length) - 1 = floor((reach - 1) / length).
        (reach_ms - 1).div_euclid(self.longest_ms()).max(0)
    }

    /// The oldest and the newest epoch whose facts or members an event of this kind and time may
    /// need. The event is late when the oldest lies before the frontier.
    #[inline]
    pub fn epochs_needed(&self, kind: marquee_model::Kind, time_ms: i64) -> (i64, i64) {
        let (back, ahead) = match kind {
            marquee_model::Kind::Impression => (self.early_ms, self.within_ms),
            marquee_model::Kind::Play => (self.within_ms, self.early_ms),
        };
        (self.epoch_of((time_ms - back).max(0)), self.epoch_of(time_ms + ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_gone_only_past_its_end_and_both_windows() {
        let s = Settings { within_ms: 20, early_ms: 3, epochs_ms: vec![10], ..Default::default() };
        for watermark in 0..200 {
            let gone = |e: i64| watermark > (e + 1) * 10 + 20 + 3;
            let expected = (0..).find(|e| !gone(*e)).expect("some epoch is open");
            assert_eq!(s.first_open_at(watermark), expected, "watermark {watermark}");
        }
    }
}
