//! Raw events in the lake, with the real binary: a second log, each record once, whatever was killed;
//! DuckDB reads it, a backfill counts it as it counts the files, and `verify` goes on where a real
//! Kafka has forgotten.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::kafka::{Client, FAST_GROUP, Setup, broker, succeed};
use marquee_e2e::lake::s3_lake;
use marquee_e2e::program::{Finished, marquee, run};
use marquee_e2e::service::{Feed, Service};
use marquee_e2e::skip;
use marquee_model::CellCounts;
use marquee_services::{S3, S3Options, missing_for_s3};
use marquee_sinks::embedded::{EmbeddedStore, StoreMemory};
use marquee_sinks::{CellQuery, ClosedCell, Identity, Store};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The reference job with everything of its own; `name` names all but the lake.
fn config(data: &Data, name: &str, lake: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let reference = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"15s\"");
    let own = data.file(&format!("{name}-data")).display().to_string();
    let text = format!(
        "{reference}\n[log]\npath = \"{own}/log\"\n[store]\npath = \"{own}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[lake]\ninterval = \"100ms\"\n{lake}\n"
    );
    data.write(&format!("{name}.toml"), text)
}

/// SQL that makes `events` of all files (docs/lake.md shows the same).
fn events(lake: &Path) -> String {
    let files = literal(&lake.join("events/**/*.parquet"));
    format!(
        "create or replace view events as select * from read_parquet({files}, hive_partitioning = true)"
    )
}

/// Waits until the lake has so many records, each once.
#[track_caller]
fn wait_until_kept(duckdb: &DuckDb, service: &Service, lake: &Path, count: u64) {
    let start = Instant::now();
    loop {
        let is_there = lake.join("events").is_dir() && kept(service)["files"].as_u64() > Some(0);
        let view = events(lake);
        let rows = is_there.then(|| {
            duckdb.rows(&[
                &view,
                "select count(*), count(distinct (topic, lane, \"offset\")), count(value) from events",
            ])
        });
        if let Some(rows) = &rows {
            assert_eq!(rows[0][0], rows[0][1], "a record is there twice");
            assert_eq!(rows[0][0], rows[0][2], "a record is no JSON");
            assert!(rows[0][0].as_u64().unwrap() <= count, "there are more than were sent");
            if rows[0][0] == count {
                return;
            }
        }
        let said = service.last_said();
        assert!(start.elapsed() < PATIENCE, "{rows:?} of {count}: {}\n{said}", kept(service));
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn kept(service: &Service) -> Value {
    service.get("/v1/status")["archive"].clone()
}

/// Panics unless the events by video are those of the files.
#[track_caller]
fn assert_same_videos(duckdb: &DuckDb, data: &Data, lake: &Path, topics: [&str; 2]) {
    let of = |file: &Path, topic: &str| {
        format!(
            "select '{topic}' as topic, request_id, video_id, ts::varchar as ts from read_ndjson({},
               columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR', ts: 'BIGINT'}})",
            literal(file)
        )
    };
    let view = events(lake);
    let expected = format!(
        "create table expected as {} union all {}",
        of(&data.impressions, topics[0]),
        of(&data.plays, topics[1])
    );
    let found = "create table found as select topic, value->>'request_id' as request_id,
        value->>'video_id' as video_id, value->>'ts' as ts from events";
    let compare = "select (select count(*) from (from found except all from expected))
                        + (select count(*) from (from expected except all from found)),
                          (select count(*) from expected)";
    let rows = duckdb.rows(&[&view, &expected, found, compare]);
    assert_eq!(rows[0][0], 0, "events differ from those of the files");
    assert_eq!(rows[0][1].as_u64().unwrap(), data.events());
}

fn backfill_of_lake(config: &Path, flags: &[&str]) -> Finished {
    run(marquee(["backfill", "--lake", "-c"]).arg(config).args(flags))
}

fn verify(config: &Path, flags: &[&str]) -> Finished {
    run(marquee(["verify", "-c"]).arg(config).args(flags))
}

#[test]
fn killed_while_it_copies_it_leaves_each_event_once_and_a_backfill_counts_them_as_files() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(30_000, 81);
    let keeps = "url = \"file:lake\"\nevents = true\nevents_interval = \"1s\"";
    let config_of = |name: &str| config(&data, name, keeps);
    let (ours, lake, log) = (config_of("ours"), data.file("lake"), data.file("ours.log"));
    let mut service = Some(Service::start(&ours, &log));
    let address = Mutex::new(service.as_ref().unwrap().address.clone());
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
                Feed::of(file, kind, 5_000).send_all(&|| address.lock().unwrap().clone(), &|_| {
                    std::thread::sleep(Duration::from_millis(100));
                });
            }
        });
        // Killed in the middle of it, twice; what was not acknowledged is sent again.
        for files in [2, 9] {
            let start = Instant::now();
            while kept(service.as_ref().unwrap())["files"].as_u64() < Some(files) {
                assert!(start.elapsed() < PATIENCE, "it copies nothing");
                std::thread::sleep(Duration::from_millis(20));
            }
            service.take().unwrap().kill();
            service = Some(Service::start(&ours, &log));
            *address.lock().unwrap() = service.as_ref().unwrap().address.clone();
        }
        feeding.join().unwrap();
    });
    let service = service.unwrap();
    let counted = service.wait_until_counted(data.events());
    // A body that was on its way when it was killed may have been sent twice.
    let sent = counted["totals"]["events"].as_u64().unwrap();
    wait_until_kept(&duckdb, &service, &lake, sent);
    assert_eq!(service.terminate(), Some(0));

    let of_files = data.cells(&mut data.backfill(&ours));
    let out = data.file("lake.csv");
    let counted = backfill_of_lake(&ours, &["--out", out.to_str().unwrap()]).expect_code(0);
    assert_eq!(counted.number("events"), sent);
    assert_eq!(std::fs::read(&out).unwrap(), of_files);
    // Into a store that is new.
    let other = config_of("other");
    backfill_of_lake(&other, &[]).expect_code(0);
    let stored = run(marquee(["trends", "--format", "csv", "-c"]).arg(&other)).expect_code(0);
    assert_eq!(stored.stdout, of_files);

    // The log is gone: what the lake has is enough, since it has all that was committed.
    verify(&ours, &["--lake"]).expect_code(0);
    std::fs::remove_dir_all(data.file("ours-data/log")).unwrap();
    verify(&ours, &[]).expect_code(1).expect_words("there is no log at");
    let alone = verify(&ours, &["--lake"]).expect_code(0);
    assert_eq!(alone.stdout, b"");
    assert!(!alone.stderr.contains("extra members are judged"), "{}", alone.stderr);
    assert!(alone.number("cells") > 0 || alone.stderr.contains(" cells, "), "{}", alone.stderr);
}

