//! Writing: what partitions there are, then counts and members, then states, each only after what
//! stands before it is acknowledged. It decides nothing about what is counted.

use super::cluster::{Column, Partition, ValueName, Write};
use super::known::{Page, Slice};
use super::{CassandraStore, page_of};
use crate::layout::{self, CellWrite, RowKey, by_rows, cell_writes};
use crate::{ClosedCell, LaneCommit, LaneState, SinkError};
use marquee_model::{CellCounts, Side};
use marquee_pipeline::chunk::{self, ChunkError, Id, IdRef};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Bytes of one value of members, about: what a cluster takes in one piece without effort.
const VALUE_BYTES: usize = 512 << 10;

/// The longest time to live that Cassandra takes: 20 years.
const MOST_TTL_SECONDS: i64 = 20 * 365 * 24 * 3600;

/// How long a cell outlives its retention, so that clocks that differ do not matter.
const MARGIN_MS: i64 = 3_600_000;

/// The timestamp of a count (invariant COUNT): the larger count has the larger one. It lies near the
/// time of its epoch, so that it means something to people, too.
fn count_timestamp(epoch_start_ms: i64, count: u64) -> i64 {
    start_timestamp(epoch_start_ms).saturating_add_unsigned(count)
}

/// The timestamp of what has only one value: with a time to live, the one that goes later stays.
fn start_timestamp(epoch_start_ms: i64) -> i64 {
    epoch_start_ms.saturating_mul(1000)
}

fn partition<'a>(row: &RowKey<'a>) -> Partition<'a> {
    let RowKey { epoch_ms, epoch_start_ms, slice, bucket, .. } = *row;
    Partition { epoch_ms, epoch_start_ms, slice: Cow::Borrowed(slice), bucket }
}

/// What is to be written of some cells.
#[derive(Default)]
struct Gathered<'c> {
    counts: Vec<Write<'c>>,
    values: Vec<Value<'c>>,
    /// Videos and chunks of all values, one after the other.
    bytes: Vec<u8>,
    /// And the start of the epoch that wants it.
    pages: BTreeSet<(Page, i64, i32)>,
    slices: BTreeSet<(Slice, i32)>,
    parts: Vec<(u32, Partition<'c>, i32, i32)>,
    /// New counts of cells, for readers in this process.
    cells: Vec<(Partition<'c>, &'c str, u32, CellCounts)>,
}

/// One value of members.
struct Value<'c> {
    at: Partition<'c>,
    lane: u32,
    part: i32,
    name: ValueName,
    bytes: Range<usize>,
    ttl_seconds: i32,
}

/// What a batch adds to a cell.
struct Added<'f> {
    /// Whether one side has changed.
    has: &'f dyn Fn(usize, Side) -> bool,
    /// Appends the chunk of one side.
    write_chunk: &'f dyn Fn(usize, Side, &mut Vec<u8>),
}

/// What values of members have in common.
#[derive(Clone, Copy)]
struct OfValues {
    position: u64,
    ttl_seconds: i32,
    /// Of what says that there is such a part: what comes later into the part lives longer, and must
    /// be found.
    part_ttl_seconds: i32,
}

