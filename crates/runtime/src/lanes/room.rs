//! The memory that the state may take, and the files that take the rest.
//!
//! Each lane has an equal share, since requests are spread evenly over them. After a batch, a lane
//! that has outgrown its share moves the oldest parts of its state to disk, where they are still
//! found; small ones together, into one file. Nothing is ever dropped to save memory: where the disk
//! does not take them, the lane keeps them, says so, and tries again.

use super::LaneError;
use super::lane::LaneOwner;
use crate::open_files;
use marquee_pipeline::LanePipeline;
use marquee_pipeline::join::cold::{ColdBytes, ColdError, ColdPlace, Fill};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Parts of the state that take less memory, in bytes and all together, are not worth a file.
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
    /// What the state took, in bytes, when it was last said that nothing is left that could go to
    /// disk; 0 if that is over.
    said_bytes: usize,
}

impl Room {
    pub(super) fn of(memory: &StateMemory) -> Self {
        Room { memory: memory.clone(), waits: 0, said_bytes: 0 }
    }

    fn bytes(&self) -> usize {
        self.memory.bytes as usize / self.memory.lanes.load(Ordering::Relaxed).max(1)
    }

    pub(super) fn fit(&mut self, lane: u32, pipeline: &mut LanePipeline) {
        self.waits = self.waits.saturating_sub(1);
        loop {
            let (bytes, limit) = (pipeline.size().memory_bytes, self.bytes());
            if bytes <= limit / 2 {
                self.said_bytes = 0;
            }
            if bytes <= limit || self.waits > 0 {
                return;
            }
            match pipeline.make_room(&*self.memory.place, self.memory.worth_a_file) {
                Ok(0) => return self.say(lane, bytes, limit),
                Ok(bytes) => tracing::debug!(lane, bytes, "a part of the state went to disk"),
                Err(error) => {
                    tracing::error!(lane, "the state outgrows [runtime] memory: {error}");
                    self.waits = ASK_AGAIN_AFTER;
                }
            }
        }
    }

    /// Says that the state is beyond its limit, once, and again whenever it has doubled since.
    #[cold]
    fn say(&mut self, lane: u32, bytes: usize, limit: usize) {
        if bytes < 2 * self.said_bytes {
            return;
        }
        self.said_bytes = bytes;
        tracing::warn!(
            lane,
            bytes,
            limit,
            "the state needs more than its part of [runtime] memory, and what is left in memory does \
             not go to disk (cells, texts, and what finds the rest on disk): raise it, or use longer \
             epochs, or fewer videos or slices"
        );
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
            let advice = open_files::advice(&error, "free space there, or raise the limit");
            ColdError(format!("a part of it cannot be written to {path}: {error}; {advice}"))
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
    use marquee_expr::Value;
    use marquee_model::Kind;
    use marquee_pipeline::Settings;
    use marquee_pipeline::lane::{LaneSettings, Verdict};
    use marquee_pipeline::prepare::Stream;
    use std::borrow::Cow;

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

    /// Keeps bytes in memory, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    #[derive(Debug)]
    struct Kept(Vec<u8>);

    impl ColdPlace for Counting {
        fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (mut all, mut piece) = (Vec::new(), Vec::new());
            while fill(&mut piece)? {
                all.append(&mut piece);
            }
            Ok(Box::new(Kept(all)))
        }
    }

    impl ColdBytes for Kept {
        fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
            into.copy_from_slice(&self.0[at as usize..][..into.len()]);
            Ok(())
        }
    }

    const EPOCHS: i64 = 2_000;
    const REQUESTS: i64 = 60;

    fn pipeline() -> LanePipeline {
        let minute_ms = 60_000;
        let settings = Settings {
            epochs_ms: vec![minute_ms],
            within_ms: EPOCHS * minute_ms,
            ..Settings::default()
        };
        let secret = *b"of this one test";
        LanePipeline::new(LaneSettings { settings, max_ahead_ms: None, secret, topics: 2 })
    }

    /// One request was shown a video in one epoch.
    fn show(pipeline: &mut LanePipeline, stream: &Stream, epoch: i64, request: i64) -> Verdict {
        let request = format!("{epoch}-{request}");
        let text = |text| Value::String(Cow::Borrowed(text));
        let (time, headers) = (Value::Int(epoch * 60_000), Value::StringMap(&[]));
        let values = [text(&request), text("A"), time.clone(), time, Value::Null, headers];
        pipeline.event(stream, 0, &values)
    }

    #[test]
    fn thousands_of_tiny_epochs_stay_within_the_limit_in_few_files_and_are_found() {
        const LIMIT: usize = 2 << 20;
        let place = Arc::new(Counting::default());
        let mut room = Room::of(&StateMemory::new(LIMIT as u64, place.clone()));
        let stream = Stream::new(Kind::Impression, &[], "", "", &[vec![]], true).expect("right");
        let mut pipeline = pipeline();
        let mut largest = 0;
        for epoch in 0..EPOCHS {
            for request in 0..REQUESTS {
                show(&mut pipeline, &stream, epoch, request);
            }
            pipeline.batch();
            pipeline.advance();
            room.fit(3, &mut pipeline);
            largest = largest.max(pipeline.size().memory_bytes);
        }
        let size = pipeline.size();
        assert_eq!((size.open_epochs as i64, size.requests as i64), (EPOCHS, EPOCHS * REQUESTS));
        // No epoch alone is worth a file, and all of them do not fit.
        assert!(size.disk_bytes > LIMIT as u64, "{size:?}");
        assert!(largest <= LIMIT, "{largest}");
        let files = place.0.load(Ordering::Relaxed);
        assert!(files < 100, "{files} files for {EPOCHS} epochs");
        for epoch in (0..EPOCHS).step_by(7) {
            let again = show(&mut pipeline, &stream, epoch, epoch % REQUESTS);
            assert_eq!(again, Verdict::Duplicate, "{epoch}");
        }
        assert_eq!(pipeline.cold_failure(), None);
        assert_eq!(room.said_bytes, 0);
    }

    #[test]
    fn a_state_that_cannot_shrink_is_told_of_again_when_it_has_doubled() {
        let mut room = Room::of(&StateMemory::new(1, Arc::new(Counting::default())));
        let stream = Stream::new(Kind::Impression, &[], "", "", &[vec![]], true).expect("right");
        let mut pipeline = pipeline();
        let mut told = Vec::new();
        for epoch in 0..40 {
            show(&mut pipeline, &stream, epoch, 0);
            room.fit(3, &mut pipeline);
            told.push(room.said_bytes);
        }
        told.dedup();
        assert!(told.len() > 1 && told[0] > 0, "{told:?}");
        assert!(told.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{told:?}");
    }
}
