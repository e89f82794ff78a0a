//! The embedded log: what Kafka would be, for people without Kafka.
//!
//! It stands at the beginning of the pipeline. The collector appends what members' clients send;
//! the owner of each lane reads it. A log is a folder:
//!
//! ```text
//! <path>/lock                                    held while a process has the log open
//! <path>/marquee-log                             the format, the number of lanes, the topics
//! <path>/<topic>/<lane>/00000000000000000000.log a *segment*, named by its first offset
//! ```
//!
//! Each topic has `lanes` lanes; each lane is a sequence of records with the offsets 0, 1, 2 and
//! so on, in segments of 64 MiB, each of which is a header and one *frame* per record.
//!
//! **Promises.** [`EmbeddedLog::append`] returns after all of its batch is on disk. Only what is
//! on disk is ever read, so nobody can act on a record that a power failure takes back. What was
//! acknowledged is never dropped, skipped or altered without an error: damage is told apart from
//! the unfinished end that a crash leaves. A batch that was *not* acknowledged may be there in
//! part after a crash: delivery is at least once.
//!
//! **What it never does.** It deletes nothing: there is no retention, and a log grows until its
//! disk is full. It reads no clock: record times are passed in. It keeps no threads: its callers
//! do the work. It does not look into records, and it does not serve other processes.
//!
//! ```
//! use marquee_sources::embedded::{EmbeddedLog, NewRecord, RecordBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! let log = EmbeddedLog::open(path, &["impressions".into(), "plays".into()], 4)?;
//! let play =
//!     NewRecord { topic: 1, lane: 3, record_time_ms: 0, key: Some(b"R1"), payload: b"{}" };
//! let positions = log.append(&[play])?;
//! assert_eq!(positions[0].offset, 0);
//!
//! let mut batch = RecordBatch::new();
//! log.read(1, 3, 0, 500, 1 << 20, &mut batch)?;
//! assert_eq!(batch.get(0).map(|record| record.payload), Some(&b"{}"[..]));
//! # Ok(())
//! # }
//! ```

mod commit;
mod error;
mod folder;
mod frame;
mod handles;
mod lane;
mod record;
mod recover;
mod replay;
mod segment;
mod source;
#[cfg(test)]
mod tests;
mod write;

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use self::{
    commit::Commit,
    folder::{Lock, Meta},
    handles::Handles,
    lane::Lane,
};
pub use self::{
    error::LogError,
    frame::MAX_RECORD_BYTES,
    record::{NewRecord, Position, RecordBatch, RecordRef},
    replay::EmbeddedReplay,
    source::EmbeddedSource,
};

/// A log that this process has open. Clones share it; it closes with the last of them.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Tells this log from others.
    id: String,
    lanes_per_topic: u32,
    /// Those of topic 0, then those of topic 1, and so on.
    lanes: Vec<Lane>,
    handles: Handles,
    commit: Commit,
    tuning: Tuning,
    /// How often something became readable, and one for having been opened.
    appends: Mutex<u64>,
    appended: Condvar,
    /// Declared last, so that it is freed after everything else.
    _lock: Lock,
}

/// Sizes that tests make small.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// When a lane goes on in a new segment.
    segment_bytes: u64,
    /// How much callers may queue while a group is being written, unless one batch is larger.
    group_bytes: usize,
    /// How many files stay open.
    open_files: usize,
}

const TUNING: Tuning = Tuning { segment_bytes: 64 << 20, group_bytes: 64 << 20, open_files: 64 };

impl EmbeddedLog {
    /// Whether there is a log in the folder `path`.
    pub fn is_at(path: &Path) -> bool {
        path.join(folder::META_FILE).exists()
    }

