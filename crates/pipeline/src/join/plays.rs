//! Plays by request, across all epochs that are kept.
//!
//! Beyond a memory limit all of them go to disk ([`Plays::spill`]); those of a request come back
//! when one of its events does ([`Plays::load`]).

use super::cold::{ColdError, ColdPlace, Runs};
use super::{Id, hash_of};
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// One play of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Play {
    /// Event time, milliseconds since 1970 UTC.
    pub(super) time_ms: i64,
    /// The (longest) epoch of the event time.
    pub(super) epoch: i64,
    /// Number of the video.
    pub(super) video: u32,
    /// Number of the tuple of slices.
    pub(super) tuple: u32,
    /// Whether it matches an impression.
    pub(super) joined: bool,
}

/// From this many plays on a request has an index.
const HEAVY: usize = 64;

/// The plays of one request.
#[derive(Debug)]
struct OfRequest {
    words: [u64; 2],
    plays: SmallVec<[Play; 1]>,
    heavy: Option<Box<Heavy>>,
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
    fn of(plays: &[Play]) -> Box<Self> {
        let mut heavy = Box::new(Heavy::default());
        for (place, play) in plays.iter().enumerate() {
            heavy.add(place, play);
        }
        heavy
    }

    fn add(&mut self, place: usize, play: &Play) {
        self.known.insert((play.time_ms, play.video, play.tuple));
        self.by_video.entry(play.video).or_default().push(place as u32);
        *self.in_epoch.entry(play.epoch).or_default() += 1;
        self.unjoined += usize::from(!play.joined);
    }
}

/// The side table of plays.
#[derive(Debug)]
pub(super) struct Plays {
    hasher: FixedState,
    by_request: HashTable<OfRequest>,
    /// Which requests have plays in an epoch (one for each play), so that an epoch goes without a
    /// scan of the others.
    by_epoch: BTreeMap<i64, Vec<[u64; 2]>>,
    /// Plays of an epoch before it are of no use.
    kept_from: i64,
    cold: Runs,
}

