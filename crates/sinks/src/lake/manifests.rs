//! Reads and writes manifests, and takes away what is not alive.
//!
//! A version is made by a conditional put under its number: of several writers one makes it, the
//! others read it and try the next. Whether a put has worked is not believed but looked up: an
//! acknowledgement may be lost, and a writer that was stopped for long may have made a version that
//! the others have long passed.

use super::layout::{day_in, made_for, version_of};
use super::manifest::{Entry, LakeFile, Manifest, Proposal, Verdict};
use super::objects::{Listed, Objects, Put};
use super::{FORMAT, LakeError, Layout, Row, parquet};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often a manifest is tried: each time somebody else has made one of the same day meanwhile.
const TRIES: u32 = 50;

/// Older versions that are kept, whatever their age.
const KEPT_VERSIONS: usize = 20;

/// How old things must be until they are taken away.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Files that were dropped, milliseconds: who has just read a manifest may be reading them.
    pub dropped_ms: i64,
    /// Files that nobody lists: they may be those of a writer that is about to list them.
    pub unlisted_ms: i64,
    /// Manifests that are not the newest.
    pub manifests_ms: i64,
}

impl Default for Ages {
    fn default() -> Self {
        const MINUTE_MS: i64 = 60_000;
        let (dropped_ms, unlisted_ms) = (10 * MINUTE_MS, 60 * MINUTE_MS);
        Ages { dropped_ms, unlisted_ms, manifests_ms: 60 * MINUTE_MS }
    }
}

/// What all who write a generation into one lake must agree on.
fn agreement(layout: &Layout) -> Json {
    json!({
        "format": FORMAT,
        "generation": layout.generation,
        "lanes": layout.lanes,
        "longest_epoch_ms": layout.longest_ms,
        "stretch_ms": layout.stretch_ms,
    })
}

/// The manifests of a generation.
#[derive(Clone)]
pub struct Manifests {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) layout: Layout,
}

impl Manifests {
    /// Those of a generation: in the layout that its first writer has chosen, whatever `layout`
    /// says of stretches.
    ///
    /// # Errors
    /// The lake does not answer, or something else is there.
    pub fn agree(objects: Arc<dyn Objects>, layout: Layout) -> Result<Self, LakeError> {
        if let Some(there) = Self::there(objects.clone(), layout.clone())? {
            return Ok(there);
        }
        let path = layout.agreement();
        objects.put_new(&path, Bytes::from(agreement(&layout).to_string()))?;
        let what = "it was written and is not there".to_owned();
        Self::there(objects, layout)?.ok_or(LakeError::Damaged { path, what })
    }

    /// Those of a generation, in the layout that its first writer has chosen; `None` where nobody has
    /// written any. Writes nothing.
    ///
    /// # Errors
    /// The lake does not answer, or something else is there.
    pub fn there(objects: Arc<dyn Objects>, layout: Layout) -> Result<Option<Self>, LakeError> {
        let path = layout.agreement();
        let Some(found) = objects.get(&path)? else { return Ok(None) };
        let damaged = |what: &str| LakeError::Damaged { path: path.clone(), what: what.into() };
        let mut found: Json = serde_json::from_slice(&found).unwrap_or_default();
        match found["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(LakeError::OtherFormat { path, found: format }),
            None => return Err(damaged("it names no format")),
        }
        let stretch_ms = found["stretch_ms"].as_i64().unwrap_or(0);
        if stretch_ms <= 0 || stretch_ms % layout.longest_ms != 0 {
            return Err(damaged("its stretches are not whole epochs"));
        }
        found["stretch_ms"] = layout.stretch_ms.into();
        if found != agreement(&layout) {
            return Err(damaged("it is of other lanes or epochs"));
        }
        Ok(Some(Manifests { objects, layout: Layout { stretch_ms, ..layout } }))
    }

