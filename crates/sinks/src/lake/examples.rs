//! Training examples in the lake: joined, labelled rows, for models that learn what is played.
//!
//! ```text
//! examples/generation=<id>/day=2016-11-21/lane=3/20161121T003000Z-<hash>-v7-p0.parquet
//! example-manifests/generation=<id>/day=2016-11-21/00000000000000000007.json
//! ```
//!
//! They stand by stretch and lane, and are listed by manifests, as cells are, under the same rule of
//! who may replace what. A stretch is written once it is closed; events that come later add a file of
//! **corrections** to it: whole rows with a later `as_of`, of which the last one counts. Nothing is
//! taken back.
//!
//! Who makes the rows is not known here; [`ExamplesTable`] writes what it is given.

mod columns;

pub use columns::{AttributeKind, AttributeValue, Example};

use super::layout::{FileName, day_of};
use super::manifest::{Base, Entry, LakeFile, Manifest, Proposal, Verdict, Wanted};
use super::objects::Objects;
use super::{LakeError, Layout, Manifests};
use bytes::Bytes;
use columns::{Columns, ExamplesWriter};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::Arc;

/// The examples of a generation in a lake.
pub struct ExamplesTable {
    manifests: Manifests,
    columns: Columns,
    /// For the names of files.
    secret: [u8; 16],
    /// A file is ended when it has so many bytes.
    file_bytes: usize,
}

/// A stretch of a lane that is about to be written, and what was listed of it when it was begun.
#[derive(Clone, Debug)]
pub struct BegunStretch {
    /// Start of the stretch, milliseconds.
    pub from_ms: i64,
    /// The lane.
    pub lane: u32,
    /// What was listed.
    pub base: Option<Entry>,
    version: u64,
    sweeps: u64,
}

/// A stretch that is written and waits to be listed.
#[derive(Debug)]
pub struct WrittenStretch(Proposal);

/// What stands in a stretch's rows, as far as it decides whether a row is new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Seconds from the impression to the play; `None`: not played.
    pub seconds_to_play: Option<f64>,
    /// When that was known, milliseconds since 1970 UTC.
    pub as_of_ms: i64,
}

/// What a row is of: a request, a video, and the start of an epoch.
pub type ExampleKey = (String, String, i64);

impl ExamplesTable {
    /// Those of a generation, in the layout that its first writer has chosen. `attributes` are the
    /// columns that the configuration declares, in its order.
    ///
    /// # Errors
    /// The lake does not answer, or something else is there.
    pub fn agree(
        objects: Arc<dyn Objects>,
        layout: Layout,
        attributes: &[(String, AttributeKind)],
        secret: [u8; 16],
        file_bytes: usize,
    ) -> Result<Self, LakeError> {
        let mut manifests = Manifests::agree(objects, layout)?;
        manifests.layout = manifests.layout.of_examples();
        Ok(ExamplesTable { manifests, columns: Columns::new(attributes), secret, file_bytes })
    }

    /// The layout that is in force.
    pub fn layout(&self) -> &Layout {
        self.manifests.layout()
    }

    /// The newest manifest of the day in which a stretch begins.
    ///
    /// # Errors
    /// See [`Manifests::newest`].
    pub fn manifest(&self, from_ms: i64) -> Result<Manifest, LakeError> {
        self.manifests.newest(&day_of(from_ms))
    }

    /// Begins a stretch of a lane, before anything is read that its rows are made of.
    ///
    /// # Errors
    /// The lake does not answer.
    pub fn begin(&self, from_ms: i64, lane: u32) -> Result<BegunStretch, LakeError> {
        let manifest = self.manifest(from_ms)?;
        let base = manifest.entry(from_ms, lane).cloned();
        let (version, sweeps) = (manifest.version + 1, manifest.sweeps);
        Ok(BegunStretch { from_ms, lane, base, version, sweeps })
    }

    /// Calls `each` with what an entry's rows say, in the order in which they were written: of two
    /// with one key the later counts.
    ///
    /// # Errors
    /// The lake does not answer, or a file is not there or not whole.
    pub fn labels(
        &self,
        entry: &Entry,
        each: &mut dyn FnMut(&str, &str, i64, Label),
    ) -> Result<(), LakeError> {
        for LakeFile { path, .. } in &entry.files {
            let gone = || LakeError::Gone { path: path.clone() };
            let bytes = self.manifests.objects.get(path)?.ok_or_else(gone)?;
            columns::read_labels(bytes, path, each)?;
        }
        Ok(())
    }

