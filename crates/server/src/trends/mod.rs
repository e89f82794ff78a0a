//! Reads cells out of the store: filtered, sorted, a page at a time or all at once.
//!
//! `GET /v1/trends` and the command `marquee trends` are two faces of [`run`].
//!
//! | parameter | meaning |
//! |---|---|
//! | `from`, `to` | epochs that start at or after `from` and before `to`; RFC 3339 or milliseconds |
//! | `video` | only this video |
//! | `slice` | only this slice: a JSON object with exactly its attributes, `{"country":"US"}`; values are written as in answers (a `double` of five is `5.0`) |
//! | `slices=all` | all slices; default: only the empty one |
//! | `epoch_ms` | only epochs of this length, where there are several |
//! | `sort` | [`Sort`]; default: newest epoch first |
//! | `limit` | cells on a page, 1 to 10,000; default 100 |
//! | `after` | `next` of the page before |
//!
//! A cursor is a position in a list that goes on changing: it names the last cell of its page as
//! it stood then, and the next page begins behind that place. No cell that stays where it is gets
//! lost or comes twice; one whose counts grow while somebody turns pages may.

mod cursor;
mod order;
mod parameters;

pub use cursor::Cursor;
pub use parameters::{QueryError, canonical_slice};

use marquee_model::{CellCounts, CellKey};
use marquee_sinks::{CellQuery, Gap, SinkError, Store};
use order::Best;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Which slices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slices {
    /// Only this one, written as the store writes it ([`canonical_slice`]); empty: the empty slice.
    One(String),
    /// All of them.
    All,
}

impl Default for Slices {
    fn default() -> Self {
        Slices::One(String::new())
    }
}

/// Which cells come first. All orders are total: what is equal in the first respect is told apart
/// by the following ones, which end in the identity of the cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// Start of the epoch (newest first), its length (longest first), plays (most first), video
    /// and slice (bytewise).
    #[default]
    Newest,
    /// Plays (most first), then as [`Sort::Newest`].
    Plays,
    /// Impressions (most first), then as [`Sort::Newest`].
    Impressions,
    /// Plays per impression (highest first; cells without impressions last), plays (most first),
    /// then as [`Sort::Newest`].
    TakeRate,
    /// Video (bytewise), start of the epoch (oldest first), its length, slice: the order of
    /// exported cells.
    Video,
}

/// A question. The default: all cells of the empty slice, newest first.
#[derive(Clone, Debug, Default)]
pub struct TrendQuery {
    /// Epochs that start at or after this time, milliseconds since 1970 UTC.
    pub from_ms: Option<i64>,
    /// Epochs that start before this time.
    pub to_ms: Option<i64>,
    /// Only this video.
    pub video: Option<String>,
    /// Which slices.
    pub slices: Slices,
    /// Only epochs of this length.
    pub epoch_ms: Option<i64>,
    /// The order.
    pub sort: Sort,
    /// Cells on the page; `None` is all matching cells.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// A time near which the newest epochs are to be expected. It decides nothing: newest-first
    /// pages are found faster with it, since older epochs then need not be read.
    pub newest_near_ms: Option<i64>,
    /// Lanes that another process may be counting now, into its own store: what this store holds
    /// of their open epochs may lack members.
    pub lanes_elsewhere: Vec<u32>,
}

/// One cell as readers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrendCell {
    /// The video.
    pub video: String,
    /// Start of the epoch, milliseconds since 1970 UTC.
    pub epoch_start_ms: i64,
    /// Length of the epoch.
    pub epoch_ms: i64,
    /// The slice as compact JSON; empty for the empty slice. Serialized as an object.
    #[serde(serialize_with = "as_object")]
    pub slice: String,
    /// Requests that showed it.
    pub impressions: u64,
    /// Requests that played it.
    pub plays: u64,
    /// Whether no member can be missing because of a gap in the log.
    pub complete: bool,
    /// Whether all lanes have closed the epoch.
    pub sealed: bool,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The cells, in order.
    pub cells: Vec<TrendCell>,
    /// Where the next page begins, if there is more.
    pub next: Option<String>,
    /// Id of the generation that counted them.
    pub generation: String,
}

/// Answers a question from a store. Blocks while it reads.
///
/// Cells in which nobody is counted are left out. No more than two pages of cells are kept at a
/// time, unless there is no limit.
///
/// # Errors
/// The store cannot be read.
pub fn run(store: &dyn Store, query: &TrendQuery) -> Result<Page, SinkError> {
    let longest_ms = store.generation().epochs_ms()[0];
    // Asked before the cells are read: what was sealed then does not change any more.
    let sealed_before_ms = store.sealed_before_ms()?;
    let doubts = Doubts::of(store, &query.lanes_elsewhere)?;
    let mut best = Best::new(query.sort, query.limit.map(|limit| limit + 1));
    for (from_ms, to_ms) in windows(query, longest_ms) {
        let slice = match &query.slices {
            Slices::One(slice) => Some(slice.clone()),
            Slices::All => None,
        };
        let cells = CellQuery { from_ms: Some(from_ms), to_ms, video: query.video.clone(), slice };
        store.cells(&cells, &mut |key, counts| {
            if query.wants(&key, counts) {
                best.push((key, counts));
            }
        })?;
        if best.is_full() {
            break;
        }
    }
    let mut rows = best.into_sorted();
    let has_more = query.limit.is_some_and(|limit| rows.len() > limit);
    rows.truncate(query.limit.unwrap_or(usize::MAX));
    let next = rows.last().filter(|_| has_more).map(|row| Cursor::at(query, row).encode());
    let cell = |row| cell_of(row, longest_ms, sealed_before_ms, &doubts);
    let generation = store.generation().id.clone();
    Ok(Page { cells: rows.into_iter().map(cell).collect(), next, generation })
}

