//! What the real binary refuses about a real Kafka, or survives with a warning: each fault with its
//! exit code (2: found before anything started, 1: found while it ran) and the next step in words.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells::{self, Cell};
use marquee_e2e::data::{Data, example};
use marquee_e2e::kafka::{Client, FAST_GROUP, Setup, broker, succeed};
use marquee_e2e::members;
use marquee_e2e::program::{Finished, marquee, root, run, run_within};
use marquee_e2e::service::Service;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const REQUESTS: u64 = 300;

/// Events of the reference job, a place for them on the shared broker, and a client.
struct Test {
    data: Data,
    setup: Setup,
    client: Client,
}

impl Test {
    /// `None` where there is no broker or no client: the test is skipped.
    fn new(name: &str, seed: u64) -> Option<Test> {
        let (brokers, client) = (broker()?, Client::find()?);
        let data = Data::generated(REQUESTS, seed);
        Some(Test { setup: Setup::new(brokers, &data, name), data, client })
    }

    /// The same with the events in Kafka, as `marquee generate` writes them.
    fn filled(name: &str, seed: u64) -> Option<(Test, PathBuf)> {
        let test = Test::new(name, seed)?;
        let config = test.setup.config("store", FAST_GROUP, "");
        succeed(&mut test.setup.generate(&config, REQUESTS, seed));
        Some((test, config))
    }

    fn config(&self) -> PathBuf {
        self.setup.config("store", FAST_GROUP, "")
    }

    /// Topics with these partitions and settings, and no records.
    fn create(&self, of_impressions: (u32, Value), of_plays: (u32, Value)) {
        let Setup { impressions, plays, .. } = &self.setup;
        let topics = [
            (&**impressions, of_impressions.0, of_impressions.1),
            (&**plays, of_plays.0, of_plays.1),
        ];
        self.setup.create(&self.client, &topics);
    }

    /// Both topics are deleted, and made again with so many partitions.
    fn recreate(&self, partitions: u32) {
        let Setup { impressions, plays, .. } = &self.setup;
        let delete = json!({ "do": "topics", "delete": [impressions, plays] });
        self.setup.client(&self.client, delete);
        self.create((partitions, json!({})), (partitions, json!({})));
    }

    fn start(&self, config: &Path) -> Service {
        Service::start(config, &self.setup.file("log"))
    }

    /// Counts everything there is, and ends.
    #[track_caller]
    fn count(&self, config: &Path) {
        let service = self.start(config);
        let status = service.wait_until_counted(self.events());
        assert_eq!(status["totals"]["events"], self.events(), "{status}");
        assert_eq!(service.terminate(), Some(0));
    }

    fn events(&self) -> u64 {
        [&self.data.impressions, &self.data.plays].into_iter().map(|file| lines(file)).sum()
    }

    /// Panics unless the store has the cells of a backfill of the same events.
    #[track_caller]
    fn assert_counted(&self, store: &str) {
        let expected = self.data.cells(&mut self.data.backfill(&example("reference.toml")));
        cells::assert_same(&self.stored(store), &cells::of_csv(&expected));
    }

    fn stored(&self, store: &str) -> Vec<Cell> {
        let counts = members::counts(&[&self.setup.store(store)]);
        let cell = |((video, epoch), (shown, played)): ((String, i64), (u64, u64))| {
            cells::cell(&video, epoch, shown, played)
        };
        counts.into_iter().map(cell).collect()
    }

    /// Offsets that the group has, by topic and partition; negative where it has none.
    fn committed(&self) -> Vec<i64> {
        let topics = json!({ self.setup.impressions.clone(): 4, self.setup.plays.clone(): 4 });
        let ask = json!({ "do": "committed", "group": self.setup.group, "topics": topics });
        let answer = self.setup.client(&self.client, ask);
        answer["offsets"].as_array().unwrap().iter().map(|of| of[2].as_i64().unwrap()).collect()
    }

