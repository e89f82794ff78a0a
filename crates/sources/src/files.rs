//! Files of records: NDJSON, plain or compressed with gzip or Zstandard, standard input, Parquet.
//!
//! The form is told by the first bytes, not by the name. Many threads take chunks from one
//! [`FileSet`]: whole lines, or a row group of Parquet. Whoever takes lines reads and decompresses
//! them, so that one thread reads while the others parse.

mod parquet;

pub(crate) use parquet::has_json;
#[cfg(test)]
pub(crate) use parquet::write_object;
pub use parquet::{RowGroup, Rows};

use marquee_model::Kind;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Bytes of lines in a chunk; a longer line makes a longer chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// The name of standard input.
pub const STDIN: &str = "-";

/// An input that cannot be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {path}: {error}; check the path and its permissions")]
    Open {
        /// The input.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// It was opened, but reading failed on the way.
    #[error(
        "cannot read {path} after line {line}: {error}; nothing was written (a compressed file \
         that is cut off must be fetched again)"
    )]
    Read {
        /// The input.
        path: String,
        /// The last line that was read.
        line: u64,
        /// What the system or the decompressor says.
        error: io::Error,
    },
    /// A Parquet file that cannot be read.
    #[error("cannot read {path} as Parquet: {reason}")]
    Parquet {
        /// The input.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Inputs that are read together.
pub struct FileSet {
    inputs: Vec<Input>,
    bytes_read: Arc<AtomicU64>,
    bytes_total: Option<u64>,
    /// Rows of the inputs that know how many they have.
    rows: u64,
    /// Bytes of the others, where they are known.
    line_bytes: Option<u64>,
}

struct Input {
    name: String,
    kind: Kind,
    state: Mutex<State>,
}

enum State {
    Lines(Lines),
    Parquet(parquet::Table),
    Done,
}

/// A stream of lines, and what was read beyond the last whole one.
struct Lines {
    reader: Box<dyn Read + Send>,
    rest: Vec<u8>,
    line: u64,
}

/// Which columns of Parquet files of a kind are needed, by their names; `None` for all.
type Needed<'n> = &'n dyn Fn(Kind) -> Option<Vec<String>>;

/// Whole lines of one input, or a row group of it.
#[derive(Debug, Default)]
pub struct Chunk {
    /// A buffer that keeps its length from chunk to chunk; the lines are its first `len` bytes.
    bytes: Vec<u8>,
    len: usize,
    /// Rows in place of lines.
    pub rows: Option<RowGroup>,
    /// Number of the first line, counted from 1.
    pub first_line: u64,
    /// Index of the input.
    pub input: usize,
}

impl FileSet {
    /// Opens all inputs, so that one that is missing is found before any work is done.
    pub fn open(paths: &[(Kind, PathBuf)]) -> Result<Self, FileError> {
        Self::open_columns(paths, &|_| None)
    }

    /// The same, and of Parquet reads only the columns that are needed.
    pub fn open_columns(paths: &[(Kind, PathBuf)], needed: Needed<'_>) -> Result<Self, FileError> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let (mut bytes_total, mut line_bytes, mut rows) = (Some(0), Some(0), 0);
        let mut inputs = Vec::new();
        for (kind, path) in paths {
            let (input, size) = open(*kind, path, needed, &bytes_read)?;
            bytes_total = bytes_total.zip(size).map(|(total, size)| total + size);
            match &*input.state.lock().unwrap_or_else(|e| e.into_inner()) {
                State::Parquet(table) => rows += table.rows(),
                _ => line_bytes = line_bytes.zip(size).map(|(total, size)| total + size),
            }
            inputs.push(input);
        }
        Ok(FileSet { inputs, bytes_read, bytes_total, rows, line_bytes })
    }

    /// About how many records there are, if a line has this many bytes. `None`: nobody knows.
    pub fn records(&self, bytes_a_line: u64) -> Option<u64> {
        Some(self.rows + self.line_bytes? / bytes_a_line)
    }

    /// Takes the next chunk of any input; `false` when all have been read. Threads start at
    /// different inputs (`thread`), so that they seldom wait for one another.
    pub fn next_chunk(&self, thread: usize, chunk: &mut Chunk) -> Result<bool, FileError> {
        let count = self.inputs.len();
        for input in (0..count).map(|i| (i + thread) % count.max(1)) {
            let mut state = self.inputs[input].state.lock().unwrap_or_else(|e| e.into_inner());
            if self.inputs[input].read(&mut state, chunk, &self.bytes_read)? {
                chunk.input = input;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Name and kind of an input.
    pub fn input(&self, input: usize) -> (&str, Kind) {
        (&self.inputs[input].name, self.inputs[input].kind)
    }

    /// Bytes read so far (before decompression), and in all where that is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.bytes_read.load(Ordering::Relaxed), self.bytes_total)
    }
}

impl Input {
    fn read(
        &self,
        state: &mut State,
        chunk: &mut Chunk,
        bytes_read: &AtomicU64,
    ) -> Result<bool, FileError> {
        (chunk.len, chunk.rows) = (0, None);
        let more = match state {
            State::Done => false,
            State::Parquet(table) => {
                let failed = |reason| FileError::Parquet { path: self.name.clone(), reason };
                let (group, bytes) = table.take().map_err(failed)?.unzip();
                bytes_read.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
                chunk.rows = group;
                chunk.rows.is_some()
            }
            State::Lines(lines) => lines.read(chunk).map_err(|error| FileError::Read {
                path: self.name.clone(),
                line: lines.line,
                error,
            })?,
        };
        if !more {
            *state = State::Done;
        }
        Ok(more)
    }
}

impl Lines {
    fn read(&mut self, chunk: &mut Chunk) -> io::Result<bool> {
        chunk.first_line = self.line + 1;
        // The buffer is as long as it ever was: only what grows is filled with zeros first.
        let mut filled = self.rest.len();
        if chunk.bytes.len() < filled {
            chunk.bytes.resize(filled, 0);
        }
        chunk.bytes[..filled].copy_from_slice(&self.rest);
        self.rest.clear();
        loop {
            let old = filled;
            if chunk.bytes.len() < old + CHUNK_BYTES {
                chunk.bytes.resize(old + CHUNK_BYTES, 0);
            }
            filled += read_full(&mut self.reader, &mut chunk.bytes[old..old + CHUNK_BYTES])?;
            if filled == old {
                break;
            }
            if let Some(end) = memchr::memrchr(b'\n', &chunk.bytes[old..filled]) {
                let end = old + end + 1;
                self.rest.extend_from_slice(&chunk.bytes[end..filled]);
                filled = end;
                break;
            }
        }
        chunk.len = filled;
        self.line += memchr::memchr_iter(b'\n', chunk.bytes()).count() as u64;
        Ok(filled > 0)
    }
}

/// Reads until the buffer is full or the input ends.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Chunk {
    /// The lines, each ended by a line feed (but perhaps the last).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Calls `each` with every line that is not blank, and its number.
    #[inline]
    pub fn for_each_line(&self, mut each: impl FnMut(u64, &[u8])) {
        let bytes = self.bytes();
        let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
        let mut start = 0;
        for (number, end) in (self.first_line..).zip(ends) {
            let line = bytes[start..end].trim_ascii();
            if !line.is_empty() {
                each(number, line);
            }
            start = (end + 1).min(bytes.len());
        }
    }
}

fn open(
    kind: Kind,
    path: &Path,
    needed: Needed<'_>,
    read: &Arc<AtomicU64>,
) -> Result<(Input, Option<u64>), FileError> {
    let name = path.display().to_string();
    let error = |error| FileError::Open { path: name.clone(), error };
    let (raw, size): (Box<dyn Read + Send>, _) = if name == STDIN {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(error)?;
        let meta = file.metadata().map_err(error)?;
        if meta.is_dir() {
            return Err(error(io::Error::other("it is a folder; name the files in it")));
        }
        (Box::new(file), meta.is_file().then_some(meta.len()))
    };
    let mut reader =
        BufReader::with_capacity(256 << 10, Counted { inner: raw, read: read.clone() });
    let head = head(&mut reader).map_err(error)?;
    let state = match head {
        [0x1f, 0x8b, ..] => lines(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            lines(zstd::stream::read::Decoder::with_buffer(reader).map_err(error)?)
        }
        [b'P', b'A', b'R', b'1'] => State::Parquet(
            parquet::Table::open(path, needed(kind).as_deref())
                .map_err(|reason| FileError::Parquet { path: name.clone(), reason })?,
        ),
        [0xef, 0xbb, 0xbf, _] => {
            reader.consume(3); // a byte order mark
            lines(reader)
        }
        _ => lines(reader),
    };
    Ok((Input { name, kind, state: Mutex::new(state) }, size))
}

fn lines(reader: impl Read + Send + 'static) -> State {
    State::Lines(Lines { reader: Box::new(reader), rest: Vec::new(), line: 0 })
}

/// The first four bytes, which stay in the reader; fewer are filled with zeros.
fn head(reader: &mut impl BufRead) -> io::Result<[u8; 4]> {
    let mut head = [0; 4];
    let filled = reader.fill_buf()?;
    let len = filled.len().min(4);
    head[..len].copy_from_slice(&filled[..len]);
    Ok(head)
}

/// Counts what is read, for the progress bar.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