    /// Writes rows of a stretch; [`StretchWriter::finish`] ends it.
    pub fn writer(&self, begun: BegunStretch) -> StretchWriter<'_> {
        let from_ms = begun.from_ms;
        let entry = Entry {
            lane: begun.lane,
            from_ms,
            to_ms: from_ms + self.layout().stretch_ms,
            rows: 0,
            impressions: 0,
            plays: 0,
            incomplete_rows: 0,
            lists: false,
            fingerprint: String::new(),
            read_to: Vec::new(),
            files: Vec::new(),
        };
        let entry = begun.base.clone().unwrap_or(entry);
        let writer = ExamplesWriter::new(&self.columns, self.file_bytes);
        StretchWriter { table: self, begun, writer, entry }
    }

    /// Lists what was written, as far as nobody was faster, and says of each whether it is listed.
    ///
    /// # Errors
    /// The lake does not answer. Whether anything is listed is not known then.
    pub fn list(
        &self,
        written: Vec<WrittenStretch>,
        now_ms: i64,
    ) -> Result<Vec<(i64, bool)>, LakeError> {
        let mut listed = Vec::new();
        let day = |written: &WrittenStretch| day_of(written.0.wanted.place().0);
        for of_day in written.chunk_by(|a, b| day(a) == day(b)) {
            let proposals: Vec<Proposal> = of_day.iter().map(|w| w.0.clone()).collect();
            let (_, verdicts) = self.manifests.commit(&day(&of_day[0]), &proposals, now_ms)?;
            let starts = proposals.iter().map(|proposal| proposal.wanted.place().0);
            listed.extend(starts.zip(verdicts.into_iter().map(|v| v == Verdict::Listed)));
        }
        Ok(listed)
    }

    /// Takes away what is not alive of the day in which a stretch begins.
    ///
    /// # Errors
    /// See [`Manifests::sweep`].
    pub fn sweep(&self, from_ms: i64, ages: super::Ages, now_ms: i64) -> Result<u64, LakeError> {
        self.manifests.sweep(&day_of(from_ms), ages, now_ms)
    }

    fn put(&self, begun: &BegunStretch, bytes: Bytes, part: usize) -> Result<String, LakeError> {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(&bytes);
        let hash = format!("{:032x}", hasher.finish128().as_u128());
        let BegunStretch { from_ms, lane, version, .. } = *begun;
        let name = FileName { is_open: false, stretch: from_ms, lane, hash: &hash, version, part };
        let path = self.layout().file(&name);
        self.manifests.objects.put_new(&path, bytes)?;
        Ok(path)
    }
}

/// The rows of a stretch on their way into files.
pub struct StretchWriter<'t> {
    table: &'t ExamplesTable,
    begun: BegunStretch,
    writer: ExamplesWriter<'t>,
    /// As it was listed, with what was written since.
    entry: Entry,
}

impl StretchWriter<'_> {
    /// Adds a row. `replaces`: there is one with its key, which it corrects.
    ///
    /// # Errors
    /// The lake does not take a file that has become full.
    pub fn add(&mut self, row: &Example<'_>, replaces: Option<Label>) -> Result<(), LakeError> {
        let entry = &mut self.entry;
        entry.rows += 1;
        entry.impressions += u64::from(replaces.is_none());
        let was_played = replaces.is_some_and(|label| label.seconds_to_play.is_some());
        entry.plays += u64::from(row.seconds_to_play.is_some() && !was_played);
        entry.incomplete_rows += u64::from(!row.complete);
        match self.writer.add(row)? {
            Some(file) => self.put(file),
            None => Ok(()),
        }
    }

    /// Ends the last file. `read_to` are the offsets, by topic, before which everything was looked
    /// at; `is_whole`: nothing of it was lost.
    ///
    /// # Errors
    /// The lake does not take it.
    pub fn finish(
        mut self,
        read_to: Vec<u64>,
        is_whole: bool,
    ) -> Result<WrittenStretch, LakeError> {
        if let Some(file) = self.writer.finish()? {
            self.put(file)?;
        }
        let mut entry = self.entry;
        entry.read_to = read_to;
        entry.fingerprint = if is_whole { WHOLE } else { CUT }.to_owned();
        let BegunStretch { base, sweeps, .. } = self.begun;
        let (wanted, base) = (Wanted::Closed(entry), Base { entry: base, open: None });
        Ok(WrittenStretch(Proposal { wanted, base, sweeps }))
    }

    fn put(&mut self, file: columns::ExamplesFile) -> Result<(), LakeError> {
        let (len, rows) = (file.bytes.len() as u64, file.rows);
        let path = self.table.put(&self.begun, file.bytes, self.entry.files.len())?;
        self.entry.files.push(LakeFile { path, bytes: len, rows });
        Ok(())
    }

    /// Rows that were added, corrections included, and bytes of the files that are written, those of
    /// before included.
    pub fn written(&self) -> (u64, u64) {
        (self.entry.rows, self.entry.files.iter().map(|file| file.bytes).sum())
    }
}

