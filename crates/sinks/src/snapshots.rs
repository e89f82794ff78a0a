//! Where snapshots of the lanes' state are kept: one small trait, [`Snapshots`], and the local
//! folder behind it.
//!
//! A snapshot only shortens a restart: everything in it follows from the log. So a place may lose
//! one, and whoever asks it reads the log for longer instead; but it never shows one that is not
//! whole, and it replaces none. What is in them, and which of them may be used, is not known here.

mod folder;

pub use folder::SnapshotFolder;

use std::io::{self, Read, Write};
use thiserror::Error;

/// A place for snapshots. Names are ASCII letters, digits and dashes, and who gives them decides
/// their order: that of the bytes.
pub trait Snapshots: Send + Sync {
    /// Names of all whole snapshots of a lane, ascending.
    fn list(&self, lane: u32) -> Result<Vec<String>, SnapshotsError>;

    /// Stores what `write` writes, in pieces, under a name: all or nothing, and durable on return.
    /// Where `write` fails, nothing is stored. Returns the number of bytes.
    fn put(
        &self,
        lane: u32,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, SnapshotsError>;

    /// Opens a snapshot for reading from its beginning.
    fn open(&self, lane: u32, name: &str) -> Result<StoredSnapshot, SnapshotsError>;

    /// Removes a snapshot. One that is not there is no error.
    fn remove(&self, lane: u32, name: &str) -> Result<(), SnapshotsError>;
}

/// A snapshot that is being read.
pub struct StoredSnapshot {
    /// Its length: what claims to be longer is damaged.
    pub bytes: u64,
    /// Its content.
    pub reader: Box<dyn Read + Send>,
}

/// A place that cannot do what was asked. Counting goes on: a restart takes longer.
#[derive(Debug, Error)]
#[error("snapshots in {place}: {error}")]
pub struct SnapshotsError {
    /// The folder or the like.
    pub place: String,
    /// What went wrong.
    #[source]
    pub error: io::Error,
}
