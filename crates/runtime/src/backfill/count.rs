//! The cells of one thread's buckets, counted.
//!
//! Videos are numbered as they are met, the popular ones first. So the counts of an epoch lie in
//! the order of these numbers, and most of what is counted is found in a few cached lines and
//! without a search. Where that would take much memory, because there are many epochs or slices
//! with few videos each, a hash table takes over.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use marquee_model::{CellCounts, CellKey, RequestKey, Side};
use marquee_pipeline::Settings;
use marquee_pipeline::join::{Emit, Member};
use marquee_pipeline::symbols::Symbols;
use marquee_sinks::cells::Row;

/// Bytes of counts that one thread keeps by the number of the video.
const BY_NUMBER_BYTES: usize = 32 << 20;

/// All cells of one epoch and slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plane {
    epoch: i64,
    start_offset_ms: u32,
    slice: u32,
    length: u8,
}

/// A cell, its texts as numbers.
pub(super) type NumberedCell = (Plane, u32);

/// Impressions and plays. More than 2^32 events in one cell of one backfill do not happen: the
/// facts of an epoch are numbered in 32 bits, too.
type Counts = [u32; 2];

/// Counts of one thread.
#[derive(Default)]
pub(super) struct Counted {
    planes: HashMap<Plane, usize, FixedState>,
    /// The plane of the last member: the next one's is often the same.
    last: Option<(Plane, usize)>,
    by_number: Vec<Vec<Counts>>,
    by_number_bytes: usize,
    others: HashMap<(usize, u32), Counts, FixedState>,
    /// Cell, side and request of every member, where wanted.
    pub(super) members: Option<Vec<(NumberedCell, Side, RequestKey)>>,
    /// The request whose event is being applied.
    pub(super) request: Option<RequestKey>,
}

impl Emit for Counted {
    #[inline]
    fn member(&mut self, member: Member) {
        let Member { epoch, start_offset_ms, slice, length, video, side, .. } = member;
        let plane = Plane { epoch, start_offset_ms, slice, length };
        let side_of = match side {
            Side::Impressions => 0,
            Side::Plays => 1,
        };
        let number = match self.last {
            Some((last, number)) if last == plane => number,
            _ => self.number(plane),
        };
        match self.by_number[number].get_mut(video as usize) {
            Some(counts) => counts[side_of] += 1,
            None => self.counts_of(number, video)[side_of] += 1,
        }
        if let (Some(members), Some(request)) = (&mut self.members, self.request) {
            members.push(((plane, video), side, request));
        }
    }
}

impl Counted {
    pub(super) fn new(with_members: bool) -> Self {
        Counted { members: with_members.then(Vec::new), ..Self::default() }
    }

    fn number(&mut self, plane: Plane) -> usize {
        let next = self.by_number.len();
        let number = *self.planes.entry(plane).or_insert(next);
        if number == next {
            self.by_number.push(Vec::new());
        }
        self.last = Some((plane, number));
        number
    }

    /// The counts of a video that has no place by its number yet.
    #[cold]
    fn counts_of(&mut self, plane: usize, video: u32) -> &mut Counts {
        let counts = &mut self.by_number[plane];
        let len = (video as usize + 1).next_power_of_two();
        let more_bytes = (len - counts.len()) * size_of::<Counts>();
        // Once there is no room, no plane grows any more: a cell is either here or there.
        self.by_number_bytes = self.by_number_bytes.saturating_add(more_bytes);
        if self.by_number_bytes > BY_NUMBER_BYTES {
            self.by_number_bytes = usize::MAX;
            return self.others.entry((plane, video)).or_default();
        }
        counts.resize(len, Counts::default());
        &mut counts[video as usize]
    }
}

/// Where the counts of a plane stand in the order of files, and which they are.
struct Ranks {
    planes: Vec<Plane>,
    of_plane: HashMap<Plane, u32, FixedState>,
    /// Videos in the order of their texts, and the place of each there.
    videos: Vec<u32>,
    of_video: Vec<u32>,
}

impl Ranks {
    /// Texts are compared once for each plane and video, not for each cell.
    fn of(parts: &[Counted], symbols: &Symbols, settings: &Settings) -> Self {
        let mut of_plane: HashMap<Plane, u32, FixedState> = HashMap::default();
        of_plane.extend(parts.iter().flat_map(|part| part.planes.keys()).map(|plane| (*plane, 0)));
        let mut planes: Vec<Plane> = of_plane.keys().copied().collect();
        planes.sort_by_cached_key(|plane| {
            let slice = symbols.slice_text(plane.slice);
            (start_ms(plane, settings), slice, settings.epochs_ms[plane.length as usize])
        });
        of_plane.extend((0..).zip(&planes).map(|(rank, plane)| (*plane, rank)));
        let mut videos: Vec<u32> = (0..symbols.videos.len() as u32).collect();
        let text = |video: &u32| symbols.videos.bytes_of(*video);
        videos.sort_unstable_by(|a, b| text(a).cmp(text(b)));
        let mut of_video = vec![0; videos.len()];
        (0..).zip(&videos).for_each(|(rank, video)| of_video[*video as usize] = rank);
        Ranks { planes, of_plane, videos, of_video }
    }

