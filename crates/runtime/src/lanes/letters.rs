//! The late and the dead-letter output of one lane.

use marquee_sinks::letters::{Letter, LetterFile};
use marquee_sinks::{LaneState, SinkError};
use std::path::Path;

/// Both outputs.
pub(super) struct Letters {
    late: LetterFile,
    dead: LetterFile,
}

impl Letters {
    pub(super) fn open(folder: &Path, lane: u32, state: &LaneState) -> Result<Self, SinkError> {
        let file = format!("lane-{lane}.ndjson");
        Ok(Letters {
            late: LetterFile::open(&folder.join("late").join(&file), state.late_bytes)?,
            dead: LetterFile::open(&folder.join("dead").join(&file), state.dead_bytes)?,
        })
    }

    pub(super) fn late(&mut self, at: &Place<'_>, code: &str) {
        let reason = match code {
            "max_facts" => "the request has more than [join] max_facts events in this epoch",
            _ => "an epoch that it counts in, or could match in, is closed in this lane",
        };
        let Place { source, offset, record } = *at;
        Letter::write(self.late.pending(), source, offset, Some(code), reason, record);
    }

    pub(super) fn dead(&mut self, at: &Place<'_>, reason: &str) {
        let Place { source, offset, record } = *at;
        Letter::write(self.dead.pending(), source, offset, None, reason, record);
    }

    /// Makes durable what was written, and notes in the state how far that is.
    pub(super) fn sync(&mut self, state: &mut LaneState) -> Result<(), SinkError> {
        state.late_bytes = self.late.sync()?;
        state.dead_bytes = self.dead.sync()?;
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
}