    /// The layout that is in force.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The newest manifest of a day; an empty one of version 0 where there is none.
    ///
    /// # Errors
    /// The lake does not answer, or what is there is no manifest.
    pub fn newest(&self, day: &str) -> Result<Manifest, LakeError> {
        for _ in 0..TRIES {
            let Some(version) = self.versions(day)?.into_iter().next_back() else {
                return Ok(Manifest::empty(&self.layout, day));
            };
            let path = self.layout.manifest(day, version);
            if let Some(bytes) = self.objects.get(&path)? {
                let manifest = Manifest::of_json(&bytes, &path, &self.layout)?;
                if manifest.version != version || manifest.day != day {
                    let what = format!("it says version {} of {}", manifest.version, manifest.day);
                    return Err(LakeError::Damaged { path, what });
                }
                return Ok(manifest);
            }
            // It was the newest when it was listed, and is so old already that it is gone.
        }
        Err(self.crowded(day))
    }

    /// The newest manifest of a day, for who will write the next one. A day without any is only begun
    /// where no file of it says that there were some.
    ///
    /// # Errors
    /// As of [`Manifests::newest`], and all manifests of the day are lost.
    pub(super) fn newest_to_go_on(&self, day: &str) -> Result<Manifest, LakeError> {
        let newest = self.newest(day)?;
        if newest.version == 0 {
            self.none_is_later(&newest, &self.files_of(day)?)?;
        }
        Ok(newest)
    }

    /// Files in a day's folders.
    fn files_of(&self, day: &str) -> Result<Vec<Listed>, LakeError> {
        let mut listed = self.objects.list(&self.layout.files_folder(day))?;
        if self.layout.has_deltas() {
            listed.extend(self.objects.list(&self.layout.open_folder(day))?);
        }
        Ok(listed)
    }

    /// Files are named by the version that they were made for: one of a later version than the next
    /// says that manifests were lost, and with them what of all files is alive. (Some are made for the
    /// next, by who ended before it was listed.)
    fn none_is_later(&self, newest: &Manifest, listed: &[Listed]) -> Result<(), LakeError> {
        let later = |newest: &Manifest| {
            let is_later = |made| made > newest.version + 1;
            listed.iter().find(|file| made_for(&file.path).is_some_and(is_later))
        };
        if later(newest).is_none() {
            return Ok(());
        }
        // Unless it was made since the newest was read.
        let newest = self.newest(&newest.day)?;
        let Some(file) = later(&newest) else { return Ok(()) };
        let what = format!(
            "it is of a later version than the newest manifest of {}, {}: manifests are lost, and \
             nothing of that day is written or deleted. Put them back; or move the files of that day \
             out of the lake, and it is written anew from the store",
            newest.day, newest.version
        );
        Err(LakeError::Damaged { path: file.path.clone(), what })
    }

    /// Calls `each` with every row of an entry, in the order of cells.
    ///
    /// # Errors
    /// The lake does not answer, a file is not there any more (read the newest manifest again), or it
    /// is not whole.
    pub fn rows(&self, entry: &Entry, each: &mut dyn FnMut(Row)) -> Result<(), LakeError> {
        self.rows_of(&entry.files, each)
    }

    /// The same of some files.
    ///
    /// # Errors
    /// As [`Manifests::rows`].
    pub fn rows_of(&self, files: &[LakeFile], each: &mut dyn FnMut(Row)) -> Result<(), LakeError> {
        for LakeFile { path, .. } in files {
            let gone = || LakeError::Gone { path: path.clone() };
            parquet::read(self.objects.get(path)?.ok_or_else(gone)?, path, each)?;
        }
        Ok(())
    }

    /// The days that have a manifest.
    ///
    /// # Errors
    /// The lake does not answer.
    pub fn days(&self) -> Result<BTreeSet<String>, LakeError> {
        let listed = self.objects.list(&self.layout.all_manifests())?;
        Ok(listed.iter().filter_map(|object| day_in(&object.path)).map(str::to_owned).collect())
    }

