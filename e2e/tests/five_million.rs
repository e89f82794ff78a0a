//! The proof of the two stores, slow: five million events arrive in a real Kafka while the service is
//! killed ten times, the node of Cassandra twice, the broker once, and the object store is out of reach
//! for a minute. In the end counts and members in the tables and in the lake are the oracle's, training
//! examples have the labels of the definition, the archive of raw events has each record once, `verify`
//! finds nothing (counting from the log, and from the archive alone), and then each of five planted
//! corruptions.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cassandra::{Cql, make_tables, own_node, plant, store_section};
use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::kafka::{Arriving, Client, FAST_GROUP, Setup, own_broker};
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::Service;
use marquee_e2e::{examples, lake, skip};
use marquee_services::{Cassandra, Kafka, S3, S3Options, missing_for_s3};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const KEYSPACE: &str = "five_million";

/// Events a second: the faults meet work that is under way.
const RATE: u64 = 20_000;

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(300);

const AWAY: Duration = Duration::from_secs(60);

struct Test {
    duckdb: DuckDb,
    client: Client,
    cql: Cql,
    kafka: Kafka,
    node: Cassandra,
    s3: S3,
    /// Since when the object store is away.
    s3_away: Option<Instant>,
    lake: (String, PathBuf),
    data: Data,
    setup: Setup,
    all: u64,
}

impl Test {
    /// `None` where something is missing here: the test is skipped.
    fn new() -> Option<Test> {
        let (duckdb, client, cql) = (DuckDb::find()?, Client::find()?, Cql::find()?);
        if let Some(tool) = missing_for_s3() {
            skip::missing_tool(&tool);
            return None;
        }
        let (kafka, node) = (own_broker()?, own_node()?);
        let s3 = S3::start(S3Options::default()).unwrap();
        let lake = lake::s3_lake(&s3);
        let data = Data::generated_by(&["--requests=580000", "--seed=63", "--span=24h"]);
        let mut setup = Setup::new(&kafka.bootstrap(), &data, "five-million");
        setup.store_keys = store_section(node.address(), KEYSPACE);
        setup.create(&client, &[(&setup.impressions, 4, json!({})), (&setup.plays, 4, json!({}))]);
        let all = data.events();
        Some(Test { duckdb, client, cql, kafka, node, s3, s3_away: None, lake, data, setup, all })
    }

