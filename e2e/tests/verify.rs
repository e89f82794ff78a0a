//! `marquee verify` with the real binary: what it finds is what DuckDB finds, what it repairs is
//! right afterwards, each planted corruption is named, and what a log has forgotten accuses nobody.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::{DuckDb, reference_tables};
use marquee_e2e::members;
use marquee_e2e::program::{Finished, marquee, root, run};
use marquee_e2e::service::{Feed, Service};
use marquee_model::{CellCounts, CellKey, Side};
use marquee_sinks::embedded::{EmbeddedStore, StoreMemory};
use marquee_sinks::{CellQuery, ClosedCell, Identity, Sink, Store};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time moves between batches, and only what comes after it is late.
const SMALL_BATCHES: &str = "[runtime]\nbatch_events = 2000\nbatch_interval = \"20ms\"\n";

/// The reference job with a log, a store and a port of its own.
fn job(data: &Data, name: &str, more: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let folder = data.file(name);
    let own = format!(
        "{reference}\n[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n{more}",
        folder.display()
    );
    data.write(&format!("{name}.toml"), own)
}

fn store(data: &Data, name: &str) -> PathBuf {
    data.file(name).join("store")
}

/// Sends both files in step, as they would arrive on the day: late events come late.
fn feed(service: &Service, data: &Data) {
    let impressions = Feed::of(&data.impressions, "impressions", 1000);
    let plays = Feed::of(&data.plays, "plays", 50);
    let address = || service.address.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| impressions.send_all(&address, &|_| {}));
        plays.send_all(&address, &|number| {
            let sent = || impressions.accepted.load(std::sync::atomic::Ordering::SeqCst) as usize;
            while sent() * plays.len() < number * impressions.len() {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    });
    service.wait_until_counted(data.events());
}

/// Runs a service over all of the data, and how many events were late.
fn count(data: &Data, config: &Path) -> u64 {
    let service = Service::start(config, &data.file("service.log"));
    feed(&service, data);
    let late = service.get("/v1/status")["totals"]["late"].as_u64().unwrap();
    assert_eq!(service.terminate(), Some(0));
    late
}

fn verify(config: &Path, flags: &[&str]) -> Finished {
    run(marquee(["verify", "-c"]).arg(config).args(flags))
}

fn with_files(data: &Data, config: &Path, flags: &[&str]) -> Finished {
    let mut command = marquee(["verify", "-c"]);
    command.arg(config).arg("--impressions").arg(&data.impressions);
    run(command.arg("--plays").arg(&data.plays).args(flags))
}