    fn versions(&self, day: &str) -> Result<BTreeSet<u64>, LakeError> {
        let listed = self.objects.list(&self.layout.manifests_folder(day))?;
        Ok(listed.iter().filter_map(|object| version_of(&object.path)).collect())
    }

    fn crowded(&self, day: &str) -> LakeError {
        LakeError::Crowded { day: day.to_owned(), tries: TRIES }
    }

    /// Lists what is proposed, as far as nobody was faster; their files are there already.
    ///
    /// # Errors
    /// The lake does not answer. Whether the proposals are listed is not known then.
    pub(super) fn commit(
        &self,
        day: &str,
        proposals: &[Proposal],
        now_ms: i64,
    ) -> Result<(Manifest, Vec<Verdict>), LakeError> {
        for _ in 0..TRIES {
            let newest = self.newest(day)?;
            let (next, verdicts) = newest.with(proposals, now_ms);
            let Some(next) = next else { return Ok((newest, verdicts)) };
            if self.make(&next)? {
                return Ok((next, verdicts));
            }
        }
        Err(self.crowded(day))
    }

    /// Makes a version, and looks whether it is the newest: `false` where somebody has made this
    /// number before, or a later one.
    pub(super) fn make(&self, manifest: &Manifest) -> Result<bool, LakeError> {
        let Manifest { ref day, version, .. } = *manifest;
        let path = self.layout.manifest(day, version);
        let put = self.objects.put_new(&path, Bytes::from(manifest.to_json()))?;
        Ok(put == Put::Made && self.versions(day)?.into_iter().next_back() == Some(version))
    }

    /// Takes away what is not alive of a day and is old enough: files that were dropped, files that
    /// nobody lists, and all but the newest manifests. Returns how many files it took away.
    ///
    /// # Errors
    /// The lake does not answer: the rest is taken away another time.
    pub fn sweep(&self, day: &str, ages: Ages, now_ms: i64) -> Result<u64, LakeError> {
        let newest = self.newest(day)?;
        if newest.version == 0 {
            // Who writes the first has made nothing that could be told from rubbish yet.
            return Ok(0);
        }
        let mut deleted = BTreeSet::new();
        for dropped in &newest.dropped {
            if dropped.since_ms + ages.dropped_ms <= now_ms {
                self.objects.delete(&dropped.path)?;
                deleted.insert(dropped.path.clone());
            }
        }
        let unlisted = self.unlisted(&newest, now_ms - ages.unlisted_ms)?;
        if let Some(next) = newest.swept(unlisted, &deleted, now_ms) {
            // Where somebody else was faster it is done another time.
            self.make(&next)?;
        }
        self.forget_versions(day, now_ms - ages.manifests_ms)?;
        Ok(deleted.len() as u64)
    }

    /// Files in a day's folder that no manifest knows, made at or before a time.
    fn unlisted(&self, newest: &Manifest, made_by_ms: i64) -> Result<Vec<String>, LakeError> {
        let known: BTreeSet<&str> = newest
            .files()
            .map(|file| file.path.as_str())
            .chain(newest.dropped.iter().map(|dropped| dropped.path.as_str()))
            .collect();
        let listed = self.files_of(&newest.day)?;
        self.none_is_later(newest, &listed)?;
        let unknown = listed.into_iter().filter(|object| {
            object.modified_ms <= made_by_ms && !known.contains(object.path.as_str())
        });
        Ok(unknown.map(|object| object.path).collect())
    }

    fn forget_versions(&self, day: &str, made_by_ms: i64) -> Result<(), LakeError> {
        let mut listed = self.objects.list(&self.layout.manifests_folder(day))?;
        listed.retain(|object| version_of(&object.path).is_some());
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let old = listed.len().saturating_sub(KEPT_VERSIONS);
        for object in &listed[..old] {
            if object.modified_ms <= made_by_ms {
                self.objects.delete(&object.path)?;
            }
        }
        Ok(())
    }
}
