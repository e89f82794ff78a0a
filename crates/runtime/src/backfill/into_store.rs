//! A backfill into a store: only epochs that are closed, or that the generation never opened.
//!
//! It adds by union to the members that the store holds and writes the counts of the union, so it
//! may be repeated. What it writes it closes: a later event of such an epoch is late, for the
//! running service could not know all its facts (invariant WHOLE).

use super::{CellMembers, Outcome};
use crate::plan::Plan;
use marquee_model::{CellCounts, CellKey, Partitioner, Side, format_time_ms, lane_of};
use marquee_pipeline::chunk::{self, Id};
use marquee_sinks::embedded::EmbeddedStore;
use marquee_sinks::{LaneState, Sink, SinkError};
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
    /// The store keeps counts only, so there is nothing that a union could be made with.
    #[error(
        "the store already counts video {video:?} at {epoch} and keeps no members ([store] \
         members = false), so nothing can be added exactly. Write to a file with --out, or into \
         an empty store. Nothing was written"
    )]
    NoMembers {
        /// Video of the first such cell.
        video: String,
        /// Start of its epoch.
        epoch: String,
    },
}

/// The part of one lane: its cells and their members.
type LaneCells = BTreeMap<CellKey, [BTreeSet<Id>; 2]>;

/// Adds the cells of a backfill, made with members, to a store. `run` names this run and must
/// never be used twice.
pub fn write_into(
    store: &EmbeddedStore,
    plan: &Plan,
    outcome: Outcome,
    run: u64,
) -> Result<(), IntoStoreError> {
    let mut lanes = by_lane(plan, outcome);
    let mut states = Vec::new();
    for (lane, cells) in (0..).zip(&lanes) {
        let state = store.lane_state(lane)?.unwrap_or_else(|| new_state(plan));
        check_closed(plan, lane, &state, cells)?;
        check_members(store, lane, cells)?;
        states.push(state);
    }
    for ((lane, cells), mut state) in (0..).zip(&mut lanes).zip(states) {
        let longest_ms = plan.settings.longest_ms();
        let last = cells.keys().map(|cell| cell.epoch_start_ms.div_euclid(longest_ms)).max();
        // The frontier moves with the first write: a service that starts after a crash in the
        // middle must not take a half-written epoch for its own.
        state.frontier = state.frontier.max(last.map_or(0, |epoch| epoch + 1));
        write_lane(store, lane, std::mem::take(cells), &state, run)?;
    }
    Ok(())
}

fn new_state(plan: &Plan) -> LaneState {
    let topics = plan.topics().len();
    LaneState {
        next_offsets: vec![0; topics],
        smallest_offsets: vec![BTreeMap::new(); topics],
        ..LaneState::default()
    }
}

fn by_lane(plan: &Plan, outcome: Outcome) -> Vec<LaneCells> {
    let mut lanes: Vec<LaneCells> = (0..plan.lanes).map(|_| LaneCells::new()).collect();
    for ((cell, _), CellMembers { impressions, plays }) in
        outcome.rows.into_iter().zip(outcome.members)
    {
        for (side, ids) in [impressions, plays].into_iter().enumerate() {
            for id in ids {
                let lane = lane_of(Partitioner::Murmur2, id.to_string().as_bytes(), plan.lanes);
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
    cells: &LaneCells,
) -> Result<(), IntoStoreError> {
    let longest_ms = plan.settings.longest_ms();
    let opened = state.smallest_offsets.iter().flat_map(|epochs| epochs.keys());
    let Some(open) = opened.copied().filter(|epoch| *epoch >= state.frontier).min() else {
        return Ok(());
    };
    let touched = cells.keys().map(|cell| cell.epoch_start_ms.div_euclid(longest_ms));
    match touched.filter(|epoch| *epoch >= state.frontier).min() {
        None => Ok(()),
        Some(epoch) => Err(IntoStoreError::Open {
            epoch: format_time_ms(epoch * longest_ms),
            lane,
            open: format_time_ms(open * longest_ms),
        }),
    }
}

fn check_members(
    store: &EmbeddedStore,
    lane: u32,
    cells: &LaneCells,
) -> Result<(), IntoStoreError> {
    if store.keeps_members() {
        return Ok(());
    }
    let stored = store.counts_of_lane(lane, 0)?;
    match cells.keys().find(|cell| stored.contains_key(*cell)) {
        None => Ok(()),
        Some(cell) => Err(IntoStoreError::NoMembers {
            video: cell.video.clone(),
            epoch: format_time_ms(cell.epoch_start_ms),
        }),
    }
}

fn write_lane(
    store: &EmbeddedStore,
    lane: u32,
    cells: LaneCells,
    state: &LaneState,
    run: u64,
) -> Result<(), IntoStoreError> {
    let cells: Vec<_> = cells.into_iter().collect();
    for part in cells.chunks(WRITE_CELLS) {
        let mut writes = Vec::with_capacity(part.len());
        for (cell, [impressions, plays]) in part {
            let (impressions, shown) = union(store, cell, lane, Side::Impressions, impressions)?;
            let (plays, played) = union(store, cell, lane, Side::Plays, plays)?;
            let counts = CellCounts { impressions: shown, plays: played };
            writes.push((cell, counts, [impressions, plays]));
        }
        store.write_closed(lane, run, writes.into_iter(), state)?;
    }
    Ok(())
}

/// The chunk of the ids that the store lacks (empty: none), and how many there are with them.
fn union(
    store: &EmbeddedStore,
    cell: &CellKey,
    lane: u32,
    side: Side,
    ids: &BTreeSet<Id>,
) -> Result<(Vec<u8>, u64), SinkError> {
    let stored = store.members(cell, lane, side)?;
    let lacking: Vec<String> = ids.difference(&stored).map(Id::to_string).collect();
    let count = (stored.len() + lacking.len()) as u64;
    if lacking.is_empty() {
        return Ok((Vec::new(), count));
    }
    Ok((chunk::encode(lacking.iter().map(String::as_str)), count))
}
