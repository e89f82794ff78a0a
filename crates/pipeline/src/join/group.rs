//! The facts of one epoch, by request.
//!
//! Layout: a hash table of 8-byte slots (place and number of facts) and one arena of regions. A
//! region is a request's 16-byte key and its facts, 8 bytes each, side by side; where slices tell
//! facts apart, the numbers of their tuples stand behind them, 4 bytes each. A region that has
//! become too small is given back and used again by another request.
//!
//! With eight facts a request this is about 13 bytes a fact, the table included.
//!
//! Beyond a memory limit a group's requests go to disk ([`Group::spill`]). Whoever asks for one of
//! them brings it back, whole; what is in memory is newer than what is on disk.

mod spill;

use super::arena::Arena;
use super::cold::Runs;
use super::saved::{Unsaved, key_of};
use super::{Id, hash_of};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};
use marquee_model::RequestKey;
use spill::facts_of_record;

/// An impression, or the memory that a play was counted with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    /// Number of the video.
    pub(super) video: u32,
    /// Event time, milliseconds after the start of the group's epoch.
    pub(super) offset_ms: u32,
    /// Number of the tuple of slices.
    pub(super) tuple: u32,
    flags: u8,
}

/// The impression matches a play.
const JOINED: u8 = 1;
/// No impression: it records that a play of `video` is a member in the cohort of an impression
/// with this offset and tuple. Needed only where video and impression may differ
/// (`match = "request"`).
const PLAY_MEMBER: u8 = 2;

impl Fact {
    pub(super) fn impression(video: u32, offset_ms: u32, tuple: u32) -> Self {
        Fact { video, offset_ms, tuple, flags: 0 }
    }

    pub(super) fn play_member(video: u32, cohort: Fact) -> Self {
        Fact { video, flags: PLAY_MEMBER, ..cohort }
    }

    pub(super) fn is_joined(self) -> bool {
        self.flags & JOINED != 0
    }

    pub(super) fn is_impression(self) -> bool {
        self.flags & PLAY_MEMBER == 0
    }

    fn identity(self) -> Fact {
        Fact { flags: self.flags & !JOINED, ..self }
    }

    /// All but the tuple: 32 bits of time, 30 of the video, 2 of flags.
    #[inline]
    fn word(self) -> u64 {
        debug_assert!(self.video < 1 << 30, "fewer than 2^30 videos are in use");
        u64::from(self.offset_ms) << 32 | u64::from(self.video) << 2 | u64::from(self.flags)
    }

    #[inline]
    fn from_word(word: u64, tuple: u32) -> Fact {
        Fact {
            video: video_of(word),
            offset_ms: (word >> 32) as u32,
            tuple,
            flags: (word & 3) as u8,
        }
    }
}

#[inline]
fn video_of(word: u64) -> u32 {
    word as u32 >> 2
}

/// A request in this epoch: where its region is, and how many facts it has.
#[derive(Clone, Copy, Debug)]
struct Slot {
    region: u32,
    len: u32,
}

/// An entry, until the next call of [`Group::entry`] or [`Group::find`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle(usize);

/// What an entry has of an impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Neither it nor another one of its video.
    New,
    /// Another impression of its video.
    OtherOfVideo,
    /// The same.
    Known,
}

/// From this many facts on an entry has an index: a client that sends one id for everybody would
/// otherwise cost a scan of all its facts with every event.
const HEAVY: u32 = 128;

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

/// The words of a region before its facts: the request's key.
const KEY: usize = 2;

/// How regions are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// All facts have tuple 0.
    Narrow,
    /// Tuples follow the facts, two a word.
    Wide,
}

impl Layout {
    #[inline]
    fn words(self, capacity: usize) -> usize {
        match self {
            Layout::Narrow => KEY + capacity,
            Layout::Wide => KEY + capacity + capacity.div_ceil(2),
        }
    }
}

/// The facts of one epoch.
#[derive(Debug)]
pub(super) struct Group {
    hasher: FixedState,
    slots: HashTable<Slot>,
    arena: Arena,
    layout: Layout,
    heavy: HashMap<[u64; 2], Heavy, FixedState>,
    facts: usize,
    cold: Runs,
}

