//! A real broker, and a stock client that shares no line with the program.

use crate::data::{Data, example};
use crate::duckdb::{DuckDb, literal};
use crate::program::{marquee, run, run_with_input};
use crate::skip;
use marquee_services::{Kafka, KafkaOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
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
    Some(address.as_str()).filter(|address| !address.is_empty())
}

/// A broker of a test's own, which it may kill.
pub fn own_broker() -> Option<Kafka> {
    if marquee_services::missing_for_kafka().is_some() {
        return None;
    }
    let extra = BROKER.map(str::to_owned).to_vec();
    let kafka = Kafka::start(KafkaOptions { extra, ..KafkaOptions::default() });
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
            folder: data.file(&name),
        }
    }

    /// The reference job on these topics, with a store of this name. `log` and `more` are added to
    /// `[log]` and to the end of the file.
    pub fn config(&self, store: &str, log: &str, more: &str) -> PathBuf {
        std::fs::create_dir_all(&self.folder).expect("the folder is ours");
        let reference = std::fs::read_to_string(example("reference.toml")).expect("it is there");
        let reference = reference
            .replace("[impressions]", &format!("[impressions]\ntopic = {:?}", self.impressions))
            .replace("[plays]", &format!("[plays]\ntopic = {:?}", self.plays));
        let text = format!(
            "{reference}\n[log]\nkind = \"kafka\"\nbrokers = {:?}\ngroup = {:?}\n{log}\n\
             [store]\npath = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n{more}",
            self.brokers,
            self.group,
            self.store(store),
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

/// The oracle's tables for the reference job over two files of events: docs/semantics.sql needs no
/// more. `early` of that job is 0.
pub fn tables(impressions: &Path, plays: &Path) -> Vec<String> {
    let table = |name: &str, file: &Path, column: &str, filter: &str| {
        format!(
            "create table {name} as select request_id, video_id as video, ts
             from read_ndjson({}, columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR',
               ts: 'BIGINT', {column}}}) where {filter};",
            literal(file)
        )
    };
    vec![
        "set variable epoch_ms = 1800000; set variable within_ms = 3600000;
         set variable early_ms = 0;"
            .to_owned(),
        table("impressions", impressions, "device: 'VARCHAR'", "device is distinct from 'console'"),
        table("plays", plays, "duration_s: 'BIGINT'", "duration_s >= 60"),
    ]
}

/// Panics unless counts and members of the stores together are those of the oracle.
#[track_caller]
pub fn assert_exact(duckdb: &DuckDb, data: &Data, stores: &[&Path]) {
    let tables = tables(&data.impressions, &data.plays);
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
