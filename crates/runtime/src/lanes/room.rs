//! The memory that the state may take, and the files that take the rest.
//!
//! Each lane has an equal share, since requests are spread evenly over them. After a batch, a lane
//! that has outgrown its share moves the oldest parts of its state to disk, where they are still
//! found. Nothing is ever dropped to save memory: where the disk does not take them, the lane keeps
//! them, says so, and tries again.

use super::LaneError;
use super::lane::LaneOwner;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::join::cold::{ColdBytes, ColdError, ColdPlace, Fill};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A part of the state that takes less memory, in bytes, is not worth a file.
const WORTH_A_FILE: usize = 256 << 10;
/// After the disk has refused, so many batches pass before it is asked again.
const ASK_AGAIN_AFTER: u32 = 100;

/// What the states of all lanes of a process may take.
#[derive(Clone, Debug)]
pub struct StateMemory {
    bytes: u64,
    place: Arc<dyn ColdPlace>,
    /// Parts of the state that take less stay in memory.
    worth_a_file: usize,
    /// Lanes that share it now.
    lanes: Arc<AtomicUsize>,
}

impl StateMemory {
    /// So many bytes of memory; what exceeds them is kept at a place.
    pub fn new(bytes: u64, place: Arc<dyn ColdPlace>) -> Self {
        StateMemory { bytes, place, worth_a_file: WORTH_A_FILE, lanes: Arc::default() }
    }

    /// The same, but smaller parts of the state may go, too.
    pub fn in_parts_of(self, bytes: usize) -> Self {
        StateMemory { worth_a_file: bytes, ..self }
    }

    /// So many more lanes share the memory, until the answer is dropped.
    pub(super) fn shared_by(&self, lanes: usize) -> Sharers {
        self.lanes.fetch_add(lanes, Ordering::Relaxed);
        Sharers { all: self.lanes.clone(), lanes }
    }
}

/// The lanes of an owner, as far as memory is concerned.
#[derive(Debug)]
pub(super) struct Sharers {
    all: Arc<AtomicUsize>,
    lanes: usize,
}

impl Drop for Sharers {
    fn drop(&mut self) {
        self.all.fetch_sub(self.lanes, Ordering::Relaxed);
    }
}

/// One lane's part of the memory.
#[derive(Debug)]
pub(super) struct Room {
    memory: StateMemory,
    /// Batches until a disk that has refused is asked again.
    waits: u32,
    /// Whether it was said that nothing is left that could go to disk.
    has_said: bool,
}

impl Room {
    pub(super) fn of(memory: &StateMemory) -> Self {
        Room { memory: memory.clone(), waits: 0, has_said: false }
    }

    fn bytes(&self) -> usize {
        self.memory.bytes as usize / self.memory.lanes.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn fit(&mut self, lane: u32, pipeline: &mut LanePipeline) {
        self.waits = self.waits.saturating_sub(1);
        while self.waits == 0 && pipeline.size().memory_bytes > self.bytes() {
            match pipeline.make_room(&*self.memory.place, self.memory.worth_a_file) {
                Ok(0) => return self.say_once(lane),
                Ok(bytes) => tracing::debug!(lane, bytes, "a part of the state went to disk"),
                Err(error) => {
                    tracing::error!(lane, "the state outgrows [runtime] memory: {error}");
                    self.waits = ASK_AGAIN_AFTER;
                }
            }
        }
    }
}

impl Room {
    #[cold]
    fn say_once(&mut self, lane: u32) {
        if !std::mem::replace(&mut self.has_said, true) {
            tracing::warn!(
                lane,
                "the state needs more than its part of [runtime] memory, and what is left in memory \
                 does not go to disk (cells, texts, small epochs): raise it, or use longer epochs"
            );
        }
    }
}

impl LaneOwner {
    /// Keeps the state within its share of the memory.
    pub(super) fn make_room(&mut self) {
        self.room.fit(self.lane, &mut self.pipeline);
    }

    /// Refuses to go on with a state of which a part could not be read back (invariant WHOLE).
    pub(super) fn check_state(&self) -> Result<(), LaneError> {
        match self.pipeline.cold_failure() {
            None => Ok(()),
            Some(error) => Err(LaneError::State { lane: self.lane, error: error.clone() }),
        }
    }
}

/// Files without a name in a folder: they go with the process, however it ends.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
}

impl StateFolder {
    /// The folder is made when it is needed.
    pub fn new(path: PathBuf) -> Self {
        StateFolder { path }
    }

    fn create(&self) -> io::Result<File> {
        std::fs::create_dir_all(&self.path)?;
        tempfile::tempfile_in(&self.path)
    }
}

impl ColdPlace for StateFolder {
    fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
        let failed = |error: io::Error| {
            let path = self.path.display();
            ColdError(format!(
                "a part of it cannot be written to {path}: {error}; free space there, or raise the \
                 limit"
            ))
        };
        let mut file = self.create().map_err(failed)?;
        let mut piece = Vec::new();
        while fill(&mut piece)? {
            file.write_all(&piece).map_err(failed)?;
            piece.clear();
        }
        Ok(Box::new(StateFile { file, folder: self.path.clone() }))
    }
}

#[derive(Debug)]
struct StateFile {
    file: File,
    folder: PathBuf,
}

impl ColdBytes for StateFile {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
        self.file.read_exact_at(into, at).map_err(|error| {
            let folder = self.folder.display();
            ColdError(format!("a file in {folder} cannot be read back: {error}; repair the disk"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_files_have_no_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = StateFolder::new(folder.path().join("state"));
        let mut pieces = vec![b"world".to_vec(), b"hello ".to_vec()];
        let mut fill = |out: &mut Vec<u8>| {
            assert!(out.is_empty());
            let piece = pieces.pop();
            out.extend(piece.iter().flatten());
            Ok(piece.is_some())
        };
        let kept = place.keep(&mut fill).expect("the disk takes it");
        let mut bytes = [0; 5];
        kept.read(4, &mut bytes).expect("it is there");
        assert_eq!(&bytes, b"o wor");
        let error = kept.read(7, &mut bytes).expect_err("it ends before").to_string();
        assert!(error.contains("cannot be read back"), "{error}");
        let left = std::fs::read_dir(folder.path().join("state")).expect("it was made").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_disk_that_refuses_is_an_error_with_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("no-folder");
        std::fs::write(&file, "").expect("it is written");
        let error = StateFolder::new(file).keep(&mut |_| Ok(false)).expect_err("it is no folder");
        assert!(error.to_string().contains("free space there, or raise the limit"), "{error}");
    }
}
