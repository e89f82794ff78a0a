//! Counts members per cell, and collects what changed in a batch: one write per changed cell and
//! batch, however many events changed it.

use crate::join::{Emit, Member};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use marquee_model::{CellCounts, Side};
use std::collections::BTreeMap;
use std::hash::BuildHasher;

/// The cells of one lane whose epoch is open.
#[derive(Debug)]
pub struct Aggregate {
    hasher: FixedState,
    epochs: BTreeMap<i64, Cells>,
    /// Numbers batches, so that a cell knows whether it is in `changed` already.
    batch: u32,
    changed: Vec<(i64, u32)>,
    deltas: Vec<Delta>,
    /// Request ids of `deltas`, one after the other.
    texts: Vec<u8>,
    /// Start and end of each in `texts`.
    requests: Vec<(usize, usize)>,
}

/// A member that this batch must write.
#[derive(Clone, Copy, Debug)]
struct Delta {
    epoch: i64,
    cell: u32,
    side: Side,
    /// Index in `Aggregate::requests`.
    request: u32,
}

#[derive(Debug, Default)]
struct Cells {
    index: HashTable<u32>,
    cells: Vec<Cell>,
}

/// One cell of one lane.
#[derive(Clone, Copy, Debug)]
struct Cell {
    key: Key,
    impressions: u32,
    plays: u32,
    changed_in: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    video: u32,
    slice: u32,
    length: u8,
    start_offset_ms: u32,
}

/// A cell as it stands at the end of a batch. Numbers are those of the lane's symbols.
#[derive(Clone, Debug)]
pub struct CellChange {
    /// The (longest) epoch.
    pub epoch: i64,
    /// Number of the video.
    pub video: u32,
    /// Number of the slice.
    pub slice: u32,
    /// Index of the length in `Settings::epochs_ms`.
    pub length: u8,
    /// Start of the cell's epoch after the start of the longest epoch.
    pub start_offset_ms: u32,
    /// Cardinality of both sets.
    pub counts: CellCounts,
    /// Requests that this batch adds, as indices for [`Aggregate::request`].
    pub impressions: Vec<u32>,
    /// The same for plays.
    pub plays: Vec<u32>,
}

