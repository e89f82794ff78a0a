//! Small numbers in place of texts: videos, slices, and tuples of slices.
//!
//! The join compares and stores videos and slices millions of times a second, so each text gets a
//! number while some open epoch uses it. When an epoch goes, numbers that no open epoch uses go
//! with it and are given out again: without that, a year of new videos would stay in memory.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Texts and their numbers.
#[derive(Debug)]
pub struct Interner {
    hasher: FixedState,
    table: HashTable<Slot>,
    texts: Vec<Box<[u8]>>,
    /// Newest epoch in which each number was used; `i64::MIN` marks a number that is free.
    last_used: Vec<i64>,
    free: Vec<u32>,
    bytes: usize,
}

/// What the table holds of a text: short ones whole, so that finding one looks in one place only.
#[derive(Clone, Copy, Debug)]
struct Slot {
    ends: Ends,
    number: u32,
}

/// The first and the last bytes of a text, and its length: of one of at most 16 bytes, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    words: [u64; 2],
    len: u32,
}

impl Ends {
    #[inline(always)]
    fn of(text: &[u8]) -> Self {
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        let words = if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
        } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            [four(first), four(last)]
        } else {
            let byte = |at: usize| text.get(at).map_or(0, |byte| u64::from(*byte));
            [byte(0) | byte(1) << 8 | byte(2) << 16, 0]
        };
        Ends { words, len: text.len() as u32 }
    }

    fn is_whole(self) -> bool {
        self.len <= 16
    }
}

impl Interner {
    /// An empty one. The seed comes from the generation's secret, so that nobody can craft texts
    /// that collide.
    pub fn new(seed: u64) -> Self {
        Interner {
            hasher: FixedState::with_seed(seed),
            table: HashTable::new(),
            texts: Vec::new(),
            last_used: Vec::new(),
            free: Vec::new(),
            bytes: 0,
        }
    }

    /// The number of a text that is in use until `epoch` has gone.
    #[inline]
    pub fn intern(&mut self, text: &[u8], epoch: i64) -> u32 {
        let ends = Ends::of(text);
        let hash = self.hash(ends, text);
        if let Some(number) = self.find(hash, ends, text) {
            let last = &mut self.last_used[number as usize];
            if *last < epoch {
                *last = epoch;
            }
            return number;
        }
        self.insert(hash, ends, text, epoch)
    }

    #[inline(always)]
    fn hash(&self, ends: Ends, text: &[u8]) -> u64 {
        match ends.is_whole() {
            true => self.hasher.hash_one((ends.words, ends.len)),
            false => self.hasher.hash_one(text),
        }
    }

    #[inline]
    fn find(&self, hash: u64, ends: Ends, text: &[u8]) -> Option<u32> {
        let is_it = |slot: &Slot| {
            slot.ends == ends && (ends.is_whole() || &*self.texts[slot.number as usize] == text)
        };
        self.table.find(hash, is_it).map(|slot| slot.number)
    }

    /// The number of a text that is already known to be in use at `epoch`.
    #[inline]
    fn find_used(&self, text: &[u8], epoch: i64) -> Option<u32> {
        let ends = Ends::of(text);
        let number = self.find(self.hash(ends, text), ends, text)?;
        (self.last_used[number as usize] >= epoch).then_some(number)
    }

    #[cold]
    fn insert(&mut self, hash: u64, ends: Ends, text: &[u8], epoch: i64) -> u32 {
        self.bytes += text.len();
        let number = match self.free.pop() {
            Some(number) => {
                self.texts[number as usize] = text.into();
                self.last_used[number as usize] = epoch;
                number
            }
            None => {
                let number = u32::try_from(self.texts.len()).expect("fewer than 2^32 texts");
                self.texts.push(text.into());
                self.last_used.push(epoch);
                number
            }
        };
        let mut table = std::mem::take(&mut self.table);
        let hash_of = |slot: &Slot| self.hash(slot.ends, &self.texts[slot.number as usize]);
        table.insert_unique(hash, Slot { ends, number }, hash_of);
        self.table = table;
        number
    }