    /// Somebody else commits offset 3 everywhere.
    fn commit_as_a_stranger(&self, note: Value) {
        let Setup { impressions, plays, .. } = &self.setup;
        let of = |topic: &String| (0..4).map(|n| json!([topic, n, 3, note])).collect::<Vec<_>>();
        let offsets = [of(impressions), of(plays)].concat();
        let ask = json!({ "do": "commit", "group": self.setup.group, "offsets": offsets });
        self.setup.client(&self.client, ask);
        assert_eq!(self.committed(), [3; 8]);
    }
}

fn lines(file: &Path) -> u64 {
    std::fs::read_to_string(file).unwrap().lines().count() as u64
}

/// A run that ends by itself: its exit code and its words, all of them.
#[track_caller]
fn refused(config: &Path, code: i32, words: &[&str]) -> Finished {
    let finished = run_within(marquee(["run", "-c"]).arg(config), Duration::from_secs(60));
    let finished = finished.expect_code(code);
    words.iter().fold(finished, |finished, words| finished.expect_words(words))
}

/// A job that differs from the reference job in what it counts.
fn other_job() -> String {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let other = reference.replace("duration_s >= 60", "duration_s >= 600");
    assert_ne!(other, reference);
    other
}

#[test]
fn a_topic_that_is_not_there_is_named_with_its_section_and_not_created() {
    let Some(test) = Test::new("missing", 31) else { return };
    let Setup { impressions, plays, .. } = &test.setup;
    test.setup.create(&test.client, &[(impressions, 4, json!({}))]);
    let name = format!("there is no topic {plays:?}");
    for _ in 0..2 {
        refused(&test.config(), 2, &[&name, "Create it", "correct [plays] topic"]);
    }
    assert!(!test.setup.store("store").exists(), "nothing was made before it was refused");
}

#[test]
fn topics_with_unequal_partitions_are_refused() {
    let Some(test) = Test::new("unequal", 32) else { return };
    test.create((4, json!({})), (3, json!({})));
    let Setup { impressions, plays, .. } = &test.setup;
    let words = format!("topic {impressions:?} has 4 partitions and topic {plays:?} has 3");
    refused(&test.config(), 2, &[&words, "would not meet in one lane", "copy its records by key"]);
}

#[test]
fn a_compacted_topic_is_refused() {
    for (seed, policy) in [(33, "compact"), (34, "compact,delete")] {
        let Some(test) = Test::new("compacted", seed) else { return };
        test.create((1, json!({})), (1, json!({ "cleanup.policy": policy })));
        let words = format!("topic {:?} has cleanup.policy=", test.setup.plays);
        let why = "compaction keeps one record of each key";
        refused(&test.config(), 2, &[&words, why, "Set cleanup.policy=delete on it"]);
    }
}

#[test]
fn producers_with_another_partitioner_are_noticed_before_anything_is_counted() {
    let Some(mut test) = Test::new("partitioner", 35) else { return };
    test.create((4, json!({})), (4, json!({})));
    let record = |topic: &str, line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        json!({ "topic": topic, "key": event["request_id"], "value": line })
    };
    let of = |topic: &str, file: &Path| -> Vec<Value> {
        std::fs::read_to_string(file).unwrap().lines().map(|line| record(topic, line)).collect()
    };
    let Setup { impressions, plays, .. } = &test.setup;
    let (shown, played) = (of(impressions, &test.data.impressions), of(plays, &test.data.plays));
    // librdkafka's own default: nobody has told this producer anything.
    test.setup.produce(&test.client, json!({}), &[shown, played].concat());

    let words = ["stand in a partition that is not their request's", "by murmur2 in partition"];
    let remedy = "set [log] partitioner = \"crc32\" (and, since that is another generation, a new \
                  [store] path and [log] group)";
    refused(&test.config(), 1, &[words[0], words[1], remedy]);
    assert_eq!(test.stored("store"), [], "nothing of it was counted");
    assert!(test.committed().iter().all(|offset| *offset < 0), "nothing of it was committed");

    // As it says: the store that was made for murmur2 is refused, and a new one is right.
    let crc32 = format!("{FAST_GROUP}\npartitioner = \"crc32\"");
    refused(&test.setup.config("store", &crc32, ""), 2, &["partitioner", "another [store] path"]);
    test.setup.group.push_str("-crc32");
    test.count(&test.setup.config("new-store", &crc32, ""));
    test.assert_counted("new-store");
}