impl Group {
    pub(super) fn new(seed: u64) -> Self {
        Group {
            hasher: FixedState::with_seed(seed),
            slots: HashTable::new(),
            arena: Arena::default(),
            layout: Layout::Narrow,
            heavy: HashMap::with_hasher(FixedState::with_seed(seed)),
            facts: 0,
            cold: Runs::default(),
        }
    }

    /// The entry of a request, made if there is none.
    #[inline]
    pub(super) fn entry(&mut self, id: Id) -> Handle {
        match self.find(id) {
            Some(handle) => handle,
            None => self.insert(id),
        }
    }

    fn insert(&mut self, id: Id) -> Handle {
        let region = self.arena.take(class_of(1), self.layout.words(1));
        self.arena.at_mut(region, KEY).copy_from_slice(&id.words);
        let (arena, hasher) = (&self.arena, &self.hasher);
        let hash = |slot: &Slot| hash_of(hasher, key_at(arena, *slot));
        let slot = self.slots.insert_unique(id.hash, Slot { region, len: 0 }, hash);
        Handle(slot.bucket_index())
    }

    /// The entry of a request, if it has one.
    #[inline]
    pub(super) fn find(&mut self, id: Id) -> Option<Handle> {
        let arena = &self.arena;
        let found =
            self.slots.find_bucket_index(id.hash, |slot| arena.at(slot.region, KEY) == id.words);
        match found {
            Some(bucket) => Some(Handle(bucket)),
            None if self.cold.is_empty() => None,
            None => self.bring_back(id),
        }
    }

    #[inline]
    fn slot(&self, handle: Handle) -> Slot {
        *self.slots.get_bucket(handle.0).expect("no entry was made since the handle was")
    }

    #[inline]
    fn words(&self, slot: Slot) -> &[u64] {
        &self.arena.at(slot.region, KEY + slot.len as usize)[KEY..]
    }

    #[inline]
    fn tuple(&self, slot: Slot, place: u32) -> u32 {
        match self.layout {
            Layout::Narrow => 0,
            Layout::Wide => {
                let at = KEY + capacity_for(slot.len) as usize + place as usize / 2;
                (self.arena.at(slot.region, at + 1)[at] >> (place % 2 * 32)) as u32
            }
        }
    }

    fn set_tuple(&mut self, slot: Slot, capacity: u32, place: u32, tuple: u32) {
        let at = KEY + capacity as usize + place as usize / 2;
        let word = &mut self.arena.at_mut(slot.region, at + 1)[at];
        let shift = place % 2 * 32;
        *word = *word & !(u64::from(u32::MAX) << shift) | u64::from(tuple) << shift;
    }

    /// Number of facts of an entry.
    #[inline]
    pub(super) fn len(&self, handle: Handle) -> usize {
        self.slot(handle).len as usize
    }

    /// The fact at a place of an entry.
    #[inline]
    pub(super) fn fact(&self, handle: Handle, place: u32) -> Fact {
        let slot = self.slot(handle);
        Fact::from_word(self.words(slot)[place as usize], self.tuple(slot, place))
    }

