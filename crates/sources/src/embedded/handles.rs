//! A bounded number of open segment files, shared by the readers and the writer.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::error::LogError;

/// The files used last, most recent at the end.
///
/// Whoever got a file keeps it open for as long as it uses it, so the process has at most `limit`
/// files open plus those in use at the moment.
#[derive(Debug)]
pub(super) struct Handles {
    limit: usize,
    open: Mutex<Vec<(PathBuf, Arc<File>)>>,
}

impl Handles {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default() }
    }

    /// The file at `path`, opened for reading and writing. It is never created here: a segment
    /// that is gone must not come back empty.
    pub(super) fn get(&self, path: &Path) -> Result<Arc<File>, LogError> {
        // A list of files cannot be left half changed, so a panic elsewhere does not spoil it.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = open.iter().position(|(known, _)| known == path) {
            let entry = open.remove(index);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = Arc::new(file.map_err(|error| LogError::io("open", path, error))?);
        if open.len() >= self.limit {
            open.remove(0);
        }
        open.push((path.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
