//! Closed epochs in the lake, as DuckDB and Polars read them: those of a backfill and of the oracle,
//! whatever was killed, stopped or out of reach while they were written.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells::{self, Cell};
use marquee_e2e::data::{Data, backfill, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::lake::{self, Polars, lake_of, s3_lake, wait_for, wait_until_sealed};
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::{Feed, Service, post};
use marquee_e2e::skip;
use marquee_services::{S3, S3Options, missing_for_s3};
use marquee_sinks::embedded::EmbeddedStore;
use marquee_sinks::lake::{Bucket, LakePlace, LakeStatus, S3Place, Sealing, SealingSettings, Stop};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SLICES: &str =
    "[transform]\nslices = [[], ['country']]\n[aggregate]\nepochs = ['30m', '10m']\n";

/// The reference job with a lake, and everything else of its own. A topic without events is waited
/// for so long that the feeds of these tests never come late.
fn config(data: &Data, name: &str, lake: &str, more: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let reference = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"15s\"");
    let own = data.file(&format!("{name}-data")).display().to_string();
    let text = format!(
        "{reference}\n[log]\npath = \"{own}/log\"\n[store]\npath = \"{own}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[lake]\ninterval = \"200ms\"\n{lake}\n{more}"
    );
    data.write(&format!("{name}.toml"), text)
}

fn expected(data: &Data, config: &Path) -> Vec<Cell> {
    cells::of_csv(&data.cells(&mut data.backfill(config)))
}

#[test]
fn killed_while_it_seals_it_leaves_a_lake_that_duckdb_and_polars_read_exactly() {
    let (Some(duckdb), Some(polars)) = (DuckDb::find(), Polars::find()) else { return };
    let data = Data::generated(30_000, 61);
    let config = config(&data, "folder", "url = \"file:the lake\"", SLICES);
    let folder = data.file("the lake");
    let log = data.file("folder.log");
    let feeds = [(&data.impressions, "impressions"), (&data.plays, "plays")];
    let mut service = Service::start(&config, &log);
    for (file, kind) in feeds {
        Feed::of(file, kind, 20_000).send_all(&|| service.address.clone(), &|_| {});
    }
    // Once the topics are silent everything closes: killed in the middle of that, twice.
    for files in [1, 4] {
        wait_for(&service, "writing", |lake| lake["files"].as_u64() >= Some(files));
        assert!(!lake_of(&service)["waiting"].is_null());
        service.kill();
        service = Service::start(&config, &log);
    }
    wait_until_sealed(&service);
    let status = service.wait_until_counted(data.events());
    assert_eq!(status["totals"]["late"], 0, "{status}");
    let expected = expected(&data, &config);
    let manifests = lake::by_manifests(&folder);
    cells::assert_same(&lake::cells(&duckdb, &manifests), &expected);
    // A kill between a file and its manifest leaves one that nobody lists, for hours (docs/lake.md).
    lake::remove_unlisted(&duckdb, &folder);
    cells::assert_same(&lake::cells(&duckdb, &lake::by_names(&folder)), &expected);
    let files = format!("{}/cells/**/*.parquet", folder.display());
    cells::assert_same(&polars.cells(&files, &[]), &expected);
    assert_eq!(lake::differing_members(&duckdb, &data, &manifests), 0);

    // Folders are columns, each lane has sealed each stretch, and no row is in doubt.
    let rows = duckdb.rows(&[
        &manifests,
        "select count(distinct lane), count(distinct generation), min(day)::varchar,
                bool_and(complete), count(distinct epoch_start) from cells where epoch_ms = 1800000",
    ]);
    assert_eq!(rows[0][0], 4);
    assert_eq!(rows[0][1], 1);
    assert_eq!(rows[0][2], "2016-11-21");
    assert_eq!(rows[0][3], true);
    assert!(rows[0][4].as_u64().unwrap() > 3, "{rows:?}");

    // A restart has nothing to write.
    assert_eq!(service.terminate(), Some(0));
    let service = Service::start(&config, &log);
    wait_until_sealed(&service);
    assert_eq!(lake_of(&service)["files"], 0, "{}", lake_of(&service));
}

