//! Plays by request, across all epochs that are kept.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
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

/// The side table of plays.
#[derive(Debug)]
pub(super) struct Plays {
    by_request: HashMap<RequestKey, SmallVec<[Play; 1]>, FixedState>,
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
        self.by_request.get(&request).map_or(&[], |plays| plays)
    }

    #[inline]
    pub(super) fn set_joined(&mut self, request: RequestKey, place: usize) {
        let plays = self.by_request.get_mut(&request).expect("the play was found before");
        plays[place].joined = true;
    }

    /// Adds a play and returns its place among those of its request.
    pub(super) fn push(&mut self, request: RequestKey, play: Play) -> usize {
        self.by_epoch.entry(play.epoch).or_default().push(request);
        let plays = self.by_request.entry(request).or_default();
        plays.push(play);
        plays.len() - 1
    }

    /// Drops every play of an epoch before this one.
    pub(super) fn drop_before(&mut self, epoch: i64) {
        let kept = self.by_epoch.split_off(&epoch);
        for request in std::mem::replace(&mut self.by_epoch, kept).into_values().flatten() {
            if let Some(plays) = self.by_request.get_mut(&request) {
                plays.retain(|play| play.epoch >= epoch);
                if plays.is_empty() {
                    self.by_request.remove(&request);
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_request.clear();
        self.by_epoch.clear();
    }

    /// Memory held, in bytes, plays beyond the first of a request not counted.
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_request.allocation_size()
            + self.by_epoch.values().map(|r| r.capacity() * size_of::<RequestKey>()).sum::<usize>()
    }
}
