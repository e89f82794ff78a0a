//! What `backfill` counts is what DuckDB counts by the SQL of docs/semantics.md, cell for cell, in
//! whatever form the same events come.

use marquee_e2e::cells::{assert_same, of_csv};
use marquee_e2e::data::{Data, backfill, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::program::{root, run, run_with_input};
use marquee_e2e::skip;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

/// One data set for all tests of this file: about 870,000 events.
static DATA: LazyLock<Data> = LazyLock::new(|| Data::generated(100_000, 7));

/// Its cells by `examples/reference.toml`.
static REFERENCE: LazyLock<Vec<u8>> =
    LazyLock::new(|| DATA.cells(&mut DATA.backfill(&example("reference.toml"))));

/// The filters of both examples. A null device is not the console.
fn filtered(data: &Data) -> String {
    format!(
        "set variable epoch_ms = 1800000; set variable within_ms = 3600000;
         set variable early_ms = 0;
         create table impressions as
           select request_id, video_id as video, ts, country, device
           from read_ndjson({}, columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR',
             ts: 'BIGINT', country: 'VARCHAR', device: 'VARCHAR'}})
           where device is distinct from 'console';
         create table plays as
           select request_id, video_id as video, ts
           from read_ndjson({}, columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR',
             ts: 'BIGINT', duration_s: 'BIGINT'}})
           where duration_s >= 60;",
        literal(&data.impressions),
        literal(&data.plays)
    )
}

fn sql(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("it is in the tree")
}

/// The backfill of `data` by a configuration agrees with an SQL text over the filtered events.
#[track_caller]
fn check(data: &Data, duckdb: &DuckDb, config: &Path, sql: &str) {
    let found = of_csv(&data.cells(&mut data.backfill(config)));
    let expected = duckdb.cells(&[&filtered(data), sql]);
    assert!(expected.len() > 1_000, "{} cells prove little", expected.len());
    assert!(expected.iter().any(|cell| cell.plays > 1), "nothing was joined");
    assert_same(&found, &expected);
}

#[test]
fn the_reference_job_is_the_oracles_sql() {
    let Some(duckdb) = DuckDb::find() else { return };
    check(&DATA, &duckdb, &example("reference.toml"), &sql("docs/semantics.sql"));
}

#[test]
fn the_slides_setting_is_its_sql() {
    let Some(duckdb) = DuckDb::find() else { return };
    check(&DATA, &duckdb, &example("slides.toml"), &sql("e2e/sql/slides.sql"));
}

#[test]
fn slices_and_two_lengths_of_epochs_are_their_sql() {
    let Some(duckdb) = DuckDb::find() else { return };
    // Each event counts in six cells.
    let data = Data::generated(5_000, 11);
    let reference = sql("examples/reference.toml");
    let more = "\n[transform]\nslices = [[], ['country'], ['country', 'device']]\n\
                [aggregate]\nepochs = ['30m', '5m']\n";
    let config = data.write("slices.toml", reference + more);
    check(&data, &duckdb, &config, &sql("e2e/sql/slices.sql"));
}

#[test]
fn rows_are_sorted_by_video_and_epoch_and_none_is_empty() {
    let cells = of_csv(&REFERENCE);
    let key = |cell: &marquee_e2e::cells::Cell| (cell.video.clone(), cell.epoch_start_ms);
    assert!(cells.is_sorted_by(|a, b| key(a) < key(b)));
    assert!(cells.iter().all(|cell| cell.impressions + cell.plays > 0));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    for threads in ["1", "2", "7"] {
        let mut command = DATA.backfill(&example("reference.toml"));
        let cells = DATA.cells(command.args(["--threads", threads]));
        assert!(cells == *REFERENCE, "{threads} threads count otherwise");
    }
}

#[test]
fn less_memory_than_events_changes_no_byte() {
    let least = sql("examples/reference.toml") + "\n[runtime]\nmemory = '64MiB'\n";
    let data = Data::generated(300_000, 5);
    let config = data.write("small.toml", least);
    let spilled = data.cells(&mut data.backfill(&config));
    assert!(spilled == data.cells(&mut data.backfill(&example("reference.toml"))));
}