/// While nothing is closed, or something, the newest manifests and one view are what the service says.
#[test]
fn open_epochs_are_read_by_duckdb_while_the_service_runs_and_counted_once_when_they_close() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(10_000, 68);
    let lake = "url = \"file:open-lake\"\ndeltas = \"1s\"";
    let config = config(&data, "open", lake, SLICES);
    // Long enough for a loaded machine to look at what is open.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("idle_grace = \"15s\"", "idle_grace = \"45s\"")).unwrap();
    let (folder, log) = (data.file("open-lake"), data.file("open.log"));
    let view = lake::until_now(&folder);
    let read = |duckdb: &DuckDb| lake::cells(duckdb, &view);
    let service = Service::start(&config, &log);
    let impressions = Feed::of(&data.impressions, "impressions", 2_000);
    let plays = Feed::of(&data.plays, "plays", 2_000);
    // Half of it, so that there is more than one delta, and a killed process in between.
    impressions.send_all(&|| service.address.clone(), &|_| {});
    wait_for(&service, "writing deltas", |lake| lake["delta_files"].as_u64() >= Some(4));
    service.kill();
    let service = Service::start(&config, &log);
    plays.send_all(&|| service.address.clone(), &|_| {});
    service.wait_until_counted(data.events());
    wait_for(&service, "listing deltas", |lake| {
        lake["delta_files"].as_u64() >= Some(1) && lake["looks"].as_u64() >= Some(2)
    });
    let start = Instant::now();
    let seen = loop {
        let mut found = read(&duckdb);
        let csv = run(marquee(["trends", "--format", "csv", "--all-slices", "-c"]).arg(&config))
            .expect_code(0);
        let mut said = cells::of_csv(&csv.stdout);
        let open = service.trends().iter().filter(|cell| cell["sealed"] == false).count();
        found.sort();
        said.sort();
        if found == said {
            assert!(open > 0, "nothing is open any more: the feed was too slow for this test");
            break found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{}", service.last_said());
        std::thread::sleep(Duration::from_millis(200));
    };
    let expected = expected(&data, &config);
    cells::assert_same(&seen, &expected);
    assert_eq!(lake::differing_members(&duckdb, &data, &view), 0);
    let open = "select count(*) from glob('{}/open/**/*.parquet')";
    let files = open.replace("{}", &folder.display().to_string());
    assert!(duckdb.rows(&[&files])[0][0].as_u64() > Some(4), "there are several deltas of each");

    // Closed: one view after the other, and never anything twice.
    wait_until_sealed(&service);
    cells::assert_same(&read(&duckdb), &expected);
    cells::assert_same(&lake::cells(&duckdb, &lake::by_manifests(&folder)), &expected);
    assert_eq!(lake::differing_members(&duckdb, &data, &view), 0);
    let listed = "select sum(len(open)) from read_json(getvariable('manifests'))";
    assert_eq!(duckdb.rows(&[&view, listed])[0][0], 0);
}

#[test]
fn a_second_backfill_rewrites_what_it_adds_to_and_nothing_else() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(5_000, 62);
    let config = config(&data, "twice", "url = \"file:twice-lake\"", SLICES);
    let folder = data.file("twice-lake");
    let text = std::fs::read_to_string(&data.impressions).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (some, rest) = lines.split_at(lines.len() / 3);
    let some = data.write("some.ndjson", some.join("\n"));
    let rest = data.write("rest.ndjson", rest.join("\n"));
    run(&mut backfill(&config, &some, &data.plays)).expect_code(0);
    let first = cells::of_csv(&data.cells(&mut backfill(&config, &some, &data.plays)));
    cells::assert_same(&lake::cells(&duckdb, &lake::by_manifests(&folder)), &first);

    run(&mut backfill(&config, &rest, &data.plays)).expect_code(0);
    let all = expected(&data, &config);
    let manifests = lake::by_manifests(&folder);
    cells::assert_same(&lake::cells(&duckdb, &manifests), &all);
    assert_eq!(lake::differing_members(&duckdb, &data, &manifests), 0);
    let again = run(&mut data.backfill(&config)).expect_code(0);
    again.expect_words("0 files, 0 bytes into the lake");
}

#[test]
fn without_members_the_lists_are_null_and_the_counts_are_the_same() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(2_000, 63);
    let config = config(&data, "counts", "url = \"file:counts-lake\"", "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[store]\n", "[store]\nmembers = false\n")).unwrap();
    run(&mut data.backfill(&config)).expect_code(0);
    let manifests = lake::by_manifests(&data.file("counts-lake"));
    let expected = expected(&data, &config);
    let found = lake::cells(&duckdb, &manifests);
    // With one length of epochs the CSV does not name it.
    let found: Vec<Cell> = found.into_iter().map(|cell| Cell { epoch_ms: 0, ..cell }).collect();
    cells::assert_same(&found, &expected);
    let lists = duckdb.rows(&[&manifests, "select count(impression_requests) from cells"]);
    assert_eq!(lists[0][0], 0);
}

