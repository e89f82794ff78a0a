//! The lake for those who compare it with what should be there: the cells that the newest manifests
//! list, whatever has become of the files. Writes nothing.
//!
//! A file says by its name what is in it (see `content_hash`), so it is known whether it is what
//! this program wrote, or what a disk, a person or another program has made of it.

use super::layout::day_of;
use super::manifest::{Entry, LakeFile, Manifest};
use super::objects::Objects;
use super::writing::content_hash;
use super::{LakeError, Layout, Manifests, Row, parquet};
use crate::Generation;
use bytes::Bytes;
use marquee_model::{CellCounts, CellKey};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What is wrong with a listed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// It is not there.
    Gone,
    /// It holds nothing that could be used.
    Broken(String),
    /// It is readable, and not what was written: its content is not that of its name.
    Changed,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileFault::Gone => f.write_str("is listed and is not there"),
            FileFault::Broken(what) => write!(f, "is listed and cannot be read: {what}"),
            FileFault::Changed => f.write_str("is not what was written under its name"),
        }
    }
}

/// A file as an entry lists it: what is right for one entry may be wrong for another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedFile {
    /// Path within the lake.
    pub path: String,
    /// Start of the entry's stretch.
    pub stretch_ms: i64,
    /// Its lane.
    pub lane: u32,
}

impl ListedFile {
    fn new(entry: &Entry, path: &str) -> Self {
        ListedFile { path: path.to_owned(), stretch_ms: entry.from_ms, lane: entry.lane }
    }
}

/// Reads a generation's entries.
pub struct Reading {
    manifests: Manifests,
    secret: [u8; 16],
    /// Files that were read lately, the newest last: the cells of one are asked for several times.
    kept: Vec<(ListedFile, Bytes)>,
    /// As long as they have no more bytes than these, or there is only one.
    kept_bytes: u64,
    faulty: BTreeMap<ListedFile, FileFault>,
}

impl Reading {
    /// Of a store's generation; `None` where the lake has nothing of it. `memory_bytes`: for files
    /// that are kept for a while, besides the one that is read.
    ///
    /// # Errors
    /// The lake does not answer, or something else is there.
    pub fn open(
        objects: Arc<dyn Objects>,
        generation: &Generation,
        memory_bytes: u64,
    ) -> Result<Option<Self>, LakeError> {
        let (lanes, longest_ms) = (generation.lanes, generation.epochs_ms()[0]);
        let layout = Layout::new(&generation.id, lanes, longest_ms, longest_ms);
        let manifests = Manifests::there(objects, layout)?;
        Ok(manifests.map(|manifests| Reading::of(manifests, generation.secret, memory_bytes)))
    }

    pub(super) fn of(manifests: Manifests, secret: [u8; 16], kept_bytes: u64) -> Self {
        Reading { manifests, secret, kept: Vec::new(), kept_bytes, faulty: BTreeMap::new() }
    }

    /// The layout that is in force.
    pub fn layout(&self) -> &Layout {
        self.manifests.layout()
    }

    /// The newest manifest of the day in which a stretch begins.
    ///
    /// # Errors
    /// The lake does not answer, or what is there is no manifest.
    pub fn newest(&self, stretch_ms: i64) -> Result<Manifest, LakeError> {
        self.manifests.newest(&day_of(stretch_ms))
    }

    /// Calls `each` with every entry whose stretch shares some time with this one.
    ///
    /// # Errors
    /// As [`Reading::newest`].
    pub fn entries(
        &self,
        from_ms: i64,
        to_ms: i64,
        each: &mut dyn FnMut(&Entry),
    ) -> Result<(), LakeError> {
        if from_ms >= to_ms {
            return Ok(());
        }
        let (first, last) = (day_of(self.layout().stretch_of(from_ms)), day_of(to_ms - 1));
        for day in self.manifests.days()?.range(first..=last) {
            let manifest = self.manifests.newest(day)?;
            let touches = |entry: &&Entry| entry.from_ms < to_ms && entry.to_ms > from_ms;
            manifest.entries.iter().filter(touches).for_each(&mut *each);
        }
        Ok(())
    }