#[test]
fn compressed_files_and_standard_input_give_the_same_bytes() {
    let config = example("reference.toml");
    let (impressions, plays) = (read(&DATA.impressions), read(&DATA.plays));
    // Named so that only the content tells the form.
    let gz = DATA.write("impressions.a", gzip(&impressions));
    let zst = DATA.write("impressions.b", zstd::encode_all(&*impressions, 1).expect("memory"));
    let plays_gz = DATA.write("plays.a", gzip(&plays));
    assert!(DATA.cells(&mut backfill(&config, &gz, &plays_gz)) == *REFERENCE, "gzip");
    assert!(DATA.cells(&mut backfill(&config, &zst, &DATA.plays)) == *REFERENCE, "Zstandard");

    for (form, input) in [("plain", impressions.clone()), ("gzip", gzip(&impressions))] {
        let out = DATA.file("from-stdin.csv");
        let mut piped = backfill(&config, Path::new("-"), &DATA.plays);
        run_with_input(piped.arg("--out").arg(&out), &input).expect_code(0);
        assert!(read(&out) == *REFERENCE, "standard input, {form}");
    }
}

#[test]
fn files_in_pieces_in_any_order_and_twice_give_the_same_bytes() {
    let impressions = String::from_utf8(read(&DATA.impressions)).expect("JSON is UTF-8");
    let mut lines: Vec<&str> = impressions.lines().collect();
    lines.reverse();
    let (late, early) = lines.split_at(lines.len() / 3);
    let late = DATA.write("late.ndjson", late.join("\n"));
    let early = DATA.write("early.ndjson", early.join("\r\n") + "\r\n\n");
    let mut command = DATA.backfill(&example("reference.toml"));
    // `--impressions` again adds to the files that are named already.
    command.arg("--impressions").args([&late, &early]);
    assert!(DATA.cells(&mut command) == *REFERENCE, "all of it twice");
    let mut command = backfill(&example("reference.toml"), &late, &DATA.plays);
    command.arg("--impressions").arg(&early);
    assert!(DATA.cells(&mut command) == *REFERENCE, "in reverse order");
}

#[test]
fn parquet_input_gives_the_same_bytes() {
    let Some(duckdb) = DuckDb::find() else { return };
    let (impressions, plays) = (DATA.file("impressions.parquet"), DATA.file("plays.parquet"));
    let fields = "request_id: 'VARCHAR', video_id: 'VARCHAR', ts: 'BIGINT', device: 'VARCHAR', \
                  country: 'VARCHAR', duration_s: 'INTEGER'";
    for (ts, compression) in [("ts", "zstd"), ("epoch_ms(ts)", "snappy")] {
        let copy = |from: &Path, to: &Path| {
            format!(
                "copy (select * replace ({ts} as ts) from read_ndjson({}, columns = {{{fields}}}))
                 to {} (format parquet, compression {compression})",
                literal(from),
                literal(to)
            )
        };
        duckdb.rows(&[&copy(&DATA.impressions, &impressions), &copy(&DATA.plays, &plays)]);
        let cells = DATA.cells(&mut backfill(&example("reference.toml"), &impressions, &plays));
        assert!(cells == *REFERENCE, "time as {ts}, {compression}");
    }
}

