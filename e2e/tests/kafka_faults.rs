//! Events arrive in a real Kafka while everything around the lanes breaks: the service is killed,
//! stopped until the group has missed it, its broker dies, its network is reset, its disk is full.
//! Each fault meets work in flight, all traffic passes a fault proxy, and in the end the sets are
//! those of the oracle, member by member, and the dead letters are the bad records, each once.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::Data;
use marquee_e2e::duckdb::DuckDb;
use marquee_e2e::kafka::{
    Arriving, Client, FAST_GROUP, Setup, assert_exact, dead_letters, missing, own_broker_behind,
};
use marquee_e2e::service::Service;
use marquee_e2e::skip;
use marquee_services::{Kafka, Toxiproxy, free_port, missing_for_toxiproxy};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Small batches: there are many moments at which a fault can strike.
const SMALL_BATCHES: &str = "[runtime]\nbatch_events = 5000\nbatch_interval = \"20ms\"\n";

/// `session.timeout.ms` of [`FAST_GROUP`] is 1.5 s.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(4);

const PROXY: &str = "kafka";

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(180);

/// A broker behind a fault proxy, events that arrive there, and what was planted among them.
struct Test {
    duckdb: DuckDb,
    client: Client,
    toxiproxy: Toxiproxy,
    kafka: Kafka,
    data: Data,
    setup: Setup,
    /// Good events, when all have arrived.
    all: u64,
    /// Where bad records stand: source as a letter names it, and offset.
    bad: Vec<(String, u64)>,
}

impl Test {
    /// `None` where something is missing here: the test is skipped. Event time moves on by
    /// `span`, so that epochs close while faults strike.
    fn new(name: &str, requests: u64, span: &str) -> Option<Test> {
        let (duckdb, client) = (DuckDb::find()?, Client::find()?);
        if let Some(tool) = missing_for_toxiproxy() {
            skip::missing_tool(&tool);
            return None;
        }
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let Some(kafka) = own_broker_behind(Some(address.clone())) else {
            missing();
            return None;
        };
        let toxiproxy = Toxiproxy::start().unwrap();
        toxiproxy.proxy(PROXY, port, &kafka.bootstrap()).unwrap();
        let flags =
            [format!("--requests={requests}"), "--seed=51".into(), format!("--span={span}")];
        let data = Data::generated_by(&flags.each_ref().map(String::as_str));
        let setup = Setup::new(&address, &data, name);
        setup.create(&client, &[(&setup.impressions, 4, json!({})), (&setup.plays, 4, json!({}))]);
        let (all, bad) = (data.events(), Vec::new());
        Some(Test { duckdb, client, toxiproxy, kafka, data, setup, all, bad })
    }

    fn config(&self, store: &str) -> PathBuf {
        self.setup.config(store, FAST_GROUP, SMALL_BATCHES)
    }

    fn start(&self, config: &Path) -> Service {
        Service::start(config, &self.setup.file("log"))
    }

    /// Waits until some services together have counted this share of all events, and looks that
    /// more arrives: what strikes now strikes at work in flight. How many they have counted.
    fn in_flight(&self, arriving: &mut Arriving, services: &[&Service], percent: u64) -> u64 {
        let counted = wait_for(services, self.all * percent / 100);
        assert!(counted < self.all, "{counted} of {}: nothing is left to do", self.all);
        assert!(arriving.is_under_way(), "all events are there: none is in flight");
        eprintln!("a fault at {counted} of {} events", self.all);
        counted
    }

    /// Bad records, of every kind that marquee sets aside, among those that arrive.
    fn plant(&mut self) {
        let Setup { impressions, plays, .. } = &self.setup;
        let number = self.bad.len();
        let record = |topic: &str, value: Value| {
            json!({ "topic": topic, "value": value,
                                                          "key": format!("bad-{number}") })
        };
        let no_video = json!({ "request_id": "bad", "ts": 1_479_686_400_000_u64 });
        let no_number = json!({ "request_id": "bad", "video_id": "v", "ts": 1_479_686_400_000_u64,
                                "duration_s": "long" });
        let records = [
            record(impressions, json!("neither JSON nor sense")),
            record(impressions, Value::Null),
            record(impressions, json!(no_video.to_string())),
            record(plays, json!(no_number.to_string())),
        ];
        let murmur2 = json!({ "partitioner": "murmur2_random" });
        let placed = self.setup.produce(&self.client, murmur2, &records);
        let topics = records.iter().map(|record| record["topic"].as_str().unwrap());
        let source = |(topic, (lane, offset))| (format!("{topic}/{lane}"), offset);
        self.bad.extend(topics.zip(placed).map(source));
    }

