//! Generated events without end, made as they are read: half an hour of `marquee generate`, again
//! and again, each time half an hour later and of other requests. So any number of events can be
//! fed to real lanes without a log that holds them, and event time moves on as in a real stream.
//!
//! What an event needs to be new (its time and the first digits of its request id) is written over
//! its own text, which costs some ten nanoseconds; [`cost_ns`] measures that.

use anyhow::{Context, Result};
use marquee::generate::{Options, arrivals};
use marquee_model::{Kind, Partitioner, lane_of};
use marquee_sources::{AssignedLane, Change, Commit, Limit, Record, STRETCH, Source, SourceError};
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

/// A multiple of the length of an epoch.
pub(crate) const LAP_MS: i64 = 1_800_000;

/// Both topics have so many lanes.
pub(crate) const LANES: u32 = 4;

const SEED: u64 = 7;

/// Digits of the request id that tell the laps apart.
const ID_DIGITS: usize = 8;
/// What stands before it.
const ID_AT: usize = "{\"request_id\":\"".len();
/// Digits of a time in milliseconds, until the year 2286.
const TIME_DIGITS: usize = 13;

/// One event of the half hour.
#[derive(Clone, Debug)]
struct Line {
    /// When it arrives in the first lap.
    arrival_ms: i64,
    /// When it happened in its own lap.
    event_time_ms: i64,
    /// It happened so many laps before it arrives.
    laps_behind: i64,
    /// The first digits of its request id, as a number.
    id: u32,
    /// Where it stands in the bytes, and where its parts that change stand in them.
    start: usize,
    end: usize,
    id_at: usize,
    time_at: usize,
}

/// The events of one topic in one lane, and how far they have been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    lap: i64,
    next: usize,
    offset: u64,
    /// Where the last lap ends.
    end: u64,
}

impl Track {
    /// Makes the next event: the time of its arrival, and where its text stands until the same line
    /// has its turn in another lap.
    fn make(&mut self) -> (i64, Range<usize>) {
        loop {
            if self.next == self.lines.len() {
                (self.lap, self.next) = (self.lap + 1, 0);
            }
            let line = &self.lines[self.next];
            self.next += 1;
            let lap = self.lap - line.laps_behind;
            if lap >= 0 {
                let id = line.id ^ (lap as u32).wrapping_mul(0x9e37_79b9);
                write_hex(&mut self.bytes[line.id_at..][..ID_DIGITS], id);
                let time_ms = line.event_time_ms + lap * LAP_MS;
                write_decimal(&mut self.bytes[line.time_at..][..TIME_DIGITS], time_ms);
                self.offset += 1;
                return (line.arrival_ms + self.lap * LAP_MS, line.start..line.end);
            }
        }
    }

    /// The next event as one that happens now, for those who send to a running service.
    pub(crate) fn lend_at(&mut self, now_ms: i64) -> &[u8] {
        let (_, text) = self.make();
        let time_at = self.lines[self.next - 1].time_at;
        write_decimal(&mut self.bytes[time_at..][..TIME_DIGITS], now_ms);
        &self.bytes[text]
    }

    fn seek(&mut self, offset: u64) {
        (self.lap, self.next, self.offset) = (0, 0, 0);
        while self.offset < offset {
            self.make();
        }
    }

    fn push(&mut self, arrival_ms: i64, event_time_ms: i64, start_ms: i64, json: &[u8]) {
        let find = |what: &[u8]| {
            let at = json.windows(what.len()).position(|window| window == what);
            at.expect("generated events have this field") + what.len()
        };
        let (id_at, time_at) = (ID_AT, find(b"\"ts\":"));
        let digits = std::str::from_utf8(&json[id_at..][..ID_DIGITS]).expect("it is ASCII");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(json);
        let laps_behind = (arrival_ms - start_ms).div_euclid(LAP_MS);
        self.lines.push(Line {
            arrival_ms: arrival_ms - laps_behind * LAP_MS,
            event_time_ms,
            laps_behind,
            id: u32::from_str_radix(digits, 16).expect("an id is hexadecimal"),
            start,
            end: start + json.len(),
            id_at: start + id_at,
            time_at: start + time_at,
        });
    }

