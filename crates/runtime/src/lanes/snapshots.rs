//! Snapshots of the lanes' state: when they are taken, which ones are kept, and from which one a
//! lane may go on.
//!
//! A snapshot shortens a rebuild, and changes nothing of what comes out of it: the lane starts from
//! the state at the snapshot's offsets instead of from nothing, reads the log from there to its
//! commit, and is then compared with the store as ever. That is right because of two rules.
//!
//! *It holds nothing that is not durable.* It is taken right after a commit, of a lane that has read
//! nothing since and whose frontier is that of the commit; so it is never ahead of what the store
//! holds, and every member that it counts was written.
//!
//! *The store holds nothing that it does not prove.* Each start of a lane has a number, its *life*,
//! which its first commit makes durable. A rebuild may find members that the life before did not: it
//! still has facts that the other had dropped by then. A snapshot of an earlier life does not know
//! them. So a commit can be reached only from a snapshot of the life that wrote it, or from the one
//! with which that life began; what the log says between the two is then the same for both. Where
//! the store holds members of other origin (it was seeded, or another process had the lane), no
//! snapshot is used: a longer replay is never a wrong number.

use super::lane::LaneOwner;
use super::note::ANY_EPOCH;
use super::owner::Owner;
use super::resume::Resumption;
use super::room::Room;
use super::{LaneError, LanesSettings};
use crate::plan::Plan;
use crate::status::SnapshotStatus;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::join::Unsaved;
use marquee_pipeline::lane::Resume;
use marquee_pipeline::snapshot::{About, HEADER_BYTES, Header, Loader, SnapshotError, read_header};
use marquee_sinks::LaneState;
use marquee_sinks::snapshots::{Snapshots, SnapshotsError};
use marquee_sources::AssignedLane;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

/// Snapshots of a lane that are kept: the last one may turn out to be damaged.
const KEPT: usize = 2;
/// A lane that is taken away saves a state of up to so many bytes: that takes a moment only, and the
/// group mostly gives it back.
const QUICK_BYTES: u64 = 512 << 20;
/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Where snapshots are kept, and when they are taken.
#[derive(Clone)]
pub struct SnapshotsSettings {
    /// The place, which belongs to the store alone.
    pub place: Arc<dyn Snapshots>,
    /// How long after one the next one of the same lane is taken.
    pub interval: Duration,
}

/// A snapshot from which a lane goes on.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) next_offsets: Vec<u64>,
}

/// Snapshots that turned out to be of no use while a lane was being resumed.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    names: BTreeSet<String>,
    are_all: bool,
}

impl Refused {
    fn contains(&self, name: &str) -> bool {
        self.are_all || self.names.contains(name)
    }

    /// None is used any more: they do not go together with the store.
    pub(super) fn all(&mut self) {
        self.are_all = true;
    }

    /// This one is damaged.
    pub(super) fn one(&mut self, chosen: &Chosen) {
        self.names.insert(chosen.name.clone());
    }
}

/// The newest snapshot from which a lane can go on to the commit of its own store.
pub(super) fn choose(
    resumption: &Resumption,
    assigned: &AssignedLane,
    settings: &LanesSettings,
) -> Option<Chosen> {
    let place = &*settings.snapshots.as_ref()?.place;
    let state = &resumption.state;
    let is_index_whole = state.smallest_offsets.iter().all(|i| !i.contains_key(&ANY_EPOCH));
    if resumption.is_new || !resumption.is_own || resumption.is_seeded || !is_index_whole {
        return None;
    }
    let lane = resumption.lane;
    let names = place.list(lane).unwrap_or_else(|error| {
        tracing::warn!(lane, "{error}; the log is read again instead");
        Vec::new()
    });
    let mut names = names.into_iter().rev().filter(|name| !resumption.refused.contains(name));
    names.find_map(|name| match header_of(place, lane, &name) {
        Ok(header) => match misfit(&header, &name, state, assigned, settings) {
            None => Some(Chosen { name, next_offsets: header.about.next_offsets }),
            Some(reason) => {
                tracing::info!(lane, snapshot = name, "a snapshot is not used: {reason}");
                None
            }
        },
        Err(error) => {
            tracing::warn!(lane, snapshot = name, "a snapshot cannot be used: {error}");
            None
        }
    })
}

/// Why a lane cannot go on from a snapshot to its commit, if it cannot.
fn misfit(
    header: &Header,
    name: &str,
    commit: &LaneState,
    assigned: &AssignedLane,
    settings: &LanesSettings,
) -> Option<&'static str> {
    let About { topic_ids, next_offsets, life, .. } = &header.about;
    let is_same = |(was, is): (&String, &String)| was.is_empty() || is.is_empty() || was == is;
    let pairs = || next_offsets.iter().zip(&commit.next_offsets);
    let mut starts = pairs().zip(&assigned.start_offsets);
    if !is_ours(header, assigned.lane, settings) {
        return Some("it is of another generation");
    }
    if header.about.shape != shape_of(&settings.plan) {
        return Some("its settings are written in another order");
    }
    if !topic_ids.iter().zip(&settings.topic_ids).all(is_same) {
        return Some("a topic was made anew");
    }
    if next_offsets.len() != commit.next_offsets.len()
        || pairs().any(|(at, committed)| at > committed)
        || header.frontier > commit.frontier
    {
        return Some("it is ahead of what the store holds");
    }
    if (*life != commit.life || *life == 0) && commit.snapshot != name {
        return Some("the lane was rebuilt without it since");
    }
    // What the log has lost is in the state; but from there on it must be there.
    if starts.any(|((at, committed), start)| at < start && at != committed) {
        return Some("the log no longer holds what came after it");
    }
    None
}

