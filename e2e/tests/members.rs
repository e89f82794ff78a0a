//! Where members are kept: `[store] members` with each of its words, through a kill, as DuckDB reads the
//! lake and as the store itself is found afterwards.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells::{self, Cell};
use marquee_e2e::data::{Data, backfill, example};
use marquee_e2e::duckdb::{DuckDb, reference_tables};
use marquee_e2e::program::{Finished, marquee, run};
use marquee_e2e::service::{Feed, Service};
use marquee_e2e::{lake, members};
use marquee_sinks::embedded::EmbeddedStore;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(data: &Data, word: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let reference = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"15s\"");
    let own = data.file(&format!("{word}-data")).display().to_string();
    let text = format!(
        "{reference}\n[log]\npath = \"{own}/log\"\n[store]\npath = \"{own}/store\"\n\
         members = \"{word}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [lake]\nurl = \"file:{word}-lake\"\ninterval = \"200ms\"\n"
    );
    data.write(&format!("{word}.toml"), text)
}

fn members_of(store: &Path) -> u64 {
    let mut members = 0;
    EmbeddedStore::look(store).unwrap().each_member(|_, _, _, _| members += 1).unwrap();
    members
}

fn verify(config: &Path, flags: &[&str]) -> Finished {
    run(marquee(["verify", "-c"]).arg(config).args(flags))
}

/// Feeds a service that is killed on the way, waits until all is closed and in the lake, and gives it
/// some looks more.
fn serve(data: &Data, config: &Path) {
    let log = config.with_extension("log");
    let mut service = Service::start(config, &log);
    Feed::of(&data.impressions, "impressions", 20_000)
        .send_all(&|| service.address.clone(), &|_| {});
    service.kill();
    service = Service::start(config, &log);
    Feed::of(&data.plays, "plays", 20_000).send_all(&|| service.address.clone(), &|_| {});
    lake::wait_until_sealed(&service);
    let looks = lake::lake_of(&service)["looks"].as_u64().unwrap();
    lake::wait_for(&service, "looking", |lake| lake["looks"].as_u64() >= Some(looks + 5));
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn each_word_keeps_members_where_it_says() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(8_000, 91);
    let words = [
        ("store", true, false),
        ("both", true, true),
        ("off", false, false),
        ("lake", false, true),
    ];
    std::thread::scope(|scope| {
        for (word, in_store, in_lake) in words {
            let (data, duckdb) = (&data, &duckdb);
            scope.spawn(move || check(data, duckdb, word, in_store, in_lake));
        }
    });
}

fn check(data: &Data, duckdb: &DuckDb, word: &str, in_store: bool, in_lake: bool) {
    let config = config(data, word);
    serve(data, &config);
    let counted = cells::of_csv(&data.cells(&mut data.backfill(&config)));
    let stored = run(marquee(["trends", "--format", "csv", "-c"]).arg(&config)).expect_code(0);
    cells::assert_same(&cells::of_csv(&stored.stdout), &counted);
    let store = data.file(&format!("{word}-data/store"));
    match in_store {
        true => {
            let tables = reference_tables(&data.impressions, &data.plays);
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            let scratch = data.file(&format!("{word}-members.csv"));
            assert_eq!(members::differences(duckdb, &tables, &[&store], &scratch), 0, "{word}");
        }
        // All of it is closed, in the lake, and some years old.
        false => assert_eq!(members_of(&store), 0, "{word}"),
    }
    let view = lake::by_manifests(&data.file(&format!("{word}-lake")));
    let found = lake::cells(duckdb, &view).into_iter();
    let found: Vec<Cell> = found.map(|cell| Cell { epoch_ms: 0, ..cell }).collect();
    cells::assert_same(&found, &counted);
    match in_lake {
        true => assert_eq!(lake::differing_members(duckdb, data, &view), 0, "{word}"),
        false => {
            let lists = "select count(impression_requests) + count(play_requests) from cells";
            assert_eq!(duckdb.rows(&[&view, lists])[0][0], 0, "{word}");
        }
    }
    let found = verify(&config, &[]).expect_code(0);
    assert_eq!(found.stdout, b"", "{word}");
    assert!(found.number("cells") > 1_000, "{}", found.stderr);
}

