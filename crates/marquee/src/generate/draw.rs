//! Random words and the distributions that are made of them, pinned for ever.
//!
//! The words are the key stream of ChaCha8 (Bernstein, *ChaCha, a variant of Salsa20*, 2008), which
//! its definition fixes. Everything above them is written here, because libraries may change how
//! they make a range or a normal number out of words, and logarithms come from `libm` rather than
//! from `std`, because the latter calls the platform's. Nothing here is secret or secure.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// 2^-53: the distance of two neighbours of [`Draw::unit`].
const UNIT_STEP: f64 = 1.0 / (1_u64 << 53) as f64;
/// Where a Poisson draw ends in any case, so that positions fit a byte. With a mean of 6 no draw
/// will ever come here.
const POISSON_MAX: u32 = 250;

/// One stream of random words.
pub(super) struct Draw {
    words: ChaCha8Rng,
}

impl Draw {
    /// The stream of one thing, by what it is (`purpose`), the user's seed, and its number.
    pub(super) fn new(purpose: &[u8; 16], seed: u64, number: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..24].copy_from_slice(purpose);
        let mut words = ChaCha8Rng::from_seed(key);
        words.set_stream(number);
        Draw { words }
    }

    /// The next 32 bits.
    pub(super) fn word(&mut self) -> u32 {
        self.words.next_u32()
    }

    fn bits53(&mut self) -> u64 {
        let low = u64::from(self.word());
        let high = u64::from(self.word());
        (high << 32 | low) >> 11
    }

    /// Uniform in `0..n`, without bias. `n` must not be 0.
    ///
    /// Lemire, *Fast Random Integer Generation in an Interval*, ACM TOMACS 29 (2019), algorithm 5.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        debug_assert!(n > 0, "an empty range has no member to draw");
        let mut product = u64::from(self.word()) * u64::from(n);
        if (product as u32) < n {
            let unfair = n.wrapping_neg() % n;
            while (product as u32) < unfair {
                product = u64::from(self.word()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// Uniform in `low..=high`, in whatever unit they are.
    pub(super) fn between(&mut self, low: u32, high: u32) -> i64 {
        i64::from(low + self.below(high - low + 1))
    }

    /// True `per_mille` times of a thousand.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub(super) fn unit(&mut self) -> f64 {
        self.bits53() as f64 * UNIT_STEP
    }

    /// Normal with mean 0 and deviation 1.
    ///
    /// Box and Muller, *A Note on the Generation of Random Normal Deviates*, Annals of
    /// Mathematical Statistics 29 (1958); only the cosine of the pair is used.
    fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.unit())
    }

    /// e to the power of a normal number with this mean and deviation; the median is e^mean.
    pub(super) fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        libm::exp(mean + deviation * self.normal())
    }

    /// A random UUID of version 4 (RFC 9562, section 5.4).
    pub(super) fn uuid(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for part in bytes.chunks_exact_mut(4) {
            part.copy_from_slice(&self.word().to_le_bytes());
        }
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}

/// The Poisson distribution of one mean.
pub(super) struct Poisson {
    /// e^-mean.
    limit: f64,
}

impl Poisson {
    pub(super) fn new(mean: f64) -> Self {
        Poisson { limit: libm::exp(-mean) }
    }

    /// Counts uniform numbers until their product falls to e^-mean.
    ///
    /// Knuth, *The Art of Computer Programming*, volume 2, 3.4.1, algorithm Q.
    pub(super) fn draw(&self, draw: &mut Draw) -> u32 {
        let (mut count, mut product) = (0, draw.unit());
        while product > self.limit && count < POISSON_MAX {
            count += 1;
            product *= draw.unit();
        }
        count
    }
}

/// Ranks 1 to n with a probability in proportion to rank^-exponent (Zipf's law), by inversion.
pub(super) struct Zipf {
    /// For each rank, the share of it and all before it, in 2^-53; the last is the whole.
    cumulative: Vec<u64>,
}

impl Zipf {
    pub(super) fn new(ranks: u32, exponent: f64) -> Self {
        let weights = (1..=ranks).map(|rank| libm::pow(f64::from(rank), -exponent));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        let sums: Vec<f64> = sums.collect();
        let total = sums.last().copied().unwrap_or(1.0);
        let cumulative = sums.iter().map(|sum| (sum / total / UNIT_STEP) as u64).collect();
        Zipf { cumulative }
    }

    /// A rank, from 1 on.
    pub(super) fn draw(&self, draw: &mut Draw) -> u32 {
        let place = draw.bits53();
        self.cumulative.partition_point(|share| *share <= place) as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Draw {
        Draw::new(b"marquee/test/1\0\0", 7, 1)
    }

    fn mean(count: u32, mut value: impl FnMut() -> f64) -> f64 {
        (0..count).map(|_| value()).sum::<f64>() / f64::from(count)
    }

    #[test]
    fn a_stream_is_the_key_stream_of_chacha8() {
        // Key and stream 0: the first words of ChaCha8 with key 0, nonce 0, as published by
        // Strombergson, draft-strombergson-chacha-test-vectors-01, TC1 (256 bits, 8 rounds).
        let mut draw = Draw::new(&[0; 16], 0, 0);
        let words: Vec<u32> = (0..4).map(|_| draw.word()).collect();
        assert_eq!(words, [0x2fef003e, 0xd6405f89, 0xe8b85b7f, 0xa1a5091f]);
    }

    #[test]
    fn whole_numbers_are_uniform_and_stay_in_range() {
        let mut draw = stream();
        let mut seen = [0_u32; 7];
        (0..70_000).for_each(|_| seen[draw.below(7) as usize] += 1);
        assert!(seen.iter().all(|count| (9_600..10_400).contains(count)), "{seen:?}");
        assert_eq!(draw.below(1), 0);
        // Half of the words are unfair here and must be drawn again.
        let half = mean(20_000, || f64::from(draw.below(0x8000_0001)) / f64::from(0x8000_0000_u32));
        assert!((half - 0.5).abs() < 0.01, "{half}");
        assert!((0..1000).all(|_| (200..=203).contains(&draw.between(200, 203))));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut draw = stream();
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 0.03 * expected.max(1.0), "{found} {expected}");
        };
        close(mean(50_000, || draw.normal()), 0.0);
        close(mean(50_000, || draw.normal().powi(2)), 1.0);
        close(mean(50_000, || draw.log_normal(1.0, 0.5)), 3.080);
        let poisson = Poisson::new(6.0);
        close(mean(50_000, || f64::from(poisson.draw(&mut draw))), 6.0);
        close(mean(50_000, || (f64::from(poisson.draw(&mut draw)) - 6.0).powi(2)), 6.0);
    }

    #[test]
    fn zipf_follows_its_law_to_the_last_rank() {
        let zipf = Zipf::new(10_000, 1.05);
        assert_eq!(zipf.cumulative.last(), Some(&(1 << 53)));
        let mut draw = stream();
        let mut seen = vec![0_u32; 10_001];
        (0..200_000).for_each(|_| seen[zipf.draw(&mut draw) as usize] += 1);
        assert_eq!(seen[0], 0);
        let ratio = f64::from(seen[1]) / f64::from(seen[2]);
        assert!((ratio / 2_f64.powf(1.05) - 1.0).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn ids_are_of_version_4() {
        let id = stream().uuid();
        assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2));
    }
}