    fn facts_in(&self, slot: Slot) -> impl Iterator<Item = Fact> + '_ {
        let facts = self.words(slot).iter().enumerate();
        facts.map(move |(place, word)| Fact::from_word(*word, self.tuple(slot, place as u32)))
    }

    /// Whether the same impression is there, and otherwise whether another one of its video is.
    #[inline]
    pub(super) fn look(&self, handle: Handle, fact: Fact) -> Look {
        let slot = self.slot(handle);
        if slot.len >= HEAVY {
            let others = || self.facts_of(handle, fact.video).any(|(_, f)| f.is_impression());
            return match self.heavy_of(slot).known.contains(&fact.identity()) {
                true => Look::Known,
                false if others() => Look::OtherOfVideo,
                false => Look::New,
            };
        }
        let this = fact.word();
        let mut look = Look::New;
        for (place, word) in self.words(slot).iter().enumerate() {
            // All but time and whether it is joined: of an impression of this video nothing is left.
            if (word ^ this) as u32 & !u32::from(JOINED) != 0 {
                continue;
            }
            if (word ^ this) >> 32 == 0 && self.tuple(slot, place as u32) == fact.tuple {
                return Look::Known;
            }
            look = Look::OtherOfVideo;
        }
        look
    }

    /// Number of impressions of an entry.
    pub(super) fn impressions(&self, handle: Handle) -> usize {
        let slot = self.slot(handle);
        if slot.len >= HEAVY {
            return self.heavy_of(slot).impressions;
        }
        self.facts_in(slot).filter(|f| f.is_impression()).count()
    }

    /// The facts of one video and their places, oldest first.
    #[inline]
    pub(super) fn facts_of(
        &self,
        handle: Handle,
        video: u32,
    ) -> impl Iterator<Item = (u32, Fact)> + '_ {
        let slot = self.slot(handle);
        let words = self.words(slot);
        let (all, places): (&[u64], &[u32]) = if slot.len < HEAVY {
            (words, &[])
        } else {
            (&[], self.heavy_of(slot).by_video.get(&video).map_or(&[], |places| places))
        };
        let of_video = move |(place, word): (usize, &u64)| {
            (video_of(*word) == video).then_some((place as u32, *word))
        };
        let all = all.iter().enumerate().filter_map(of_video);
        all.chain(places.iter().map(|place| (*place, words[*place as usize])))
            .map(move |(place, word)| (place, Fact::from_word(word, self.tuple(slot, place))))
    }

    fn heavy_of(&self, slot: Slot) -> &Heavy {
        let key = key_at(&self.arena, slot);
        self.heavy.get(&key).expect("an entry with many facts has its index")
    }

    /// Marks the impression at a place as joined.
    #[inline]
    pub(super) fn set_joined(&mut self, handle: Handle, place: u32) {
        let slot = self.slot(handle);
        let at = KEY + place as usize;
        let word = &mut self.arena.at_mut(slot.region, at + 1)[at];
        let was_joined = *word & u64::from(JOINED) != 0;
        *word |= u64::from(JOINED);
        if slot.len >= HEAVY && !was_joined {
            let heavy = self.heavy.get_mut(&key_at(&self.arena, slot));
            heavy.expect("an entry with many facts has its index").unjoined -= 1;
        }
    }

    /// Whether every impression of an entry with many facts matches a play already (of others that
    /// is not known without a scan).
    #[inline]
    pub(super) fn all_joined(&self, handle: Handle) -> bool {
        let slot = self.slot(handle);
        slot.len >= HEAVY && self.heavy_of(slot).unjoined == 0
    }

    /// Adds a fact to an entry and returns its place.
    #[inline]
    pub(super) fn push(&mut self, handle: Handle, fact: Fact) -> u32 {
        if fact.tuple != 0 && self.layout == Layout::Narrow {
            self.widen();
        }
        let mut slot = self.slot(handle);
        let place = slot.len;
        if place > 0 && capacity_for(place) == place {
            slot.region = self.move_to_larger(slot);
        }
        let at = KEY + place as usize;
        self.arena.at_mut(slot.region, at + 1)[at] = fact.word();
        if self.layout == Layout::Wide {
            self.set_tuple(slot, capacity_for(place + 1), place, fact.tuple);
        }
        slot.len = place + 1;
        *self.slots.get_bucket_mut(handle.0).expect("the handle is valid") = slot;
        self.facts += 1;
        if slot.len >= HEAVY {
            self.index(slot, place);
        }
        place
    }

    /// Moves an entry that is full to a region of the next size.
    fn move_to_larger(&mut self, slot: Slot) -> u32 {
        let (from, to) = (slot.len, capacity_for(slot.len + 1));
        let region = self.arena.take(class_of(to), self.layout.words(to as usize));
        let mut moved = [0; KEY + 16];
        let words = KEY + from as usize;
        if words <= moved.len() {
            moved[..words].copy_from_slice(self.arena.at(slot.region, words));
            self.arena.at_mut(region, words).copy_from_slice(&moved[..words]);
        } else {
            let words = self.arena.at(slot.region, words).to_vec();
            self.arena.at_mut(region, words.len()).copy_from_slice(&words);
        }
        if self.layout == Layout::Wide {
            for place in 0..from {
                let tuple = self.tuple(slot, place);
                self.set_tuple(Slot { region, len: from }, to, place, tuple);
            }
        }
        self.arena.give_back(class_of(from), slot.region);
        region
    }

    /// The first tuple but 0 has come: all regions get room for tuples.
    #[cold]
    fn widen(&mut self) {
        let narrow = std::mem::take(&mut self.arena);
        self.layout = Layout::Wide;
        for slot in self.slots.iter_mut() {
            let words = narrow.at(slot.region, KEY + slot.len as usize);
            let capacity = capacity_for(slot.len.max(1));
            let size = self.layout.words(capacity as usize);
            slot.region = self.arena.take(class_of(capacity), size);
            let region = self.arena.at_mut(slot.region, size);
            region[..words.len()].copy_from_slice(words);
            region[words.len()..].fill(0);
        }
    }

    /// Keeps the index of an entry with many facts; makes it when there is none.
    #[cold]
    fn index(&mut self, slot: Slot, pushed: u32) {
        let from = if pushed + 1 == HEAVY { 0 } else { pushed };
        let key = key_at(&self.arena, slot);
        let mut heavy = self.heavy.remove(&key).unwrap_or_default();
        for place in from..=pushed {
            let word = self.words(slot)[place as usize];
            let fact = Fact::from_word(word, self.tuple(slot, place));
            heavy.known.insert(fact.identity());
            heavy.impressions += usize::from(fact.is_impression());
            heavy.unjoined += usize::from(fact.is_impression() && !fact.is_joined());
            heavy.by_video.entry(fact.video).or_default().push(place);
        }
        self.heavy.insert(key, heavy);
    }

    /// Requests in this epoch; one that was brought back from disk counts twice until its group is
    /// spilled again.
    pub(super) fn requests(&self) -> usize {
        self.slots.len() + self.cold.records()
    }

    /// Facts in memory.
    pub(super) fn facts_in_memory(&self) -> usize {
        self.facts
    }

    /// Memory held, in bytes; what could be spilled of it, see [`Group::spillable_bytes`].
    pub(super) fn memory_bytes(&self) -> usize {
        self.spillable_bytes() + self.cold.memory_bytes()
    }

    /// Memory of what is not on disk, in bytes.
    pub(super) fn spillable_bytes(&self) -> usize {
        let of_heavy = |heavy: &Heavy| {
            let places = heavy.known.len() * size_of::<u32>();
            heavy.known.allocation_size() + heavy.by_video.allocation_size() + places
        };
        let heavy: usize = self.heavy.values().map(of_heavy).sum();
        self.slots.allocation_size() + self.arena.memory_bytes() + heavy
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.cold.disk_bytes()
    }
}

