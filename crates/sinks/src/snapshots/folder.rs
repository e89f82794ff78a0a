//! Snapshots in a local folder: `<folder>/lane-<N>/<name>.snapshot`.
//!
//! A snapshot is written beside its place, synced, renamed, and the folder synced: a crash leaves
//! the whole snapshot or none. One process has the folder, the one that has the store around it.

use super::{Snapshots, SnapshotsError, StoredSnapshot};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const ENDING: &str = ".snapshot";
/// A snapshot that is being written, or whose writer has died.
const UNFINISHED: &str = ".unfinished";

/// A folder with snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
}

impl SnapshotFolder {
    /// In a folder, which is made with the first snapshot.
    pub fn new(path: PathBuf) -> Self {
        SnapshotFolder { path }
    }

    fn lane(&self, lane: u32) -> PathBuf {
        self.path.join(format!("lane-{lane}"))
    }

    fn file(&self, lane: u32, name: &str) -> PathBuf {
        debug_assert!(is_name(name), "{name:?} is no name of a snapshot");
        self.lane(lane).join(format!("{name}{ENDING}"))
    }

    fn write(
        &self,
        lane: u32,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<u64> {
        let folder = self.lane(lane);
        make_folder(&folder)?;
        let (to, unfinished) = (self.file(lane, name), folder.join(format!("{name}{UNFINISHED}")));
        let written = write_file(&unfinished, write);
        let renamed = written.and_then(|bytes| fs::rename(&unfinished, &to).map(|()| bytes));
        if renamed.is_err() {
            // What is left of it is of no use; where it cannot be removed, the next one tries.
            let _ = fs::remove_file(&unfinished);
        }
        let bytes = renamed?;
        sync_folder(&folder)?;
        Ok(bytes)
    }

    fn names(&self, lane: u32) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.lane(lane)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(ENDING));
            names.extend(name.filter(|name| is_name(name)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl Snapshots for SnapshotFolder {
    fn list(&self, lane: u32) -> Result<Vec<String>, SnapshotsError> {
        self.names(lane).map_err(|error| failed(&self.lane(lane), error))
    }

    fn put(
        &self,
        lane: u32,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, SnapshotsError> {
        remove_unfinished(&self.lane(lane));
        self.write(lane, name, write).map_err(|error| failed(&self.file(lane, name), error))
    }

    fn open(&self, lane: u32, name: &str) -> Result<StoredSnapshot, SnapshotsError> {
        let path = self.file(lane, name);
        let open = || {
            let file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok(StoredSnapshot { bytes, reader: Box::new(file) })
        };
        open().map_err(|error| failed(&path, error))
    }

    fn remove(&self, lane: u32, name: &str) -> Result<(), SnapshotsError> {
        let path = self.file(lane, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }
}

fn write_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Makes a folder and those above it. The one that holds the first of them is synced, too, or a
/// crash could take the whole folder away.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(above)?,
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A process that died while it wrote has left these. Nobody else writes here.
fn remove_unfinished(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|file| file.ends_with(UNFINISHED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn failed(path: &Path, error: io::Error) -> SnapshotsError {
    SnapshotsError { place: path.display().to_string(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, SnapshotFolder) {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = SnapshotFolder::new(temporary.path().join("store/snapshots"));
        (temporary, folder)
    }

    fn put(folder: &SnapshotFolder, lane: u32, name: &str, content: &[u8]) {
        let bytes = folder.put(lane, name, &mut |out| out.write_all(content));
        assert_eq!(bytes.expect("it is stored"), content.len() as u64);
    }

    fn content(folder: &SnapshotFolder, lane: u32, name: &str) -> Vec<u8> {
        let mut stored = folder.open(lane, name).expect("it is there");
        let mut content = Vec::new();
        io::Read::read_to_end(&mut stored.reader, &mut content).expect("it can be read");
        assert_eq!(content.len() as u64, stored.bytes);
        content
    }

    #[test]
    fn each_lane_has_its_own_in_the_order_of_their_names() {
        let (_temporary, folder) = folder();
        assert_eq!(folder.list(1).expect("none"), Vec::<String>::new());
        for name in ["2-b", "1-a", "3"] {
            put(&folder, 1, name, name.as_bytes());
        }
        put(&folder, 2, "1-a", b"other");
        assert_eq!(folder.list(1).expect("three"), ["1-a", "2-b", "3"]);
        assert_eq!(content(&folder, 1, "1-a"), b"1-a");
        for _ in 0..2 {
            folder.remove(1, "2-b").expect("removed, or gone before");
        }
        assert_eq!(folder.list(1).expect("two"), ["1-a", "3"]);
        assert_eq!(content(&folder, 2, "1-a"), b"other");
        assert!(folder.open(1, "2-b").is_err());
    }

    #[test]
    fn one_that_was_not_finished_is_never_shown_and_goes() {
        let (_temporary, folder) = folder();
        put(&folder, 0, "1", b"whole");
        let torn = folder.put(0, "2", &mut |out| {
            out.write_all(&[7; 100_000])?;
            Err(io::Error::other("no space left"))
        });
        let said = torn.expect_err("it failed").to_string();
        assert!(said.contains("2.snapshot") && said.contains("no space left"), "{said}");
        // What a process leaves that dies while it writes.
        let left = folder.lane(0).join("3.unfinished");
        fs::write(&left, b"half").expect("written");
        assert_eq!(folder.list(0).expect("one"), ["1"]);
        put(&folder, 0, "4", b"next");
        assert!(!left.exists());
        assert_eq!(fs::read_dir(folder.lane(0)).expect("a folder").count(), 2);
    }
}
