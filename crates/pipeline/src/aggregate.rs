//! Counts members per cell, and collects what changed in a batch: one write per changed cell and
//! batch, however many events changed it.

use crate::chunk::IdRef;
use crate::join::{Emit, Member};
use crate::matches::Matches;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet, HashTable};
use marquee_model::{CellCounts, RequestKey, Side};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Range;

/// The cells of one lane whose epoch is open.
#[derive(Debug)]
pub struct Aggregate {
    hasher: FixedState,
    epochs: BTreeMap<i64, Cells>,
    /// Numbers batches, so that a cell knows whether it is in `changed` already.
    batch: u32,
    /// Cells that the batch changes.
    changed: Vec<Changed>,
    deltas: Vec<Delta>,
    /// Requests of an ended batch, by cell and side: ranges of it stand in its [`CellChange`]s.
    ended: Vec<u32>,
    /// Request ids of `deltas`.
    requests: Vec<Request>,
    /// Those that are no UUID, one after the other.
    texts: Vec<u8>,
    /// What the store holds of cells whose state cannot be rebuilt, because the log has lost what
    /// it was made of. Empty unless there is a gap.
    bases: HashMap<(i64, Key), Base, FixedState>,
}

/// A request id that some member of the batch has.
#[derive(Clone, Copy, Debug)]
enum Request {
    Uuid(u128),
    /// Start and end in `Aggregate::texts`.
    Text(usize, usize),
}

/// The request id of an event, in all its forms.
#[derive(Clone, Copy, Debug)]
pub struct RequestId<'a> {
    /// As it came; nobody asks where the key is the id itself.
    pub text: &'a [u8],
    /// What stands for it.
    pub key: RequestKey,
    /// Whether the key is the id itself.
    pub is_uuid: bool,
}

/// What the store holds of one cell beside what the state proves: impressions, then plays.
#[derive(Debug, Default)]
struct Base {
    members: [HashSet<RequestKey, FixedState>; 2],
    /// Counts that were served: where members were not kept, only they are known.
    counts: CellCounts,
}

/// A cell that this batch changes.
#[derive(Clone, Copy, Debug)]
struct Changed {
    epoch: i64,
    cell: u32,
    /// Members that the batch adds: impressions, then plays.
    added: [u32; 2],
}

/// A member that this batch must write.
#[derive(Clone, Copy, Debug)]
struct Delta {
    /// Twice the index in `Aggregate::changed`, and one more for a play.
    place: u32,
    /// Index in `Aggregate::requests`.
    request: u32,
}

/// Videos with numbers below this one have their cells found by number.
const DENSE: usize = 1 << 16;
/// No cell.
const NONE: u32 = u32::MAX;

/// The cells of one epoch.
#[derive(Debug, Default)]
struct Cells {
    /// By number of the video, its cell in the first slice and at the start of the longest epoch:
    /// where nothing is sliced, that is every cell.
    dense: Vec<u32>,
    index: HashTable<u32>,
    cells: Vec<Cell>,
}

impl Cells {
    #[inline]
    fn number(&mut self, key: Key, hasher: &FixedState) -> u32 {
        let video = key.video as usize;
        if key.slice == 0 && key.length == 0 && key.start_offset_ms == 0 && video < DENSE {
            return match self.dense.get(video) {
                Some(&cell) if cell != NONE => cell,
                _ => self.add_dense(key),
            };
        }
        let Cells { index, cells, .. } = self;
        let hash = hasher.hash_one(key);
        if let Some(&cell) = index.find(hash, |c| cells[*c as usize].key == key) {
            return cell;
        }
        let cell = cells.len() as u32;
        cells.push(Cell::new(key));
        index.insert_unique(hash, cell, |c| hasher.hash_one(cells[*c as usize].key));
        cell
    }

    #[cold]
    fn add_dense(&mut self, key: Key) -> u32 {
        let video = key.video as usize;
        if self.dense.len() <= video {
            self.dense.resize(video + 1, NONE);
        }
        self.dense[video] = self.cells.len() as u32;
        self.cells.push(Cell::new(key));
        self.dense[video]
    }
}

/// One cell of one lane.
#[derive(Clone, Copy, Debug)]
struct Cell {
    key: Key,
    impressions: u32,
    plays: u32,
    changed_in: u32,
    /// Index in `Aggregate::changed`, if `changed_in` is the current batch.
    changed_at: u32,
}

