//! The orders of cells, and how to keep only the first of many.

use super::Sort;
use marquee_model::{CellCounts, CellKey};
use std::cmp::Ordering;

/// A cell and its counts.
pub(super) type Row = (CellKey, CellCounts);

/// Which of two cells comes first.
pub(super) fn compare(sort: Sort, a: &Row, b: &Row) -> Ordering {
    let ((_, one), (_, other)) = (a, b);
    match sort {
        Sort::Newest => newest(a, b),
        Sort::Plays => other.plays.cmp(&one.plays).then_with(|| newest(a, b)),
        Sort::Impressions => other.impressions.cmp(&one.impressions).then_with(|| newest(a, b)),
        Sort::TakeRate => take_rate(other, one)
            .then_with(|| other.plays.cmp(&one.plays))
            .then_with(|| newest(a, b)),
        Sort::Video => a.0.cmp(&b.0),
    }
}

fn newest((one, counts): &Row, (other, other_counts): &Row) -> Ordering {
    let start = other.epoch_start_ms.cmp(&one.epoch_start_ms);
    start
        .then_with(|| other.epoch_ms.cmp(&one.epoch_ms))
        .then_with(|| other_counts.plays.cmp(&counts.plays))
        .then_with(|| one.video.cmp(&other.video))
        .then_with(|| one.slice.cmp(&other.slice))
}

/// Which take rate is the smaller one, without rounding; none is smaller than any.
fn take_rate(one: &CellCounts, other: &CellCounts) -> Ordering {
    match (one.impressions, other.impressions) {
        (0, 0) => Ordering::Equal,
        (0, _) => Ordering::Less,
        (_, 0) => Ordering::Greater,
        (shown, other_shown) => {
            let product = |plays: u64, shown: u64| u128::from(plays) * u128::from(shown);
            product(one.plays, other_shown).cmp(&product(other.plays, shown))
        }
    }
}

/// The first rows of a list that is longer than what one wants to keep.
pub(super) struct Best {
    sort: Sort,
    /// How many; `None` keeps all.
    wanted: Option<usize>,
    /// In no order, and up to twice as many as wanted: sorting out in bulk is cheap per row.
    rows: Vec<Row>,
}

/// Rows beyond twice the wanted ones: a small page is not sorted out at every row.
const SLACK: usize = 256;

impl Best {
    pub(super) fn new(sort: Sort, wanted: Option<usize>) -> Self {
        Best { sort, wanted, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
        if let Some(wanted) = self.wanted
            && self.rows.len() >= wanted * 2 + SLACK
        {
            let sort = self.sort;
            self.rows.select_nth_unstable_by(wanted, |a, b| compare(sort, a, b));
            self.rows.truncate(wanted);
        }
    }

    /// Whether there are as many rows as wanted. Later ones may still be better.
    pub(super) fn is_full(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.rows.len() >= wanted)
    }

    pub(super) fn into_sorted(mut self) -> Vec<Row> {
        self.rows.sort_unstable_by(|a, b| compare(self.sort, a, b));
        self.rows.truncate(self.wanted.unwrap_or(usize::MAX));
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Row {
        let key = CellKey {
            video: format!("v{}", number % 7),
            epoch_start_ms: (number % 5) as i64 * 10,
            epoch_ms: if number.is_multiple_of(2) { 10 } else { 5 },
            slice: ["", r#"{"c":1}"#, r#"{"c":2}"#][(number % 3) as usize].to_owned(),
        };
        (key, CellCounts { impressions: number % 4, plays: number % 3 })
    }

    #[test]
    fn the_best_are_the_first_of_all() {
        for sort in [Sort::Newest, Sort::Plays, Sort::Impressions, Sort::TakeRate, Sort::Video] {
            let mut all: Vec<Row> = (0..210).map(row).collect();
            all.sort_by(|a, b| compare(sort, a, b));
            for pair in all.windows(2) {
                assert_eq!(compare(sort, &pair[0], &pair[1]), Ordering::Less, "{sort:?} is total");
                assert_eq!(compare(sort, &pair[1], &pair[0]), Ordering::Greater);
            }
            let mut best = Best::new(sort, Some(3));
            (0..10).flat_map(|_| 0..210).map(row).for_each(|row| best.push(row));
            let mut first = best.into_sorted();
            first.dedup();
            assert_eq!(first, all[..1], "ten times the same");
            let mut best = Best::new(sort, Some(30));
            (0..210).map(|n| row(n * 11 % 210)).for_each(|row| best.push(row));
            assert_eq!(best.into_sorted(), all[..30]);
        }
    }
}
