//! `[store] kind = "cassandra"` with a real node, and a lake in a real object store: events arrive in a
//! real Kafka while the service is killed, while the node dies, stands still, answers late or not at
//! all, and while the object store is away. In the end a stock driver finds the oracle's counts and
//! members in the tables, DuckDB finds them in the lake, `verify` finds nothing, and then each of five
//! planted corruptions.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cassandra::{Cql, alone, make_tables, own_node, plant, store_section};
use marquee_e2e::cells::Cell;
use marquee_e2e::data::{Data, example};
use marquee_e2e::duckdb::DuckDb;
use marquee_e2e::kafka::{Arriving, Client, FAST_GROUP, Setup, broker, succeed};
use marquee_e2e::lake;
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::Service;
use marquee_e2e::skip;
use marquee_services::{Cassandra, S3, S3Options, Toxiproxy};
use marquee_services::{free_port, missing_for_s3, missing_for_toxiproxy};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Small batches: there are many moments at which a fault can strike.
const SMALL_BATCHES: &str = "[runtime]\nbatch_events = 5000\nbatch_interval = \"50ms\"\n";

const KEYSPACE: &str = "marquee_test";

/// No wait here takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(180);

/// A fault proxy before a node.
const PROXY: &str = "cassandra";

struct Test {
    duckdb: DuckDb,
    client: Client,
    cql: Cql,
    node: Cassandra,
    toxiproxy: Toxiproxy,
    s3: S3,
    /// `[lake]`, and the folder that the lake is.
    lake: (String, PathBuf),
    data: Data,
    setup: Setup,
    all: u64,
}

