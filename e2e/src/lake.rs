//! The lake as others read it: by its newest manifests and by the names of its files, with DuckDB and
//! with Polars, neither of which knows the program.

use crate::cells::Cell;
use crate::duckdb::DuckDb;
use crate::program::run_with_input;
use crate::skip;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// SQL that makes `cells` of what the newest manifests list (docs/lake.md shows the same).
pub fn by_manifests(lake: &Path) -> String {
    let lake = lake.display().to_string().replace('\'', "''");
    format!(
        "set variable manifests = (
           select list(newest) from (
             select max(file) as newest from glob('{lake}/manifests/*/*/*.json')
             group by regexp_replace(file, '[^/]*$', '')));
         set variable files = (
           select list('{lake}/' || file.path) from (
             select unnest(entry.files) as file from (
               select unnest(entries) as entry from read_json(getvariable('manifests')))));
         create or replace view cells as
           select * from read_parquet(getvariable('files'), hive_partitioning = true);"
    )
}

/// The same of all files that are there.
pub fn by_names(lake: &Path) -> String {
    let lake = lake.display().to_string().replace('\'', "''");
    format!(
        "create or replace view cells as
           select * from read_parquet('{lake}/cells/**/*.parquet', hive_partitioning = true);"
    )
}

/// The cells of a lake, lanes added up, as DuckDB finds them.
#[track_caller]
pub fn cells(duckdb: &DuckDb, view: &str) -> Vec<Cell> {
    duckdb.cells(&[
        view,
        "select video_id, epoch_start_ms, sum(impressions)::bigint, sum(plays)::bigint, slice, epoch_ms
         from cells group by all",
    ])
}

/// A Python that has Polars.
#[derive(Clone, Debug)]
pub struct Polars {
    python: PathBuf,
}

impl Polars {
    /// Finds it where DuckDB is. Where there is none, the test is skipped (and fails in CI).
    pub fn find() -> Option<Polars> {
        let python = DuckDb::find()?.python().to_owned();
        let output = Command::new(&python).args(["-c", "import polars"]).output();
        if output.is_ok_and(|output| output.status.success()) {
            return Some(Polars { python });
        }
        skip::missing_tool("python3 with polars (pip install polars)");
        None
    }

    /// The cells of all files that match, lanes added up; `options` are those of a store.
    #[track_caller]
    pub fn cells(&self, files: &str, options: &[(&str, &str)]) -> Vec<Cell> {
        let options: serde_json::Map<String, Value> =
            options.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let input = json!({ "files": files, "options": options }).to_string();
        let script = include_str!("polars.py");
        let mut command = Command::new(&self.python);
        let finished = run_with_input(command.args(["-c", script]), input.as_bytes());
        let rows: Vec<Value> = serde_json::from_slice(&finished.expect_code(0).stdout)
            .expect("the script writes rows as JSON");
        let number = |value: &Value| value.as_i64().expect("a number");
        let cell = |row: &Value| Cell {
            video: row[0].as_str().expect("a video").to_owned(),
            epoch_start_ms: number(&row[1]),
            epoch_ms: number(&row[2]),
            slice: row[3].as_str().expect("a slice").to_owned(),
            impressions: number(&row[4]) as u64,
            plays: number(&row[5]) as u64,
        };
        rows.iter().map(cell).collect()
    }
}
