//! The log's folder: who may use it, what it was created with, and how a file gets into a folder
//! so that it is still there after the power fails.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::error::LogError;

const LOCK_FILE: &str = "lock";
pub(super) const META_FILE: &str = "marquee-log";
const ID_FILE: &str = "marquee-log-id";
const META_TITLE: &str = "marquee embedded log";
const VERSION: u32 = 1;

/// What the log was created with, as remembered beside it.
///
/// A topic is remembered only once all its lanes have their first segment on disk: from then on a
/// lane that is not there is a loss and not a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) lanes: u32,
    pub(super) topics: Vec<String>,
}

/// The right to use the log's folder, for as long as it lives; the system frees it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is just being started still has a
        // copy of it. A failure leaves the lock to the end of the process.
        let _ = self.0.unlock();
    }
}

/// Takes the lock, or tells who has it.
pub(super) fn lock(path: &Path) -> Result<Lock, LogError> {
    let file_path = path.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path)
        .map_err(|error| LogError::io("open", &file_path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LogError::Locked { path: path.to_owned(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(LogError::io("lock", &file_path, error)),
    }
    let name = format!("process {}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(name.as_bytes()))
        .map_err(|error| LogError::io("write", &file_path, error))?;
    Ok(Lock(file))
}

/// What the holder wrote; it may be just about to, so an unreadable name is no error.
fn holder(file: &mut File) -> String {
    let mut name = String::new();
    let read = file.rewind().and_then(|()| file.take(64).read_to_string(&mut name));
    match name.trim() {
        trimmed if read.is_ok() && !trimmed.is_empty() => trimmed.to_owned(),
        _ => "another process".to_owned(),
    }
}

/// The id that tells this log from one that was made in the same folder after it was deleted. A log
/// of an earlier version gets one when it is opened.
pub(super) fn id(path: &Path, random: impl FnOnce() -> String) -> Result<String, LogError> {
    let file = path.join(ID_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => match text.trim() {
            "" => Err(LogError::corrupt(&file, 0, "it names no id")),
            id => Ok(id.to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = random();
            create_durably(&file, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(LogError::io("read", &file, error)),
    }
}

impl Meta {
    /// What `path` was created with; `None` when it was not.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, LogError> {
        let file = path.join(META_FILE);
        match fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text, &file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &file, error)),
        }
    }

    pub(super) fn store(&self, path: &Path) -> Result<(), LogError> {
        let mut text = format!("{META_TITLE}\nversion {VERSION}\nlanes {}\n", self.lanes);
        for topic in &self.topics {
            text.extend(["topic ", topic, "\n"]);
        }
        create_durably(&path.join(META_FILE), text.as_bytes())
    }

    fn parse(text: &str, file: &Path) -> Result<Self, LogError> {
        let damaged = |what| LogError::corrupt(file, 0, what);
        let mut lines = text.lines();
        if lines.next() != Some(META_TITLE) {
            return Err(damaged("it does not begin as a log's description does"));
        }
        let mut number = |name, missing| {
            let value = lines.next().and_then(|line| line.strip_prefix(name));
            value.and_then(|digits| digits.parse().ok()).ok_or_else(|| damaged(missing))
        };
        let found = number("version ", "it names no version")?;
        if found != VERSION {
            return Err(LogError::OtherVersion { file: file.to_owned(), found, known: VERSION });
        }
        let lanes = number("lanes ", "it names no number of lanes")?;
        let topics = lines.map(|line| line.strip_prefix("topic ").map(str::to_owned));
        let topics = topics.collect::<Option<_>>().ok_or_else(|| damaged("a line is unknown"))?;
        Ok(Self { lanes, topics })
    }

    pub(super) fn knows(&self, topic: &str) -> bool {
        self.topics.iter().any(|known| known == topic)
    }
}

/// Whether a topic's name can be the name of a folder beside the log's own files.
pub(super) fn can_be_topic(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_taken = name == LOCK_FILE || name.starts_with(META_FILE);
    (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(is_plain)
        && !is_taken
}

/// Where a lane of a topic lives.
pub(super) fn lane_folder(path: &Path, topic: &str, lane: u32) -> PathBuf {
    path.join(topic).join(lane.to_string())
}

/// Creates a folder and those above it, each synced into the folder that holds it.
pub(super) fn create_folder(path: &Path) -> Result<(), LogError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LogError::io("create", path, error))
        }
        _ => sync_folder(parent),
    }
}

/// Makes the names in a folder durable: syncing a file does not sync its name.
pub(super) fn sync_folder(path: &Path) -> Result<(), LogError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| LogError::io("sync", path, error))
}

/// The name under which [`create_durably`] writes a file before it is whole.
pub(super) const UNFINISHED: &str = "unfinished";

/// Creates or replaces a file so that under its name only ever the whole content is seen.
pub(super) fn create_durably(file: &Path, content: &[u8]) -> Result<(), LogError> {
    let unfinished = file.with_extension(UNFINISHED);
    let written = File::create(&unfinished)
        .and_then(|mut new| new.write_all(content).and_then(|()| new.sync_all()))
        .and_then(|()| fs::rename(&unfinished, file));
    if let Err(error) = written {
        // What is left over is harmless, and removed when the log is opened the next time.
        let _ = fs::remove_file(&unfinished);
        return Err(LogError::io("create", file, error));
    }
    sync_folder(file.parent().expect("a file of the log stands in a folder"))
}