    fn config(&self) -> PathBuf {
        let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
        let job = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"40s\"");
        assert_ne!(job, reference);
        let more = format!(
            "[runtime]\nbatch_events = 5000\nbatch_interval = \"50ms\"\n\n[lake]\n\
             interval = \"500ms\"\nexamples = true\nexamples_interval = \"5s\"\n\
             deltas = \"20s\"\nevents = true\n{}",
            self.lake.0
        );
        self.setup.config_of("one", &job, FAST_GROUP, &more)
    }

    fn start(&self) -> Service {
        Service::start(&self.config(), &self.setup.file("log"))
    }

    /// Waits until this share of all events is counted, and looks that more arrives.
    fn in_flight(&self, arriving: &mut Arriving, service: &Service, percent: u64) -> u64 {
        let counted = wait_for(service, self.all * percent / 100);
        assert!(counted < self.all, "{counted} of {}: nothing is left to do", self.all);
        assert!(arriving.is_under_way(), "all events are there: none is in flight");
        eprintln!("a fault at {counted} of {} events", self.all);
        counted
    }

    /// Kills the node while events are on their way; it is away until the service says so.
    fn kill_node(&mut self, service: &Service) {
        self.node.kill();
        wait_until("it says that the store is away", || service.readiness() == 503);
        let committed = service.positions();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(service.positions(), committed, "nothing is committed meanwhile");
        self.node.start_again().unwrap();
    }

    fn kill_broker(&mut self, service: &Service) {
        self.kafka.kill();
        wait_until("it says that its broker is away", || service.readiness() == 503);
        self.kafka.start_again().unwrap();
    }

    fn heal_s3(&mut self) {
        if let Some(since) = self.s3_away.take() {
            std::thread::sleep(AWAY.saturating_sub(since.elapsed()));
            self.s3.start_again().unwrap();
        }
    }

    /// How many records the log has, as a stock client sees it: a broker that is killed may have a
    /// producer write a batch twice, idempotent or not.
    fn records(&self) -> u64 {
        let Setup { impressions, plays, .. } = &self.setup;
        let ask = json!({ "do": "committed", "group": "nobody",
                          "topics": { impressions.as_str(): 4, plays.as_str(): 4 } });
        let answer = self.setup.client(&self.client, ask);
        let places = answer["offsets"].as_array().unwrap().iter();
        places.map(|place| place[4].as_u64().unwrap()).sum()
    }

    /// Waits until the archive has so many records, and looks that each is there once.
    fn wait_until_kept(&self, service: &Service, records: u64) {
        let status = || service.get("/v1/status")["archive"].clone();
        let files = literal(&self.lake.1.join("events/**/*.parquet"));
        let count = format!(
            "select count(*), count(distinct (topic, lane, \"offset\"))
             from read_parquet({files}, hive_partitioning = true)"
        );
        let start = Instant::now();
        loop {
            let found = &self.duckdb.rows(&[&count])[0];
            assert_eq!(found[0], found[1], "a record is there twice");
            if found[0] == records {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{found:?} of {records} records: {}", status());
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// What `verify` writes, a line each.
    fn verify(&self, flags: &[&str], code: i32) -> Vec<Value> {
        let verify = &mut marquee(["verify", "-c"]);
        let finished = run(verify.arg(self.config()).args(flags)).expect_code(code);
        let lines = String::from_utf8(finished.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Waits until so many events are counted; how many are.
fn wait_for(service: &Service, events: u64) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = service.get("/v1/status");
        let counted = status["totals"]["events"].as_u64().unwrap();
        if counted >= events && status["ready"] == true {
            return counted;
        }
        let said = || format!("wanted {events} events: {status}\n{}", service.last_said());
        assert!(Instant::now() < until, "{}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn five_million_events_arrive_while_everything_dies_and_tables_and_lake_are_exact() {
    if !skip::slow() {
        return;
    }
    let Some(mut test) = Test::new() else { return };
    make_tables(&test.config());
    let mut service = test.start();
    let mut arriving = test.setup.arrive(&test.client, &test.data, RATE);
    for kill in 1..=10 {
        let before = test.in_flight(&mut arriving, &service, kill * 7);
        service.kill();
        service = test.start();
        wait_for(&service, before + 1);
        match kill {
            3 | 8 => {
                test.in_flight(&mut arriving, &service, kill * 7 + 3);
                test.kill_node(&service);
            }
            5 => {
                let before = test.in_flight(&mut arriving, &service, kill * 7 + 3);
                test.kill_broker(&service);
                wait_for(&service, before + 1);
            }
            // Away for a minute, in which the service is killed twice and nobody who counts notices.
            6 => {
                test.in_flight(&mut arriving, &service, kill * 7 + 2);
                test.s3.kill();
                test.s3_away = Some(Instant::now());
            }
            7 => test.heal_s3(),
            _ => {}
        }
    }
    assert_eq!(arriving.finish(), test.all, "the producer has written everything");
    let records = test.records();
    assert!(records >= test.all, "{records} records are in the log");
    let status = service.wait_until_counted(records);
    assert_eq!((&status["totals"]["dead"], &status["totals"]["late"]), (&json!(0), &json!(0)));
    lake::wait_until_sealed(&service);
    let (duckdb, data, folder) = (&test.duckdb, &test.data, &test.lake.1);
    let start = Instant::now();
    let [differing, all, played] = loop {
        let found = examples::differing(duckdb, data, folder);
        if found[0] == 0 || start.elapsed() > PATIENCE {
            break found;
        }
        std::thread::sleep(Duration::from_secs(2));
    };
    assert_eq!(differing, 0, "of {all} examples, {played} played\n{}", service.last_said());
    assert!(played > 10_000, "{played}");
    test.wait_until_kept(&service, records);
    let deltas = &service.get("/v1/status")["lake"]["delta_files"];
    assert!(deltas.as_u64() > Some(0), "no delta was written: {deltas}");
    assert_eq!(service.terminate(), Some(0));

    let at = test.node.address();
    test.cql.assert_exact(duckdb, data, at, KEYSPACE);
    let view = lake::by_manifests(folder);
    assert_eq!(lake::differing_members(duckdb, data, &view), 0, "members in the lake differ");
    let in_lake = lake::cells(duckdb, &view).into_iter();
    // The stock client of Cassandra tells no lengths of epochs.
    let in_lake: Vec<_> =
        in_lake.map(|cell| marquee_e2e::cells::Cell { epoch_ms: 0, ..cell }).collect();
    marquee_e2e::cells::assert_same(&in_lake, &test.cql.cells(at, KEYSPACE));
    assert_eq!(test.verify(&[], 0), Vec::<Value>::new(), "it finds nothing");
    assert_eq!(test.verify(&["--lake"], 0), Vec::<Value>::new(), "from the archive neither");
    let planted = plant(&test.cql, at, KEYSPACE);
    let found = test.verify(&[], 1);
    for (video, what) in planted {
        let is_found = found.iter().any(|line| line["video"] == video);
        assert!(is_found, "{what} in the cell of {video} is not among {found:?}");
    }
}
