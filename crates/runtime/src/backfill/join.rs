//! The second half: each bucket is joined and counted.

use super::bucket::Buckets;
use super::count::{self, Counted, NumberedCell};
use super::shared::Frozen;
use super::{Backfill, BackfillError};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use marquee_model::{RequestKey, Side};
use marquee_pipeline::Settings;
use marquee_pipeline::chunk::Id;
use marquee_pipeline::join::{Event, Join};
use marquee_sinks::cells::Row;

/// The members of one cell.
#[derive(Debug, Default)]
pub struct CellMembers {
    /// Request ids that showed the video.
    pub impressions: Vec<Id>,
    /// Request ids that played it.
    pub plays: Vec<Id>,
}

/// One thread's work.
pub(super) struct Joiner<'a> {
    frozen: &'a Frozen,
    join: Join,
    counted: Counted,
}

impl<'a> Joiner<'a> {
    pub(super) fn new(backfill: &Backfill<'_>, frozen: &'a Frozen) -> Self {
        let mut settings = backfill.plan.settings.clone();
        settings.max_facts = u32::MAX; // it protects a running service, not a batch
        let counted = Counted::new(backfill.with_members);
        Joiner { frozen, join: Join::new(&settings, backfill.seed(), 0, 0), counted }
    }

    pub(super) fn run(mut self, buckets: &Buckets) -> Result<Counted, BackfillError> {
        loop {
            let (join, counted, symbols) =
                (&mut self.join, &mut self.counted, &self.frozen.symbols);
            let apply = |event: &Event| {
                counted.request = Some(event.request);
                join.apply(event, symbols, counted);
            };
            if !buckets.take(apply).map_err(BackfillError::Spill)? {
                return Ok(self.counted);
            }
            self.join.clear();
        }
    }
}

/// Adds up the counts of all threads. A request is in one bucket, so the sets of two buckets are
/// disjoint and their counts add up.
pub(super) fn merge(
    parts: Vec<Result<Counted, BackfillError>>,
    frozen: &Frozen,
    settings: &Settings,
) -> Result<(Vec<Row>, Vec<CellMembers>), BackfillError> {
    let mut parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let members = parts.iter_mut().flat_map(|part| part.members.take().unwrap_or_default());
    let members: Vec<_> = members.collect();
    let mut places: HashMap<NumberedCell, usize, FixedState> = HashMap::default();
    let rows = count::rows(&parts, &frozen.symbols, settings, |cell| {
        if !members.is_empty() {
            places.insert(cell, places.len());
        }
    });
    Ok((rows, by_cell(&places, members, frozen)))
}

fn by_cell(
    places: &HashMap<NumberedCell, usize, FixedState>,
    members: Vec<(NumberedCell, Side, RequestKey)>,
    frozen: &Frozen,
) -> Vec<CellMembers> {
    let mut by_cell: Vec<CellMembers> = Vec::new();
    by_cell.resize_with(places.len(), CellMembers::default);
    for (cell, side, request) in members {
        let id = match frozen.texts.get(&request) {
            Some(text) => Id::Text(text.clone()),
            None => Id::Uuid(request.0),
        };
        let cell = &mut by_cell[places[&cell]];
        match side {
            Side::Impressions => cell.impressions.push(id),
            Side::Plays => cell.plays.push(id),
        }
    }
    by_cell
}