    /// Opens the log in the folder `path`, or creates it with the given number of lanes. A topic
    /// that is new gets its lanes; topics that are not named stay as they are.
    ///
    /// An end that a crash left unfinished is cut off, with a warning.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::OtherLanes`], [`LogError::OtherVersion`],
    /// [`LogError::Corrupt`] when something that was acknowledged is damaged or missing,
    /// [`LogError::Unusable`] for names that cannot be folders, [`LogError::Io`].
    pub fn open(path: &Path, topics: &[String], lanes: u32) -> Result<Self, LogError> {
        Self::open_tuned(path, topics, lanes, TUNING)
    }

    fn open_tuned(
        path: &Path,
        topics: &[String],
        lanes: u32,
        tuning: Tuning,
    ) -> Result<Self, LogError> {
        check_names(topics, lanes)?;
        folder::create_folder(path)?;
        let lock = folder::lock(path)?;
        create_topics(path, topics, lanes)?;
        let id = folder::id(path, segment::new_id)?;
        let mut opened = Vec::new();
        for topic in topics {
            for lane in 0..lanes {
                let folder = folder::lane_folder(path, topic, lane);
                let recovered = recover::open_lane(&folder)?;
                opened.push(Lane::new(topic, lane, folder, recovered));
            }
        }
        let shared = Shared {
            id,
            lanes_per_topic: lanes,
            commit: Commit::new(opened.len(), tuning.group_bytes),
            lanes: opened,
            handles: Handles::new(tuning.open_files),
            tuning,
            appends: Mutex::new(1),
            appended: Condvar::new(),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A text that no other log has, and that this one keeps.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Appends a batch and returns when all of it is on disk: one position for each record, in
    /// the batch's order. Callers on several threads share syncs.
    ///
    /// # Errors
    /// Whatever the error, nothing of the batch was acknowledged and no reader sees any of it.
    /// [`LogError::TooLarge`] and [`LogError::Unusable`] are the caller's fault and refuse the
    /// whole batch. After [`LogError::Io`] it may be sent again, for instance when the disk was
    /// full; [`LogError::Poisoned`] lasts until the log is reopened.
    pub fn append(&self, batch: &[NewRecord<'_>]) -> Result<Vec<Position>, LogError> {
        for record in batch {
            self.lane(record.topic, record.lane)?;
            if record.size() > MAX_RECORD_BYTES {
                return Err(LogError::TooLarge { bytes: record.size(), limit: MAX_RECORD_BYTES });
            }
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let Shared { lanes, handles, tuning, commit, .. } = &*self.shared;
        commit.submit(
            batch,
            |topic, lane| self.slot(topic, lane),
            |group| {
                let firsts = write::write_group(lanes, handles, tuning.segment_bytes, group)?;
                self.ring();
                Ok(firsts)
            },
        )
    }

    /// Adds to `into` the records of a lane from `from_offset` on, at most `max_records` of them
    /// and at most `max_bytes` with their frames, but the first one whatever its size. Nothing is
    /// added at the log's end.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] for an offset beyond the end; [`LogError::Corrupt`] when the
    /// record at `from_offset` is damaged (records before damage are read first);
    /// [`LogError::Io`]; [`LogError::Unusable`] for a topic or lane that does not exist. `into`
    /// is unchanged then.
    pub fn read(
        &self,
        topic: usize,
        lane: u32,
        from_offset: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut RecordBatch,
    ) -> Result<(), LogError> {
        let max = (max_records, max_bytes);
        self.lane(topic, lane)?.read(&self.shared.handles, from_offset, max, into)
    }

    /// The offset that the next record of a lane will get.
    ///
    /// # Panics
    /// When the log has no such topic or lane.
    pub fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        self.lane(topic, lane).expect("the caller asks for a lane of this log").range().1
    }

    /// The first offset that a lane holds: 0, as long as nothing is ever deleted.
    ///
    /// # Panics
    /// When the log has no such topic or lane.
    pub fn start_offset(&self, topic: usize, lane: u32) -> u64 {
        self.lane(topic, lane).expect("the caller asks for a lane of this log").range().0
    }

    /// Sleeps until something was appended since the counter stood at `seen`, or `timeout` is
    /// over, and returns the counter. Get the counter first and read then: what is appended
    /// between the two ends the next sleep at once. It begins at 1, so `seen = 0` never sleeps.
    pub fn wait_for_data(&self, seen: u64, timeout: Duration) -> u64 {
        let appends = self.shared.appends.lock().expect("nothing under this lock can panic");
        let waited = self.shared.appended.wait_timeout_while(appends, timeout, |now| *now <= seen);
        *waited.expect("nothing under this lock can panic").0
    }

    /// Whether the log takes records.
    ///
    /// # Errors
    /// What an operator should read when it does not.
    pub fn health(&self) -> Result<(), String> {
        match self.shared.commit.poison() {
            None => Ok(()),
            Some(reason) => Err(LogError::Poisoned { reason }.to_string()),
        }
    }

    /// How many lanes each topic has.
    pub fn lanes(&self) -> u32 {
        self.shared.lanes_per_topic
    }

    fn ring(&self) {
        *self.shared.appends.lock().expect("nothing under this lock can panic") += 1;
        self.shared.appended.notify_all();
    }

    fn slot(&self, topic: usize, lane: u32) -> usize {
        topic.saturating_mul(self.shared.lanes_per_topic as usize).saturating_add(lane as usize)
    }

    fn lane(&self, topic: usize, lane: u32) -> Result<&Lane, LogError> {
        let lanes = self.shared.lanes_per_topic;
        let known = (lane < lanes).then(|| self.shared.lanes.get(self.slot(topic, lane)));
        known.flatten().ok_or_else(|| {
            LogError::Unusable(format!("the log has no lane {lane} of topic number {topic}"))
        })
    }
}

fn check_names(topics: &[String], lanes: u32) -> Result<(), LogError> {
    for (index, topic) in topics.iter().enumerate() {
        if !folder::can_be_topic(topic) {
            return Err(LogError::Unusable(format!(
                "{topic:?} cannot be a topic: use 1 to 200 letters, digits, `-`, `_` and `.`, no \
                 `.` in front, and no name that the log's own files have"
            )));
        }
        if topics[..index].contains(topic) {
            return Err(LogError::Unusable(format!("the topic {topic} is named twice")));
        }
    }
    match lanes {
        0 => Err(LogError::Unusable("`lanes` must be at least 1".to_owned())),
        _ => Ok(()),
    }
}

/// Creates what is new of the log and its topics, and refuses what contradicts the old.
fn create_topics(path: &Path, topics: &[String], lanes: u32) -> Result<(), LogError> {
    let stored = Meta::load(path)?;
    if let Some(meta) = &stored
        && meta.lanes != lanes
    {
        let path = path.to_owned();
        return Err(LogError::OtherLanes { path, stored: meta.lanes, wanted: lanes });
    }
    let mut meta = match stored {
        Some(meta) => meta,
        None => begin(path, topics, lanes)?,
    };
    let known = meta.topics.len();
    for topic in topics.iter().filter(|topic| !meta.knows(topic)).cloned().collect::<Vec<_>>() {
        for lane in 0..lanes {
            recover::create_lane(&folder::lane_folder(path, &topic, lane), segment::new_salt())?;
        }
        meta.topics.push(topic);
    }
    if meta.topics.len() > known { meta.store(path) } else { Ok(()) }
}

/// The description comes first and the lanes after it: so lanes without one are a loss, which a
/// guess at their number would make worse.
fn begin(path: &Path, topics: &[String], lanes: u32) -> Result<Meta, LogError> {
    if let Some(topic) = topics.iter().find(|topic| path.join(topic).exists()) {
        let detail = format!("the log's description is missing, but its topic {topic} is there");
        return Err(LogError::corrupt(path, 0, detail));
    }
    let meta = Meta { lanes, topics: Vec::new() };
    meta.store(path)?;
    Ok(meta)
}