fn is_ours(header: &Header, lane: u32, settings: &LanesSettings) -> bool {
    let About { settings: name, lane: of, .. } = &header.about;
    *name == settings.name && *of == lane && header.has_secret(settings.secret)
}

/// Stands for what the numbers in a snapshot mean: settings that count the same may be written in
/// another order.
fn shape_of(plan: &Plan) -> String {
    let mut hasher = SipHasher13::new();
    let slices = [&plan.impressions, &plan.plays].map(|stream| stream.stream.slices());
    hasher.write(format!("{:?} {slices:?}", plan.settings.epochs_ms).as_bytes());
    format!("{:032x}", hasher.finish128().as_u128())
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Place(#[from] SnapshotsError),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Content(#[from] SnapshotError),
}

fn header_of(place: &dyn Snapshots, lane: u32, name: &str) -> Result<Header, ReadError> {
    let mut beginning = Vec::new();
    place.open(lane, name)?.reader.take(HEADER_BYTES as u64).read_to_end(&mut beginning)?;
    Ok(read_header(&beginning)?)
}

/// The state of a lane as a snapshot has it, ready to be fed what came after it; `None` where it
/// cannot be read.
pub(super) fn load(
    resumption: &Resumption,
    chosen: &Chosen,
    settings: &LanesSettings,
) -> Option<LanePipeline> {
    let place = &*settings.snapshots.as_ref()?.place;
    let (lane, name) = (resumption.lane, &chosen.name);
    let began = settings.clock.passed();
    let error = match read(place, name, resumption, settings) {
        Ok(pipeline) => {
            let milliseconds = (settings.clock.passed() - began).as_millis();
            let offsets = &chosen.next_offsets;
            tracing::info!(lane, ?offsets, milliseconds, "the state was taken from a snapshot");
            return Some(pipeline);
        }
        Err(error) => error,
    };
    tracing::warn!(lane, snapshot = name, "a snapshot cannot be used: {error}");
    if matches!(error, ReadError::Content(SnapshotError::Damaged(_))) {
        remove(place, lane, name);
    }
    None
}

fn read(
    place: &dyn Snapshots,
    name: &str,
    resumption: &Resumption,
    settings: &LanesSettings,
) -> Result<LanePipeline, ReadError> {
    let mut stored = place.open(resumption.lane, name)?;
    let LaneState { frontier, counters, .. } = resumption.state;
    let resume = Resume { frontier, counters };
    let mut loader = Loader::new(LaneOwner::pipeline_settings(settings), resume, stored.bytes);
    let mut room = Room::of(&settings.memory);
    let mut piece = vec![0; PIECE];
    loop {
        match stored.reader.read(&mut piece) {
            Ok(0) => return Ok(loader.finish()?),
            Ok(bytes) => {
                loader.feed(&piece[..bytes])?;
                if let Some(pipeline) = loader.lane_so_far() {
                    room.fit(resumption.lane, pipeline);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a lane knows of its snapshots.
#[derive(Debug)]
pub(super) struct Saving {
    /// Whether this life has committed: before that its number is not durable, and the next one
    /// would have the same.
    has_committed: bool,
    /// When the next one is due, by the clock's passed time.
    due: Duration,
    /// The position of the last one that a restart could begin with.
    at: Option<Vec<u64>>,
    status: Option<SnapshotStatus>,
}

impl Saving {
    /// A lane that was rebuilt without a snapshot gets one soon, or the next restart would take as
    /// long as this one.
    pub(super) fn new(resumption: &Resumption, settings: &LanesSettings) -> Self {
        let interval = settings.snapshots.as_ref().map_or(Duration::MAX, |s| s.interval);
        let at = resumption.snapshot.as_ref().map(|chosen| chosen.next_offsets.clone());
        let is_soon = !resumption.is_new && at.is_none();
        let wait = if is_soon { Duration::ZERO } else { interval };
        let due = settings.clock.passed().saturating_add(wait);
        Saving { has_committed: false, due, at, status: None }
    }

    pub(super) fn committed(&mut self) {
        self.has_committed = true;
    }

    pub(super) fn status(&self) -> Option<SnapshotStatus> {
        self.status
    }
}

impl LaneOwner {
    /// Whether the state is exactly that of a commit which names this life, and a snapshot of it
    /// would be of use.
    fn can_save(&self) -> bool {
        self.saving.has_committed
            && self.is_as_committed()
            && self.state.frontier == self.pipeline.frontier()
            && self.pipeline.can_be_saved()
            && self.saving.at.as_ref() != Some(&self.state.next_offsets)
    }

    /// Takes a snapshot. What goes wrong with it is said and nothing more: a restart then takes
    /// longer.
    fn save(&mut self, settings: &LanesSettings) {
        let Some(SnapshotsSettings { place, interval }) = &settings.snapshots else { return };
        let began = settings.clock.passed();
        let LaneState { next_offsets, life, .. } = &self.state;
        let about = About {
            settings: settings.name.clone(),
            shape: shape_of(&settings.plan),
            lane: self.lane,
            topic_ids: self.state.topic_ids.clone(),
            next_offsets: next_offsets.clone(),
            life: *life,
        };
        let name = format!("{life:010}-{:020}", next_offsets.iter().sum::<u64>());
        let pipeline = &self.pipeline;
        let put = place.put(self.lane, &name, &mut |out| {
            pipeline.save(&about, |bytes| out.write_all(bytes)).map_err(|error| match error {
                Unsaved::Write(error) => error,
                Unsaved::Cold(error) => io::Error::other(error),
            })
        });
        match put {
            Ok(bytes) => {
                self.saving.at = Some(about.next_offsets);
                let took = settings.clock.passed() - began;
                let taken_ms = settings.clock.now_ms();
                tracing::debug!(lane = self.lane, bytes, ?took, "took a snapshot");
                self.saving.status = Some(SnapshotStatus { taken_ms, bytes, took });
                prune(&**place, self.lane, settings);
            }
            Err(error) => {
                let lane = self.lane;
                tracing::warn!(lane, "no snapshot was taken: {error}; a restart takes longer");
            }
        }
        self.saving.due = settings.clock.passed().saturating_add(*interval);
    }
}

impl Owner {
    /// Whether a snapshot is due.
    pub(super) fn has_due_snapshot(&self) -> bool {
        self.due_snapshot().is_some()
    }

    /// The lane whose snapshot has been due for longest.
    fn due_snapshot(&self) -> Option<usize> {
        self.settings.snapshots.as_ref()?;
        let passed = self.passed();
        let is_due = |lane: &LaneOwner| passed >= lane.saving.due && lane.can_save();
        let due = (0..self.lanes.len()).filter(|lane| is_due(&self.lanes[*lane]));
        due.min_by_key(|lane| self.lanes[*lane].saving.due)
    }

    /// Takes one snapshot that is due: one lane at a time, so that none stands still for long.
    pub(super) fn save_one(&mut self) {
        if let Some(lane) = self.due_snapshot() {
            self.lanes[lane].save(&self.settings);
            self.status.set(self.lanes[lane].status(&*self.source));
        }
    }

    /// Whether a batch without records would make the frontier of a lane durable that moved after
    /// its last commit: a snapshot must not be ahead.
    pub(super) fn has_frontier_to_write(&self) -> bool {
        let has_moved = |lane: &LaneOwner| lane.state.frontier != lane.pipeline.frontier();
        self.settings.snapshots.is_some() && self.lanes.iter().any(has_moved)
    }

    /// Takes the last ones, before a stop.
    pub(super) fn save_all(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.can_save()) {
            lane.save(&self.settings);
        }
    }

    /// Takes those that are quickly taken, before the lanes are taken away.
    pub(super) fn save_quickly(&mut self) {
        let is_quick = |lane: &LaneOwner| {
            let size = lane.pipeline.size();
            size.memory_bytes as u64 + size.disk_bytes <= QUICK_BYTES
        };
        for lane in self.lanes.iter_mut().filter(|lane| lane.can_save() && is_quick(lane)) {
            lane.save(&self.settings);
        }
    }
}

/// Removes all but the last snapshots of a lane, and those that are torn. What another generation or
/// a newer program has left is theirs.
fn prune(place: &dyn Snapshots, lane: u32, settings: &LanesSettings) {
    let names = match place.list(lane) {
        Ok(names) => names,
        Err(error) => return tracing::warn!(lane, "{error}"),
    };
    let mut kept = 0;
    for name in names.iter().rev() {
        match header_of(place, lane, name) {
            Ok(header) if is_ours(&header, lane, settings) => {
                kept += 1;
                if kept > KEPT {
                    remove(place, lane, name);
                }
            }
            Err(ReadError::Content(SnapshotError::Damaged(_))) => remove(place, lane, name),
            Ok(_) | Err(_) => {}
        }
    }
}

fn remove(place: &dyn Snapshots, lane: u32, name: &str) {
    if let Err(error) = place.remove(lane, name) {
        tracing::warn!(lane, "{error}");
    }
}

impl Resumption {
    /// The snapshot with which the lane began is of no use. `LaneError`s of the store remain what
    /// they are once the log was read without one.
    pub(super) fn refuses(&self, result: &Result<bool, LaneError>) -> bool {
        let is_refuted = matches!(result, Ok(false) | Err(LaneError::Unproven { .. }));
        self.snapshot.is_some() && is_refuted
    }
}
