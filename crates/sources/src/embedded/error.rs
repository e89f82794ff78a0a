//! What can go wrong with the embedded log, and what the operator does next.
//!
//! Every message names the file or folder, says whose fault it is as far as that can be known,
//! and ends with the next step. Nothing here is retried inside the log: the caller decides.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

/// Why the embedded log refused or failed.
///
/// It is `Clone` because one failed write answers every caller whose records were in it.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    /// Another process has the log open for appending.
    #[error(
        "the log at {} is in use by {holder}: only one process at a time may have it open. \
         Stop that process, or give this one another `[log] path`",
        path.display()
    )]
    Locked {
        /// The folder of the log.
        path: PathBuf,
        /// Who holds it, as far as the lock file tells: "process 1234".
        holder: String,
    },
    /// The log was created with another number of lanes.
    #[error(
        "the log at {} was created with {stored} lanes, but {wanted} are configured. The lane of \
         a request must never change within a log: set `lanes = {stored}`, or start a new \
         generation with another `[log] path`",
        path.display()
    )]
    OtherLanes {
        /// The folder of the log.
        path: PathBuf,
        /// The number of lanes that the log was created with.
        stored: u32,
        /// The number of lanes that was asked for.
        wanted: u32,
    },
    /// The log was written by a program that knows another format.
    #[error(
        "{} has format version {found}; this program reads version {known}. Use the program that \
         wrote it, or another `[log] path`",
        file.display()
    )]
    OtherVersion {
        /// The file whose version is unknown.
        file: PathBuf,
        /// The version that it names.
        found: u32,
        /// The version that this program knows.
        known: u32,
    },
    /// Bytes that were acknowledged once are missing or altered. Nothing was changed on disk.
    #[error(
        "{} is damaged at byte {position}: {detail}. Nothing was changed. {remedy}",
        file.display()
    )]
    Corrupt {
        /// The file (or the folder, where a file is missing).
        file: PathBuf,
        /// Where in the file the first bad byte range begins.
        position: u64,
        /// What is wrong there.
        detail: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// One record is larger than the log accepts.
    #[error(
        "a record of {bytes} bytes (key and payload) is larger than the limit of {limit} bytes: \
         it was refused, with its whole batch. Send smaller records"
    )]
    TooLarge {
        /// Key and payload together.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The operating system refused to read or write. A failed append was not acknowledged and
    /// left nothing behind.
    #[error("could not {doing} {}: {source}. {}", file.display(), io_remedy(source))]
    Io {
        /// The verb: "write", "open".
        doing: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// An earlier failure left the disk in an unknown state, so appends are refused.
    #[error(
        "the log takes no more records until it is reopened, because {reason}. What was \
         acknowledged before stays readable. Look at the disk, then restart the process"
    )]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// An offset that the log has never given out, or a topic or lane that it does not have.
    #[error(
        "offset {offset} of topic {topic}, lane {lane} was asked for, but the log holds {start} to \
         {end}. If it was committed once, records are missing at the end of this log: restore its \
         folder, or start a new generation"
    )]
    OutOfRange {
        /// The topic's name.
        topic: String,
        /// The lane.
        lane: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset held.
        start: u64,
        /// The offset that the next record will get.
        end: u64,
    },
    /// The call makes no sense for this log: a mistake in the configuration or in the caller.
    #[error("{0}")]
    Unusable(String),
}

const RESTORE: &str = "Check the disk and restore the log's folder from a copy; without one, start \
    a new generation with another `[log] path`, and keep this folder: whatever comes before the \
    damage can still be read";

fn io_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Nothing of it was acknowledged: free some space and send it again; the log goes on \
             by itself"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "Let the user that runs this process write to the log's folder, then try again"
        }
        _ => {
            "Nothing of it was acknowledged: look at the disk and the system's log, then try again"
        }
    }
}

impl LogError {
    pub(super) fn io(doing: &'static str, file: &Path, source: io::Error) -> Self {
        Self::Io { doing, file: file.to_owned(), source: Arc::new(source) }
    }

    pub(super) fn corrupt(file: &Path, position: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), position, detail: detail.into(), remedy: RESTORE }
    }

    /// Damage in a place where it may have hit only records that nobody was ever promised: the
    /// operator, who knows whether the power failed, may decide to cut.
    pub(super) fn corrupt_before_whole_frames(file: &Path, position: u64, detail: String) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            position,
            detail,
            remedy: "Check the disk and restore the log's folder from a copy. Only if the machine \
                lost power while writing, the records from there on may never have been \
                acknowledged: keep a copy of the file, then cut it at that byte with `truncate -s`",
        }
    }
}
