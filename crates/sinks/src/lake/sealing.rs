//! Sealing: what is closed in the store and not in the lake is written there.
//!
//! A **tick** looks how far the lanes have closed, compares the counts of each stretch that closed
//! since with the lake's manifest, and writes what differs. The order is what makes it exact: first
//! the manifest, then the store, then the files, then the next manifest, and that only where the
//! first has not changed meanwhile (see `manifest`). So a process that ends anywhere in between, or
//! several that do the same, leave at most files that nobody lists.
//!
//! A repair or a backfill may add to what is sealed. It is noticed by counts that differ from the
//! fingerprint of the entry: all stretches are looked at again, the newest first, a little with
//! each tick.

mod anew;

use super::deltas::Deltas;
use super::layout::day_of;
use super::manifest::{Base, Manifest, Proposal, Verdict, Wanted};
use super::manifests::Ages;
use super::objects::{Objects, Stop};
use super::rows::Fingerprint;
use super::status::LakeStatus;
use super::writing::{Writing, is_complete};
use super::{LakeError, Layout, Manifests};
use crate::{Gap, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Days whose newest manifest is remembered.
const KNOWN_DAYS: usize = 8;

/// How old what is remembered may be. Nothing depends on it but how soon what others did is seen.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// How it is done.
#[derive(Clone, Debug)]
pub struct SealingSettings {
    /// A file is ended when it has so many bytes.
    pub file_bytes: usize,
    /// A file holds the epochs of so much time, at least one.
    pub span_ms: i64,
    /// Members in memory at a time, about, bytes.
    pub memory_bytes: u64,
    /// How long a tick looks again at what was sealed before.
    pub look_again: Duration,
    /// How often a delta is written of what is open, milliseconds; `None`: never.
    pub deltas_ms: Option<i64>,
    /// Whether the lists of requests are written, or counts only.
    pub members: bool,
    /// How long after its end the store keeps the members of a stretch that is in the lake,
    /// milliseconds; `None`: the store decides for itself.
    pub forget_after_ms: Option<i64>,
    /// When things are taken away.
    pub ages: Ages,
}

impl Default for SealingSettings {
    fn default() -> Self {
        SealingSettings {
            file_bytes: 64 << 20,
            span_ms: 30 * 60_000,
            memory_bytes: 64 << 20,
            look_again: Duration::from_millis(50),
            deltas_ms: None,
            members: true,
            forget_after_ms: None,
            ages: Ages::default(),
        }
    }
}

/// Brings what is closed in a store into the lake.
pub struct Sealing {
    pub(super) store: Arc<dyn Store>,
    objects: Arc<dyn Objects>,
    pub(super) settings: SealingSettings,
    pub(super) status: Arc<LakeStatus>,
    pub(super) stop: Stop,
    /// `None` until the lake has answered for the first time.
    manifests: Option<Manifests>,
    /// How far each lane had closed its stretches, milliseconds.
    pub(super) closed_ms: Vec<i64>,
    /// Stretches to compare.
    waiting: BTreeSet<i64>,
    /// Newest manifests, as far as it is known, and since when.
    known: BTreeMap<String, (Manifest, Instant)>,
    /// Stretches to look at again; the newest is the last.
    again: Vec<i64>,
    /// When a day was swept.
    swept: BTreeMap<String, i64>,
    /// What deltas have said.
    pub(super) deltas: Deltas,
}

impl Sealing {
    /// Of a store into a place.
    pub fn new(
        store: Arc<dyn Store>,
        objects: Arc<dyn Objects>,
        settings: SealingSettings,
        status: Arc<LakeStatus>,
        stop: Stop,
    ) -> Self {
        let lanes = store.generation().lanes as usize;
        Sealing {
            store,
            objects,
            settings,
            status,
            stop,
            manifests: None,
            closed_ms: vec![0; lanes],
            waiting: BTreeSet::new(),
            known: BTreeMap::new(),
            again: Vec::new(),
            swept: BTreeMap::new(),
            deltas: Deltas::default(),
        }
    }

    /// Looks once, and writes what the lake lacks.
    ///
    /// # Errors
    /// The lake or the store failed; what is left is done by the next tick.
    pub fn tick(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let layout = self.layout()?;
        self.note_closed(&layout)?;
        self.say_waiting();
        let gaps = Gap::unrepaired(self.store.gaps()?, &self.store.repairs()?);
        let work: Vec<i64> = self.waiting.iter().copied().collect();
        let mut damage = Ok(());
        for stretch in work {
            match self.seal(&layout, stretch, &gaps, now_ms) {
                Ok(true) => {
                    self.waiting.remove(&stretch);
                }
                Ok(false) => {}
                // One day that cannot be written must not keep the others from it.
                Err(error @ LakeError::Damaged { .. }) => damage = damage.and(Err(error)),
                Err(error) => return Err(error),
            }
            self.say_waiting();
        }
        match self.write_deltas(&layout, &gaps, now_ms) {
            Err(error @ LakeError::Damaged { .. }) => damage = damage.and(Err(error)),
            done => done?,
        }
        match self.look_again(&layout, &gaps, now_ms) {
            Err(error @ LakeError::Damaged { .. }) => damage = damage.and(Err(error)),
            done => done?,
        }
        self.say_waiting();
        damage?;
        self.status.change(|numbers| numbers.looks += 1);
        Ok(())
    }

    /// Whether everything that was closed at the last tick is in the lake.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    fn say_waiting(&self) {
        self.status.change(|numbers| {
            numbers.waiting = self.waiting.len() as u64;
            numbers.waiting_from_ms = self.waiting.first().copied();
        });
    }

    pub(super) fn manifests(&mut self) -> Result<Manifests, LakeError> {
        if let Some(manifests) = &self.manifests {
            return Ok(manifests.clone());
        }
        let generation = self.store.generation();
        let longest_ms = generation.epochs_ms()[0];
        let span_ms = self.settings.span_ms;
        let layout = Layout::new(&generation.id, generation.lanes, longest_ms, span_ms);
        let manifests = Manifests::agree(self.objects.clone(), layout.clone())?;
        if *manifests.layout() != layout {
            tracing::warn!(
                agreed_ms = manifests.layout().stretch_ms,
                "[lake] file_span differs from that with which the lake of this generation was \
                 begun, which stays in force"
            );
        }
        Ok(self.manifests.insert(manifests).clone())
    }

    fn layout(&mut self) -> Result<Layout, LakeError> {
        // How much waits is told even while the lake has never answered.
        let failed = match self.manifests() {
            Ok(manifests) => return Ok(manifests.layout().clone()),
            Err(failed) => failed,
        };
        let generation = self.store.generation();
        let (id, longest_ms) = (&generation.id, generation.epochs_ms()[0]);
        let layout = Layout::new(id, generation.lanes, longest_ms, self.settings.span_ms);
        self.note_closed(&layout)?;
        self.say_waiting();
        // Noted in stretches that others may have agreed on otherwise.
        self.closed_ms.fill(0);
        self.waiting.clear();
        Err(failed)
    }

    /// Notes the stretches that lanes have closed since the last look.
    fn note_closed(&mut self, layout: &Layout) -> Result<(), LakeError> {
        let mut closed = self.closed_ms.clone();
        for (lane, closed_ms) in (0..).zip(&mut closed) {
            let frontier = self.store.lane_state(lane)?.map_or(0, |state| state.frontier);
            let now_ms = layout.stretch_of(frontier.saturating_mul(layout.longest_ms));
            // Another process may have read it later than this one.
            *closed_ms = now_ms.max(*closed_ms);
        }
        let moved = self.closed_ms.iter().zip(&closed).filter(|(was, is)| was < is);
        let (from, to): (Vec<i64>, Vec<i64>) = moved.unzip();
        if let (Some(from_ms), Some(to_ms)) = (from.into_iter().min(), to.into_iter().max()) {
            let epochs = self.store.epochs_between(from_ms, to_ms)?;
            self.waiting.extend(epochs.into_iter().map(|epoch_ms| layout.stretch_of(epoch_ms)));
        }
        self.closed_ms = closed;
        Ok(())
    }

    /// Lanes that have closed a stretch.
    fn lanes_that_closed(&self, stretch: i64) -> BTreeSet<u32> {
        let closed = (0..).zip(&self.closed_ms).filter(|(_, closed_ms)| **closed_ms > stretch);
        closed.map(|(lane, _)| lane).collect()
    }

    /// Writes what of a stretch is closed and differs. `false`: somebody was faster, or gave up, so
    /// it must be looked at once more.
    fn seal(
        &mut self,
        layout: &Layout,
        stretch: i64,
        gaps: &[Gap],
        now_ms: i64,
    ) -> Result<bool, LakeError> {
        let day = day_of(stretch);
        if self.differing(layout, stretch, gaps, false)?.is_empty() {
            return Ok(true);
        }
        // What is proposed is based on a manifest that was read before the store is.
        let lanes = self.differing(layout, stretch, gaps, true)?;
        let Some((manifest, _)) = self.known.get(&day) else { return Ok(false) };
        let manifest = manifest.clone();
        let manifests = self.manifests()?;
        let mut proposals = Vec::new();
        for lane in lanes {
            let base = manifest.base(stretch, lane);
            let writing = self.writing(&manifests, stretch, lane, gaps);
            let entry = match writing.entry(manifest.version + 1, &base) {
                Ok(entry) => entry,
                Err(LakeError::Gone { path }) => return self.gone((stretch, lane), &base, path),
                Err(error) => return Err(error),
            };
            let wanted = Wanted::Closed(entry);
            proposals.push(Proposal { wanted, base, sweeps: manifest.sweeps });
        }
        self.list(&day, &proposals, now_ms)
    }

    pub(super) fn writing<'w>(
        &'w self,
        manifests: &'w Manifests,
        stretch: i64,
        lane: u32,
        gaps: &'w [Gap],
    ) -> Writing<'w> {
        let Sealing { store, settings, status, stop, .. } = self;
        let store = store.as_ref();
        Writing { store, settings, status, stop, manifests, stretch, lane, gaps }
    }

    /// A file of a base is not there: either it was replaced meanwhile, or it was lost.
    pub(super) fn gone(
        &mut self,
        (stretch, lane): (i64, u32),
        base: &Base,
        path: String,
    ) -> Result<bool, LakeError> {
        let day = day_of(stretch);
        let manifest = self.manifests()?.newest(&day)?;
        let is_lost = manifest.base(stretch, lane) == *base;
        self.know(&day, manifest);
        if is_lost {
            let what = "the newest manifest lists it, and it is not there (`marquee verify --repair` \
                        writes what it held anew)";
            let what = what.to_owned();
            return Err(LakeError::Damaged { path, what });
        }
        self.status.change(|numbers| numbers.stale += 1);
        Ok(false)
    }

    fn list(&mut self, day: &str, proposals: &[Proposal], now_ms: i64) -> Result<bool, LakeError> {
        if proposals.is_empty() {
            return Ok(true);
        }
        // Whatever comes of it, what was known is out of date.
        self.known.remove(day);
        let (manifest, verdicts) = self.manifests()?.commit(day, proposals, now_ms)?;
        self.know(day, manifest);
        let listed = verdicts.iter().filter(|verdict| **verdict == Verdict::Listed).count();
        let had_base = |(proposal, verdict): &(&Proposal, &Verdict)| {
            proposal.base.entry.is_some() && **verdict == Verdict::Listed
        };
        let rewritten = proposals.iter().zip(&verdicts).filter(had_base).count();
        self.status.change(|numbers| {
            numbers.sealed += listed as u64;
            numbers.rewritten += rewritten as u64;
            numbers.stale += (verdicts.len() - listed) as u64;
        });
        tracing::debug!(day, listed, rewritten, stale = verdicts.len() - listed, "sealed");
        Ok(listed == verdicts.len())
    }

    pub(super) fn know(&mut self, day: &str, manifest: Manifest) {
        while self.known.len() >= KNOWN_DAYS {
            let oldest = self.known.iter().min_by_key(|(_, (_, since))| *since);
            let Some(oldest) = oldest.map(|(day, _)| day.clone()) else { break };
            self.known.remove(&oldest);
        }
        self.known.insert(day.to_owned(), (manifest, Instant::now()));
    }

    /// Lanes that have closed a stretch and whose counts are not those that the manifest knows. The
    /// manifest is read before the store; `fresh`: now.
    fn differing(
        &mut self,
        layout: &Layout,
        stretch: i64,
        gaps: &[Gap],
        fresh: bool,
    ) -> Result<Vec<u32>, LakeError> {
        let day = day_of(stretch);
        let is_old = |since: &Instant| fresh || since.elapsed() > KNOWN_FOR;
        if self.known.get(&day).is_none_or(|(_, since)| is_old(since)) {
            let manifest = self.manifests()?.newest_to_go_on(&day)?;
            self.know(&day, manifest);
        }
        let mut lanes = self.lanes_that_closed(stretch);
        let mut prints: BTreeMap<u32, Fingerprint> = BTreeMap::new();
        let to_ms = stretch + layout.stretch_ms;
        self.store.counts_between(None, stretch, to_ms, &mut |lane, key, counts| {
            let complete = is_complete(gaps, &key);
            prints.entry(lane).or_default().see(&key, counts, complete);
        })?;
        if let Some((manifest, _)) = self.known.get(&day) {
            lanes.retain(|lane| {
                let print = prints.get(lane).copied().unwrap_or_default().text();
                manifest.entry(stretch, *lane).is_none_or(|entry| entry.fingerprint != print)
            });
        }
        self.stop.go_on()?;
        Ok(lanes.into_iter().collect())
    }

    /// Looks at some of what was sealed before, and takes away what is not alive any more.
    fn look_again(&mut self, layout: &Layout, gaps: &[Gap], now_ms: i64) -> Result<(), LakeError> {
        let until = Instant::now() + self.settings.look_again;
        let mut damage = Ok(());
        if self.again.is_empty() {
            let closed_ms = self.closed_ms.iter().copied().max().unwrap_or(0);
            let epochs = self.store.epochs_between(0, closed_ms)?;
            let stretches: BTreeSet<i64> =
                epochs.into_iter().map(|epoch_ms| layout.stretch_of(epoch_ms)).collect();
            self.again = stretches.into_iter().collect();
        }
        while let Some(stretch) = self.again.pop() {
            if !self.differing(layout, stretch, gaps, false)?.is_empty() {
                self.waiting.insert(stretch);
            } else if self.may_be_forgotten(layout, stretch, now_ms) {
                self.store.forget_members(stretch, stretch + layout.stretch_ms)?;
            }
            match self.sweep(&day_of(stretch), now_ms) {
                Err(error @ LakeError::Damaged { .. }) => damage = damage.and(Err(error)),
                done => done?,
            }
            if Instant::now() >= until {
                break;
            }
        }
        damage
    }

    /// Whether the store may let the members of a stretch go: its time there is over, and the lake has
    /// all of them, of all lanes.
    fn may_be_forgotten(&self, layout: &Layout, stretch: i64, now_ms: i64) -> bool {
        let Some(after_ms) = self.settings.forget_after_ms else { return false };
        let is_over = stretch + layout.stretch_ms + after_ms <= now_ms;
        let Some((manifest, _)) = self.known.get(&day_of(stretch)) else { return false };
        let has_lists = |lane| manifest.entry(stretch, lane).is_some_and(|entry| entry.lists);
        is_over && (0..layout.lanes).all(has_lists)
    }

    /// Takes away what is not alive of a day, once in a while.
    fn sweep(&mut self, day: &str, now_ms: i64) -> Result<(), LakeError> {
        let ages = self.settings.ages;
        let is_due = self.known.get(day).is_some_and(|(manifest, _)| {
            manifest.dropped.iter().any(|dropped| dropped.since_ms + ages.dropped_ms <= now_ms)
        });
        let last_ms = self.swept.get(day).copied();
        if !is_due && last_ms.is_some_and(|last_ms| now_ms < last_ms + SWEEP_AFTER_MS) {
            return Ok(());
        }
        self.swept.insert(day.to_owned(), now_ms);
        let deleted = self.manifests()?.sweep(day, ages, now_ms)?;
        if deleted > 0 {
            self.known.remove(day);
            self.status.change(|numbers| numbers.deleted += deleted);
        }
        Ok(())
    }
}

/// How often one looks for files of a day that nobody lists.
const SWEEP_AFTER_MS: i64 = 6 * 3_600_000;
