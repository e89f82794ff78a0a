//! The service, fed over HTTP and killed with -9 while work is in flight: afterwards its cells are
//! those of DuckDB and of a backfill, not one more and not one less.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::{DuckDb, reference_tables};
use marquee_e2e::program::{marquee, root, run};
use marquee_e2e::service::{Feed, Service, post};
use marquee_e2e::skip;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The reference job with a log, a store and a port of its own.
fn service_config(data: &Data, name: &str, more: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).expect("it is there");
    let path = data.file(&format!("{name}-data"));
    let own = format!(
        "{reference}\n[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n{more}",
        path.display()
    );
    data.write(&format!("{name}.toml"), own)
}

/// What docs/semantics.sql makes of the data, with the filters of the reference job.
fn by_duckdb(data: &Data) -> Option<Vec<cells::Cell>> {
    let duckdb = DuckDb::find()?;
    let mut texts = reference_tables(&data.impressions, &data.plays);
    let oracle = std::fs::read_to_string(root().join("docs/semantics.sql")).unwrap();
    texts.push(oracle);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Some(duckdb.cells(&texts))
}

fn trends_csv(config: &Path) -> Vec<u8> {
    run(marquee(["trends", "--format", "csv", "-c"]).arg(config)).expect_code(0).stdout
}

