//! The stream -> `impressions.ndjson` and `plays.ndjson`.
//!
//! Each file is written under another name and renamed at the end, so that a file with the right
//! name is a whole one. Both are complete before the first is renamed.

use super::{GenerateError, Options, arrivals};
use marquee_model::Kind;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines of `impressions.ndjson`.
    pub impressions: u64,
    /// Lines of `plays.ndjson`.
    pub plays: u64,
    /// Size of `impressions.ndjson`.
    pub impressions_bytes: u64,
    /// Size of `plays.ndjson`.
    pub plays_bytes: u64,
}

/// Writes both files into a folder, which is created where it is missing. Files of the same names
/// are replaced; where it fails, they are left as they were.
///
/// It holds only the events that are under way at one moment: a few megabytes, and with late ones
/// about 60 bytes for each of these.
pub fn write_files(options: &Options, dir: &Path) -> Result<Summary, GenerateError> {
    let events = arrivals(options)?;
    fs::create_dir_all(dir).map_err(failed("create the folder", dir))?;
    let mut impressions = Unfinished::create(dir, Kind::Impression)?;
    let mut plays = Unfinished::create(dir, Kind::Play)?;
    let mut line = Vec::with_capacity(256);
    for arrival in events {
        line.clear();
        arrival.event.write_json(&mut line);
        line.push(b'\n');
        match arrival.event.kind() {
            Kind::Impression => impressions.write(&line)?,
            Kind::Play => plays.write(&line)?,
        }
    }
    impressions.flush()?;
    plays.flush()?;
    let (impressions, impressions_bytes) = impressions.finish()?;
    let (plays, plays_bytes) = plays.finish()?;
    Ok(Summary { impressions, plays, impressions_bytes, plays_bytes })
}

fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> GenerateError + use<'a> {
    move |source| GenerateError::Io { action, path: path.to_owned(), source }
}

/// A file on its way; it is removed again unless it is finished.
struct Unfinished {
    /// Where it will be.
    path: PathBuf,
    /// Where it is until then.
    partial: PathBuf,
    file: BufWriter<File>,
    lines: u64,
    bytes: u64,
}

impl Unfinished {
    fn create(dir: &Path, kind: Kind) -> Result<Self, GenerateError> {
        let path = dir.join(format!("{}.ndjson", kind.plural()));
        let partial = dir.join(format!(".{}.ndjson.partial", kind.plural()));
        let file = File::create(&partial).map_err(failed("create", &partial))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Unfinished { path, partial, file, lines: 0, bytes: 0 })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), GenerateError> {
        self.file.write_all(line).map_err(failed("write", &self.partial))?;
        self.lines += 1;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), GenerateError> {
        self.file.flush().map_err(failed("write", &self.partial))
    }

    /// Lines and bytes.
    fn finish(self) -> Result<(u64, u64), GenerateError> {
        fs::rename(&self.partial, &self.path).map_err(failed("rename to", &self.path))?;
        Ok((self.lines, self.bytes))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name, and nobody to tell where it fails.
        let _ = fs::remove_file(&self.partial);
    }
}
