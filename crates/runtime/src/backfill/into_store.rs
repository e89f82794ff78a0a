//! A backfill into a store: only epochs that are closed, or that the generation never opened.
//!
//! It adds by union to the members that the store holds and writes the counts of the union, so it
//! may be repeated. What it writes it closes: a later event of such an epoch is late, for the
//! running service could not know all its facts (invariant WHOLE).

use super::{CellMembers, Outcome};
use crate::plan::Plan;
use marquee_model::{CellCounts, CellKey, format_time_ms, lane_of};
use marquee_pipeline::chunk::{self, Id, IdRef};
use marquee_sinks::{ClosedCell, LaneState, Members, Repair, SinkError, Store};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Cells in one write.
const WRITE_CELLS: usize = 10_000;

/// Why a backfill was not written into a store.
#[derive(Debug, Error)]
pub enum IntoStoreError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The running service is not done with an epoch.
    #[error(
        "the epoch of {epoch} is not closed in lane {lane}, and the service has events from \
         {open} on in its state: a backfill may only add to closed epochs. Wait until it is \
         sealed, leave these events out, or write to a file with --out. Nothing was written"
    )]
    Open {
        /// Start of the epoch that was to be written.
        epoch: String,
        /// The lane.
        lane: u32,
        /// Start of the first open epoch.
        open: String,
    },
    /// An event claims to be from the future: writing it would close everything before it.
    #[error(
        "there are events of the epoch {epoch}, which has not begun: a clock was wrong, or \
         time_unit is. A backfill into a store closes the epochs that it writes, so these would \
         close the present, too. Leave them out, or write to a file with --out. Nothing was written"
    )]
    Future {
        /// Start of the epoch.
        epoch: String,
    },
    /// The store has counted members that it does not keep, so there is nothing that a union could
    /// be made with.
    #[error(
        "the store already counts video {video:?} at {epoch} without keeping all members ([store] \
         members, now or then, or they have gone by members_retention), so nothing can be added exactly. Write to a file with \
         --out, or into an empty store. Nothing was written"
    )]
    NoMembers {
        /// Video of the first such cell.
        video: String,
        /// Start of its epoch.
        epoch: String,
    },
}

/// Adds the cells of a backfill, made with members, to a store. `run` names this run and must
/// never be used twice; `now_ms` is the time of this machine.
pub fn write_into(
    store: &dyn Store,
    plan: &Plan,
    mut outcome: Outcome,
    run: u64,
    now_ms: i64,
) -> Result<(), IntoStoreError> {
    let epochs_of_lanes = std::mem::take(&mut outcome.epochs_of_lanes);
    let lanes = by_lane(plan, outcome);
    let mut states = Vec::new();
    for ((lane, cells), epochs) in (0..).zip(&lanes).zip(&epochs_of_lanes) {
        let mut state = store.lane_state(lane)?.unwrap_or_else(|| new_state(plan));
        check_closed(plan, lane, &state, epochs, store.is_shared())?;
        check_members(store, lane, cells)?;
        if let Some(last) = epochs.last() {
            let start_ms = last * plan.settings.longest_ms();
            if start_ms > now_ms + plan.max_ahead_ms {
                return Err(IntoStoreError::Future { epoch: format_time_ms(start_ms) });
            }
            // The frontier moves with the first write: a service that starts after a crash in the
            // middle must not take a half-written epoch for its own. An event without a cell
            // closes its epoch, too: the service would not know it.
            state.frontier = state.frontier.max(last + 1);
        }
        states.push(state);
    }
    // First, or a crash in between would leave members that the log need not prove, and of which
    // nobody knows that they came from files.
    let longest_ms = plan.settings.longest_ms();
    let repairs: Vec<Repair> =
        (0..).zip(&epochs_of_lanes).flat_map(|(lane, e)| from_files(lane, e, longest_ms)).collect();
    store.add_repairs(&repairs)?;
    for ((lane, cells), state) in (0..).zip(lanes).zip(states) {
        write_lane(store, lane, cells, &state, run)?;
    }
    Ok(())
}

/// So many stretches of epochs of a lane are told apart.
const STRETCHES: usize = 100;

/// What is recorded of the epochs that a lane gets from files: each stretch of them, or one that
/// covers all.
fn from_files(lane: u32, epochs: &BTreeSet<i64>, longest_ms: i64) -> Vec<Repair> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for &epoch in epochs {
        match stretches.last_mut() {
            Some((_, end)) if *end == epoch => *end = epoch + 1,
            _ => stretches.push((epoch, epoch + 1)),
        }
    }
    if stretches.len() > STRETCHES {
        stretches = vec![(stretches[0].0, stretches[stretches.len() - 1].1)];
    }
    let repair = |(first, end): (i64, i64)| Repair {
        lane,
        from_ms: first * longest_ms,
        to_ms: end * longest_ms,
        source: Repair::FILES.to_owned(),
        gap: None,
    };
    stretches.into_iter().map(repair).collect()
}

fn new_state(plan: &Plan) -> LaneState {
    let topics = plan.topics().len();
    LaneState {
        next_offsets: vec![0; topics],
        smallest_offsets: vec![BTreeMap::new(); topics],
        ..LaneState::default()
    }
}

