//! The archive of the log: raw records in the lake, so that `backfill` and `verify` can count again
//! what the log has long deleted.
//!
//! `follow` copies one lane of one topic, up to what was committed: so nothing is kept that is not
//! counted, and nobody who counts has to wait. `thread` does it for all lanes of a running service.
//! `replay` reads the copy as the log is read, alone or in front of the log itself.
//!
//! Who may write what is settled by the lake ([`EventsArchive`]): a lane has no owner here, and several
//! processes may copy it at once.

mod follow;
mod replay;
mod thread;

#[cfg(test)]
mod tests;

pub use replay::{ArchivedLog, ArchivedTopic};
pub use thread::{Archive, ArchiveSettings};

use crate::backfill::RecomputeError;
use marquee_sinks::SinkError;
use marquee_sinks::lake::{LakeError, ObjectError};
use marquee_sources::SourceError;
use thiserror::Error;

pub use marquee_sinks::lake::{EventsArchive, EventsLog, FoundLog, short_log};

/// What was copied since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// Files that this process has made.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that another process had made first.
    pub refused: u64,
    /// Offsets that the log had deleted before anybody copied them.
    pub lost: u64,
    /// Offsets that are committed and not copied yet.
    pub waiting: u64,
    /// Times that it failed.
    pub failures: u64,
}

/// Why records were not copied. They are copied later, as long as the log has them.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The store does not say what was committed.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] SourceError),
    /// The log is not the one that was counted.
    #[error(transparent)]
    OtherLog(#[from] RecomputeError),
    /// The log could not be opened.
    #[error("{0}")]
    Closed(String),
}

impl From<ObjectError> for ArchiveError {
    fn from(error: ObjectError) -> Self {
        ArchiveError::Lake(error.into())
    }
}

impl ArchiveError {
    /// Whether it is only that the process ends.
    pub fn is_stop(&self) -> bool {
        matches!(self, ArchiveError::Lake(error) if error.is_stop())
    }
}
