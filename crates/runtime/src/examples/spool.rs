//! The spool: events on their way to examples, by lane and stretch, in memory up to a limit and then
//! in a temporary file.
//!
//! An impression goes to the stretch that it is in, a play to every stretch that an impression could
//! be in which it matches. What comes too late for a stretch that was written before is noted.

use super::label::Kept;
use crate::backfill::{Intake, Summary};
use crate::plan::{Plan, StreamPlan};
use marquee_expr::Value;
use marquee_model::{Kind, lane_of};
use marquee_pipeline::prepare::{ATTRIBUTES, DeadReason, Prepared, REQUEST_ID, TIME};
use marquee_sinks::lake::{AttributeValue, Layout};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;

/// A lane's stretch: the lane, and the start in milliseconds.
pub(super) type Place = (u32, i64);

/// Segments that are smaller than this stay in memory while there are larger ones.
const WORTH_A_PAGE_BYTES: usize = 64 << 10;

/// What is asked of it.
pub(super) struct Wanted<'a> {
    /// Whether events of a stretch are kept.
    pub(super) is_kept: &'a dyn Fn(Place) -> bool,
    /// Stretches that were written before, with the offsets that were looked at then, by topic.
    pub(super) watched: &'a BTreeMap<i64, Vec<u64>>,
}

/// Takes events.
pub(super) struct Spool<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    wanted: Wanted<'a>,
    segments: BTreeMap<Place, Segment>,
    /// Bytes of segments in memory, and how many there may be.
    held_bytes: usize,
    memory_bytes: usize,
    /// Where pages go.
    file: Option<File>,
    file_bytes: u64,
    /// Topic, lane and offset of the record that is being taken; `None` for files.
    at: Option<(usize, u32, u64)>,
    /// Stretches that were written before events of theirs came.
    pub(super) late: BTreeSet<i64>,
    pub(super) summary: Summary,
    failed: Option<std::io::Error>,
    entry: Vec<u8>,
}

