//! Copies of the late and dead letters: pieces of the files beside the store, whole lines each.
//!
//! ```text
//! late/generation=<id>/lane=3/day=2016-11-21/00000007-0-52113-<hash>.ndjson
//! ```
//!
//! A piece is named by its number, the bytes of the file that it holds, and a hash of how it ends.
//! How far a lane is copied is what the last name says, so nothing else has to be remembered; and a
//! file that somebody has emptied or replaced, which is their right, does not have that end at that
//! place, and is copied from its beginning.

use super::layout::day_of;
use super::objects::{ObjectError, Objects, Stop};
use super::{LakeError, LakeStatus};
use crate::letters::LetterKind;
use crate::{LaneState, SinkError, Store};
use bytes::Bytes;
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::Hasher;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes at the end of a piece that its hash is of, at most.
const END_BYTES: u64 = 256;

/// So many bytes are copied at once, whatever their age.
const ENOUGH_BYTES: u64 = 1 << 20;

/// Copies the letters of a store's lanes into the lake.
pub struct LetterCopies {
    store: Arc<dyn Store>,
    objects: Arc<dyn Objects>,
    /// Where `late` and `dead` are.
    folder: PathBuf,
    /// A piece has so many bytes, about, at most.
    piece_bytes: u64,
    /// Few bytes wait so long for more.
    patience_ms: i64,
    status: Arc<LakeStatus>,
    stop: Stop,
    outputs: BTreeMap<(LetterKind, u32), Output>,
}

/// What is known of one output of one lane.
#[derive(Clone, Debug, Default)]
struct Output {
    /// The last piece; `None` where there is none.
    last: Option<Piece>,
    /// Since when something waits.
    waits_since_ms: Option<i64>,
}

/// A piece that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    number: u64,
    from: u64,
    to: u64,
    /// Hash of its end.
    end: String,
}

impl Piece {
    fn name(&self) -> String {
        let Piece { number, from, to, end } = self;
        format!("{number:08}-{from}-{to}-{end}.ndjson")
    }

    fn of_path(path: &str) -> Option<Piece> {
        let name = path.rsplit('/').next()?.strip_suffix(".ndjson")?;
        let mut parts = name.split('-');
        let mut number = || parts.next()?.parse().ok();
        let (number, from, to) = (number()?, number()?, number()?);
        Some(Piece { number, from, to, end: parts.next()?.to_owned() })
    }
}

impl LetterCopies {
    /// Of the letters that lie in a folder.
    pub fn new(
        store: Arc<dyn Store>,
        objects: Arc<dyn Objects>,
        folder: PathBuf,
        (piece_bytes, patience_ms): (u64, i64),
        status: Arc<LakeStatus>,
        stop: Stop,
    ) -> Self {
        let outputs = BTreeMap::new();
        LetterCopies { store, objects, folder, piece_bytes, patience_ms, status, stop, outputs }
    }

