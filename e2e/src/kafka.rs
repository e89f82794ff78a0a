//! A real broker, and a stock client that shares no line with the program.

use crate::data::{Data, example};
use crate::duckdb::{DuckDb, reference_tables};
use crate::program::{marquee, run, run_with_input};
use crate::skip;
use marquee_services::{Kafka, KafkaOptions};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const CLIENT: &str = include_str!("kafka_client.py");

/// Groups of tests may expire fast: a member that was killed is then missed after a second.
const BROKER: [&str; 1] = ["group.min.session.timeout.ms=500"];

/// What tests set for every consumer, so that a killed one does not hold its lanes for long.
pub const FAST_GROUP: &str =
    "properties = { session.timeout.ms = \"1500\", heartbeat.interval.ms = \"200\" }";

/// The broker that the tests of one program share. `None` where it cannot run here; then the test
/// is skipped (and fails in CI).
pub fn broker() -> Option<&'static str> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    let shared = SHARED.get_or_init(own_broker).as_ref();
    if shared.is_none() {
        missing();
    }
    static ADDRESS: OnceLock<String> = OnceLock::new();
    let address = ADDRESS.get_or_init(|| shared.map(Kafka::bootstrap).unwrap_or_default());
    (!address.is_empty()).then_some(address)
}

/// A broker of a test's own, which it may kill.
pub fn own_broker() -> Option<Kafka> {
    own_broker_behind(None)
}

/// The same, with another `host:port` that clients are told: a fault proxy's.
pub fn own_broker_behind(advertised: Option<String>) -> Option<Kafka> {
    if marquee_services::missing_for_kafka().is_some() {
        return None;
    }
    let extra = BROKER.map(str::to_owned).to_vec();
    let kafka = Kafka::start(KafkaOptions { extra, advertised, ..KafkaOptions::default() });
    Some(kafka.expect("a broker starts"))
}

/// Says that a test is skipped for want of what a broker needs.
pub fn missing() {
    if let Some(tool) = marquee_services::missing_for_kafka() {
        skip::missing_tool(&tool);
    }
}

/// Topics, group and store of one test on a broker.
pub struct Setup {
    /// Address of the broker.
    pub brokers: String,
    /// Topic of impressions.
    pub impressions: String,
    /// Topic of plays.
    pub plays: String,
    /// The consumer group.
    pub group: String,
    /// More lines of `[store]`.
    pub store_keys: String,
    folder: PathBuf,
}

impl Setup {
    /// Names that no other test uses.
    pub fn new(brokers: &str, data: &Data, name: &str) -> Setup {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        Setup {
            brokers: brokers.to_owned(),
            impressions: format!("impressions-{name}"),
            plays: format!("plays-{name}"),
            group: format!("group-{name}"),
            store_keys: String::new(),
            folder: data.file(&name),
        }
    }

    /// The reference job on these topics, with a store of this name. `log` and `more` are added to
    /// `[log]` and to the end of the file.
    pub fn config(&self, store: &str, log: &str, more: &str) -> PathBuf {
        let reference = std::fs::read_to_string(example("reference.toml")).expect("it is there");
        self.config_of(store, &reference, log, more)
    }

