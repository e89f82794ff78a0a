//! The join: what each request has shown and played, and which members are new because of an
//! event.
//!
//! The state is the set. An entry holds a request's few facts of one epoch; whether a member is
//! new is a look-up in that entry, so the join buffer, the duplicate filter and the counted set
//! are one structure. Facts are grouped by the (longest) epoch of their event time and a group
//! goes whole; nothing is dropped by the age of a key, by touch or by wall time.
//!
//! Plays are few, so they stay in a side table by request across all epochs: an impression looks
//! once, not once for each epoch that its window reaches.

mod arena;
pub mod cold;
mod group;
mod plays;
mod saved;

use crate::settings::{EpochOfPlay, Impressions, Match, Settings};
use crate::symbols::Symbols;
use cold::{ColdError, ColdPlace};
use foldhash::fast::FixedState;
use group::{Fact, Group, Handle, Look};
use marquee_model::{Kind, RequestKey, Side};
use plays::{Play, Plays};
pub use saved::Unsaved;
pub(crate) use saved::{SavedFact, SavedPlay};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

/// One event after filter and transform, its texts replaced by numbers of the lane's symbols.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Impression or play.
    pub kind: Kind,
    /// Stands for the request id.
    pub request: RequestKey,
    /// Number of the transformed video.
    pub video: u32,
    /// Number of the tuple of slices.
    pub tuple: u32,
    /// Event time, milliseconds since 1970 UTC, not negative.
    pub time_ms: i64,
}

/// A member that is new: the request of the event that was applied, in one side of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The (longest) epoch whose group holds it.
    pub epoch: i64,
    /// Which of the cell's two sets.
    pub side: Side,
    /// Number of the cell's video.
    pub video: u32,
    /// Number of the cell's slice.
    pub slice: u32,
    /// Index of the cell's length in `Settings::epochs_ms`.
    pub length: u8,
    /// Start of the cell's epoch, milliseconds after the start of the longest epoch.
    pub start_offset_ms: u32,
    /// Whether all facts that prove it lie in epochs that were open at the last commit: then an
    /// earlier run that got as far as that commit has emitted it.
    pub from_open_epochs: bool,
}

/// Where new members go.
pub trait Emit {
    /// Called once for each member, the first time that it is found in a state.
    fn member(&mut self, member: Member);

    /// Called once for each play that finds an impression, with the time from that to the play: no
    /// count depends on it. Where a request has 64 plays or more, some that
    /// came before their impression may be passed over.
    #[inline]
    fn found(&mut self, _after_ms: i64) {}
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is a new fact (or, being late, was matched without being kept).
    New,
    /// The same event was there before.
    Duplicate,
    /// The request has too many facts of this kind in this epoch: not applied.
    TooManyFacts,
}

/// The state of the join in one lane.
#[derive(Debug)]
pub struct Join {
    settings: Settings,
    seed: u64,
    hasher: FixedState,
    /// Epochs before it emit nothing, ever again.
    frontier: i64,
    /// Facts of epochs before it are not kept. At most the frontier; lower only after a rebuild.
    kept_from: i64,
    /// The frontier when the state was made or rebuilt.
    first_frontier: i64,
    groups: BTreeMap<i64, Group>,
    plays: Plays,
    /// With one length and one grouping set a member is new or not: no mask is needed.
    simple: bool,
}

impl Join {
    /// An empty state whose first open epoch is `frontier`, and which keeps facts from
    /// `kept_from` on (lower than the frontier while rebuilding).
    pub fn new(settings: &Settings, seed: u64, frontier: i64, kept_from: i64) -> Self {
        Join {
            simple: settings.epochs_ms.len() * settings.groupings == 1,
            settings: settings.clone(),
            seed,
            hasher: FixedState::with_seed(seed),
            frontier,
            kept_from: kept_from.min(frontier),
            first_frontier: frontier,
            groups: BTreeMap::new(),
            plays: Plays::new(seed, settings.longest_ms()),
        }
    }

    /// The first epoch that is open.
    pub fn frontier(&self) -> i64 {
        self.frontier
    }

    /// The oldest epoch that may hold facts.
    pub fn kept_from(&self) -> i64 {
        self.kept_from
    }

    /// Drops every epoch that is gone at this watermark.
    pub fn drop_before(&mut self, watermark_ms: i64) {
        let first_open = self.settings.first_open_at(watermark_ms);
        if first_open > self.kept_from {
            self.kept_from = first_open;
            self.groups = self.groups.split_off(&first_open);
            self.plays.drop_before(first_open);
        }
        self.frontier = self.frontier.max(first_open);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.groups.clear();
        self.plays.clear();
    }