    /// The text of a number.
    #[inline]
    pub fn bytes_of(&self, number: u32) -> &[u8] {
        &self.texts[number as usize]
    }

    /// Frees every number that was last used before `oldest_epoch`.
    pub fn sweep(&mut self, oldest_epoch: i64) {
        for number in 0..self.last_used.len() {
            let last = self.last_used[number];
            if last == i64::MIN || last >= oldest_epoch {
                continue;
            }
            let text = &self.texts[number];
            let hash = self.hash(Ends::of(text), text);
            let is_it = |slot: &Slot| slot.number as usize == number;
            if let Ok(entry) = self.table.find_entry(hash, is_it) {
                entry.remove();
            }
            self.bytes -= self.texts[number].len();
            self.texts[number] = Box::default();
            self.last_used[number] = i64::MIN;
            self.free.push(number as u32);
        }
    }

    /// Every text in use with its number and the newest epoch that uses it, by number: for a
    /// snapshot.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = (u32, &[u8], i64)> {
        let texts = self.texts.iter().zip(&self.last_used).zip(0..);
        texts.filter(|((_, last), _)| **last != i64::MIN).map(|((t, last), n)| (n, &**t, *last))
    }

    /// Texts in use.
    pub fn len(&self) -> usize {
        self.texts.len() - self.free.len()
    }

    /// Whether no text is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes, allocator overhead not counted.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
            + self.texts.capacity() * 16
            + self.last_used.capacity() * 8
            + self.free.capacity() * 4
            + self.table.allocation_size()
    }
}

/// The symbols of one lane (or, in a backfill, of one thread).
#[derive(Debug)]
pub struct Symbols {
    /// Video ids after the transform.
    pub videos: Interner,
    /// Slices as compact JSON.
    pub slices: Interner,
    /// Tuples of slices, by the attribute values that make them.
    tuples: Interner,
    groupings: usize,
    /// The tuple of events whose slices no value decides, once there was one. It stays for ever.
    plain: Option<u32>,
    /// The slices of each tuple, flat: `groupings` numbers a tuple.
    flat: Vec<u32>,
}

impl Symbols {
    /// For a number of grouping sets.
    pub fn new(seed: u64, groupings: usize) -> Self {
        Symbols {
            videos: Interner::new(seed),
            slices: Interner::new(seed),
            tuples: Interner::new(seed),
            groupings,
            plain: None,
            flat: Vec::new(),
        }
    }

    /// The tuple of an event. `values` are the bytes of all attribute values that slices use;
    /// `write_slice` writes the JSON text of one grouping set's slice, and is asked only where
    /// these values are new in this epoch.
    #[inline]
    pub fn tuple(
        &mut self,
        values: &[u8],
        epoch: i64,
        write_slice: impl FnMut(usize, &mut Vec<u8>),
    ) -> u32 {
        match self.tuples.find_used(values, epoch) {
            Some(tuple) => tuple,
            None => self.insert_tuple(values, epoch, write_slice),
        }
    }

    /// The tuple of an event whose slices no value decides.
    #[inline]
    pub fn plain_tuple(&mut self) -> u32 {
        if let Some(tuple) = self.plain {
            return tuple;
        }
        let tuple = self.tuple(&[], i64::MAX, |_, _| {});
        self.plain = Some(tuple);
        tuple
    }

    #[cold]
    fn insert_tuple(
        &mut self,
        values: &[u8],
        epoch: i64,
        mut write_slice: impl FnMut(usize, &mut Vec<u8>),
    ) -> u32 {
        let tuple = self.tuples.intern(values, epoch);
        let start = tuple as usize * self.groupings;
        if self.flat.len() < start + self.groupings {
            self.flat.resize(start + self.groupings, 0);
        }
        let mut text = Vec::new();
        for grouping in 0..self.groupings {
            text.clear();
            write_slice(grouping, &mut text);
            self.flat[start + grouping] = self.slices.intern(&text, epoch);
        }
        tuple
    }