    /// Looks once, and copies what is enough or has waited.
    ///
    /// # Errors
    /// The lake, the store or a file failed; what is left is copied by the next tick.
    pub fn tick(&mut self, now_ms: i64) -> Result<(), LakeError> {
        for lane in 0..self.store.generation().lanes {
            let Some(state) = self.store.lane_state(lane)? else { continue };
            for kind in [LetterKind::Late, LetterKind::Dead] {
                self.stop.go_on()?;
                self.copy(kind, lane, &state, now_ms)?;
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        kind: LetterKind,
        lane: u32,
        state: &LaneState,
        now_ms: i64,
    ) -> Result<(), LakeError> {
        let committed = match kind {
            LetterKind::Late => state.late_bytes,
            LetterKind::Dead => state.dead_bytes,
        };
        let path = self.folder.join(kind.folder()).join(format!("lane-{lane}.ndjson"));
        let unreadable = |e: std::io::Error| SinkError::File {
            path: path.display().to_string(),
            error: format!("the letters in it cannot be copied into the lake: {e}"),
        };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.map_err(unreadable)?,
        };
        let there = file.metadata().map_err(unreadable)?.len().min(committed);
        let mut output = self.output(kind, lane)?;
        // What is done below is known only once it has worked.
        self.outputs.remove(&(kind, lane));
        loop {
            let from = output.goes_on_at(&mut file, there).map_err(unreadable)?;
            let is_due = output.is_due(there - from, self.patience_ms, now_ms);
            if !is_due {
                break;
            }
            let bytes = read_lines(&mut file, from, there, self.piece_bytes).map_err(unreadable)?;
            let piece = self.put(kind, lane, from, bytes, &output, now_ms)?;
            output = Output { last: Some(piece), waits_since_ms: None };
        }
        self.outputs.insert((kind, lane), output);
        Ok(())
    }

    fn output(&self, kind: LetterKind, lane: u32) -> Result<Output, ObjectError> {
        if let Some(known) = self.outputs.get(&(kind, lane)) {
            return Ok(known.clone());
        }
        let listed = self.objects.list(&self.lane_folder(kind, lane))?;
        let pieces = listed.iter().filter_map(|object| Piece::of_path(&object.path));
        Ok(Output { last: pieces.max_by_key(|piece| piece.number), waits_since_ms: None })
    }

    fn lane_folder(&self, kind: LetterKind, lane: u32) -> String {
        let generation = &self.store.generation().id;
        format!("{}/generation={generation}/lane={lane}", kind.folder())
    }

    fn put(
        &self,
        kind: LetterKind,
        lane: u32,
        from: u64,
        bytes: Vec<u8>,
        output: &Output,
        now_ms: i64,
    ) -> Result<Piece, ObjectError> {
        let number = output.last.as_ref().map_or(0, |last| last.number + 1);
        let (len, to) = (bytes.len() as u64, from + bytes.len() as u64);
        let piece = Piece { number, from, to, end: hash_of_end(&bytes) };
        let (folder, day) = (self.lane_folder(kind, lane), day_of(now_ms));
        let path = format!("{folder}/day={day}/{}", piece.name());
        self.objects.put_new(&path, Bytes::from(bytes))?;
        self.status.change(|numbers| {
            numbers.letter_files += 1;
            numbers.letter_bytes += len;
        });
        Ok(piece)
    }
}

impl Output {
    /// Where the next piece begins in a file of so many bytes.
    fn goes_on_at(&self, file: &mut File, there: u64) -> std::io::Result<u64> {
        let Some(Piece { from, to, end, .. }) = &self.last else { return Ok(0) };
        if *to > there {
            return Ok(0);
        }
        let len = (to - from).min(END_BYTES);
        let bytes = read(file, to - len, len)?;
        Ok(if hash_of_end(&bytes) == *end { *to } else { 0 })
    }

    /// Whether so many bytes are enough, or have waited for long enough.
    fn is_due(&mut self, bytes: u64, patience_ms: i64, now_ms: i64) -> bool {
        if bytes == 0 {
            self.waits_since_ms = None;
            return false;
        }
        let since_ms = *self.waits_since_ms.get_or_insert(now_ms);
        bytes >= ENOUGH_BYTES || now_ms >= since_ms + patience_ms
    }
}

/// Whole lines from a place on: as many as fit, and one at least.
fn read_lines(file: &mut File, from: u64, end: u64, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = read(file, from, (end - from).min(most))?;
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => bytes.truncate(last + 1),
        // One line is longer than a piece.
        None => bytes = read(file, from, end - from)?,
    }
    Ok(bytes)
}

