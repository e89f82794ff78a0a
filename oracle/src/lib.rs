//! The oracle: a naive relational implementation of `docs/semantics.md` that judges the real
//! pipeline in property tests.
//!
//! It is written from that page alone and shares no code with the pipeline, so that the two can
//! only agree by both being right. Comments quote the sentence that a line comes from.
//!
//! What it never does: it never filters or transforms (its events are what is left after steps 1
//! and 2), never looks at order, arrival time or record time, and knows no watermark, lane, late
//! event, `max_facts` or state. It sees all events at once and is allowed to be slow.

use std::collections::{BTreeMap, BTreeSet};

/// Which of the two streams an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// "A video appeared in the viewport."
    Impression,
    /// "The member played a video."
    Play,
}

/// The settings that decide what is counted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// True: `match = "request_and_video"`. False: `match = "request"`.
    pub match_video: bool,
    /// True: `impressions = "joined"`. False: `impressions = "all"`.
    pub impressions_joined: bool,
    /// True: `epoch_of_play = "play"`. False: `epoch_of_play = "impression"`.
    pub epoch_of_play_is_play: bool,
    /// How long after its impression a play may be and still match.
    pub within_ms: i64,
    /// How long before its impression a play may be and still match (clock skew).
    pub early_ms: i64,
    /// The lengths of epochs, each above 0; every length gives its own cells.
    pub epochs_ms: Vec<i64>,
    /// The grouping sets: lists of attribute names; every list gives its own cells.
    pub slices: Vec<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            match_video: true,
            impressions_joined: false,
            epoch_of_play_is_play: false,
            within_ms: 60 * 60_000,
            early_ms: 60_000,
            epochs_ms: vec![30 * 60_000],
            slices: vec![vec![]],
        }
    }
}

/// An event after filter and transform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// The stream that it came from.
    pub kind: Kind,
    /// "Its id is on every event that it causes and is the join key."
    pub request_id: String,
    /// The video to count under, so already transformed.
    pub video: String,
    /// The event time: whole milliseconds since 1970 UTC, not negative.
    pub time_ms: i64,
    /// Name to the JSON text of the value (`"US"` with its quotes, `3`, `null`), which is copied
    /// into slices as it stands. An absent name means null.
    pub attributes: BTreeMap<String, String>,
}

/// `(video, epoch, slice)`, with the length of the epoch, because several lengths may be counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The video that is counted.
    pub video: String,
    /// The length of the epoch.
    pub epoch_ms: i64,
    /// The start of the epoch, which names it.
    pub epoch_start_ms: i64,
    /// A compact JSON object with sorted keys, or nothing for the slice that counts everybody.
    pub slice: String,
}

/// Which of a cell's two sets of request ids is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The cell's impressions.
    Impressions,
    /// The cell's plays.
    Plays,
}

/// "One request id in one set of one cell."
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The cell.
    pub cell: Cell,
    /// The set in it.
    pub side: Side,
    /// The request id in that set.
    pub request_id: String,
}

/// Every member that the events make.
pub fn members(events: &[Event], s: &Settings) -> BTreeSet<Member> {
    proofs(events, s).into_keys().collect()
}

/// Every member with all its proofs, in ascending order.
///
/// A proof is the indices of events that together make the member: `[impression]` where the
/// impression is enough, `[impression, play]` where it takes a matching pair.
pub fn proofs(events: &[Event], s: &Settings) -> BTreeMap<Member, Vec<Vec<usize>>> {
    let mut proofs = BTreeMap::new();
    for request in requests(events).values() {
        for &i in &request.impressions {
            let impression = &events[i];
            // "Request ids of impressions with video v, epoch e, slice s": no play is needed.
            if !s.impressions_joined {
                let cells = cells(&impression.video, impression, s);
                add(&mut proofs, cells, Side::Impressions, &impression.request_id, &[i]);
            }
            for &p in &request.plays {
                let play = &events[p];
                if !is_match(impression, play, s) {
                    continue;
                }
                // "With `impressions = "joined"` only of those that match a play."
                if s.impressions_joined {
                    let cells = cells(&impression.video, impression, s);
                    add(&mut proofs, cells, Side::Impressions, &impression.request_id, &[i, p]);
                }
                // The video is always the play's. Epoch and slice are those of the impression,
                // "one cell for every matching impression", or else "the play's own".
                let counted_at = if s.epoch_of_play_is_play { play } else { impression };
                let cells = cells(&play.video, counted_at, s);
                add(&mut proofs, cells, Side::Plays, &play.request_id, &[i, p]);
            }
        }
    }
    proofs
}