#[test]
fn late_letters_are_copied_once_and_duckdb_reads_them() {
    let Some(duckdb) = DuckDb::find() else { return };
    let shown = r#"{"request_id":"r","video_id":"v","ts":1479686400000,"device":"tv"}"#;
    let data = Data::of(shown, "");
    let lake = "url = \"file:letters-lake\"\nfile_span = \"1s\"";
    let config = config(&data, "letters", lake, "");
    run(&mut data.backfill(&config)).expect_code(0);
    // The backfill has closed the epoch: what comes now is late.
    for play in [1, 2] {
        let service = Service::start(&config, &data.file("letters.log"));
        let played = r#"{"request_id":"r","video_id":"v","ts":1479686460000,"duration_s":90}"#;
        assert_eq!(post(&service.address, "plays", played.as_bytes()).unwrap().0, 202);
        service.wait_until_counted(play);
        wait_for(&service, "copied", |lake| lake["letter_files"] == 1);
        assert_eq!(service.terminate(), Some(0));
    }
    let letters = literal(&data.file("letters-lake/late/*/*/*/*.ndjson"));
    let query = format!(
        "select count(*), count(distinct position), count(distinct lane)
         from read_ndjson({letters}, hive_partitioning = true)"
    );
    assert_eq!(duckdb.rows(&[&query])[0], [2, 2, 1]);
}

#[test]
fn a_lake_that_cannot_be_is_refused_and_one_that_is_away_is_said_aloud() {
    let data = Data::generated(200, 64);
    let occupied = data.write("occupied", "not a folder");
    let config = config(&data, "refused", "url = \"file:occupied\"", "");
    run(marquee(["run", "-c"]).arg(&config))
        .expect_code(1)
        .expect_words(&format!("the lake failed to open {}", occupied.display()));
    let config = self::config(
        &data,
        "away",
        "url = \"s3://cells\"\nendpoint = \"http://127.0.0.1:9\"\nallow_http = true\n\
         access_key_id = \"a\"\nsecret_access_key = \"hunter2\"",
        "",
    );
    let said = run(&mut data.backfill(&config)).expect_code(1);
    let said = said.expect_words("the store has everything; `marquee run`, or this again");
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    let csv = run(marquee(["trends", "--format", "csv", "-c"]).arg(&config)).expect_code(0);
    cells::assert_same(&cells::of_csv(&csv.stdout), &expected(&data, &config));
}

