//! Deltas: what is new in stretches that are open, every few minutes, so that nobody has to wait until
//! they are sealed.
//!
//! A delta holds of each cell that has changed since the lane's last one the counts as they are now,
//! and the members that were added since: whoever takes the largest counts and the union of the sets
//! has the lane's cells as they were at the last delta. It may repeat members, and misses none: the
//! lane's state is read first, then the counts, then the members that were added since the state of
//! the last delta. Where that does not tell (the lane was started anew since, and may have written
//! anything again), it holds all members of the cells that have changed.
//!
//! When the lane closes the stretch, its entry takes the place of all deltas, in one version of the
//! manifest (see `manifest`).

use super::layout::day_of;
use super::manifest::{Manifest, OpenEntry, Proposal, Verdict, Wanted};
use super::rows::cell_hash;
use super::writing::{Output, Writing, Written, is_complete, ranges};
use super::{LakeError, Layout, Row, Sealing};
use crate::{Gap, LaneState};
use marquee_model::{CellCounts, CellKey};
use std::collections::{BTreeMap, HashMap};

/// What is remembered of the deltas that this process has made.
#[derive(Default)]
pub(super) struct Deltas {
    /// When one looks again, milliseconds since 1970 UTC.
    next_ms: i64,
    /// Life and offsets of the lanes, when all that they had changed was in deltas.
    seen: HashMap<u32, (u64, Vec<u64>)>,
    /// What this process's last delta of a stretch and lane has left behind.
    said: HashMap<(i64, u32), Said>,
}

/// What deltas say of a lane's stretch.
struct Said {
    /// The last file that this process has listed.
    path: String,
    /// The cells in all deltas, by the hash of their keys.
    cells: HashMap<u64, Stand>,
}

/// What a delta says of a cell, but for its members.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stand {
    counts: CellCounts,
    complete: bool,
}

/// A cell that has changed.
struct Changed {
    key: CellKey,
    stand: Stand,
    /// Its counts in the last delta.
    before: CellCounts,
}

/// A lane's open stretch.
#[derive(Default)]
struct OpenStretch {
    changed: Vec<Changed>,
    sums: CellCounts,
}

/// A delta that is written and not listed yet.
struct Made {
    proposal: Proposal,
    lane: u32,
    stretch: i64,
    said: Said,
}

/// One look at all lanes.
struct Look<'l> {
    layout: &'l Layout,
    gaps: &'l [Gap],
    now_ms: i64,
    interval_ms: i64,
    next_ms: i64,
    manifests: BTreeMap<String, Manifest>,
    made: BTreeMap<String, Vec<Made>>,
    /// Lanes of which everything that has changed is in deltas, once those that were made are listed.
    done: BTreeMap<u32, (u64, Vec<u64>)>,
}

impl Sealing {
    /// Writes a delta of each lane and open stretch that has changed, if it is time.
    pub(super) fn write_deltas(
        &mut self,
        layout: &Layout,
        gaps: &[Gap],
        now_ms: i64,
    ) -> Result<(), LakeError> {
        let Some(interval_ms) = self.settings.deltas_ms else { return Ok(()) };
        // A clock may be set back.
        if (1..=interval_ms).contains(&(self.deltas.next_ms - now_ms)) {
            return Ok(());
        }
        let closed_ms = &self.closed_ms;
        self.deltas.said.retain(|(stretch, lane), _| *stretch >= closed_ms[*lane as usize]);
        let (manifests, made, done) = Default::default();
        let next_ms = now_ms + interval_ms;
        let mut look = Look { layout, gaps, now_ms, interval_ms, next_ms, manifests, made, done };
        // What fails is not tried again at once: there may be a lot that was written for nothing.
        self.deltas.next_ms = now_ms + interval_ms / 8;
        let mut damage = Ok(());
        for lane in 0..layout.lanes {
            match self.look_at_lane(lane, &mut look) {
                // One day that cannot be written must not keep the others from it.
                Err(error @ LakeError::Damaged { .. }) => {
                    look.done.remove(&lane);
                    damage = damage.and(Err(error));
                }
                done => done?,
            }
        }
        self.list_deltas(look)?;
        damage
    }

