//! Names in the lake: which folder and which file something is in. Pure; nothing is looked up.
//!
//! ```text
//! lake-<generation>.json
//! cells/generation=<id>/day=2016-11-21/lane=3/20161121T003000Z-<hash>-v7-p0.parquet
//! open/generation=<id>/day=2016-11-21/lane=3/20161121T003000Z-<hash>-v7-p0.parquet
//! manifests/generation=<id>/day=2016-11-21/00000000000000000007.json
//! examples/, example-manifests/          the same for training examples
//! ```
//!
//! The names of folders are those of Hive, which DuckDB, Polars, Spark and Trino read as columns.
//! A day is that in which a stretch begins. A file's name ends with the version of the manifest that
//! it was made for: a name that was given up is never used again.

use marquee_model::format_time_ms;

/// What decides names, for all who write a generation into one lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Id of the generation.
    pub generation: String,
    /// Its number of lanes.
    pub lanes: u32,
    /// Length of its longest epoch.
    pub longest_ms: i64,
    /// Length of a stretch: one longest epoch, or some.
    pub stretch_ms: i64,
    /// What the files hold.
    pub(super) table: Table,
}

/// What is kept by stretch and lane, in folders of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Table {
    #[default]
    Cells,
    Examples,
}

impl Table {
    /// Folders of its files and of its manifests.
    fn folders(self) -> (&'static str, &'static str) {
        match self {
            Table::Cells => ("cells", "manifests"),
            Table::Examples => ("examples", "example-manifests"),
        }
    }
}

impl Layout {
    /// The layout of a generation whose files shall each hold epochs of so much time, about.
    pub fn new(generation: &str, lanes: u32, longest_ms: i64, span_ms: i64) -> Self {
        let stretch_ms = longest_ms * (span_ms / longest_ms).max(1);
        let (generation, table) = (generation.to_owned(), Table::default());
        Layout { generation, lanes, longest_ms, stretch_ms, table }
    }

    /// The same for training examples.
    pub fn of_examples(&self) -> Self {
        Layout { table: Table::Examples, ..self.clone() }
    }

    /// The start of the stretch that a time is in.
    pub fn stretch_of(&self, time_ms: i64) -> i64 {
        time_ms - time_ms.rem_euclid(self.stretch_ms)
    }

    /// What has been agreed on for the generation.
    pub(super) fn agreement(&self) -> String {
        format!("lake-{}.json", self.generation)
    }

    /// Where the files of a day are.
    pub fn files_folder(&self, day: &str) -> String {
        let (files, _) = self.table.folders();
        format!("{files}/generation={}/day={day}", self.generation)
    }

    /// Whether there are deltas of stretches that are not closed.
    pub(super) fn has_deltas(&self) -> bool {
        self.table == Table::Cells
    }

    /// Where the delta files of a day are, of stretches that are not closed.
    pub fn open_folder(&self, day: &str) -> String {
        format!("open/generation={}/day={day}", self.generation)
    }

    /// Where the manifests of a day are.
    pub fn manifests_folder(&self, day: &str) -> String {
        let (_, manifests) = self.table.folders();
        format!("{manifests}/generation={}/day={day}", self.generation)
    }

    pub(super) fn manifest(&self, day: &str, version: u64) -> String {
        format!("{}/{version:020}.json", self.manifests_folder(day))
    }

    /// The folder of the manifests of all days.
    pub(super) fn all_manifests(&self) -> String {
        let (_, manifests) = self.table.folders();
        format!("{manifests}/generation={}", self.generation)
    }

    pub(super) fn file(&self, name: &FileName<'_>) -> String {
        let FileName { is_open, stretch, lane, hash, version, part } = name;
        let folder = match is_open {
            true => self.open_folder(&day_of(*stretch)),
            false => self.files_folder(&day_of(*stretch)),
        };
        let start = start_of_files(&folder, *stretch, *lane);
        format!("{start}-{hash}-v{version}-p{part}.parquet")
    }

