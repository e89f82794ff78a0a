//! What has happened to the service: starts, stops, crashes, deployments, and what operators note.
//!
//! One line of JSON each, in a file beside the store, so that they outlive the process. A start that
//! follows no stop says that the process before it was killed; one with another version or other
//! settings is a deployment. No count depends on any of it: where the file cannot be written that is
//! logged, and the service goes on.

use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Annotations that are kept.
const MOST: usize = 500;

/// Characters of a note.
pub(super) const NOTE_CHARACTERS: usize = 200;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The process was started.
    Start,
    /// It was asked to end, and did.
    Stop,
    /// It ended otherwise.
    Crash,
    /// It was started with another version, or other settings, than before.
    Deployment,
    /// Somebody has noted it.
    Note,
}

impl What {
    /// As it is shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Start => "start",
            What::Stop => "stop",
            What::Crash => "crash",
            What::Deployment => "deployment",
            What::Note => "note",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// When, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// What.
    pub what: What,
    /// In words.
    pub text: String,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Annotations {
    /// `None`: they are in memory only.
    file: Option<PathBuf>,
    list: Mutex<Vec<Annotation>>,
}

impl Annotations {
    /// Those of a file, which need not be there yet, and the start of this process. `build` tells
    /// one deployment from another.
    pub fn begin(file: &Path, build: &str, now_ms: i64) -> Annotations {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                tracing::warn!("{}: annotations cannot be read: {error}", file.display());
                String::new()
            }
        };
        // A line that was torn by a crash is left out.
        let mut list: Vec<Annotation> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        list.drain(..list.len().saturating_sub(MOST));
        if text.lines().count() > 4 * MOST
            && let Err(error) = write(file, &list)
        {
            tracing::warn!("{}: old annotations are not left out: {error}", file.display());
        }
        let annotations =
            Annotations { file: Some(file.to_owned()), list: Mutex::new(list.clone()) };
        let is_start = |a: &&Annotation| matches!(a.what, What::Start | What::Deployment);
        let last = list.iter().rev().find(|a| a.what != What::Note);
        if last.as_ref().is_some_and(is_start) {
            let text = "the process before ended without a stop: killed, or the machine failed";
            annotations.add(What::Crash, text, now_ms);
        }
        let what = match list.iter().rev().find(is_start) {
            Some(before) if before.text != build => What::Deployment,
            _ => What::Start,
        };
        annotations.add(what, build, now_ms);
        annotations
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Annotation>> {
        // Whole values only: usable whatever happened to whoever held them.
        self.list.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Adds one.
    pub fn add(&self, what: What, text: &str, at_ms: i64) {
        let annotation = Annotation { at_ms, what, text: text.to_owned() };
        let mut list = self.lock();
        if let Some(file) = &self.file
            && let Err(error) = append(file, &annotation)
        {
            tracing::warn!("{}: an annotation is not kept: {error}", file.display());
        }
        if list.len() == MOST {
            list.remove(0);
        }
        list.push(annotation);
    }

    /// Those of a time on (milliseconds since 1970 UTC), the oldest first.
    pub fn since(&self, from_ms: i64) -> Vec<Annotation> {
        self.lock().iter().filter(|annotation| annotation.at_ms >= from_ms).cloned().collect()
    }

    /// The last ones, the newest first.
    pub fn newest(&self, most: usize) -> Vec<Annotation> {
        self.lock().iter().rev().take(most).cloned().collect()
    }
}

/// Puts these in the place of what is in a file, whole or not at all.
fn write(file: &Path, list: &[Annotation]) -> std::io::Result<()> {
    let mut text = String::new();
    for annotation in list {
        text.push('\n');
        text.push_str(&serde_json::to_string(annotation)?);
    }
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(unfinished, file)
}

fn append(file: &Path, annotation: &Annotation) -> std::io::Result<()> {
    let mut line = serde_json::to_string(annotation)?;
    // Behind one that was torn, too.
    line.insert(0, '\n');
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_crashes_and_deployments_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("annotations.ndjson");
        let kinds = |annotations: &Annotations| {
            annotations.since(0).iter().map(|a| a.what).collect::<Vec<_>>()
        };
        let first = Annotations::begin(&file, "1", 10);
        assert_eq!(kinds(&first), [What::Start]);
        first.add(What::Note, "a note", 11);
        first.add(What::Stop, "asked", 12);
        let second = Annotations::begin(&file, "1", 20);
        assert_eq!(kinds(&second), [What::Start, What::Note, What::Stop, What::Start]);
        second.add(What::Note, "after", 21);
        // A kill, in the middle of a line.
        OpenOptions::new()
            .append(true)
            .open(&file)
            .and_then(|mut f| f.write_all(b"\n{\"at"))
            .expect("a file");
        let third = Annotations::begin(&file, "2", 30);
        assert_eq!(kinds(&third)[5..], [What::Crash, What::Deployment]);
        // What the crash button has said need not be said again.
        third.add(What::Crash, "the button", 31);
        let fourth = Annotations::begin(&file, "2", 40);
        assert_eq!(kinds(&fourth)[7..], [What::Crash, What::Start]);
        assert_eq!(fourth.since(40).len(), 1);
        assert_eq!(fourth.newest(1)[0].at_ms, 40);
        // The file does not grow for ever.
        for number in 0..4 * MOST as i64 {
            fourth.add(What::Note, "again", 50 + number);
        }
        let last = Annotations::begin(&file, "2", 5_000);
        assert_eq!(last.newest(MOST + 1).len(), MOST);
        let lines = std::fs::read_to_string(&file).expect("a file").lines().count();
        assert!((MOST..MOST + 10).contains(&lines), "{lines}");
        last.add(What::Stop, "asked", 5_001);
        let after = Annotations::begin(&file, "2", 5_002);
        assert_eq!(kinds(&after)[MOST - 3..], [What::Start, What::Stop, What::Start]);
        assert_eq!(after.newest(1)[0].at_ms, 5_002);
    }
}