    fn look_at_lane(&mut self, lane: u32, look: &mut Look<'_>) -> Result<(), LakeError> {
        // Before the counts and the members: what is added after this is in the next delta.
        let Some(state) = self.store.lane_state(lane)? else { return Ok(()) };
        let mark = (state.life, state.next_offsets.clone());
        if self.deltas.seen.get(&lane) == Some(&mark) {
            return Ok(());
        }
        look.done.insert(lane, mark);
        for (stretch, open) in self.changes(lane, look)? {
            if !open.changed.is_empty() {
                self.make_delta(lane, stretch, &state, open, look)?;
            }
        }
        Ok(())
    }

    /// What has changed of a lane's open stretches.
    fn changes(&self, lane: u32, look: &Look<'_>) -> Result<BTreeMap<i64, OpenStretch>, LakeError> {
        let mut stretches: BTreeMap<i64, OpenStretch> = BTreeMap::new();
        let from_ms = self.closed_ms[lane as usize];
        self.store.counts_between(Some(lane), from_ms, i64::MAX, &mut |_, key, counts| {
            let stretch = look.layout.stretch_of(key.epoch_start_ms);
            let open = stretches.entry(stretch).or_default();
            open.sums = open.sums.plus(counts);
            let stand = Stand { counts, complete: is_complete(look.gaps, &key) };
            let said = self.deltas.said.get(&(stretch, lane));
            let before = said.and_then(|said| said.cells.get(&cell_hash(&key))).copied();
            if before != Some(stand) {
                let before = before.map_or(CellCounts::default(), |before| before.counts);
                open.changed.push(Changed { key, stand, before });
            }
        })?;
        self.stop.go_on()?;
        Ok(stretches)
    }

    fn make_delta(
        &mut self,
        lane: u32,
        stretch: i64,
        state: &LaneState,
        mut open: OpenStretch,
        look: &mut Look<'_>,
    ) -> Result<(), LakeError> {
        let day = day_of(stretch);
        if !look.manifests.contains_key(&day) {
            let manifest = self.manifests()?.newest_to_go_on(&day)?;
            self.know(&day, manifest.clone());
            look.manifests.insert(day.clone(), manifest);
        }
        let manifest = &look.manifests[&day];
        let (version, sweeps) = (manifest.version + 1, manifest.sweeps);
        let base = manifest.base(stretch, lane);
        if base.entry.is_some() {
            // Somebody knows already that it is closed.
            return Ok(());
        }
        if let Some(wait_ms) = base.open.as_ref().and_then(|base| look.wait_ms(base)) {
            // Whoever has made the last one comes first again.
            let next_ms = look.now_ms + wait_ms + look.interval_ms / 8;
            look.next_ms = look.next_ms.min(next_ms);
            look.done.remove(&lane);
            return Ok(());
        }
        let files = base.open.iter().flat_map(|base| &base.files);
        let mut paths = files.map(|file| &file.path);
        let said = self.deltas.said.get(&(stretch, lane));
        if said.is_some_and(|said| paths.all(|path| *path != said.path)) {
            // Somebody has taken them away.
            self.deltas.said.remove(&(stretch, lane));
            look.next_ms = look.now_ms;
            look.done.remove(&lane);
            return Ok(());
        }
        open.changed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let manifests = self.manifests()?;
        let writing = self.writing(&manifests, stretch, lane, look.gaps);
        let delta = Delta { writing: &writing, base: base.open.as_ref(), state };
        let files = delta.files(version, &open.changed)?;
        let path = files.last().map(|file| file.path.clone()).unwrap_or_default();
        let entry = delta.entry(files, open.sums, look.now_ms);
        let stands = open.changed.into_iter().map(|cell| (cell_hash(&cell.key), cell.stand));
        let said = Said { path, cells: stands.collect() };
        let proposal = Proposal { wanted: Wanted::Open(entry), base, sweeps };
        let made = Made { proposal, lane, stretch, said };
        look.made.entry(day).or_default().push(made);
        Ok(())
    }