    /// The slices of a tuple, in the order of the grouping sets.
    #[inline]
    pub fn slices_of(&self, tuple: u32) -> &[u32] {
        let start = tuple as usize * self.groupings;
        &self.flat[start..start + self.groupings]
    }

    /// Text of a video. Videos are interned from `str`s.
    pub fn video_text(&self, video: u32) -> &str {
        std::str::from_utf8(self.videos.bytes_of(video)).expect("videos are interned from str")
    }

    /// Text of a slice. Slices are interned from `str`s.
    pub fn slice_text(&self, slice: u32) -> &str {
        std::str::from_utf8(self.slices.bytes_of(slice)).expect("slices are interned from str")
    }

    /// Frees what no epoch at or after `oldest_epoch` uses.
    pub fn sweep(&mut self, oldest_epoch: i64) {
        self.videos.sweep(oldest_epoch);
        self.tuples.sweep(oldest_epoch);
        self.slices.sweep(oldest_epoch);
    }

    /// Every tuple in use: number, values, newest epoch. For a snapshot.
    pub(crate) fn tuples_in_use(&self) -> impl Iterator<Item = (u32, &[u8], i64)> {
        self.tuples.in_use()
    }

    /// Takes a tuple from a snapshot and returns its number.
    pub(crate) fn load_tuple(&mut self, values: &[u8], epoch: i64, slices: &[u32]) -> u32 {
        let tuple = self.tuples.intern(values, epoch);
        self.flat.truncate(tuple as usize * self.groupings);
        self.flat.extend_from_slice(slices);
        tuple
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.videos.memory_bytes()
            + self.slices.memory_bytes()
            + self.tuples.memory_bytes()
            + self.flat.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_an_epoch_uses_it() {
        let mut videos = Interner::new(1);
        let (a, b) = (videos.intern(b"a", 1), videos.intern(b"b", 2));
        assert_eq!(videos.intern(b"a", 3), a);
        videos.sweep(3);
        assert_eq!((videos.len(), videos.bytes_of(a)), (1, &b"a"[..]));
        assert_eq!(videos.intern(b"c", 3), b, "the freed number is given out again");
        assert_ne!(videos.intern(b"b", 3), b);
    }

    #[test]
    fn texts_that_share_their_ends_and_their_length_are_told_apart() {
        let mut videos = Interner::new(1);
        let mut numbers = std::collections::HashMap::new();
        for _ in 0..2 {
            for len in 0..40 {
                for changed in 0..=len {
                    for byte in [0, b'b'] {
                        let mut text = vec![b'a'; len];
                        if let Some(place) = text.get_mut(changed) {
                            *place = byte;
                        }
                        let number = videos.intern(&text, 1);
                        assert_eq!(*numbers.entry(text).or_insert(number), number);
                    }
                }
            }
        }
        assert_eq!(videos.len(), numbers.len());
        for (text, number) in numbers {
            assert_eq!(videos.bytes_of(number), text);
        }
    }

    #[test]
    fn a_tuple_that_takes_a_freed_number_has_its_own_slices() {
        let mut symbols = Symbols::new(1, 2);
        let write = |values: &'static [u8]| {
            move |grouping: usize, out: &mut Vec<u8>| out.push(values[grouping])
        };
        let old = symbols.tuple(b"xy", 1, write(b"xy"));
        symbols.sweep(2);
        let new = symbols.tuple(b"pq", 2, write(b"pq"));
        assert_eq!(old, new);
        let texts: Vec<_> = symbols.slices_of(new).iter().map(|s| symbols.slice_text(*s)).collect();
        assert_eq!(texts, ["p", "q"]);
    }
}