    /// Events until the end of so many laps.
    fn events_of(&self, laps: i64) -> u64 {
        self.lines.iter().map(|line| (laps - line.laps_behind).max(0) as u64).sum()
    }
}

fn write_hex(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn write_decimal(out: &mut [u8], number: i64) {
    let mut number = number as u64;
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The request id of a generated event.
pub(crate) fn request_id_of(json: &[u8]) -> Option<&[u8]> {
    let text = json.get(ID_AT..)?;
    text.split(|byte| *byte == b'"').next()
}

/// Tracks by lane, then by topic: impressions and plays. `requests` start in each half hour.
pub(crate) fn tracks(requests: u64) -> Result<Vec<[Track; 2]>> {
    let options = Options { span_ms: LAP_MS, ..Options::new(requests, SEED) };
    let mut tracks = vec![<[Track; 2]>::default(); LANES as usize];
    let mut json = Vec::new();
    for arrival in arrivals(&options)? {
        json.clear();
        arrival.event.write_json(&mut json);
        let id = arrival.event.request_id();
        let lane = lane_of(Partitioner::Murmur2, id.as_bytes(), LANES);
        let topic = usize::from(arrival.event.kind() == Kind::Play);
        let (at_ms, time_ms) = (arrival.arrival_ms, arrival.event.event_time_ms());
        tracks[lane as usize][topic].push(at_ms, time_ms, options.start_ms, &json);
    }
    // What arrives after the half hour arrives at the beginning of the next one, beside its events.
    tracks.iter_mut().flatten().for_each(|track| track.lines.sort_by_key(|line| line.arrival_ms));
    Ok(tracks)
}

/// One owner's lanes of an endless log.
pub(crate) struct EndlessSource {
    /// By lane; empty where another owner has it.
    tracks: Vec<[Track; 2]>,
    lanes: Vec<u32>,
    is_given: bool,
}

/// A source for each owner, and the number of events until the end: at least so many.
pub(crate) fn sources(
    requests: u64,
    events: u64,
    owners: usize,
) -> Result<(Vec<EndlessSource>, u64)> {
    let mut tracks = tracks(requests)?;
    let of = |laps| tracks.iter().flatten().map(|track| track.events_of(laps)).sum::<u64>();
    let laps = (1..).find(|laps| of(*laps) >= events).context("laps never end")?;
    let total = of(laps);
    for track in tracks.iter_mut().flatten() {
        track.end = track.events_of(laps);
    }
    let source = |owner: usize| {
        let lanes = (0..LANES).filter(|lane| *lane as usize % owners == owner);
        let lanes: Vec<u32> = lanes.collect();
        let mut own = vec![<[Track; 2]>::default(); tracks.len()];
        for lane in &lanes {
            own[*lane as usize] = tracks[*lane as usize].clone();
        }
        EndlessSource { tracks: own, lanes, is_given: false }
    };
    Ok(((0..owners).map(source).collect(), total))
}

/// What making an event costs, nanoseconds.
pub(crate) fn cost_ns(requests: u64) -> Result<f64> {
    const EVENTS: u64 = 2_000_000;
    let mut tracks = tracks(requests)?;
    let track = &mut tracks[0][0];
    let start = crate::process::thread_cpu_ns()?;
    for _ in 0..EVENTS {
        black_box(track.make());
    }
    Ok((crate::process::thread_cpu_ns()? - start) as f64 / EVENTS as f64)
}

impl EndlessSource {
    fn track(&self, topic: usize, lane: u32) -> &Track {
        &self.tracks[lane as usize][topic]
    }
}

impl Source for EndlessSource {
    fn change(&mut self) -> Result<Change, SourceError> {
        if std::mem::replace(&mut self.is_given, true) {
            return Ok(Change::None);
        }
        let lane = |lane: &u32| AssignedLane {
            lane: *lane,
            start_offsets: vec![0; 2],
            end_offsets: self.tracks[*lane as usize].iter().map(|track| track.end).collect(),
            notes: Vec::new(),
        };
        Ok(Change::Assigned(self.lanes.iter().map(lane).collect()))
    }

    fn is_revoked(&mut self) -> bool {
        false
    }

    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError> {
        from.iter().try_for_each(|(lane, offsets)| self.seek(*lane, offsets))
    }

    fn seek(&mut self, lane: u32, from: &[u64]) -> Result<(), SourceError> {
        for (track, offset) in self.tracks[lane as usize].iter_mut().zip(from) {
            track.seek(*offset);
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    fn read(
        &mut self,
        topic: usize,
        lane: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        let track = &mut self.tracks[lane as usize][topic];
        let (mut records, mut bytes) = (0, 0);
        let end = track.end.min(limit.before);
        while track.offset < end && records < limit.records && bytes < limit.bytes {
            let (first, most) = (track.offset, (end - track.offset).min(STRETCH as u64) as usize);
            let most = most.min(limit.records - records);
            let mut texts = Vec::new();
            // Not across the end of a lap, in each of which a line's text is made anew.
            while texts.is_empty() || (texts.len() < most && track.next < track.lines.len()) {
                texts.push(track.make());
            }
            let record = |(offset, (arrival_ms, text)): (u64, &(i64, Range<usize>))| Record {
                offset,
                record_time_ms: Some(*arrival_ms),
                key: None,
                payload: Some(&track.bytes[text.clone()]),
                headers: &[],
            };
            let stretch: Vec<_> = (first..).zip(&texts).map(record).collect();
            records += stretch.len();
            bytes += texts.iter().map(|(_, text)| text.len()).sum::<usize>();
            each(&stretch);
        }
        Ok(track.offset)
    }

    fn has_data(&self, topic: usize, lane: u32) -> bool {
        self.track(topic, lane).offset < self.track(topic, lane).end
    }

    /// Never: at its end nobody waits for what time would do.
    fn is_idle(&self, _: usize, _: u32) -> bool {
        false
    }

    fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        self.track(topic, lane).end
    }

    fn commit(&mut self, _: &[Commit<'_>]) -> Result<u64, SourceError> {
        Ok(0)
    }

    fn confirmed(&self) -> u64 {
        0
    }

    fn flush_commits(&mut self) {}

    fn wait(&mut self, timeout: Duration) {
        std::thread::sleep(timeout.min(Duration::from_millis(5)));
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn ends_with_process(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_lap_brings_other_requests_at_later_times_and_no_event_twice() {
        let mut tracks = tracks(50).expect("it is generated");
        let lap_events = tracks.iter().flatten().map(|track| track.lines.len() as u64);
        let lap_events: u64 = lap_events.sum();
        let (mut ids, mut events) = (BTreeSet::new(), 0);
        for track in tracks.iter_mut().flatten() {
            let (laps, mut last_ms) = (4, 0);
            for _ in 0..track.events_of(laps) {
                let (arrival_ms, text) = track.make();
                let json = &track.bytes[text];
                assert!(arrival_ms >= last_ms, "in the order of arrival");
                last_ms = arrival_ms;
                let event: serde_json::Value = serde_json::from_slice(json).expect("it is JSON");
                let time_ms = event["ts"].as_i64().expect("a time");
                assert!((0..2 * 3_600_000).contains(&(arrival_ms - time_ms)), "{event}");
                ids.insert(event["request_id"].as_str().expect("a text").to_owned());
                events += 1;
            }
            assert!(track.lines.is_empty() || track.lap == laps - 1);
        }
        assert!(events <= 4 * lap_events && events > 3 * lap_events, "{events} of {lap_events}");
        // 50 requests and few plays without one, in each lap; what comes late is of earlier laps.
        assert!((200..=210).contains(&ids.len()), "{} requests in four laps", ids.len());
    }
}