    fn list_deltas(&mut self, look: Look<'_>) -> Result<(), LakeError> {
        let Look { now_ms, mut next_ms, made, mut done, .. } = look;
        for (day, made) in made {
            let proposals: Vec<Proposal> = made.iter().map(|made| made.proposal.clone()).collect();
            let (manifest, verdicts) = self.manifests()?.commit(&day, &proposals, now_ms)?;
            self.know(&day, manifest);
            for (Made { lane, stretch, said, .. }, verdict) in made.into_iter().zip(verdicts) {
                if verdict == Verdict::Stale {
                    next_ms = now_ms;
                    done.remove(&lane);
                    self.status.change(|numbers| numbers.stale += 1);
                    continue;
                }
                let Said { path, cells } = said;
                match self.deltas.said.get_mut(&(stretch, lane)) {
                    Some(said) => {
                        said.path = path;
                        said.cells.extend(cells);
                    }
                    None => drop(self.deltas.said.insert((stretch, lane), Said { path, cells })),
                }
            }
        }
        self.deltas.seen.extend(done);
        self.deltas.next_ms = next_ms;
        Ok(())
    }
}

impl Look<'_> {
    /// How long it is until the next delta after this one; `None`: it is time.
    fn wait_ms(&self, last: &OpenEntry) -> Option<i64> {
        let wait_ms = last.made_ms + self.interval_ms - self.now_ms;
        (1..=self.interval_ms).contains(&wait_ms).then_some(wait_ms)
    }
}

/// One delta.
struct Delta<'d> {
    writing: &'d Writing<'d>,
    /// What there is already.
    base: Option<&'d OpenEntry>,
    /// What the lane's state was before anything else was read.
    state: &'d LaneState,
}

impl Delta<'_> {
    /// From which position on members are read; `None`: all of them.
    fn since(&self) -> Option<u64> {
        let base = self.base?;
        let (then, now) = (&base.next_offsets, &self.state.next_offsets);
        let goes_on = base.life == self.state.life
            && then.len() == now.len()
            && then.iter().zip(now).all(|(then, now)| then <= now);
        goes_on.then(|| crate::layout::position(then))
    }

    fn files(&self, version: u64, changed: &[Changed]) -> Result<Vec<super::LakeFile>, LakeError> {
        let mut output = Output::new(self.writing, version, true);
        let since = self.since();
        let members = |cell: &Changed| {
            let (now, before) = (cell.stand.counts, cell.before);
            let all = now.impressions + now.plays;
            since.map_or(all, |_| all.saturating_sub(before.impressions + before.plays))
        };
        for range in ranges(changed, self.writing.settings.memory_bytes, members) {
            self.writing.stop.go_on()?;
            for row in self.rows(range, since)? {
                output.add(row)?;
            }
        }
        let Written { files, .. } = output.finish()?;
        Ok(files)
    }

    fn rows(&self, range: &[Changed], since: Option<u64>) -> Result<Vec<Row>, LakeError> {
        let Writing { store, lane, stop, settings, .. } = *self.writing;
        if !settings.members {
            let row = |Changed { key, stand, .. }: &Changed| {
                Row::of_counts(key.clone(), stand.counts, stand.complete)
            };
            return Ok(range.iter().map(row).collect());
        }
        let mut sets = BTreeMap::new();
        let place = |key: &CellKey| range.binary_search_by(|cell| cell.key.cmp(key));
        let wants = |key: &CellKey| !stop.is_set() && place(key).is_ok();
        let (between_ms, position) = (self.writing.between_ms(), since.unwrap_or(0));
        store.members_since(lane, between_ms, position, &wants, &mut |key, of| {
            sets.insert(key, of);
        })?;
        stop.go_on()?;
        let row = |Changed { key, stand, .. }: &Changed| {
            let sets = sets.remove(key).unwrap_or_default();
            let mut row = Row::of_store(key.clone(), stand.counts, sets, stand.complete);
            if since.is_none() {
                // All of them were asked for: if some are missing, the store does not keep them.
                row.settle();
            }
            row
        };
        Ok(range.iter().map(row).collect())
    }

    fn entry(&self, files: Vec<super::LakeFile>, sums: CellCounts, now_ms: i64) -> OpenEntry {
        let (from_ms, to_ms) = self.writing.between_ms();
        let mut all = self.base.map(|base| base.files.clone()).unwrap_or_default();
        all.extend(files);
        let most = self.base.map_or(CellCounts::default(), |base| CellCounts {
            impressions: base.impressions,
            plays: base.plays,
        });
        OpenEntry {
            lane: self.writing.lane,
            from_ms,
            to_ms,
            made_ms: now_ms,
            life: self.state.life,
            next_offsets: self.state.next_offsets.clone(),
            impressions: sums.impressions.max(most.impressions),
            plays: sums.plays.max(most.plays),
            files: all,
        }
    }
}
