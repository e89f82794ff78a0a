//! Plays by request, across all epochs that are kept.
//!
//! Beyond a memory limit all of them go to disk ([`Plays::spill`]); those of a request come back
//! when one of its events does ([`Plays::load`]).

use super::cold::{self, ColdError, ColdPlace, Runs};
use super::saved::{Unsaved, key_of};
use super::{Id, hash_of};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};
use marquee_model::RequestKey;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// One play of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Play {
    /// Event time, milliseconds since 1970 UTC.
    pub(super) time_ms: i64,
    /// Number of the video.
    pub(super) video: u32,
    /// `tuple << 1 | joined`.
    tag: u32,
}

impl Play {
    /// One that matches no impression yet.
    pub(super) fn new(time_ms: i64, video: u32, tuple: u32) -> Self {
        debug_assert!(tuple < 1 << 31, "fewer than 2^31 tuples of slices are in use");
        Play { time_ms, video, tag: tuple << 1 }
    }

    /// Number of the tuple of slices.
    pub(super) fn tuple(self) -> u32 {
        self.tag >> 1
    }

    /// Whether it matches an impression.
    pub(super) fn is_joined(self) -> bool {
        self.tag & 1 != 0
    }
}

/// From this many plays on a request has an index.
const HEAVY: usize = 64;

/// The plays of one request.
#[derive(Debug)]
struct OfRequest {
    words: [u64; 2],
    plays: SmallVec<[Play; 1]>,
}

impl OfRequest {
    #[inline]
    fn is_heavy(&self) -> bool {
        self.plays.len() >= HEAVY
    }
}

/// Index of a request with many plays: a client that sends one id for everybody would otherwise
/// cost a scan of all of them with every event.
#[derive(Debug, Default)]
struct Heavy {
    /// Time, video and tuple of each play.
    known: HashSet<(i64, u32, u32), FixedState>,
    /// Places of the plays of each video. Only ever looked up, never iterated.
    by_video: HashMap<u32, Vec<u32>, FixedState>,
    in_epoch: BTreeMap<i64, usize>,
    /// Plays that match no impression yet.
    unjoined: usize,
}

impl Heavy {
    fn of(plays: &[Play], longest_ms: i64) -> Self {
        let mut heavy = Heavy::default();
        for (place, play) in plays.iter().enumerate() {
            heavy.add(place, *play, longest_ms);
        }
        heavy
    }

    fn add(&mut self, place: usize, play: Play, longest_ms: i64) {
        self.known.insert((play.time_ms, play.video, play.tuple()));
        self.by_video.entry(play.video).or_default().push(place as u32);
        *self.in_epoch.entry(play.time_ms.div_euclid(longest_ms)).or_default() += 1;
        self.unjoined += usize::from(!play.is_joined());
    }
}

/// The side table of plays.
#[derive(Debug)]
pub(super) struct Plays {
    hasher: FixedState,
    /// Length of an epoch.
    longest_ms: i64,
    by_request: HashTable<OfRequest>,
    heavy: HashMap<[u64; 2], Heavy, FixedState>,
    /// Which requests have plays in an epoch (one for each play), so that an epoch goes without a
    /// scan of the others.
    by_epoch: BTreeMap<i64, Vec<[u64; 2]>>,
    /// Plays of an epoch before it are of no use.
    kept_from: i64,
    cold: Runs,
}

impl Plays {
    pub(super) fn new(seed: u64, longest_ms: i64) -> Self {
        Plays {
            hasher: FixedState::with_seed(seed),
            longest_ms,
            heavy: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_request: HashTable::new(),
            by_epoch: BTreeMap::new(),
            kept_from: i64::MIN,
            cold: Runs::default(),
        }
    }

    #[inline]
    fn find(&self, id: Id) -> Option<&OfRequest> {
        self.by_request.find(id.hash, |of| of.words == id.words)
    }

    fn epoch_of(&self, play: Play) -> i64 {
        play.time_ms.div_euclid(self.longest_ms)
    }

    fn heavy_of(&self, of: &OfRequest) -> &Heavy {
        self.heavy.get(&of.words).expect("a request with many plays has its index")
    }

    /// The plays of a request, empty if there are none.
    #[inline]
    pub(super) fn of(&self, id: Id) -> &[Play] {
        self.find(id).map_or(&[], |of| &of.plays)
    }

