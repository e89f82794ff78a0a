//! Training examples in the lake, as DuckDB reads them: every impression with its attributes and the
//! label that the definition gives it, whatever was killed, late or left out.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::DuckDb;
use marquee_e2e::examples::{definition, differing, examples_of};
use marquee_e2e::lake::{self, wait_until_sealed};
use marquee_e2e::program::run;
use marquee_e2e::service::{Feed, Service, post};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The reference job with everything of its own, and a lake with examples.
fn config(data: &Data, name: &str, lake: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let reference = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"15s\"");
    let own = data.file(&format!("{name}-data")).display().to_string();
    let text = format!(
        "{reference}\n[log]\npath = \"{own}/log\"\n[store]\npath = \"{own}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[lake]\nurl = \"file:{name}-lake\"\ninterval = \"200ms\"\n\
         examples = true\nexamples_interval = \"200ms\"\n{lake}\n"
    );
    data.write(&format!("{name}.toml"), text)
}

/// Waits until the service says something of its examples.
#[track_caller]
fn wait_for(service: &Service, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let examples = service.get("/v1/status")["examples"].clone();
        if is(&examples) {
            return examples;
        }
        assert!(start.elapsed() < PATIENCE, "not {what}: {examples}\n{}", service.last_said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn killed_while_it_makes_them_it_leaves_each_impression_once_with_its_label() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(30_000, 71);
    let config = config(&data, "made", "file_span = \"30m\"");
    let (log, folder) = (data.file("made.log"), data.file("made-lake"));
    let mut service = Service::start(&config, &log);
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        Feed::of(file, kind, 20_000).send_all(&|| service.address.clone(), &|_| {});
    }
    // Once the topics are silent everything closes: killed as soon as the first are listed.
    wait_for(&service, "listed", |examples| examples["stretches"].as_u64() >= Some(1));
    service.kill();
    service = Service::start(&config, &log);
    wait_until_sealed(&service);
    let manifests = || duckdb.rows(&[&examples_of(&folder), "select count(*) from examples"]);
    let start = Instant::now();
    let [differing, all, played] = loop {
        let found = differing(&duckdb, &data, &folder);
        if found[0] == 0 || start.elapsed() > PATIENCE {
            break found;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(differing, 0, "{all} expected, {:?} found\n{}", manifests(), service.last_said());
    assert!(all > 100_000 && played > 2_000, "{all} {played}");

    // Each is there once, whole, and says the same as the cells do.
    // Tables, since views look at the files of whichever manifests were read last.
    let rows = duckdb.rows(&[
        &examples_of(&folder),
        "create table counted as
         select video_id, epoch_start_ms, count(*) as shown, count(*) filter (played) as played
         from examples group by all",
        "create table written as
         select count(*) - (select count(*) from examples) as twice,
                bool_and(complete and weight = 1) as whole, count(distinct lane) as lanes from rows",
        &lake::by_manifests(&folder),
        "create table stored as
         select video_id, epoch_start_ms, sum(impressions) as shown, sum(plays) as played
         from cells where slice = '' and epoch_ms = 1800000 group by all",
        "select (select count(*) from (from counted except from stored)),
                (select count(*) from (from stored except from counted)),
                twice, whole, lanes from written",
    ]);
    assert_eq!(rows[0][..3], [0, 0, 0], "{rows:?}");
    assert_eq!((&rows[0][3], &rows[0][4]), (&Value::Bool(true), &Value::from(4)));

    // A restart has nothing to make.
    assert_eq!(service.terminate(), Some(0));
    let service = Service::start(&config, &log);
    wait_until_sealed(&service);
    let made = wait_for(&service, "looked at", |examples| examples["waiting"] == 0);
    assert_eq!((&made["rows"], &made["failures"]), (&Value::from(0), &Value::from(0)), "{made}");
}

#[test]
fn a_tenth_of_the_negatives_and_all_plays_estimate_what_all_would() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(20_000, 72);
    let config = config(&data, "sampled", "negatives = 0.1");
    let folder = data.file("sampled-lake");
    run(&mut data.backfill(&config)).expect_code(0).expect_words(" examples into the lake");
    let mut texts = vec![examples_of(&folder)];
    texts.extend(definition(&data));
    texts.push(
        "select (select count(seconds) from expected), (select count(*) from expected),
                count(*) filter (played), count(*), sum(weight),
                (select count(*) from rows r anti join expected e
                   on r.request_id = e.request_id and r.video_id = e.video
                  and r.epoch_start_ms = e.epoch_start_ms
                  and r.seconds_to_play is not distinct from e.seconds)
         from examples"
            .to_owned(),
    );
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = duckdb.rows(&texts);
    let number = |at: usize| rows[0][at].as_f64().unwrap();
    let (played, all, found_played, found) = (number(0), number(1), number(2), number(3));
    assert_eq!((found_played, number(5)), (played, 0.0), "{rows:?}");
    let share = (found - played) / (all - played);
    assert!((0.095..0.105).contains(&share), "{share} of {all}");
    // Weighted, they stand for all.
    assert!((number(4) / all - 1.0).abs() < 0.03, "{rows:?}");
    // The same again makes nothing new, and samples the same.
    run(&mut data.backfill(&config)).expect_code(0).expect_words("0 examples into the lake");
}

/// Epochs of a minute that close as soon as both topics have gone on.
fn minutes(data: &Data, name: &str) -> PathBuf {
    let own = data.file(&format!("{name}-data")).display().to_string();
    let text = format!(
        "[impressions]\nattributes = {{ device = 'string?' }}\n\
         [join]\nwithin = '1m'\nearly = '0s'\nlateness = '0s'\nidle = 'hold'\nwatermark_support = 1\n\
         [aggregate]\nepochs = ['1m']\n\
         [log]\npath = '{own}/log'\nlanes = 1\n[store]\npath = '{own}/store'\n\
         [http]\nlisten = '127.0.0.1:0'\n\
         [lake]\nurl = 'file:{name}-lake'\nfile_span = '1s'\ninterval = '200ms'\n\
         examples = true\nexamples_interval = '200ms'\n"
    );
    data.write(&format!("{name}.toml"), text)
}

/// One event, so many seconds after a certain time.
fn send(service: &Service, kind: &str, request: &str, seconds: i64) {
    let ts = 1_479_686_400_000 + seconds * 1000;
    let body = format!(r#"{{"request_id":"{request}","video_id":"v","ts":{ts},"device":"tv"}}"#);
    assert_eq!(post(&service.address, kind, body.as_bytes()).unwrap().0, 202);
}

#[test]
fn what_comes_late_corrects_the_label_also_after_a_crash() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::of("", "");
    let config = minutes(&data, "late");
    let (log, folder) = (data.file("late.log"), data.file("late-lake"));
    let service = Service::start(&config, &log);
    for request in ["played", "late play", "never"] {
        send(&service, "impressions", request, 1);
    }
    send(&service, "plays", "played", 11);
    // Both topics go on: the first minute closes.
    send(&service, "impressions", "later", 600);
    send(&service, "plays", "later", 600);
    wait_for(&service, "made", |examples| examples["stretches"] == 1);
    service.kill();

    let service = Service::start(&config, &log);
    send(&service, "plays", "late play", 31);
    send(&service, "impressions", "late impression", 2);
    send(&service, "plays", "played", 40); // a second one, which says nothing new
    send(&service, "impressions", "last", 1200);
    send(&service, "plays", "last", 1200);
    wait_for(&service, "corrected", |examples| {
        examples["stretches"] == 1 && examples["corrections"] == 2
    });
    let labels = "select request_id, seconds_to_play, device, weight, complete from examples
                  where epoch_start_ms = 1479686400000 order by request_id";
    let rows = duckdb.rows(&[&examples_of(&folder), labels]);
    let row = |request: &str, seconds: Value| {
        vec![request.into(), seconds, "tv".into(), 1.0.into(), true.into()]
    };
    let expected = [
        row("late impression", Value::Null),
        row("late play", 30.0.into()),
        row("never", Value::Null),
        row("played", 10.0.into()),
    ];
    assert_eq!(rows, expected);
    // What was known before stands beside it, with the time of each.
    let history = "select played from rows where request_id = 'late play' order by as_of";
    assert_eq!(duckdb.rows(&[&examples_of(&folder), history]), [[false], [true]]);
    assert_eq!(service.terminate(), Some(0));
}
