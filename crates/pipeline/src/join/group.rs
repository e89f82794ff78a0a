//! The facts of one epoch, by request.
//!
//! Layout: a hash table of 24-byte entries (16 bytes of request key, place and number of facts)
//! and one arena of 12-byte facts. The facts of an entry lie side by side in a region whose size
//! is a power of two; a region that has become too small goes to a free list and is used again.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};
use marquee_model::RequestKey;
use std::hash::BuildHasher;

/// An impression, or the memory that a play was counted with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    /// Number of the video.
    pub(super) video: u32,
    /// Event time, milliseconds after the start of the group's epoch.
    pub(super) offset_ms: u32,
    /// `tuple << 2 | flags`.
    tag: u32,
}

/// The impression matches a play.
const JOINED: u32 = 1;
/// No impression: it records that a play of `video` is a member in the cohort of an impression
/// with this offset and tuple. Needed only where video and impression may differ
/// (`match = "request"`).
const PLAY_MEMBER: u32 = 2;

impl Fact {
    pub(super) fn impression(video: u32, offset_ms: u32, tuple: u32) -> Self {
        debug_assert!(tuple < 1 << 30, "fewer than 2^30 tuples of slices are in use");
        Fact { video, offset_ms, tag: tuple << 2 }
    }

    pub(super) fn play_member(video: u32, cohort: Fact) -> Self {
        Fact { video, offset_ms: cohort.offset_ms, tag: cohort.tuple() << 2 | PLAY_MEMBER }
    }

    pub(super) fn tuple(self) -> u32 {
        self.tag >> 2
    }

    pub(super) fn is_joined(self) -> bool {
        self.tag & JOINED != 0
    }

    pub(super) fn is_impression(self) -> bool {
        self.tag & PLAY_MEMBER == 0
    }

    /// Whether both are the same impression, joined or not.
    pub(super) fn is_same_impression(self, other: Fact) -> bool {
        self.identity() == other.identity()
    }

    fn identity(self) -> Fact {
        Fact { tag: self.tag & !JOINED, ..self }
    }
}

/// A request in this epoch. 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    request: [u64; 2],
    start: u32,
    len: u32,
}

/// An entry, until the next call of [`Group::entry`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle(usize);

/// From this many facts on an entry has an index: a client that sends one id for everybody would
/// otherwise cost a scan of all its facts with every event.
const HEAVY: u32 = 64;

/// Index of an entry with many facts.
#[derive(Debug, Default)]
struct Heavy {
    /// Identities of all its facts.
    known: HashSet<Fact, FixedState>,
    /// Places of the facts of each video. Only ever looked up, never iterated.
    by_video: HashMap<u32, Vec<u32>, FixedState>,
    impressions: usize,
    /// Impressions that match no play yet.
    unjoined: usize,
}

/// The facts of one epoch.
#[derive(Debug)]
pub(super) struct Group {
    hasher: FixedState,
    entries: HashTable<Entry>,
    facts: Vec<Fact>,
    /// Free regions by the logarithm of their size.
    free: Vec<Vec<u32>>,
    heavy: HashMap<[u64; 2], Heavy, FixedState>,
}