impl CassandraStore {
    /// See [`crate::Sink::commit`].
    pub(super) fn write_commits(&self, commits: &[LaneCommit<'_>]) -> Result<(), SinkError> {
        let bucket_of = |video: &str| self.bucket_of(video);
        let cells: Vec<_> =
            commits.iter().map(|c| cell_writes(c.lane, &c.batch, bucket_of)).collect();
        let mut gathered = Gathered::default();
        for (LaneCommit { batch, state, .. }, cells) in commits.iter().zip(&cells) {
            let added = Added {
                has: &|number, side| batch.cell(number).has_new(side),
                write_chunk: &|number, side, bytes| batch.cell(number).write_chunk(side, bytes),
            };
            self.gather(cells, state.position(), &added, &mut gathered)?;
        }
        self.write_gathered(&gathered)?;
        for LaneCommit { lane, state, .. } in commits {
            self.write_state(*lane, state, true)?;
        }
        Ok(())
    }

    /// See [`crate::Store::write_closed`]. A lane that has a state keeps it, but for its frontier: a
    /// service may have the lane now.
    pub(super) fn write_closed_cells(
        &self,
        lane: u32,
        name: u64,
        cells: &[ClosedCell<'_>],
        state: Option<&LaneState>,
    ) -> Result<(), SinkError> {
        let writes: Vec<_> = cells.iter().enumerate().map(|c| self.closed(lane, c)).collect();
        let added = Added {
            has: &|_, _| true,
            write_chunk: &|number, side, bytes| {
                bytes.extend_from_slice(&cells[number].chunks[side as usize]);
            },
        };
        let mut gathered = Gathered::default();
        self.gather(&writes, layout::beside(name), &added, &mut gathered)?;
        if let Some(state) = state {
            let is_new = self.ask(|| self.shared.cluster.lane(self.id(), lane))?.state.is_none();
            // The frontier before what it closes: a service that takes the lane in between must not
            // take a half-written epoch for its own.
            self.write_state(lane, state, is_new)?;
        }
        self.write_gathered(&gathered)
    }

    fn closed<'c>(&self, lane: u32, (number, cell): (usize, &'c ClosedCell<'_>)) -> CellWrite<'c> {
        let key = cell.key;
        let (epoch_ms, epoch_start_ms) = (key.epoch_ms, key.epoch_start_ms);
        let bucket = self.bucket_of(&key.video);
        let row = RowKey { epoch_ms, epoch_start_ms, slice: &key.slice, bucket, lane };
        CellWrite { row, video: &key.video, counts: cell.counts, number }
    }

    /// For how many seconds a cell is kept from now on, 0 for ever; `None` where its time is over.
    fn ttl_seconds(&self, row: &RowKey<'_>) -> Option<i32> {
        let Some(retention_ms) = self.shared.options.retention_ms else { return Some(0) };
        let now_ms = (self.shared.options.clock)();
        let end_ms = row.epoch_start_ms.saturating_add(row.epoch_ms);
        let left_ms = end_ms.saturating_add(retention_ms).saturating_add(MARGIN_MS) - now_ms;
        let seconds = left_ms.div_euclid(1000);
        (seconds > 0).then_some(seconds.min(MOST_TTL_SECONDS) as i32)
    }

    /// The same of members: they may go earlier than their cell. What is written long after the end of
    /// its epoch stays as long as if the epoch ended now, so that the lake gets it.
    fn members_ttl_seconds(&self, row: &RowKey<'_>, of_cell: i32) -> i32 {
        let options = &self.shared.options;
        let Some(retention_ms) = options.members_retention_ms else { return of_cell };
        let now_ms = (options.clock)();
        let end_ms = row.epoch_start_ms.saturating_add(row.epoch_ms);
        let left_ms = (end_ms - now_ms).max(0).saturating_add(retention_ms + MARGIN_MS);
        let seconds = (left_ms / 1000).min(MOST_TTL_SECONDS) as i32;
        if of_cell == 0 { seconds } else { seconds.min(of_cell) }
    }

    /// Adds what a lane writes of some cells. `position` names what the batch covers.
    fn gather<'c>(
        &self,
        cells: &'c [CellWrite<'c>],
        position: u64,
        added: &Added<'_>,
        to: &mut Gathered<'c>,
    ) -> Result<(), SinkError> {
        let order = by_rows(cells);
        for row in order.chunk_by(|a, b| a.row == b.row) {
            let mut row: Vec<_> = row.iter().map(|at| &cells[at.number as usize]).collect();
            row.sort_unstable_by_key(|cell| cell.video);
            let key = row[0].row;
            let Some(ttl_seconds) = self.ttl_seconds(&key) else {
                self.shared.expired_cells.fetch_add(row.len() as u64, Ordering::Relaxed);
                continue;
            };
            self.gather_place(&key, ttl_seconds, to);
            gather_counts(&key, &row, ttl_seconds, added, to);
            if self.shared.options.keeps_members {
                let of = OfValues {
                    position,
                    ttl_seconds: self.members_ttl_seconds(&key, ttl_seconds),
                    part_ttl_seconds: ttl_seconds,
                };
                self.gather_members(&key, &row, of, added, to)?;
            }
        }
        Ok(())
    }

    /// What the index must say of a row.
    fn gather_place(&self, row: &RowKey<'_>, ttl_seconds: i32, to: &mut Gathered<'_>) {
        let RowKey { epoch_ms, epoch_start_ms, slice, .. } = *row;
        let slice = (epoch_ms, epoch_start_ms, slice.to_owned());
        if self.shared.known.has_slice(&slice) {
            return;
        }
        to.slices.insert((slice, ttl_seconds));
        let page = (epoch_ms, page_of(epoch_ms, epoch_start_ms));
        if ttl_seconds != 0 || !self.shared.known.has_page(&page) {
            // Later epochs of the page go later, and so must the page.
            to.pages.insert((page, epoch_start_ms, ttl_seconds));
        }
    }