#[test]
fn a_topic_made_anew_while_nobody_looked_is_not_taken_for_the_old_one() {
    let Some((test, config)) = Test::filled("recreated", 36) else { return };
    test.count(&config);
    let counted = test.stored("store");
    test.recreate(4);
    // Filled as far as the old one was: offsets alone would not tell.
    succeed(&mut test.setup.generate(&config, REQUESTS, 37));
    let words = format!("topic {:?} was deleted and created again", test.setup.impressions);
    let remedy = "Start a new generation, with another [log] group and [store] path";
    refused(&config, 1, &[&words, remedy]);
    assert_eq!(test.stored("store"), counted, "the old counts are as they were");
}

#[test]
fn a_topic_made_anew_under_a_running_service_ends_it() {
    let Some((test, config)) = Test::filled("replaced", 38) else { return };
    let service = test.start(&config);
    service.wait_until_counted(test.events());
    let counted = service.trends();
    test.recreate(4);
    succeed(&mut test.setup.generate(&config, REQUESTS, 39));
    let log = service.log.clone();
    assert_eq!(service.wait_within(Duration::from_secs(60)), Some(1));
    let said = std::fs::read_to_string(log).unwrap();
    for words in ["was deleted and created again", "Start a new generation"] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
    assert_eq!(test.stored("store").len(), counted.len(), "nothing of the new one was counted");
    test.assert_counted("store");
}

#[test]
fn partitions_added_to_a_topic_under_a_running_service_end_it() {
    let Some((test, config)) = Test::filled("grown", 44) else { return };
    let service = test.start(&config);
    service.wait_until_counted(test.events());
    let Setup { impressions, plays, .. } = &test.setup;
    test.setup.client(&test.client, json!({ "do": "grow", "topics": { impressions: 6 } }));
    // A request that is placed among more partitions than there were.
    let moved = json!({ "request_id": "moved", "video_id": "v", "ts": 1_479_686_400_000_u64 });
    let record = json!({ "topic": impressions, "key": "moved", "value": moved.to_string(),
                         "partition": 5, "timestamp": 1_479_686_400_000_u64 });
    test.setup.produce(&test.client, json!({}), &[record]);
    let log = service.log.clone();
    assert_eq!(service.wait_within(Duration::from_secs(60)), Some(1));
    let said = std::fs::read_to_string(log).unwrap();
    let words = format!("topic {impressions:?} has 6 partitions now and had 4");
    for words in [&*words, "start a new one, with another [log] group and [store] path"] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
    test.assert_counted("store");

    // Nor does it start again, also when the other topic has as many.
    refused(&config, 2, &[&format!("{impressions:?} has 6 partitions and topic {plays:?} has 4")]);
    test.setup.client(&test.client, json!({ "do": "grow", "topics": { plays: 6 } }));
    refused(&config, 2, &["counts otherwise", "lanes is 6, was 4", "another [store] path"]);
    test.assert_counted("store");
}

