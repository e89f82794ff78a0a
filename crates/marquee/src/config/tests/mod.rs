//! Tests of the configuration as a whole: good files, docs that cannot drift, fingerprints.
//! `faults.rs` has the bad files.

mod faults;

use super::*;
use std::path::{Path, PathBuf};

fn workspace(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

fn text_of(file: &str) -> String {
    std::fs::read_to_string(workspace(file)).expect(file)
}

fn good(text: &str) -> Config {
    Config::parse(text, "f.toml", Path::new("")).unwrap_or_else(|faults| {
        let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

/// The first block of TOML after a heading.
fn toml_block<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, page) = page.split_once(heading).expect("the page has the heading");
    let (_, page) = page.split_once("```toml\n").expect("a block follows");
    page.split_once("```").expect("the block ends").0
}

fn assert_same(left: &Config, right: &Config) {
    let sections = |config: &Config| {
        let mut config = config.clone();
        for stream in [&mut config.impressions, &mut config.plays] {
            stream.where_.line = 0;
            stream.filter.line = 0;
        }
        config.transform.video.line = 0;
        config.origin = Config::default().origin;
        format!("{config:#?}")
    };
    assert_eq!(sections(left), sections(right));
}

fn known_keys() -> Vec<String> {
    let (_, findings) = load::walk("", "f.toml", Path::new("")).expect("an empty text is TOML");
    findings.known.into_iter().filter(|key| key.contains('.')).collect()
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_same(&good(""), &Config::default());
}

#[test]
fn the_block_in_the_docs_is_all_defaults() {
    let page = text_of("docs/configuration.md");
    let block = toml_block(&page, "## The whole file");
    assert_same(&good(block), &Config::default());
    for key in known_keys().iter().filter(|key| *key != "join.idle") {
        let line = good(block).origin.lines.get(key).copied();
        assert!(line.is_some(), "docs/configuration.md has no default of {key}");
    }
}

#[test]
fn the_docs_explain_every_key_in_its_section() {
    let page = text_of("docs/configuration.md");
    for key in known_keys() {
        let (section, name) = key.split_once('.').expect("known keys have a section");
        let heading = |part: &&str| {
            part.lines().next().is_some_and(|line| line.contains(&format!("[{section}]")))
        };
        let part = page.split("\n## ").find(heading);
        let part = part.unwrap_or_else(|| panic!("docs/configuration.md has no part [{section}]"));
        assert!(part.contains(&format!("\n| `{name}`")), "docs/configuration.md lacks {key}");
    }
}

#[test]
fn every_other_block_in_the_docs_is_good() {
    let page = text_of("docs/configuration.md");
    for block in page.split("```toml\n").skip(1) {
        good(block.split_once("```").expect("the block ends").0);
    }
}

#[test]
fn the_contract_has_the_same_keys() {
    let page = text_of("docs/contract.md");
    let config = good(toml_block(&page, "## Config"));
    let known = known_keys();
    for key in known.iter().filter(|key| *key != "join.idle" && !key.starts_with("plays.")) {
        assert!(config.origin.lines.contains_key(key), "docs/contract.md lacks {key}");
    }
    let attribute = |name: &str| Attribute {
        name: name.into(),
        path: vec![name.into()],
        ty: AttributeType::String,
        optional: true,
    };
    let mut expected = Config::default();
    expected.impressions.attributes = vec![attribute("country"), attribute("device")];
    expected.impressions.filter.source = r#"device != "console""#.into();
    assert_same(&config, &expected);
}

#[test]
fn the_examples_are_good() {
    let load = |file: &str| Config::load(&workspace(file)).expect(file);
    let reference = load("examples/reference.toml");
    assert_eq!((reference.join.within_ms, reference.join.early_ms), (3_600_000, 0));
    assert_eq!(reference.log.path, workspace("examples/data/log"));
    assert_eq!(reference.plays.filter.source, "duration_s >= 60");
    assert_eq!(reference.plays.filter.line, reference.line_of("plays.filter"));
    let slides = load("examples/slides.toml");
    assert_eq!(slides.join.match_, Match::Request);
    assert_eq!(slides.join.impressions, JoinedImpressions::Joined);
    assert_eq!(slides.join.epoch_of_play, EpochOfPlay::Play);
}

#[test]
fn everything_can_be_said() {
    let config = good(
        r#"
impressions.where = " true "
join = { idle = "hold", within = "2d", max_facts = 0x10 }
aggregate.epochs = ["1m", "30m", "10m"]
[log]
kind = "kafka"
brokers = "a:1,b:2"
partitioner = "crc32"
properties = { security.protocol = "ssl", "ssl.ca.location" = "/ca.pem" }
[impressions.attributes]
show = { type = "string?", path = 'ctx.show\.id' }
seconds = "double"
on = "bool"
[plays]
explode = "videos"
time_unit = "rfc3339"
attributes.show = "string"
[transform]
slices = [["show", "on"], []]
video = """
show == null ? video
             : show"""
[store]
path = "/abs"
retention = "90d"
members = false
[http]
listen = "[::1]:0"
[collector]
max_body = 1_000_000
"#,
    );
    assert_eq!((config.log.kind, config.log.partitioner), (LogKind::Kafka, Partitioner::Crc32));
    let properties: Vec<&str> = config.log.properties.0.keys().map(String::as_str).collect();
    assert_eq!(properties, ["security.protocol", "ssl.ca.location"]);
    assert_eq!(config.impressions.where_, Expression { source: "true".into(), line: 2 });
    let names: Vec<&str> = config.impressions.attributes.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["on", "seconds", "show"]);
    let show = config.impressions.attribute("show").expect("declared");
    assert_eq!((show.path.join("/"), show.optional), ("ctx/show.id".into(), true));
    assert_eq!(config.plays.explode, Some(vec!["videos".into()]));
    assert_eq!(config.join.idle, Idle::Hold);
    assert_eq!(config.join.max_facts, 16);
    assert_eq!(config.aggregate.epochs_ms, [1_800_000, 600_000, 60_000]);
    assert_eq!(config.transform.slices, [vec!["on".to_owned(), "show".into()], vec![]]);
    assert_eq!(config.transform.video.line, 20);
    assert_eq!(config.store.path, Path::new("/abs"));
    assert_eq!(config.store.retention_ms, Some(90 * 86_400_000));
    assert_eq!(config.http.listen.port(), 0);
    assert_eq!(config.collector.max_body_bytes, 1_000_000);
    assert_eq!(config.stream(marquee_model::Kind::Play).time_unit, TimeUnit::Rfc3339);
}

#[test]
fn the_grace_of_an_idle_topic_is_within_unless_told_otherwise() {
    let idle = |text: &str| good(text).join.idle;
    assert_eq!(idle("join.within = '2h'"), Idle::After { idle_grace_ms: 7_200_000 });
    let told = "join = { within = '2h', idle_grace = '5s' }";
    assert_eq!(idle(told), Idle::After { idle_grace_ms: 5000 });
}

#[test]
fn a_fault_found_later_has_its_place() {
    let config = good("[plays]\n\nfilter = 'x >'\n");
    assert_eq!(config.line_of("plays.filter"), 3);
    assert_eq!(config.line_of("plays.topic"), 1);
    assert_eq!(config.line_of("http.listen"), 1);
    let line = config.plays.filter.line;
    let fault = config.fault_at(line, "plays.filter", "`x >`", "an expression", "'x > 1'");
    assert_eq!(
        fault.to_string(),
        "f.toml:3: plays.filter: found `x >`, expected an expression, for example 'x > 1'",
    );
}

#[test]
fn the_fingerprint_is_canonical_and_leaves_out_what_counts_nothing() {
    let print = |text: &str| good(text).fingerprint_settings().to_string();
    let attributes = "impressions.attributes = { b = 'int', a = 'int' }\n";
    let base = format!("{attributes}transform.slices = [[], ['a', 'b']]");
    for same in [
        format!("{attributes}transform.slices = [['b', 'a'], []]"),
        format!("{base}\njoin = {{ lateness = '1d', watermark_support = 1, idle = 'hold' }}"),
        format!("{base}\njoin.within = '60m'\nruntime.threads = 3\nstore.members = false"),
        format!("{base}\nlog = {{ path = 'x', group = 'x', partitioner = 'crc32' }}"),
        format!("{base}\nplays.filter = '  '"),
    ] {
        assert_eq!(print(&same), print(&base), "{same}");
    }
    for other in [
        "join.within = '61m'",
        "join.early = '0s'",
        "join.max_ahead = '1s'",
        "join.max_facts = 1",
        "join.match = 'request'",
        "log.lanes = 5",
        "log.kind = 'kafka'",
        "plays.filter = 'true'",
        "plays.topic = 'p'",
        "plays.attributes = { c = 'int?' }",
        "aggregate.epochs = ['30m', '1m']",
    ] {
        assert_ne!(print(&format!("{base}\n{other}")), print(&base), "{other}");
    }
    let json = good("").fingerprint_settings();
    let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
    let sorted = ["aggregate", "impressions", "join", "lanes", "partitioner", "plays", "transform"];
    assert_eq!(keys, sorted);
}

#[test]
fn the_summary_is_one_screen() {
    let text = text_of("examples/reference.toml");
    let config = Config::parse(&text, "reference.toml", Path::new("/etc/m")).expect("good");
    assert_eq!(
        config.summary(),
        r#"reference.toml is a good configuration

reads   the embedded log in /etc/m/data/log, 4 lanes
          impressions  topic impressions: request_id, video_id, ts (ms)
                       if device != "console"
          plays        topic plays: request_id, video_id, ts (ms)
                       if duration_s >= 60

counts  distinct requests for each video, epoch and slice
          match        same request and video, the play 0s before to 1h after
          impressions  every one
          plays        in the epoch and slice of each matching impression
          epochs       30m
          slices       everybody

state   of an epoch goes 70m after its end (within 1h + early 0s + lateness 10m),
          by event time as 16 requests agree; a silent topic is waited for 1h
          at most 10,000 impressions and as many plays for each request and epoch
          saved every 2m: a restart reads what came after

stores  counts and members in /etc/m/data/store, kept for ever

runs    one thread for each core, batches of 250ms or 200,000 events, 1GiB of memory

serves  http://127.0.0.1:8080, events in bodies of up to 4MiB
"#,
    );
}

#[test]
fn the_summary_names_the_lake_and_no_secret() {
    let keys = "access_key_id = 'me', secret_access_key = 'hunter2'";
    let config = good(&format!("lake = {{ url = 's3://cells/a', {keys} }}"));
    let line = "closed epochs as Parquet in the lake s3://cells/a, files of 30m or 64MiB, \
                open ones every 5m";
    assert!(config.summary().contains(line), "{}", config.summary());
    let events = "events = true, events_interval = '10m'";
    let keeps = good(&format!("lake = {{ url = 's3://cells/a', {events} }}"));
    let line = "raw events, a file for each lane and 10m";
    assert!(keeps.summary().contains(line), "{}", keeps.summary());
    let shown = format!("{config:?}");
    assert!(shown.contains("cells") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_large_summary_is_one_screen_too() {
    let long = "device == 'a' || ".repeat(20);
    let config = good(&format!(
        "log = {{ kind = 'kafka', properties = {{ sasl.password = 'hunter2' }} }}
join = {{ idle = 'hold', match = 'request', impressions = 'joined', epoch_of_play = 'play' }}
runtime.threads = 2
[impressions]
where = 'true'
explode = 'videos'
filter = \"{long} false\"
[impressions.attributes]\na='int'\nb='int'\nc='int'\nd='int'\ne='int'\nf='int'\ng='int'
[plays.attributes]\na='int'\nb='int'\nc='int'\nd='int'\ne='int'\nf='int'\ng='int'
[transform]
video = 'video'
slices = [['a'],['b'],['c'],['d'],['e'],['f','g'],['g']]
[store]
retention = '30d'"
    ));
    let summary = config.summary();
    assert!(summary.lines().count() <= 32, "{summary}");
    assert!(summary.lines().all(|line| line.len() <= 100), "{summary}");
    assert!(!summary.contains("hunter2"), "{summary}");
    assert!(summary.contains("f x g and 1 more"), "{summary}");
}