#[test]
fn an_object_store_that_dies_gets_everything_later_and_is_read_like_a_folder() {
    let Some(duckdb) = DuckDb::find() else { return };
    if let Some(tool) = missing_for_s3() {
        return skip::missing_tool(&tool);
    }
    let data = Data::generated(5_000, 85);
    let mut s3 = S3::start(S3Options::default()).unwrap();
    let (place, lake) = s3_lake(&s3);
    let keeps = format!("{place}\nevents = true\nevents_interval = \"1s\"");
    let config = config(&data, "s3", &keeps);
    s3.kill();
    let service = Service::start(&config, &data.file("s3.log"));
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        Feed::of(file, kind, 5_000).send_all(&|| service.address.clone(), &|_| {});
    }
    service.wait_until_counted(data.events());
    let start = Instant::now();
    while kept(&service)["failures"].as_u64() == Some(0) {
        assert!(start.elapsed() < PATIENCE, "nothing fails: {}", kept(&service));
        std::thread::sleep(Duration::from_millis(50));
    }
    s3.start_again().unwrap();
    wait_until_kept(&duckdb, &service, &lake, data.events());
    assert_same_videos(&duckdb, &data, &lake, ["impressions", "plays"]);
    let mut answer = ureq::get(&format!("{}/metrics", service.address)).call().unwrap();
    let metrics = answer.body_mut().read_to_string().unwrap();
    let line = format!("marquee_archive_records_total {}\n", data.events());
    assert!(metrics.contains(&line), "{metrics}");
    assert_eq!(service.terminate(), Some(0));
    let out = data.file("s3.csv");
    backfill_of_lake(&config, &["--out", out.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::read(&out).unwrap(), data.cells(&mut data.backfill(&config)));
}

#[test]
fn what_it_cannot_read_is_said_before_anything_is_counted() {
    let data = Data::generated(100, 82);
    let none = config(&data, "none", "url = \"file:lake\"");
    for command in ["backfill", "verify"] {
        let finished = run(marquee([command, "--lake", "-c"]).arg(&none));
        finished.expect_code(2).expect_words("it needs [lake] url, and events = true");
    }
    let empty = config(&data, "empty", "url = \"file:lake\"\nevents = true");
    backfill_of_lake(&empty, &[]).expect_code(1).expect_words("no raw events of topic impressions");
    let both = ["--impressions", "a", "--plays", "b"];
    backfill_of_lake(&empty, &both).expect_code(2).expect_words("cannot be used with");
}

