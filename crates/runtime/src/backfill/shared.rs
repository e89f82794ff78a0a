//! Symbols that all threads share, with a copy of what each thread has met in the thread.

use hashbrown::HashMap;
use marquee_model::RequestKey;
use marquee_pipeline::symbols::Symbols;
use std::sync::Mutex;

/// Used in no particular epoch: a backfill keeps its symbols until it ends.
pub(super) const FOR_EVER: i64 = i64::MAX;

/// The numbers that all threads agree on.
pub(super) struct SharedSymbols {
    symbols: Mutex<Symbols>,
    seed: u64,
    groupings: usize,
    /// Texts of request ids that are no UUIDs, where members are wanted.
    texts: Mutex<HashMap<RequestKey, Box<str>>>,
}

/// Symbols that do not change any more.
pub(super) struct Frozen {
    pub(super) symbols: Symbols,
    pub(super) texts: HashMap<RequestKey, Box<str>>,
}

impl SharedSymbols {
    pub(super) fn new(seed: u64, groupings: usize) -> Self {
        SharedSymbols {
            symbols: Mutex::new(Symbols::new(seed, groupings)),
            seed,
            groupings,
            texts: Mutex::default(),
        }
    }

    pub(super) fn into_inner(self) -> Frozen {
        Frozen {
            symbols: self.symbols.into_inner().unwrap_or_else(|e| e.into_inner()),
            texts: self.texts.into_inner().unwrap_or_else(|e| e.into_inner()),
        }
    }

    /// Remembers the text of a request id that cannot be written again from its key.
    pub(super) fn remember(&self, request: RequestKey, text: &str) {
        let mut texts = self.texts.lock().unwrap_or_else(|e| e.into_inner());
        texts.entry(request).or_insert_with(|| text.into());
    }

    /// One thread's view.
    pub(super) fn local(&self) -> LocalSymbols<'_> {
        LocalSymbols {
            shared: self,
            local: Symbols::new(self.seed, self.groupings),
            videos: Vec::new(),
            tuples: Vec::new(),
            recent: vec![Recent::default(); RECENT],
        }
    }
}

/// How many videos a thread finds without a search. A power of two.
const RECENT: usize = 16_384;

/// A video that was met lately: its text in two words, and its shared number.
#[derive(Clone, Copy, Default)]
struct Recent {
    words: [u64; 2],
    /// Length of the text; 0, which no video has, where nothing was met.
    len: u32,
    number: u32,
}

impl Recent {
    /// The words of a text of 1 to 16 bytes, which with its length are the text.
    #[inline(always)]
    fn words(text: &[u8]) -> Option<[u64; 2]> {
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            let words = [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
            return (text.len() <= 16).then_some(words);
        }
        match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => Some([four(first), four(last)]),
            _ => {
                let middle = *text.get(text.len() / 2)?;
                Some([u64::from(text[0]) | u64::from(middle) << 8, u64::from(*text.last()?)])
            }
        }
    }

    #[inline(always)]
    fn place(words: [u64; 2]) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (words[0].wrapping_mul(ODD) ^ words[1]).wrapping_mul(ODD);
        // Only the highest bits depend on every byte of a text.
        (mixed >> (u64::BITS - RECENT.ilog2())) as usize
    }
}

/// Numbers of one thread, and the shared number of each.
pub(super) struct LocalSymbols<'s> {
    shared: &'s SharedSymbols,
    local: Symbols,
    videos: Vec<u32>,
    tuples: Vec<u32>,
    /// By the hash of their text.
    recent: Vec<Recent>,
}

impl LocalSymbols<'_> {
    /// The shared number of a video.
    #[inline]
    pub(super) fn video(&mut self, text: &str) -> u32 {
        let Some(words) = Recent::words(text.as_bytes()) else { return self.find_video(text) };
        let (place, len) = (Recent::place(words), text.len() as u32);
        let found = self.recent[place];
        if found.words == words && found.len == len {
            return found.number;
        }
        let number = self.find_video(text);
        self.recent[place] = Recent { words, len, number };
        number
    }

    fn find_video(&mut self, text: &str) -> u32 {
        let local = self.local.videos.intern(text.as_bytes(), FOR_EVER) as usize;
        if local == self.videos.len() {
            let mut shared = self.shared.symbols.lock().unwrap_or_else(|e| e.into_inner());
            self.videos.push(shared.videos.intern(text.as_bytes(), FOR_EVER));
        }
        self.videos[local]
    }

    /// The shared number of a tuple that `make` makes in any symbols that it is given.
    #[inline]
    pub(super) fn tuple(&mut self, mut make: impl FnMut(&mut Symbols) -> u32) -> u32 {
        let local = make(&mut self.local) as usize;
        if local == self.tuples.len() {
            let mut shared = self.shared.symbols.lock().unwrap_or_else(|e| e.into_inner());
            self.tuples.push(make(&mut shared));
        }
        self.tuples[local]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_in_their_last_digits_have_places_of_their_own() {
        let place = |n: u32| Recent::place(Recent::words(n.to_string().as_bytes()).expect("short"));
        let places = (80_000_000..80_004_096).map(place).collect::<std::collections::BTreeSet<_>>();
        // By chance alone a ninth of 4,096 would share a place of 16,384.
        assert!(places.len() > 3_400, "{}", places.len());
    }

    #[test]
    fn texts_of_every_length_keep_their_numbers() {
        let shared = SharedSymbols::new(7, 1);
        let (mut one, mut other) = (shared.local(), shared.local());
        let mut numbers = std::collections::BTreeMap::new();
        // Texts that share their ends, and some that share a place among the recent ones.
        for round in 0..3 {
            for len in 1..40 {
                for changed in 0..len {
                    let mut text = vec![b'a'; len];
                    text[changed] = b'b';
                    let text = String::from_utf8(text).expect("it is ASCII");
                    let symbols = if (len + round) % 2 == 0 { &mut one } else { &mut other };
                    let number = symbols.video(&text);
                    assert_eq!(*numbers.entry(text).or_insert(number), number);
                }
            }
        }
        for number in 0..50_000 {
            assert_eq!(one.video(&number.to_string()), other.video(&number.to_string()));
        }
        let frozen = {
            drop((one, other));
            shared.into_inner()
        };
        for (text, number) in numbers {
            assert_eq!(frozen.symbols.video_text(number), text);
        }
    }
}