fn read(file: &mut File, from: u64, len: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![0; len as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hash_of_end(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(END_BYTES as usize);
    let mut hasher = SipHasher13::new();
    hasher.write(&bytes[start..]);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::super::tests::place::Memory;
    use super::super::tests::store::MemoryStore;
    use super::*;

    struct Test {
        folder: tempfile::TempDir,
        store: Arc<MemoryStore>,
        memory: Arc<Memory>,
        copies: LetterCopies,
    }

    impl Test {
        fn new() -> Test {
            let folder = tempfile::tempdir().expect("a folder");
            let (store, memory) = (Arc::new(MemoryStore::new()), Arc::new(Memory::default()));
            let copies = Test::copies(&folder, &store, &memory);
            Test { folder, store, memory, copies }
        }

        fn copies(
            folder: &tempfile::TempDir,
            store: &Arc<MemoryStore>,
            memory: &Arc<Memory>,
        ) -> LetterCopies {
            let path = folder.path().to_owned();
            let status = Arc::new(LakeStatus::default());
            let stop = Stop::default();
            LetterCopies::new(store.clone(), memory.clone(), path, (20, 1000), status, stop)
        }

        /// Another process.
        fn restart(&mut self) {
            self.copies = Test::copies(&self.folder, &self.store, &self.memory);
        }

        fn write(&self, kind: LetterKind, text: &str, committed: u64) {
            let path = self.folder.path().join(kind.folder()).join("lane-1.ndjson");
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("it is written");
            self.store.commit_letters(1, kind, committed);
        }

        /// Looks twice, so that what is there has waited for long enough.
        fn tick(&mut self) {
            self.copies.tick(0).expect("memory works");
            self.copies.tick(1000).expect("memory works");
        }

        #[track_caller]
        fn expect(&self, kind: LetterKind, pieces: &[&str]) {
            let found = self.memory.texts(&self.copies.lane_folder(kind, 1));
            assert_eq!(found, pieces, "{}", kind.folder());
        }
    }

    #[test]
    fn what_is_committed_is_copied_once_in_whole_lines() {
        let mut test = Test::new();
        test.write(LetterKind::Late, "one\ntwo\nthr", 8);
        test.write(LetterKind::Dead, "a line that is longer than a piece\nb\n", 37);
        test.copies.tick(0).expect("memory works");
        test.expect(LetterKind::Late, &[]);
        test.tick();
        test.expect(LetterKind::Late, &["one\ntwo\n"]);
        test.expect(LetterKind::Dead, &["a line that is longer than a piece\nb\n"]);
        test.tick();
        test.restart();
        test.tick();
        test.expect(LetterKind::Late, &["one\ntwo\n"]);
        test.write(LetterKind::Late, "one\ntwo\nthree\nfour\nfive\nsix\nseven\n", 34);
        test.tick();
        test.restart();
        test.tick();
        test.expect(LetterKind::Late, &["one\ntwo\n", "three\nfour\nfive\nsix\n", "seven\n"]);
    }

    #[test]
    fn a_file_that_somebody_emptied_is_copied_from_its_beginning() {
        let mut test = Test::new();
        test.write(LetterKind::Late, "one\ntwo\n", 8);
        test.tick();
        test.write(LetterKind::Late, "", 8);
        test.tick();
        test.write(LetterKind::Late, "x\n", 2);
        test.tick();
        test.expect(LetterKind::Late, &["one\ntwo\n", "x\n"]);
        // Emptied, and grown beyond what was copied before anybody looked.
        test.write(LetterKind::Late, "1\n2\n3\n", 6);
        test.restart();
        test.tick();
        test.expect(LetterKind::Late, &["one\ntwo\n", "x\n", "1\n2\n3\n"]);
    }

    #[test]
    fn names_are_read_as_they_were_written() {
        let piece = Piece { number: 7, from: 0, to: 52_113, end: hash_of_end(b"x") };
        assert_eq!(Piece::of_path(&format!("late/day=2016-11-21/{}", piece.name())), Some(piece));
        for other in ["late/x.ndjson", "late/1-2-3.ndjson", "late/1-2-3-4.json"] {
            assert_eq!(Piece::of_path(other), None, "{other}");
        }
    }
}