impl Cell {
    fn new(key: Key) -> Cell {
        Cell { key, impressions: 0, plays: 0, changed_in: 0, changed_at: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    video: u32,
    slice: u32,
    length: u8,
    start_offset_ms: u32,
}

impl Key {
    fn of(member: &Member) -> Key {
        let Member { video, slice, length, start_offset_ms, .. } = *member;
        Key { video, slice, length, start_offset_ms }
    }
}

/// Which cell of one lane, by the numbers of its symbols.
#[derive(Clone, Copy, Debug)]
pub struct CellPlace {
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
}

impl CellPlace {
    fn key(&self) -> Key {
        let CellPlace { video, slice, length, start_offset_ms, .. } = *self;
        Key { video, slice, length, start_offset_ms }
    }
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
    /// Requests that this batch adds to the impressions, for [`Aggregate::added`].
    pub impressions: Range<u32>,
    /// The same for plays.
    pub plays: Range<u32>,
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
            ended: Vec::new(),
            texts: Vec::new(),
            requests: Vec::new(),
            bases: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    /// Takes what the store holds of a cell whose state cannot be rebuilt, before anything is
    /// counted in it. Its members are counted once, whether or not they are met again; where the
    /// store kept none, its counts are what the cell's counts do not fall below.
    pub fn seed(&mut self, place: &CellPlace, members: [Vec<RequestKey>; 2], counts: CellCounts) {
        let number = self.cell_of(place.epoch, place.key());
        let cell = &mut self.epochs.get_mut(&place.epoch).expect("it was just used").cells
            [number as usize];
        let base = self.bases.entry((place.epoch, place.key())).or_default();
        let [impressions, plays] = &mut base.members;
        impressions.extend(members[0].iter().copied());
        plays.extend(members[1].iter().copied());
        base.counts = counts;
        cell.impressions = impressions.len() as u32;
        cell.plays = plays.len() as u32;
    }

    /// Where the members of one event go. `silent` counts without writing members that are
    /// certain to have been written before. Plays that find their impression are noted in
    /// `matches`, where that is given.
    pub fn of_request<'a>(
        &'a mut self,
        request: RequestId<'a>,
        silent: bool,
        matches: Option<&'a mut Matches>,
    ) -> OfRequest<'a> {
        OfRequest { aggregate: self, request, number: None, silent, matches }
    }

    /// Looks at the cells that events will mostly be counted in, so that they are in the cache when
    /// they are. What it returns means nothing.
    #[inline]
    pub fn touch(&self, places: impl Iterator<Item = (i64, u32)>) -> u32 {
        let mut last: Option<(i64, Option<&Cells>)> = None;
        let touch = |(epoch, video): (i64, u32)| {
            let known = last.filter(|(known, _)| *known == epoch);
            let cells = last.insert(known.unwrap_or_else(|| (epoch, self.epochs.get(&epoch)))).1?;
            let cell = cells.cells.get(*cells.dense.get(video as usize)? as usize)?;
            Some(cell.changed_at)
        };
        places.filter_map(touch).fold(0, u32::wrapping_add)
    }

    fn cell_of(&mut self, epoch: i64, key: Key) -> u32 {
        self.epochs.entry(epoch).or_default().number(key, &self.hasher)
    }

    /// Whether the store is known to hold this member; from now on it is.
    #[cold]
    fn is_based(&mut self, member: &Member, request: RequestKey) -> bool {
        let Some(base) = self.bases.get_mut(&(member.epoch, Key::of(member))) else { return false };
        let side = match member.side {
            Side::Impressions => 0,
            Side::Plays => 1,
        };
        !base.members[side].insert(request)
    }

    /// Counts a member. If it has to be written, returns its place for a [`Delta`].
    fn count(&mut self, member: &Member, is_written: bool) -> Option<u32> {
        let cells = self.epochs.entry(member.epoch).or_default();
        let number = cells.number(Key::of(member), &self.hasher);
        let cell = &mut cells.cells[number as usize];
        let side = match member.side {
            Side::Impressions => {
                cell.impressions += 1;
                0
            }
            Side::Plays => {
                cell.plays += 1;
                1
            }
        };
        if !is_written {
            return None;
        }
        if cell.changed_in != self.batch {
            cell.changed_in = self.batch;
            cell.changed_at = self.changed.len() as u32;
            self.changed.push(Changed { epoch: member.epoch, cell: number, added: [0, 0] });
        }
        self.changed[cell.changed_at as usize].added[side] += 1;
        Some(2 * cell.changed_at + side as u32)
    }

    /// Ends a batch: every cell that changed in it, with the requests that it adds.
    pub fn changes(&mut self) -> Vec<CellChange> {
        // Each cell's requests get a range, in the order of the cells, and then their places.
        let mut next = Vec::with_capacity(2 * self.changed.len());
        let mut end = 0;
        for added in self.changed.iter().flat_map(|changed| changed.added) {
            next.push(end);
            end += added;
        }
        self.ended.clear();
        self.ended.resize(self.deltas.len(), 0);
        for Delta { place, request } in self.deltas.drain(..) {
            let at = &mut next[place as usize];
            self.ended[*at as usize] = request;
            *at += 1;
        }
        let mut changed = std::mem::take(&mut self.changed);
        let mut changes = Vec::with_capacity(changed.len());
        let mut start = 0;
        for Changed { epoch, cell, added: [impressions, plays] } in changed.drain(..) {
            let mut change = self.change_of(epoch, self.epochs[&epoch].cells[cell as usize]);
            change.impressions = start..start + impressions;
            change.plays = change.impressions.end..change.impressions.end + plays;
            start = change.plays.end;
            changes.push(change);
        }
        self.changed = changed;
        self.batch = self.batch.wrapping_add(1).max(1);
        changes
    }

