//! The late and the dead-letter output of one lane.

use crate::history::LetterSample;
use marquee_sinks::letters::{ALL_OF_IT, Letter, LetterKind, LetterOutput, Letterbox};
use marquee_sinks::{LaneState, SinkError};

/// Letters of one output about one record: a record that holds a list may have as many reasons as
/// elements, and each letter holds the whole record.
const LETTERS_A_RECORD: usize = 4;

/// Letters of a batch of which samples are kept for who looks at the service.
const SAMPLES_A_BATCH: usize = 10;

/// Both outputs.
pub(super) struct Letters {
    late: Output,
    dead: Output,
    /// Of the place that they are in.
    name: String,
    samples: Vec<(LetterKind, LetterSample)>,
}

/// One output, and what it has said of the last record.
struct Output {
    file: Box<dyn LetterOutput>,
    last: Option<(String, u64)>,
    reasons: Vec<String>,
}

impl Output {
    fn new(file: Box<dyn LetterOutput>) -> Self {
        Output { file, last: None, reasons: Vec::new() }
    }

    /// Writes a letter, unless the record has one for this reason, or enough for others.
    fn write(&mut self, at: &Place<'_>, code: Option<&str>, reason: &str) -> bool {
        let Place { source, offset, record, .. } = *at;
        let is_same = self.last.as_ref().is_some_and(|(s, o)| s == source && *o == offset);
        if !is_same {
            self.last = Some((source.to_owned(), offset));
            self.reasons.clear();
        }
        if self.reasons.len() >= LETTERS_A_RECORD || self.reasons.iter().any(|r| r == reason) {
            return false;
        }
        self.reasons.push(reason.to_owned());
        Letter::write(self.file.pending(), source, offset, code, reason, record);
        true
    }
}

impl Letters {
    pub(super) fn open(
        letterbox: &dyn Letterbox,
        lane: u32,
        state: &LaneState,
        is_new: bool,
    ) -> Result<Self, SinkError> {
        let name = letterbox.name().to_owned();
        // Where another process has had the lane, the lengths are those of its files.
        let is_ours = is_new || name == state.letters;
        let committed = |bytes: u64| if is_ours { bytes } else { ALL_OF_IT };
        let open = |kind, bytes| letterbox.open(kind, lane, committed(bytes)).map(Output::new);
        Ok(Letters {
            late: open(LetterKind::Late, state.late_bytes)?,
            dead: open(LetterKind::Dead, state.dead_bytes)?,
            name,
            samples: Vec::new(),
        })
    }

    pub(super) fn late(&mut self, at: &Place<'_>, code: &str) {
        let reason = match code {
            "max_facts" => "the request has more than [join] max_facts events in this epoch",
            _ => "an epoch that it counts in, or could match in, is closed in this lane",
        };
        if self.late.write(at, Some(code), reason) {
            self.sample(LetterKind::Late, at, reason);
        }
    }

    pub(super) fn dead(&mut self, at: &Place<'_>, reason: &str) {
        if self.dead.write(at, None, reason) {
            self.sample(LetterKind::Dead, at, reason);
        }
    }

    fn sample(&mut self, kind: LetterKind, at: &Place<'_>, reason: &str) {
        if self.samples.len() < SAMPLES_A_BATCH {
            let Place { source, offset, record, now_ms } = *at;
            self.samples.push((kind, LetterSample::new(now_ms, source, offset, reason, record)));
        }
    }

    /// Samples of what was written since they were taken last.
    pub(super) fn take_samples(&mut self) -> Vec<(LetterKind, LetterSample)> {
        std::mem::take(&mut self.samples)
    }

    /// Makes durable what was written, and notes in the state how far that is.
    pub(super) fn sync(&mut self, state: &mut LaneState) -> Result<(), SinkError> {
        state.late_bytes = self.late.file.sync()?;
        state.dead_bytes = self.dead.file.sync()?;
        state.letters.clone_from(&self.name);
        Ok(())
    }
}

/// A record and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Topic and lane.
    pub(super) source: &'a str,
    pub(super) offset: u64,
    pub(super) record: &'a [u8],
    /// When it was read, milliseconds since 1970 UTC.
    pub(super) now_ms: i64,
}