#[test]
fn a_bad_row_of_parquet_is_a_letter_with_its_number_and_all_its_columns() {
    let Some(duckdb) = DuckDb::find() else { return };
    let (all, some) = (DATA.file("bad-rows.parquet"), DATA.file("good-rows.parquet"));
    let rows = |columns: &str, kept: &str, to: &Path| {
        format!(
            "copy (select {columns} from read_ndjson({}, columns = {{request_id: 'VARCHAR',
               video_id: 'VARCHAR', ts: 'BIGINT', device: 'VARCHAR', position: 'INTEGER'}})
             where {kept} limit 50000) to {} (format parquet, row_group_size 10240)",
            literal(&DATA.impressions),
            literal(to)
        )
    };
    // In the second and the last row group, of which there are five.
    let is_bad = "(row_number() over () - 1 in (12345, 12346, 49999))";
    let broken = format!("* replace (case when {is_bad} then null else video_id end as video_id)");
    duckdb.rows(&[&rows(&broken, "true", &all)]);
    duckdb.rows(&[&format!(
        "copy (select * from read_parquet({}) where video_id is not null) to {} (format parquet)",
        literal(&all),
        literal(&some)
    )]);
    let dead = DATA.file("bad-rows.ndjson");
    let mut command = backfill(&example("reference.toml"), &all, &DATA.plays);
    let cells = DATA.cells(command.arg("--dead").arg(&dead));
    let good = DATA.cells(&mut backfill(&example("reference.toml"), &some, &DATA.plays));
    assert!(cells == good, "the good rows count as they do alone");
    let letters = String::from_utf8(read(&dead)).expect("JSON is UTF-8");
    let letter = |line: &str| serde_json::from_str(line).expect("NDJSON");
    let mut letters: Vec<serde_json::Value> = letters.lines().map(letter).collect();
    letters.sort_by_key(|letter| letter["position"].as_u64());
    let lines = read(&DATA.impressions);
    let lines: Vec<&str> = std::str::from_utf8(&lines).expect("JSON is UTF-8").lines().collect();
    assert_eq!(letters.len(), 3);
    for (letter, place) in letters.iter().zip([12_345, 12_346, 49_999]) {
        assert_eq!(letter["position"], place + 1);
        assert_eq!(letter["reason"], "video_id is null, not a text or a whole number");
        let record: serde_json::Value =
            serde_json::from_str(letter["record"].as_str().expect("a text")).expect("JSON");
        let line: serde_json::Value = serde_json::from_str(lines[place]).expect("JSON");
        for field in ["request_id", "ts", "device", "position"] {
            assert_eq!(record[field], line[field], "row {place}, {field}");
        }
    }
}

#[test]
fn parquet_output_holds_the_same_cells_and_says_that_they_are_complete() {
    let Some(duckdb) = DuckDb::find() else { return };
    let out = DATA.file("cells.parquet");
    run(DATA.backfill(&example("reference.toml")).arg("--out").arg(&out)).expect_code(0);
    let parquet = literal(&out);
    let names = duckdb.rows(&[&format!("select column_name from (describe from {parquet})")]);
    let names: Vec<_> = names.iter().map(|row| row[0].as_str().expect("a name")).collect();
    let expected = ["video_id", "epoch_start_ms", "slice", "impressions", "plays", "complete"];
    assert_eq!(names, expected);
    let all = format!("select video_id, epoch_start_ms, impressions, plays, slice from {parquet}");
    let cells = duckdb.cells(&[&(all + " where complete")]);
    // The order, too.
    assert!(cells == of_csv(&REFERENCE));
}

#[test]
fn the_summary_counts_the_lines_and_what_the_filters_refused() {
    let Some(duckdb) = DuckDb::find() else { return };
    let counts = duckdb.rows(&[
        &filtered(&DATA),
        "select (select count(*) from impressions) + (select count(*) from plays)",
    ]);
    let kept = counts[0][0].as_u64().expect("a count");
    let out = DATA.file("summary.csv");
    let mut command = DATA.backfill(&example("reference.toml"));
    let finished = run(command.arg("--out").arg(&out)).expect_code(0);
    let lines = |path: &Path| read(path).iter().filter(|byte| **byte == b'\n').count() as u64;
    let events = lines(&DATA.impressions) + lines(&DATA.plays);
    assert_eq!(finished.number("events"), events);
    assert_eq!(finished.number("filtered"), events - kept);
    assert_eq!(finished.number("dead"), 0);
    assert_eq!(finished.number("cells"), of_csv(&REFERENCE).len() as u64);
    assert_eq!(finished.stdout, b"", "results go where --out says");
}

#[test]
fn twenty_seeds_agree_in_both_settings() {
    if !skip::slow() {
        return;
    }
    let Some(duckdb) = DuckDb::find() else { return };
    for seed in 100..120 {
        let data = Data::generated(100_000, seed);
        check(&data, &duckdb, &example("reference.toml"), &sql("docs/semantics.sql"));
        check(&data, &duckdb, &example("slides.toml"), &sql("e2e/sql/slides.sql"));
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("it is there")
}

/// Two members, as `cat a.gz b.gz` makes them.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let mut out = Vec::new();
    for part in [head, tail] {
        let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
        encoder.write_all(part).expect("memory takes all");
        out = encoder.finish().expect("memory takes all");
    }
    out
}