impl Test {
    /// `None` where something is missing here: the test is skipped.
    fn new(name: &str, requests: u64, span: &str) -> Option<Test> {
        let (duckdb, client, cql) = (DuckDb::find()?, Client::find()?, Cql::find()?);
        if let Some(tool) = missing_for_toxiproxy().or_else(missing_for_s3) {
            skip::missing_tool(&tool);
            return None;
        }
        let (brokers, node) = (broker()?, own_node()?);
        let s3 = S3::start(S3Options::default()).unwrap();
        let lake = lake::s3_lake(&s3);
        let port = free_port();
        let toxiproxy = Toxiproxy::start().unwrap();
        toxiproxy.proxy(PROXY, port, &node.address().to_string()).unwrap();
        let flags =
            [format!("--requests={requests}"), "--seed=61".into(), format!("--span={span}")];
        let data = Data::generated_by(&flags.each_ref().map(String::as_str));
        let mut setup = Setup::new(brokers, &data, name);
        setup.store_keys = store_section(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), KEYSPACE);
        setup.create(&client, &[(&setup.impressions, 4, json!({})), (&setup.plays, 4, json!({}))]);
        let all = data.events();
        Some(Test { duckdb, client, cql, node, toxiproxy, s3, lake, data, setup, all })
    }

    /// The reference job. A topic without events is waited for so long that nothing comes late, and
    /// in the end every epoch is sealed.
    fn config(&self) -> PathBuf {
        let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
        let job = reference.replace("early = \"0s\"", "early = \"0s\"\nidle_grace = \"20s\"");
        assert_ne!(job, reference);
        let more = format!("{SMALL_BATCHES}\n[lake]\ninterval = \"200ms\"\n{}", self.lake.0);
        self.setup.config_of("one", &job, FAST_GROUP, &more)
    }

    /// What `verify` writes, a line each.
    fn verify(&self, code: i32) -> Vec<Value> {
        let finished = run(marquee(["verify", "-c"]).arg(self.config())).expect_code(code);
        let lines = String::from_utf8(finished.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn start(&self) -> Service {
        Service::start(&self.config(), &self.setup.file("log"))
    }

    /// Waits until this share of all events is counted, and looks that more arrives.
    fn in_flight(&self, arriving: &mut Arriving, service: &Service, percent: u64) -> u64 {
        let counted = wait_for(service, self.all * percent / 100);
        assert!(counted < self.all, "{counted} of {}: nothing is left to do", self.all);
        assert!(arriving.is_under_way(), "all events are there: none is in flight");
        counted
    }

    fn toxic(&self, toxic: &str) {
        self.toxiproxy.toxic(PROXY, toxic).unwrap();
    }

    /// The node does not take anything: it says so, commits nothing, and goes on when it does.
    fn waits_for_the_store(&self, service: &Service, heal: impl FnOnce()) {
        wait_until("it says that the store is away", || service.readiness() == 503);
        let ready = service.get_any("/readyz");
        assert!(ready.to_string().contains("the store has not taken"), "{ready}");
        let committed = service.positions();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(service.positions(), committed, "nothing is committed meanwhile");
        heal();
        let before = counted(service);
        wait_for(service, before + 1);
    }
}

fn counted(service: &Service) -> u64 {
    service.get("/v1/status")["totals"]["events"].as_u64().unwrap()
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
fn a_million_events_arrive_while_the_store_fails_in_every_way_and_all_are_in_it() {
    let _alone = alone();
    let Some(mut test) = Test::new("cassandra-faults", 116_000, "6h") else { return };
    make_tables(&test.config());
    let service = test.start();
    let mut arriving = test.setup.arrive(&test.client, &test.data, 13_000);

    // The service is killed.
    let before = test.in_flight(&mut arriving, &service, 5);
    service.kill();
    let service = test.start();
    wait_for(&service, before + 1);

    // The node is killed, and comes back.
    test.in_flight(&mut arriving, &service, 10);
    test.node.kill();
    wait_until("it says that the store is away", || service.readiness() == 503);
    let committed = service.positions();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(service.positions(), committed, "nothing is committed meanwhile");
    test.node.start_again().unwrap();
    let before = counted(&service);
    wait_for(&service, before + 1);

    // The node stands still, with all its connections open.
    test.in_flight(&mut arriving, &service, 35);
    test.node.pause();
    wait_until("it says that the store is away", || service.readiness() == 503);
    test.node.resume();
    let before = counted(&service);
    wait_for(&service, before + 1);

    // Connections that are half open: nothing comes through, nobody says so.
    test.in_flight(&mut arriving, &service, 48);
    test.toxic(r#"{"type": "timeout", "attributes": {"timeout": 0}}"#);
    test.waits_for_the_store(&service, || test.toxiproxy.clear(PROXY).unwrap());

    // The object store dies, and nobody who counts notices.
    let before = test.in_flight(&mut arriving, &service, 55);
    test.s3.kill();
    wait_for(&service, before + test.all / 50);
    test.s3.start_again().unwrap();

    // Every connection is reset.
    test.in_flight(&mut arriving, &service, 65);
    test.toxic(r#"{"type": "reset_peer", "attributes": {"timeout": 0}}"#);
    test.waits_for_the_store(&service, || test.toxiproxy.clear(PROXY).unwrap());

    // Every answer is late. That is no trouble, only slower.
    let before = test.in_flight(&mut arriving, &service, 78);
    test.toxic(r#"{"type": "latency", "attributes": {"latency": 300, "jitter": 100}}"#);
    wait_for(&service, before + 1);
    test.toxiproxy.clear(PROXY).unwrap();

    assert_eq!(arriving.finish(), test.all);
    let status = service.wait_until_counted(test.all);
    assert_eq!((&status["totals"]["dead"], &status["totals"]["late"]), (&json!(0), &json!(0)));
    let cells = service.trends().len();
    assert!(cells > 1000, "{cells} cells are served");
    lake::wait_until_sealed(&service);
    assert_eq!(service.terminate(), Some(0));
    let at = test.node.address();
    test.cql.assert_exact(&test.duckdb, &test.data, at, KEYSPACE);
    let view = lake::by_manifests(&test.lake.1);
    let differing = lake::differing_members(&test.duckdb, &test.data, &view);
    assert_eq!(differing, 0, "members in the lake differ from the oracle's");
    marquee_e2e::cells::assert_same(
        &lake::cells(&test.duckdb, &view).into_iter().map(without_length).collect::<Vec<_>>(),
        &test.cql.cells(at, KEYSPACE),
    );
    assert_eq!(test.verify(0), Vec::<Value>::new(), "it finds nothing");
    let planted = plant(&test.cql, at, KEYSPACE);
    let found = test.verify(1);
    for (video, what) in planted {
        let of_video = found.iter().filter(|line| line["video"] == video);
        let whats: Vec<&Value> = of_video.map(|line| &line["what"]).collect();
        assert!(!whats.is_empty(), "{what} in the cell of {video} is not among {found:?}");
    }
}

/// The stock client tells no lengths of epochs.
fn without_length(cell: Cell) -> Cell {
    Cell { epoch_ms: 0, ..cell }
}

/// A job with the embedded log.
fn embedded_log(setup: &Setup, name: &str, job: &str) -> PathBuf {
    let config = setup.config_of(name, job, "", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let embedded = text.replace("kind = \"kafka\"\nbrokers", "lanes = 4\nbrokers");
    assert_ne!(embedded, text);
    std::fs::write(&config, embedded).unwrap();
    config
}

#[test]
fn commands_read_and_write_the_store_and_refuse_what_does_not_fit() {
    let _alone = alone();
    let (Some(cql), Some(duckdb), Some(node)) = (Cql::find(), DuckDb::find(), own_node()) else {
        return;
    };
    let data = Data::generated(3000, 7);
    let mut setup = Setup::new("127.0.0.1:1", &data, "cassandra-commands");
    setup.store_keys = store_section(node.address(), KEYSPACE);
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let config = embedded_log(&setup, "one", &reference);
    let command = |name: &str| {
        let mut command = marquee([name]);
        command.arg("-c").arg(&config);
        command
    };
    let no_tables = run(&mut command("trends")).expect_code(2);
    no_tables.expect_words("marquee schema");
    let printed = run(command("schema").arg("--print")).expect_code(0);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("CREATE TABLE IF NOT EXISTS"));
    assert!(
        cql.run(node.address(), "SELECT keyspace_name FROM system_schema.keyspaces")
            .iter()
            .all(|row| row[0] != KEYSPACE),
        "printing makes nothing"
    );
    make_tables(&config);
    make_tables(&config); // again: nothing happens
    run(&mut command("trends")).expect_code(1).expect_words("nothing has been counted yet");

    let mut backfill = command("backfill");
    backfill.arg("--impressions").arg(&data.impressions).arg("--plays").arg(&data.plays);
    succeed(&mut backfill);
    succeed(&mut backfill); // again: the same sets
    cql.assert_exact(&duckdb, &data, node.address(), KEYSPACE);
    let csv = run(command("trends").args(["--format", "csv", "--all-slices"])).expect_code(0);
    let served = marquee_e2e::cells::of_csv(&csv.stdout);
    marquee_e2e::cells::assert_same(&served, &cql.cells(node.address(), KEYSPACE));

    // Other settings have nothing to do there.
    let other = embedded_log(&setup, "other", &reference.replace("1h", "2h"));
    let refused = run(marquee(["trends", "-c"]).arg(&other)).expect_code(2);
    refused.expect_words("counts otherwise");

    // What has outlived its retention is not written; what has not goes when it has.
    for (keyspace, retention, is_kept) in [("brief", "3d", false), ("long", "7200d", true)] {
        setup.store_keys =
            format!("{}\nretention = \"{retention}\"", store_section(node.address(), keyspace));
        let config = embedded_log(&setup, keyspace, &reference);
        make_tables(&config);
        let mut backfill = marquee(["backfill", "-c"]);
        backfill.arg(&config).arg("--impressions").arg(&data.impressions);
        succeed(backfill.arg("--plays").arg(&data.plays));
        let ttl = format!("SELECT TTL(impressions), TTL(plays), plays FROM {keyspace}.counts");
        let rows = cql.run(node.address(), &ttl);
        assert_eq!(!rows.is_empty(), is_kept, "{keyspace}");
        let ends = |row: &Value| {
            row[0].as_i64() > Some(0) && (row[2].is_null() || row[1].as_i64() > Some(0))
        };
        assert!(rows.iter().all(ends), "every count ends some time");
        let csv = run(marquee(["trends", "--format=csv", "-c"]).arg(&config)).expect_code(0);
        assert_eq!(!marquee_e2e::cells::of_csv(&csv.stdout).is_empty(), is_kept, "{keyspace}");
    }

    // Members that are kept in the lake go from the store by themselves; counts stay.
    let keys = store_section(node.address(), "for_a_while");
    setup.store_keys = format!("{keys}\nmembers = \"lake\"");
    let lake = "[lake]\nurl = \"file:members-lake\"\n";
    let config = embedded_log(&setup, "for_a_while", &format!("{reference}\n{lake}"));
    make_tables(&config);
    let mut backfill = marquee(["backfill", "-c"]);
    backfill.arg(&config).arg("--impressions").arg(&data.impressions);
    succeed(backfill.arg("--plays").arg(&data.plays));
    let ttl_of = |what: &str| cql.run(node.address(), &format!("SELECT {what}"));
    let members = ttl_of("TTL(ids) FROM for_a_while.members");
    let two_days = 2 * 24 * 3600;
    let is_brief = |row: &Value| (1..=two_days + 3600).contains(&row[0].as_i64().unwrap_or(0));
    assert!(!members.is_empty() && members.iter().all(is_brief), "{members:?}");
    let counts = ttl_of("TTL(impressions) FROM for_a_while.counts");
    assert!(!counts.is_empty() && counts.iter().all(|row| row[0].is_null()), "counts stay");

    // A row as everybody reads it: the timestamp is the start of the epoch and the count.
    let row = "SELECT epoch_start, impressions, WRITETIME(impressions) FROM marquee_test.counts";
    for row in cql.run(node.address(), row) {
        let (count, time) = (row[1].as_i64().unwrap(), row[2].as_i64().unwrap());
        assert_eq!(time % 1_800_000_000, count, "{row}");
    }
}

#[test]
fn one_of_three_nodes_dies_and_nobody_waits_for_it() {
    if !skip::slow() {
        return;
    }
    let _alone = alone();
    let (Some(duckdb), Some(client), Some(cql)) = (DuckDb::find(), Client::find(), Cql::find())
    else {
        return;
    };
    if let Some(tool) = marquee_services::missing_for_cassandra() {
        return skip::missing_tool(&tool);
    }
    let Some(brokers) = broker() else { return };
    let mut ring = marquee_services::CassandraRing::start(Default::default()).unwrap();
    let data = Data::generated_by(&["--requests=23000", "--seed=62", "--span=3h"]);
    let mut setup = Setup::new(brokers, &data, "cassandra-ring");
    let address = ring.node(0).address();
    let replication = "replication = \"{'class': 'SimpleStrategy', 'replication_factor': 3}\"";
    setup.store_keys =
        format!("{}\nconsistency = \"quorum\"\n{replication}", store_section(address, KEYSPACE));
    setup.create(&client, &[(&setup.impressions, 4, json!({})), (&setup.plays, 4, json!({}))]);
    let config = setup.config("one", FAST_GROUP, SMALL_BATCHES);
    make_tables(&config);
    let service = Service::start(&config, &setup.file("log"));
    let mut arriving = setup.arrive(&client, &data, 15_000);
    let before = wait_for(&service, data.events() / 5);
    assert!(arriving.is_under_way(), "all events are there: none is in flight");
    ring.node_mut(1).kill();
    wait_for(&service, before + data.events() / 5);
    assert_eq!(arriving.finish(), data.events());
    service.wait_until_counted(data.events());
    assert_eq!(service.terminate(), Some(0));
    cql.assert_exact(&duckdb, &data, address, KEYSPACE);
}