    /// Whether a cell has changed since the last batch.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The request ids of a range in a [`CellChange`]; valid until [`Aggregate::forget_requests`].
    pub fn added(&self, range: &Range<u32>) -> impl Iterator<Item = IdRef<'_>> {
        let numbers = &self.ended[range.start as usize..range.end as usize];
        numbers.iter().map(|number| match self.requests[*number as usize] {
            Request::Uuid(uuid) => IdRef::Uuid(uuid),
            Request::Text(start, end) => IdRef::Text(&self.texts[start..end]),
        })
    }

    /// The batch is written: its request ids are needed no longer.
    pub fn forget_requests(&mut self) {
        self.texts.clear();
        self.requests.clear();
    }

    /// All cells of open epochs, without requests, ordered by epoch and then in an order that only
    /// depends on the input.
    pub fn open_cells<'a>(&'a self) -> impl Iterator<Item = CellChange> + 'a {
        let of_epoch = move |(epoch, cells): (&i64, &'a Cells)| {
            let epoch = *epoch;
            cells.cells.iter().map(move |cell| self.change_of(epoch, *cell))
        };
        self.epochs.iter().flat_map(of_epoch)
    }

    /// Drops the cells of every epoch before `frontier`.
    pub fn drop_before(&mut self, frontier: i64) {
        if self.epochs.first_key_value().is_some_and(|(epoch, _)| *epoch < frontier) {
            self.epochs = self.epochs.split_off(&frontier);
        }
        if !self.bases.is_empty() {
            self.bases.retain(|(epoch, _), _| *epoch >= frontier);
        }
    }

    fn change_of(&self, epoch: i64, cell: Cell) -> CellChange {
        let Key { video, slice, length, start_offset_ms } = cell.key;
        let mut counts =
            CellCounts { impressions: u64::from(cell.impressions), plays: u64::from(cell.plays) };
        if !self.bases.is_empty()
            && let Some(base) = self.bases.get(&(epoch, cell.key))
        {
            counts.impressions = counts.impressions.max(base.counts.impressions);
            counts.plays = counts.plays.max(base.counts.plays);
        }
        let (impressions, plays) = (0..0, 0..0);
        CellChange { epoch, video, slice, length, start_offset_ms, counts, impressions, plays }
    }

    /// Whether some cells go on from what the store held of them: then the counts are not those of
    /// the join's facts alone.
    pub(crate) fn is_seeded(&self) -> bool {
        !self.bases.is_empty()
    }

    /// Takes a cell of an open epoch from a snapshot. `false` where it is there already, or its
    /// counts are too large.
    pub(crate) fn load(&mut self, place: &CellPlace, counts: CellCounts) -> bool {
        let cells = self.epochs.get(&place.epoch).map_or(0, |cells| cells.cells.len());
        let number = self.cell_of(place.epoch, place.key()) as usize;
        let (Ok(impressions), Ok(plays)) = (counts.impressions.try_into(), counts.plays.try_into())
        else {
            return false;
        };
        let cell = &mut self.epochs.get_mut(&place.epoch).expect("it was just used").cells[number];
        (cell.impressions, cell.plays) = (impressions, plays);
        number == cells
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
            .map(|c| {
                c.index.allocation_size()
                    + c.cells.capacity() * size_of::<Cell>()
                    + c.dense.capacity() * size_of::<u32>()
            })
            .sum::<usize>()
            + self.ended.capacity() * size_of::<u32>()
            + self.deltas.capacity() * size_of::<Delta>()
            + self.texts.capacity()
            + self.requests.capacity() * size_of::<Request>()
    }
}

/// Receives the members of one event.
pub struct OfRequest<'a> {
    aggregate: &'a mut Aggregate,
    request: RequestId<'a>,
    /// Its index, once one member has needed it.
    number: Option<u32>,
    silent: bool,
    matches: Option<&'a mut Matches>,
}

impl Emit for OfRequest<'_> {
    #[inline]
    fn found(&mut self, after_ms: i64) {
        if let Some(matches) = &mut self.matches {
            matches.note_found(after_ms);
        }
    }

    fn member(&mut self, member: Member) {
        if !self.aggregate.bases.is_empty() && self.aggregate.is_based(&member, self.request.key) {
            return;
        }
        let is_written = !(self.silent && member.from_open_epochs);
        let Some(place) = self.aggregate.count(&member, is_written) else { return };
        let request = match self.number {
            Some(number) => number,
            None => {
                let request = match self.request.is_uuid {
                    true => Request::Uuid(self.request.key.0),
                    false => {
                        let texts = &mut self.aggregate.texts;
                        let start = texts.len();
                        texts.extend_from_slice(self.request.text);
                        Request::Text(start, texts.len())
                    }
                };
                self.aggregate.requests.push(request);
                let number = self.aggregate.requests.len() as u32 - 1;
                self.number = Some(number);
                number
            }
        };
        self.aggregate.deltas.push(Delta { place, request });
    }
}