    /// The plays of a request and one video, with their places.
    pub(super) fn of_video(&self, id: Id, video: u32) -> impl Iterator<Item = (usize, Play)> + '_ {
        let (all, plays, places): (&[Play], &[Play], &[u32]) = match self.find(id) {
            None => (&[], &[], &[]),
            Some(of) if of.is_heavy() => {
                let places = self.heavy_of(of).by_video.get(&video);
                (&[], &of.plays, places.map_or(&[], |places| places))
            }
            Some(of) => (&of.plays, &[], &[]),
        };
        let all = all.iter().enumerate().map(|(place, play)| (place, *play));
        all.filter(move |(_, play)| play.video == video)
            .chain(places.iter().map(|place| (*place as usize, plays[*place as usize])))
    }

    /// Whether the same play is there.
    pub(super) fn has(&self, id: Id, play: &Play) -> bool {
        let Some(of) = self.find(id) else { return false };
        let identity = |p: &Play| (p.time_ms, p.video, p.tuple());
        let this = identity(play);
        if of.is_heavy() {
            return self.heavy_of(of).known.contains(&this);
        }
        of.plays.iter().any(|p| identity(p) == this)
    }

    /// How many plays a request has in an epoch.
    pub(super) fn in_epoch(&self, id: Id, epoch: i64) -> usize {
        let Some(of) = self.find(id) else { return 0 };
        if of.is_heavy() {
            return self.heavy_of(of).in_epoch.get(&epoch).copied().unwrap_or(0);
        }
        of.plays.iter().filter(|play| self.epoch_of(**play) == epoch).count()
    }

    #[inline]
    pub(super) fn set_joined(&mut self, id: Id, place: usize) {
        let of = self.by_request.find_mut(id.hash, |of| of.words == id.words);
        let of = of.expect("the play was found before");
        if of.is_heavy() && !of.plays[place].is_joined() {
            let heavy = self.heavy.get_mut(&id.words);
            heavy.expect("a request with many plays has its index").unjoined -= 1;
        }
        of.plays[place].tag |= 1;
    }

    /// Whether a request has so many plays that there is an index.
    pub(super) fn is_heavy(&self, id: Id) -> bool {
        self.find(id).is_some_and(OfRequest::is_heavy)
    }

    /// Whether every play of a request with many matches an impression already (of others that is
    /// not known without a scan).
    pub(super) fn all_joined(&self, id: Id) -> bool {
        let heavy = self.find(id).filter(|of| of.is_heavy());
        heavy.is_some_and(|of| self.heavy_of(of).unjoined == 0)
    }

    /// Adds a play and returns its place among those of its request.
    pub(super) fn push(&mut self, id: Id, play: Play) -> usize {
        self.by_epoch.entry(self.epoch_of(play)).or_default().push(id.words);
        let hasher = &self.hasher;
        let none = || OfRequest { words: id.words, plays: SmallVec::new() };
        let plays = &mut self
            .by_request
            .entry(id.hash, |of| of.words == id.words, |of| hash_of(hasher, of.words))
            .or_insert_with(none)
            .into_mut()
            .plays;
        let place = plays.len();
        plays.push(play);
        if place + 1 >= HEAVY {
            let longest_ms = self.longest_ms;
            let all = || Heavy::of(&plays[..place], longest_ms);
            self.heavy.entry(id.words).or_insert_with(all).add(place, play, longest_ms);
        }
        place
    }

    /// Drops every play of an epoch before this one.
    pub(super) fn drop_before(&mut self, epoch: i64) {
        self.kept_from = epoch;
        self.cold.drop_before(epoch);
        let kept = self.by_epoch.split_off(&epoch);
        for words in std::mem::replace(&mut self.by_epoch, kept).into_values().flatten() {
            let hash = hash_of(&self.hasher, words);
            let Ok(mut entry) = self.by_request.find_entry(hash, |of| of.words == words) else {
                continue;
            };
            let of = entry.get_mut();
            let from_ms = epoch * self.longest_ms;
            if of.plays.iter().all(|play| play.time_ms >= from_ms) {
                continue; // they went with an earlier one of this request
            }
            let was_heavy = of.is_heavy();
            of.plays.retain(|play| play.time_ms >= from_ms);
            if was_heavy {
                self.heavy.remove(&words);
            }
            if of.is_heavy() {
                self.heavy.insert(words, Heavy::of(&of.plays, self.longest_ms));
            }
            if of.plays.is_empty() {
                entry.remove();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_request.clear();
        self.heavy.clear();
        self.by_epoch.clear();
        self.cold.clear();
    }

    /// Every request in memory with its plays, oldest first, in an order that only depends on the
    /// input: for a snapshot.
    pub(super) fn each_request<E>(
        &self,
        mut each: impl FnMut(RequestKey, &[Play]) -> Result<(), E>,
    ) -> Result<(), Unsaved<E>> {
        self.by_request.iter().try_for_each(|of| each(key_of(of.words), &of.plays))?;
        self.cold.each(&self.hasher, |id, record| {
            if self.find(id).is_some() {
                return Ok(()); // they were brought back, and may be more
            }
            let plays = record.chunks_exact(RECORD).map(play_of);
            let plays: Vec<Play> =
                plays.filter(|play| self.epoch_of(*play) >= self.kept_from).collect();
            if plays.is_empty() {
                return Ok(());
            }
            Ok(each(key_of(id.words), &plays)?)
        })
    }

    /// Memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.spillable_bytes() + self.cold.memory_bytes()
    }

    /// Memory of what is not on disk, in bytes; plays beyond the first of a request not counted.
    pub(super) fn spillable_bytes(&self) -> usize {
        let by_epoch = self.by_epoch.values().map(|words| words.capacity() * size_of::<[u64; 2]>());
        self.by_request.allocation_size() + by_epoch.sum::<usize>()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.cold.disk_bytes()
    }

    /// Why something could not be read back, if that has happened: the state is not whole any more.
    pub(super) fn failure(&self) -> Option<&ColdError> {
        self.cold.failure()
    }

    /// Brings the plays of a request back into memory, if they are on disk. The other methods only
    /// know what is in memory.
    #[inline]
    pub(super) fn load(&mut self, id: Id) {
        if !self.cold.is_empty() && self.find(id).is_none() {
            self.bring_back(id);
        }
    }

    #[cold]
    fn bring_back(&mut self, id: Id) {
        let record = self.cold.find(id).unwrap_or_default();
        for play in record.chunks_exact(RECORD).map(play_of) {
            if self.epoch_of(play) >= self.kept_from {
                self.push(id, play);
            }
        }
    }

    /// Moves everything that is in memory to disk.
    pub(super) fn spill(&mut self, place: &dyn ColdPlace) -> Result<(), ColdError> {
        let Some((&newest, _)) = self.by_epoch.last_key_value() else { return Ok(()) };
        let mut sorted: Vec<(Id, &OfRequest)> = Vec::with_capacity(self.by_request.len());
        for of in &self.by_request {
            sorted.push((Id { hash: hash_of(&self.hasher, of.words), words: of.words }, of));
        }
        sorted.sort_unstable_by_key(|(id, _)| *id);
        let records = sorted.iter().map(|(id, of)| {
            let write = |out: &mut Vec<u8>| of.plays.iter().for_each(|play| write_play(play, out));
            (*id, write)
        });
        let from_ms = self.kept_from.saturating_mul(self.longest_ms);
        let mut retain = |payload: &mut Vec<u8>| {
            let is_kept = |play: &&[u8]| play_of(play).time_ms >= from_ms;
            if !payload.chunks_exact(RECORD).all(|play| is_kept(&play)) {
                let plays = payload.chunks_exact(RECORD).filter(is_kept);
                *payload = plays.flatten().copied().collect();
            }
            !payload.is_empty()
        };
        let adding = self.cold.adding(sorted.len(), records, &self.hasher);
        let (bytes, added) = cold::keep_together(std::iter::once(adding), place, &mut retain)?;
        for (added, at) in added {
            self.cold.take(added, &bytes, at, newest);
        }
        self.by_request = HashTable::new();
        self.heavy.clear();
        self.by_epoch.clear();
        Ok(())
    }
}