/// The counts of every cell, as (impressions, plays): "a count is the cardinality of a set".
///
/// Only cells with a count above 0 are there.
pub fn counts(members: &BTreeSet<Member>) -> BTreeMap<Cell, (u64, u64)> {
    let mut counts = BTreeMap::new();
    for member in members {
        let (impressions, plays) = counts.entry(member.cell.clone()).or_insert((0, 0));
        match member.side {
            Side::Impressions => *impressions += 1,
            Side::Plays => *plays += 1,
        }
    }
    counts
}

/// The CSV of `docs/contract.md`, "Cells as CSV"; with several lengths, `epoch_ms` is the last
/// column.
pub fn csv(counts: &BTreeMap<Cell, (u64, u64)>, several_lengths: bool) -> String {
    let mut rows: Vec<_> = counts.iter().collect();
    // "Sorted by video id (bytewise), epoch, slice." The length comes last, where its column is,
    // and only to make the order total; a cell's own order has it earlier.
    rows.sort_by_key(|(cell, _)| (&cell.video, cell.epoch_start_ms, &cell.slice, cell.epoch_ms));

    let mut text = String::from("video_id,epoch_start_ms,slice,impressions,plays");
    text.push_str(if several_lengths { ",epoch_ms\n" } else { "\n" });
    for (cell, (impressions, plays)) in rows {
        let (video, slice) = (csv_field(&cell.video), csv_field(&cell.slice));
        text.push_str(&format!("{video},{},{slice},{impressions},{plays}", cell.epoch_start_ms));
        if several_lengths {
            text.push_str(&format!(",{}", cell.epoch_ms));
        }
        text.push('\n');
    }
    text
}

/// The indices of one request's events.
#[derive(Default)]
struct Request {
    impressions: Vec<usize>,
    plays: Vec<usize>,
}

/// The events by request id, since only events that "share the request id" can match.
fn requests(events: &[Event]) -> BTreeMap<&str, Request> {
    let mut requests = BTreeMap::<&str, Request>::new();
    for (index, event) in events.iter().enumerate() {
        let request = requests.entry(&event.request_id).or_default();
        match event.kind {
            Kind::Impression => request.impressions.push(index),
            Kind::Play => request.plays.push(index),
        }
    }
    requests
}

/// "Impression i and play p match when they share the request id, share the transformed video
/// (unless `match = "request"`), and `-early <= p.time - i.time <= within`."
fn is_match(i: &Event, p: &Event, s: &Settings) -> bool {
    let delay = p.time_ms - i.time_ms;
    i.request_id == p.request_id
        && (i.video == p.video || !s.match_video)
        && -s.early_ms <= delay
        && delay <= s.within_ms
}

/// The cells of a video at the epochs and slices of an event: one for each length of epoch and
/// each grouping set ("an event counts in one cell for each").
///
/// It is a set, so that a length or grouping set that is configured twice proves nothing twice.
fn cells(video: &str, counted_at: &Event, s: &Settings) -> BTreeSet<Cell> {
    let mut cells = BTreeSet::new();
    for &epoch_ms in &s.epochs_ms {
        for names in &s.slices {
            cells.insert(Cell {
                video: video.to_owned(),
                epoch_ms,
                epoch_start_ms: epoch_start(counted_at.time_ms, epoch_ms),
                slice: slice(names, &counted_at.attributes),
            });
        }
    }
    cells
}

/// "`floor(event time / length)`, named by its start."
fn epoch_start(time_ms: i64, length_ms: i64) -> i64 {
    time_ms.div_euclid(length_ms) * length_ms
}

/// "Values of some attributes, written as a JSON object with sorted keys (an absent attribute is
/// `null`); the empty slice (written as nothing) counts everybody."
fn slice(names: &[String], attributes: &BTreeMap<String, String>) -> String {
    if names.is_empty() {
        return String::new();
    }
    let sorted: BTreeSet<&String> = names.iter().collect();
    let fields: Vec<String> = sorted
        .into_iter()
        .map(|name| {
            let value = attributes.get(name).map_or("null", String::as_str);
            format!("{}:{value}", json_string(name))
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// A text as a JSON string, with only those escapes that JSON demands, in their short forms.
fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

/// A field as RFC 4180 writes it: in quotes, with quotes doubled, only where it has to be.
fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Notes one proof of one member in each of the cells.
fn add(
    proofs: &mut BTreeMap<Member, Vec<Vec<usize>>>,
    cells: BTreeSet<Cell>,
    side: Side,
    request_id: &str,
    proof: &[usize],
) {
    for cell in cells {
        let member = Member { cell, side, request_id: request_id.to_owned() };
        proofs.entry(member).or_default().push(proof.to_vec());
    }
}