#[test]
fn killed_three_times_with_work_in_flight_it_counts_what_a_backfill_counts() {
    let data = Data::generated(100_000, 11);
    let config = service_config(&data, "killed", "");
    let log = data.file("killed.log");
    let impressions = Feed::of(&data.impressions, "impressions", 2000);
    let plays = Feed::of(&data.plays, "plays", 2000);
    let service = Mutex::new(Some(Service::start(&config, &log)));
    let address = Mutex::new(service.lock().unwrap().as_ref().unwrap().address.clone());
    let ask = || address.lock().unwrap().clone();
    let mut broken_by_kills = 0;
    let (fed, watched) = (AtomicBool::new(false), AtomicU64::new(0));
    let all = impressions.len();
    std::thread::scope(|scope| {
        scope.spawn(|| impressions.send_all(&ask, &|_| {}));
        // The plays keep pace with the impressions, as they would on the day.
        scope.spawn(|| {
            plays.send_all(&ask, &|number| {
                let due = |sent: u64| sent as usize * plays.len() >= number * all;
                while !due(impressions.accepted.load(Ordering::SeqCst)) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        });
        scope.spawn(|| watch(&ask, &fed, &watched));
        for share in [20, 45, 70] {
            while impressions.accepted.load(Ordering::SeqCst) * 100 < share * all as u64 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let before = impressions.broken.load(Ordering::SeqCst);
            service.lock().unwrap().take().unwrap().kill();
            // The client that was cut off, or refused, has noticed: there was work in flight.
            while impressions.broken.load(Ordering::SeqCst) == before {
                std::thread::sleep(Duration::from_millis(1));
            }
            broken_by_kills += 1;
            let again = Service::start(&config, &log);
            *address.lock().unwrap() = again.address.clone();
            *service.lock().unwrap() = Some(again);
        }
        fed.store(true, Ordering::SeqCst);
    });
    assert_eq!(broken_by_kills, 3);
    assert!(watched.load(Ordering::SeqCst) > 20, "nobody looked while it was killed");
    let service = service.into_inner().unwrap().unwrap();
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap().lines().count() as u64;
    let status = service.wait_until_counted(lines(&data.impressions) + lines(&data.plays));
    assert_eq!(status["totals"]["late"], 0, "{status}");
    assert_eq!(status["totals"]["dead"], 0, "{status}");

    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    let beside = cells::of_csv(&trends_csv(&config));
    cells::assert_same(&beside, &expected);
    assert_eq!(service.terminate(), Some(0));
    let after = cells::of_csv(&trends_csv(&config));
    cells::assert_same(&after, &expected);
    if let Some(judge) = by_duckdb(&data) {
        cells::assert_same(&after, &judge);
    }
}

/// Looks at counts all the time, through kills and restarts: a count that was served never shrinks.
fn watch(address: &dyn Fn() -> String, fed: &AtomicBool, watched: &AtomicU64) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let mut seen = std::collections::BTreeMap::new();
    while !fed.load(Ordering::SeqCst) {
        let url = format!("{}/v1/trends?limit=200&sort=impressions", address());
        let answer = agent.get(&url).call().and_then(|mut a| a.body_mut().read_json());
        let page: serde_json::Value = answer.unwrap_or_default();
        for cell in page["cells"].as_array().into_iter().flatten() {
            let key = format!("{} {}", cell["video"], cell["epoch_start_ms"]);
            let counts = (cell["impressions"].as_u64().unwrap(), cell["plays"].as_u64().unwrap());
            let (shown, played) = seen.get(&key).copied().unwrap_or((0, 0));
            assert!(counts.0 >= shown && counts.1 >= played, "{key}: {seen:?} then {counts:?}");
            seen.insert(key, counts);
            watched.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn what_was_accepted_before_sigterm_is_counted_when_the_process_has_ended() {
    let data = Data::generated(20_000, 16);
    let config = service_config(&data, "term", "");
    let service = Service::start(&config, &data.file("term.log"));
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        Feed::of(file, kind, 20_000).send_all(&|| service.address.clone(), &|_| {});
    }
    assert_eq!(service.terminate(), Some(0));
    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    cells::assert_same(&cells::of_csv(&trends_csv(&config)), &expected);
}

#[test]
fn trends_writes_the_csv_that_a_backfill_writes_byte_for_byte() {
    let data = Data::generated(2_000, 17);
    let more = "[transform]\nslices = [[], ['country'], ['country', 'device']]\n\
                [aggregate]\nepochs = ['30m', '1m']\n";
    let config = service_config(&data, "bytes", more);
    run(&mut data.backfill(&config)).expect_code(0);
    let flags = ["trends", "--format", "csv", "--all-slices", "-c"];
    let shown = run(marquee(flags).arg(&config)).expect_code(0).stdout;
    assert!(shown == data.cells(&mut data.backfill(&config)), "the two differ");
}

#[test]
fn a_backfill_refuses_what_it_cannot_add_exactly() {
    let data = Data::generated(500, 18);
    let config = service_config(&data, "counts", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let without =
        data.write("without.toml", text.replace("[store]\n", "[store]\nmembers = false\n"));
    run(&mut data.backfill(&without)).expect_code(0);
    let before = trends_csv(&without);
    run(&mut data.backfill(&config)).expect_code(1).expect_words("without keeping all members");
    assert!(trends_csv(&config) == before, "a refused backfill changes nothing");

    // A clock in the year 9892 must not close the present.
    let config = service_config(&data, "future", "");
    let future = data.write(
        "future.ndjson",
        r#"{"request_id":"r","video_id":"v","ts":250000000000000,"device":"tv"}"#,
    );
    run(&mut marquee_e2e::data::backfill(&config, &future, &data.plays))
        .expect_code(1)
        .expect_words("which has not begun");
}

#[test]
fn a_backfill_closes_epochs_in_which_it_has_events_but_no_cells() {
    // In the slides' setting an impression without a play is in no cell.
    let shown = r#"{"request_id":"r","video_id":"v","ts":1479686400000,"device":"tv"}"#;
    let data = Data::of(shown, "");
    let slides = std::fs::read_to_string(example("slides.toml")).unwrap();
    let dir = data.file("closing-data").display().to_string();
    let own = slides.replace("path = \"data-slides", &format!("path = \"{dir}"))
        + "\n[http]\nlisten = \"127.0.0.1:0\"\n";
    let config = data.write("closing.toml", own);
    run(&mut data.backfill(&config)).expect_code(0);
    let service = Service::start(&config, &data.file("closing.log"));
    let played = r#"{"request_id":"r","video_id":"v","ts":1479686460000,"duration_s":90}"#;
    assert_eq!(post(&service.address, "plays", played.as_bytes()).unwrap().0, 202);
    let status = service.wait_until_counted(1);
    assert_eq!(status["totals"]["late"], 1, "not lost in silence: {status}");
}

#[test]
fn a_disk_that_fills_up_while_events_arrive_loses_nothing() {
    let data = Data::generated(30_000, 15);
    let disk = data.file("disk-data");
    std::fs::create_dir_all(&disk).unwrap();
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        mount.output().is_ok_and(|output| output.status.success())
    };
    if !mount("size=24m") {
        return skip::skipped("mounting a small disk needs root");
    }
    let _unmount = Unmount(disk.clone());
    // The service's folder is `disk-data`: see `service_config`.
    let config = service_config(&data, "disk", "");
    let log = data.file("disk.log");
    let mut service = Service::start(&config, &log);
    let mut was_full = false;
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        for body in Feed::of(file, kind, 1000).bodies() {
            loop {
                match post(&service.address, kind, body) {
                    Ok((202, _)) => break,
                    Ok((503 | 429, _)) | Err(_) => {}
                    Ok((status, answer)) => panic!("{status}: {answer}"),
                }
                assert!(!was_full, "there is room now: {}", std::fs::read_to_string(&log).unwrap());
                was_full = true;
                service.kill();
                assert!(mount("remount,size=400m"), "the disk grows");
                service = Service::start(&config, &log);
            }
        }
    }
    assert!(was_full, "the disk was never full: the test proved nothing");
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap().lines().count() as u64;
    service.wait_until_counted(lines(&data.impressions) + lines(&data.plays));
    assert_eq!(service.terminate(), Some(0));
    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    cells::assert_same(&cells::of_csv(&trends_csv(&config)), &expected);
}

/// Unmounts a disk at the end of a test, however that ends.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_restart_in_the_middle_of_a_rebuild_loses_and_doubles_nothing() {
    let data = Data::generated(20_000, 12);
    let config = service_config(&data, "again", "");
    let log = data.file("again.log");
    let service = Service::start(&config, &log);
    for (file, kind) in [(&data.impressions, "impressions"), (&data.plays, "plays")] {
        let feed = Feed::of(file, kind, 5000);
        feed.send_all(&|| service.address.clone(), &|_| {});
    }
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap().lines().count() as u64;
    let events = lines(&data.impressions) + lines(&data.plays);
    service.wait_until_counted(events);
    service.kill();
    for delay_ms in [0, 20, 60, 150] {
        let service = Service::start(&config, &log);
        std::thread::sleep(Duration::from_millis(delay_ms));
        service.kill();
    }
    let service = Service::start(&config, &log);
    let status = service.wait_until_counted(events);
    assert_eq!(status["totals"]["events"], events, "a replay counts nothing twice: {status}");
    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    cells::assert_same(&cells::of_csv(&trends_csv(&config)), &expected);
}

#[test]
fn a_backfill_into_the_store_is_what_trends_shows_and_may_be_repeated() {
    let data = Data::generated(5_000, 13);
    let config = service_config(&data, "into", "");
    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    for _ in 0..2 {
        run(&mut data.backfill(&config)).expect_code(0);
        cells::assert_same(&cells::of_csv(&trends_csv(&config)), &expected);
    }
    // Half of it is there already in another store: the union is the same.
    let half = service_config(&data, "half", "");
    let lines: Vec<String> =
        std::fs::read_to_string(&data.impressions).unwrap().lines().map(str::to_owned).collect();
    let first = data.write("first.ndjson", lines[..lines.len() / 2].join("\n"));
    run(&mut marquee_e2e::data::backfill(&half, &first, &data.plays)).expect_code(0);
    run(&mut data.backfill(&half)).expect_code(0);
    cells::assert_same(&cells::of_csv(&trends_csv(&half)), &expected);
}

#[test]
fn late_and_bad_events_are_set_aside_and_a_bad_clock_expires_nobody() {
    let data = Data::of("", "");
    let config = service_config(&data, "aside", "");
    let service = Service::start(&config, &data.file("aside.log"));
    let send = |kind: &str, body: &str| post(&service.address, kind, body.as_bytes()).unwrap();
    let shown = r#"{"request_id":"r1","video_id":"v","ts":1479686400000,"device":"tv"}"#;
    assert_eq!(send("impressions", shown).0, 202);
    // A clock in the future, a record that is no JSON and one without an id: refused, not written.
    let future = shown.replace("1479686400000", "4102444800000");
    let (status, answer) = send("impressions", &format!("{future}\nnonsense\n{{}}\n{shown}"));
    assert_eq!((status, &answer["accepted"]), (207, &1.into()), "{answer}");
    let played =
        r#"{"request_id":"r1","video_id":"v","ts":1479686460000,"duration_s":90,"device":"tv"}"#;
    assert_eq!(send("plays", played).0, 202);
    service.wait_until_counted(3);
    let cells = service.get("/v1/trends");
    let cell = &cells["cells"][0];
    assert_eq!((&cell["impressions"], &cell["plays"]), (&1.into(), &1.into()), "{cells}");
}

#[test]
fn late_events_are_in_the_late_output_once_also_after_kill_9() {
    let data = Data::of("", "");
    let config = service_config(&data, "late", "");
    // Three events of one request in one epoch are enough, and whoever sends more is set aside.
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[join]\n", "[join]\nmax_facts = 3\n");
    let config = data.write("late.toml", text);
    let log = data.file("late.log");
    let mut service = Service::start(&config, &log);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = now.as_millis() as i64;
    let event = |request: &str, ts: i64, more: &str| {
        format!("{{\"request_id\":\"{request}\",\"video_id\":\"v{ts}\",\"ts\":{ts}{more}}}\n")
    };
    let many = |more: &str| -> String {
        // In each of the four lanes enough requests to carry a watermark.
        (0..400).map(|n| event(&format!("r{n}"), now_ms - n, more)).collect()
    };
    assert_eq!(post(&service.address, "impressions", many("").as_bytes()).unwrap().0, 202);
    let plays = many(",\"duration_s\":90");
    assert_eq!(post(&service.address, "plays", plays.as_bytes()).unwrap().0, 202);
    service.wait_until_counted(800);
    let mut old = event("old", now_ms - 5 * 3_600_000, "");
    for n in 0..5 {
        old.push_str(&event("everybody", now_ms - n, ""));
    }
    assert_eq!(post(&service.address, "impressions", old.as_bytes()).unwrap().0, 202);
    for _ in 0..2 {
        let status = service.wait_until_counted(806);
        assert_eq!(status["totals"]["late"], 3, "{status}");
        service.kill();
        let mut codes = Vec::new();
        for lane in 0..4 {
            let file = data.file(&format!("late-data/store/late/lane-{lane}.ndjson"));
            for line in std::fs::read_to_string(file).unwrap().lines() {
                let letter: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(letter["record"].as_str().unwrap().contains("video_id"), "{letter}");
                codes.push(letter["code"].as_str().unwrap().to_owned());
            }
        }
        codes.sort();
        assert_eq!(codes, ["closed_epoch", "max_facts", "max_facts"]);
        service = Service::start(&config, &log);
    }
}

#[test]
fn a_store_in_use_and_a_port_in_use_are_named() {
    let data = Data::of("", "");
    let config = service_config(&data, "first", "");
    let service = Service::start(&config, &data.file("first.log"));
    run(marquee(["run", "-c"]).arg(&config))
        .expect_code(1)
        .expect_words("is in use by another process")
        .expect_words(&service.address);
    run(data.backfill(&config).arg("--strict")).expect_code(1).expect_words("is in use");
    let port = service.address.trim_start_matches("http://");
    let other = service_config(&data, "second", "");
    let text = std::fs::read_to_string(&other).unwrap().replace("127.0.0.1:0", port);
    let other = data.write("second.toml", text);
    run(marquee(["run", "-c"]).arg(&other))
        .expect_code(1)
        .expect_words("cannot listen on 127.0.0.1:");
}

#[test]
fn other_settings_are_refused_by_the_store() {
    let data = Data::generated(10, 14);
    let config = service_config(&data, "settings", "");
    run(&mut data.backfill(&config)).expect_code(0);
    let text =
        std::fs::read_to_string(&config).unwrap().replace("within = \"1h\"", "within = \"2h\"");
    let changed = data.write("settings.toml", text);
    run(&mut data.backfill(&changed))
        .expect_code(2)
        .expect_words("counts otherwise")
        .expect_words("within");
}
