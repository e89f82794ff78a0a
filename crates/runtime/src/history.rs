//! What the batches of the last day were like, and samples of what was put aside: for who looks at
//! the service.
//!
//! Owners note each batch that has written something; notes are added up by second for half an hour,
//! and by minute for a day. All of it is in memory, and no count depends on it; so that a crash can be
//! looked at afterwards, [`keep`] writes it to a file now and then, and [`restore`] reads it at a start.

use crate::status::{LaneStatus, StatusBoard};
use marquee_sinks::letters::LetterKind;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Seconds that are kept one by one.
const SECONDS: usize = 1800;
/// Minutes that are kept one by one.
const MINUTES: usize = 1440;
/// Letters of a kind that are kept.
const SAMPLES: usize = 50;
/// Bytes of a record in a sample.
const SAMPLE_BYTES: usize = 600;

/// Parts of a batch, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading from the log, decoding, joining.
    Join,
    /// Packing members, writing late and dead letters.
    Pack,
    /// The store's commit, until it is durable.
    Store,
    /// Telling the log how far the store is.
    Tell,
    /// Saving a snapshot of a lane's state.
    Snapshot,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 5] =
        [Stage::Join, Stage::Pack, Stage::Store, Stage::Tell, Stage::Snapshot];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Join => "read and join",
            Stage::Pack => "pack",
            Stage::Store => "store",
            Stage::Tell => "commit to log",
            Stage::Snapshot => "snapshot",
        }
    }
}

/// Time that a batch has spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages([Duration; Stage::ALL.len()]);

impl Stages {
    /// Adds time to a stage.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        self.0[stage as usize] += time;
    }

    /// Time in all of them: without what was waited for.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// A batch that was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchNote {
    /// When it was durable, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Records in it.
    pub records: u64,
    /// Where its time went.
    pub stages: Stages,
}

/// Batches that ended within one second, or one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Start, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Batches of all owners.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Microseconds spent in each stage, in the order of [`Stage::ALL`].
    pub stages_us: [u64; Stage::ALL.len()],
    /// The longest batch, microseconds.
    pub longest_us: u64,
    /// Records of the log that were not counted yet, at most.
    pub waiting: u64,
    /// What the lanes had counted at the end, as far as this process has them: events, late ones,
    /// dead ones, those that were there before; and records read again since the start.
    pub totals: [u64; 5],
}

impl Bucket {
    fn add(&mut self, note: &BatchNote, lanes: &[LaneStatus]) {
        let us = |time: Duration| time.as_micros() as u64;
        self.batches += 1;
        self.records += note.records;
        for (sum, time) in self.stages_us.iter_mut().zip(note.stages.0) {
            *sum += us(time);
        }
        self.longest_us = self.longest_us.max(us(note.stages.total()));
        self.waiting = self.waiting.max(lanes.iter().map(LaneStatus::lag).sum());
        self.totals = [0; 5];
        for lane in lanes {
            let of = &lane.counters;
            let more = [of.events, of.late, of.dead, of.duplicates, lane.replayed_records];
            self.totals.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
        }
    }

    /// Seconds spent in all stages by all batches.
    pub fn busy_seconds(&self) -> f64 {
        self.stages_us.iter().sum::<u64>() as f64 / 1e6
    }
}

/// What of a history is in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    seconds: Vec<Bucket>,
    minutes: Vec<Bucket>,
}

/// Writes a board's history to a file, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn keep(board: &StatusBoard, file: &Path) -> io::Result<()> {
    let text = serde_json::to_vec(&board.kept_history())?;
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(unfinished, file)
}