    fn gather_members<'c>(
        &self,
        key: &RowKey<'c>,
        row: &[&CellWrite<'c>],
        of: OfValues,
        added: &Added<'_>,
        to: &mut Gathered<'c>,
    ) -> Result<(), SinkError> {
        let mut start = to.bytes.len();
        let mut chunks = [Vec::new(), Vec::new()];
        for cell in row {
            for (side, chunk) in Side::BOTH.into_iter().zip(&mut chunks) {
                chunk.clear();
                (added.write_chunk)(cell.number, side, chunk);
            }
            let len = chunks[0].len() + chunks[1].len();
            if len == 0 {
                continue;
            }
            if to.bytes.len() > start && to.bytes.len() - start + len > VALUE_BYTES {
                self.gather_value(key, of, start, to);
                start = to.bytes.len();
            }
            if len <= VALUE_BYTES {
                layout::write_members(&mut to.bytes, cell.video, [&chunks[0], &chunks[1]]);
                continue;
            }
            for side in [0, 1] {
                let pieces = pieces(&chunks[side])
                    .map_err(|e| self.damaged(&format!("a chunk is unreadable: {e}")))?;
                for piece in pieces {
                    let mut both: [&[u8]; 2] = [&[], &[]];
                    both[side] = &piece;
                    layout::write_members(&mut to.bytes, cell.video, both);
                    self.gather_value(key, of, start, to);
                    start = to.bytes.len();
                }
            }
        }
        if to.bytes.len() > start {
            self.gather_value(key, of, start, to);
        }
        Ok(())
    }

    /// What was gathered from `start` on is one value.
    fn gather_value<'c>(
        &self,
        key: &RowKey<'c>,
        of: OfValues,
        start: usize,
        to: &mut Gathered<'c>,
    ) {
        let OfValues { position, ttl_seconds, part_ttl_seconds } = of;
        let (at, lane) = (partition(key), key.lane);
        let bytes = start..to.bytes.len();
        let name = value_name(position, &to.bytes[bytes.clone()]);
        let (part, is_told) = self.shared.known.part(lane, &at, bytes.len());
        if !is_told {
            to.parts.push((lane, at.clone(), part, part_ttl_seconds));
        }
        to.values.push(Value { at, lane, part, name, bytes, ttl_seconds });
    }

    /// Writes what there is, then what stands there.
    fn write_gathered(&self, gathered: &Gathered<'_>) -> Result<(), SinkError> {
        self.write_places(gathered)?;
        let members = gathered.values.iter().map(|value| Write {
            column: Column::Members {
                at: value.at.clone(),
                lane: value.lane,
                part: value.part,
                name: value.name,
                ids: &gathered.bytes[value.bytes.clone()],
            },
            timestamp: start_timestamp(value.at.epoch_start_ms),
            ttl_seconds: value.ttl_seconds,
        });
        // Members before the counts that count them: whoever reads a count and then the members finds
        // them (the lake's deltas do).
        self.write(&members.collect::<Vec<_>>())?;
        self.write(&gathered.counts)?;
        for (at, video, lane, counts) in &gathered.cells {
            self.shared.views.note(at, video, *lane, *counts);
        }
        Ok(())
    }

    fn write_places(&self, gathered: &Gathered<'_>) -> Result<(), SinkError> {
        // The latest epoch has the last word: what has gone once may have left a tombstone, which only
        // a later timestamp outlives.
        let pages = gathered.pages.iter().map(|((epoch_ms, page), start_ms, ttl_seconds)| Write {
            column: Column::Page { epoch_ms: *epoch_ms, page: *page },
            timestamp: start_timestamp(*start_ms),
            ttl_seconds: *ttl_seconds,
        });
        let slices =
            gathered.slices.iter().map(|((epoch_ms, start_ms, slice), ttl_seconds)| Write {
                column: Column::Slice { epoch_ms: *epoch_ms, epoch_start_ms: *start_ms, slice },
                timestamp: start_timestamp(*start_ms),
                ttl_seconds: *ttl_seconds,
            });
        let parts = gathered.parts.iter().map(|(lane, at, part, ttl_seconds)| Write {
            column: Column::Part { at: at.clone(), lane: *lane, part: *part },
            timestamp: start_timestamp(at.epoch_start_ms),
            ttl_seconds: *ttl_seconds,
        });
        self.write(&pages.chain(slices).chain(parts).collect::<Vec<_>>())?;
        let pages = gathered.pages.iter().map(|(page, ..)| *page);
        let slices = gathered.slices.iter().map(|(slice, _)| slice.clone());
        let parts = gathered.parts.iter();
        let parts = parts.map(|(lane, at, part, _)| (*lane, at.clone().into_owned(), *part));
        self.shared.known.told(pages, slices, parts);
        Ok(())
    }

    /// Writes a lane's frontier where it has moved, and its state where that is wanted.
    fn write_state(&self, lane: u32, state: &LaneState, with_state: bool) -> Result<(), SinkError> {
        let longest_ms = self.shared.generation.epochs_ms()[0];
        let frontier_ms = state.frontier.saturating_mul(longest_ms);
        let known = &self.shared.known;
        let moves = known.moves_frontier(lane, state.frontier, frontier_ms);
        // The state first, which has its frontier in it: a new frontier beside old offsets would make
        // late what was counted in time.
        if with_state {
            let json = serde_json::to_string(state).expect("numbers and lists always serialize");
            let column = Column::State { lane, state: &json };
            let timestamp = known.next_state(lane, &state.next_offsets);
            self.write(&[Write { column, timestamp, ttl_seconds: 0 }])?;
        }
        if moves {
            // As a count: the largest stays.
            let column = Column::Frontier { lane, frontier: state.frontier };
            let timestamp = start_timestamp(frontier_ms).saturating_add(1);
            self.write(&[Write { column, timestamp, ttl_seconds: 0 }])?;
            known.moved_frontier(lane, state.frontier);
        }
        Ok(())
    }
}

