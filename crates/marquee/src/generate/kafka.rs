//! The stream -> the topics of a log, in arrival order, with the arrival as the record time.

use super::{GenerateError, Options, Summary, arrivals};
use marquee_model::{Kind, Partitioner, lane_of};
use marquee_sources::{Appender, NewRecord};

/// Records that are sent before the first of them must be acknowledged.
const AT_ONCE: usize = 50_000;

/// Where generated events go.
pub struct Topics<'a> {
    /// Takes the records.
    pub log: &'a dyn Appender,
    /// Indices of the topics of impressions and of plays.
    pub topics: [usize; 2],
    /// Number of lanes of both.
    pub lanes: u32,
    /// Which lane a request belongs to.
    pub partitioner: Partitioner,
}

/// Writes all events. The key of a record is its request id.
///
/// # Errors
/// Wrong options, or a log that does not take a record; some may be there then.
pub fn write_topics(options: &Options, to: &Topics<'_>) -> Result<Summary, GenerateError> {
    let mut summary = Summary::default();
    let mut pending = Pending::default();
    for arrival in arrivals(options)? {
        let kind = arrival.event.kind();
        let (key, before) = (arrival.event.request_id(), pending.bytes.len());
        arrival.event.write_json(&mut pending.bytes);
        let bytes = (pending.bytes.len() - before) as u64;
        match kind {
            Kind::Impression => {
                (summary.impressions, summary.impressions_bytes) =
                    (summary.impressions + 1, summary.impressions_bytes + bytes);
            }
            Kind::Play => {
                (summary.plays, summary.plays_bytes) =
                    (summary.plays + 1, summary.plays_bytes + bytes);
            }
        }
        pending.records.push((kind, arrival.arrival_ms, key, pending.bytes.len()));
        if pending.records.len() == AT_ONCE {
            pending.send(to)?;
        }
    }
    pending.send(to)?;
    Ok(summary)
}

/// Events that were not sent yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    records: Vec<Event>,
}

/// Kind, record time, key, and where the payload ends in the bytes.
type Event = (Kind, i64, String, usize);

impl Pending {
    fn send(&mut self, to: &Topics<'_>) -> Result<(), GenerateError> {
        let starts = std::iter::once(0).chain(self.records.iter().map(|(_, _, _, end)| *end));
        let mut new = Vec::with_capacity(self.records.len());
        for ((kind, record_time_ms, key, end), start) in self.records.iter().zip(starts) {
            new.push(NewRecord {
                topic: match kind {
                    Kind::Impression => to.topics[0],
                    Kind::Play => to.topics[1],
                },
                lane: lane_of(to.partitioner, key.as_bytes(), to.lanes),
                record_time_ms: *record_time_ms,
                key: Some(key.as_bytes()),
                payload: &self.bytes[start..*end],
            });
        }
        to.log.append(&new)?;
        self.records.clear();
        self.bytes.clear();
        Ok(())
    }
}