/// Gives a board the history in a file, if there is one that can be read. What is there already stays.
///
/// # Errors
/// The file is there, and is no history.
pub fn restore(board: &StatusBoard, file: &Path) -> io::Result<()> {
    match std::fs::read(file) {
        Ok(text) => board.restore_history(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Buckets of one length, the oldest first.
#[derive(Debug, Default)]
struct Ring(VecDeque<Bucket>);

impl Ring {
    /// Puts buckets before those that are there.
    fn begin_with(&mut self, buckets: Vec<Bucket>, most: usize) {
        let first_ms = self.0.front().map_or(i64::MAX, |bucket| bucket.at_ms);
        for bucket in buckets.into_iter().rev().filter(|bucket| bucket.at_ms < first_ms) {
            // Out of order they would never be gone on with.
            let is_earlier = self.0.front().is_none_or(|first| bucket.at_ms < first.at_ms);
            if self.0.len() < most && is_earlier {
                self.0.push_front(bucket);
            }
        }
    }

    fn note(&mut self, note: &BatchNote, lanes: &[LaneStatus], width_ms: i64, most: usize) {
        let at_ms = note.at_ms - note.at_ms.rem_euclid(width_ms);
        // A clock that was set back must not make the order of buckets wrong.
        if self.0.back().is_none_or(|last| last.at_ms < at_ms) {
            if self.0.len() == most {
                self.0.pop_front();
            }
            self.0.push_back(Bucket { at_ms, ..Bucket::default() });
        }
        if let Some(last) = self.0.back_mut() {
            last.add(note, lanes);
        }
    }
}

/// A record that was put aside, or an event of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterSample {
    /// When it was read, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Topic and lane.
    pub source: String,
    /// Its offset.
    pub offset: u64,
    /// Why, for people.
    pub reason: String,
    /// Its beginning.
    pub record: String,
}

impl LetterSample {
    /// Of a record, of which the first part is kept.
    pub fn new(at_ms: i64, source: &str, offset: u64, reason: &str, record: &[u8]) -> Self {
        let part = &record[..record.len().min(SAMPLE_BYTES)];
        let mut text = String::from_utf8_lossy(part).into_owned();
        if part.len() < record.len() {
            text.push('…');
        }
        let (source, reason) = (source.to_owned(), reason.to_owned());
        LetterSample { at_ms, source, offset, reason, record: text }
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub struct History {
    seconds: Ring,
    minutes: Ring,
    late: VecDeque<LetterSample>,
    dead: VecDeque<LetterSample>,
}

impl History {
    /// Notes a batch, with the lanes as they are after it.
    pub(crate) fn note_batch(&mut self, note: &BatchNote, lanes: &[LaneStatus]) {
        self.seconds.note(note, lanes, 1000, SECONDS);
        self.minutes.note(note, lanes, 60_000, MINUTES);
    }

    pub(crate) fn note_letter(&mut self, kind: LetterKind, sample: LetterSample) {
        let samples = match kind {
            LetterKind::Late => &mut self.late,
            LetterKind::Dead => &mut self.dead,
        };
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The last letters of a kind, the newest first.
    pub(crate) fn letters(&self, kind: LetterKind) -> Vec<LetterSample> {
        let samples = match kind {
            LetterKind::Late => &self.late,
            LetterKind::Dead => &self.dead,
        };
        samples.iter().rev().cloned().collect()
    }

    pub(crate) fn kept(&self) -> Kept {
        let all = |ring: &Ring| ring.0.iter().copied().collect();
        Kept { seconds: all(&self.seconds), minutes: all(&self.minutes) }
    }

    pub(crate) fn restore(&mut self, kept: Kept) {
        self.seconds.begin_with(kept.seconds, SECONDS);
        self.minutes.begin_with(kept.minutes, MINUTES);
    }

    /// Buckets that start at or after a time, the oldest first: of seconds, or of minutes. Where no
    /// batch ended there is none.
    pub(crate) fn buckets(&self, from_ms: i64, by_minute: bool) -> Vec<Bucket> {
        let ring = if by_minute { &self.minutes } else { &self.seconds };
        ring.0.iter().filter(|bucket| bucket.at_ms >= from_ms).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(at_ms: i64, records: u64, store_ms: u64) -> BatchNote {
        let mut stages = Stages::default();
        stages.add(Stage::Store, Duration::from_millis(store_ms));
        BatchNote { at_ms, records, stages }
    }

    #[test]
    fn batches_are_added_up_by_second_and_by_minute() {
        let mut history = History::default();
        let lane = |end| LaneStatus {
            next_offsets: vec![5],
            end_offsets: vec![end],
            ..LaneStatus::default()
        };
        history.note_batch(&note(61_000, 3, 10), &[lane(9), lane(5)]);
        history.note_batch(&note(61_999, 4, 30), &[lane(6), lane(5)]);
        history.note_batch(&note(62_000, 5, 20), &[lane(5)]);
        // Set back.
        history.note_batch(&note(5_000, 1, 1), &[]);
        let seconds = history.buckets(0, false);
        let shown = |b: &Bucket| (b.at_ms, b.batches, b.records, b.longest_us, b.waiting);
        assert_eq!(
            seconds.iter().map(shown).collect::<Vec<_>>(),
            [(61_000, 2, 7, 30_000, 4), (62_000, 2, 6, 20_000, 0)]
        );
        assert_eq!(seconds[0].stages_us, [0, 0, 40_000, 0, 0]);
        let minutes = history.buckets(0, true);
        assert_eq!(minutes.iter().map(shown).collect::<Vec<_>>(), [(60_000, 4, 13, 30_000, 4)]);
        assert_eq!(history.buckets(61_001, false).len(), 1);
    }

    #[test]
    fn a_history_outlives_its_process_and_one_that_is_damaged_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.json");
        let board = || StatusBoard::new(1, 1);
        let before = board();
        for second in 60..70 {
            before.note_batch(&note(1000 * second, 2, 1));
        }
        keep(&before, &file).expect("a file");
        let after = board();
        // It has begun before it is told.
        after.note_batch(&note(69_500, 5, 1));
        after.note_batch(&note(80_000, 5, 1));
        restore(&after, &file).expect("a history");
        let seconds = after.history(0, false);
        assert_eq!(
            seconds.iter().map(|b| b.at_ms / 1000).collect::<Vec<_>>(),
            [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 80]
        );
        assert_eq!(seconds.iter().map(|b| b.records).sum::<u64>(), 9 * 2 + 5 + 5);
        std::fs::write(&file, "{\"seconds").expect("a file");
        assert!(restore(&board(), &file).is_err());
        restore(&board(), &folder.path().join("none")).expect("there need not be one");
    }

    #[test]
    fn the_oldest_go() {
        let mut history = History::default();
        for second in 0..(SECONDS as i64 + 10) {
            history.note_batch(&note(1000 * second, 1, 1), &[]);
            let sample = LetterSample::new(0, "plays/0", second as u64, "why", &[b'x'; 1000]);
            history.note_letter(LetterKind::Dead, sample);
        }
        let seconds = history.buckets(0, false);
        assert_eq!((seconds.len(), seconds[0].at_ms), (SECONDS, 10_000));
        let dead = history.letters(LetterKind::Dead);
        assert_eq!((dead.len(), dead[0].offset), (SAMPLES, SECONDS as u64 + 9));
        assert_eq!(dead[0].record.len(), SAMPLE_BYTES + '…'.len_utf8());
        assert!(history.letters(LetterKind::Late).is_empty());
    }
}