/// One write for each count that has changed.
fn gather_counts<'c>(
    key: &RowKey<'c>,
    row: &[&CellWrite<'c>],
    ttl_seconds: i32,
    added: &Added<'_>,
    to: &mut Gathered<'c>,
) {
    for side in Side::BOTH {
        for cell in row {
            let count = match side {
                Side::Impressions => cell.counts.impressions,
                Side::Plays => cell.counts.plays,
            };
            if count > 0 && (added.has)(cell.number, side) {
                let (at, video, lane) = (partition(key), cell.video, key.lane);
                let timestamp = count_timestamp(key.epoch_start_ms, count);
                let column = Column::Count { at, video, lane, side, count };
                to.counts.push(Write { column, timestamp, ttl_seconds });
            }
        }
    }
    to.cells.extend(row.iter().map(|cell| (partition(key), cell.video, key.lane, cell.counts)));
}

/// The name of a value of members: of the position that its batch reaches and of its content, so that what
/// is newer comes later, a replay mostly overwrites itself and nobody can overwrite another's.
fn value_name(position: u64, content: &[u8]) -> ValueName {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(position);
    hasher.write(content);
    let mut name = ValueName::default();
    name[..8].copy_from_slice(&position.to_be_bytes());
    name[8..].copy_from_slice(&hasher.finish128().as_u128().to_be_bytes());
    name
}

/// A chunk cut into some that are small enough.
fn pieces(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ChunkError> {
    let mut ids = BTreeSet::new();
    if !bytes.is_empty() {
        chunk::decode_into(bytes, &mut ids)?;
    }
    let texts: Vec<String> = ids.iter().map(Id::to_string).collect();
    let (mut pieces, mut start, mut len) = (Vec::new(), 0, 0);
    for (index, text) in texts.iter().enumerate() {
        if len + text.len() > VALUE_BYTES {
            pieces.push(chunk::encode(texts[start..index].iter().map(|id| IdRef::of(id))));
            (start, len) = (index, 0);
        }
        len += text.len() + 4;
    }
    if start < texts.len() {
        pieces.push(chunk::encode(texts[start..].iter().map(|id| IdRef::of(id))));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_count_of_a_cell_always_has_the_larger_timestamp() {
        let epoch = 1_479_686_400_000;
        assert!(count_timestamp(epoch, 2) > count_timestamp(epoch, 1));
        assert_eq!(count_timestamp(epoch, 0), epoch * 1000);
        assert!(count_timestamp(0, 1) > 0);
        assert!(count_timestamp(i64::MAX / 2, u64::MAX) > 0, "and never overflows");
    }

    #[test]
    fn a_large_chunk_is_cut_into_the_same_ids() {
        let ids: Vec<String> = (0..3_000).map(|n| format!("{n:0>500}")).collect();
        let bytes = chunk::encode(ids.iter().map(|id| IdRef::of(id)));
        let pieces = pieces(&bytes).expect("it is a chunk");
        assert!(pieces.len() >= 3);
        let mut read = BTreeSet::new();
        for piece in &pieces {
            assert!(piece.len() <= VALUE_BYTES + 4);
            chunk::decode_into(piece, &mut read).expect("each piece is a chunk");
        }
        assert_eq!(read, ids.iter().map(|id| Id::of(id)).collect());
    }

    #[test]
    fn a_value_is_named_by_position_and_content() {
        assert_eq!(value_name(3, b"ids"), value_name(3, b"ids"));
        assert_ne!(value_name(3, b"ids"), value_name(3, b"id"));
        assert!(value_name(255, b"ids") < value_name(256, b"id"), "what is newer comes later");
        assert!(value_name(256, b"") >= ValueName::default());
    }
}
