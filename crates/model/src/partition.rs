//! Partitioners: which lane a request belongs to.
//!
//! Both topics must use the same one, or a request's impressions and plays end in different lanes
//! and never meet.

/// A documented function from a request id to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Kafka's Java client (and most others): 32-bit murmur2 with its seed, sign bit cleared.
    Murmur2,
    /// librdkafka's default for records with a key (`consistent`, `consistent_random`): CRC-32 as
    /// zlib computes it.
    Crc32,
}

impl Partitioner {
    /// All there are.
    pub const ALL: [Partitioner; 2] = [Partitioner::Murmur2, Partitioner::Crc32];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
        }
    }
}

/// The lane of a request: `partitioner(request id) mod lanes`.
#[inline]
pub fn lane_of(partitioner: Partitioner, request_id: &[u8], lanes: u32) -> u32 {
    debug_assert!(lanes > 0, "a generation has at least one lane");
    match partitioner {
        Partitioner::Murmur2 => (murmur2(request_id) & 0x7fff_ffff) % lanes,
        Partitioner::Crc32 => crc32fast::hash(request_id) % lanes,
    }
}

/// 32-bit MurmurHash2 as Kafka's `org.apache.kafka.common.utils.Utils.murmur2` computes it
/// (seed 0x9747b28c, little-endian words).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * place);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_values_published_in_kafkas_own_test() {
        // UtilsTest.testMurmur2 of Apache Kafka.
        for (text, expected) in [
            ("21", -973932308_i32),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn crc32_is_that_of_zlib() {
        // The check value of CRC-32/ISO-HDLC, 0xcbf43926 for these digits.
        assert_eq!(lane_of(Partitioner::Crc32, b"123456789", 1000), 0xcbf4_3926 % 1000);
        assert_eq!(lane_of(Partitioner::Crc32, b"", 7), 0);
    }
}