#[test]
fn an_object_store_that_dies_while_epochs_are_sealed_costs_nothing_but_time() {
    let (Some(duckdb), Some(polars)) = (DuckDb::find(), Polars::find()) else { return };
    if let Some(tool) = missing_for_s3() {
        return skip::missing_tool(&tool);
    }
    let data = Data::generated(30_000, 65);
    let mut s3 = S3::start(S3Options::default()).unwrap();
    let (lake, folder) = s3_lake(&s3);
    let config = config(&data, "s3", &lake, SLICES);
    let service = Service::start(&config, &data.file("s3.log"));
    let impressions = Feed::of(&data.impressions, "impressions", 2_000);
    let plays = Feed::of(&data.plays, "plays", 2_000);
    let all = impressions.len();
    std::thread::scope(|scope| {
        scope.spawn(|| impressions.send_all(&|| service.address.clone(), &|_| {}));
        scope.spawn(|| {
            plays.send_all(&|| service.address.clone(), &|number| {
                let due = |sent: u64| sent as usize * plays.len() >= number * all;
                while !due(impressions.accepted.load(Ordering::SeqCst)) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        });
    });
    // Killed in the middle of its work, and away for a while.
    wait_for(&service, "writing", |lake| lake["files"].as_u64() >= Some(2));
    s3.kill();
    let lake = wait_for(&service, "in trouble", |lake| {
        !lake["trouble"].is_null() && lake["waiting"].as_u64() > Some(0)
    });
    assert!(lake["words"].as_str().unwrap().contains("closed stretches wait for the lake"));
    assert!(service.said().contains("counting goes on"), "{}", service.last_said());
    // Nobody who counts, or asks, notices.
    assert_eq!(service.readiness(), 200);
    service.wait_until_counted(data.events());
    let mut answer = ureq::get(&format!("{}/metrics", service.address)).call().unwrap();
    let metrics = answer.body_mut().read_to_string().unwrap();
    assert!(metrics.contains("marquee_lake_up 0"), "{metrics}");
    s3.start_again().unwrap();
    wait_until_sealed(&service);
    let lake = lake_of(&service);
    assert!(lake["failures"].as_u64() >= Some(1), "{lake}");
    assert!(service.said().contains("the lake is written again"), "{}", service.last_said());

    let expected = expected(&data, &config);
    let manifests = lake::by_manifests(&folder);
    cells::assert_same(&lake::cells(&duckdb, &manifests), &expected);
    assert_eq!(lake::differing_members(&duckdb, &data, &manifests), 0);
    let options = [
        ("aws_endpoint_url", s3.url()),
        ("aws_region", S3::REGION.to_owned()),
        ("aws_access_key_id", S3::ACCESS_KEY.to_owned()),
        ("aws_secret_access_key", S3::SECRET_KEY.to_owned()),
        ("aws_allow_http", "true".to_owned()),
    ];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let files = "s3://cells/lake/cells/**/*.parquet";
    cells::assert_same(&polars.cells(files, &options), &expected);
}

/// Four processes' worth of sealers, each with a client of its own, write one lake of one store at the
/// same time: of each conditional put the server lets one win.
#[test]
fn several_writers_of_one_object_store_make_one_lake() {
    let Some(duckdb) = DuckDb::find() else { return };
    if let Some(tool) = missing_for_s3() {
        return skip::missing_tool(&tool);
    }
    let data = Data::generated(5_000, 67);
    let config = config(&data, "several", "", SLICES);
    run(&mut data.backfill(&config)).expect_code(0);
    let store = Arc::new(EmbeddedStore::look(&data.file("several-data/store")).unwrap());
    let s3 = S3::start(S3Options::default()).unwrap();
    let folder = s3.bucket("cells").unwrap();
    let place = LakePlace::S3(S3Place {
        bucket: "cells".to_owned(),
        endpoint: s3.url(),
        region: S3::REGION.to_owned(),
        allow_http: true,
        access_key_id: S3::ACCESS_KEY.to_owned(),
        secret_access_key: S3::SECRET_KEY.to_owned(),
        ..S3Place::default()
    });
    let seal = || {
        let (stop, status) = (Stop::default(), Arc::new(LakeStatus::default()));
        let bucket = Arc::new(Bucket::open(&place, stop.clone()).unwrap());
        let settings = SealingSettings::default();
        let mut sealing = Sealing::new(store.clone(), bucket, settings, status.clone(), stop);
        while status.numbers().looks == 0 || !sealing.is_done() {
            sealing.tick(1_479_700_000_000).unwrap();
        }
        status.numbers()
    };
    let numbers = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(seal));
        threads.map(|thread| thread.join().unwrap())
    });
    // Some had sealed the same stretch when they met: the same content, and the same name.
    let sealed: u64 = numbers.iter().map(|numbers| numbers.sealed).sum();
    let all = "select sum(len(entries)) from read_json(getvariable('manifests'))";
    let listed = duckdb.rows(&[&lake::by_manifests(&folder), all])[0][0].as_u64().unwrap();
    assert!(sealed > listed, "nobody met anybody: {numbers:?}");
    let expected = expected(&data, &config);
    cells::assert_same(&lake::cells(&duckdb, &lake::by_manifests(&folder)), &expected);
}

#[test]
fn a_service_ends_at_once_while_the_object_store_hangs() {
    if let Some(tool) = missing_for_s3() {
        return skip::missing_tool(&tool);
    }
    let data = Data::generated(2_000, 66);
    let s3 = S3::start(S3Options::default()).unwrap();
    run(&mut data.backfill(&config(&data, "hangs", "", ""))).expect_code(0);
    let (lake, _) = s3_lake(&s3);
    let config = config(&data, "hangs", &lake, "");
    s3.pause();
    let service = Service::start(&config, &data.file("hangs.log"));
    // It waits for an answer that does not come.
    std::thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    assert_eq!(service.terminate(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    s3.resume();
}
