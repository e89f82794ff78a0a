//! Bad files and what is said about them, word for word.

use super::*;

/// What is said about a file `f.toml`, without its name.
fn said(text: &str) -> Vec<String> {
    let faults = Config::parse(text, "f.toml", Path::new("")).expect_err(text);
    let strip = |fault: &Fault| fault.to_string().trim_start_matches("f.toml:").to_owned();
    faults.iter().map(strip).collect()
}

/// Bad texts, each with the one thing that is said about it. One pair a line, however long.
#[rustfmt::skip]
const SINGLE: &[(&str, &str)] = &[
    ("join.within = '1hour'",
     r#"1: join.within: found "1hour", expected a duration, for example "1h""#),
    ("join.within = 60",
     r#"1: join.within: found 60, expected a duration, for example "1h"; a duration has a unit: ms, s, m, h or d"#),
    ("join.within = '8d'",
     r#"1: join.within: found "8d", expected a duration of 0s to 7d, for example "1h""#),
    ("join.early = '25h'",
     r#"1: join.early: found "25h", expected a duration of 0s to 1d, for example "1m""#),
    ("join.lateness = '-1s'",
     r#"1: join.lateness: found "-1s", expected a duration, for example "10m""#),
    ("join.idle_grace = '32d'",
     r#"1: join.idle_grace: found "32d", expected a duration of 0s to 31d, for example "1h""#),
    ("join.idle = 'forever'",
     r#"1: join.idle: found "forever", expected "hold""#),
    ("join = { idle = 'hold', idle_grace = '1h' }",
     r#"1: join.idle: found "hold", expected either idle or idle_grace; held for ever, a topic has no grace: remove one"#),
    ("join.match = 'requests'",
     r#"1: join.match: found "requests", expected "request_and_video" or "request"; did you mean "request"?"#),
    ("join.match = 3",
     r#"1: join.match: found 3, expected "request_and_video" or "request""#),
    ("join.watermark_support = 0",
     r#"1: join.watermark_support: found 0, expected a whole number of 1 to 1024, for example 16"#),
    ("join.max_facts = 16_000_001",
     r#"1: join.max_facts: found 16000001, expected a whole number of 1 to 16000000, for example 10000"#),
    ("join.wihtin = '1h'",
     r#"1: join.wihtin: found an unknown key, expected one of match, impressions, epoch_of_play, within, early, lateness, max_ahead, idle_grace, idle, watermark_support, max_facts; did you mean `within`?"#),
    ("join.epochs = ['1h']",
     r#"1: join.epochs: found an unknown key, expected one of match, impressions, epoch_of_play, within, early, lateness, max_ahead, idle_grace, idle, watermark_support, max_facts; `epochs` belongs in [aggregate]"#),
    ("within = '1h'",
     r#"1: within: found an unknown key, expected one of [log], [impressions], [plays], [join], [transform], [aggregate], [store], [lake], [snapshots], [repair], [runtime], [http], [collector], [rank]; `within` belongs in [join]"#),
    ("topic = 'x'",
     r#"1: topic: found an unknown key, expected one of [log], [impressions], [plays], [join], [transform], [aggregate], [store], [lake], [snapshots], [repair], [runtime], [http], [collector], [rank]; `topic` belongs in [impressions] or [plays]"#),
    ("jion.within = '1h'",
     r#"1: jion: found an unknown section, expected one of [log], [impressions], [plays], [join], [transform], [aggregate], [store], [lake], [snapshots], [repair], [runtime], [http], [collector], [rank]; did you mean `join`?"#),
    ("cassandra.hosts = 'x'",
     r#"1: cassandra: found an unknown section, expected one of [log], [impressions], [plays], [join], [transform], [aggregate], [store], [lake], [snapshots], [repair], [runtime], [http], [collector], [rank]"#),
    ("join = 3",
     r#"1: join: found 3, expected a table, for example [join]"#),
    ("http.token = 'short'",
     r#"1: http.token: found "short", expected at least 16 characters that nobody can guess, or none, for example "the output of openssl rand -hex 16""#),
    ("http.pages = 'all'",
     r#"1: http.pages: found "all", expected "none" or "demo""#),
    ("http.allowed_hosts = ['https://a.example']",
     r#"1: http.allowed_hosts: found "https://a.example", expected a host without https:// and without a port, for example "marquee.example.com""#),
    ("collector.allowed_origins = ['a.example']",
     r#"1: collector.allowed_origins: found "a.example", expected https:// and a host, a port if it is not the usual one, and no path, for example "https://www.example.com""#),
    ("collector.allowed_origins = ['https://a.example/page']",
     r#"1: collector.allowed_origins: found "https://a.example/page", expected https:// and a host, a port if it is not the usual one, and no path, for example "https://www.example.com""#),
    ("collector.require_signed = true",
     r#"1: collector.require_signed: found true without [rank] keys, expected keys that tiles are signed with, or false, for example false; set [rank] keys, or MARQUEE_RANK_KEYS, to what `/v1/rank` shall sign with"#),
    ("collector.client_header = 'x forwarded'",
     r#"1: collector.client_header: found "x forwarded", expected the name of a header, for example "x-forwarded-for""#),
    ("rank.keys = ['short']",
     r#"1: rank.keys: found "short", expected at least 32 characters that nobody can guess, for example "the output of openssl rand -hex 32""#),
    ("rank.expires = '10s'",
     r#"1: rank.expires: found "10s", expected a duration of 1m to 30d, for example "6h""#),
    ("log.kind = 'Kafka'",
     r#"1: log.kind: found "Kafka", expected "embedded" or "kafka"; did you mean "kafka"?"#),
    ("log.path = ''",
     r#"1: log.path: found "", expected a folder, for example "data/log""#),
    ("log.lanes = 1025",
     r#"1: log.lanes: found 1025, expected a whole number of 1 to 1024, for example 4"#),
    ("log.lanes = 4.5",
     r#"1: log.lanes: found 4.5, expected a whole number of 1 to 1024, for example 4"#),
    ("log.brokers = 'kafka-1'",
     r#"1: log.brokers: found "kafka-1", expected host:port, several with commas, for example "kafka-1:9092""#),
    ("log.group = ''",
     r#"1: log.group: found "", expected a text of 1 to 249 bytes, for example "marquee""#),
    ("log.partitioner = 'murmur'",
     r#"1: log.partitioner: found "murmur", expected "murmur2" or "crc32"; did you mean "murmur2"?"#),
    ("log.properties = 'x'",
     r#"1: log.properties: found "x", expected a table, for example { security.protocol = "ssl" }"#),
    ("log.properties.retries = 3",
     r#"1: log.properties.retries: found 3, expected a text, for example "ssl"; write the value in quotes"#),
    ("log.properties = { group.id = 'g' }",
     r#"1: log.properties.group.id: found "g", expected a property that marquee does not set itself; write it as `group`"#),
    ("store.kind = 'redis'",
     r#"1: store.kind: found "redis", expected "embedded" or "cassandra""#),
    ("store.nodes = 'cassandra-1'",
     r#"1: store.nodes: found "cassandra-1", expected host:port, several with commas, for example "cassandra-1:9042""#),
    ("store.keyspace = 'Marquee'",
     r#"1: store.keyspace: found "Marquee", expected a name of 1 to 48 of a-z, 0-9 and underscore, a letter first, for example "marquee""#),
    ("store.replication = 'SimpleStrategy'",
     r#"1: store.replication: found "SimpleStrategy", expected a map as CQL writes it, for example "{'class': 'SimpleStrategy', 'replication_factor': 1}""#),
    ("store.consistency = 'any'",
     r#"1: store.consistency: found "any", expected "local_quorum" or "quorum" or "all" or "local_one" or "one""#),
    ("store.buckets = 257",
     r#"1: store.buckets: found 257, expected a whole number of 1 to 256, for example 16"#),
    ("store.timeout = '1ms'",
     r#"1: store.timeout: found "1ms", expected a duration of 100ms to 10m, for example "5s""#),
    ("store.in_flight = 0",
     r#"1: store.in_flight: found 0, expected a whole number of 1 to 4096, for example 64"#),
    ("store.path = 'data/log'",
     r#"1: store.path: found the folder of the log, expected a folder of its own, for example "data/store""#),
    ("store.members = 'yes'",
     r#"1: store.members: found "yes", expected "store" or "lake" or "both" or "off""#),
    ("store.members = 'lake'",
     r#"1: store.members: found "lake", expected "store" or "off", for example "store"; without [lake] url there is no lake to keep them in"#),
    ("store.members = 'lake'\nlake.url = 'file:l'\nstore.members_retention = '1h'\nrepair.interval = '1h'",
     r#"3: store.members_retention: found "1h", expected at least 1d ([repair] horizon, and a stretch of [lake] file_span), for example "2d"; what the store has let go neither repairs nor the lake can have of it"#),
    ("store.retention = '1h'",
     r#"1: store.retention: found "1h", expected at least 101m (longest epoch + within + early + lateness), for example "30d"; a shorter one would drop cells that still change; "" keeps them for ever"#),
    ("plays.topic = 'a/b'",
     r#"1: plays.topic: found "a/b", expected a topic of 1 to 249 of a-z, A-Z, 0-9, dot, underscore and minus, for example "plays""#),
    ("plays.topic = 'impressions'\nplays.where = 'true'",
     r#"1: impressions.where: found none, while both kinds share the topic "impressions", expected an expression that picks the records of this kind, for example 'kind == "impression"'; otherwise every record is read as an impression and as a play"#),
    ("plays.request_id = 'a..b'",
     r#"1: plays.request_id: found "a..b", expected a path: keys with dots between them, for example "ctx.request.id""#),
    ("plays.time = ''",
     r#"1: plays.time: found "", expected a path: keys with dots between them, for example "ctx.request.id""#),
    ("plays.time = 2016-11-21",
     r#"1: plays.time: found a date, expected a path: keys with dots between them, for example "ctx.request.id""#),
    ("plays.time_unit = 'ns'",
     r#"1: plays.time_unit: found "ns", expected "ms" or "s" or "us" or "rfc3339""#),
    ("plays.filter = true",
     r#"1: plays.filter: found true, expected a CEL expression in quotes, for example 'device != "console"'"#),
    ("plays.attributes = ['a']",
     r#"1: plays.attributes: found a list, expected a table, for example { device = "string?" }"#),
    ("plays.attributes.a = 'text'",
     r#"1: plays.attributes.a: found "text", expected a type: string, int, double or bool, with ? where it may be absent, for example "string?""#),
    ("plays.attributes.a = {}",
     r#"1: plays.attributes.a: found no type, expected a type: string, int, double or bool, with ? where it may be absent, for example { path = "a.b", type = "int?" }"#),
    ("plays.attributes.a = { type = 'int', pth = 'b' }",
     r#"1: plays.attributes.a.pth: found an unknown key, expected one of path, type; did you mean `path`?"#),
    ("plays.attributes.key = 'int'",
     r#"1: plays.attributes.key: found the name `key`, expected a name that events do not have anyway, for example device"#),
    ("plays.attributes.a-b = 'int'",
     r#"1: plays.attributes.a-b: found the name `a-b`, expected letters, digits and underscores that are no word of CEL, for example device"#),
    ("plays.attributes.null = 'int'",
     r#"1: plays.attributes.null: found the name `null`, expected letters, digits and underscores that are no word of CEL, for example device"#),
    ("transform.slices = []",
     r#"1: transform.slices: found [], expected lists of attribute names, one at least, for example [[]]"#),
    ("transform.slices = ['a']",
     r#"1: transform.slices: found "a", expected a list of attribute names, for example ["country"]"#),
    ("transform.slices = [['country']]",
     r#"1: transform.slices: found "country", expected an attribute declared in [impressions], for example attributes = { country = "string?" }"#),
    ("aggregate.epochs = []",
     r#"1: aggregate.epochs: found 0 lengths, expected a list of 1 to 4 durations, for example ["30m", "1m"]"#),
    ("aggregate.epochs = '30m'",
     r#"1: aggregate.epochs: found "30m", expected a list of 1 to 4 durations, for example ["30m", "1m"]"#),
    ("aggregate.epochs = ['5m', '4m', '3m', '2m', '1m']",
     r#"1: aggregate.epochs: found 5 lengths, expected a list of 1 to 4 durations, for example ["30m", "1m"]"#),
    ("aggregate.epochs = ['500ms']",
     r#"1: aggregate.epochs: found "500ms", expected a duration of 1s to 31d, for example "30m""#),
    ("aggregate.epochs = ['1h', '60m']",
     r#"1: aggregate.epochs: found "60m", expected each length once, for example ["30m", "1m"]"#),
    ("aggregate.epochs = ['1h', '25m']",
     r#"1: aggregate.epochs: found "25m", expected a length that divides the longest, 1h, for example ["30m", "1m"]"#),
    ("lake.url = 'lake'",
     r#"1: lake.url: found "lake", expected s3:// with a bucket and maybe a folder in it, or file: with a folder, or none, for example "s3://my-bucket/marquee""#),
    ("lake.url = 'file:data/store'",
     r#"1: lake.url: found the folder of the store, expected a folder of its own, for example "file:data/lake""#),
    ("lake = { url = 's3://cells', endpoint = 'http://localhost:9000' }",
     r#"1: lake.endpoint: found "http://localhost:9000", expected https://, or allow_http = true"#),
    ("lake.endpoint = 's3.example.com'",
     r#"1: lake.endpoint: found "s3.example.com", expected https:// or http:// and a server, or none for that of Amazon, for example "https://s3.example.com""#),
    ("lake = { url = 's3://cells', access_key_id = 'a' }",
     r#"1: lake.access_key_id: found a key without its other half, expected access_key_id and secret_access_key, or neither; without them AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are used"#),
    ("lake.events = true",
     r#"1: lake.events: found true, expected false, or a lake; raw events are kept in the lake: [lake] url says where it is"#),
    ("lake = { url = 's3://cells', events_interval = '2h' }",
     r#"1: lake.events_interval: found "2h", expected a duration of 1s to 1h, for example "1h""#),
    ("lake.file_span = '2d'",
     r#"1: lake.file_span: found "2d", expected a duration of 1s to 1d, for example "30m""#),
    ("lake.deltas = 'off'",
     r#"1: lake.deltas: found "off", expected a duration, for example "5m""#),
    ("lake.file_size = '1KiB'",
     r#"1: lake.file_size: found "1KiB", expected a size of 1MiB to 1GiB, for example "64MiB""#),
    ("snapshots.interval = '25h'",
     r#"1: snapshots.interval: found "25h", expected a duration of 0s to 1d, for example "2m""#),
    ("repair.interval = '32d'",
     r#"1: repair.interval: found "32d", expected a duration of 0s to 31d, for example "0s""#),
    ("repair.horizon = '0s'",
     r#"1: repair.horizon: found "0s", expected a duration of 1s to 366d, for example "1d""#),
    ("runtime.threads = 257",
     r#"1: runtime.threads: found 257, expected a whole number of 0 to 256, for example 0"#),
    ("runtime.batch_interval = '0s'",
     r#"1: runtime.batch_interval: found "0s", expected a duration of 1ms to 1h, for example "250ms""#),
    ("runtime.batch_events = 0",
     r#"1: runtime.batch_events: found 0, expected a whole number of 1 to 10000000, for example 200000"#),
    ("runtime.memory = '1GB'",
     r#"1: runtime.memory: found "1GB", expected a size in B, KiB, MiB, GiB or TiB, for example "1GiB""#),
    ("runtime.memory = '32MiB'",
     r#"1: runtime.memory: found "32MiB", expected a size of 64MiB to 16TiB, for example "1GiB""#),
    ("http.listen = 'localhost:8080'",
     r#"1: http.listen: found "localhost:8080", expected an IP address and a port, for example "127.0.0.1:8080""#),
    ("collector.max_body = '1'",
     r#"1: collector.max_body: found "1", expected a size of 1KiB to 1GiB, for example "4MiB""#),
    ("impressions.attributes.a = 'int'\ntransform.slices = [['a', 'a']]",
     r#"2: transform.slices: found "a", expected each attribute once in a slice"#),
    ("impressions.attributes = { a = 'int', b = 'int' }\ntransform.slices = [\n['a', 'b'],\n['b', 'a']]",
     r#"4: transform.slices: found the slice [a, b] again, expected each slice once, in whatever order"#),
    ("impressions.attributes.a = 'int'\nplays.attributes.a = 'bool'\ntransform.slices = [['a']]",
     r#"2: plays.attributes.a: found "bool", expected "int" as in [impressions], since [transform] uses it"#),
    ("impressions.attributes.a = 'int'\nplays.attributes.a = 'bool'\ntransform.video = 'string(a)'",
     r#"2: plays.attributes.a: found "bool", expected "int" as in [impressions], since [transform] uses it"#),
    ("impressions.attributes.a = 'int'\ntransform.slices = [['a']]\njoin.epoch_of_play = 'play'",
     r#"2: transform.slices: found "a", expected an attribute declared in [plays], for example attributes = { a = "string?" }"#),
    ("impressions.attributes.a = 'txt'\ntransform.slices = [['a']]",
     r#"1: impressions.attributes.a: found "txt", expected a type: string, int, double or bool, with ? where it may be absent, for example "string?""#),
    ("plays.request_id = 'a'\nplays.video = \"a\\.b\"",
     r#"2: found no valid TOML in `plays.video = "a\.b"` (missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`), expected TOML, for example within = "1h"; in single quotes, as in 'a\.b', a backslash needs no second one"#),
    ("[plays]\ntopic = ",
     r#"2: found no valid TOML in `topic =` (string values must be quoted, expected literal string), expected TOML, for example within = "1h""#),
    ("[plays]\ntopic = 'a'\ntopic = 'b'",
     r#"3: found no valid TOML in `topic = 'b'` (duplicate key), expected TOML, for example within = "1h""#),
];

#[test]
fn each_fault_says_where_what_and_how_to_repair_it() {
    for (text, message) in SINGLE {
        assert_eq!(said(text), [*message], "{text}");
    }
}

#[test]
fn all_faults_of_a_file_are_reported_at_once_in_its_order() {
    let text = r#"
[runtime]
memory = "1"

[join]
within = "1hour"      # its own fault; the default stands in for what depends on it
lateness = 5
wiithin = "1h"

[transform]
slices = [
  [],
  ["country"],
  ["device", 3],
]
[impressions]
topic = "plays"
attributes = { country = "text?", device = "string?" }
"#;
    let places: Vec<String> = said(text)
        .iter()
        .map(|line| line.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
        .collect();
    assert_eq!(
        places,
        [
            "1: plays.where",
            "3: runtime.memory",
            "6: join.within",
            "7: join.lateness",
            "8: join.wiithin",
            "14: transform.slices",
            "16: impressions.where",
            "18: impressions.attributes.country",
        ],
    );
}

#[test]
fn cells_for_each_event_are_bounded() {
    let slices = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
        let declared: Vec<String> = names.iter().map(|name| format!("{name} = 'int'")).collect();
        let lists: Vec<String> = names.iter().map(|name| format!("['{name}']")).collect();
        format!(
            "aggregate.epochs = ['30m', '1m']\nimpressions.attributes = {{ {} }}\n\
             transform.slices = [{}]",
            declared.join(", "),
            lists.join(", ")
        )
    };
    good(&slices(32));
    assert_eq!(
        said(&slices(33)),
        ["3: transform.slices: found 33 slices x 2 lengths of epochs, expected at most 64 \
             cells for each event; count fewer slices, or fewer lengths of epochs",],
    );
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = |name: &str, bytes: Option<&[u8]>| {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).expect("the file is written");
        }
        let faults = Config::load(&path).expect_err(name);
        assert_eq!(faults.len(), 1);
        faults[0].to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(
        said("none.toml", None),
        "none.toml: found no such file, expected a configuration in TOML; name it with -c, or \
         start from a copy of examples/reference.toml",
    );
    assert_eq!(
        said("large.toml", Some(&vec![b'#'; (1 << 20) + 1])),
        "large.toml: found more than 1MiB, expected a configuration in TOML; is this the file \
         that you meant?",
    );
    assert_eq!(
        said("latin.toml", Some(b"\n# caf\xe9\n")),
        "latin.toml:2: found bytes that are no UTF-8, expected a configuration in TOML; save the \
         file as UTF-8",
    );
    assert!(said("", None).contains("make it a file that can be read"));
}

#[test]
fn hostile_files_are_refused_without_harm() {
    for text in [
        "a = ".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000) + "b = 1",
        "[join]\n".repeat(1000),
        format!("join.within = '{}'", "9".repeat(100_000)),
        format!("{} = 1", "k".repeat(100_000)),
        "\u{0}".into(),
        "\u{feff}join = ".into(),
    ] {
        let faults = said(&text);
        assert!(faults.iter().all(|line| line.len() < 400), "{faults:?}");
    }
}
