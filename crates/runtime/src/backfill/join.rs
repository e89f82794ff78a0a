//! The second half: each bucket is joined and counted.

use super::bucket::Buckets;
use super::shared::Frozen;
use super::{Backfill, BackfillError};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use marquee_model::{CellCounts, CellKey, RequestKey, Side};
use marquee_pipeline::Settings;
use marquee_pipeline::chunk::Id;
use marquee_pipeline::join::{Emit, Event, Join, Member};
use marquee_sinks::cells::{Row, order};

/// The members of one cell.
#[derive(Debug, Default)]
pub struct CellMembers {
    /// Request ids that showed the video.
    pub impressions: Vec<Id>,
    /// Request ids that played it.
    pub plays: Vec<Id>,
}

/// A cell, its texts as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct NumberedCell {
    epoch: i64,
    start_offset_ms: u32,
    video: u32,
    slice: u32,
    length: u8,
}

/// Counts of one thread.
#[derive(Default)]
pub(super) struct Counted {
    cells: HashMap<NumberedCell, u32, FixedState>,
    counts: Vec<CellCounts>,
    /// Cell, side and request of every member, where wanted.
    members: Option<Vec<(NumberedCell, Side, RequestKey)>>,
    /// The request whose event is being applied.
    request: Option<RequestKey>,
}

impl Emit for Counted {
    #[inline]
    fn member(&mut self, member: Member) {
        let cell = NumberedCell {
            epoch: member.epoch,
            start_offset_ms: member.start_offset_ms,
            video: member.video,
            slice: member.slice,
            length: member.length,
        };
        let next = self.counts.len() as u32;
        let place = *self.cells.entry(cell).or_insert(next);
        if place == next {
            self.counts.push(CellCounts::default());
        }
        let counts = &mut self.counts[place as usize];
        match member.side {
            Side::Impressions => counts.impressions += 1,
            Side::Plays => counts.plays += 1,
        }
        if let (Some(members), Some(request)) = (&mut self.members, self.request) {
            members.push((cell, member.side, request));
        }
    }
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
        let counted =
            Counted { members: backfill.with_members.then(Vec::new), ..Counted::default() };
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
    let mut all: HashMap<NumberedCell, CellCounts, FixedState> = HashMap::default();
    let mut members = Vec::new();
    for part in parts {
        let part = part?;
        for (cell, place) in part.cells {
            let sum = all.entry(cell).or_default();
            *sum = sum.plus(part.counts[place as usize]);
        }
        members.extend(part.members.unwrap_or_default());
    }
    let named = |cell: &NumberedCell| CellKey {
        video: frozen.symbols.video_text(cell.video).to_owned(),
        slice: frozen.symbols.slice_text(cell.slice).to_owned(),
        epoch_ms: settings.epochs_ms[cell.length as usize],
        epoch_start_ms: cell.epoch * settings.longest_ms() + i64::from(cell.start_offset_ms),
    };
    let mut numbered: Vec<(NumberedCell, Row)> =
        all.into_iter().map(|(cell, counts)| (cell, (named(&cell), counts))).collect();
    numbered.sort_unstable_by(|a, b| order(&a.1.0).cmp(&order(&b.1.0)));
    let members = by_cell(&numbered, members, frozen);
    Ok((numbered.into_iter().map(|(_, row)| row).collect(), members))
}

fn by_cell(
    numbered: &[(NumberedCell, Row)],
    members: Vec<(NumberedCell, Side, RequestKey)>,
    frozen: &Frozen,
) -> Vec<CellMembers> {
    if members.is_empty() {
        return Vec::new();
    }
    let places: HashMap<NumberedCell, usize> =
        numbered.iter().enumerate().map(|(place, (cell, _))| (*cell, place)).collect();
    let mut by_cell: Vec<CellMembers> = numbered.iter().map(|_| CellMembers::default()).collect();
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
