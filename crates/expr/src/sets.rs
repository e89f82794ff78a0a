//! Sets of literals for `in`: fixed once, asked for every event.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Below this many a scan beats a hash.
const SCANNED_MAX: usize = 6;

/// A set of strings.
#[derive(Debug)]
pub(crate) enum TextSet {
    Scanned(Box<[Box<str>]>),
    Hashed(HashSet<Box<str>, BuildHasherDefault<TextHasher>>),
}

impl TextSet {
    pub(crate) fn new(texts: impl Iterator<Item = Box<str>>) -> Self {
        let texts: Box<[Box<str>]> = texts.collect();
        if texts.len() <= SCANNED_MAX {
            TextSet::Scanned(texts)
        } else {
            TextSet::Hashed(texts.into_iter().collect())
        }
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        match self {
            TextSet::Scanned(texts) => texts.iter().any(|member| **member == *text),
            TextSet::Hashed(texts) => texts.contains(text),
        }
    }
}

/// Eight bytes a step, multiply and rotate. The members come from the configuration and are never
/// added to, so an event cannot build collisions: a strong hash would buy nothing.
#[derive(Debug, Default)]
pub(crate) struct TextHasher(u64);

impl TextHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn finish(&self) -> u64 {
        // The map takes its buckets from the low bits and its tags from the high ones; the
        // product alone leaves the low ones poor.
        self.0 ^ (self.0 >> 32)
    }
}