/// What a snapshot needs of the layout.
impl Group {
    /// Every request in memory with its facts, oldest first, in an order that only depends on the
    /// input.
    pub(super) fn each_request<E>(
        &self,
        mut each: impl FnMut(RequestKey, &mut dyn Iterator<Item = Fact>) -> Result<(), E>,
    ) -> Result<(), Unsaved<E>> {
        for slot in &self.slots {
            each(key_of(key_at(&self.arena, *slot)), &mut self.facts_in(*slot))?;
        }
        let arena = &self.arena;
        self.cold.each(&self.hasher, |id, record| {
            let is_here = |slot: &Slot| arena.at(slot.region, KEY) == id.words;
            if self.slots.find(id.hash, is_here).is_some() {
                return Ok(()); // it was brought back, and may be newer
            }
            Ok(each(key_of(id.words), &mut facts_of_record(record).into_iter())?)
        })
    }

    /// Makes room for so many requests in all.
    pub(super) fn reserve(&mut self, requests: usize) {
        /// More are made room for when they come: they may not fit into memory.
        const AT_ONCE: usize = 1 << 17;
        let more = requests.saturating_sub(self.slots.len() + self.cold.records());
        let (arena, hasher) = (&self.arena, &self.hasher);
        self.slots.reserve(more.min(AT_ONCE), |slot| hash_of(hasher, key_at(arena, *slot)));
    }
}

