//! Request ids and the 16 bytes that stand for them in memory.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Request and video ids are 1 to this many bytes long.
pub const MAX_ID_BYTES: usize = 1024;

/// What the state keeps of a request id: a canonical lower-case UUID's own 16 bytes, or a keyed
/// 128-bit hash of any other text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub u128);

/// Turns request ids into keys. The hash key belongs to the generation and is drawn at random
/// when that is created, so that nobody can craft ids that collide.
#[derive(Clone, Copy, Debug)]
pub struct RequestHasher {
    key: [u8; 16],
}

impl RequestHasher {
    /// With the generation's secret key.
    pub fn new(key: [u8; 16]) -> Self {
        RequestHasher { key }
    }

    /// The key of a request id.
    #[inline]
    pub fn key_of(&self, request_id: &str) -> RequestKey {
        match parse_uuid(request_id.as_bytes()) {
            Some(uuid) => RequestKey(uuid),
            None => self.hash(request_id),
        }
    }

    /// The same, and whether the key is the id itself: that of a canonical UUID.
    #[inline]
    pub fn key_and_is_uuid(&self, request_id: &str) -> (RequestKey, bool) {
        match parse_uuid(request_id.as_bytes()) {
            Some(uuid) => (RequestKey(uuid), true),
            None => (self.hash(request_id), false),
        }
    }

    #[cold]
    fn hash(&self, request_id: &str) -> RequestKey {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(request_id.as_bytes());
        RequestKey(hasher.finish128().as_u128())
    }
}

/// The 16 bytes of a UUID in its canonical lower-case form (8-4-4-4-12), big-endian; `None` for
/// every other text. Only the canonical form, so that the text can be written again from the bytes.
#[inline]
pub fn parse_uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
        return None;
    }
    // The 32 digits, side by side: with lengths that the compiler knows there is no check left.
    let mut digits = [0_u8; 32];
    digits[..8].copy_from_slice(&text[..8]);
    digits[8..12].copy_from_slice(&text[9..13]);
    digits[12..16].copy_from_slice(&text[14..18]);
    digits[16..20].copy_from_slice(&text[19..23]);
    digits[20..].copy_from_slice(&text[24..]);
    // Without a table and without a branch, so that all digits are computed at once: a letter is
    // nine more than its low four bits. A byte that is no digit would not be written as it stands.
    let mut values = [0_u8; 32];
    let mut bad = 0_u8;
    for (value, byte) in values.iter_mut().zip(digits) {
        *value = (byte & 0x0f).wrapping_add(if byte & 0x40 != 0 { 9 } else { 0 });
        let written = value.wrapping_add(if *value > 9 { b'a' - 10 } else { b'0' });
        bad |= (written ^ byte) | (*value & 0xf0);
    }
    let mut bytes = [0_u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(values.as_chunks::<2>().0) {
        *byte = pair[0] << 4 | pair[1];
    }
    (bad == 0).then(|| u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_is_a_uuid() {
        let canonical = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(parse_uuid(canonical.as_bytes()), Some(0x0123456789abcdef0123456789abcdef));
        for other in [
            "",
            "01234567-89AB-cdef-0123-456789abcdef",
            "0123456789abcdef0123456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdeg",
            "01234567-89ab-cdef-0123_456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdef0",
            "{1234567-89ab-cdef-0123-456789abcde}",
        ] {
            assert_eq!(parse_uuid(other.as_bytes()), None, "{other}");
        }
        for place in 0..36 {
            for byte in 0..=u8::MAX {
                let mut text = *b"01234567-89ab-cdef-0123-456789abcdef";
                text[place] = byte;
                let is_dash = matches!(place, 8 | 13 | 18 | 23);
                let is_digit = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                let is_uuid = if is_dash { byte == b'-' } else { is_digit };
                assert_eq!(parse_uuid(&text).is_some(), is_uuid, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn another_generation_hashes_other_ids_to_other_keys() {
        let (one, two) = (RequestHasher::new([1; 16]), RequestHasher::new([2; 16]));
        assert_ne!(one.key_of("home-1"), two.key_of("home-1"));
        assert_eq!(one.key_of("home-1"), one.key_of("home-1"));
    }

    proptest! {
        #[test]
        fn a_canonical_uuid_keeps_its_value(value: u128) {
            let hex = format!("{value:032x}");
            let text = format!("{}-{}-{}-{}-{}",
                &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
            prop_assert_eq!(parse_uuid(text.as_bytes()), Some(value));
        }
    }
}