fn lines(finished: &Finished) -> Vec<Value> {
    let text = std::str::from_utf8(&finished.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Epochs of a store that are sealed: cells that start before this time.
fn sealed_ms(path: &Path) -> i64 {
    let sealed_ms = EmbeddedStore::look(path).unwrap().sealed_before_ms().unwrap();
    assert!(sealed_ms > 0, "nothing is sealed: the test tests nothing");
    sealed_ms
}

type Counts = BTreeMap<(String, i64), (u64, u64)>;

fn sealed(mut counts: Counts, sealed_ms: i64) -> Counts {
    counts.retain(|(_, epoch), _| *epoch < sealed_ms);
    counts
}

fn texts(data: &Data) -> Vec<String> {
    let mut texts = reference_tables(&data.impressions, &data.plays);
    texts.push(std::fs::read_to_string(root().join("docs/semantics.sql")).unwrap());
    texts
}

fn by_duckdb(duckdb: &DuckDb, data: &Data) -> Counts {
    let texts = texts(data);
    let cells = duckdb.cells(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    cells.into_iter().map(|c| ((c.video, c.epoch_start_ms), (c.impressions, c.plays))).collect()
}

#[track_caller]
fn assert_members_are_duckdbs(duckdb: &DuckDb, data: &Data, store: &Path) {
    let tables = reference_tables(&data.impressions, &data.plays);
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let found = members::differences(duckdb, &tables, &[store], &data.file("members.csv"));
    assert_eq!(found, 0, "members that differ from DuckDB's");
}

#[test]
fn late_events_are_found_as_duckdb_finds_them_and_after_a_repair_nothing_is_left() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated_by(&["--requests=20000", "--seed=31", "--late=0.05"]);
    let config = job(&data, "late", SMALL_BATCHES);
    assert!(count(&data, &config) > 1000, "not enough events were late");
    let store = store(&data, "late");
    let sealed_ms = sealed_ms(&store);

    let found = verify(&config, &[]).expect_code(1).expect_words("are not compared");
    // What the store lacks by DuckDB's count, in closed epochs.
    let oracle = sealed(by_duckdb(&duckdb, &data), sealed_ms);
    let held = sealed(members::counts(&[&store]), sealed_ms);
    let mut lacking = Counts::new();
    for (cell, (shown, played)) in &oracle {
        let (had_shown, had_played) = held.get(cell).copied().unwrap_or_default();
        if (*shown, *played) != (had_shown, had_played) {
            lacking.insert(cell.clone(), (shown - had_shown, played - had_played));
        }
    }
    assert!(lacking.len() > 1000, "{} cells prove little", lacking.len());
    let mut said = Counts::new();
    for line in lines(&found) {
        let number = |value: &Value| value.as_u64().unwrap();
        let cell =
            (line["video"].as_str().unwrap().to_owned(), line["epoch_start_ms"].as_i64().unwrap());
        let missing = &line["missing"];
        let sum = said.entry(cell).or_default();
        sum.0 += number(&missing["impressions"]["total"]);
        sum.1 += number(&missing["plays"]["total"]);
        let is_absent = line["found"] == json!({"impressions": 0, "plays": 0});
        assert_eq!(line["what"], if is_absent { "absent" } else { "members" }, "{line}");
        let none = json!({"total": 0, "ids": []});
        assert_eq!(line["extra"], json!({"impressions": none, "plays": none}), "{line}");
        assert!(missing["impressions"]["ids"].as_array().unwrap().len() <= 5, "{line}");
    }
    assert_eq!(said, lacking);

    // A repair adds all of it, and touches no open epoch.
    let open = |counts: Counts| {
        counts.into_iter().filter(|((_, epoch), _)| *epoch >= sealed_ms).collect::<Counts>()
    };
    let before = open(members::counts(&[&store]));
    let repaired =
        verify(&config, &["--repair"]).expect_code(0).expect_words("0 cells still differ");
    assert_eq!(lines(&repaired).len(), lines(&found).len());
    assert!(lines(&repaired).iter().all(|line| line["repaired"] == true));
    let again = verify(&config, &[]).expect_code(0);
    assert_eq!(again.stdout, b"");
    assert_eq!(again.number("differing"), 0);
    assert_eq!(sealed(members::counts(&[&store]), sealed_ms), oracle);
    assert_eq!(open(members::counts(&[&store])), before);
    assert_members_are_duckdbs(&duckdb, &data, &store);

    // The service goes on from it as if nothing had happened.
    let service = Service::start(&config, &data.file("service.log"));
    service.wait_until_counted(data.events());
    assert_eq!(service.terminate(), Some(0));
    verify(&config, &[]).expect_code(0);
}

#[test]
fn a_range_of_time_is_compared_alone() {
    let data = Data::generated_by(&["--requests=5000", "--seed=32", "--late=0.1"]);
    let config = job(&data, "range", SMALL_BATCHES);
    assert!(count(&data, &config) > 100);
    let all = lines(&verify(&config, &[]).expect_code(1));
    let [from, to] = ["2016-11-21T00:30:00Z", "2016-11-21T01:00:00Z"];
    let some = lines(&verify(&config, &["--from", from, "--to", to]).expect_code(1));
    let is_in = |line: &&Value| line["epoch_start_ms"] == 1_479_688_200_000_i64;
    let expected: Vec<&Value> = all.iter().filter(is_in).collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(some.iter().collect::<Vec<_>>(), expected);
    verify(&config, &["--repair", "--from", from, "--to", to]).expect_code(0);
    let left = lines(&verify(&config, &[]).expect_code(1));
    assert_eq!(left.len(), all.len() - some.len());
    assert!(!left.iter().any(|line| is_in(&line)));
    verify(&config, &["--from", "2016-11-21T02:00:00Z", "--to", from]).expect_code(2);
}

/// A cell of one lane: both counts, and both sets.
type Held = (CellCounts, [BTreeSet<String>; 2]);

/// Everything that a store holds, by lane and cell.
fn held(path: &Path) -> BTreeMap<(u32, CellKey), Held> {
    let store = EmbeddedStore::look(path).unwrap();
    let mut cells: BTreeMap<(u32, CellKey), Held> = BTreeMap::new();
    let each = |cell, lane, counts| {
        cells.entry((lane, cell)).or_default().0 = counts;
    };
    store.scan(&CellQuery::default(), each).unwrap();
    store
        .each_member(|cell, lane, side, id| {
            let of_cell = cells.entry((lane, cell.clone())).or_default();
            of_cell.1[usize::from(side == Side::Plays)].insert(id.to_string());
        })
        .unwrap();
    cells
}

/// Writes a store anew with these cells, and with the settings and lanes of another one.
fn rewrite(from: &Path, to: &Path, cells: &BTreeMap<(u32, CellKey), Held>) {
    let (generation, states) = {
        let store = EmbeddedStore::look(from).unwrap();
        let generation = store.generation().clone();
        let state = |lane| store.lane_state(lane).unwrap().unwrap();
        let states: Vec<_> = (0..generation.lanes).map(state).collect();
        (generation, states)
    };
    let identity = Identity {
        settings: serde_json::to_value(&generation).unwrap()["settings"].clone(),
        lanes: Some(generation.lanes),
        epochs_ms: generation.epochs_ms().to_vec(),
        new_id: "planted".to_owned(),
        new_secret: generation.secret,
    };
    std::fs::remove_dir_all(to).ok();
    let store = EmbeddedStore::open(to, &identity, true, StoreMemory::default()).unwrap();
    for (lane, state) in (0..).zip(&states) {
        let of_lane = cells.iter().filter(|((of, _), _)| *of == lane);
        let writes: Vec<ClosedCell<'_>> = of_lane
            .map(|((_, key), (counts, sets))| ClosedCell {
                key,
                counts: *counts,
                chunks: [chunk(&sets[0]), chunk(&sets[1])],
            })
            .collect();
        store.write_closed(lane, 1, &writes, Some(state)).unwrap();
    }
}

/// The format of crates/pipeline/src/chunk.rs, written down again: version, number of UUIDs, the
/// UUIDs, then the other ids with their lengths.
fn chunk(ids: &BTreeSet<String>) -> Vec<u8> {
    if ids.is_empty() {
        return Vec::new();
    }
    let uuid = |id: &String| {
        let digits = id.replace('-', "");
        (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())?
    };
    let uuids: Vec<u128> = ids.iter().filter_map(uuid).collect();
    let mut bytes = vec![1];
    let mut left = uuids.len();
    loop {
        let digit = (left & 127) as u8;
        left >>= 7;
        bytes.push(if left > 0 { digit | 128 } else { digit });
        if left == 0 {
            break;
        }
    }
    uuids.iter().for_each(|uuid| bytes.extend(uuid.to_be_bytes()));
    for id in ids.iter().filter(|id| uuid(id).is_none()) {
        bytes.push(id.len() as u8);
        bytes.extend(id.as_bytes());
    }
    bytes
}

#[test]
fn each_of_five_planted_corruptions_is_found_and_named() {
    let data = Data::generated(5_000, 33);
    let config = job(&data, "planted", "");
    assert_eq!(count(&data, &config), 0, "an event was late");
    let path = store(&data, "planted");
    let (good, sealed_ms) = (held(&path), sealed_ms(&path));
    let saved = data.file("saved");
    std::fs::rename(&path, &saved).unwrap();
    rewrite(&saved, &path, &good);
    assert_eq!(verify(&config, &[]).expect_code(0).stdout, b"", "the good store, written anew");

    // A cell with members on both sides, more than one.
    let is_fit = |(_, cell): &&(u32, CellKey), (counts, _): &Held| {
        cell.epoch_start_ms < sealed_ms && counts.impressions > 2 && counts.plays > 1
    };
    let key = good.iter().find(|(key, held)| is_fit(key, held)).unwrap().0.clone();
    let intruder = "00000000-0000-4000-8000-000000000001";
    type Plant<'p> = (&'p str, &'p dyn Fn(&mut Held), &'p str, [i64; 4], bool);
    let plants: [Plant<'_>; 4] = [
        ("a count too low", &|held| held.0.plays -= 1, "count", [0; 4], true),
        ("a count too high", &|held| held.0.impressions += 3, "count", [0; 4], false),
        (
            "a member missing from its chunk",
            &|held| drop(held.1[0].pop_first()),
            "count_members",
            [1, 0, 0, 0],
            true,
        ),
        (
            "a wrong member more",
            &|held| {
                held.1[1].insert(intruder.to_owned());
                held.0.plays += 1;
            },
            "members",
            [0, 0, 0, 1],
            false,
        ),
    ];
    for (name, plant, what, [shown, played, shown_more, played_more], is_mended) in plants {
        let mut cells = good.clone();
        plant(cells.get_mut(&key).unwrap());
        rewrite(&saved, &path, &cells);
        let found = lines(&verify(&config, &[]).expect_code(1));
        let [line] = found.as_slice() else { panic!("{name}: {found:?}") };
        assert_is(line, &key, what, name);
        assert_eq!(line["found"], counts_json(cells[&key].0), "{name}");
        assert_eq!(line["expected"], counts_json(good[&key].0), "{name}");
        for (side, place, number) in [
            ("missing", "impressions", shown),
            ("missing", "plays", played),
            ("extra", "impressions", shown_more),
            ("extra", "plays", played_more),
        ] {
            assert_eq!(line[side][place]["total"], number, "{name}: {line}");
        }
        if played_more == 1 {
            assert_eq!(line["extra"]["plays"]["ids"], json!([intruder]), "{name}");
        }
        if shown == 1 {
            let gone = good[&key].1[0].first().unwrap();
            assert_eq!(line["missing"]["impressions"]["ids"], json!([gone]), "{name}");
        }
        check_repair(&config, name, is_mended, &path, &good, &cells);
    }

    let mut cells = good.clone();
    cells.remove(&key);
    rewrite(&saved, &path, &cells);
    let found = lines(&verify(&config, &[]).expect_code(1));
    let [line] = found.as_slice() else { panic!("a whole cell gone: {found:?}") };
    assert_is(line, &key, "absent", "a whole cell gone");
    assert_eq!(line["missing"]["impressions"]["total"], good[&key].0.impressions);
    check_repair(&config, "a whole cell gone", true, &path, &good, &cells);
}

fn counts_json(counts: CellCounts) -> Value {
    json!({ "impressions": counts.impressions, "plays": counts.plays })
}

#[track_caller]
fn assert_is(line: &Value, (lane, cell): &(u32, CellKey), what: &str, name: &str) {
    assert_eq!(line["video"], cell.video, "{name}: {line}");
    assert_eq!(line["epoch_start_ms"], cell.epoch_start_ms, "{name}: {line}");
    assert_eq!((&line["lane"], &line["slice"]), (&json!(lane), &json!({})), "{name}: {line}");
    assert_eq!((&line["what"], &line["place"]), (&json!(what), &json!("store")), "{name}: {line}");
}

/// A repair brings back what is missing; what is too much stays, and stays an error.
#[track_caller]
fn check_repair(
    config: &Path,
    name: &str,
    is_mended: bool,
    path: &Path,
    good: &BTreeMap<(u32, CellKey), Held>,
    planted: &BTreeMap<(u32, CellKey), Held>,
) {
    let finished = verify(config, &["--repair"]);
    assert_eq!(finished.code, Some(i32::from(!is_mended)), "{name}: {}", finished.stderr);
    assert_eq!(lines(&finished)[0]["repaired"], is_mended, "{name}");
    verify(config, &[]).expect_code(i32::from(!is_mended));
    assert!(held(path) == *if is_mended { good } else { planted }, "{name}: after the repair");
}

#[test]
fn files_repair_a_store_that_lacks_them_and_accuse_no_one_of_what_they_do_not_hold() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(10_000, 34);
    let config = job(&data, "files", "");
    // Every third line is not there when the store is filled.
    let part = |file: &Path| {
        let text = std::fs::read_to_string(file).unwrap();
        let some = text.lines().enumerate().filter(|(number, _)| number % 3 != 0);
        some.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let some = Data::of(part(&data.impressions), part(&data.plays));
    run(&mut some.backfill(&config)).expect_code(0);
    let path = store(&data, "files");
    let sealed_ms = sealed_ms(&path);
    let (from, to) = ("2016-11-21T00:00:00Z", sealed_ms.to_string());

    // The same files again: all that they have is there. There is no log, and that is said.
    with_files(&some, &config, &[]).expect_code(0).expect_words("extra members are judged");
    with_files(&some, &config, &["--from", from, "--to", &to]).expect_code(0);
    verify(&config, &[]).expect_code(1).expect_words("there is no log at");

    let found = with_files(&data, &config, &[]).expect_code(1).expect_words("max_ahead");
    assert!(lines(&found).len() > 1000, "{}", found.stderr);
    with_files(&data, &config, &["--repair"]).expect_code(0);
    with_files(&data, &config, &["--from", from, "--to", &to]).expect_code(0);
    let oracle = sealed(by_duckdb(&duckdb, &data), sealed_ms);
    assert_eq!(sealed(members::counts(&[&path]), sealed_ms), oracle);

    // Files that hold less accuse nobody, unless somebody says that they hold everything.
    with_files(&some, &config, &["--to", from]).expect_code(0);
    let first = Data::of(first_hour(&data.impressions), first_hour(&data.plays));
    with_files(&first, &config, &[]).expect_code(0);
    let accused = with_files(&some, &config, &["--from", from, "--to", &to]).expect_code(1);
    assert!(
        lines(&accused).iter().all(|line| {
            line["missing"]["impressions"]["total"] == 0 && line["what"] == "members"
        })
    );

    // A log that never held these events does not accuse them either.
    let service = Service::start(&config, &data.file("service.log"));
    assert_eq!(service.terminate(), Some(0));
    let silent = verify(&config, &[]).expect_code(0).expect_words("from files");
    assert_eq!(silent.stdout, b"");
}

/// Events of the first hour.
fn first_hour(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let is_first = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["ts"].as_i64().unwrap() < 1_479_690_000_000
    };
    text.lines().filter(is_first).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_service_repairs_its_closed_epochs_while_it_counts() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated_by(&["--requests=20000", "--seed=35", "--late=0.05"]);
    let repair = "[repair]\ninterval = \"1s\"\nhorizon = \"7d\"\n";
    let config = job(&data, "scheduled", &format!("{SMALL_BATCHES}{repair}"));
    let service = Service::start(&config, &data.file("service.log"));
    feed(&service, &data);
    assert!(service.get("/v1/status")["totals"]["late"].as_u64().unwrap() > 1000);
    // One run that began after everything was counted.
    let runs = metric(&service, "marquee_repair_runs_total");
    let until = Instant::now() + Duration::from_secs(120);
    while metric(&service, "marquee_repair_runs_total") < runs + 2.0 {
        assert!(Instant::now() < until, "no run is finished:\n{}", service.last_said());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(metric(&service, "marquee_repair_members_total") > 1000.0);
    assert_eq!(metric(&service, "marquee_repair_failures_total"), 0.0);
    assert_eq!(metric(&service, "marquee_repair_left_cells"), 0.0);
    assert!(metric(&service, "marquee_repair_last_success_seconds") > 1.7e9);
    // The store is the service's, and that is said.
    verify(&config, &[]).expect_code(1).expect_words("Stop that service");
    let stopped = Instant::now();
    assert_eq!(service.terminate(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(20), "a stop waits for the repair");
    verify(&config, &[]).expect_code(0);
    assert_members_are_duckdbs(&duckdb, &data, &store(&data, "scheduled"));
}

fn metric(service: &Service, name: &str) -> f64 {
    let url = format!("{}/metrics", service.address);
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[test]
fn wrong_usage_is_refused_before_anything_is_read() {
    let data = Data::generated(200, 36);
    let config = job(&data, "usage", "");
    let words = |flags: &[&str]| verify(&config, flags);
    words(&["--impressions", "x"]).expect_code(2).expect_words("--plays");
    words(&["--from", "yesterday"]).expect_code(2);
    words(&[]).expect_code(1).expect_words("there is no store at");
    run(&mut data.backfill(&config)).expect_code(0);
    words(&["--impressions", "/nowhere", "--plays", "/nowhere"])
        .expect_code(2)
        .expect_words("/nowhere");
    let counts = job(&data, "counts", "");
    let text = std::fs::read_to_string(&counts).unwrap();
    std::fs::write(&counts, text.replace("[store]", "[store]\nmembers = false")).unwrap();
    run(&mut data.backfill(&counts)).expect_code(0);
    with_files(&data, &counts, &[]).expect_code(0);
    with_files(&data, &counts, &["--repair"]).expect_code(2).expect_words("counts only");
    let help = run(&mut marquee(["verify", "--help"])).expect_code(0);
    let help = String::from_utf8(help.stdout).unwrap();
    for word in ["absent", "members", "count_members", "--repair", "Exit codes"] {
        assert!(help.contains(word), "{help}");
    }
}