#[inline]
fn key_at(arena: &Arena, slot: Slot) -> [u64; 2] {
    let key = arena.at(slot.region, KEY);
    [key[0], key[1]]
}

/// How many facts a region has room for that holds so many: 1, 2, 4, 6, 8, 12, 16, 24, 32 ...
#[inline]
fn capacity_for(len: u32) -> u32 {
    let power = len.next_power_of_two();
    let middle = power / 4 * 3;
    if power >= 8 && len <= middle { middle } else { power }
}

/// The class of regions of a capacity.
#[inline]
fn class_of(capacity: u32) -> usize {
    let is_middle = !capacity.is_power_of_two();
    2 * capacity.ilog2() as usize + usize::from(is_middle)
}

#[cfg(test)]
mod tests {
    use super::super::cold::tests::{Full, InMemory};
    use super::*;

    fn id(request: u64) -> Id {
        Id::new(&FixedState::with_seed(7), marquee_model::RequestKey(u128::from(request)))
    }

    #[test]
    fn the_sizes_that_the_design_counts_on() {
        assert_eq!(size_of::<Slot>(), 8);
        let capacities: Vec<u32> = (1..=33).map(capacity_for).collect();
        let expected = [
            1, 2, 4, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24, 24, 24, 24, 24, 24, 24, 24,
            32, 32, 32, 32, 32, 32, 32, 32, 48,
        ];
        assert_eq!(capacities, expected);
        let classes: Vec<usize> = [1, 2, 4, 6, 8, 12, 16, 24].map(class_of).to_vec();
        assert_eq!(classes, [0, 2, 4, 5, 6, 7, 8, 9]);
    }

    /// Facts of five requests, pushed in turn. `tuple_of` a request, `visit` after each round.
    fn filled(tuple_of: impl Fn(u64) -> u32, mut visit: impl FnMut(&mut Group)) -> Group {
        let mut group = Group::new(7);
        for round in 0..200_u32 {
            for request in 0..5 {
                let handle = group.entry(id(request));
                let fact = Fact::impression(round % 7, round, tuple_of(request));
                assert_ne!(group.look(handle, fact), Look::Known);
                assert_eq!(group.push(handle, fact), round);
                assert_eq!(group.look(handle, fact), Look::Known);
            }
            visit(&mut group);
        }
        group
    }

    fn check(group: &mut Group, tuple_of: impl Fn(u64) -> u32) {
        for request in 0..5 {
            let handle = group.find(id(request)).expect("it was pushed");
            let facts: Vec<Fact> = (0..200).map(|place| group.fact(handle, place)).collect();
            let offsets: Vec<u32> = facts.iter().map(|f| f.offset_ms).collect();
            assert_eq!(offsets, (0..200).collect::<Vec<_>>());
            assert!(facts.iter().all(|f| f.tuple == tuple_of(request)));
            assert_eq!(group.facts_of(handle, 3).count(), 29);
            assert_eq!(group.impressions(handle), 200);
        }
        assert!(group.find(id(5)).is_none());
    }

    #[test]
    fn facts_of_many_requests_stay_apart_while_regions_move() {
        for tuple_of in [|_| 0, |request| request as u32] {
            check(&mut filled(tuple_of, |_| ()), tuple_of);
        }
    }

    #[test]
    fn facts_that_went_to_disk_at_any_time_are_found_again() {
        for tuple_of in [|_| 0, |request| request as u32] {
            for every in [1, 3, 50] {
                let (place, mut round) = (InMemory, 0);
                let mut group = filled(tuple_of, |group| {
                    round += 1;
                    if round % every == 0 {
                        Group::spill(&mut [group], &place).expect("memory takes it");
                        assert_eq!(group.facts_in_memory(), 0);
                    }
                });
                check(&mut group, tuple_of);
                assert!(group.failure().is_none());
            }
        }
    }