    /// The same of another job: its sections `[impressions]` and `[plays]` get their topics here.
    pub fn config_of(&self, store: &str, job: &str, log: &str, more: &str) -> PathBuf {
        std::fs::create_dir_all(&self.folder).expect("the folder is ours");
        let job = job
            .replace("[impressions]", &format!("[impressions]\ntopic = {:?}", self.impressions))
            .replace("[plays]", &format!("[plays]\ntopic = {:?}", self.plays));
        let text = format!(
            "{job}\n[log]\nkind = \"kafka\"\nbrokers = {:?}\ngroup = {:?}\n{log}\n\
             [store]\npath = {:?}\n{}\n[http]\nlisten = \"127.0.0.1:0\"\n{more}",
            self.brokers,
            self.group,
            self.store(store),
            self.store_keys,
        );
        let path = self.folder.join(format!("{store}.toml"));
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Folder of a store.
    pub fn store(&self, store: &str) -> PathBuf {
        self.folder.join(store)
    }

    /// A file of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `marquee generate --out kafka`.
    pub fn generate(&self, config: &Path, requests: u64, seed: u64) -> Command {
        let mut command = marquee(["generate", "--out", "kafka"]);
        let flags = [format!("--requests={requests}"), format!("--seed={seed}")];
        command.args(flags).arg("-c").arg(config);
        command
    }

    /// Asks the stock client.
    #[track_caller]
    pub fn client(&self, client: &Client, mut request: Value) -> Value {
        request["brokers"] = json!(self.brokers);
        client.ask(&request)
    }

    /// Writes records by the stock client, which is set up so; where each of them stands now.
    #[track_caller]
    pub fn produce(&self, client: &Client, config: Value, records: &[Value]) -> Vec<Place> {
        self.send(client, config, records, Value::Null)
    }

    /// The same within a transaction, which is ended so: `commit` or `abort`. `config` has its
    /// `transactional.id`.
    #[track_caller]
    pub fn transact(&self, client: &Client, config: Value, end: &str, records: &[Value]) {
        self.send(client, config, records, json!(end));
    }

    #[track_caller]
    fn send(&self, client: &Client, config: Value, records: &[Value], end: Value) -> Vec<Place> {
        let ask = json!({ "do": "produce", "config": config, "records": records,
                          "transaction": end });
        places(&self.client(client, ask))
    }

    /// Writes records within a transaction that stays open.
    #[track_caller]
    pub fn begin(&self, client: &Client, config: Value, records: &[Value]) -> OpenTransaction {
        let ask = json!({ "do": "produce", "brokers": self.brokers, "config": config,
                          "records": records, "transaction": "open" });
        OpenTransaction::begin(client, &ask)
    }

    /// Lets the events of two files arrive: a stock producer writes so many a second, each once
    /// (it is idempotent), both topics in step, while the test goes on.
    pub fn arrive(&self, client: &Client, data: &Data, rate: u64) -> Arriving {
        let mut files = serde_json::Map::new();
        for (topic, file) in [(&self.impressions, &data.impressions), (&self.plays, &data.plays)] {
            files.insert(topic.clone(), json!(file));
        }
        let config = json!({ "enable.idempotence": true, "partitioner": "murmur2_random",
                             "compression.type": "lz4" });
        let ask = json!({ "do": "feed", "brokers": self.brokers, "config": config,
                          "files": files, "rate": rate });
        let words = std::fs::File::create(self.file("producer.log")).expect("the folder is ours");
        let mut command = Command::new(&client.python);
        command.args(["-c", CLIENT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(words);
        let mut producer = command.spawn().expect("it starts");
        let mut input = producer.stdin.take().expect("it is piped");
        writeln!(input, "{ask}").expect("it reads");
        Arriving { producer }
    }

    /// Creates topics, each with so many partitions and these settings.
    #[track_caller]
    pub fn create(&self, client: &Client, topics: &[(&str, u32, Value)]) {
        let create = topics.iter().map(|(name, partitions, config)| {
            let mut config = config.clone();
            config["retention.ms"] = json!("-1");
            ((*name).to_owned(), json!([partitions, config]))
        });
        let create: serde_json::Map<String, Value> = create.collect();
        self.client(client, json!({ "do": "topics", "create": create }));
    }
}

/// A Python that has confluent-kafka.
pub struct Client {
    python: PathBuf,
}

impl Client {
    /// Finds it as [`DuckDb::find`] does its own.
    pub fn find() -> Option<Client> {
        let candidates = [crate::program::root().join("target/venv/bin/python"), "python3".into()];
        let has_client = |python: &PathBuf| {
            let output = Command::new(python).args(["-c", "import confluent_kafka"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let found = candidates.into_iter().find(has_client).map(|python| Client { python });
        if found.is_none() {
            skip::missing_tool("python3 with confluent_kafka (pip install confluent-kafka)");
        }
        found
    }

    #[track_caller]
    fn ask(&self, request: &Value) -> Value {
        let input = serde_json::to_vec(request).expect("it is JSON");
        let finished = run_with_input(Command::new(&self.python).args(["-c", CLIENT]), &input);
        serde_json::from_slice(&finished.expect_code(0).stdout).expect("it answers JSON")
    }
}

/// Partition and offset.
pub type Place = (u32, u64);

#[track_caller]
fn places(answer: &Value) -> Vec<Place> {
    assert_eq!(answer["failed"], json!([]), "all records are written");
    let number = |value: &Value| value.as_u64().expect("a number");
    let place = |place: &Value| (number(&place[0]) as u32, number(&place[1]));
    answer["placed"].as_array().expect("a list").iter().map(place).collect()
}

/// A transaction of a stock producer that has neither been committed nor aborted.
pub struct OpenTransaction {
    producer: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OpenTransaction {
    /// Returns when the broker has the records.
    #[track_caller]
    fn begin(client: &Client, request: &Value) -> OpenTransaction {
        let mut command = Command::new(&client.python);
        command.args(["-c", CLIENT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut producer = command.spawn().expect("it starts");
        let input = producer.stdin.take().expect("it is piped");
        let output = BufReader::new(producer.stdout.take().expect("it is piped"));
        let mut transaction = OpenTransaction { producer, input, output };
        transaction.say(&request.to_string());
        transaction
    }

    /// Makes its records visible.
    #[track_caller]
    pub fn commit(mut self) {
        self.say("commit");
        let status = self.producer.wait().expect("the child is ours");
        assert!(status.success(), "{status}");
    }

    /// Says a line, and waits for the answer.
    #[track_caller]
    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it answers");
        places(&serde_json::from_str(&answer).expect("it answers JSON"));
    }
}

/// A stock producer at work.
pub struct Arriving {
    producer: Child,
}

impl Arriving {
    /// Whether there is more to come.
    pub fn is_under_way(&mut self) -> bool {
        self.producer.try_wait().expect("the child is ours").is_none()
    }

    /// Waits until everything was written and acknowledged; how many events that were.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        let mut answer = String::new();
        let output = self.producer.stdout.as_mut().expect("it is piped");
        output.read_to_string(&mut answer).expect("it answers");
        let answer: Value = serde_json::from_str(&answer).expect("it answers JSON");
        assert_eq!(answer["failed"], json!([]), "all records are written");
        let written = answer["written"].as_object().expect("by topic").values();
        written.map(|count| count.as_u64().expect("a number")).sum()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // One that has ended is as dead.
        let _ = self.producer.kill();
        let _ = self.producer.wait();
    }
}

/// What stands in the dead-letter output of a lane: source, position and reason of each letter, and
/// the letter itself.
pub fn dead_letters(store: &Path, lane: u32) -> Vec<(String, u64, String, Value)> {
    let file = store.join("dead").join(format!("lane-{lane}.ndjson"));
    let lines = std::fs::read_to_string(file).expect("each lane has one");
    let letter = |line: &str| {
        let letter: Value = serde_json::from_str(line).expect("letters are JSON");
        let text = |name: &str| letter[name].as_str().expect("a text").to_owned();
        let position = letter["position"].as_u64().expect("a number");
        (text("source"), position, text("reason"), letter)
    };
    lines.lines().map(letter).collect()
}

/// Panics unless counts and members of the stores together are those of the oracle.
#[track_caller]
pub fn assert_exact(duckdb: &DuckDb, data: &Data, stores: &[&Path]) {
    let tables = reference_tables(&data.impressions, &data.plays);
    let mut texts: Vec<&str> = tables.iter().map(String::as_str).collect();
    let scratch = tempfile::NamedTempFile::new().expect("a temporary file");
    let differences = crate::members::differences(duckdb, &texts, stores, scratch.path());
    assert_eq!(differences, 0, "members differ from the oracle's");
    let oracle = std::fs::read_to_string(crate::program::root().join("docs/semantics.sql"));
    let oracle = oracle.expect("it is there");
    texts.push(&oracle);
    let expected = duckdb.cells(&texts);
    let found: Vec<_> = crate::members::counts(stores)
        .into_iter()
        .map(|((video, epoch), (shown, played))| crate::cells::cell(&video, epoch, shown, played))
        .collect();
    crate::cells::assert_same(&found, &expected);
}

/// Runs a command that must succeed.
#[track_caller]
pub fn succeed(command: &mut Command) {
    run(command).expect_code(0);
}