/// What is kept of one lane's stretch.
#[derive(Default)]
struct Segment {
    /// Place and length of its parts in the file.
    pages: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl<'a> Spool<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        layout: &'a Layout,
        memory_bytes: u64,
        wanted: Wanted<'a>,
    ) -> Self {
        Spool {
            plan,
            layout,
            wanted,
            segments: BTreeMap::new(),
            held_bytes: 0,
            memory_bytes: memory_bytes as usize,
            file: None,
            file_bytes: 0,
            at: None,
            late: BTreeSet::new(),
            summary: Summary::default(),
            failed: None,
            entry: Vec::new(),
        }
    }

    /// Stretches of which something was kept.
    pub(super) fn places(&self) -> Vec<Place> {
        self.segments.keys().copied().collect()
    }

    /// Bytes that were kept of a stretch.
    pub(super) fn bytes_of(&self, place: Place) -> u64 {
        self.segments.get(&place).map_or(0, |segment| {
            let pages: usize = segment.pages.iter().map(|(_, len)| len).sum();
            (pages + segment.bytes.len()) as u64
        })
    }

    /// The events of a stretch whose requests belong to one of so many parts, as bytes for [`kept`].
    pub(super) fn read(
        &mut self,
        place: Place,
        (part, parts): (u64, u64),
    ) -> std::io::Result<Vec<u8>> {
        let mut chosen = Vec::new();
        let Some(segment) = self.segments.get(&place) else { return Ok(chosen) };
        let mut choose = |bytes: &[u8]| {
            for (entry, event) in Entries(bytes) {
                if part_of(event.request, parts) == part {
                    chosen.extend_from_slice(entry);
                }
            }
        };
        let mut page = Vec::new();
        for (at, len) in &segment.pages {
            let file = self.file.as_mut().expect("pages are in it");
            page.resize(*len, 0);
            file.seek(SeekFrom::Start(*at))?;
            file.read_exact(&mut page)?;
            choose(&page);
        }
        choose(&segment.bytes);
        Ok(chosen)
    }

    fn keep(&mut self, stream: &StreamPlan, values: &[Value<'_>]) -> Result<(), DeadReason> {
        let video = match stream.stream.prepare(values) {
            Prepared::Video(video) => video,
            Prepared::Filtered => {
                self.summary.filtered += 1;
                return Ok(());
            }
            Prepared::Dead(reason) => return Err(reason),
        };
        let (Value::String(request), Value::Int(time_ms)) = (&values[REQUEST_ID], &values[TIME])
        else {
            unreachable!("the decoder gives a request id and a time, or a dead letter");
        };
        let kind = stream.stream.kind();
        let lane = match self.at {
            Some((_, lane, _)) => lane,
            None => lane_of(self.plan.partitioner, request.as_bytes(), self.plan.lanes),
        };
        self.entry.clear();
        for from_ms in self.stretches(kind, *time_ms).step_by(self.layout.stretch_ms as usize) {
            if (self.wanted.is_kept)((lane, from_ms)) {
                if self.entry.is_empty() {
                    let attributes = if kind == Kind::Play { &[] } else { &values[ATTRIBUTES..] };
                    write_entry(&mut self.entry, kind, *time_ms, [request, &video], attributes);
                }
                let segment = self.segments.entry((lane, from_ms)).or_default();
                segment.bytes.extend_from_slice(&self.entry);
                self.held_bytes += self.entry.len();
            } else if self.is_late(from_ms) {
                self.late.insert(from_ms);
            }
        }
        if self.held_bytes > self.memory_bytes
            && let Err(error) = self.spill()
        {
            self.failed = Some(error);
        }
        Ok(())
    }

    /// Starts of the first and the last stretch that an event matters to.
    fn stretches(&self, kind: Kind, time_ms: i64) -> RangeInclusive<i64> {
        let settings = &self.plan.settings;
        let (from_ms, to_ms) = match kind {
            Kind::Impression => (time_ms, time_ms),
            Kind::Play => (
                time_ms.saturating_sub(settings.within_ms).max(0),
                time_ms.saturating_add(settings.early_ms),
            ),
        };
        self.layout.stretch_of(from_ms)..=self.layout.stretch_of(to_ms)
    }

    fn is_late(&self, from_ms: i64) -> bool {
        let Some((topic, _, offset)) = self.at else { return false };
        let read_to = self.wanted.watched.get(&from_ms);
        read_to.is_some_and(|read_to| offset >= read_to.get(topic).copied().unwrap_or(0))
    }

    /// Writes segments to the file: all that are large, or all, where none is.
    #[cold]
    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let largest = self.segments.values().map(|segment| segment.bytes.len()).max().unwrap_or(0);
        let least = WORTH_A_PAGE_BYTES.min(largest);
        file.seek(SeekFrom::Start(self.file_bytes))?;
        for segment in self.segments.values_mut().filter(|s| s.bytes.len() >= least) {
            file.write_all(&segment.bytes)?;
            segment.pages.push((self.file_bytes, segment.bytes.len()));
            self.file_bytes += segment.bytes.len() as u64;
            self.held_bytes -= segment.bytes.len();
            segment.bytes = Vec::new();
        }
        Ok(())
    }
}

impl Intake for Spool<'_> {
    fn at(&mut self, topic: usize, lane: u32, offset: u64) {
        self.at = Some((topic, lane, offset));
    }

    fn take(
        &mut self,
        stream: &StreamPlan,
        _row: Option<usize>,
        event: Result<&[Value<'_>], DeadReason>,
    ) -> Result<(), DeadReason> {
        self.summary.events += 1;
        self.keep(stream, event?)
    }

    fn summary(&mut self) -> &mut Summary {
        &mut self.summary
    }

    fn failed(&mut self) -> Option<std::io::Error> {
        self.failed.take()
    }

    fn finish(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Which of so many parts a request belongs to.
pub(super) fn part_of(request: &str, parts: u64) -> u64 {
    if parts == 1 {
        return 0;
    }
    let mut hasher = SipHasher13::new();
    hasher.write(request.as_bytes());
    hasher.finish() % parts
}

/// The events in bytes that [`Spool::read`] gave.
pub(super) fn kept(bytes: &[u8]) -> Vec<Kept<'_>> {
    Entries(bytes).map(|(_, event)| event).collect()
}

/// The attributes of an event.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<AttributeValue<'_>> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        bytes = rest;
        values.push(match tag {
            0 => AttributeValue::Null,
            1 => AttributeValue::Text(take_text(&mut bytes)),
            2 => AttributeValue::Int(i64::from_le_bytes(take(&mut bytes))),
            3 => AttributeValue::Double(f64::from_le_bytes(take(&mut bytes))),
            _ => AttributeValue::Bool(take::<1>(&mut bytes) == [1]),
        });
    }
    values
}