/// What stands for a fingerprint in an entry of examples: everything that belongs to it was read, or
/// the log had lost a part of it.
const WHOLE: &str = "whole";
const CUT: &str = "cut";

#[cfg(test)]
mod tests {
    use super::super::tests::place::Memory;
    use super::*;

    fn table(memory: &Arc<Memory>) -> ExamplesTable {
        let attributes = [("device".to_owned(), AttributeKind::Text)];
        let layout = Layout::new("g", 1, 1000, 1000);
        let table = ExamplesTable::agree(memory.clone(), layout, &attributes, [7; 16], 1 << 20);
        table.expect("memory works")
    }

    fn write(
        table: &ExamplesTable,
        begun: BegunStretch,
        rows: &[(&str, Option<f64>, Option<Label>)],
        read_to: u64,
    ) -> WrittenStretch {
        let epoch_start_ms = begun.from_ms;
        let mut writer = table.writer(begun);
        for (request_id, seconds_to_play, replaces) in rows {
            let row = Example {
                request_id,
                video: "v",
                time_ms: 1,
                attributes: vec![AttributeValue::Text("tv")],
                seconds_to_play: *seconds_to_play,
                weight: 1.0,
                epoch_start_ms,
                complete: true,
                as_of_ms: replaces.map_or(10, |label| label.as_of_ms + 1),
            };
            writer.add(&row, *replaces).expect("memory works");
        }
        writer.finish(vec![read_to], true).expect("memory works")
    }

    fn labels(table: &ExamplesTable) -> Vec<(String, Option<f64>, i64)> {
        let manifest = table.manifest(0).expect("memory works");
        let mut labels = Vec::new();
        for entry in &manifest.entries {
            let each = &mut |request: &str, _: &str, _: i64, label: Label| {
                labels.push((request.to_owned(), label.seconds_to_play, label.as_of_ms));
            };
            table.labels(entry, each).expect("memory works");
        }
        labels
    }

    #[test]
    fn corrections_stand_beside_what_was_known_and_a_stalled_maker_changes_nothing() {
        let memory = Arc::new(Memory::default());
        let (one, other) = (table(&memory), table(&memory));
        let stalled = other.begin(0, 0).expect("memory works");
        let begun = one.begin(0, 0).expect("memory works");
        let written = write(&one, begun, &[("a", None, None), ("b", Some(3.0), None)], 5);
        assert_eq!(one.list(vec![written], 10).expect("memory works"), [(0, true)]);
        // It has read less, and comes later.
        let written = write(&other, stalled, &[("a", None, None)], 4);
        assert_eq!(other.list(vec![written], 11).expect("memory works"), [(0, false)]);

        let begun = other.begin(0, 0).expect("memory works");
        let base = begun.base.clone().expect("it is listed");
        assert_eq!((base.read_to, base.impressions, base.plays), (vec![5], 2, 1));
        let before = Label { seconds_to_play: None, as_of_ms: 10 };
        let written = write(&other, begun, &[("a", Some(9.0), Some(before))], 8);
        assert_eq!(other.list(vec![written], 12).expect("memory works"), [(0, true)]);
        let all =
            [("a".into(), None, 10), ("b".into(), Some(3.0), 10), ("a".into(), Some(9.0), 11)];
        assert_eq!(labels(&one), all);
        let entry = one.manifest(0).expect("memory works").entries.remove(0);
        assert_eq!((entry.read_to, entry.impressions, entry.plays), (vec![8], 2, 2));
        assert_eq!((entry.rows, entry.files.len(), entry.fingerprint.as_str()), (3, 2, "whole"));
    }
}
