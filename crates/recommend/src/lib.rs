//! Ranking: what was counted lately in, an order with scores out.
//!
//! It stands behind the store and before the page, knows neither, and keeps nothing: the same counts
//! give the same order. What ranks is a [`Ranking`]; today there is one, a smoothed take rate.
//!
//! # The smoothed take rate
//!
//! A video that was shown twice and played once is not better than one that was shown a thousand times
//! and played four hundred times. So each rate is drawn to the mean of all, as if the video had been
//! shown `prior` times more with just that rate:
//!
//! ```text
//! score = (plays + prior * mean) / (impressions + prior)
//! ```
//!
//! This is the posterior mean of a binomial rate under a beta distribution with that mean and weight
//! (Gelman and others, *Bayesian Data Analysis*, 3rd edition, 2.4; the mean taken from the data, as
//! empirical Bayes does: Robbins 1956).

use std::collections::HashMap;

/// What was counted of one video lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests that showed it.
    pub impressions: u64,
    /// Requests that played it.
    pub plays: u64,
}

impl Counted {
    /// Plays for each impression; `None` where nothing was shown.
    fn rate(self) -> Option<f64> {
        (self.impressions > 0).then(|| self.plays as f64 / self.impressions as f64)
    }
}

/// Counts by video: of one slice, over the epochs that matter now.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    videos: HashMap<String, Counted>,
    all: Counted,
}

impl Recent {
    /// Adds what one cell has counted.
    pub fn add(&mut self, video: &str, counted: Counted) {
        let add = |to: &mut Counted| {
            to.impressions += counted.impressions;
            to.plays += counted.plays;
        };
        add(&mut self.all);
        match self.videos.get_mut(video) {
            Some(of_video) => add(of_video),
            None => drop(self.videos.insert(video.to_owned(), counted)),
        }
    }

    /// What was counted of a video.
    pub fn of(&self, video: &str) -> Counted {
        self.videos.get(video).copied().unwrap_or_default()
    }

    /// Plays for each impression, of all videos; `None` where nothing was shown.
    pub fn mean(&self) -> Option<f64> {
        self.all.rate()
    }
}

/// How candidates are put in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ranking {
    /// By take rate, drawn to the mean of all videos.
    SmoothedTakeRate {
        /// By so many impressions.
        prior: f64,
    },
}

/// One candidate in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The video.
    pub video: String,
    /// What it was put there by; larger is better.
    pub score: f64,
    /// The probability with which it stands there: 1 where nothing is left to chance.
    pub propensity: f64,
    /// What was counted of it.
    pub counted: Counted,
}

impl Ranking {
    /// What a video of which so much was counted is put in its place by.
    pub fn score(self, recent: &Recent, counted: Counted) -> f64 {
        let mean = recent.mean().unwrap_or(0.0);
        match self {
            Ranking::SmoothedTakeRate { prior } => {
                let shown = counted.impressions as f64 + prior;
                if shown > 0.0 { (counted.plays as f64 + prior * mean) / shown } else { mean }
            }
        }
    }

    /// Candidates in order, the best first; a candidate that is named twice stands once. Those that are
    /// equal stand in the order of their names.
    pub fn rank(self, recent: &Recent, candidates: Vec<String>) -> Vec<Ranked> {
        let ranked = |video: String| {
            let counted = recent.of(&video);
            Ranked { video, score: self.score(recent, counted), propensity: 1.0, counted }
        };
        let mut ranked: Vec<Ranked> = candidates.into_iter().map(ranked).collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.video.cmp(&b.video)));
        ranked.dedup_by(|a, b| a.video == b.video);
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANKING: Ranking = Ranking::SmoothedTakeRate { prior: 50.0 };

    fn recent(counts: &[(&str, u64, u64)]) -> Recent {
        let mut recent = Recent::default();
        for (video, impressions, plays) in counts {
            recent.add(video, Counted { impressions: *impressions, plays: *plays });
        }
        recent
    }

    fn order(recent: &Recent, candidates: &[&str]) -> Vec<String> {
        let candidates = candidates.iter().map(|video| (*video).to_owned()).collect();
        RANKING.rank(recent, candidates).into_iter().map(|ranked| ranked.video).collect()
    }

    #[test]
    fn few_impressions_prove_little() {
        let recent = recent(&[("lucky", 2, 1), ("loved", 1_000, 400), ("shown", 1_000, 50)]);
        assert_eq!(
            order(&recent, &["lucky", "shown", "loved", "new"]),
            ["loved", "lucky", "new", "shown"]
        );
        let ranked = RANKING.rank(&recent, vec!["new".into()]);
        assert_eq!(ranked[0].score, recent.mean().unwrap_or_default(), "nobody knows better");
    }

    #[test]
    fn nothing_counted_is_an_order_too() {
        assert_eq!(order(&Recent::default(), &["b", "a", "b"]), ["a", "b"]);
    }

    #[test]
    fn epochs_add_up() {
        let recent = recent(&[("v", 10, 1), ("v", 30, 3), ("w", 0, 2)]);
        assert_eq!(recent.of("v"), Counted { impressions: 40, plays: 4 });
        assert_eq!(recent.mean(), Some(6.0 / 40.0));
    }

    proptest! {
        #[test]
        fn a_play_never_lowers_a_video_and_scores_lie_between_rate_and_mean(
            counts in proptest::collection::vec((0..2_000_u64, 0..100_u64), 1..20),
        ) {
            let names: Vec<String> = (0..counts.len()).map(|n| format!("v{n:02}")).collect();
            let mut recent = Recent::default();
            for (name, (more, plays)) in names.iter().zip(&counts) {
                recent.add(name, Counted { impressions: plays + more, plays: *plays });
            }
            let Some(mean) = recent.mean() else { return Ok(()) };
            let before = RANKING.rank(&recent, names.clone());
            for ranked in &before {
                let rate = ranked.counted.rate().unwrap_or(mean);
                let (low, high) = (rate.min(mean), rate.max(mean));
                prop_assert!((low - 1e-12..=high + 1e-12).contains(&ranked.score));
            }
            // No other one gains more by it: nothing that was behind comes before it.
            let gain = |before: &[Ranked], after: &[Ranked], video: &str| {
                let score = |of: &[Ranked]| of.iter().find(|r| r.video == video).map(|r| r.score);
                score(after).zip(score(before)).map_or(0.0, |(after, before)| after - before)
            };
            recent.add("v00", Counted { impressions: 0, plays: 1 });
            let after = RANKING.rank(&recent, names.clone());
            let own = gain(&before, &after, "v00");
            for name in &names {
                prop_assert!(gain(&before, &after, name) <= own + 1e-12, "{name} gains more");
            }
        }
    }
}
