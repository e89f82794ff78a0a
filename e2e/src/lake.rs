//! The lake as others read it: by its newest manifests and by the names of its files, with DuckDB and
//! with Polars, neither of which knows the program.

use crate::cells::Cell;
use crate::data::Data;
use crate::duckdb::{DuckDb, reference_tables};
use crate::program::run_with_input;
use crate::service::Service;
use crate::skip;
use marquee_services::S3;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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

/// The same of what is open, too (docs/lake.md shows the same).
pub fn until_now(lake: &Path) -> String {
    let by_manifests = by_manifests(lake);
    let lake = lake.display().to_string().replace('\'', "''");
    let manifests = by_manifests.split("set variable files").next().expect("it has a first part");
    format!(
        "{manifests}
         set variable files = (
           select list('{lake}/' || file.path) from (
             select unnest(entry.files) as file from (
               select unnest(list_concat(entries, open)) as entry
               from read_json(getvariable('manifests'), columns = {{
                 entries: 'struct(files struct(path varchar)[])[]',
                 open: 'struct(files struct(path varchar)[])[]'}}))));
         create or replace view cells as
           select generation, day, lane, video_id, epoch_start_ms, epoch_start, epoch_ms, slice,
                  max(impressions) as impressions, max(plays) as plays,
                  bool_and(complete) as complete,
                  case when count(*) = count(impression_requests)
                    then list_distinct(flatten(list(impression_requests))) end as impression_requests,
                  case when count(*) = count(play_requests)
                    then list_distinct(flatten(list(play_requests))) end as play_requests
           from read_parquet(getvariable('files'), hive_partitioning = true)
           group by generation, day, lane, video_id, epoch_start_ms, epoch_start, epoch_ms, slice;"
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

/// Removes the files of cells that the newest manifests do not list.
#[track_caller]
pub fn remove_unlisted(duckdb: &DuckDb, lake: &Path) {
    let names = lake.display().to_string().replace('\'', "''");
    let unlisted = format!(
        "select file from glob('{names}/cells/**/*.parquet')
         where not list_contains(getvariable('files'), file)"
    );
    for row in duckdb.rows(&[&by_manifests(lake), &unlisted]) {
        std::fs::remove_file(row[0].as_str().expect("a path")).expect("it is there");
    }
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

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a service says of its lake.
pub fn lake_of(service: &Service) -> Value {
    service.get("/v1/status")["lake"].clone()
}

/// Waits until the lake says something.
#[track_caller]
pub fn wait_for(service: &Service, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let lake = lake_of(service);
        if is(&lake) {
            return lake;
        }
        assert!(start.elapsed() < PATIENCE, "not {what}: {lake}\n{}", service.last_said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until what the log holds is counted, and every epoch that has cells is sealed and in the lake.
pub fn wait_until_sealed(service: &Service) {
    // What is not counted yet has no cells: what has might be sealed, all of it.
    service.wait_until_counted(0);
    let start = Instant::now();
    while !service.trends().iter().all(|cell| cell["sealed"] == true) {
        assert!(start.elapsed() < PATIENCE, "not sealed:\n{}", service.last_said());
        std::thread::sleep(Duration::from_millis(100));
    }
    // A look that was begun after this one has seen all that is sealed now.
    let looks = lake_of(service)["looks"].as_u64().expect("a number");
    wait_for(service, "in the lake", |lake| {
        lake["looks"].as_u64() >= Some(looks + 2) && lake["waiting"] == 0
    });
}

/// Members that the lake has and the oracle has not, and the reverse, of one slice and length.
#[track_caller]
pub fn differing_members(duckdb: &DuckDb, data: &Data, view: &str) -> u64 {
    let tables = reference_tables(&data.impressions, &data.plays);
    let found = "create table found as
        with whole as (select * from cells where slice = '' and epoch_ms = 1800000)
        select 'impressions' as side, video_id as video, epoch_start_ms,
               unnest(impression_requests) as request_id from whole
        union all
        select 'plays', video_id, epoch_start_ms, unnest(play_requests) from whole";
    let expected = "create table expected as
        select distinct 'impressions' as side, video,
               ts // getvariable('epoch_ms') * getvariable('epoch_ms') as epoch_start_ms, request_id
        from impressions
        union all
        select distinct 'plays', i.video,
               i.ts // getvariable('epoch_ms') * getvariable('epoch_ms'), i.request_id
        from impressions i join plays p
          on i.request_id = p.request_id and i.video = p.video
         and p.ts - i.ts between -getvariable('early_ms') and getvariable('within_ms')";
    // Not `distinct`: a member must be there once.
    let compare = "select (select count(*) from (from found except all from expected))
                        + (select count(*) from (from expected except all from found)),
                          (select count(*) from expected)";
    let texts: Vec<&str> =
        [view, found].into_iter().chain(tables.iter().map(String::as_str)).collect();
    let rows = duckdb.rows(&[&texts[..], &[expected, compare]].concat());
    assert!(
        rows[0][1].as_u64().expect("a number") > 0,
        "the oracle has no members: the data is empty"
    );
    rows[0][0].as_u64().expect("a number")
}

/// A lake in the bucket `cells` of a server, and the folder that the bucket is.
pub fn s3_lake(s3: &S3) -> (String, PathBuf) {
    let lake = format!(
        "url = \"s3://cells/lake\"\nendpoint = \"{}\"\nallow_http = true\nregion = \"{}\"\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"",
        s3.url(),
        S3::REGION,
        S3::ACCESS_KEY,
        S3::SECRET_KEY
    );
    (lake, s3.bucket("cells").expect("it answers").join("lake"))
}
