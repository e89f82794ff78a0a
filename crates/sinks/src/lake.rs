//! The lake: sealed cells as Parquet files, in an object store or a folder, for whoever does not
//! want to ask the service.
//!
//! A **stretch** is some longest epochs in a row (one, where it is long enough); what one lane has
//! counted in one is written once the lane's frontier has passed it: Parquet **files** named by
//! their content, listed by an **entry** of the day's **manifest**. Manifests are versions that
//! are never changed; the newest one says which files are alive. [`Sealing`] compares the store with
//! the manifests and writes what they lack. Of stretches that are open it writes a **delta** every few
//! minutes, if that is wanted; they go when the stretch is sealed.
//!
//! What is in the lake is a function of what is in the store (members of closed epochs are durable
//! there before a frontier moves), so nothing that counts ever waits for it, and everything here may
//! be repeated. It never takes anything back (invariant MONO): where a stretch is written anew, it
//! is with the union of what the store and the lake hold.

mod bucket;
mod copies;
mod deltas;
mod events;
mod examples;
mod layout;
mod manifest;
mod manifests;
mod objects;
mod parquet;
mod reading;
mod rows;
mod sealing;
mod status;
mod writing;

#[cfg(test)]
mod tests;

pub use bucket::{Bucket, LakePlace, S3Place};
pub use copies::LetterCopies;
pub use events::{
    EventsArchive, EventsBegin, EventsEnd, EventsFile, EventsLog, EventsOf, EventsReader,
    EventsRows, EventsWriter, FoundLog, NewEvents, PutEvents, RawRecord, short_log,
};
pub use examples::{
    AttributeKind, AttributeValue, BegunStretch, Example, ExampleKey, ExamplesTable, Label,
    StretchWriter, WrittenStretch,
};
pub use layout::Layout;
pub use manifest::{Dropped, Entry, LakeFile, Manifest, OpenEntry};
pub use manifests::{Ages, Manifests};
pub use objects::{Listed, ObjectError, Objects, Put, Stop};
pub use reading::{FileFault, ListedFile, Reading};
pub use rows::Row;
pub use sealing::{Sealing, SealingSettings};
pub use status::{LakeNumbers, LakeStatus, Trouble};

use crate::SinkError;
use thiserror::Error;

/// Version of everything that is written into a lake: folders, names, manifests, columns.
pub const FORMAT: u32 = 1;

/// Why the lake has not taken something. Nothing is lost: the store has it, and it is tried again.
#[derive(Debug, Error)]
pub enum LakeError {
    /// It does not answer, or refuses.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// What stands there was not written by this program, or not whole.
    #[error(
        "{path} in the lake is not what this program writes: {what}; move it away, or give [lake] \
         another url"
    )]
    Damaged {
        /// Path within the lake.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A newer version has written it.
    #[error(
        "{path} in the lake has format {found}, this program writes {FORMAT}; use that version, or \
         give [lake] another url"
    )]
    OtherFormat {
        /// Path within the lake.
        path: String,
        /// Its format.
        found: u64,
    },
    /// Others write the same day all the time.
    #[error("{tries} times in a row others have written a manifest of {day} first")]
    Crowded {
        /// The day.
        day: String,
        /// How often it was tried.
        tries: u32,
    },
    /// What the writer began with is not alive any more: somebody was faster.
    #[error("{path} in the lake was written anew while it was read; do the same once more")]
    Gone {
        /// Path within the lake.
        path: String,
    },
    /// The cells to write could not be read.
    #[error("sealed cells cannot be read for the lake: {0}")]
    Store(#[from] SinkError),
}

impl LakeError {
    /// Whether it is only that the process ends.
    pub fn is_stop(&self) -> bool {
        matches!(self, LakeError::Object(ObjectError::Stopped))
    }
}
