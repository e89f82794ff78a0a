//! `marquee verify` on a real Kafka: it finds and repairs beside the group, which does not notice;
//! what Kafka has deleted is neither held against the store nor called repaired.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::Data;
use marquee_e2e::duckdb::{DuckDb, reference_tables};
use marquee_e2e::kafka::{Client, FAST_GROUP, Setup, assert_exact, broker, succeed};
use marquee_e2e::members;
use marquee_e2e::program::{Finished, marquee, root, run};
use marquee_e2e::service::Service;
use marquee_sinks::Store;
use marquee_sinks::embedded::EmbeddedStore;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time moves between batches, and only what comes after it is late.
const SMALL_BATCHES: &str = "[runtime]\nbatch_events = 2000\nbatch_interval = \"20ms\"\n";

/// One test after the other. Beside each other one of them finds nothing to repair now and then: most
/// likely a busy broker does not take a last commit in time, and the next process counts by itself what
/// another one has counted, which is right and not what is to be seen here.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn verify(config: &Path, flags: &[&str]) -> Finished {
    run(marquee(["verify", "-c"]).arg(config).args(flags))
}

fn lines(finished: &Finished) -> Vec<Value> {
    let text = std::str::from_utf8(&finished.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a stock client sees of the group: offsets and notes of both topics.
fn committed(setup: &Setup, client: &Client) -> Value {
    let topics = json!({ setup.impressions.clone(): 4, setup.plays.clone(): 4 });
    setup.client(client, json!({ "do": "committed", "group": setup.group, "topics": topics }))
}

fn metrics(service: &Service, name: &str) -> Vec<String> {
    let url = format!("{}/metrics", service.address);
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    let mut lines: Vec<String> =
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
    lines.sort_unstable(); // lanes come in any order
    lines
}

/// All cells that the store serves without a service, by video and epoch: complete or not.
fn complete(config: &Path) -> BTreeMap<(String, i64), bool> {
    let finished = run(marquee(["trends", "--format", "json", "-c"]).arg(config)).expect_code(0);
    let page: Value = serde_json::from_slice(&finished.stdout).unwrap();
    let cell = |cell: &Value| {
        let name = cell["video"].as_str().unwrap().to_owned();
        let sealed = cell["sealed"] == true;
        let epoch = cell["epoch_start_ms"].as_i64().unwrap();
        sealed.then(|| ((name, epoch), cell["complete"].as_bool().unwrap()))
    };
    page["cells"].as_array().unwrap().iter().filter_map(cell).collect()
}

fn sealed_ms(path: &Path) -> i64 {
    let sealed_ms = EmbeddedStore::look(path).unwrap().sealed_before_ms().unwrap();
    assert!(sealed_ms > 0, "nothing is sealed: the test tests nothing");
    sealed_ms
}

/// Panics unless the counts of sealed epochs are those of docs/semantics.sql.
#[track_caller]
fn assert_sealed_are_duckdbs(duckdb: &DuckDb, data: &Data, store: &Path) {
    let mut texts = reference_tables(&data.impressions, &data.plays);
    texts.push(std::fs::read_to_string(root().join("docs/semantics.sql")).unwrap());
    let cells = duckdb.cells(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let sealed_ms = sealed_ms(store);
    let expected: BTreeMap<_, _> = cells
        .into_iter()
        .filter(|cell| cell.epoch_start_ms < sealed_ms)
        .map(|c| ((c.video, c.epoch_start_ms), (c.impressions, c.plays)))
        .collect();
    let mut found = members::counts(&[store]);
    found.retain(|(_, epoch), _| *epoch < sealed_ms);
    assert!(expected.len() > 1000, "{} cells prove little", expected.len());
    assert!(found == expected, "counts of sealed epochs are not DuckDB's");
}

#[test]
fn late_events_are_found_and_repaired_beside_a_group_that_does_not_notice() {
    let _alone = alone();
    let (Some(brokers), Some(duckdb), Some(client)) = (broker(), DuckDb::find(), Client::find())
    else {
        return;
    };
    let flags = ["--requests=20000", "--seed=41", "--late=0.05", "--span=6h"];
    let data = Data::generated_by(&flags);
    let setup = Setup::new(brokers, &data, "verify");
    let config = setup.config("store", FAST_GROUP, SMALL_BATCHES);
    succeed(setup.generate(&config, 20_000, 41).args(&flags[2..]));
    let service = Service::start(&config, &setup.file("log"));
    let status = service.wait_until_counted(data.events());
    assert!(status["totals"]["late"].as_u64().unwrap() > 1000, "{status}");
    assert_eq!(service.terminate(), Some(0));

    // Somebody else has the lanes now, and is not disturbed.
    let other = setup.config("other", FAST_GROUP, SMALL_BATCHES);
    let other = Service::start(&other, &setup.file("other.log"));
    other.wait_until_counted(1);
    let until = Instant::now() + Duration::from_secs(60);
    let held =
        || metrics(&other, "marquee_lane_held").iter().filter(|l| l.ends_with("1.0")).count();
    while held() < 4 || other.readiness() != 200 {
        assert!(Instant::now() < until, "the other member gets no lanes");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (before, replayed) = (committed(&setup, &client), metrics(&other, "marquee_replayed"));

    let found = verify(&config, &[]).expect_code(1).expect_words("are not compared");
    let missing = lines(&found).iter().map(missing).sum::<u64>();
    assert!(missing > 1000, "{missing}");
    assert!(lines(&found).iter().all(|line| line["extra"]["plays"]["total"] == 0));
    // The broker is asked where the last hours begin, and what it gives is enough.
    let last = verify(&config, &["--from", "2016-11-21T03:00:00Z"]).expect_code(1);
    let is_last = |line: &&Value| line["epoch_start_ms"].as_i64().unwrap() >= 1_479_697_200_000;
    let all = lines(&found);
    assert_eq!(
        lines(&last).iter().collect::<Vec<_>>(),
        all.iter().filter(is_last).collect::<Vec<_>>()
    );
    let read = |finished: &Finished| {
        let summary = finished.stderr.lines().find(|line| line.contains(" events, ")).unwrap();
        summary.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(read(&found), data.events());
    assert!(!lines(&last).is_empty() && lines(&last).len() < all.len());
    assert!(read(&last) < data.events(), "it has read everything");

    verify(&config, &["--repair"]).expect_code(0);
    assert_eq!(verify(&config, &[]).expect_code(0).stdout, b"");
    assert_exact(&duckdb, &data, &[&setup.store("store")]);

    assert_eq!(committed(&setup, &client), before, "verify has committed something");
    assert_eq!(metrics(&other, "marquee_replayed"), replayed, "verify has moved lanes");
    assert_eq!(held(), 4, "verify has taken lanes");
    assert_eq!(other.terminate(), Some(0));
}

fn missing(line: &Value) -> u64 {
    ["impressions", "plays"]
        .map(|side| line["missing"][side]["total"].as_u64().unwrap())
        .iter()
        .sum()
}

#[test]
fn what_kafka_has_deleted_accuses_nobody_and_is_repaired_from_files_alone() {
    let _alone = alone();
    let (Some(brokers), Some(duckdb), Some(client)) = (broker(), DuckDb::find(), Client::find())
    else {
        return;
    };
    let data = Data::generated(20_000, 42);
    let setup = Setup::new(brokers, &data, "forgotten");
    let config = setup.config("store", FAST_GROUP, SMALL_BATCHES);
    succeed(&mut setup.generate(&config, 20_000, 42));
    // One lane is never read whole: its cells are incomplete.
    let trim = |before: Value| setup.client(&client, json!({ "do": "trim", "before": before }));
    trim(json!([[setup.impressions, 0, 10_000]]));
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(data.events() - 10_000);
    assert_eq!(service.terminate(), Some(0));
    // Of another one the beginning goes after it was counted.
    trim(json!([[setup.impressions, 1, 10_000], [setup.plays, 1, 100]]));
    let store = setup.store("store");
    let before = complete(&config);
    assert!(before.values().any(|complete| !complete), "no cell is doubtful");

    let found = verify(&config, &[]).expect_code(0).expect_words("the log has deleted records");
    assert_eq!(found.stdout, b"");
    verify(&config, &["--repair"]).expect_code(0).expect_words("0 gaps filled");
    assert_eq!(complete(&config), before, "a log cannot fill what it does not have");

    let files = |flags: &[&str]| {
        let mut command = marquee(["verify", "-c"]);
        command.arg(&config).arg("--impressions").arg(&data.impressions);
        run(command.arg("--plays").arg(&data.plays).args(flags))
    };
    let (from, to) = ("2016-11-21T00:00:00Z", sealed_ms(&store).to_string());
    let range = ["--from", from, "--to", &to];
    let lacking = files(&range).expect_code(1);
    assert!(lines(&lacking).iter().all(|line| line["lane"] == 0), "lane 0 lacks members");
    assert_eq!(complete(&config), before, "a comparison alone repairs nothing");
    let repaired = files(&[&range[..], &["--repair"]].concat()).expect_code(0);
    assert!(!repaired.stderr.contains(" 0 gaps filled"), "{}", repaired.stderr);
    let after = complete(&config);
    assert!(after.values().all(|complete| *complete), "every sealed cell is complete now");
    assert!(after.len() > before.len());
    assert_sealed_are_duckdbs(&duckdb, &data, &store);
    // What came from files the log does not have, and it says nothing against it.
    verify(&config, &[]).expect_code(0).expect_words("from files");
}

#[test]
fn what_another_member_has_counted_is_repaired_from_the_log() {
    let _alone = alone();
    let (Some(brokers), Some(duckdb)) = (broker(), DuckDb::find()) else { return };
    let data = Data::generated(60_000, 43);
    // Now and then nothing is left to repair (see `alone`, which says what is assumed of it).
    let is_repaired = (1..=3).any(|attempt| {
        let setup = Setup::new(brokers, &data, &format!("elsewhere{attempt}"));
        is_repaired_after_another_has_counted(&duckdb, &data, &setup)
    });
    assert!(is_repaired, "three times everything was counted here");
}

/// `false`: nothing was missing, which is right, too.
fn is_repaired_after_another_has_counted(duckdb: &DuckDb, data: &Data, setup: &Setup) -> bool {
    // So small that it is stopped long before it is done.
    let batches = "[runtime]\nbatch_events = 5\nbatch_interval = \"20ms\"\n";
    let ours = setup.config("ours", FAST_GROUP, batches);
    let theirs = setup.config("theirs", FAST_GROUP, SMALL_BATCHES);
    succeed(&mut setup.generate(&ours, 60_000, 43));
    let service = Service::start(&ours, &setup.file("ours.log"));
    let until = Instant::now() + Duration::from_secs(120);
    let read = |service: &Service| service.get("/v1/status")["totals"]["events"].as_u64().unwrap();
    while read(&service) < data.events() / 200 {
        assert!(Instant::now() < until, "it does not count");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(service.terminate(), Some(0));
    for (config, log) in [(&theirs, "theirs.log"), (&ours, "ours.log")] {
        let service = Service::start(config, &setup.file(log));
        service.wait_until_counted(data.events());
        assert_eq!(service.terminate(), Some(0));
    }
    let before = complete(&ours);
    let found = verify(&ours, &[]);
    if found.code == Some(0) {
        eprintln!("nothing was missing: {}", found.stderr);
        assert_sealed_are_duckdbs(duckdb, data, &setup.store("ours"));
        return false;
    }
    let found = found.expect_code(1);
    assert!(before.values().any(|complete| !complete), "what is missing is not complete");
    assert!(lines(&found).iter().map(missing).sum::<u64>() > 1000);
    verify(&ours, &["--repair"]).expect_code(0);
    assert_eq!(verify(&ours, &[]).expect_code(0).stdout, b"");
    assert!(complete(&ours).values().all(|complete| *complete), "the gaps are filled");
    assert_sealed_are_duckdbs(duckdb, data, &setup.store("ours"));
    true
}