impl Group {
    pub(super) fn new(seed: u64) -> Self {
        Group {
            hasher: FixedState::with_seed(seed),
            entries: HashTable::new(),
            facts: Vec::new(),
            free: Vec::new(),
            heavy: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// The entry of a request, made if there is none.
    #[inline]
    pub(super) fn entry(&mut self, request: RequestKey) -> Handle {
        let words = words_of(request);
        let hasher = &self.hasher;
        let entry = self
            .entries
            .entry(hasher.hash_one(words), |e| e.request == words, |e| hasher.hash_one(e.request))
            .or_insert(Entry { request: words, start: 0, len: 0 });
        Handle(entry.bucket_index())
    }

    /// The entry of a request, if it has one.
    #[inline]
    pub(super) fn find(&self, request: RequestKey) -> Option<Handle> {
        let words = words_of(request);
        self.entries
            .find_bucket_index(self.hasher.hash_one(words), |e| e.request == words)
            .map(Handle)
    }

    #[inline]
    fn entry_of(&self, handle: Handle) -> Entry {
        *self.entries.get_bucket(handle.0).expect("no entry was made since the handle was")
    }

    /// All facts of an entry.
    #[inline]
    pub(super) fn facts(&self, handle: Handle) -> &[Fact] {
        let entry = self.entry_of(handle);
        &self.facts[entry.start as usize..(entry.start + entry.len) as usize]
    }

    /// Whether the same impression is there.
    #[inline]
    pub(super) fn has(&self, handle: Handle, fact: Fact) -> bool {
        let entry = self.entry_of(handle);
        if entry.len < HEAVY {
            return self.facts(handle).iter().any(|f| f.is_same_impression(fact));
        }
        self.heavy_of(entry).known.contains(&fact.identity())
    }

    /// Number of impressions of an entry.
    pub(super) fn impressions(&self, handle: Handle) -> usize {
        let entry = self.entry_of(handle);
        if entry.len >= HEAVY {
            return self.heavy_of(entry).impressions;
        }
        self.facts(handle).iter().filter(|f| f.is_impression()).count()
    }

    /// The facts of one video and their places, oldest first.
    #[inline]
    pub(super) fn facts_of(
        &self,
        handle: Handle,
        video: u32,
    ) -> impl Iterator<Item = (u32, Fact)> + '_ {
        let entry = self.entry_of(handle);
        let facts = self.facts(handle);
        let (all, places): (&[Fact], &[u32]) = if entry.len < HEAVY {
            (facts, &[])
        } else {
            (&[], self.heavy_of(entry).by_video.get(&video).map_or(&[], |places| places))
        };
        let all = all.iter().enumerate().map(|(place, fact)| (place as u32, *fact));
        all.filter(move |(_, fact)| fact.video == video)
            .chain(places.iter().map(|place| (*place, facts[*place as usize])))
    }

    fn heavy_of(&self, entry: Entry) -> &Heavy {
        self.heavy.get(&entry.request).expect("an entry with many facts has its index")
    }

    /// Marks the impression at a place as joined.
    #[inline]
    pub(super) fn set_joined(&mut self, handle: Handle, place: u32) {
        let Entry { request, start, len } = self.entry_of(handle);
        let fact = &mut self.facts[(start + place) as usize];
        if len >= HEAVY && !fact.is_joined() {
            let heavy = self.heavy.get_mut(&request);
            heavy.expect("an entry with many facts has its index").unjoined -= 1;
        }
        fact.tag |= JOINED;
    }

    /// Whether every impression of an entry with many facts matches a play already (of others that
    /// is not known without a scan).
    #[inline]
    pub(super) fn all_joined(&self, handle: Handle) -> bool {
        let entry = self.entry_of(handle);
        entry.len >= HEAVY && self.heavy_of(entry).unjoined == 0
    }

    /// Adds a fact to an entry and returns its place.
    #[inline]
    pub(super) fn push(&mut self, handle: Handle, fact: Fact) -> u32 {
        let Entry { start, len, request } = self.entry_of(handle);
        let start = if is_full(len) { self.move_to_larger(handle, start, len) } else { start };
        self.facts[(start + len) as usize] = fact;
        self.entries.get_bucket_mut(handle.0).expect("the handle is valid").len = len + 1;
        if len + 1 >= HEAVY {
            self.index(handle, request, len);
        }
        len
    }

    /// Moves an entry to a region of twice the size.
    fn move_to_larger(&mut self, handle: Handle, start: u32, len: u32) -> u32 {
        let capacity = if len == 0 { 1 } else { 2 * len };
        let class = capacity.trailing_zeros() as usize;
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        let to = match self.free[class].pop() {
            Some(region) => region,
            None => {
                let region = self.facts.len();
                let end = region + capacity as usize;
                assert!(end <= u32::MAX as usize, "an epoch of a lane holds fewer than 2^32 facts");
                self.facts.resize(end, Fact::impression(0, 0, 0));
                region as u32
            }
        };
        if len > 0 {
            self.facts.copy_within(start as usize..(start + len) as usize, to as usize);
            self.free[class - 1].push(start);
        }
        self.entries.get_bucket_mut(handle.0).expect("the handle is valid").start = to;
        to
    }

    /// Keeps the index of an entry with many facts; makes it when there is none.
    #[cold]
    fn index(&mut self, handle: Handle, request: [u64; 2], pushed: u32) {
        let from = if pushed + 1 == HEAVY { 0 } else { pushed };
        let Entry { start, .. } = self.entry_of(handle);
        let heavy = self.heavy.entry(request).or_default();
        for place in from..=pushed {
            let fact = self.facts[(start + place) as usize];
            heavy.known.insert(fact.identity());
            heavy.impressions += usize::from(fact.is_impression());
            heavy.unjoined += usize::from(fact.is_impression() && !fact.is_joined());
            heavy.by_video.entry(fact.video).or_default().push(place);
        }
    }

    /// Requests in this epoch.
    pub(super) fn requests(&self) -> usize {
        self.entries.len()
    }

    /// Memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let free: usize = self.free.iter().map(|f| f.capacity() * 4).sum();
        self.entries.allocation_size() + self.facts.capacity() * size_of::<Fact>() + free
    }
}