impl Plays {
    pub(super) fn new(seed: u64) -> Self {
        Plays {
            hasher: FixedState::with_seed(seed),
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

    fn find_mut(&mut self, id: Id) -> Option<&mut OfRequest> {
        self.by_request.find_mut(id.hash, |of| of.words == id.words)
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
            Some(OfRequest { plays, heavy: None, .. }) => (plays, &[], &[]),
            Some(OfRequest { plays, heavy: Some(heavy), .. }) => {
                (&[], plays, heavy.by_video.get(&video).map_or(&[], |places| places))
            }
        };
        let all = all.iter().enumerate().map(|(place, play)| (place, *play));
        all.filter(move |(_, play)| play.video == video)
            .chain(places.iter().map(|place| (*place as usize, plays[*place as usize])))
    }

    /// Whether the same play is there.
    pub(super) fn has(&self, id: Id, play: &Play) -> bool {
        let Some(OfRequest { plays, heavy, .. }) = self.find(id) else { return false };
        let Play { time_ms, video, tuple, .. } = *play;
        match heavy {
            Some(heavy) => heavy.known.contains(&(time_ms, video, tuple)),
            None => {
                plays.iter().any(|p| p.time_ms == time_ms && p.video == video && p.tuple == tuple)
            }
        }
    }

    /// How many plays a request has in an epoch.
    pub(super) fn in_epoch(&self, id: Id, epoch: i64) -> usize {
        let Some(OfRequest { plays, heavy, .. }) = self.find(id) else { return 0 };
        match heavy {
            Some(heavy) => heavy.in_epoch.get(&epoch).copied().unwrap_or(0),
            None => plays.iter().filter(|p| p.epoch == epoch).count(),
        }
    }

    #[inline]
    pub(super) fn set_joined(&mut self, id: Id, place: usize) {
        let of = self.find_mut(id).expect("the play was found before");
        let play = &mut of.plays[place];
        if let Some(heavy) = &mut of.heavy {
            heavy.unjoined -= usize::from(!play.joined);
        }
        play.joined = true;
    }

    /// Whether every play of a request with many matches an impression already (of others that is
    /// not known without a scan).
    pub(super) fn all_joined(&self, id: Id) -> bool {
        let heavy = self.find(id).and_then(|of| of.heavy.as_ref());
        heavy.is_some_and(|heavy| heavy.unjoined == 0)
    }

    /// Adds a play and returns its place among those of its request.
    pub(super) fn push(&mut self, id: Id, play: Play) -> usize {
        self.by_epoch.entry(play.epoch).or_default().push(id.words);
        let hasher = &self.hasher;
        let none = || OfRequest { words: id.words, plays: SmallVec::new(), heavy: None };
        let OfRequest { plays, heavy, .. } = self
            .by_request
            .entry(id.hash, |of| of.words == id.words, |of| hash_of(hasher, of.words))
            .or_insert_with(none)
            .into_mut();
        let place = plays.len();
        plays.push(play);
        match heavy {
            Some(heavy) => heavy.add(place, &play),
            None if plays.len() >= HEAVY => *heavy = Some(Heavy::of(plays)),
            None => {}
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
            if of.plays.iter().all(|play| play.epoch >= epoch) {
                continue; // they went with an earlier one of this request
            }
            of.plays.retain(|play| play.epoch >= epoch);
            of.heavy = (of.plays.len() >= HEAVY).then(|| Heavy::of(&of.plays));
            if of.plays.is_empty() {
                entry.remove();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_request.clear();
        self.by_epoch.clear();
        self.cold.clear();
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
            if play.epoch >= self.kept_from {
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
        let kept_from = self.kept_from;
        let mut retain = |payload: &mut Vec<u8>| {
            let old = payload.chunks_exact(RECORD).any(|play| play_of(play).epoch < kept_from);
            if old {
                let plays = payload.chunks_exact(RECORD).filter(|p| play_of(p).epoch >= kept_from);
                *payload = plays.flatten().copied().collect();
            }
            !payload.is_empty()
        };
        self.cold.add(records, newest, &self.hasher, place, &mut retain)?;
        self.by_request = HashTable::new();
        self.by_epoch.clear();
        Ok(())
    }
}

/// Bytes of a play on disk.
const RECORD: usize = 25;

fn write_play(play: &Play, out: &mut Vec<u8>) {
    out.extend_from_slice(&play.time_ms.to_le_bytes());
    out.extend_from_slice(&play.epoch.to_le_bytes());
    out.extend_from_slice(&play.video.to_le_bytes());
    out.extend_from_slice(&play.tuple.to_le_bytes());
    out.push(u8::from(play.joined));
}

fn play_of(bytes: &[u8]) -> Play {
    let i64_at = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    Play {
        time_ms: i64_at(0),
        epoch: i64_at(8),
        video: u32_at(16),
        tuple: u32_at(20),
        joined: bytes[24] == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cold::tests::InMemory;
    use super::*;
    use marquee_model::RequestKey;

    #[test]
    fn plays_come_back_from_disk_without_those_that_are_too_old() {
        let id = |n: u32| Id::new(&FixedState::with_seed(7), RequestKey(u128::from(n)));
        let play = |n: u32, epoch: i64| Play {
            time_ms: 10 * epoch + i64::from(n % 7),
            epoch,
            video: n,
            tuple: n % 3,
            joined: n.is_multiple_of(2),
        };
        let mut plays = Plays::new(7);
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
            let found: Vec<_> = plays.of(id(n)).iter().map(|p| (p.time_ms, p.joined)).collect();
            let expected: Vec<_> =
                (3..6).map(|epoch| play(n, epoch)).map(|p| (p.time_ms, p.joined)).collect();
            assert_eq!(found, expected, "{n}");
        }
        plays.drop_before(6);
        assert_eq!((plays.disk_bytes(), plays.of(id(3)).len()), (0, 0));
    }
}