impl TrendQuery {
    /// What the store cannot select by itself.
    fn wants(&self, key: &CellKey, counts: CellCounts) -> bool {
        counts != CellCounts::default()
            && self.epoch_ms.is_none_or(|epoch_ms| key.epoch_ms == epoch_ms)
            && self.after.as_ref().is_none_or(|after| after.is_before(self.sort, key, counts))
    }
}

fn cell_of(
    (key, counts): (CellKey, CellCounts),
    longest_ms: i64,
    sealed_before_ms: i64,
    doubts: &Doubts,
) -> TrendCell {
    // State goes, and epochs are sealed, by the longest length.
    let end_ms = (key.epoch_start_ms.div_euclid(longest_ms) + 1).saturating_mul(longest_ms);
    TrendCell {
        complete: !doubts.touch(key.epoch_start_ms, key.epoch_ms),
        video: key.video,
        epoch_start_ms: key.epoch_start_ms,
        epoch_ms: key.epoch_ms,
        slice: key.slice,
        impressions: counts.impressions,
        plays: counts.plays,
        sealed: end_ms <= sealed_before_ms,
    }
}

/// Which cells may lack members.
struct Doubts {
    /// What no repair has filled of them.
    gaps: Vec<Gap>,
    /// Cells that end after this time may be counted elsewhere.
    elsewhere_from_ms: i64,
}

impl Doubts {
    fn of(store: &dyn Store, lanes_elsewhere: &[u32]) -> Result<Doubts, SinkError> {
        let mut elsewhere_from_ms = i64::MAX;
        for lane in lanes_elsewhere {
            let frontier = store.lane_state(*lane)?.map_or(0, |state| state.frontier);
            let open_ms = frontier.saturating_mul(store.generation().epochs_ms()[0]);
            elsewhere_from_ms = elsewhere_from_ms.min(open_ms);
        }
        let mut gaps = store.gaps()?;
        if !gaps.is_empty() {
            gaps = Gap::unrepaired(gaps, &store.repairs()?);
        }
        Ok(Doubts { gaps, elsewhere_from_ms })
    }

    fn touch(&self, epoch_start_ms: i64, epoch_ms: i64) -> bool {
        epoch_start_ms.saturating_add(epoch_ms) > self.elsewhere_from_ms
            || self.gaps.iter().any(|gap| gap.touches(epoch_start_ms, epoch_ms))
    }
}

/// The stretches of time to read one after the other, until the page is full: newest first where
/// that is the order, and each twice as long as the one before, so that a page of a store with
/// years of epochs reads its last hours and an old store is still read in a few steps.
fn windows(query: &TrendQuery, longest_ms: i64) -> Vec<(i64, Option<i64>)> {
    let from_ms = query.from_ms.unwrap_or(0);
    let mut to_ms = query.to_ms;
    if query.sort != Sort::Newest || query.limit.is_none() {
        return vec![(from_ms, to_ms)];
    }
    let cursor_ms = query.after.as_ref().map(Cursor::epoch_start_ms);
    if let Some(cursor_ms) = cursor_ms {
        // What starts after the cursor's epoch was on an earlier page.
        let end_ms = cursor_ms.saturating_add(1);
        to_ms = Some(to_ms.map_or(end_ms, |to_ms| to_ms.min(end_ms)));
    }
    let Some(near_ms) = cursor_ms.or(query.newest_near_ms) else { return vec![(from_ms, to_ms)] };
    let (mut windows, mut width_ms) = (Vec::new(), longest_ms.saturating_mul(2));
    let mut start_ms = to_ms.map_or(near_ms, |to_ms| to_ms.min(near_ms)).saturating_sub(width_ms);
    while start_ms > from_ms {
        windows.push((start_ms, to_ms));
        to_ms = Some(start_ms);
        width_ms = width_ms.saturating_mul(2);
        start_ms = start_ms.saturating_sub(width_ms);
    }
    windows.push((from_ms, to_ms));
    windows
}

fn as_object<S: Serializer>(slice: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let text = if slice.is_empty() { "{}" } else { slice };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(object) => object.serialize(serializer),
        // The store writes JSON. A text that is none is shown as it is.
        Err(_) => serializer.serialize_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_once_from_the_newest_on() {
        let query = |after_ms: Option<i64>| TrendQuery {
            from_ms: Some(5),
            to_ms: Some(1000),
            limit: Some(10),
            newest_near_ms: Some(after_ms.unwrap_or(900)),
            ..TrendQuery::default()
        };
        for near_ms in [None, Some(0), Some(6), Some(5000)] {
            let windows = windows(&query(near_ms), 10);
            assert_eq!(windows[0].1, Some(1000));
            assert_eq!(windows[windows.len() - 1].0, 5);
            for pair in windows.windows(2) {
                assert_eq!(pair[1].1, Some(pair[0].0), "no gap and no overlap");
            }
        }
        assert_eq!(windows(&query(None), 10)[0].0, 880);
        let all = TrendQuery { limit: None, ..query(None) };
        assert_eq!(windows(&all, 10), [(5, Some(1000))]);
    }
}