/// What the store has let go cannot be added to: said, and nothing is made worse.
#[test]
fn a_late_event_of_members_that_have_gone_is_reported_and_not_repaired() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(3_000, 92);
    let config = config(&data, "lake");
    serve(&data, &config);
    let text = std::fs::read_to_string(&data.impressions).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let mut late = first.clone();
    late["request_id"] = "5f0e4c1a-0000-4000-8000-00000000beef".into();
    late["device"] = "tv".into();
    let more = data.write("more.ndjson", format!("{text}{late}\n"));
    let files = ["--impressions", more.to_str().unwrap(), "--plays", data.plays.to_str().unwrap()];
    for flags in [&files[..], &[&files[..], &["--repair"]].concat()] {
        let found = verify(&config, flags).expect_code(1);
        let lines = String::from_utf8(found.stdout.clone()).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let [in_store, in_lake] = &lines[..] else { panic!("{lines:?}\n{}", found.stderr) };
        for (line, place) in [(in_store, "store"), (in_lake, "lake")] {
            assert_eq!((&line["place"], &line["video"]), (&place.into(), &first["video_id"]));
            assert_ne!(line["repaired"], true, "{line}");
        }
        assert_eq!(in_store["missing"], Value::Null, "it keeps none: {in_store}");
        assert_eq!(in_lake["missing"]["impressions"]["total"], 1, "{in_lake}");
    }
    let view = lake::by_manifests(&data.file("lake-lake"));
    assert_eq!(lake::differing_members(&duckdb, &data, &view), 0, "what was there is there");
    let refused = run(&mut backfill(&config, &more, &data.plays)).expect_code(1);
    refused.expect_words("without keeping all members");
}

/// As long as epochs are open their members are in the store: a restart needs them, and so does the
/// lake.
#[test]
fn members_of_open_epochs_stay_in_the_store() {
    let data = Data::generated(2_000, 93);
    let config = config(&data, "lake");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("idle_grace = \"15s\"", "idle_grace = \"1h\"")).unwrap();
    let service = Service::start(&config, &data.file("open.log"));
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        Feed::of(file, kind, 20_000).send_all(&|| service.address.clone(), &|_| {});
    }
    service.wait_until_counted(data.events());
    let start = Instant::now();
    let is_open = |cell: &Value| cell["sealed"] == false;
    while !service.trends().iter().any(is_open) {
        assert!(start.elapsed() < PATIENCE, "nothing is open");
        std::thread::sleep(Duration::from_millis(50));
    }
    let looks = lake::lake_of(&service)["looks"].as_u64().unwrap();
    lake::wait_for(&service, "looking", |lake| lake["looks"].as_u64() >= Some(looks + 5));
    let open = service.trends().into_iter().filter(is_open).count() as u64;
    assert_eq!(service.terminate(), Some(0));
    assert!(members_of(&data.file("lake-data/store")) >= open, "{open} cells are open");
}

/// What the lake alone still has is not taken away by a repair that could not make it again.
#[test]
fn a_repair_keeps_what_it_cannot_make_again() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(3_000, 94);
    let config = config(&data, "lake");
    serve(&data, &config);
    let folder = data.file("lake-lake");
    let view = lake::by_manifests(&folder);
    let named = "create or replace view named as select * from
        read_parquet(getvariable('files'), hive_partitioning = true, filename = true)";
    let largest = "select filename, video_id from named where impressions > 2 order by all limit 1";
    let row = &duckdb.rows(&[&view, named, largest])[0];
    let (file, video) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
    let plain = format!("read_parquet('{file}', hive_partitioning = false)");
    let copy = format!(
        "copy (select * replace (case when video_id = '{video}' then impression_requests[2:]
                                 else impression_requests end as impression_requests)
               from {plain}) to '{file}.new' (format parquet)"
    );
    duckdb.rows(&[&copy]);
    std::fs::rename(format!("{file}.new"), file).unwrap();
    let planted = std::fs::read(file).unwrap();
    for flags in [&[][..], &["--repair"]] {
        let found = verify(&config, flags).expect_code(1);
        let lines = String::from_utf8(found.stdout).unwrap();
        let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!((&line["place"], &line["video"]), (&"lake".into(), &video.into()), "{line}");
        assert_ne!(line["repaired"], true, "{line}");
        assert_eq!(std::fs::read(file).unwrap(), planted, "the file stays");
    }
    assert_eq!(lake::differing_members(&duckdb, &data, &view), 1, "of all others none is lost");
    // A file that is gone cannot be made again, either.
    std::fs::rename(file, format!("{file}.gone")).unwrap();
    verify(&config, &["--repair"]).expect_code(1).expect_words("cannot be made again");
    std::fs::rename(format!("{file}.gone"), file).unwrap();
    assert_eq!(lake::differing_members(&duckdb, &data, &view), 1);
}