    fn key(&self, plane: u32, video: u32) -> u64 {
        u64::from(self.of_video[video as usize]) << 32 | u64::from(plane)
    }

    fn cell(&self, key: u64) -> NumberedCell {
        (self.planes[key as u32 as usize], self.videos[(key >> 32) as usize])
    }

    /// All cells of a part.
    fn cells(&self, part: &Counted, cells: &mut Vec<(u64, Counts)>) {
        let mut ranks = vec![0; part.by_number.len()];
        part.planes.iter().for_each(|(plane, number)| ranks[*number] = self.of_plane[plane]);
        for (plane, counts) in ranks.iter().zip(&part.by_number) {
            let counts = (0..).zip(counts).filter(|(_, counts)| **counts != [0, 0]);
            cells.extend(counts.map(|(video, counts)| (self.key(*plane, video), *counts)));
        }
        let others = part.others.iter();
        cells.extend(others.map(|((n, video), counts)| (self.key(ranks[*n], *video), *counts)));
    }
}

/// Adds up the counts of all threads, whose requests are not the same: their sets are disjoint.
/// Rows come sorted as files of cells are, and `each` is told the cell of each.
pub(super) fn rows(
    parts: &[Counted],
    symbols: &Symbols,
    settings: &Settings,
    mut each: impl FnMut(NumberedCell),
) -> Vec<Row> {
    let ranks = Ranks::of(parts, symbols, settings);
    let mut cells = Vec::new();
    parts.iter().for_each(|part| ranks.cells(part, &mut cells));
    cells.sort_unstable_by_key(|(key, _)| *key);
    let same = |a: &(u64, Counts), b: &(u64, Counts)| a.0 == b.0;
    let mut rows = Vec::with_capacity(cells.chunk_by(same).count());
    for parts in cells.chunk_by(same) {
        let cell = ranks.cell(parts[0].0);
        let sum = |side: usize| parts.iter().map(|(_, counts)| u64::from(counts[side])).sum();
        let counts = CellCounts { impressions: sum(0), plays: sum(1) };
        rows.push((named(&cell, symbols, settings), counts));
        each(cell);
    }
    rows
}

fn named((plane, video): &NumberedCell, symbols: &Symbols, settings: &Settings) -> CellKey {
    CellKey {
        video: symbols.video_text(*video).to_owned(),
        slice: symbols.slice_text(plane.slice).to_owned(),
        epoch_ms: settings.epochs_ms[plane.length as usize],
        epoch_start_ms: start_ms(plane, settings),
    }
}

fn start_ms(plane: &Plane, settings: &Settings) -> i64 {
    plane.epoch * settings.longest_ms() + i64::from(plane.start_offset_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(epoch: i64, slice: u32, video: u32, side: Side) -> Member {
        let (length, start_offset_ms, from_open_epochs) = (0, 0, false);
        Member { epoch, side, video, slice, length, start_offset_ms, from_open_epochs }
    }

    #[test]
    fn two_parts_add_up_sorted_wherever_their_counts_are_kept() {
        let mut symbols = Symbols::new(7, 1);
        let videos = ["b", "a", "é", "ab", "A"].map(|v| symbols.videos.intern(v.as_bytes(), 0));
        let slices = [&b""[..], b"{\"x\":1}"].map(|s| symbols.slices.intern(s, 0));
        // With room for all, for some, and for none.
        for room in [0, BY_NUMBER_BYTES - 3 * size_of::<Counts>(), BY_NUMBER_BYTES] {
            let mut parts = [Counted::new(false), Counted::new(true)];
            for (turn, part) in parts.iter_mut().enumerate() {
                part.by_number_bytes = room;
                for round in 0..2 * turn + 1 {
                    for (place, video) in videos.into_iter().enumerate().skip(turn) {
                        for epoch in [3, 1] {
                            let side = if round == 0 { Side::Impressions } else { Side::Plays };
                            part.member(member(epoch, slices[place % 2], video, side));
                        }
                    }
                }
            }
            let mut cells = Vec::new();
            let rows = rows(&parts, &symbols, &Settings::default(), |cell| cells.push(cell.1));
            let found: Vec<(&str, i64, u64, u64)> = rows
                .iter()
                .map(|(c, n)| (&*c.video, c.epoch_start_ms / 1_800_000, n.impressions, n.plays))
                .collect();
            let of = |video, once| {
                let (shown, played) = if once { (1, 0) } else { (2, 2) };
                [(video, 1, shown, played), (video, 3, shown, played)]
            };
            let expected = [of("A", false), of("a", false), of("ab", false), of("b", true)];
            let expected = [&expected.concat()[..], &of("é", false)].concat();
            assert_eq!(found, expected, "room {room}");
            assert_eq!(cells.len(), rows.len());
            assert!(rows.is_sorted_by(|a, b| {
                marquee_sinks::cells::order(&a.0) < marquee_sinks::cells::order(&b.0)
            }));
        }
    }
}
