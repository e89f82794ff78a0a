//! A place in memory, and what one writer sees of it: calls that wait for their turn and fail.

use super::super::{Listed, ObjectError, Objects, Put};
use super::turns::{Fault, Turns};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// All objects.
#[derive(Debug, Default)]
pub(in super::super) struct Memory {
    objects: Mutex<BTreeMap<String, Bytes>>,
    puts: AtomicU64,
}

impl Memory {
    /// How many objects were made.
    pub(super) fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    /// What is in the objects of a folder, by their names.
    pub(in super::super) fn texts(&self, folder: &str) -> Vec<String> {
        let objects = self.objects.lock().expect("nobody panics here");
        let inside = objects.iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")));
        inside.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// All files of cells.
    pub(super) fn files(&self) -> Vec<(String, Bytes)> {
        let objects = self.objects.lock().expect("nobody panics here");
        let is_file = |(path, _): &(&String, &Bytes)| path.ends_with(".parquet");
        objects.iter().filter(is_file).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    }
}

impl Objects for Memory {
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError> {
        let mut objects = self.objects.lock().expect("nobody panics here");
        if objects.contains_key(path) {
            return Ok(Put::WasThere);
        }
        objects.insert(path.to_owned(), bytes);
        self.puts.fetch_add(1, Ordering::SeqCst);
        Ok(Put::Made)
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.objects.lock().expect("nobody panics here").get(path).cloned())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        let objects = self.objects.lock().expect("nobody panics here");
        let inside = objects.iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")));
        let listed = |(path, bytes): (&String, &Bytes)| Listed {
            path: path.clone(),
            bytes: bytes.len() as u64,
            modified_ms: 0,
        };
        Ok(inside.map(listed).collect())
    }

    fn delete(&self, path: &str) -> Result<(), ObjectError> {
        self.objects.lock().expect("nobody panics here").remove(path);
        Ok(())
    }
}

/// The memory as one writer sees it.
#[derive(Debug)]
pub(super) struct Place {
    memory: Arc<Memory>,
    turns: Arc<Turns>,
    writer: usize,
    /// Killed processes make no calls.
    is_dead: AtomicBool,
    calls: AtomicU64,
}

impl Place {
    pub(super) fn new(memory: Arc<Memory>, turns: Arc<Turns>, writer: usize) -> Self {
        Place { memory, turns, writer, is_dead: AtomicBool::new(false), calls: AtomicU64::new(0) }
    }

    /// The same for the next life of the writer.
    pub(super) fn life(&self) -> Arc<dyn Objects> {
        Arc::new(Place::new(self.memory.clone(), self.turns.clone(), self.writer))
    }

    fn call<T>(
        &self,
        path: &str,
        call: impl FnOnce(&Memory) -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(ObjectError::Stopped);
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let failed = || ObjectError::Failed {
            call: "do",
            path: path.to_owned(),
            error: "a test wants it".to_owned(),
        };
        match self.turns.wait(self.writer) {
            Fault::None => call(&self.memory),
            Fault::Refused => Err(failed()),
            Fault::AnswerLost => call(&self.memory).and_then(|_| Err(failed())),
            Fault::Killed => {
                if number.is_multiple_of(2) {
                    call(&self.memory)?;
                }
                self.is_dead.store(true, Ordering::SeqCst);
                Err(ObjectError::Stopped)
            }
        }
    }
}

impl Objects for Place {
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError> {
        self.call(path, |memory| memory.put_new(path, bytes))
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError> {
        self.call(path, |memory| memory.get(path))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        self.call(folder, |memory| memory.list(folder))
    }

    fn delete(&self, path: &str) -> Result<(), ObjectError> {
        self.call(path, |memory| memory.delete(path))
    }
}