/// What a snapshot needs of the layout.
impl Group {
    /// Every request with its facts, oldest first, in an order that only depends on the input.
    pub(super) fn each_request<E>(
        &self,
        mut each: impl FnMut(RequestKey, &[Fact]) -> Result<(), E>,
    ) -> Result<(), E> {
        for Entry { request: [high, low], start, len } in &self.entries {
            let request = RequestKey(u128::from(*high) << 64 | u128::from(*low));
            each(request, &self.facts[*start as usize..(*start + *len) as usize])?;
        }
        Ok(())
    }

    /// Makes room for so many more requests.
    pub(super) fn reserve(&mut self, requests: usize) {
        let hasher = &self.hasher;
        self.entries.reserve(requests, |e| hasher.hash_one(e.request));
    }
}

/// A region is exactly full at every power of two (and at none).
#[inline]
fn is_full(len: u32) -> bool {
    len == 0 || len.is_power_of_two()
}

#[inline]
fn words_of(request: RequestKey) -> [u64; 2] {
    [(request.0 >> 64) as u64, request.0 as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_that_the_design_counts_on() {
        assert_eq!((size_of::<Fact>(), size_of::<Entry>()), (12, 24));
    }

    #[test]
    fn facts_of_many_requests_stay_apart_while_regions_move() {
        let mut group = Group::new(7);
        for round in 0..200_u32 {
            for request in 0..5_u32 {
                let handle = group.entry(RequestKey(u128::from(request)));
                let fact = Fact::impression(round % 7, round, request);
                assert!(!group.has(handle, fact));
                assert_eq!(group.push(handle, fact), round);
                assert!(group.has(handle, fact));
            }
        }
        for request in 0..5_u32 {
            let handle = group.find(RequestKey(u128::from(request))).expect("it was pushed");
            let offsets: Vec<u32> = group.facts(handle).iter().map(|f| f.offset_ms).collect();
            assert_eq!(offsets, (0..200).collect::<Vec<_>>());
            assert!(group.facts(handle).iter().all(|f| f.tuple() == request));
            assert_eq!(group.facts_of(handle, 3).count(), 29);
            assert_eq!(group.impressions(handle), 200);
        }
    }

    #[test]
    fn a_joined_impression_is_still_the_same_impression() {
        let mut group = Group::new(7);
        let handle = group.entry(RequestKey(1));
        let place = group.push(handle, Fact::impression(1, 2, 3));
        group.set_joined(handle, place);
        assert!(group.facts(handle)[0].is_joined());
        assert!(group.has(handle, Fact::impression(1, 2, 3)));
    }
}
