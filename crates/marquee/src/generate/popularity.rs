//! How often the live members are shown each video in the current second, and how often they play it.
//!
//! Four movements, so that ranks change at the start of an epoch and at its end: every video has a
//! base, some of them large, those of neighbours almost equal; a triangular wave of its own period,
//! 41 to 314 s, swings it up and down by four fifths; one video is the talk of the town, about a sixth
//! of everything that is shown; and what is in the news (`happenings`) is looked for more often, also
//! where it was hardly looked for before.

use super::GeneratedEvent;
use super::draw::Draw;
use super::happenings::Happenings;

const TALK: &[u8; 16] = b"marquee/live/hit";
const PHASE: &[u8; 16] = b"marquee/live/wav";

const TALK_LASTS_S: i64 = 40;
/// The talk of the town has as much weight as this part of all together.
const TALK_PART: u32 = 5;

/// Periods and take rates of so many kinds.
const KINDS: u32 = 40;

/// Popular videos stand all over the catalogue: the place of each in the order of popularity is its
/// place there times this. It has no factor in common with the size of the demo's catalogue.
const STRIDE: u32 = 77;

/// The weights of one second.
pub(super) struct Popularity {
    seed: u64,
    /// Where each video's wave begins, in seconds.
    phases: Vec<i64>,
    second: i64,
    /// For each video, its weight and those of all before it.
    cumulative: Vec<u32>,
    happenings: Happenings,
}

impl Popularity {
    /// Of so many videos, at least one.
    pub(super) fn new(seed: u64, count: u32) -> Self {
        let mut draw = Draw::new(PHASE, seed, 0);
        let phases = (0..count).map(|_| draw.between(0, 999)).collect();
        let mut popularity = Popularity {
            seed,
            phases,
            second: 0,
            cumulative: Vec::new(),
            happenings: Happenings::default(),
        };
        popularity.weigh();
        popularity
    }

    /// Something happens: until that moment a video is looked for more often.
    pub(super) fn raise(&mut self, video: u32, factor: u32, now_ms: i64, until_ms: i64) {
        self.happenings.add(video, factor, now_ms, until_ms);
        self.weigh();
    }

    pub(super) fn move_to(&mut self, time_ms: i64) {
        let second = time_ms.div_euclid(1000);
        if second != self.second {
            self.second = second;
            self.weigh();
        }
    }

    fn count(&self) -> u32 {
        self.phases.len() as u32
    }

    fn weigh(&mut self) {
        let mut weights: Vec<u32> = (0..self.count()).map(|video| self.drifting(video)).collect();
        let mean = weights.iter().sum::<u32>() / self.count();
        for (video, weight) in (0..).zip(&mut weights) {
            let factor = self.happenings.factor(video, self.second * 1000);
            if factor > 1 {
                *weight = factor * (*weight).max(mean);
            }
        }
        let period = self.second.div_euclid(TALK_LASTS_S);
        let talk = Draw::new(TALK, self.seed, period as u64).below(self.count());
        weights[talk as usize] += weights.iter().sum::<u32>() / TALK_PART;
        let sums = weights.iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        self.cumulative = sums.collect();
    }

    /// Of a thousand members who see this impression and could play it, so many do.
    pub(super) fn take_per_mille(&self, impression: &GeneratedEvent) -> u32 {
        let usual = take_per_mille(impression.video);
        self.happenings.take_per_mille(impression.video, usual, impression.event_time_ms)
    }

    /// 240 to 21,600.
    fn drifting(&self, video: u32) -> u32 {
        let rank = video * STRIDE % self.count();
        let base = 120 + 10_800 / (10 + rank);
        let period = 41 + 7 * i64::from(video * 11 % KINDS);
        let place = (self.second + self.phases[video as usize]).rem_euclid(period);
        // From 0 up to 1,000 in the middle of the period, and down again.
        let wave = 1000 - (2000 * place / period - 1000).abs();
        base * (200 + wave as u32 * 8 / 5) / 100
    }

    pub(super) fn draw(&self, draw: &mut Draw) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or(1);
        let place = draw.below(total);
        self.cumulative.partition_point(|sum| *sum <= place) as u32
    }
}

/// Of a thousand members who could play this video, so many do: 100 to 490, the same for ever.
fn take_per_mille(video: u32) -> u32 {
    100 + video * 37 % KINDS * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 300;

    fn shares(popularity: &Popularity) -> Vec<f64> {
        let total = f64::from(popularity.cumulative[COUNT as usize - 1]);
        let before = |video: usize| video.checked_sub(1).map_or(0, |v| popularity.cumulative[v]);
        let share = |video: usize| f64::from(popularity.cumulative[video] - before(video)) / total;
        (0..COUNT as usize).map(share).collect()
    }

    #[test]
    fn one_video_is_the_talk_of_the_town_for_forty_seconds() {
        let mut popularity = Popularity::new(7, COUNT);
        let mut leaders = Vec::new();
        for second in (0..400).step_by(TALK_LASTS_S as usize) {
            popularity.move_to(second * 1000 + 500);
            let shares = shares(&popularity);
            let leads = |a: &usize, b: &usize| shares[*a].total_cmp(&shares[*b]);
            let leader = (0..shares.len()).max_by(leads).unwrap_or(0);
            assert!((0.15..0.22).contains(&shares[leader]), "{}", shares[leader]);
            leaders.push(leader);
        }
        leaders.dedup();
        assert!(leaders.len() >= 9, "{leaders:?}");
    }

    /// The least popular one, too, and whatever the moment.
    #[test]
    fn what_is_in_the_news_is_looked_for() {
        let mut popularity = Popularity::new(7, COUNT);
        for video in (0..COUNT).step_by(7) {
            let now_ms = i64::from(video) * 3_000;
            popularity.move_to(now_ms);
            let before = shares(&popularity)[video as usize];
            popularity.raise(video, 20, now_ms, now_ms + 1_000);
            let during = shares(&popularity)[video as usize];
            assert!(during > 0.04 && during > 1.7 * before, "{video}: {before} to {during}");
            popularity.move_to(now_ms + 1_000);
            assert!(shares(&popularity)[video as usize] < during / 1.7, "{video}");
        }
    }

    #[test]
    fn each_video_has_a_place_of_its_own_and_some_are_popular() {
        let mut ranks: Vec<u32> = (0..COUNT).map(|video| video * STRIDE % COUNT).collect();
        ranks.sort_unstable();
        assert!(ranks.iter().copied().eq(0..COUNT));
        let popularity = Popularity::new(7, COUNT);
        let mut shares = shares(&popularity);
        shares.sort_by(f64::total_cmp);
        let (lowest, highest) = (shares[0], shares[COUNT as usize - 2]);
        assert!(highest > 8.0 * lowest, "{lowest} to {highest}");
        assert!(lowest > 0.0);
    }
}
