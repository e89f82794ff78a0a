//! How long after their impressions plays come: whether `within` is right.
//!
//! What a lane has found since it was begun, and not what it found again: a rebuild notes nothing.
//! A play is noted once, with the first impression that is found to match it, be that there before
//! or after it. These numbers are for who looks; no count depends on them.

use marquee_model::Kind;

/// Upper bounds of the delays that are told apart, in milliseconds; what is longer comes last.
pub const BOUNDS_MS: [i64; 20] = [
    0,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_200_000,
    1_800_000,
    3_600_000,
    7_200_000,
    14_400_000,
    28_800_000,
    86_400_000,
    259_200_000,
    604_800_000,
];

/// Events that were new, and how many plays found their impression, after which time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// New impressions.
    pub impressions: u64,
    /// New plays.
    pub plays: u64,
    /// Plays that found an impression, by the time from the impression to the play: how many took at
    /// most the bound in the same place of [`BOUNDS_MS`] (and longer than the one before it); those
    /// in the first place came before their impression, or with it.
    pub delays: [u64; BOUNDS_MS.len() + 1],
}

impl Matches {
    /// An event that was new.
    #[inline]
    pub(crate) fn note(&mut self, kind: Kind) {
        match kind {
            Kind::Impression => self.impressions += 1,
            Kind::Play => self.plays += 1,
        }
    }

    /// A play that has found its first impression, so long after that.
    #[inline]
    pub(crate) fn note_found(&mut self, after_ms: i64) {
        self.delays[BOUNDS_MS.partition_point(|bound| *bound < after_ms)] += 1;
    }

    /// Adds what another lane has found.
    pub fn add(&mut self, other: &Matches) {
        self.impressions += other.impressions;
        self.plays += other.plays;
        self.delays.iter_mut().zip(other.delays).for_each(|(all, more)| *all += more);
    }

    /// Plays that found an impression. May be more than [`plays`](Self::plays): some of them may have
    /// been new before a restart.
    pub fn found(&self) -> u64 {
        self.delays.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_in_the_place_of_the_first_bound_that_it_does_not_exceed() {
        let mut matches = Matches::default();
        for (after_ms, place) in [(-5, 0), (0, 0), (1, 1), (1000, 1), (1001, 2), (i64::MAX, 20)] {
            let before = matches.delays[place];
            matches.note_found(after_ms);
            assert_eq!(matches.delays[place], before + 1, "{after_ms}");
        }
        matches.note(Kind::Impression);
        matches.note(Kind::Play);
        assert_eq!((matches.impressions, matches.plays, matches.found()), (1, 1, 6));
        let mut all = matches;
        all.add(&matches);
        assert_eq!((all.impressions, all.plays, all.found()), (2, 2, 12));
    }
}