    /// How many records the log has, as a stock client sees it.
    fn records(&self) -> u64 {
        let Setup { impressions, plays, .. } = &self.setup;
        let ask = json!({ "do": "committed", "group": "nobody",
                          "topics": { impressions.as_str(): 4, plays.as_str(): 4 } });
        let answer = self.setup.client(&self.client, ask);
        let places = answer["offsets"].as_array().unwrap().iter();
        places.map(|place| place[4].as_u64().unwrap()).sum()
    }

    /// Everything has arrived: waits until the service has counted it, alone, and judges.
    fn judge(mut self, arriving: Arriving, service: Service, stores: &[&str]) {
        assert_eq!(arriving.finish(), self.all, "the producer has written everything");
        let (bad, records) = (self.bad.len() as u64, self.records());
        // A broker that is killed may have a producer write a batch twice, idempotent or not.
        assert!(records >= self.all + bad, "{records} records are in the log");
        let status = service.wait_until_counted(records);
        let totals = &status["totals"];
        assert_eq!(
            (&totals["events"], &totals["dead"]),
            (&json!(records), &json!(bad)),
            "{status}\n{}\nit said last:\n{}",
            service.positions(),
            service.last_said()
        );
        assert_eq!(totals["late"], 0, "{status}");
        let cells = service.trends().len();
        assert!(cells > 1000, "{cells} cells are served");
        assert_eq!(service.terminate(), Some(0));
        let stores: Vec<PathBuf> = stores.iter().map(|store| self.setup.store(store)).collect();
        let stores: Vec<&Path> = stores.iter().map(PathBuf::as_path).collect();
        assert_exact(&self.duckdb, &self.data, &stores);
        self.bad.sort();
        assert_eq!(letters(&stores), self.bad, "dead letters and bad records");
    }
}

/// Dead letters of stores: source and position. Within a store each record has one at most; two
/// stores may both have that of a record that both have read.
fn letters(stores: &[&Path]) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for store in stores {
        let of_lane =
            |lane| dead_letters(store, lane).into_iter().map(|letter| (letter.0, letter.1));
        let mut own: Vec<_> = (0..4).flat_map(of_lane).collect();
        own.sort();
        let letters = own.len();
        own.dedup();
        assert_eq!(own.len(), letters, "a record has two letters in {}", store.display());
        all.extend(own);
    }
    all.sort();
    all.dedup();
    all
}

