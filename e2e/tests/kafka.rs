//! The reference job on a real Kafka, under what happens to a service there: it is restarted,
//! killed, shares its lanes with another member, loses its broker, and finds its log trimmed.
//! Whatever happened, the sets are those of the oracle, member by member.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::DuckDb;
use marquee_e2e::kafka::{self, Client, FAST_GROUP, Setup, assert_exact, broker, succeed};
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::Service;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const REQUESTS: u64 = 100_000;

fn lines(file: &Path) -> u64 {
    std::fs::read_to_string(file).unwrap().lines().count() as u64
}

fn events(data: &Data) -> u64 {
    lines(&data.impressions) + lines(&data.plays)
}

/// Waits until the service has counted so many events, and looks that there is more to do.
fn wait_for(service: &Service, events: u64) -> Value {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let status = service.get("/v1/status");
        if status["totals"]["events"].as_u64().unwrap() >= events {
            return status;
        }
        assert!(Instant::now() < until, "wanted {events} events: {status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn cells_and_members_equal_the_oracle_and_so_they_do_after_a_restart() {
    let (Some(brokers), Some(duckdb), Some(client)) = (broker(), DuckDb::find(), Client::find())
    else {
        return;
    };
    let data = Data::generated(REQUESTS, 21);
    let setup = Setup::new(brokers, &data, "plain");
    let config = setup.config("store", FAST_GROUP, "");
    succeed(&mut setup.generate(&config, REQUESTS, 21));
    let log = setup.file("log");
    let service = Service::start(&config, &log);
    let status = service.wait_until_counted(events(&data));
    assert_eq!(
        (&status["totals"]["late"], &status["totals"]["dead"]),
        (&json!(0), &json!(0)),
        "{status}"
    );
    let metrics = metrics(&service);
    assert!(metrics.contains("marquee_lag_records{lane=\"3\"} 0.0"), "{metrics}");
    let by_kind = |kind: &str| format!("marquee_lane_held{{lane=\"{kind}\"}} 1.0");
    assert!((0..4).all(|lane| metrics.contains(&by_kind(&lane.to_string()))), "{metrics}");
    assert_eq!(service.terminate(), Some(0));
    let store = setup.store("store");
    assert_exact(&duckdb, &data, &[&store]);

    // What a stock client sees of the group: everything is committed, and each commit has its note.
    let topics = json!({ setup.impressions.clone(): 4, setup.plays.clone(): 4 });
    let ask = json!({ "do": "committed", "group": setup.group, "topics": topics });
    let answer = setup.client(&client, ask);
    for place in answer["offsets"].as_array().unwrap() {
        let [_, _, offset, _, high, note] = place.as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(offset, high, "{answer}");
        let note: Value = serde_json::from_str(note.as_str().unwrap()).unwrap();
        assert_eq!(note["marquee"], 1, "{note}");
    }

    let again = Service::start(&config, &log);
    let status = again.wait_until_counted(events(&data));
    assert_eq!(status["totals"]["events"], events(&data), "a replay inflates no counter");
    assert_eq!(again.terminate(), Some(0));
    assert_exact(&duckdb, &data, &[&store]);
}

fn metrics(service: &Service) -> String {
    let url = format!("{}/metrics", service.address);
    ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
}

/// Small batches: there are many moments at which a service can be killed.
const SMALL_BATCHES: &str = "[runtime]\nbatch_events = 5000\nbatch_interval = \"20ms\"\n";

#[test]
fn killed_at_five_moments_with_work_in_flight_it_counts_what_the_oracle_counts() {
    let (Some(brokers), Some(duckdb)) = (broker(), DuckDb::find()) else { return };
    let data = Data::generated(REQUESTS, 22);
    let setup = Setup::new(brokers, &data, "killed");
    let config = setup.config("store", FAST_GROUP, SMALL_BATCHES);
    succeed(&mut setup.generate(&config, REQUESTS, 22));
    let (all, log) = (events(&data), setup.file("log"));
    for share in [10, 30, 50, 65, 85] {
        let service = Service::start(&config, &log);
        let status = wait_for(&service, all * share / 100);
        let counted = status["totals"]["events"].as_u64().unwrap();
        service.kill();
        assert!(counted < all, "it was killed after its work was done: {status}");
    }
    let service = Service::start(&config, &log);
    let status = service.wait_until_counted(all);
    assert_eq!(status["totals"]["events"], all, "{status}");
    assert_eq!(status["totals"]["late"], 0, "{status}");
    assert_eq!(service.terminate(), Some(0));
    assert_exact(&duckdb, &data, &[&setup.store("store")]);
}

#[test]
fn a_broker_that_dies_and_comes_back_costs_nothing() {
    let (Some(mut kafka), Some(duckdb)) = (kafka::own_broker(), DuckDb::find()) else {
        return kafka::missing();
    };
    let data = Data::generated(REQUESTS, 23);
    let setup = Setup::new(&kafka.bootstrap(), &data, "broker");
    let config = setup.config("store", FAST_GROUP, SMALL_BATCHES);
    succeed(&mut setup.generate(&config, REQUESTS, 23));
    let service = Service::start(&config, &setup.file("log"));
    let all = events(&data);
    let status = wait_for(&service, all * 3 / 10);
    assert!(status["totals"]["events"].as_u64().unwrap() < all, "{status}");
    kafka.kill();
    std::thread::sleep(Duration::from_secs(2));
    let url = format!("{}/healthz", service.address);
    assert_eq!(ureq::get(&url).call().unwrap().status(), 200, "it waits for its broker, and lives");
    let status = service.get("/v1/status");
    let reasons = status["reasons"].to_string();
    assert!(status["ready"] == false && reasons.contains("no Kafka broker answers"), "{reasons}");
    kafka.start_again().unwrap();
    let status = service.wait_until_counted(all);
    assert_eq!(status["totals"]["late"], 0, "{status}");
    assert_eq!(service.terminate(), Some(0));
    assert_exact(&duckdb, &data, &[&setup.store("store")]);
}

#[test]
fn a_service_can_be_stopped_while_its_broker_is_away_and_goes_on_later() {
    let (Some(mut kafka), Some(duckdb)) = (kafka::own_broker(), DuckDb::find()) else {
        return kafka::missing();
    };
    let data = Data::generated(5_000, 27);
    let setup = Setup::new(&kafka.bootstrap(), &data, "stopped");
    let config = setup.config("store", FAST_GROUP, "");
    succeed(&mut setup.generate(&config, 5_000, 27));
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(events(&data));
    kafka.kill();
    let stopping = Instant::now();
    assert_eq!(service.terminate(), Some(0));
    let seconds = stopping.elapsed().as_secs();
    assert!(seconds < 30, "whoever stops services would have killed it after {seconds} s");
    kafka.start_again().unwrap();
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(events(&data));
    assert_eq!(service.terminate(), Some(0));
    assert_exact(&duckdb, &data, &[&setup.store("store")]);
}

#[test]
fn members_that_join_leave_and_die_count_together_what_one_would() {
    let (Some(brokers), Some(duckdb)) = (broker(), DuckDb::find()) else { return };
    // Two stretches of time, one after the other, so that there is work whenever it is needed.
    let (early, late) = (["--seed=24"], ["--seed=25", "--start=2016-11-21T03:00:00Z"]);
    let (early_data, late_data) = (generated(&early), generated(&late));
    let both = |of: fn(&Data) -> &Path| {
        [std::fs::read(of(&early_data)).unwrap(), std::fs::read(of(&late_data)).unwrap()].concat()
    };
    let data = Data::of(both(|data| &data.impressions), both(|data| &data.plays));
    let setup = Setup::new(brokers, &data, "members");
    let (one, two) = (
        setup.config("one", FAST_GROUP, SMALL_BATCHES),
        setup.config("two", FAST_GROUP, SMALL_BATCHES),
    );
    let to_kafka = |flags: &[&str]| {
        let mut command = marquee(["generate", "--out", "kafka", "-c"]);
        command.arg(&one).arg(format!("--requests={REQUESTS}")).args(flags);
        command
    };
    succeed(&mut to_kafka(&early));
    let all = events(&data);
    let first = Service::start(&one, &setup.file("one.log"));
    wait_for(&first, events(&early_data) / 10);
    // A second member takes half of the lanes from the first, which is in the middle of them.
    let second = Service::start(&two, &setup.file("two.log"));
    assert_eq!(wait_until_shared(&first, &second), (2, 2));
    // The first one leaves in order; the second has all lanes.
    assert_eq!(first.terminate(), Some(0));
    second.wait_until_counted(events(&early_data));
    // It comes back, and while new work arrives the second one dies without a word.
    let first = Service::start(&one, &setup.file("one.log"));
    assert_eq!(wait_until_shared(&first, &second), (2, 2));
    let before = second.get("/v1/status")["totals"]["events"].as_u64().unwrap();
    let mut arriving = to_kafka(&late).spawn().unwrap();
    wait_for(&second, before + 50_000);
    assert!(arriving.try_wait().unwrap().is_none(), "it is killed while work arrives");
    second.kill();
    assert!(arriving.wait().unwrap().success());
    let status = first.wait_until_counted(all);
    assert_eq!(status["totals"]["events"], all, "{status}");
    assert_eq!(status["totals"]["late"], 0, "{status}");

    // Alone, either store may lack what the other one has, and says so.
    let incomplete = trends(&first).iter().filter(|cell| cell["complete"] == false).count();
    assert!(incomplete > 0, "epochs that were closed elsewhere must be served as incomplete");
    assert_eq!(first.terminate(), Some(0));
    let stores = [setup.store("one"), setup.store("two")];
    assert_exact(&duckdb, &data, &[&stores[0], &stores[1]]);
}

fn generated(flags: &[&str]) -> Data {
    let data = Data::of("", "");
    let folder = data.impressions.parent().unwrap();
    let mut command = marquee(["generate", "--out"]);
    succeed(command.arg(folder).arg(format!("--requests={REQUESTS}")).args(flags));
    data
}

/// Waits until both members have lanes and are done with rebuilding; how many each has.
fn wait_until_shared(one: &Service, two: &Service) -> (usize, usize) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = [one.get("/v1/status"), two.get("/v1/status")];
        let held = |status: &Value| status["lanes"].as_array().unwrap().len();
        let counts = (held(&status[0]), held(&status[1]));
        let are_ready = status.iter().all(|status| status["ready"] == true);
        if counts.0 > 0 && counts.1 > 0 && are_ready {
            return counts;
        }
        assert!(Instant::now() < until, "the lanes are not shared: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All cells that a service serves.
fn trends(service: &Service) -> Vec<Value> {
    let (mut cells, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/v1/trends?limit=10000&sort=video{after}"));
        cells.extend(page["cells"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return cells,
        }
    }
}

#[test]
fn a_log_trimmed_inside_the_horizon_leaves_gaps_on_exactly_the_right_cells() {
    let (Some(brokers), Some(client)) = (broker(), Client::find()) else { return };
    let data = Data::generated(30_000, 25);
    let setup = Setup::new(brokers, &data, "trimmed");
    let config = setup.config("store", FAST_GROUP, "");
    succeed(&mut setup.generate(&config, 30_000, 25));
    let service = Service::start(&config, &setup.file("log"));
    let status = service.wait_until_counted(events(&data));
    let before = trends(&service);
    assert!(before.iter().all(|cell| cell["complete"] == true), "nothing is missing yet");
    assert_eq!(service.terminate(), Some(0));

    // Two lanes lose the first 99 % of one topic each: facts of open epochs are among them.
    let records = consume(&setup, &client);
    let (shown, played) = (&setup.impressions, &setup.plays);
    let cut = |topic: &str, lane: u32| {
        records.iter().filter(|r| r.topic == topic && r.lane == lane).count() as u64 * 99 / 100
    };
    let trims = [(shown, 1, cut(shown, 1)), (played, 2, cut(played, 2))];
    let trim: Vec<Value> = trims.iter().map(|(t, p, o)| json!([t, p, o])).collect();
    setup.client(&client, json!({ "do": "trim", "before": trim }));

    // By the definition: an open epoch of a lane is doubtful if one of its impressions is gone, or
    // a play is gone that could have matched one of its impressions.
    let frontier = |lane: u32| {
        let lanes = status["lanes"].as_array().unwrap();
        let lane = lanes.iter().find(|l| l["lane"] == lane).unwrap();
        lane["frontier_ms"].as_i64().unwrap()
    };
    let (epoch_ms, within_ms) = (1_800_000, 3_600_000);
    let mut doubtful = std::collections::BTreeSet::new();
    for record in &records {
        let Some((_, lane, before)) =
            trims.iter().find(|(topic, lane, _)| **topic == record.topic && *lane == record.lane)
        else {
            continue;
        };
        if record.offset >= *before || !record.counts {
            continue;
        }
        let epoch = record.time_ms.div_euclid(epoch_ms) * epoch_ms;
        let first = if record.topic == *played { epoch - within_ms } else { epoch };
        let epochs = (first..=epoch).step_by(epoch_ms as usize);
        doubtful.extend(epochs.filter(|epoch| *epoch >= frontier(*lane)));
    }
    assert!(!doubtful.is_empty(), "the trim touches no open epoch: the test tests nothing");

    // A snapshot holds what the log has lost: with it, nothing is missing.
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(events(&data));
    let mut whole = trends(&service);
    for (cell, was) in whole.iter_mut().zip(&before) {
        // The frontier may have moved since: what was sealed stays so, and more may be.
        assert!(cell["sealed"] == true || was["sealed"] == false, "{cell}");
        cell["sealed"] = was["sealed"].clone();
    }
    assert_eq!(whole, before);
    assert_eq!(service.terminate(), Some(0));

    std::fs::remove_dir_all(setup.store("store").join("snapshots")).unwrap();
    let config = setup.config("store", FAST_GROUP, "[snapshots]\ninterval = \"0s\"\n");
    let service = Service::start(&config, &setup.file("log"));
    service.wait_until_counted(events(&data));
    let after = trends(&service);
    assert_eq!(after.len(), before.len());
    for (cell, was) in after.iter().zip(&before) {
        let epoch = cell["epoch_start_ms"].as_i64().unwrap();
        assert_eq!(cell["complete"], !doubtful.contains(&epoch), "{cell}");
        assert_eq!((&cell["impressions"], &cell["plays"]), (&was["impressions"], &was["plays"]));
    }
    assert!(after.iter().any(|cell| cell["complete"] == true), "not all cells are doubtful");

    // It goes on from the members that the store holds: what was counted once is not counted
    // again, and what is new is.
    let newest = records.iter().filter(|r| r.topic == *shown && r.lane == 1 && r.counts);
    let gone = newest.clone().filter(|r| r.offset < trims[0].2);
    let again = gone.max_by_key(|r| r.time_ms).unwrap();
    let fresh_id = (0..).map(|n| format!("fresh-{n}")).find(|id| murmur_lane(id) == 1).unwrap();
    let event = |id: &str| {
        json!({ "request_id": id, "video_id": again.video, "ts": again.time_ms, "device": "tv" })
            .to_string()
    };
    let record = |id: &str| {
        json!({ "topic": shown, "partition": 1, "key": id, "value": event(id),
                "timestamp": again.time_ms })
    };
    let records = [record(&again.request_id), record(&fresh_id)];
    let answer = setup.client(&client, json!({ "do": "produce", "records": records }));
    assert_eq!(answer["failed"], json!([]));
    service.wait_until_counted(events(&data) + 2);
    let cell = |cells: &[Value]| {
        let epoch = again.time_ms.div_euclid(epoch_ms) * epoch_ms;
        let is_it = |c: &&Value| c["video"] == *again.video && c["epoch_start_ms"] == epoch;
        cells.iter().find(is_it).unwrap()["impressions"].as_u64().unwrap()
    };
    assert_eq!(cell(&trends(&service)), cell(&before) + 1);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_log_that_lost_its_beginning_before_it_was_read_says_which_cells_may_lack_members() {
    let (Some(brokers), Some(client)) = (broker(), Client::find()) else { return };
    let data = Data::generated(20_000, 26);
    let setup = Setup::new(brokers, &data, "beginning");
    let config = setup.config("store", FAST_GROUP, "");
    succeed(&mut setup.generate(&config, 20_000, 26));
    let records = consume(&setup, &client);
    let offset = 10_000;
    let trim = json!([[setup.impressions, 0, offset]]);
    setup.client(&client, json!({ "do": "trim", "before": trim }));
    let service = Service::start(&config, &setup.file("log"));
    let left = events(&data) - offset;
    service.wait_until_counted(left);
    let whole = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    let served = trends(&service);
    let first_times = records
        .iter()
        .filter(|r| r.topic == setup.impressions && r.lane == 0)
        .filter(|r| (offset..offset + 16).contains(&r.offset))
        .map(|r| r.record_time_ms);
    // What is gone was stamped no later than the first records that are left, and `lateness`; no
    // event is further ahead of its record than `max_ahead`. Both are 10 minutes.
    let last_doubtful = (first_times.max().unwrap() + 1_200_000).div_euclid(1_800_000) * 1_800_000;
    let (mut complete, mut incomplete) = (0, 0);
    for cell in &served {
        let epoch = cell["epoch_start_ms"].as_i64().unwrap();
        assert_eq!(cell["complete"], epoch > last_doubtful, "{cell}");
        let true_one = whole.iter().find(|c| c.video == cell["video"] && c.epoch_start_ms == epoch);
        let true_one = true_one.expect("never a cell that the oracle has not");
        let counts = (cell["impressions"].as_u64().unwrap(), cell["plays"].as_u64().unwrap());
        if cell["complete"] == true {
            complete += 1;
            assert_eq!(counts, (true_one.impressions, true_one.plays), "{cell}");
        } else {
            incomplete += 1;
            assert!(counts.0 <= true_one.impressions && counts.1 <= true_one.plays, "{cell}");
        }
    }
    assert!(complete > 1000 && incomplete > 1000, "{complete} complete, {incomplete} incomplete");
    assert_eq!(service.terminate(), Some(0));
}

/// A record as the stock client reads it.
struct Read {
    topic: String,
    lane: u32,
    offset: u64,
    request_id: String,
    video: String,
    time_ms: i64,
    record_time_ms: i64,
    /// Whether the reference job's filters let it through.
    counts: bool,
}

fn consume(setup: &Setup, client: &Client) -> Vec<Read> {
    let topics = json!({ setup.impressions.clone(): 4, setup.plays.clone(): 4 });
    let answer = setup.client(client, json!({ "do": "consume", "topics": topics }));
    let read = |record: &Value| {
        let event: Value = serde_json::from_str(record[4].as_str().unwrap()).unwrap();
        let counts = match event.get("duration_s") {
            Some(seconds) => seconds.as_i64().unwrap() >= 60,
            None => event["device"] != "console",
        };
        Read {
            topic: record[0].as_str().unwrap().to_owned(),
            lane: record[1].as_u64().unwrap() as u32,
            offset: record[2].as_u64().unwrap(),
            request_id: event["request_id"].as_str().unwrap().to_owned(),
            video: event["video_id"].as_str().unwrap().to_owned(),
            time_ms: event["ts"].as_i64().unwrap(),
            record_time_ms: record[5].as_i64().unwrap(),
            counts,
        }
    };
    answer["records"].as_array().unwrap().iter().map(read).collect()
}

/// Kafka's murmur2 partitioner over four partitions, written down again for this test: seed and
/// mixing constants as in `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur_lane(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let m = 0x5bd1_e995_u32;
    let mut h = 0x9747_b28c_u32 ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(m);
        k = (k ^ (k >> 24)).wrapping_mul(m);
        h = h.wrapping_mul(m) ^ k;
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(m);
    }
    h = (h ^ (h >> 13)).wrapping_mul(m);
    ((h ^ (h >> 15)) & 0x7fff_ffff) % 4
}

#[test]
fn what_the_collector_accepts_stands_in_kafka_for_everybody() {
    let (Some(brokers), Some(client)) = (broker(), Client::find()) else { return };
    let data = Data::of("", "");
    let setup = Setup::new(brokers, &data, "collector");
    let config = setup.config("store", FAST_GROUP, "");
    setup.create(&client, &[(&setup.impressions, 4, json!({})), (&setup.plays, 4, json!({}))]);
    let service = Service::start(&config, &setup.file("log"));
    let now_ms = service.get("/v1/status")["now_ms"].as_i64().unwrap();
    let event = |n: u32| {
        json!({ "request_id": format!("r{n}"), "video_id": "v", "ts": now_ms, "device": "tv" })
            .to_string()
    };
    let body: Vec<String> = (0..100).map(event).collect();
    let (status, answer) =
        marquee_e2e::service::post(&service.address, "impressions", body.join("\n").as_bytes())
            .unwrap();
    assert_eq!((status, &answer["accepted"]), (202, &json!(100)));
    let played = json!({ "request_id": "r7", "video_id": "v", "ts": now_ms, "duration_s": 90 });
    let posted =
        marquee_e2e::service::post(&service.address, "plays", played.to_string().as_bytes());
    assert_eq!(posted.unwrap().0, 202);
    service.wait_until_counted(101);
    let cell = &trends(&service)[0];
    assert_eq!((&cell["impressions"], &cell["plays"]), (&json!(100), &json!(1)));
    assert_eq!(service.terminate(), Some(0));
    let records = consume(&setup, &client);
    assert_eq!(records.len(), 101);
    assert!(records.iter().all(|record| murmur_lane(&record.request_id) == record.lane));
}

#[test]
fn the_demo_runs_on_kafka() {
    let Some(brokers) = broker() else { return };
    let mut command = marquee(["demo", "--port", "0", "--for", "5s", "--rate", "500"]);
    let finished = run(command.arg("--log").arg(format!("kafka://{brokers}"))).expect_code(0);
    let first = String::from_utf8(finished.stdout.clone()).unwrap();
    assert!(first.starts_with("listening on http://127.0.0.1:"), "{first}");
    finished.expect_words("events were sent and accepted");
}