    /// Requests and memory of the state.
    pub fn size(&self) -> StateSize {
        StateSize {
            requests: self.groups.values().map(Group::requests).sum(),
            facts_in_memory: self.groups.values().map(Group::facts_in_memory).sum(),
            memory_bytes: self.groups.values().map(Group::memory_bytes).sum::<usize>()
                + self.plays.memory_bytes(),
            disk_bytes: self.groups.values().map(Group::disk_bytes).sum::<u64>()
                + self.plays.disk_bytes(),
            open_epochs: self.groups.range(self.frontier..).count(),
        }
    }

    /// Moves the oldest part of the state that is worth it to disk: what remains findable there
    /// takes a hundredth of the memory. Returns about how many bytes of memory became free; 0 where
    /// nothing is left that is worth it: all together less than `at_least` so many bytes.
    pub fn spill(&mut self, place: &dyn ColdPlace, at_least: usize) -> Result<usize, ColdError> {
        let at_least = at_least.max(1);
        let sizes = self.groups.values().map(Group::spillable_bytes);
        let (largest, all) = sizes.fold((0, 0), |(most, sum), size| (size.max(most), sum + size));
        let plays = self.plays.spillable_bytes();
        if plays >= at_least && plays > all / 4 {
            self.plays.spill(place)?;
            return Ok(plays);
        }
        // What events bring back makes many small parts; to write each of them again and again
        // would be slow.
        let worth = largest.min(all / 16).max(at_least);
        let oldest = self.groups.values_mut().find(|group| group.spillable_bytes() >= worth);
        match oldest {
            Some(group) => Join::spill_groups(&mut [group], place),
            None if all >= at_least => {
                // Short epochs are many and small: none is worth a place of its own, but the oldest
                // of them together are, and there may be thousands.
                let enough = (all / 16).max(at_least);
                let mut sum = 0;
                let oldest = self.groups.values_mut().filter(|group| group.spillable_bytes() > 0);
                let mut oldest: Vec<&mut Group> = oldest
                    .take_while(|group| {
                        let is_short = sum < enough;
                        sum += group.spillable_bytes();
                        is_short
                    })
                    .collect();
                Join::spill_groups(&mut oldest, place)
            }
            None => Ok(0),
        }
    }

    fn spill_groups(groups: &mut [&mut Group], place: &dyn ColdPlace) -> Result<usize, ColdError> {
        let bytes = |groups: &[&mut Group]| -> usize {
            groups.iter().map(|group| group.spillable_bytes()).sum()
        };
        let before = bytes(groups);
        Group::spill(groups, place)?;
        Ok(before - bytes(groups))
    }

    /// Why a part of the state on disk could not be read back, if that has happened. What was
    /// emitted since then may not be written.
    pub fn failure(&self) -> Option<&ColdError> {
        self.plays.failure().or_else(|| self.groups.values().find_map(Group::failure))
    }

    /// Applies one event: remembers it, and emits every member that is new because of it.
    #[inline]
    pub fn apply(&mut self, event: &Event, symbols: &Symbols, emit: &mut impl Emit) -> Applied {
        let id = Id::new(&self.hasher, event.request);
        self.plays.load(id);
        let scope = Scope {
            id,
            settings: &self.settings,
            symbols,
            simple: self.simple,
            frontier: self.frontier,
            first_frontier: self.first_frontier,
        };
        let epoch = self.settings.epoch_of(event.time_ms);
        let kept = epoch >= self.kept_from;
        match event.kind {
            Kind::Impression => {
                let seed = self.seed;
                let group =
                    kept.then(|| self.groups.entry(epoch).or_insert_with(|| Group::new(seed)));
                scope.impression(event, epoch, group, &mut self.plays, emit)
            }
            Kind::Play => scope.play(event, epoch, kept, &mut self.groups, &mut self.plays, emit),
        }
    }
}

/// A request's key, and its hash under the generation's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    hash: u64,
    words: [u64; 2],
}

impl Id {
    #[inline]
    fn new(hasher: &FixedState, request: RequestKey) -> Self {
        let words = [(request.0 >> 64) as u64, request.0 as u64];
        Id { hash: hash_of(hasher, words), words }
    }
}

