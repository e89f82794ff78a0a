//! The late and the dead-letter output: NDJSON files beside the store.
//!
//! A line is `{"source", "position", "reason", "record"}`; late events add their `code`. Lines are
//! synced before the position of the log moves. The committed length of a file is part of the
//! lane's state, so that what a crash left behind it is cut off and written again: nothing is
//! lost and nothing is doubled.

use crate::SinkError;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One record that was not counted, or not wholly.
#[derive(Clone, Debug, Serialize)]
pub struct Letter<'a> {
    /// File, or topic and lane.
    pub source: &'a str,
    /// Line or offset.
    pub position: u64,
    /// A stable code, for late events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// Why, in words.
    pub reason: &'a str,
    /// The record as text. Bytes that are no UTF-8 are replaced; see `record_base16`.
    pub record: &'a str,
    /// The record in hexadecimal digits, where it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_base16: Option<String>,
}

impl<'a> Letter<'a> {
    /// Writes a letter about a record of any bytes as one line.
    pub fn write(
        out: &mut Vec<u8>,
        source: &'a str,
        position: u64,
        code: Option<&'a str>,
        reason: &'a str,
        record: &'a [u8],
    ) {
        let text = String::from_utf8_lossy(record);
        let record_base16 = std::str::from_utf8(record)
            .is_err()
            .then(|| record.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let letter = Letter { source, position, code, reason, record: &text, record_base16 };
        serde_json::to_writer(&mut *out, &letter).expect("texts and numbers always serialize");
        out.push(b'\n');
    }
}

/// The two outputs of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LetterKind {
    /// Events that came too late to be counted wholly.
    Late,
    /// What cannot be read.
    Dead,
}

impl LetterKind {
    /// Name of the folder of such outputs.
    pub fn folder(self) -> &'static str {
        match self {
            LetterKind::Late => "late",
            LetterKind::Dead => "dead",
        }
    }
}

/// The length of an output whose end nobody has committed here: nothing is cut off but a last line
/// that a crash has torn.
pub const ALL_OF_IT: u64 = u64::MAX;

/// Where the letters of lanes are kept.
pub trait Letterbox: Send + Sync {
    /// Tells this place from those of other processes that share the store; empty where the store
    /// has only this one.
    fn name(&self) -> &str {
        ""
    }

    /// Opens an output of a lane, and cuts off what is behind the committed length.
    fn open(
        &self,
        kind: LetterKind,
        lane: u32,
        committed: u64,
    ) -> Result<Box<dyn LetterOutput>, SinkError>;
}

/// One output of one lane.
pub trait LetterOutput: Send {
    /// Where lines of the next write are collected.
    fn pending(&mut self) -> &mut Vec<u8>;

    /// Writes what is pending, durable on return, and returns the length of the output.
    fn sync(&mut self) -> Result<u64, SinkError>;
}

/// Letters in files: `late/lane-N.ndjson` and `dead/lane-N.ndjson` in a folder.
#[derive(Clone, Debug)]
pub struct LetterFolder {
    folder: PathBuf,
    name: String,
}

impl LetterFolder {
    /// Letters in this folder, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        LetterFolder { folder, name: String::new() }
    }

    /// The same for a store that other processes share, which have their own folders. The name is
    /// that of no other folder.
    pub fn named(folder: PathBuf, name: String) -> Self {
        LetterFolder { folder, name }
    }
}

impl Letterbox for LetterFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(
        &self,
        kind: LetterKind,
        lane: u32,
        committed: u64,
    ) -> Result<Box<dyn LetterOutput>, SinkError> {
        let path = self.folder.join(kind.folder()).join(format!("lane-{lane}.ndjson"));
        Ok(Box::new(LetterFile::open(&path, committed)?))
    }
}

impl LetterOutput for LetterFile {
    fn pending(&mut self) -> &mut Vec<u8> {
        LetterFile::pending(self)
    }

    fn sync(&mut self) -> Result<u64, SinkError> {
        LetterFile::sync(self)
    }
}

/// One output file of one lane.
#[derive(Debug)]
pub struct LetterFile {
    path: PathBuf,
    file: File,
    /// Bytes that are in the file and, after [`LetterFile::sync`], durable.
    len: u64,
    pending: Vec<u8>,
}

impl LetterFile {
    /// Opens a file and cuts off what is behind the committed length.
    pub fn open(path: &Path, committed: u64) -> Result<Self, SinkError> {
        let failed = |e: std::io::Error| file_error(path, &e.to_string());
        let is_new = !path.exists();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        if is_new {
            // The names of the file and of its folder must outlive a power failure, too.
            for folder in path.ancestors().skip(1).take(2) {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
            }
        }
        let len = file.metadata().map_err(failed)?.len();
        if len < committed && committed != ALL_OF_IT {
            // Somebody took letters away (to work through them, say): that is their right.
            tracing::warn!(path = %path.display(), len, committed, "the file is shorter than written");
        }
        let len = match committed {
            ALL_OF_IT => whole_lines(&mut file, len).map_err(failed)?,
            committed => len.min(committed),
        };
        file.set_len(len).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(LetterFile { path: path.to_owned(), file, len, pending: Vec::new() })
    }

    /// Where lines of the next write are collected.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Writes and syncs what is pending, and returns the length of the file.
    pub fn sync(&mut self) -> Result<u64, SinkError> {
        if !self.pending.is_empty() {
            self.file
                .write_all(&self.pending)
                .and_then(|()| self.file.sync_data())
                .map_err(|e| file_error(&self.path, &e.to_string()))?;
            self.len += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(self.len)
    }
}

/// How many of the first `len` bytes of a file are whole lines.
fn whole_lines(file: &mut File, len: u64) -> std::io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = len;
    let mut piece = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        piece.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn file_error(path: &Path, error: &str) -> SinkError {
    SinkError::File { path: path.display().to_string(), error: error.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_others_have_had_the_lane_only_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("late/lane-0.ndjson");
        let long = "x".repeat(100_000);
        for (before, after) in [
            ("", ""),
            ("{\"a\"", ""),
            ("{}\n", "{}\n"),
            ("{}\n{}\n{\"half", "{}\n{}\n"),
            (&format!("{{}}\n{long}"), "{}\n"),
        ] {
            std::fs::create_dir_all(dir.path().join("late")).expect("a folder");
            std::fs::write(&path, before).expect("it is written");
            let mut file = LetterFile::open(&path, ALL_OF_IT).expect("it opens");
            file.pending().extend_from_slice(b"{}\n");
            file.sync().expect("it is written");
            let text = std::fs::read_to_string(&path).expect("it reads");
            assert_eq!(text, format!("{after}{{}}\n"), "{} bytes", before.len());
        }
    }

    #[test]
    fn what_was_not_committed_is_written_again_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("dead/lane-0.ndjson");
        let mut file = LetterFile::open(&path, 0).expect("it opens");
        Letter::write(file.pending(), "log", 1, None, "bad", b"\xff{");
        let committed = file.sync().expect("it is written");
        Letter::write(file.pending(), "log", 2, None, "bad", b"x");
        file.sync().expect("it is written, but never committed");
        let mut file = LetterFile::open(&path, committed).expect("it opens again");
        Letter::write(file.pending(), "log", 2, None, "bad", b"x");
        file.sync().expect("it is written");
        let text = std::fs::read_to_string(&path).expect("it reads");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str(l).expect("each line is JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["record_base16"], "ff7b");
        assert_eq!(lines[1]["position"], 2);
    }
}