    /// What the name of a file says of its content; `None` where it is no name of a file of this lane
    /// and stretch.
    pub(super) fn hash_in<'p>(&self, path: &'p str, stretch: i64, lane: u32) -> Option<&'p str> {
        let start = start_of_files(&self.files_folder(&day_of(stretch)), stretch, lane);
        let rest = path.strip_prefix(&start)?.strip_prefix('-')?;
        rest.split_once("-v").map(|(hash, _)| hash)
    }
}

/// What the paths of all files of a lane's stretch begin with.
fn start_of_files(folder: &str, stretch: i64, lane: u32) -> String {
    let time: String =
        format_time_ms(stretch).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{folder}/lane={lane}/{time}")
}

/// What the name of a file of cells is made of.
pub(super) struct FileName<'n> {
    /// Of an open stretch.
    pub(super) is_open: bool,
    pub(super) stretch: i64,
    pub(super) lane: u32,
    /// Of its content.
    pub(super) hash: &'n str,
    /// Of the manifest that it is made for.
    pub(super) version: u64,
    /// Files of one stretch are counted from 0.
    pub(super) part: usize,
}

/// The UTC day of a time, `2016-11-21`.
pub(super) fn day_of(time_ms: i64) -> String {
    format_time_ms(time_ms).chars().take(10).collect()
}

/// The day in the path of a manifest; `None` for what is none.
pub(super) fn day_in(path: &str) -> Option<&str> {
    version_of(path)?;
    path.rsplit('/').nth(1)?.strip_prefix("day=")
}

/// The version that a file was made for, by its path; `None` for what is none.
pub(super) fn made_for(path: &str) -> Option<u64> {
    let (_, rest) = path.rsplit_once("-v")?;
    rest.split_once("-p")?.0.parse().ok()
}

/// The version in the path of a manifest; `None` for what is none.
pub(super) fn version_of(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_suffix(".json")?;
    let is_version = name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
    is_version.then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    #[test]
    fn names_never_change() {
        let layout = Layout::new("0158-af", 4, 30 * MINUTE_MS, 30 * MINUTE_MS);
        let (lane, version, part) = (3, 7, 0);
        let (is_open, stretch, hash) = (false, 1_479_688_200_000, "c0ffee");
        let name = FileName { is_open, stretch, lane, hash, version, part };
        let rest = "generation=0158-af/day=2016-11-21/lane=3/20161121T003000Z-c0ffee-v7-p0.parquet";
        assert_eq!(layout.file(&name), format!("cells/{rest}"));
        assert_eq!(layout.file(&FileName { is_open: true, ..name }), format!("open/{rest}"));
        let manifest = layout.manifest("2016-11-21", 7);
        assert_eq!(
            manifest,
            "manifests/generation=0158-af/day=2016-11-21/00000000000000000007.json"
        );
        let examples = layout.of_examples();
        assert_eq!(
            examples.file(&name),
            "examples/generation=0158-af/day=2016-11-21/lane=3/20161121T003000Z-c0ffee-v7-p0.parquet"
        );
        assert_eq!(
            examples.manifest("2016-11-21", 7),
            "example-manifests/generation=0158-af/day=2016-11-21/00000000000000000007.json"
        );
        assert_eq!((version_of(&manifest), day_in(&manifest)), (Some(7), Some("2016-11-21")));
        let path = layout.file(&name);
        assert_eq!(layout.hash_in(&path, name.stretch, 3), Some("c0ffee"));
        assert_eq!(layout.hash_in(&path, name.stretch, 4), None);
        assert_eq!(layout.hash_in(&path, name.stretch + 30 * MINUTE_MS, 3), None);
        for other in ["7.json", "a/b", "0000000000000000000x.json", "00000000000000000007.json.tmp"]
        {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_stretch_is_whole_epochs() {
        for (longest, span, stretch) in [(30, 30, 30), (1, 30, 30), (7, 30, 28), (60, 30, 60)] {
            let layout = Layout::new("g", 1, longest * MINUTE_MS, span * MINUTE_MS);
            assert_eq!(layout.stretch_ms, stretch * MINUTE_MS, "{longest} in {span}");
            let start = layout.stretch_of(1_479_688_234_567);
            assert_eq!(start % layout.stretch_ms, 0);
            assert!((start..start + layout.stretch_ms).contains(&1_479_688_234_567));
        }
    }
}
