//! DuckDB, through Python: the judge of what is counted, which shares no line with the program.

use crate::cells::Cell;
use crate::program::{root, run, run_with_input};
use crate::skip;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SCRIPT: &str = include_str!("duckdb.py");

/// A Python that has DuckDB.
#[derive(Clone, Debug)]
pub struct DuckDb {
    python: PathBuf,
}

impl DuckDb {
    /// Finds it: in the environment that `.ci/run` makes, or in the `python3` of the path. Where
    /// there is none, the test is skipped (and fails in CI).
    pub fn find() -> Option<DuckDb> {
        let found = DuckDb::quietly();
        if found.is_none() {
            skip::missing_tool("python3 with duckdb (pip install duckdb)");
        }
        found
    }

    /// Finds it, and says nothing where there is none.
    pub fn quietly() -> Option<DuckDb> {
        static FOUND: OnceLock<Option<DuckDb>> = OnceLock::new();
        let candidates = || [root().join("target/venv/bin/python"), PathBuf::from("python3")];
        let has_duckdb = |python: &PathBuf| {
            let output = Command::new(python).args(["-c", "import duckdb"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let find = || Some(DuckDb { python: candidates().into_iter().find(has_duckdb)? });
        FOUND.get_or_init(find).clone()
    }

    /// The Python that has it.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Runs SQL texts one after the other and returns the rows of the last.
    #[track_caller]
    pub fn rows(&self, texts: &[&str]) -> Vec<Vec<Value>> {
        let input = serde_json::to_vec(texts).expect("texts are JSON");
        let finished = run_with_input(Command::new(&self.python).args(["-c", SCRIPT]), &input);
        let finished = finished.expect_code(0);
        serde_json::from_slice(&finished.stdout).expect("the script writes rows as JSON")
    }

    /// The same for a query that ends in `video, epoch_start_ms, impressions, plays`, optionally
    /// followed by `slice` and `epoch_ms`.
    #[track_caller]
    pub fn cells(&self, texts: &[&str]) -> Vec<Cell> {
        self.rows(texts).iter().map(|row| of_row(row)).collect()
    }

    /// The version, as `2.0.0`.
    pub fn version(&self) -> String {
        let words = "import duckdb; print(duckdb.__version__)";
        let finished = run(Command::new(&self.python).args(["-c", words])).expect_code(0);
        String::from_utf8_lossy(&finished.stdout).trim().to_owned()
    }
}

fn of_row(row: &[Value]) -> Cell {
    let number = |column: usize| row[column].as_u64().expect("a count");
    let slice = row.get(4).and_then(Value::as_str).unwrap_or_default();
    Cell {
        video: row[0].as_str().expect("a video").to_owned(),
        epoch_start_ms: row[1].as_i64().expect("a time"),
        epoch_ms: row.get(5).and_then(Value::as_i64).unwrap_or(0),
        slice: slice.to_owned(),
        impressions: number(2),
        plays: number(3),
    }
}

/// A path as a literal of SQL.
pub fn literal(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

/// The oracle's tables for the reference job over two files of events: docs/semantics.sql needs no
/// more. `early` of that job is 0.
pub fn reference_tables(impressions: &Path, plays: &Path) -> Vec<String> {
    let table = |name: &str, file: &Path, column: &str, filter: &str| {
        format!(
            "create table {name} as select request_id, video_id as video, ts
             from read_ndjson({}, columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR',
               ts: 'BIGINT', {column}}}) where {filter};",
            literal(file)
        )
    };
    vec![
        "set variable epoch_ms = 1800000; set variable within_ms = 3600000;
         set variable early_ms = 0;"
            .to_owned(),
        table("impressions", impressions, "device: 'VARCHAR'", "device is distinct from 'console'"),
        table("plays", plays, "duration_s: 'BIGINT'", "duration_s >= 60"),
    ]
}
