//! Snapshots: the state of a lane as bytes, and back.
//!
//! A snapshot holds the whole state of a lane right after a commit, so that a restart need not read
//! the log from where the oldest open epoch begins, but only from that commit on. It is never
//! needed: what is in it follows from the log. Whoever reads one must know that it is this lane's,
//! and that nothing was added to the store since that it does not prove (`marquee-runtime` does).
//!
//! Nothing here does I/O: [`LanePipeline::save`] gives bytes out in pieces, [`Loader`] takes them.
//! The format does not depend on how the state lies in memory.
//!
//! # Format, version 1
//!
//! The 8 bytes `MARQSNAP` and the version (4 bytes, little-endian); then frames: kind, length,
//! content, checksum ([`frame`](self)). Each checksum covers everything from the beginning. Frames
//! come in the order of their kinds, those of a list as often as they are needed:
//!
//! | kind | once | content |
//! |---|---|---|
//! | 1 header | yes | [`Header`] as JSON |
//! | 2 videos | | text, newest epoch that uses it; numbered from 0 |
//! | 3 slices | | the same |
//! | 4 tuples | | values, newest epoch, the number of a slice for each grouping set |
//! | 5 watermark | yes | what was reached; for each topic its idle floor and its largest times with their requests |
//! | 6 facts | | epoch, number of its requests; then requests, each with some of its facts: video, time less that of the fact before, tuple and flags |
//! | 7 plays | | requests, each with some of its plays: time less that of the play before, video, tuple and flag |
//! | 8 cells | | epoch; then video, slice, length, start in the epoch, impressions, plays |
//! | 9 end | yes | bytes before it, facts, plays, cells |
//!
//! Numbers are LEB128, signed ones zigzag; epochs are relative to the header's frontier; texts have
//! their length in front; requests are the 16 bytes of their keys.

mod frame;
mod load;
mod save;

pub use load::Loader;

use crate::lane::LaneSettings;
use frame::FrameReader;
use marquee_model::RequestHasher;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const MAGIC: [u8; 8] = *b"MARQSNAP";
/// The version that is written. Others are not read: then the log is.
const VERSION: u32 = 1;
/// Magic and version.
const PREAMBLE: usize = 12;

/// The header lies within so many bytes from the beginning.
pub const HEADER_BYTES: usize = 64 << 10;

const HEADER: u8 = 1;
const VIDEOS: u8 = 2;
const SLICES: u8 = 3;
const TUPLES: u8 = 4;
const WATERMARK: u8 = 5;
const FACTS: u8 = 6;
const PLAYS: u8 = 7;
const CELLS: u8 = 8;
const END: u8 = 9;

/// Facts or plays in one record; a request with more has several.
const A_RECORD: usize = 4096;

/// Whose state it is, and where in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Stands for the settings that decide what is counted.
    pub settings: String,
    /// Stands for what the numbers in it mean beyond that, such as the order of slices.
    pub shape: String,
    /// The lane.
    pub lane: u32,
    /// Ids of the topics, by topic; empty where the log has none.
    pub topic_ids: Vec<String>,
    /// The next offset to read, by topic: everything before it is in the state, nothing after it.
    pub next_offsets: Vec<u64>,
    /// Which start of the lane has taken it.
    pub life: u64,
}

/// What a snapshot says of itself before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Whose state it is, and where in the log.
    pub about: About,
    /// The first open epoch.
    pub frontier: i64,
    /// The oldest epoch that may have facts.
    pub kept_from: i64,
    /// What the generation's secret makes of a text that is always the same: tells snapshots of
    /// other generations, and not the secret.
    pub secret_check: String,
}

/// A snapshot that cannot be used: the log is read instead, for longer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// Its first bytes are those of something else.
    #[error("it is no snapshot")]
    NotASnapshot,
    /// Another program wrote it, and may read it.
    #[error("it has version {0}, this program reads {VERSION}")]
    OtherVersion(u32),
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It is whole, but not of this lane as it is now.
    #[error("it does not fit: {0}")]
    Misfit(&'static str),
}

/// Reads the header from the beginning of a snapshot: from its first [`HEADER_BYTES`], or all of a
/// shorter one.
pub fn read_header(beginning: &[u8]) -> Result<Header, SnapshotError> {
    let mut frames = FrameReader::new(PREAMBLE);
    frames.feed(beginning);
    let cut_off = SnapshotError::Damaged("it is cut off");
    check_preamble(frames.preamble().ok_or(cut_off.clone())?)?;
    match frames.next()? {
        Some((HEADER, content)) => header(content),
        Some(_) => Err(SnapshotError::Damaged("it does not begin with its header")),
        None => Err(cut_off),
    }
}

impl Header {
    /// Whether it is of the generation that has this secret.
    pub fn has_secret(&self, secret: [u8; 16]) -> bool {
        self.secret_check == secret_check(secret)
    }
}

fn header(content: &[u8]) -> Result<Header, SnapshotError> {
    serde_json::from_slice(content).map_err(|_| SnapshotError::Damaged("its header is unreadable"))
}

fn check_preamble(preamble: &[u8]) -> Result<(), SnapshotError> {
    let (magic, version) = preamble.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    let version = u32::from_le_bytes(version.try_into().expect("the preamble has 12 bytes"));
    if version != VERSION {
        return Err(SnapshotError::OtherVersion(version));
    }
    Ok(())
}

fn secret_check(secret: [u8; 16]) -> String {
    format!("{:032x}", RequestHasher::new(secret).key_of("marquee snapshot").0)
}

/// The header's own fields.
fn header_of(about: &About, settings: &LaneSettings, frontier: i64, kept_from: i64) -> Header {
    let secret_check = secret_check(settings.secret);
    Header { about: about.clone(), frontier, kept_from, secret_check }
}
