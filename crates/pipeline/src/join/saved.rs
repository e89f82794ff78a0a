//! What a snapshot takes from the state of the join and gives back, whatever the layout in memory.
//!
//! Numbers of symbols are those of the lane; who writes a snapshot may give them others.

use super::cold::ColdError;
use super::group::{Fact, Group};
use super::plays::Play;
use super::{Id, Join};
use marquee_model::RequestKey;

/// Why a snapshot could not be written.
#[derive(Debug)]
pub enum Unsaved<E> {
    /// Whoever takes its bytes refused.
    Write(E),
    /// A part of the state on disk could not be read.
    Cold(ColdError),
}

impl<E> From<E> for Unsaved<E> {
    fn from(error: E) -> Self {
        Unsaved::Write(error)
    }
}

/// A fact of one request and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedFact {
    /// Number of the video.
    pub(crate) video: u32,
    /// Event time, milliseconds after the start of the epoch.
    pub(crate) offset_ms: u32,
    /// Number of the tuple of slices.
    pub(crate) tuple: u32,
    /// Whether it is an impression, and not the memory that a play was counted with one.
    pub(crate) is_impression: bool,
    /// Whether the impression matches a play.
    pub(crate) is_joined: bool,
}

/// A play of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedPlay {
    /// Event time, milliseconds since 1970 UTC.
    pub(crate) time_ms: i64,
    /// Number of the video.
    pub(crate) video: u32,
    /// Number of the tuple of slices.
    pub(crate) tuple: u32,
    /// Whether it matches an impression.
    pub(crate) is_joined: bool,
}

/// The key of a request, from the words by which it is found.
pub(super) fn key_of([high, low]: [u64; 2]) -> RequestKey {
    RequestKey(u128::from(high) << 64 | u128::from(low))
}

impl Join {
    /// The epochs that have facts, and how many requests each, at most.
    pub(crate) fn saved_epochs(&self) -> impl Iterator<Item = (i64, usize)> {
        self.groups.iter().map(|(epoch, group)| (*epoch, group.requests()))
    }

    /// Every request of an epoch with its facts.
    pub(crate) fn each_request<E>(
        &self,
        epoch: i64,
        mut each: impl FnMut(RequestKey, &[SavedFact]) -> Result<(), E>,
    ) -> Result<(), Unsaved<E>> {
        let Some(group) = self.groups.get(&epoch) else { return Ok(()) };
        let mut saved = Vec::new();
        group.each_request(|request, facts| {
            saved.clear();
            saved.extend(facts.map(|fact| SavedFact {
                video: fact.video,
                offset_ms: fact.offset_ms,
                tuple: fact.tuple,
                is_impression: fact.is_impression(),
                is_joined: fact.is_joined(),
            }));
            each(request, &saved)
        })
    }

    /// Every request that has plays, with them.
    pub(crate) fn each_player<E>(
        &self,
        mut each: impl FnMut(RequestKey, &[SavedPlay]) -> Result<(), E>,
    ) -> Result<(), Unsaved<E>> {
        let mut saved = Vec::new();
        self.plays.each_request(|request, plays| {
            saved.clear();
            saved.extend(plays.iter().map(|play| SavedPlay {
                time_ms: play.time_ms,
                video: play.video,
                tuple: play.tuple(),
                is_joined: play.is_joined(),
            }));
            each(request, &saved)
        })
    }

    /// Makes room for requests of an epoch.
    pub(crate) fn reserve(&mut self, epoch: i64, requests: usize) {
        let seed = self.seed;
        self.groups.entry(epoch).or_insert_with(|| Group::new(seed)).reserve(requests);
    }

    /// Takes facts of a request in an epoch that was named to [`Join::reserve`].
    pub(crate) fn load_facts(&mut self, epoch: i64, request: RequestKey, facts: &[SavedFact]) {
        let id = Id::new(&self.hasher, request);
        let group = self.groups.get_mut(&epoch).expect("the epoch was named before");
        let handle = group.entry(id);
        for fact in facts {
            let impression = Fact::impression(fact.video, fact.offset_ms, fact.tuple);
            if !fact.is_impression {
                group.push(handle, Fact::play_member(fact.video, impression));
                continue;
            }
            let place = group.push(handle, impression);
            if fact.is_joined {
                group.set_joined(handle, place);
            }
        }
    }

    /// Takes a play.
    pub(crate) fn load_play(&mut self, request: RequestKey, play: &SavedPlay) {
        let SavedPlay { time_ms, video, tuple, is_joined } = *play;
        let id = Id::new(&self.hasher, request);
        self.plays.load(id);
        let place = self.plays.push(id, Play::new(time_ms, video, tuple));
        if is_joined {
            self.plays.set_joined(id, place);
        }
    }
}