    /// The start of the last stretch that each lane has an entry for.
    ///
    /// # Errors
    /// As [`Reading::newest`].
    pub fn last_of_lanes(&self) -> Result<Vec<Option<i64>>, LakeError> {
        let mut last = vec![None; self.layout().lanes as usize];
        for day in self.manifests.days()?.iter().rev() {
            for entry in &self.manifests.newest(day)?.entries {
                if let Some(last) = last.get_mut(entry.lane as usize) {
                    *last = (*last).max(Some(entry.from_ms));
                }
            }
            if last.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(last)
    }

    /// Calls `each` with every cell of an entry and its counts, as often as a file has it.
    ///
    /// # Errors
    /// The lake does not answer, or the entry is not alive any more. What is wrong with a file is no
    /// error: it holds nothing then, and [`Reading::faulty`] says so.
    pub fn counts(
        &mut self,
        entry: &Entry,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), LakeError> {
        for LakeFile { path, .. } in &entry.files {
            if let Some(bytes) = self.file(entry, path)? {
                parquet::read_counts(bytes, path, each)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with every row of an entry that is wanted, and whether its file is what was
    /// written.
    ///
    /// # Errors
    /// As [`Reading::counts`].
    pub fn rows(
        &mut self,
        entry: &Entry,
        wants: &dyn Fn(&CellKey) -> bool,
        each: &mut dyn FnMut(Row, bool),
    ) -> Result<(), LakeError> {
        for LakeFile { path, .. } in &entry.files {
            if let Some(bytes) = self.file(entry, path)? {
                let is_as_written = !self.faulty.contains_key(&ListedFile::new(entry, path));
                let each = &mut |row| each(row, is_as_written);
                parquet::read_wanted(bytes, path, wants, each)?;
            }
        }
        Ok(())
    }

    /// The entry without the files that are not what was written.
    pub(super) fn as_written(&mut self, entry: &Entry) -> Result<Entry, LakeError> {
        let mut believed = Entry { files: Vec::new(), ..entry.clone() };
        for file in &entry.files {
            let is_there = self.file(entry, &file.path)?.is_some();
            if is_there && !self.faulty.contains_key(&ListedFile::new(entry, &file.path)) {
                believed.files.push(file.clone());
            }
        }
        Ok(believed)
    }

    /// Files with which something is wrong, of those that were read.
    pub fn faulty(&self) -> &BTreeMap<ListedFile, FileFault> {
        &self.faulty
    }

    /// The bytes of a file; `None` where nothing in it can be used.
    fn file(&mut self, entry: &Entry, path: &str) -> Result<Option<Bytes>, LakeError> {
        let known = self.faulty.get(&ListedFile::new(entry, path));
        if matches!(known, Some(FileFault::Gone | FileFault::Broken(_))) {
            return Ok(None);
        }
        let is_read = |(kept, _): &&(ListedFile, Bytes)| {
            kept.path == path && (kept.stretch_ms, kept.lane) == (entry.from_ms, entry.lane)
        };
        if let Some((_, bytes)) = self.kept.iter().find(is_read) {
            return Ok(Some(bytes.clone()));
        }
        let is_known = known.is_some();
        let Some(bytes) = self.manifests.objects.get(path)? else {
            self.must_be_alive(entry, path)?;
            self.note(entry, path, FileFault::Gone);
            return Ok(None);
        };
        let fault = if is_known { None } else { self.fault_of(entry, path, &bytes) };
        let is_broken = matches!(fault, Some(FileFault::Broken(_)));
        fault.into_iter().for_each(|fault| self.note(entry, path, fault));
        if is_broken {
            return Ok(None);
        }
        self.keep(ListedFile::new(entry, path), &bytes);
        Ok(Some(bytes))
    }

    fn keep(&mut self, file: ListedFile, bytes: &Bytes) {
        self.kept.push((file, bytes.clone()));
        let size =
            |kept: &[(ListedFile, Bytes)]| kept.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
        while self.kept.len() > 1 && size(&self.kept) > self.kept_bytes {
            self.kept.remove(0);
        }
    }

    fn note(&mut self, entry: &Entry, path: &str, fault: FileFault) {
        self.faulty.insert(ListedFile::new(entry, path), fault);
    }

    /// Whoever has an entry may read its files for a while after it was replaced, and not for ever.
    fn must_be_alive(&self, entry: &Entry, path: &str) -> Result<(), LakeError> {
        let newest = self.newest(entry.from_ms)?;
        match newest.entry(entry.from_ms, entry.lane) == Some(entry) {
            true => Ok(()),
            false => Err(LakeError::Gone { path: path.to_owned() }),
        }
    }

    fn fault_of(&self, entry: &Entry, path: &str, bytes: &Bytes) -> Option<FileFault> {
        let Some(hash) = self.layout().hash_in(path, entry.from_ms, entry.lane) else {
            let what = format!("it is no file of lane {} and of this stretch", entry.lane);
            return Some(FileFault::Broken(what));
        };
        if hash == content_hash(&self.secret, bytes) {
            return None;
        }
        // Somebody has changed it: whether it can be used at all must be known before it is.
        let mut is_elsewhere = false;
        let each = &mut |row: Row| {
            is_elsewhere |= !(entry.from_ms..entry.to_ms).contains(&row.key.epoch_start_ms);
        };
        Some(match parquet::read(bytes.clone(), path, each) {
            Err(LakeError::Damaged { what, .. }) => FileFault::Broken(what),
            Err(other) => FileFault::Broken(other.to_string()),
            Ok(()) if is_elsewhere => FileFault::Broken("it has cells of another stretch".into()),
            Ok(()) => FileFault::Changed,
        })
    }
}
