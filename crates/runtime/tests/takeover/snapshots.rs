//! Snapshots in memory, which may be damaged between two processes.

use crate::history::Damage;
use marquee_sinks::snapshots::{Snapshots, SnapshotsError, StoredSnapshot};
use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct MemorySnapshots {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By name; there is one lane.
    stored: BTreeMap<String, Vec<u8>>,
    /// Which were opened, in order.
    opened: Vec<String>,
}

impl MemorySnapshots {
    pub(crate) fn damage(&self, damage: Damage) {
        let mut inner = self.inner.lock().unwrap();
        let flip = |content: &mut Vec<u8>, at: usize| {
            let at = at % content.len();
            content[at] ^= 1 << (at % 8);
        };
        match damage {
            Damage::None => {}
            Damage::OfNewest(at) => {
                if let Some(mut newest) = inner.stored.last_entry() {
                    flip(newest.get_mut(), at);
                }
            }
            Damage::OfAll(at) => inner.stored.values_mut().for_each(|content| flip(content, at)),
            Damage::NewestIsTorn(at) => {
                if let Some(mut newest) = inner.stored.last_entry() {
                    newest.get_mut().truncate(at);
                }
            }
            Damage::OldestIsLost => {
                inner.stored.pop_first();
            }
        }
    }

    /// How many there are, and how often one was opened.
    pub(crate) fn use_made(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap();
        (inner.stored.len(), inner.opened.len())
    }
}

impl Snapshots for MemorySnapshots {
    fn list(&self, _: u32) -> Result<Vec<String>, SnapshotsError> {
        Ok(self.inner.lock().unwrap().stored.keys().cloned().collect())
    }

    fn put(
        &self,
        _: u32,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, SnapshotsError> {
        let mut content = Vec::new();
        write(&mut content).unwrap();
        let bytes = content.len() as u64;
        self.inner.lock().unwrap().stored.insert(name.to_owned(), content);
        Ok(bytes)
    }

    fn open(&self, _: u32, name: &str) -> Result<StoredSnapshot, SnapshotsError> {
        let mut inner = self.inner.lock().unwrap();
        inner.opened.push(name.to_owned());
        let content = inner.stored[name].clone();
        Ok(StoredSnapshot { bytes: content.len() as u64, reader: Box::new(Cursor::new(content)) })
    }

    fn remove(&self, _: u32, name: &str) -> Result<(), SnapshotsError> {
        self.inner.lock().unwrap().stored.remove(name);
        Ok(())
    }
}
