//! Plays by request, across all epochs that are kept.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use marquee_model::RequestKey;
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
#[derive(Debug, Default)]
struct OfRequest {
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
    by_request: HashMap<RequestKey, OfRequest, FixedState>,
    /// Which requests have plays in an epoch (one for each play), so that an epoch goes without a
    /// scan of the others.
    by_epoch: BTreeMap<i64, Vec<RequestKey>>,
}

impl Plays {
    pub(super) fn new(seed: u64) -> Self {
        Plays {
            by_request: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_epoch: BTreeMap::new(),
        }
    }

    /// The plays of a request, empty if there are none.
    #[inline]
    pub(super) fn of(&self, request: RequestKey) -> &[Play] {
        self.by_request.get(&request).map_or(&[], |of| &of.plays)
    }

    /// The plays of a request and one video, with their places.
    pub(super) fn of_video(
        &self,
        request: RequestKey,
        video: u32,
    ) -> impl Iterator<Item = (usize, Play)> + '_ {
        let (all, plays, places): (&[Play], &[Play], &[u32]) = match self.by_request.get(&request) {
            None => (&[], &[], &[]),
            Some(OfRequest { plays, heavy: None }) => (plays, &[], &[]),
            Some(OfRequest { plays, heavy: Some(heavy) }) => {
                (&[], plays, heavy.by_video.get(&video).map_or(&[], |places| places))
            }
        };
        let all = all.iter().enumerate().map(|(place, play)| (place, *play));
        all.filter(move |(_, play)| play.video == video)
            .chain(places.iter().map(|place| (*place as usize, plays[*place as usize])))
    }

    /// Whether the same play is there.
    pub(super) fn has(&self, request: RequestKey, play: &Play) -> bool {
        let Some(OfRequest { plays, heavy }) = self.by_request.get(&request) else { return false };
        let Play { time_ms, video, tuple, .. } = *play;
        match heavy {
            Some(heavy) => heavy.known.contains(&(time_ms, video, tuple)),
            None => {
                plays.iter().any(|p| p.time_ms == time_ms && p.video == video && p.tuple == tuple)
            }
        }
    }

    /// How many plays a request has in an epoch.
    pub(super) fn in_epoch(&self, request: RequestKey, epoch: i64) -> usize {
        let Some(OfRequest { plays, heavy }) = self.by_request.get(&request) else { return 0 };
        match heavy {
            Some(heavy) => heavy.in_epoch.get(&epoch).copied().unwrap_or(0),
            None => plays.iter().filter(|p| p.epoch == epoch).count(),
        }
    }

    #[inline]
    pub(super) fn set_joined(&mut self, request: RequestKey, place: usize) {
        let of = self.by_request.get_mut(&request).expect("the play was found before");
        let play = &mut of.plays[place];
        if let Some(heavy) = &mut of.heavy {
            heavy.unjoined -= usize::from(!play.joined);
        }
        play.joined = true;
    }

    /// Whether every play of a request with many matches an impression already (of others that is
    /// not known without a scan).
    pub(super) fn all_joined(&self, request: RequestKey) -> bool {
        let heavy = self.by_request.get(&request).and_then(|of| of.heavy.as_ref());
        heavy.is_some_and(|heavy| heavy.unjoined == 0)
    }

    /// Adds a play and returns its place among those of its request.
    pub(super) fn push(&mut self, request: RequestKey, play: Play) -> usize {
        self.by_epoch.entry(play.epoch).or_default().push(request);
        let OfRequest { plays, heavy } = self.by_request.entry(request).or_default();
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
        let kept = self.by_epoch.split_off(&epoch);
        for request in std::mem::replace(&mut self.by_epoch, kept).into_values().flatten() {
            let Some(of) = self.by_request.get_mut(&request) else { continue };
            if of.plays.iter().all(|play| play.epoch >= epoch) {
                continue; // they went with an earlier one of this request
            }
            of.plays.retain(|play| play.epoch >= epoch);
            of.heavy = (of.plays.len() >= HEAVY).then(|| Heavy::of(&of.plays));
            if of.plays.is_empty() {
                self.by_request.remove(&request);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_request.clear();
        self.by_epoch.clear();
    }

    /// Every request with its plays, oldest first, in an order that only depends on the input: for
    /// a snapshot.
    pub(super) fn each_request<E>(
        &self,
        mut each: impl FnMut(RequestKey, &[Play]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.by_request.iter().try_for_each(|(request, of)| each(*request, &of.plays))
    }

    /// Memory held, in bytes, plays beyond the first of a request not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_request.allocation_size()
            + self.by_epoch.values().map(|r| r.capacity() * size_of::<RequestKey>()).sum::<usize>()
    }
}