#[test]
fn a_topic_that_is_deleted_under_a_running_service_is_waited_for() {
    let Some((test, config)) = Test::filled("deleted", 45) else { return };
    let service = test.start(&config);
    service.wait_until_counted(test.events());
    let impressions = &test.setup.impressions;
    test.setup.client(&test.client, json!({ "do": "topics", "delete": [impressions] }));
    let until = Instant::now() + Duration::from_secs(60);
    while service.readiness() == 200 {
        assert!(Instant::now() < until, "it does not notice: {}", service.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let reasons = service.get("/v1/status")["reasons"].to_string();
    assert!(reasons.contains(impressions.as_str()) && reasons.contains("deleted"), "{reasons}");
    // It serves what it has counted, and waits on: it looks several times within this.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(service.readiness(), 503, "{}", service.said());
    assert!(!service.trends().is_empty());
    assert_eq!(service.terminate(), Some(0));
    test.assert_counted("store");
    let words = format!("there is no topic {impressions:?}");
    refused(&config, 2, &[&words, "Create it", "correct [impressions] topic"]);
}

#[test]
fn a_group_of_settings_that_count_otherwise_is_refused() {
    let Some((mut test, config)) = Test::filled("group", 40) else { return };
    test.count(&config);
    let before = test.committed();
    let other = test.setup.config_of("other", &other_job(), FAST_GROUP, "");
    let words = "the consumer group has committed offsets for settings that count otherwise";
    refused(&other, 1, &[words, "another [log] group and [store] path"]);
    assert_eq!(test.stored("other"), []);
    assert_eq!(test.committed(), before, "the group is as it was");
    // With a group of its own, as it says.
    test.setup.group.push_str("-other");
    test.count(&test.setup.config_of("other", &other_job(), FAST_GROUP, ""));
    assert!(!test.stored("other").is_empty());
}

#[test]
fn a_store_of_another_log_or_of_other_lanes_is_refused() {
    let Some((test, config)) = Test::filled("store", 41) else { return };
    test.count(&config);
    let text = std::fs::read_to_string(&config).unwrap();
    let embedded = |text: &str, store: &str| {
        let log = format!("kind = \"embedded\"\npath = {:?}", test.setup.file("embedded-log"));
        let text = text.replace("kind = \"kafka\"", &log);
        let path = test.setup.file(&format!("{store}-embedded.toml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    // Neither may a store of Kafka's go on with another log, nor the reverse.
    let words = ["counts otherwise", "another [store] path"];
    refused(&embedded(&text, "store"), 2, &[words[0], "log", words[1]]);
    assert!(!test.setup.file("embedded-log").exists(), "no log was made for it");
    let other = test.setup.config("embedded-store", FAST_GROUP, "");
    let text = std::fs::read_to_string(&other).unwrap();
    let service = test.start(&embedded(&text, "embedded-store"));
    assert_eq!(service.terminate(), Some(0));
    refused(&other, 2, &[words[0], "log", words[1]]);

    test.recreate(2);
    refused(&config, 2, &[words[0], "lanes is 2, was 4", words[1]]);
    test.assert_counted("store");
}

#[test]
fn a_broker_that_does_not_answer_is_waited_for_and_named() {
    let data = Data::of("", "");
    let brokers = format!("127.0.0.1:{}", marquee_services::free_port());
    let setup = Setup::new(&brokers, &data, "silent");
    let config = setup.config("store", "", "");
    let said = setup.file("said");
    let mut child = marquee(["run", "-c"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // A busy machine is a little later; the first patience with a broker ends after 10 s.
    let until = Instant::now() + Duration::from_secs(5);
    let words = || std::fs::read_to_string(&said).unwrap();
    while words().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let said = words();
    assert_eq!(ended, None, "it waits:\n{said}");
    assert!(said.contains(&brokers) && said.contains("Connection refused"), "{said}");
    assert!(!setup.store("store").exists(), "nothing was made before a broker answered");
}

#[test]
fn properties_that_marquee_settles_are_faults_of_the_configuration() {
    let data = Data::of("", "");
    for (name, instead) in [
        ("bootstrap.servers", "write it as `brokers`"),
        ("metadata.broker.list", "write it as `brokers`"),
        ("group.id", "write it as `group`"),
        ("enable.auto.commit", "offsets are committed only after the store has the results"),
        ("enable.auto.offset.store", "offsets are committed only after the store has the results"),
        ("auto.offset.reset", "an offset that is gone becomes a gap"),
        ("enable.partition.eof", "an idle topic is told from a slow one by it"),
        ("partition.assignment.strategy", "range"),
        ("group.protocol", "the classic protocol"),
        ("enable.idempotence", "must not be written twice"),
    ] {
        for spelt in [name.to_owned(), format!("{name:?}")] {
            let log = format!("[log]\nkind = \"kafka\"\nproperties = {{ {spelt} = \"x\" }}\n");
            let config = data.write("marquee.toml", log);
            let finished = run(marquee(["check", "-c"]).arg(&config)).expect_code(2);
            let said = format!("{}{}", String::from_utf8_lossy(&finished.stdout), finished.stderr);
            assert!(said.contains("marquee.toml:3: log.properties"), "{said}");
            assert!(said.contains(name) && said.contains(instead), "{said}");
        }
    }
}

#[test]
fn tls_without_its_feature_is_refused_and_the_feature_that_it_names_is_there() {
    let data = Data::of("", "");
    let brokers = format!("127.0.0.1:{}", marquee_services::free_port());
    let setup = Setup::new(&brokers, &data, "tls");
    for properties in [
        "security.protocol = \"ssl\"",
        "security.protocol = \"sasl_ssl\", sasl.mechanism = \"SCRAM-SHA-512\"",
    ] {
        let config = setup.config("store", &format!("properties = {{ {properties} }}"), "");
        refused(&config, 2, &["refuses its settings", "--features kafka-ssl"]);
    }
    let manifest = std::fs::read_to_string(root().join("crates/marquee/Cargo.toml")).unwrap();
    assert!(manifest.lines().any(|line| line.starts_with("kafka-ssl = [")), "{manifest}");
}

#[test]
fn offsets_that_somebody_else_committed_to_the_group_are_ignored_with_a_warning() {
    let Some((test, config)) = Test::filled("stranger", 42) else { return };
    let warning = "the group has an offset that marquee did not commit; it is ignored";
    test.commit_as_a_stranger(Value::Null);
    let service = test.start(&config);
    let status = service.wait_until_counted(test.events());
    assert_eq!(status["totals"]["events"], test.events(), "from the beginning: {status}");
    let warnings = |service: &Service| service.said().matches(warning).count();
    assert!(warnings(&service) > 0, "{}", service.said());
    let before = warnings(&service);
    assert_eq!(service.terminate(), Some(0));
    test.assert_counted("store");
    assert!(test.committed().iter().sum::<i64>() as u64 >= test.events(), "the group is ours now");

    // And as ignored are they beside a store that knows better.
    test.commit_as_a_stranger(json!("offset of somebody else"));
    let service = test.start(&config);
    let status = service.wait_until_counted(test.events());
    assert_eq!(status["totals"]["events"], test.events(), "nothing is counted twice: {status}");
    assert!(warnings(&service) > before, "{}", service.said());
    assert_eq!(service.terminate(), Some(0));
    test.assert_counted("store");
}

#[test]
fn a_group_that_was_deleted_goes_on_where_the_store_says() {
    let Some((test, config)) = Test::filled("forgotten", 43) else { return };
    test.count(&config);
    test.setup.client(&test.client, json!({ "do": "forget", "group": test.setup.group }));
    assert!(test.committed().iter().all(|offset| *offset < 0), "it has forgotten");

    // One event more, of the newest epoch.
    let newest = test.stored("store").into_iter().max_by_key(|cell| cell.epoch_start_ms).unwrap();
    let (video, ts) = (newest.video, newest.epoch_start_ms);
    let event = json!({ "request_id": "one-more", "video_id": video, "ts": ts, "device": "tv" });
    let record = json!({ "topic": test.setup.impressions, "key": "one-more",
                         "value": event.to_string(), "timestamp": ts });
    let murmur2 = json!({ "partitioner": "murmur2_random" });
    test.setup.produce(&test.client, murmur2, &[record]);
    let service = test.start(&config);
    let status = service.wait_until_counted(test.events() + 1);
    assert_eq!(status["totals"]["events"], test.events() + 1, "no more than that: {status}");
    assert!(service.trends().iter().all(|cell| cell["complete"] == true), "nothing is missing");
    assert_eq!(service.terminate(), Some(0));

    let shown = std::fs::read_to_string(&test.data.impressions).unwrap();
    std::fs::write(&test.data.impressions, format!("{shown}{event}\n")).unwrap();
    test.assert_counted("store");
    assert!(test.committed().iter().any(|offset| *offset > 0), "it is told again");
}
