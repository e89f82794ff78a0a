//! Cells as the program writes them (docs/contract.md, "Cells as CSV"), read back and compared.

use std::collections::{BTreeMap, BTreeSet};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Video id.
    pub video: String,
    /// Start of the epoch, milliseconds since 1970 UTC.
    pub epoch_start_ms: i64,
    /// Length of the epoch; 0 where the file has no such column.
    pub epoch_ms: i64,
    /// JSON with sorted keys, or empty.
    pub slice: String,
    /// Distinct requests that showed the video.
    pub impressions: u64,
    /// Distinct requests that played it.
    pub plays: u64,
}

/// A cell of the empty slice, in a file with one length of epochs.
pub fn cell(video: &str, epoch_start_ms: i64, impressions: u64, plays: u64) -> Cell {
    let (video, slice) = (video.to_owned(), String::new());
    Cell { video, epoch_start_ms, epoch_ms: 0, slice, impressions, plays }
}

/// Reads a file of cells, in its order.
pub fn of_csv(csv: &[u8]) -> Vec<Cell> {
    let text = std::str::from_utf8(csv).expect("cells are UTF-8");
    let mut rows = rows(text).into_iter();
    let header = rows.next().expect("there is a header").join(",");
    let with_length = header == "video_id,epoch_start_ms,slice,impressions,plays,epoch_ms";
    assert!(with_length || header == "video_id,epoch_start_ms,slice,impressions,plays", "{header}");
    rows.map(|row| of_row(&row, with_length)).collect()
}

fn of_row(row: &[String], with_length: bool) -> Cell {
    assert_eq!(row.len(), 5 + usize::from(with_length), "columns of {row:?}");
    let number = |column: usize| row[column].parse().expect("a number");
    Cell {
        video: row[0].clone(),
        epoch_start_ms: row[1].parse().expect("a time"),
        epoch_ms: row.get(5).map_or(0, |length| length.parse().expect("a length")),
        slice: row[2].clone(),
        impressions: number(3),
        plays: number(4),
    }
}

/// The fields of RFC 4180 with line feeds, and nothing more lenient.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut row = Vec::new();
        loop {
            let (field, after) = field(rest);
            row.push(field);
            match after.split_at_checked(1) {
                Some((",", after)) => rest = after,
                Some(("\n", after)) => {
                    rest = after;
                    break;
                }
                other => panic!("a field is followed by {other:?}"),
            }
        }
        rows.push(row);
    }
    rows
}

/// The first field, and what follows it.
fn field(text: &str) -> (String, &str) {
    let Some(mut quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).expect("each row ends with a line feed");
        assert!(!text[..end].contains(['"', '\r']), "{:?} must be quoted", &text[..end]);
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut field = String::new();
    loop {
        let end = quoted.find('"').expect("a quoted field is closed");
        field.push_str(&quoted[..end]);
        quoted = &quoted[end + 1..];
        match quoted.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                quoted = after;
            }
            None => return (field, quoted),
        }
    }
}

/// Panics with the first cells that differ, unless both hold the same, in any order.
#[track_caller]
pub fn assert_same(found: &[Cell], expected: &[Cell]) {
    let (found, expected) = (by_key(found), by_key(expected));
    let keys: BTreeSet<&Key<'_>> = found.keys().chain(expected.keys()).collect();
    let pairs = keys.into_iter().map(|key| (key, found.get(key), expected.get(key)));
    let different: Vec<_> = pairs.filter(|(_, found, expected)| found != expected).collect();
    assert!(
        different.is_empty(),
        "{} of {} cells differ; (cell, found, expected) of the first: {:#?}",
        different.len(),
        expected.len(),
        different.iter().take(5).collect::<Vec<_>>()
    );
}

/// Video, start and length of the epoch, slice.
type Key<'c> = (&'c str, i64, i64, &'c str);

/// Impressions and plays by cell; panics where a cell is there twice.
#[track_caller]
fn by_key(cells: &[Cell]) -> BTreeMap<Key<'_>, (u64, u64)> {
    let mut by_key = BTreeMap::new();
    for c in cells {
        let key = (c.video.as_str(), c.epoch_start_ms, c.epoch_ms, c.slice.as_str());
        let old = by_key.insert(key, (c.impressions, c.plays));
        assert_eq!(old, None, "{key:?} is there twice");
    }
    by_key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_are_read() {
        let csv = "video_id,epoch_start_ms,slice,impressions,plays\n\
                   \"a,\"\"b\"\"\nc\",1800000,\"{\"\"k\"\":null}\",2,1\nd,0,,3,0\n";
        let first = Cell { slice: r#"{"k":null}"#.into(), ..cell("a,\"b\"\nc", 1_800_000, 2, 1) };
        assert_eq!(of_csv(csv.as_bytes()), [first, cell("d", 0, 3, 0)]);
    }

    #[test]
    #[should_panic(expected = "1 of 2 cells differ")]
    fn a_count_that_differs_is_found() {
        assert_same(
            &[cell("a", 0, 1, 0), cell("b", 0, 2, 1)],
            &[cell("b", 0, 2, 0), cell("a", 0, 1, 0)],
        );
    }

    #[test]
    #[should_panic(expected = "cells differ")]
    fn a_cell_too_many_is_found() {
        assert_same(&[cell("a", 0, 1, 0), cell("b", 0, 2, 1)], &[cell("a", 0, 1, 0)]);
    }
}
