//! Positions in a sorted list of cells, as opaque texts.

use super::order::{Row, compare};
use super::{Sort, TrendQuery};
use marquee_model::{CellCounts, CellKey};
use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The last cell of a page, as it stood then, and the query that it belongs to.
///
/// As a text: the numbers (8 bytes each, big-endian), the length of the video (2 bytes), video and
/// slice, all of it in Base64 for URLs. Clients must not rely on that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Hash of what selects and sorts the cells: another list has other positions.
    query: u64,
    row: Row,
}

impl Cursor {
    pub(super) fn at(query: &TrendQuery, row: &Row) -> Self {
        Cursor { query: hash(query), row: row.clone() }
    }

    pub(super) fn epoch_start_ms(&self) -> i64 {
        self.row.0.epoch_start_ms
    }

    /// Whether a cell belongs to a later page.
    pub(super) fn is_before(&self, sort: Sort, key: &CellKey, counts: CellCounts) -> bool {
        // The order looks at whole rows; a clone of two texts is little beside reading them.
        compare(sort, &self.row, &(key.clone(), counts)) == Ordering::Less
    }

    /// Whether the cursor was given out for this query; its limit may be another.
    pub(super) fn belongs_to(&self, query: &TrendQuery) -> bool {
        self.query == hash(query)
    }

    pub(super) fn encode(&self) -> String {
        let (key, counts) = &self.row;
        let numbers = [
            self.query,
            key.epoch_start_ms as u64,
            key.epoch_ms as u64,
            counts.impressions,
            counts.plays,
        ];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        bytes.extend_from_slice(&(key.video.len() as u16).to_be_bytes());
        bytes.extend_from_slice(key.video.as_bytes());
        bytes.extend_from_slice(key.slice.as_bytes());
        to_base64(&bytes)
    }

    /// `None` for what is no cursor.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = from_base64(text)?;
        let (numbers, rest) = bytes.split_at_checked(40)?;
        let number = |place: usize| -> Option<u64> {
            Some(u64::from_be_bytes(numbers.get(place * 8..)?.get(..8)?.try_into().ok()?))
        };
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (video, slice) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let key = CellKey {
            video: str::from_utf8(video).ok()?.to_owned(),
            epoch_start_ms: i64::try_from(number(1)?).ok()?,
            epoch_ms: i64::try_from(number(2)?).ok()?,
            slice: str::from_utf8(slice).ok()?.to_owned(),
        };
        let counts = CellCounts { impressions: number(3)?, plays: number(4)? };
        Some(Cursor { query: number(0)?, row: (key, counts) })
    }
}

fn hash(query: &TrendQuery) -> u64 {
    let TrendQuery { from_ms, to_ms, video, slices, epoch_ms, sort, .. } = query;
    let mut hasher = DefaultHasher::new();
    (from_ms, to_ms, video, slices, epoch_ms, sort).hash(&mut hasher);
    hasher.finish()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(padded);
        for digit in 0..=group.len() {
            let place = number >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[place as usize]));
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut number = 0_u32;
        for (place, byte) in group.iter().enumerate() {
            let digit = DIGITS.iter().position(|digit| digit == byte)?;
            number |= (digit as u32) << (18 - 6 * place);
        }
        let whole = (group.len() * 6) / 8;
        if whole == 0 {
            return None;
        }
        bytes.extend_from_slice(&number.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_what_was_written() {
        assert_eq!(to_base64(b"light w"), "bGlnaHQgdw");
        for (video, slice) in [("", ""), ("v", r#"{"c":"é"}"#), ("日本\0", "{}"), ("abcd", "a")]
        {
            let key = CellKey {
                video: video.to_owned(),
                epoch_start_ms: 1_800_000,
                epoch_ms: 60_000,
                slice: slice.to_owned(),
            };
            let row = (key, CellCounts { impressions: u64::MAX, plays: 3 });
            let cursor = Cursor::at(&TrendQuery::default(), &row);
            assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }
        for bad in ["", "A", "AAAA", "!!!!", "é", &"A".repeat(55)] {
            assert_eq!(Cursor::decode(bad), None, "{bad}");
        }
    }
}
