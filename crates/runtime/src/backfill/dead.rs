//! Bad lines of a backfill: all are counted, the first are shown, and all go to a file if asked.

use marquee_sinks::SinkError;
use marquee_sinks::letters::Letter;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// How many bad lines are shown.
const SHOWN: usize = 5;

/// Where bad lines go.
#[derive(Default)]
pub struct DeadLetters {
    file: Option<(PathBuf, BufWriter<File>)>,
    shown: usize,
    error: Option<std::io::Error>,
}

impl DeadLetters {
    /// To a file, which is made at once so that a bad path is found before the work.
    pub fn to_file(path: &Path) -> Result<Self, SinkError> {
        let file = File::create(path).map_err(|e| failed(path, &e))?;
        Ok(DeadLetters { file: Some((path.to_owned(), BufWriter::new(file))), ..Self::default() })
    }

    /// Takes one bad line. Shows it, if it is among the first.
    pub(super) fn take(&mut self, source: &str, line: u64, reason: &str, record: &[u8]) {
        if self.shown < SHOWN {
            self.shown += 1;
            let text = String::from_utf8_lossy(&record[..record.len().min(120)]).into_owned();
            tracing::warn!("bad record: {source}:{line}: {reason}: {text}");
        }
        if let Some((_, file)) = &mut self.file
            && self.error.is_none()
        {
            let mut bytes = Vec::new();
            Letter::write(&mut bytes, source, line, None, reason, record);
            self.error = file.write_all(&bytes).err();
        }
    }

    /// Makes the file durable.
    pub(super) fn finish(self) -> Result<(), SinkError> {
        let Some((path, file)) = self.file else { return Ok(()) };
        if let Some(error) = self.error {
            return Err(failed(&path, &error));
        }
        let written = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        written.and_then(|file| file.sync_all()).map_err(|e| failed(&path, &e))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> SinkError {
    SinkError::File { path: path.display().to_string(), error: error.to_string() }
}