/// An entry: its length, the kind, the time, the request, the video, the attributes.
fn write_entry(
    out: &mut Vec<u8>,
    kind: Kind,
    time_ms: i64,
    texts: [&str; 2],
    attributes: &[Value<'_>],
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(u8::from(kind == Kind::Play));
    out.extend_from_slice(&time_ms.to_le_bytes());
    texts.iter().for_each(|text| write_text(out, text));
    for value in attributes {
        match value {
            Value::Null => out.push(0),
            Value::String(text) => {
                out.push(1);
                write_text(out, text);
            }
            Value::Int(number) => {
                out.push(2);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Double(number) => {
                out.push(3);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Bool(truth) => out.extend_from_slice(&[4, u8::from(*truth)]),
            Value::StringMap(_) => unreachable!("headers are no attribute"),
        }
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("an entry is read as it was written");
    *bytes = rest;
    *taken
}

fn take_text<'b>(bytes: &mut &'b [u8]) -> &'b str {
    let len = u32::from_le_bytes(take(bytes)) as usize;
    let (text, rest) = bytes.split_at(len);
    *bytes = rest;
    std::str::from_utf8(text).expect("it was written from a text")
}

/// Entries one after the other, each with its bytes.
struct Entries<'b>(&'b [u8]);

impl<'b> Iterator for Entries<'b> {
    type Item = (&'b [u8], Kept<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut bytes = self.0;
        let len = u32::from_le_bytes(take(&mut bytes)) as usize;
        let (entry, rest) = self.0.split_at(len + 4);
        self.0 = rest;
        let mut fields = &entry[4..];
        let is_play = take::<1>(&mut fields) == [1];
        let time_ms = i64::from_le_bytes(take(&mut fields));
        let request = take_text(&mut fields);
        let video = take_text(&mut fields);
        Some((entry, Kept { request, is_play, video, time_ms, attributes: fields }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_as_they_were_written() {
        let values = [
            Value::Null,
            Value::String("tv \u{1f4fa}".into()),
            Value::Int(-7),
            Value::Double(0.25),
            Value::Bool(true),
        ];
        let mut bytes = Vec::new();
        write_entry(&mut bytes, Kind::Impression, 123, ["request", "video"], &values);
        write_entry(&mut bytes, Kind::Play, i64::MAX, ["", "v"], &[]);
        let events = kept(&bytes);
        assert_eq!(
            (events[0].request, events[0].video, events[0].time_ms),
            ("request", "video", 123)
        );
        assert!(!events[0].is_play && events[1].is_play);
        assert_eq!((events[1].request, events[1].time_ms, events.len()), ("", i64::MAX, 2));
        let expected = [
            AttributeValue::Null,
            AttributeValue::Text("tv \u{1f4fa}"),
            AttributeValue::Int(-7),
            AttributeValue::Double(0.25),
            AttributeValue::Bool(true),
        ];
        assert_eq!(attributes(events[0].attributes), expected);
        assert_eq!(attributes(events[1].attributes), []);
    }

    #[test]
    fn every_request_is_in_one_part() {
        let mut seen = [0; 3];
        (0..3000).for_each(|n| seen[part_of(&format!("r{n}"), 3) as usize] += 1);
        assert!(seen.iter().all(|count| *count > 900), "{seen:?}");
        assert_eq!(part_of("r", 1), 0);
    }
}