/// Waits until some services together have counted so many events; how many they have.
fn wait_for(services: &[&Service], events: u64) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let statuses: Vec<Value> = services.iter().map(|s| s.get("/v1/status")).collect();
        let counted = |status: &Value| status["totals"]["events"].as_u64().unwrap();
        let sum: u64 = statuses.iter().map(counted).sum();
        if sum >= events && statuses.iter().all(|status| status["ready"] == true) {
            return sum;
        }
        assert!(Instant::now() < until, "wanted {events} events: {statuses:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lanes(service: &Service) -> usize {
    service.get("/v1/status")["lanes"].as_array().unwrap().len()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_million_events_arrive_under_every_fault_and_each_is_counted_once() {
    let Some(mut test) = Test::new("faults", 116_000, "6h") else { return };
    let (config, other) = (test.config("one"), test.config("two"));
    let one = test.start(&config);
    let mut arriving = test.setup.arrive(&test.client, &test.data, 20_000);

    // Killed.
    test.plant();
    let before = test.in_flight(&mut arriving, &[&one], 10);
    one.kill();
    let one = test.start(&config);
    wait_for(&[&one], before + 1);

    // Stopped for longer than its session lasts. Another member takes all lanes and counts on;
    // then the first one wakes in the middle of what it did, with lanes that are not its own.
    test.plant();
    let before = test.in_flight(&mut arriving, &[&one], 25);
    one.signal("STOP");
    let stopped = Instant::now();
    let two = test.start(&other);
    wait_until("the other member has all lanes", || lanes(&two) == 4);
    assert!(wait_for(&[&two], before + 1) > before);
    std::thread::sleep(LONGER_THAN_A_SESSION.saturating_sub(stopped.elapsed()));
    one.signal("CONT");
    wait_until("the lanes are shared", || (lanes(&one), lanes(&two)) == (2, 2));
    let before = wait_for(&[&one, &two], 0);
    wait_for(&[&one, &two], before + 1);
    assert_eq!(two.terminate(), Some(0));

    // The broker dies and comes back.
    test.plant();
    let before = test.in_flight(&mut arriving, &[&one], 50);
    test.kafka.kill();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(one.readiness(), 503, "it says that its broker is away");
    test.kafka.start_again().unwrap();
    wait_for(&[&one], before + 1);

    // The network resets every connection, old and new, for a while.
    test.plant();
    let before = test.in_flight(&mut arriving, &[&one], 75);
    test.toxiproxy.toxic(PROXY, r#"{"type": "reset_peer", "attributes": {"timeout": 0}}"#).unwrap();
    std::thread::sleep(LONGER_THAN_A_SESSION);
    test.toxiproxy.clear(PROXY).unwrap();
    wait_for(&[&one], before + 1);

    test.judge(arriving, one, &["one", "two"]);
}

/// A disk whose size can be changed; gone at the end of a test, however that ends.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir_all(&at).unwrap();
        let disk = Disk(at);
        disk.mounts("size=4g").then_some(disk)
    }

    fn mounts(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Leaves room for so many KiB more.
    fn shrink(&self, room_kib: u64) {
        let df = Command::new("df").args(["-k", "--output=used"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(df.stdout).unwrap();
        let used_kib: u64 = text.lines().last().unwrap().trim().parse().unwrap();
        let size_kib = used_kib + room_kib;
        assert!(self.mounts(&format!("remount,size={size_kib}k")), "the disk shrinks");
    }

    fn grow(&self) {
        assert!(self.mounts("remount,size=4g"), "the disk grows");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What the system says of a full disk.
const FULL: &str = "No space left on device";

#[test]
fn five_million_events_arrive_under_twenty_kills_and_a_full_disk_and_each_is_counted_once() {
    if !skip::slow() {
        return;
    }
    let Some(mut test) = Test::new("soak", 580_000, "24h") else { return };
    let Some(disk) = Disk::mount(test.setup.store("one")) else {
        return skip::skipped("mounting a disk needs root");
    };
    let config = test.config("one");
    let mut service = test.start(&config);
    let mut arriving = test.setup.arrive(&test.client, &test.data, 40_000);
    for kill in 1..=20 {
        test.plant();
        let before = test.in_flight(&mut arriving, &[&service], kill * 4);
        service.kill();
        service = test.start(&config);
        wait_for(&[&service], before + 1);
        if kill == 10 {
            service = fill_the_disk(&mut test, &mut arriving, service, &config, &disk);
        }
    }
    test.judge(arriving, service, &["one"]);
    drop(disk);
}

/// The disk fills up while events arrive: the service ends and says so, also when it is started
/// again; with room it goes on.
fn fill_the_disk(
    test: &mut Test,
    arriving: &mut Arriving,
    service: Service,
    config: &Path,
    disk: &Disk,
) -> Service {
    test.plant();
    disk.shrink(4096);
    let log = service.log.clone();
    assert_eq!(service.wait_within(PATIENCE), Some(1), "it ends on a full disk");
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains(FULL), "no {FULL:?} in:\n{said}");
    assert!(arriving.is_under_way(), "the disk was full while events arrived");
    disk.grow();
    let service = test.start(config);
    let counted = test.in_flight(arriving, &[&service], 1);
    wait_for(&[&service], counted + 1);
    service
}