impl Aggregate {
    /// Without any cell.
    pub fn new(seed: u64) -> Self {
        Aggregate {
            hasher: FixedState::with_seed(seed),
            epochs: BTreeMap::new(),
            batch: 1,
            changed: Vec::new(),
            deltas: Vec::new(),
            texts: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Where the members of one event go. `silent` counts without writing members that are
    /// certain to have been written before.
    pub fn of_request<'a>(&'a mut self, request_id: &'a str, silent: bool) -> OfRequest<'a> {
        OfRequest { aggregate: self, request_id, number: None, silent }
    }

    fn cell(&mut self, member: &Member) -> u32 {
        let key = Key {
            video: member.video,
            slice: member.slice,
            length: member.length,
            start_offset_ms: member.start_offset_ms,
        };
        let Cells { index, cells } = self.epochs.entry(member.epoch).or_default();
        let hasher = &self.hasher;
        let hash = hasher.hash_one(key);
        if let Some(&cell) = index.find(hash, |c| cells[*c as usize].key == key) {
            return cell;
        }
        let cell = cells.len() as u32;
        cells.push(Cell { key, impressions: 0, plays: 0, changed_in: 0 });
        index.insert_unique(hash, cell, |c| hasher.hash_one(cells[*c as usize].key));
        cell
    }

    fn count(&mut self, member: &Member) -> u32 {
        let number = self.cell(member);
        let cells = &mut self.epochs.get_mut(&member.epoch).expect("it was just used").cells;
        match member.side {
            Side::Impressions => cells[number as usize].impressions += 1,
            Side::Plays => cells[number as usize].plays += 1,
        }
        number
    }

    fn mark_changed(&mut self, epoch: i64, number: u32) {
        let cells = &mut self.epochs.get_mut(&epoch).expect("the cell was counted").cells;
        let cell = &mut cells[number as usize];
        if cell.changed_in != self.batch {
            cell.changed_in = self.batch;
            self.changed.push((epoch, number));
        }
    }

    /// Ends a batch: every cell that changed in it, with the requests that it adds.
    pub fn changes(&mut self) -> Vec<CellChange> {
        self.changed.sort_unstable();
        self.deltas.sort_by_key(|d| (d.epoch, d.cell));
        let mut deltas = std::mem::take(&mut self.deltas).into_iter().peekable();
        let changed = std::mem::take(&mut self.changed);
        let mut changes = Vec::with_capacity(changed.len());
        for (epoch, number) in changed {
            let mut change = change_of(epoch, self.epochs[&epoch].cells[number as usize]);
            while let Some(delta) = deltas.next_if(|d| (d.epoch, d.cell) == (epoch, number)) {
                match delta.side {
                    Side::Impressions => change.impressions.push(delta.request),
                    Side::Plays => change.plays.push(delta.request),
                }
            }
            changes.push(change);
        }
        debug_assert!(deltas.next().is_none(), "every delta is of a changed cell");
        self.batch = self.batch.wrapping_add(1).max(1);
        changes
    }

    /// Whether a cell has changed since the last batch.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The request id of an index in a [`CellChange`]; valid until [`Aggregate::forget_requests`].
    pub fn request(&self, number: u32) -> &str {
        let (start, end) = self.requests[number as usize];
        let bytes = &self.texts[start..end];
        std::str::from_utf8(bytes).expect("request ids are copied from str")
    }

    /// The batch is written: its request ids are needed no longer.
    pub fn forget_requests(&mut self) {
        self.texts.clear();
        self.requests.clear();
    }

    /// All cells of open epochs, without requests, ordered by epoch and then in an order that only
    /// depends on the input.
    pub fn open_cells(&self) -> impl Iterator<Item = CellChange> + '_ {
        let of_epoch = |(epoch, cells): (&i64, &'_ Cells)| {
            let epoch = *epoch;
            cells.cells.clone().into_iter().map(move |cell| change_of(epoch, cell))
        };
        self.epochs.iter().flat_map(of_epoch)
    }

    /// Drops the cells of every epoch before `frontier`.
    pub fn drop_before(&mut self, frontier: i64) {
        if self.epochs.first_key_value().is_some_and(|(epoch, _)| *epoch < frontier) {
            self.epochs = self.epochs.split_off(&frontier);
        }
    }

    /// Cells of open epochs.
    pub fn len(&self) -> usize {
        self.epochs.values().map(|cells| cells.cells.len()).sum()
    }

    /// Whether no cell is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let cells = self.epochs.values();
        cells
            .map(|c| c.index.allocation_size() + c.cells.capacity() * size_of::<Cell>())
            .sum::<usize>()
            + self.deltas.capacity() * size_of::<Delta>()
            + self.texts.capacity()
            + self.requests.capacity() * 16
    }
}

fn change_of(epoch: i64, cell: Cell) -> CellChange {
    let Key { video, slice, length, start_offset_ms } = cell.key;
    let counts =
        CellCounts { impressions: u64::from(cell.impressions), plays: u64::from(cell.plays) };
    let (impressions, plays) = (Vec::new(), Vec::new());
    CellChange { epoch, video, slice, length, start_offset_ms, counts, impressions, plays }
}

/// Receives the members of one event.
pub struct OfRequest<'a> {
    aggregate: &'a mut Aggregate,
    request_id: &'a str,
    /// Its index, once one member has needed it.
    number: Option<u32>,
    silent: bool,
}

impl Emit for OfRequest<'_> {
    fn member(&mut self, member: Member) {
        let cell = self.aggregate.count(&member);
        if self.silent && member.from_open_epochs {
            return;
        }
        self.aggregate.mark_changed(member.epoch, cell);
        let request = match self.number {
            Some(number) => number,
            None => {
                let start = self.aggregate.texts.len();
                self.aggregate.texts.extend_from_slice(self.request_id.as_bytes());
                self.aggregate.requests.push((start, self.aggregate.texts.len()));
                let number = self.aggregate.requests.len() as u32 - 1;
                self.number = Some(number);
                number
            }
        };
        self.aggregate.deltas.push(Delta { epoch: member.epoch, cell, side: member.side, request });
    }
}