    #[test]
    fn a_joined_impression_is_still_the_same_impression_also_on_disk() {
        let mut group = Group::new(7);
        let handle = group.entry(id(1));
        let place = group.push(handle, Fact::impression(1, 2, 3));
        group.set_joined(handle, place);
        Group::spill(&mut [&mut group], &InMemory).expect("memory takes it");
        let handle = group.find(id(1)).expect("it is on disk");
        assert!(group.fact(handle, 0).is_joined());
        assert_eq!(group.look(handle, Fact::impression(1, 2, 3)), Look::Known);
    }

    #[test]
    fn a_look_tells_an_impression_from_others_of_its_video_and_from_what_only_counts_plays() {
        for facts in [1, HEAVY + 5] {
            let mut group = Group::new(7);
            let handle = group.entry(id(1));
            let first = Fact::impression(5, 20, 3);
            for other in 1..facts {
                group.push(handle, Fact::impression(1000 + other, 20, 3));
            }
            group.push(handle, Fact::play_member(6, first));
            assert_eq!(group.look(handle, first), Look::New);
            let place = group.push(handle, first);
            for _ in 0..2 {
                assert_eq!(group.look(handle, first), Look::Known);
                for other in [Fact::impression(5, 21, 3), Fact::impression(5, 20, 4)] {
                    assert_eq!(group.look(handle, other), Look::OtherOfVideo);
                }
                let of_play = Fact::impression(6, 20, 3);
                assert_eq!(group.look(handle, of_play), Look::New, "{facts}");
                group.set_joined(handle, place);
            }
        }
    }

    #[test]
    fn eight_facts_a_request_take_less_than_16_bytes_each() {
        // Requests, fewest and most facts of each, and the bytes that a fact takes.
        let cases = [
            (30_000_u64, 4..=12_u64, 11.0..16.0),
            (57_000, 4..=12, 11.0..16.0),
            (58_000, 4..=12, 11.0..16.0),
            (100_000, 4..=12, 11.0..16.0),
            (57_000, 1..=1, 33.0..47.0),
            (58_000, 1..=1, 33.0..47.0),
            (58_000, 100..=100, 10.0..11.0),
        ];
        for (requests, facts, expected) in cases {
            let mut group = Group::new(7);
            for request in 0..requests {
                let more = request % (facts.end() - facts.start() + 1);
                for place in 0..facts.start() + more {
                    let handle = group.entry(id(request));
                    group.push(handle, Fact::impression(place as u32, 5, 0));
                }
            }
            let bytes = group.memory_bytes() as f64 / group.facts_in_memory() as f64;
            assert!(expected.contains(&bytes), "{requests} of {facts:?}: {bytes} bytes a fact");
        }
    }

    /// Groups that go to disk together: some with an older part there, some in memory alone.
    #[test]
    fn a_disk_that_becomes_full_leaves_all_groups_as_they_are() {
        let tuple_of = |request| request as u32;
        let mut groups = [0, 1, 2].map(|number| {
            filled(tuple_of, |group| {
                if number > 0 && group.facts == 500 {
                    Group::spill(&mut [group], &InMemory).expect("memory takes it");
                }
            })
        });
        let bytes = |groups: &[Group; 3]| groups.each_ref().map(Group::spillable_bytes);
        let before = bytes(&groups);
        let failed = Group::spill(&mut groups.each_mut(), &Full);
        assert!(failed.is_err());
        assert_eq!(bytes(&groups), before);
        groups.iter_mut().for_each(|group| check(group, tuple_of));
        Group::spill(&mut groups.each_mut(), &InMemory).expect("memory takes it");
        assert_eq!(bytes(&groups), [0; 3]);
        groups.iter_mut().for_each(|group| check(group, tuple_of));
    }
}