fn by_lane(plan: &Plan, outcome: Outcome) -> Vec<Members> {
    let mut lanes: Vec<Members> = (0..plan.lanes).map(|_| Members::new()).collect();
    for ((cell, _), CellMembers { impressions, plays }) in
        outcome.rows.into_iter().zip(outcome.members)
    {
        for (side, ids) in [impressions, plays].into_iter().enumerate() {
            for id in ids {
                let lane = lane_of(plan.partitioner, id.to_string().as_bytes(), plan.lanes);
                let cells = &mut lanes[lane as usize];
                match cells.get_mut(&cell) {
                    Some(sides) => sides[side].insert(id),
                    None => cells.entry(cell.clone()).or_default()[side].insert(id),
                };
            }
        }
    }
    lanes
}

fn check_closed(
    plan: &Plan,
    lane: u32,
    state: &LaneState,
    epochs: &BTreeSet<i64>,
    is_shared: bool,
) -> Result<(), IntoStoreError> {
    let longest_ms = plan.settings.longest_ms();
    let opened = state.smallest_offsets.iter().flat_map(|epochs| epochs.keys());
    let opened = opened.copied().filter(|epoch| *epoch >= state.frontier).min();
    // Where the store is shared a service may be at work meanwhile, and opens an epoch when it likes:
    // only what is closed is certain to stay so. (A life above 0 means that there was one.)
    let may_open = is_shared && state.life > 0;
    let Some(open) = opened.or(may_open.then_some(state.frontier)) else { return Ok(()) };
    match epochs.range(state.frontier..).next() {
        None => Ok(()),
        Some(epoch) => Err(IntoStoreError::Open {
            epoch: format_time_ms(*epoch * longest_ms),
            lane,
            open: format_time_ms(open * longest_ms),
        }),
    }
}

fn check_members(store: &dyn Store, lane: u32, cells: &Members) -> Result<(), IntoStoreError> {
    let stored = store.counts_of_lane(lane, 0)?;
    let mut known: Vec<_> =
        cells.keys().filter_map(|cell| stored.get(cell).map(|counts| (cell, counts))).collect();
    by_epochs(&mut known, |(cell, _)| cell);
    for known in known.chunks(WRITE_CELLS) {
        let cells: Vec<&CellKey> = known.iter().map(|(cell, _)| *cell).collect();
        let members = store.members_of_cells(lane, &cells)?;
        check_counts(known, &members)?;
    }
    Ok(())
}

/// Cells of one epoch lie in the same rows, which are read and written as a whole.
fn by_epochs<T>(cells: &mut [T], cell: impl Fn(&T) -> &CellKey) {
    cells.sort_by_key(|of| cell(of).epoch_start_ms);
}

/// Whether the store keeps all members that it has counted of some cells.
fn check_counts(
    known: &[(&CellKey, &CellCounts)],
    members: &Members,
) -> Result<(), IntoStoreError> {
    for (cell, counts) in known {
        let sizes = members.get(cell).map_or([0, 0], |sets| [sets[0].len(), sets[1].len()]);
        if sizes.map(|size| size as u64) != [counts.impressions, counts.plays] {
            return Err(IntoStoreError::NoMembers {
                video: cell.video.clone(),
                epoch: format_time_ms(cell.epoch_start_ms),
            });
        }
    }
    Ok(())
}

fn write_lane(
    store: &dyn Store,
    lane: u32,
    cells: Members,
    state: &LaneState,
    run: u64,
) -> Result<(), IntoStoreError> {
    let none = Default::default();
    let mut cells: Vec<_> = cells.into_iter().collect();
    by_epochs(&mut cells, |(cell, _)| cell);
    if cells.is_empty() {
        // Events without a cell close their epochs all the same.
        store.write_closed(lane, run, &[], Some(state))?;
    }
    for part in cells.chunks(WRITE_CELLS) {
        let keys: Vec<&CellKey> = part.iter().map(|(cell, _)| cell).collect();
        let stored = store.members_of_cells(lane, &keys)?;
        let mut writes = Vec::with_capacity(part.len());
        for (cell, [impressions, plays]) in part {
            let [had_impressions, had_plays] = stored.get(cell).unwrap_or(&none);
            let (impressions, shown) = union(had_impressions, impressions);
            let (plays, played) = union(had_plays, plays);
            let counts = CellCounts { impressions: shown, plays: played };
            writes.push(ClosedCell { key: cell, counts, chunks: [impressions, plays] });
        }
        store.write_closed(lane, run, &writes, Some(state))?;
    }
    Ok(())
}

/// The chunk of the ids that the store lacks (empty: none), and how many there are with them.
fn union(stored: &BTreeSet<Id>, ids: &BTreeSet<Id>) -> (Vec<u8>, u64) {
    let lacking: Vec<String> = ids.difference(stored).map(Id::to_string).collect();
    let count = (stored.len() + lacking.len()) as u64;
    if lacking.is_empty() {
        return (Vec::new(), count);
    }
    (chunk::encode(lacking.iter().map(|id| IdRef::of(id))), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_from_files_are_recorded_in_stretches() {
        let of = |epochs: &BTreeSet<i64>| -> Vec<(i64, i64)> {
            from_files(2, epochs, 10).iter().map(|repair| (repair.from_ms, repair.to_ms)).collect()
        };
        assert_eq!(of(&BTreeSet::new()), []);
        assert_eq!(of(&[3, 4, 5, 9].into()), [(30, 60), (90, 100)]);
        assert_eq!(of(&(0..500).step_by(2).collect()), [(0, 4990)]);
    }
}
