//! Start and restart: the state is rebuilt from the log before anything is counted (invariant
//! WHOLE).
//!
//! The store says where the lane stands: its position, its frontier, and for each epoch the first
//! offset that matters. The log is read again from there up to the position. Members of epochs
//! that were open all the time are certain to be in the store, so they are counted only; the
//! counts must then be those of the store. Where they are not (a store that lost writes), the
//! members are written again.

use super::lane::LaneOwner;
use super::{LaneError, LanesSettings};
use crate::status::LaneStatus;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::LanePipeline;
use marquee_pipeline::lane::Resume;
use marquee_sinks::{LaneState, Sink};
use marquee_sources::Source;
use std::collections::BTreeMap;

/// What the comparison with the store found.
enum Comparison {
    Equal,
    /// The store lacks members that the log proves.
    StoreLacks,
}

impl LaneOwner {
    /// Resumes a lane where the store says. `report` is told of progress and answers whether to
    /// stop; then there is no lane.
    pub(super) fn resume(
        lane: u32,
        settings: &LanesSettings,
        log: &dyn Source,
        store: &dyn Sink,
        report: &dyn Fn(LaneStatus) -> bool,
    ) -> Result<Option<Self>, LaneError> {
        let topics = settings.plan.topics().len();
        let Some(state) = store.lane_state(lane)? else {
            let state = LaneState {
                next_offsets: vec![0; topics],
                smallest_offsets: vec![BTreeMap::new(); topics],
                ..LaneState::default()
            };
            let pipeline = LanePipeline::new(Self::pipeline_settings(settings));
            return Self::new(lane, settings, pipeline, state).map(Some);
        };
        let Some(mut owner) = Self::rebuilt(lane, settings, log, &state, false, report)? else {
            return Ok(None);
        };
        if let Comparison::StoreLacks = owner.compare(store)? {
            tracing::warn!(lane, "the store lacks members that the log holds: writing them again");
            let again = Self::rebuilt(lane, settings, log, &state, true, report)?;
            let Some(again) = again else { return Ok(None) };
            owner = again;
        }
        Ok(Some(owner))
    }

    fn rebuilt(
        lane: u32,
        settings: &LanesSettings,
        log: &dyn Source,
        state: &LaneState,
        loudly: bool,
        report: &dyn Fn(LaneStatus) -> bool,
    ) -> Result<Option<Self>, LaneError> {
        let resume = Resume { frontier: state.frontier, counters: state.counters };
        let pipeline = LanePipeline::rebuild(Self::pipeline_settings(settings), resume, loudly);
        let mut owner = Self::new(lane, settings, pipeline, state.clone())?;
        let mut at = owner.rebuild_from(log)?;
        let first: u64 = at.iter().sum();
        let committed = state.next_offsets.clone();
        let records = committed.iter().sum::<u64>() - first;
        if records > 0 {
            tracing::info!(lane, records, "rebuilding the state from the log");
        }
        while let Some(topic) = owner.topic_behind(&at, &committed) {
            at[topic] = owner.apply_from(log, topic, at[topic], committed[topic])?;
            owner.replayed_records = at.iter().sum::<u64>() - first;
            if report(owner.status(log)) {
                return Ok(None);
            }
        }
        owner.pipeline.rebuilt();
        Ok(Some(owner))
    }

    /// For each topic the offset where a rebuild begins.
    fn rebuild_from(&self, log: &dyn Source) -> Result<Vec<u64>, LaneError> {
        let needed = self.plan.settings.oldest_needed_by(self.state.frontier);
        let mut from = Vec::new();
        for topic in 0..self.topics.len() {
            let committed = self.state.next_offsets[topic];
            let smallest =
                self.state.smallest_offsets[topic].range(needed..).map(|(_, o)| *o).min();
            let first = smallest.unwrap_or(committed).min(committed);
            let (start, end) =
                (log.start_offset(topic, self.lane), log.end_offset(topic, self.lane));
            if first < start || committed > end {
                return Err(LaneError::LogLost {
                    lane: self.lane,
                    topic: self.topics[topic].clone(),
                    committed,
                    start,
                    end,
                });
            }
            from.push(first);
        }
        Ok(from)
    }

    /// Compares the counts of open epochs with those of the store (invariant COUNT: what is written
    /// from here on must never be lower).
    fn compare(&self, store: &dyn Sink) -> Result<Comparison, LaneError> {
        let frontier_ms = self.state.frontier * self.plan.settings.longest_ms();
        let stored = store.counts_of_lane(self.lane, frontier_ms)?;
        let mut rebuilt: BTreeMap<CellKey, CellCounts> = BTreeMap::new();
        for cell in self.pipeline.open_cells() {
            let key = CellKey {
                video: cell.video.to_owned(),
                epoch_start_ms: cell.epoch_start_ms,
                epoch_ms: cell.epoch_ms,
                slice: cell.slice.to_owned(),
            };
            rebuilt.insert(key, cell.counts);
        }
        for (cell, counts) in &stored {
            let proven = rebuilt.get(cell).copied().unwrap_or_default();
            if counts.impressions > proven.impressions || counts.plays > proven.plays {
                return Err(LaneError::Unproven {
                    lane: self.lane,
                    video: cell.video.clone(),
                    epoch_start_ms: cell.epoch_start_ms,
                });
            }
        }
        let is_equal = stored == rebuilt;
        Ok(if is_equal { Comparison::Equal } else { Comparison::StoreLacks })
    }
}
