//! A real Cassandra, and a stock client that reads its tables and shares no line with the program.

use crate::cells::{Cell, assert_same};
use crate::data::Data;
use crate::duckdb::{DuckDb, reference_tables};
use crate::program::{marquee, root, run, run_with_input};
use crate::{members, skip};
use marquee_services::{Cassandra, CassandraOptions, missing_for_cassandra};
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

const CLIENT: &str = include_str!("cassandra_client.py");

/// A machine of CI has two cores: nodes that start at once would be slow. Held by a test with a node.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A node of a test's own. `None` where it cannot run here; then the test is skipped (and fails in
/// CI).
pub fn own_node() -> Option<Cassandra> {
    if let Some(tool) = missing_for_cassandra() {
        skip::missing_tool(&tool);
        return None;
    }
    Some(Cassandra::start(CassandraOptions::default()).expect("a node starts"))
}

/// A Python that has cassandra-driver.
pub struct Cql {
    python: PathBuf,
}

impl Cql {
    /// Finds it as [`DuckDb::find`] does its own.
    pub fn find() -> Option<Cql> {
        let candidates = [root().join("target/venv/bin/python"), "python3".into()];
        let has_driver = |python: &PathBuf| {
            let output = Command::new(python).args(["-c", "import cassandra.cluster"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let found = candidates.into_iter().find(has_driver).map(|python| Cql { python });
        if found.is_none() {
            skip::missing_tool("python3 with cassandra-driver (pip install cassandra-driver)");
        }
        found
    }

    #[track_caller]
    fn ask(&self, at: SocketAddrV4, mut ask: Value) -> Value {
        ask["address"] = json!(at.ip().to_string());
        ask["port"] = json!(at.port());
        let input = serde_json::to_vec(&ask).expect("it is JSON");
        let finished = run_with_input(Command::new(&self.python).args(["-c", CLIENT]), &input);
        serde_json::from_slice(&finished.expect_code(0).stdout).expect("it answers JSON")
    }

    /// Runs a statement; the rows of its answer.
    #[track_caller]
    pub fn run(&self, at: SocketAddrV4, cql: &str) -> Vec<Value> {
        let answer = self.ask(at, json!({ "do": "run", "cql": cql }));
        answer.as_array().expect("rows").clone()
    }

    /// Changes a set where it stands: takes a member of a lane's part of a video away, or adds one that
    /// never was.
    #[track_caller]
    pub fn change_member(
        &self,
        at: SocketAddrV4,
        keyspace: &str,
        video: &str,
        lane: i64,
        adds: bool,
    ) {
        let ask = json!({ "do": "change", "keyspace": keyspace, "video": video, "lane": lane,
                          "adds": adds });
        self.ask(at, ask);
    }

    /// All cells of a keyspace, lanes added up.
    #[track_caller]
    pub fn cells(&self, at: SocketAddrV4, keyspace: &str) -> Vec<Cell> {
        let answer = self.ask(at, json!({ "do": "counts", "keyspace": keyspace }));
        let cell = |row: &Value| Cell {
            video: row[0].as_str().expect("a video").to_owned(),
            epoch_start_ms: row[1].as_i64().expect("a time"),
            epoch_ms: 0,
            slice: row[2].as_str().expect("a slice").to_owned(),
            impressions: row[3].as_u64().expect("a count"),
            plays: row[4].as_u64().expect("a count"),
        };
        answer.as_array().expect("rows").iter().map(cell).collect()
    }

    /// Panics unless counts and members of a keyspace are those of the oracle.
    #[track_caller]
    pub fn assert_exact(&self, duckdb: &DuckDb, data: &Data, at: SocketAddrV4, keyspace: &str) {
        let tables = reference_tables(&data.impressions, &data.plays);
        let mut texts: Vec<&str> = tables.iter().map(String::as_str).collect();
        let scratch = tempfile::NamedTempFile::new().expect("a temporary file");
        let to = scratch.path();
        self.ask(at, json!({ "do": "members", "keyspace": keyspace, "to": to, "fetch": 50 }));
        let differences = members::differences_of(duckdb, &texts, to);
        assert_eq!(differences, 0, "members differ from the oracle's");
        let oracle = std::fs::read_to_string(root().join("docs/semantics.sql"));
        let oracle = oracle.expect("it is there");
        texts.push(&oracle);
        assert_same(&self.cells(at, keyspace), &duckdb.cells(&texts));
    }
}

/// A keyspace of this name for a configuration, made by `marquee schema --apply`.
#[track_caller]
pub fn make_tables(config: &Path) {
    let mut command = marquee(["schema", "--apply"]);
    run(command.arg("-c").arg(config)).expect_code(0);
}

/// `[store]` with Cassandra at an address, to be put behind `path`.
pub fn store_section(at: SocketAddrV4, keyspace: &str) -> String {
    format!("kind = \"cassandra\"\nnodes = \"{at}\"\nkeyspace = \"{keyspace}\"\ntimeout = \"2s\"")
}

/// Five corruptions, each in a cell of its own: video, and what was done.
#[track_caller]
pub fn plant(cql: &Cql, at: SocketAddrV4, keyspace: &str) -> Vec<(String, &'static str)> {
    let rows = cql.run(
        at,
        &format!(
            "SELECT generation, epoch_ms, epoch_start, bucket, video, lane, impressions, plays, \
             WRITETIME(impressions), WRITETIME(plays) FROM {keyspace}.counts LIMIT 5000"
        ),
    );
    let mut seen = std::collections::BTreeSet::new();
    let several = |row: &&Value| row[6].as_i64() > Some(3) && row[7].as_i64() > Some(0);
    let cells: Vec<&Value> =
        rows.iter().filter(several).filter(|row| seen.insert(row[4].to_string())).take(5).collect();
    let text = |value: &Value| value.as_str().expect("as it was asked for").to_owned();
    let of_row = |row: &Value| {
        format!(
            "generation = '{}' AND epoch_ms = {} AND epoch_start = '{}+0000' AND slice = '' AND \
             bucket = {} AND video = '{}' AND lane = {}",
            text(&row[0]),
            row[1],
            text(&row[2]),
            row[3],
            text(&row[4]),
            row[5]
        )
    };
    let number = |row: &Value, column: usize| row[column].as_i64().expect("as it was asked for");
    let set = |row: &Value, column: &str, count: i64, time: i64| {
        format!(
            "UPDATE {keyspace}.counts USING TIMESTAMP {} SET {column} = {count} WHERE {}",
            time + 1_000_000,
            of_row(row)
        )
    };
    let [low, high, gone, lacks, extra] = cells[..] else { panic!("five cells: {cells:?}") };
    cql.run(at, &set(low, "impressions", number(low, 6) - 1, number(low, 8)));
    cql.run(at, &set(high, "plays", number(high, 7) + 1, number(high, 9)));
    let delete = format!("DELETE FROM {keyspace}.counts WHERE {}", of_row(gone));
    cql.run(at, &delete);
    cql.change_member(at, keyspace, &text(&lacks[4]), number(lacks, 5), false);
    cql.change_member(at, keyspace, &text(&extra[4]), number(extra, 5), true);
    vec![
        (text(&low[4]), "a count too low"),
        (text(&high[4]), "a count too high"),
        (text(&gone[4]), "counts that are gone"),
        (text(&lacks[4]), "a member that is gone"),
        (text(&extra[4]), "a member too many"),
    ]
}