#[inline]
fn hash_of(hasher: &FixedState, words: [u64; 2]) -> u64 {
    hasher.hash_one(words)
}

/// How large the state is.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateSize {
    /// Entries: requests, once for each epoch in which they have impressions.
    pub requests: usize,
    /// Facts in memory.
    pub facts_in_memory: usize,
    /// Memory held, in bytes.
    pub memory_bytes: usize,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Open epochs that have facts.
    pub open_epochs: usize,
}

/// What every step of one application needs to know.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// The request of the event.
    id: Id,
    settings: &'a Settings,
    symbols: &'a Symbols,
    simple: bool,
    frontier: i64,
    first_frontier: i64,
}

/// The part of a cell that a fact decides: when, and in which slices.
#[derive(Clone, Copy)]
struct Place {
    epoch: i64,
    offset_ms: u32,
    tuple: u32,
}

impl Scope<'_> {
    fn impression(
        &self,
        event: &Event,
        epoch: i64,
        mut group: Option<&mut Group>,
        plays: &mut Plays,
        emit: &mut impl Emit,
    ) -> Applied {
        let fact = Fact::impression(event.video, self.offset_of(event.time_ms, epoch), event.tuple);
        let mut kept = None;
        if let Some(group) = group.as_deref_mut() {
            let handle = group.entry(self.id);
            let look = group.look(handle, fact);
            if look == Look::Known {
                return Applied::Duplicate;
            }
            let limit = self.settings.max_facts as usize;
            if self.is_limited(epoch)
                && group.len(handle) >= limit
                && group.impressions(handle) >= limit
            {
                return Applied::TooManyFacts;
            }
            if self.settings.impressions == Impressions::All && epoch >= self.frontier {
                let fresh = match look {
                    Look::New => self.all(),
                    _ if self.simple => 0,
                    _ => self.fresh_in(group, handle, fact, |f| f.is_impression()),
                };
                self.emit(
                    Side::Impressions,
                    fact.video,
                    self.place(epoch, fact),
                    fresh,
                    true,
                    emit,
                );
            }
            kept = Some((handle, group.push(handle, fact)));
        }
        if plays.of(self.id).is_empty() {
            return Applied::New; // as most requests
        }
        for place in self.play_candidates(plays, event.video) {
            let play = plays.of(self.id)[place];
            if !self.is_match(event.video, event.time_ms, &play) {
                continue;
            }
            if let (Some((handle, at)), Some(group)) = (kept, group.as_deref_mut()) {
                self.count_in_cohort(epoch, group, handle, at, &play, emit);
            }
            self.count_by_play(plays, place, epoch, emit);
            if !play.is_joined() {
                emit.found(play.time_ms - event.time_ms);
                plays.set_joined(self.id, place);
            }
            // The impression is joined now; other plays may only learn that they are, too.
            let by_cohort_and_play = self.counts_each_play_in_cohorts();
            let by_play = self.settings.epoch_of_play == EpochOfPlay::Play;
            if !by_cohort_and_play
                && (plays.all_joined(self.id) || (!by_play && plays.is_heavy(self.id)))
            {
                break;
            }
        }
        Applied::New
    }

    /// Whether an epoch counts towards `max_facts`. Facts of closed epochs, which only a rebuild
    /// keeps, do not: the first time such an event was late and matched without being kept.
    fn is_limited(&self, epoch: i64) -> bool {
        epoch >= self.first_frontier
    }

    fn play(
        &self,
        event: &Event,
        epoch: i64,
        kept: bool,
        groups: &mut BTreeMap<i64, Group>,
        plays: &mut Plays,
        emit: &mut impl Emit,
    ) -> Applied {
        let Event { video, tuple, time_ms, .. } = *event;
        let play = Play::new(time_ms, video, tuple);
        if plays.has(self.id, &play) {
            return Applied::Duplicate;
        }
        let limit = self.settings.max_facts as usize;
        if self.is_limited(epoch)
            && plays.of(self.id).len() >= limit
            && plays.in_epoch(self.id, epoch) >= limit
        {
            return Applied::TooManyFacts;
        }
        let stored = kept.then(|| plays.push(self.id, play));
        let oldest = self.settings.epoch_of(time_ms - self.settings.within_ms);
        let newest = self.settings.epoch_of(time_ms + self.settings.early_ms);
        let mut found_after_ms = None;
        for (&shown_in, group) in groups.range_mut(oldest..=newest) {
            let Some(handle) = group.find(self.id) else { continue };
            for place in self.candidates(group, handle, shown_in, &play, &mut found_after_ms) {
                let fact = group.fact(handle, place);
                let shown_ms = self.shown_ms(shown_in, fact);
                if !fact.is_impression() || !self.is_match(fact.video, shown_ms, &play) {
                    continue;
                }
                found_after_ms.get_or_insert(time_ms - shown_ms);
                self.count_in_cohort(shown_in, group, handle, place, &play, emit);
                if let Some(stored) = stored {
                    self.count_by_play(plays, stored, shown_in, emit);
                }
                if self.one_match_is_enough()
                    || (!self.counts_each_play_in_cohorts() && group.all_joined(handle))
                {
                    break;
                }
            }
        }
        if let Some(after_ms) = found_after_ms {
            emit.found(after_ms);
            if let Some(stored) = stored {
                plays.set_joined(self.id, stored);
            }
        }
        Applied::New
    }

    /// Places of the facts that a play may match and tell something. One that matches and knows it
    /// all is only noted as found.
    #[inline]
    fn candidates(
        &self,
        group: &Group,
        handle: Handle,
        shown_in: i64,
        play: &Play,
        found_after_ms: &mut Option<i64>,
    ) -> SmallVec<[u32; 16]> {
        match self.settings.match_ {
            // An impression that is joined learns nothing from another play, and that play nothing
            // from it, unless it counts in an epoch of its own.
            Match::RequestAndVideo => {
                let all = self.settings.epoch_of_play == EpochOfPlay::Play;
                let mut is_told = |fact: Fact| {
                    if !all && fact.is_joined() && found_after_ms.is_none() {
                        let shown_ms = self.shown_ms(shown_in, fact);
                        *found_after_ms = self
                            .is_match(fact.video, shown_ms, play)
                            .then_some(play.time_ms - shown_ms);
                    }
                    all || !fact.is_joined()
                };
                let facts = group.facts_of(handle, play.video).filter(|(_, fact)| is_told(*fact));
                facts.map(|(place, _)| place).collect()
            }
            Match::Request => (0..group.len(handle) as u32).collect(),
        }
    }

    /// Places of the plays that an impression may match.
    #[inline]
    fn play_candidates(&self, plays: &Plays, video: u32) -> SmallVec<[usize; 4]> {
        match self.settings.match_ {
            Match::RequestAndVideo => {
                plays.of_video(self.id, video).map(|(place, _)| place).collect()
            }
            Match::Request => (0..plays.of(self.id).len()).collect(),
        }
    }

    /// Whether every pair of an impression and a play can be a member of its own: one video's play
    /// in the cohort of another video's impression.
    #[inline]
    fn counts_each_play_in_cohorts(&self) -> bool {
        self.settings.match_ == Match::Request
            && self.settings.epoch_of_play == EpochOfPlay::Impression
    }

    /// Whether the first matching impression of an epoch tells all that a play adds there: with
    /// one cell for all of a video's impressions, and no impression that has to learn of it.
    #[inline]
    fn one_match_is_enough(&self) -> bool {
        self.simple
            && self.settings.match_ == Match::Request
            && self.settings.impressions == Impressions::All
    }

    #[inline]
    fn shown_ms(&self, epoch: i64, fact: Fact) -> i64 {
        epoch * self.settings.longest_ms() + i64::from(fact.offset_ms)
    }

    #[inline]
    fn is_match(&self, video: u32, shown_ms: i64, play: &Play) -> bool {
        let after_ms = play.time_ms - shown_ms;
        (self.settings.match_ == Match::Request || video == play.video)
            && -self.settings.early_ms <= after_ms
            && after_ms <= self.settings.within_ms
    }

    /// An impression that is kept and a play match: the members in the impression's epoch.
    fn count_in_cohort(
        &self,
        epoch: i64,
        group: &mut Group,
        handle: Handle,
        place: u32,
        play: &Play,
        emit: &mut impl Emit,
    ) {
        let fact = group.fact(handle, place);
        let here = self.place(epoch, fact);
        let open = self.settings.epoch_of(play.time_ms) >= self.first_frontier;
        let joined_only = self.settings.impressions == Impressions::Joined;
        let in_cohort = self.settings.epoch_of_play == EpochOfPlay::Impression;
        let same_video = self.settings.match_ == Match::RequestAndVideo;
        if !fact.is_joined() && (joined_only || (in_cohort && same_video)) {
            let fresh = self.fresh_in(group, handle, fact, |f| f.is_impression() && f.is_joined());
            if joined_only {
                self.emit(Side::Impressions, fact.video, here, fresh, open, emit);
            }
            if in_cohort && same_video {
                self.emit(Side::Plays, fact.video, here, fresh, open, emit);
            }
            group.set_joined(handle, place);
        }
        if in_cohort && !same_video {
            let member = Fact::play_member(play.video, fact);
            let fresh = self.fresh_in(group, handle, member, |f| !f.is_impression());
            if fresh != 0 {
                self.emit(Side::Plays, play.video, here, fresh, open, emit);
                group.push(handle, member);
            }
        }
    }

    /// An impression and a play that is kept match: the members in the play's own epoch.
    fn count_by_play(&self, plays: &mut Plays, place: usize, shown_in: i64, emit: &mut impl Emit) {
        let play = plays.of(self.id)[place];
        if self.settings.epoch_of_play != EpochOfPlay::Play || play.is_joined() {
            return;
        }
        let here = self.place_of_play(&play);
        let counted = plays
            .of_video(self.id, play.video)
            .filter(|(_, p)| p.is_joined())
            .map(|(_, p)| self.place_of_play(&p))
            .filter(|place| place.epoch == here.epoch);
        let fresh = self.fresh(counted, here);
        self.emit(Side::Plays, play.video, here, fresh, shown_in >= self.first_frontier, emit);
        plays.set_joined(self.id, place);
    }

    #[inline]
    fn offset_of(&self, time_ms: i64, epoch: i64) -> u32 {
        (time_ms - epoch * self.settings.longest_ms()) as u32
    }

    #[inline]
    fn place(&self, epoch: i64, fact: Fact) -> Place {
        Place { epoch, offset_ms: fact.offset_ms, tuple: fact.tuple }
    }

    fn place_of_play(&self, play: &Play) -> Place {
        let epoch = self.settings.epoch_of(play.time_ms);
        Place { epoch, offset_ms: self.offset_of(play.time_ms, epoch), tuple: play.tuple() }
    }

    /// Which cells of a fact no other counted fact of its entry and video has a member in.
    #[inline]
    fn fresh_in(
        &self,
        group: &Group,
        handle: Handle,
        fact: Fact,
        counted: impl Fn(Fact) -> bool,
    ) -> u64 {
        let others = group.facts_of(handle, fact.video).filter(|(_, f)| counted(*f));
        self.fresh(others.map(|(_, f)| self.place(0, f)), self.place(0, fact))
    }

    /// One bit for each (length, grouping set).
    #[inline]
    fn all(&self) -> u64 {
        u64::MAX >> (64 - self.settings.epochs_ms.len() * self.settings.groupings)
    }

    /// One bit for each (length, grouping set), set where no other fact falls into the same cell.
    #[inline]
    fn fresh(&self, mut others: impl Iterator<Item = Place>, this: Place) -> u64 {
        if self.simple {
            return u64::from(others.next().is_none());
        }
        let (lengths, groupings) = (&self.settings.epochs_ms, self.settings.groupings);
        let mut fresh = self.all();
        let slices = self.symbols.slices_of(this.tuple);
        for other in others {
            let other_slices = self.symbols.slices_of(other.tuple);
            for (l, length_ms) in lengths.iter().enumerate() {
                let length_ms = *length_ms as u32;
                if other.offset_ms / length_ms != this.offset_ms / length_ms {
                    continue;
                }
                for g in 0..groupings {
                    if slices[g] == other_slices[g] {
                        fresh &= !(1 << (l * groupings + g));
                    }
                }
            }
            if fresh == 0 {
                break;
            }
        }
        fresh
    }

    /// Emits a member for each bit of `fresh`, unless its epoch is closed.
    #[inline]
    fn emit(
        &self,
        side: Side,
        video: u32,
        place: Place,
        fresh: u64,
        from_open_epochs: bool,
        emit: &mut impl Emit,
    ) {
        if place.epoch < self.frontier {
            return;
        }
        let groupings = self.settings.groupings;
        let mut rest = fresh;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let length_ms = self.settings.epochs_ms[bit / groupings] as u32;
            emit.member(Member {
                epoch: place.epoch,
                side,
                video,
                slice: self.symbols.slices_of(place.tuple)[bit % groupings],
                length: (bit / groupings) as u8,
                start_offset_ms: place.offset_ms / length_ms * length_ms,
                from_open_epochs,
            });
        }
    }
}