/// Bytes of a play on disk.
const RECORD: usize = 16;

fn write_play(play: &Play, out: &mut Vec<u8>) {
    out.extend_from_slice(&play.time_ms.to_le_bytes());
    out.extend_from_slice(&play.video.to_le_bytes());
    out.extend_from_slice(&play.tag.to_le_bytes());
}

fn play_of(bytes: &[u8]) -> Play {
    let i64_at = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    Play { time_ms: i64_at(0), video: u32_at(8), tag: u32_at(12) }
}

#[cfg(test)]
mod tests {
    use super::super::cold::tests::InMemory;
    use super::*;

    #[test]
    fn plays_come_back_from_disk_without_those_that_are_too_old() {
        let id = |n: u32| Id::new(&FixedState::with_seed(7), RequestKey(u128::from(n)));
        let play =
            |n: u32, epoch: i64| Play { time_ms: 10 * epoch + i64::from(n % 7), video: n, tag: n };
        let mut plays = Plays::new(7, 10);
        for epoch in 0..6 {
            for n in 0..100 {
                plays.load(id(n));
                plays.push(id(n), play(n, epoch));
            }
            plays.spill(&InMemory).expect("memory takes it");
            assert_eq!((plays.of(id(1)).len(), plays.spillable_bytes()), (0, 0));
            plays.drop_before(epoch - 2);
        }
        for n in 0..100 {
            plays.load(id(n));
            let found: Vec<_> = plays.of(id(n)).iter().map(|p| (p.time_ms, p.tag)).collect();
            let expected: Vec<_> =
                (3..6).map(|epoch| play(n, epoch)).map(|p| (p.time_ms, p.tag)).collect();
            assert_eq!(found, expected, "{n}");
        }
        plays.drop_before(6);
        assert_eq!((plays.disk_bytes(), plays.of(id(3)).len()), (0, 0));
    }
}