fn lines(finished: &Finished) -> Vec<Value> {
    let text = std::str::from_utf8(&finished.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts a request into a cell of the first epoch of a lane that never had it.
fn plant(path: &Path, lane: u32) -> i64 {
    let look = EmbeddedStore::look(path).unwrap();
    let generation = Store::generation(&look).clone();
    let mut first = None;
    let each = |cell: marquee_model::CellKey, of: u32, counts: CellCounts| {
        let is_earlier =
            |(one, _): &(marquee_model::CellKey, _)| one.epoch_start_ms > cell.epoch_start_ms;
        if of == lane && first.as_ref().is_none_or(is_earlier) {
            first = Some((cell, counts));
        }
    };
    look.scan(&CellQuery::default(), each).unwrap();
    let (key, counts) = first.unwrap();
    drop(look);
    let identity = Identity {
        settings: serde_json::to_value(&generation).unwrap()["settings"].clone(),
        lanes: Some(generation.lanes),
        epochs_ms: generation.epochs_ms().to_vec(),
        new_id: "unused".to_owned(),
        new_secret: [0; 16],
    };
    let store = EmbeddedStore::open(path, &identity, true, StoreMemory::default()).unwrap();
    let counts = CellCounts { impressions: counts.impressions + 1, ..counts };
    // A chunk of one UUID: crates/pipeline/src/chunk.rs.
    let mut chunk = vec![1, 1];
    chunk.extend_from_slice(&0x0000_0000_0000_4000_8000_0000_0000_0001_u128.to_be_bytes());
    let cell = ClosedCell { key: &key, counts, chunks: [chunk, Vec::new()] };
    store.write_closed(lane, 99, &[cell], None).unwrap();
    key.epoch_start_ms
}

#[test]
fn records_of_every_kind_are_kept_as_they_are() {
    let (Some(brokers), Some(duckdb), Some(client)) = (broker(), DuckDb::find(), Client::find())
    else {
        return;
    };
    let data = Data::generated(10, 84);
    let setup = Setup::new(brokers, &data, "kinds");
    let lake = setup.file("lake");
    let keeping =
        format!("[lake]\nurl = \"file:{}\"\ninterval = \"100ms\"\nevents = true\n", lake.display());
    let config = setup.config("store", FAST_GROUP, &keeping);
    let topics = [(setup.impressions.as_str(), 1, json!({})), (setup.plays.as_str(), 1, json!({}))];
    setup.create(&client, &topics);
    let event = r#"{"request_id": "r1", "video_id": "v", "ts": 1479733200000, "other": "\u00e9"}"#;
    let record = |mut record: Value| {
        record["topic"] = json!(setup.impressions);
        record["partition"] = json!(0);
        record["timestamp"] = json!(1_479_733_200_123_i64);
        record
    };
    let headers = json!([["source", "phone"], ["source", "again"]]);
    let records = [
        record(json!({ "key": "r1", "value": event, "headers": headers })),
        record(json!({ "key": "r2", "value": "no json" })),
        record(json!({ "value_base16": "7b22ff" })),
        record(json!({ "key": "r3" })),
        record(json!({ "key": "r4", "value": "{\"nothing\": \"known\"}" })),
    ];
    setup.produce(&client, json!({}), &records);
    let play = json!({ "topic": setup.plays, "partition": 0, "key": "r1", "timestamp": 1_479_733_260_000_i64,
        "value": r#"{"request_id": "r1", "video_id": "v", "ts": 1479733260000, "duration_s": 90}"# });
    setup.produce(&client, json!({}), &[play]);
    let service = Service::start(&config, &setup.file("log"));
    let counted = service.wait_until_counted(6);
    let start = Instant::now();
    while kept(&service)["records"] != 6 {
        assert!(start.elapsed() < PATIENCE, "{}\n{}", kept(&service), service.last_said());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(service.terminate(), Some(0));
    let rows = duckdb.rows(&[
        &events(&lake),
        "select \"offset\", key, value, hex(value_bytes), len(headers), headers[1].name,
                headers[2].value, record_time_ms, epoch_ms(record_time), day::varchar, hour
         from events where topic like 'impressions%' order by 1",
    ]);
    let at = |row: usize, columns: &[usize]| -> Vec<Value> {
        columns.iter().map(|column| rows[row][*column].clone()).collect()
    };
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert_eq!(at(0, &[0, 1, 2, 3]), [json!(0), json!("r1"), json!(event), Value::Null]);
    assert_eq!(at(0, &[4, 5, 6]), [json!(2), json!("source"), json!("again")]);
    let time = json!(1_479_733_200_123_i64);
    assert_eq!(at(0, &[7, 8, 9, 10]), [time.clone(), time, json!("2016-11-21"), json!(13)]);
    assert_eq!(at(1, &[1, 2, 3]), [json!("r2"), Value::Null, json!("6E6F206A736F6E")]);
    assert_eq!(at(2, &[1, 2, 3, 4]), [Value::Null, Value::Null, json!("7B22FF"), Value::Null]);
    assert_eq!(at(3, &[1, 2, 3]), [json!("r3"), Value::Null, Value::Null]);
    assert_eq!(at(4, &[2, 3]), [json!("{\"nothing\": \"known\"}"), Value::Null]);
    // Counted again they are what they were.
    let out = data.file("kinds.csv");
    let again = backfill_of_lake(&config, &["--out", out.to_str().unwrap()]).expect_code(0);
    let totals = &counted["totals"];
    assert_eq!((json!(6), json!(4)), (totals["events"].clone(), totals["dead"].clone()));
    assert_eq!((again.number("events"), again.number("dead"), again.number("cells")), (6, 4, 1));
}

#[test]
fn verify_judges_with_the_lake_what_kafka_has_deleted() {
    let (Some(brokers), Some(duckdb), Some(client)) = (broker(), DuckDb::find(), Client::find())
    else {
        return;
    };
    let flags = ["--requests=20000", "--seed=83", "--late=0.02", "--span=6h"];
    let data = Data::generated_by(&flags);
    let setup = Setup::new(brokers, &data, "events");
    // Time moves between batches, and only what comes after it is late.
    let batches = "[runtime]\nbatch_events = 2000\nbatch_interval = \"20ms\"\n";
    let lake = setup.file("lake");
    let keeping = format!(
        "{batches}[lake]\nurl = \"file:{}\"\ninterval = \"100ms\"\nevents = true\n",
        lake.display()
    );
    let config = setup.config("store", FAST_GROUP, &keeping);
    succeed(setup.generate(&config, 20_000, 83).args(&flags[2..]));
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(data.events());
    wait_until_kept(&duckdb, &service, &lake, data.events());
    assert_eq!(service.terminate(), Some(0));
    assert_same_videos(&duckdb, &data, &lake, [&setup.impressions, &setup.plays]);
    let view = events(&lake);
    let rows = duckdb.rows(&[
        &view,
        "select count(*) filter (key is distinct from value->>'request_id'),
                count(distinct (topic, lane, day, hour)) from events",
    ]);
    assert_eq!(rows[0][0], 0, "a key is not the one that it was sent with");
    assert!(rows[0][1].as_u64().unwrap() > 40, "{rows:?}");

    // Late events are missing from closed epochs; the log still knows it.
    let before = lines(&verify(&config, &[]).expect_code(1));
    assert!(before.len() > 500, "{} cells prove little", before.len());

    // It forgets most of it.
    let most = "select topic, lane, (count(*) * 0.8)::bigint from events group by all";
    let before_these = duckdb.rows(&[&view, most]);
    assert_eq!(before_these.len(), 8);
    setup.client(&client, json!({ "do": "trim", "before": before_these }));
    let without = setup.config("plain", FAST_GROUP, batches);
    let text = std::fs::read_to_string(&without).unwrap();
    let text = text
        .replace(&format!("{:?}", setup.store("plain")), &format!("{:?}", setup.store("store")));
    std::fs::write(&without, text).unwrap();
    let forgotten = verify(&without, &[]).expect_code(1);
    let forgotten = lines(&forgotten.expect_words("the log has deleted records"));
    assert!(forgotten.len() * 4 < before.len() * 3, "{} of {}", forgotten.len(), before.len());
    let found = verify(&config, &[]).expect_code(1);
    assert!(!found.stderr.contains("deleted records"), "{}", found.stderr);
    assert_eq!(lines(&found), before, "the lake remembers");
    let alone = lines(&verify(&config, &["--lake"]).expect_code(1));
    assert_eq!(alone, before, "the lake alone");

    // What is repaired is right, and one wrong member in the first epoch is found.
    verify(&config, &["--repair"]).expect_code(0);
    assert_eq!(verify(&config, &[]).expect_code(0).stdout, b"");
    let epoch = plant(&setup.store("store"), 1);
    assert_eq!(verify(&without, &[]).expect_code(0).stdout, b"", "the log cannot know");
    let found = lines(&verify(&config, &[]).expect_code(1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["lane"], &found[0]["epoch_start_ms"]), (&json!(1), &json!(epoch)));
    assert_eq!(found[0]["extra"]["impressions"]["total"], 1, "{found:?}");

    // A backfill needs no broker.
    let gone = std::fs::read_to_string(&config).unwrap().replace(brokers, "127.0.0.1:1");
    let gone =
        data.write("gone.toml", gone.replace(&setup.store("store").display().to_string(), "fresh"));
    let out = data.file("lake.csv");
    backfill_of_lake(&gone, &["--out", out.to_str().unwrap()]).expect_code(0);
    assert_eq!(std::fs::read(&out).unwrap(), data.cells(&mut data.backfill(&config)));
}
