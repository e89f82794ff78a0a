//! Reads each section: asks the walker for every key there is, with its bounds.
//!
//! What one key can say about itself is checked here; what takes two keys is in `check.rs`.

mod lake;

use super::defaults::names;
use super::value::{
    BUILT_IN, Properties, is_broker_list, is_identifier, is_keyspace, is_topic, parse_path,
};
use super::walk::{Item, Section};
use super::{
    Aggregate, Attribute, AttributeType, Cassandra, Collector, Config, Expression, Http, Idle,
    Join, Log, Members, Origin, Rank, Repair, Runtime, Secret, Snapshots, Store, Stream, Transform,
};
use marquee_model::{MAX_EVENT_TIME_MS, format_duration_ms};
use marquee_sources::json::OfRecord;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SECOND_MS: i64 = 1000;
const HOUR_MS: i64 = 3600 * SECOND_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const MAX_EPOCHS: usize = 4;

/// Reads the whole file. Wrong values are noted by the walker and read as their default.
pub(super) fn config(root: &Section<'_>, base_dir: &Path, file: &str) -> Config {
    let config = Config {
        log: root.section("log", |section| log(section, base_dir)),
        impressions: root.section("impressions", |section| stream(section, "impressions")),
        plays: root.section("plays", |section| stream(section, "plays")),
        join: root.section("join", join),
        transform: root.section("transform", transform),
        aggregate: root.section("aggregate", aggregate),
        store: root.section("store", |section| store(section, base_dir)),
        lake: root.section("lake", |section| lake::section(section, base_dir)),
        snapshots: root.section("snapshots", snapshots),
        repair: root.section("repair", repair),
        runtime: root.section("runtime", runtime),
        http: root.section("http", http),
        collector: root.section("collector", collector),
        rank: root.section("rank", rank),
        origin: Origin { file: file.into(), lines: BTreeMap::new() },
    };
    root.refuse_unknown();
    config
}

fn log(section: &Section<'_>, base_dir: &Path) -> Log {
    let default = Log::default();
    let brokers = |text: &str| is_broker_list(text).then(|| text.to_owned());
    let group = |text: &str| (1..=249).contains(&text.len()).then(|| text.to_owned());
    Log {
        kind: section.choice("kind", default.kind, names::LOG_KIND),
        path: folder(section, "path", base_dir, default.path),
        lanes: section.integer("lanes", default.lanes, 1..=1024),
        brokers: section
            .parsed("brokers", "host:port, several with commas", r#""kafka-1:9092""#, brokers)
            .unwrap_or(default.brokers),
        group: section
            .parsed("group", "a text of 1 to 249 bytes", r#""marquee""#, group)
            .unwrap_or(default.group),
        partitioner: section.choice("partitioner", default.partitioner, names::PARTITIONER),
        properties: Properties(section.item("properties").map(properties).unwrap_or_default()),
        fetch_memory_bytes: section.size(
            "fetch_memory",
            default.fetch_memory_bytes,
            4 << 20..=1 << 40,
        ),
    }
}

/// Settings that the program makes itself, with what to do instead.
const OWN_PROPERTIES: [(&str, &str); 13] = [
    ("bootstrap.servers", "write it as `brokers`"),
    // librdkafka's other name for it: of both, an arbitrary one would win.
    ("metadata.broker.list", "write it as `brokers`"),
    ("group.id", "write it as `group`"),
    ("enable.auto.commit", "offsets are committed only after the store has the results"),
    ("enable.auto.offset.store", "offsets are committed only after the store has the results"),
    ("auto.offset.reset", "an offset that is gone becomes a gap, and no other one is ever guessed"),
    ("enable.partition.eof", "an idle topic is told from a slow one by it"),
    ("partition.assignment.strategy", "a lane needs the same partition of both topics: range"),
    ("group.protocol", "a lane needs the same partition of both topics: the classic protocol"),
    ("isolation.level", "what a transaction has taken back was never an event"),
    ("delivery.report.only.error", "the collector waits for each report"),
    ("transactional.id", "the collector writes without transactions: sets need none"),
    ("enable.idempotence", "a record that is sent again must not be written twice"),
];

fn properties(item: Item<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    if item.table("{ security.protocol = \"ssl\" }").is_some() {
        flatten(&item, "", &mut properties);
    }
    properties
}

/// `security.protocol` without quotes is a table in a table to TOML; it means the dotted name.
fn flatten(item: &Item<'_>, prefix: &str, properties: &mut BTreeMap<String, String>) {
    let Some(table) = item.as_section() else { return };
    for item in table.items() {
        let name = format!("{prefix}{}", item.name);
        if let Some((_, instead)) = OWN_PROPERTIES.iter().find(|(own, _)| *own == name) {
            item.refuse::<()>("a property that marquee does not set itself", "", Some(instead));
        } else if let Some(text) = item.as_text() {
            properties.insert(name, text.to_owned());
        } else if item.as_section().is_some() {
            flatten(&item, &format!("{name}."), properties);
        } else {
            item.refuse::<()>("a text", r#""ssl""#, Some("write the value in quotes"));
        }
    }
}

fn stream(section: &Section<'_>, kind: &str) -> Stream {
    let default = Stream::of_topic(kind);
    let topic = |text: &str| is_topic(text).then(|| text.to_owned());
    let rule = "a topic of 1 to 249 of a-z, A-Z, 0-9, dot, underscore and minus";
    let explode = |text: &str| match text {
        "" => Some(None),
        _ => parse_path(text).filter(|path| OfRecord::of_path(path).is_none()).map(Some),
    };
    Stream {
        topic: section
            .parsed("topic", rule, &format!("{:?}", default.topic), topic)
            .unwrap_or(default.topic),
        where_: expression(section, "where", r#"'kind == "play"'"#),
        explode: section.parsed("explode", PATH, r#""ctx.videos""#, explode).flatten(),
        request_id: path(section, "request_id", default.request_id),
        video: path(section, "video", default.video),
        time: path(section, "time", default.time),
        time_unit: section.choice("time_unit", default.time_unit, names::TIME_UNIT),
        attributes: section.item("attributes").map(attributes).unwrap_or_default(),
        filter: expression(section, "filter", r#"'device != "console"'"#),
    }
}

const PATH: &str = "a path: keys with dots between them";
const OF_RECORD: &str = "$record.key, $record.headers.NAME, $record.time, $record.partition or \
                         $record.offset, which are known of a record beside its JSON";
const TYPE: &str = "a type: string, int, double or bool, with ? where it may be absent";

fn path(section: &Section<'_>, key: &'static str, default: Vec<String>) -> Vec<String> {
    let Some(item) = section.item(key) else { return default };
    let path = item.parsed(PATH, r#""ctx.request.id""#, parse_path);
    if let Some(Err(_)) = path.as_deref().and_then(OfRecord::of_path) {
        return item.refuse(OF_RECORD, r#""$record.key""#, None).unwrap_or(default);
    }
    path.unwrap_or(default)
}

fn expression(section: &Section<'_>, key: &'static str, example: &str) -> Expression {
    let Some(item) = section.item(key) else { return Expression::default() };
    let source =
        item.parsed("a CEL expression in quotes", example, |text| Some(text.trim().into()));
    Expression { source: source.unwrap_or_default(), line: item.line }
}

fn attributes(item: Item<'_>) -> Vec<Attribute> {
    item.table("{ device = \"string?\" }");
    let items = item.as_section().map(|table| table.items()).unwrap_or_default();
    let mut attributes: Vec<Attribute> = items.into_iter().filter_map(attribute).collect();
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    attributes
}

fn attribute(item: Item<'_>) -> Option<Attribute> {
    if !is_identifier(&item.name) {
        let expected = "letters, digits and underscores that are no word of CEL";
        return item.refuse_found(&format!("the name `{}`", item.name), expected, "device");
    }
    if BUILT_IN.contains(&item.name.as_str()) {
        let found = format!("the name `{}`", item.name);
        return item.refuse_found(&found, "a name that events do not have anyway", "device");
    }
    let default_path = vec![item.name.clone()];
    let (path, (ty, optional)) = if let Some(table) = item.as_section() {
        let path = path(&table, "path", default_path);
        let ty = match table.item("type") {
            Some(ty) => ty.parsed(TYPE, r#""string?""#, attribute_type),
            None => item.refuse_found("no type", TYPE, r#"{ path = "a.b", type = "int?" }"#),
        };
        table.refuse_unknown();
        (path, ty.unwrap_or(UNREADABLE))
    } else {
        let ty = item.parsed(TYPE, r#""string?""#, attribute_type);
        (default_path, ty.unwrap_or(UNREADABLE))
    };
    Some(Attribute { name: item.name, path, ty, optional })
}

/// Stands for a type that has its fault already, so that the name counts as declared and slices
/// that use it raise no second one.
const UNREADABLE: (AttributeType, bool) = (AttributeType::String, true);

fn attribute_type(text: &str) -> Option<(AttributeType, bool)> {
    let (name, optional) = match text.strip_suffix('?') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let (_, ty) = names::ATTRIBUTE_TYPE.iter().find(|(known, _)| *known == name)?;
    Some((*ty, optional))
}

fn join(section: &Section<'_>) -> Join {
    let default = Join::default();
    let match_ = section.choice("match", default.match_, names::MATCH);
    let impressions = section.choice("impressions", default.impressions, names::IMPRESSIONS);
    let of_play = section.choice("epoch_of_play", default.epoch_of_play, names::EPOCH_OF_PLAY);
    let within_ms = section.duration("within", default.within_ms, 0..=7 * DAY_MS);
    Join {
        match_,
        impressions,
        epoch_of_play: of_play,
        within_ms,
        early_ms: section.duration("early", default.early_ms, 0..=DAY_MS),
        lateness_ms: section.duration("lateness", default.lateness_ms, 0..=7 * DAY_MS),
        max_ahead_ms: section.duration("max_ahead", default.max_ahead_ms, 0..=7 * DAY_MS),
        idle: idle(section, within_ms),
        watermark_support: section.integer(
            "watermark_support",
            default.watermark_support,
            1..=1024,
        ),
        max_facts: section.integer("max_facts", default.max_facts, 1..=16_000_000),
    }
}

fn idle(section: &Section<'_>, within_ms: i64) -> Idle {
    let grace = section.item("idle_grace");
    let hold = section.item("idle").and_then(|item| item.choice(names::IDLE).map(|()| item));
    if let (Some(_), Some(item)) = (&grace, &hold) {
        let expected = "either idle or idle_grace";
        item.refuse::<()>(expected, "", Some("held for ever, a topic has no grace: remove one"));
    }
    match hold {
        Some(_) => Idle::Hold,
        None => {
            let ms = grace.and_then(|item| item.duration(HOUR_MS, 0..=31 * DAY_MS));
            Idle::After { idle_grace_ms: ms.unwrap_or(within_ms) }
        }
    }
}

fn transform(section: &Section<'_>) -> Transform {
    let default = Transform::default();
    Transform {
        video: expression(section, "video", r#"'show != null ? show : video'"#),
        slices: section.item("slices").and_then(slices).unwrap_or(default.slices),
    }
}

fn slices(item: Item<'_>) -> Option<Vec<Vec<String>>> {
    const LISTS: &str = "lists of attribute names";
    const EXAMPLE: &str = r#"[[], ["country"]]"#;
    let mut slices: Vec<Vec<String>> = Vec::new();
    for element in item.list(LISTS, EXAMPLE)? {
        let mut slice: Vec<String> = Vec::new();
        for name in element.list("a list of attribute names", r#"["country"]"#)? {
            let text = name
                .parsed("the name of an attribute", r#""country""#, |text| Some(text.to_owned()))?;
            if slice.contains(&text) {
                name.refuse::<()>("each attribute once in a slice", "", None);
            } else {
                slice.push(text);
            }
        }
        slice.sort();
        if slices.contains(&slice) {
            let found = format!("the slice [{}] again", slice.join(", "));
            element.refuse_found::<()>(&found, "each slice once, in whatever order", "");
        } else {
            slices.push(slice);
        }
    }
    match slices.is_empty() {
        true => item.refuse(&format!("{LISTS}, one at least"), "[[]]", None),
        false => Some(slices),
    }
}

fn aggregate(section: &Section<'_>) -> Aggregate {
    match section.item("epochs").and_then(epochs) {
        Some(epochs_ms) => Aggregate { epochs_ms },
        None => Aggregate::default(),
    }
}

fn epochs(item: Item<'_>) -> Option<Vec<i64>> {
    const LIST: &str = "a list of 1 to 4 durations";
    const EXAMPLE: &str = r#"["30m", "1m"]"#;
    let elements = item.list(LIST, EXAMPLE)?;
    if elements.is_empty() || elements.len() > MAX_EPOCHS {
        return item.refuse_found(&format!("{} lengths", elements.len()), LIST, EXAMPLE);
    }
    let mut epochs_ms: Vec<i64> = Vec::new();
    let mut readable = Vec::new();
    for element in elements {
        let Some(ms) = element.duration(HOUR_MS / 2, SECOND_MS..=31 * DAY_MS) else { continue };
        match epochs_ms.contains(&ms) {
            true => element.refuse("each length once", EXAMPLE, None).unwrap_or_default(),
            false => epochs_ms.push(ms),
        }
        readable.push((ms, element));
    }
    let longest = epochs_ms.iter().copied().max()?;
    for (_, element) in readable.iter().filter(|(ms, _)| longest % ms != 0) {
        let expected =
            format!("a length that divides the longest, {}", format_duration_ms(longest));
        element.refuse::<()>(&expected, EXAMPLE, None);
    }
    epochs_ms.sort_by(|a, b| b.cmp(a));
    Some(epochs_ms)
}

fn store(section: &Section<'_>, base_dir: &Path) -> Store {
    let default = Store::default();
    let members = section.item("members").and_then(|item| match item.as_bool() {
        Some(true) => Some(Members::All),
        Some(false) => Some(Members::Off),
        None => item.choice(names::MEMBERS),
    });
    Store {
        kind: section.choice("kind", default.kind, names::STORE_KIND),
        path: folder(section, "path", base_dir, default.path),
        members: members.unwrap_or(default.members),
        members_retention_ms: section.duration(
            "members_retention",
            default.members_retention_ms,
            HOUR_MS..=MAX_EVENT_TIME_MS,
        ),
        retention_ms: section
            .item("retention")
            .filter(|item| item.as_text() != Some(""))
            .and_then(|item| item.duration(30 * DAY_MS, SECOND_MS..=MAX_EVENT_TIME_MS)),
        cassandra: cassandra(section, base_dir),
    }
}

fn cassandra(section: &Section<'_>, base_dir: &Path) -> Cassandra {
    let default = Cassandra::default();
    let nodes = |text: &str| is_broker_list(text).then(|| text.to_owned());
    let keyspace = |text: &str| is_keyspace(text).then(|| text.to_owned());
    let any = |text: &str| Some(text.to_owned());
    let replication = |text: &str| {
        let is_map = text.starts_with('{') && text.ends_with('}') && !text.contains(';');
        is_map.then(|| text.to_owned())
    };
    let map = "a map as CQL writes it";
    let file = |text: &str| match text {
        "" => Some(None),
        text => (!text.contains('\0')).then(|| Some(base_dir.join(text))),
    };
    let rule = "a name of 1 to 48 of a-z, 0-9 and underscore, a letter first";
    Cassandra {
        nodes: section
            .parsed("nodes", "host:port, several with commas", r#""cassandra-1:9042""#, nodes)
            .unwrap_or(default.nodes),
        keyspace: section
            .parsed("keyspace", rule, r#""marquee""#, keyspace)
            .unwrap_or(default.keyspace),
        datacenter: section
            .parsed("datacenter", "the name of a data center", r#""dc1""#, any)
            .unwrap_or(default.datacenter),
        consistency: section.choice("consistency", default.consistency, names::CONSISTENCY),
        replication: section
            .parsed("replication", map, &format!("{:?}", default.replication), replication)
            .unwrap_or(default.replication),
        buckets: section.integer("buckets", default.buckets.into(), 1..=256) as u16,
        timeout_ms: section.duration("timeout", default.timeout_ms, 100..=10 * 60 * SECOND_MS),
        in_flight: section.integer("in_flight", default.in_flight, 1..=4096),
        username: section
            .parsed("username", "a name", r#""marquee""#, any)
            .unwrap_or(default.username),
        password: section
            .parsed("password", "a text", r#""...""#, any)
            .map_or(default.password, Secret),
        tls: section.parsed("tls", "a file", r#""ca.pem""#, file).flatten(),
    }
}

fn folder(section: &Section<'_>, key: &'static str, base: &Path, default: PathBuf) -> PathBuf {
    let example = format!("{:?}", default.display().to_string());
    let folder = section.parsed(key, "a folder", &example, |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    });
    base.join(folder.unwrap_or(default))
}

fn snapshots(section: &Section<'_>) -> Snapshots {
    let default = Snapshots::default();
    Snapshots { interval_ms: section.duration("interval", default.interval_ms, 0..=DAY_MS) }
}

fn repair(section: &Section<'_>) -> Repair {
    let default = Repair::default();
    Repair {
        interval_ms: section.duration("interval", default.interval_ms, 0..=31 * DAY_MS),
        horizon_ms: section.duration("horizon", default.horizon_ms, SECOND_MS..=366 * DAY_MS),
    }
}

fn runtime(section: &Section<'_>) -> Runtime {
    let default = Runtime::default();
    Runtime {
        threads: section.integer("threads", default.threads, 0..=256),
        batch_interval_ms: section.duration(
            "batch_interval",
            default.batch_interval_ms,
            1..=HOUR_MS,
        ),
        batch_events: section.integer("batch_events", default.batch_events, 1..=10_000_000),
        memory_bytes: section.size("memory", default.memory_bytes, 64 << 20..=16 << 40),
    }
}

fn http(section: &Section<'_>) -> Http {
    let default = Http::default();
    let example = format!("{:?}", default.listen.to_string());
    let listen =
        section.parsed("listen", "an IP address and a port", &example, |text| text.parse().ok());
    Http {
        listen: listen.unwrap_or(default.listen),
        pages: section.choice("pages", default.pages, names::PAGES),
        token: token(section),
        allowed_hosts: hosts(section),
    }
}

fn collector(section: &Section<'_>) -> Collector {
    let default = Collector::default();
    Collector {
        max_body_bytes: section.size("max_body", default.max_body_bytes, 1 << 10..=1 << 30),
        allowed_origins: origins(section),
        token: token(section),
        require_signed: section
            .item("require_signed")
            .and_then(|item| item.boolean(true))
            .unwrap_or_default(),
        client_rate: section.integer("client_rate", default.client_rate, 0..=1_000_000),
        client_video_events: section.integer(
            "client_video_events",
            default.client_video_events,
            0..=1_000_000,
        ),
        client_header: section
            .parsed("client_header", "the name of a header", "\"x-forwarded-for\"", |text| {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                text.bytes().all(fits).then(|| text.to_ascii_lowercase())
            })
            .unwrap_or_default(),
    }
}

/// Secrets that are sent as they are must not be guessed.
pub(super) const TOKEN_BYTES: usize = 16;
pub(super) const KEY_BYTES: usize = 32;

/// Whether a secret is long enough, and can stand in a header as it is.
pub(super) fn is_secret(text: &str, least: usize) -> bool {
    let fits = |b: u8| b == b' ' || b.is_ascii_graphic();
    text.len() >= least && text.trim() == text && text.bytes().all(fits)
}

fn token(section: &Section<'_>) -> Secret {
    let fits = |text: &str| text.is_empty() || is_secret(text, TOKEN_BYTES);
    let token = |text: &str| fits(text).then(|| Secret(text.to_owned()));
    let expected = "at least 16 characters that nobody can guess, or none";
    section
        .parsed("token", expected, "\"the output of openssl rand -hex 16\"", token)
        .unwrap_or_default()
}

fn hosts(section: &Section<'_>) -> Vec<String> {
    const EXPECTED: &str = "a host without https:// and without a port";
    const EXAMPLE: &str = "\"marquee.example.com\"";
    let host = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        let good = !text.is_empty() && text.bytes().all(fits);
        good.then(|| text.to_ascii_lowercase())
    };
    let Some(item) = section.item("allowed_hosts") else { return Vec::new() };
    let items = item.list("a list of hosts", "[\"marquee.example.com\"]").unwrap_or_default();
    items.iter().filter_map(|item| item.parsed(EXPECTED, EXAMPLE, host)).collect()
}

fn origins(section: &Section<'_>) -> Vec<String> {
    const EXPECTED: &str = "https:// and a host, a port if it is not the usual one, and no path";
    const EXAMPLE: &str = "\"https://www.example.com\"";
    let origin = |text: &str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let fits =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']');
        // Browsers leave the usual port out.
        let usual = if text.starts_with("https") { ":443" } else { ":80" };
        let is_as_sent = !rest.ends_with(':') && !rest.ends_with(usual);
        let good = !rest.is_empty() && is_as_sent && rest.bytes().all(fits);
        good.then(|| text.to_ascii_lowercase())
    };
    let Some(item) = section.item("allowed_origins") else { return Vec::new() };
    let items = item.list("a list of origins", "[\"https://www.example.com\"]").unwrap_or_default();
    items.iter().filter_map(|item| item.parsed(EXPECTED, EXAMPLE, origin)).collect()
}

fn rank(section: &Section<'_>) -> Rank {
    let default = Rank::default();
    let key = |text: &str| is_secret(text, KEY_BYTES).then(|| Secret(text.to_owned()));
    const EXPECTED: &str = "at least 32 characters that nobody can guess";
    const EXAMPLE: &str = "\"the output of openssl rand -hex 32\"";
    let keys = section.item("keys").and_then(|item| item.list("a list of secrets", "[]"));
    let keys = keys.unwrap_or_default();
    Rank {
        token: token(section),
        keys: keys.iter().filter_map(|item| item.parsed(EXPECTED, EXAMPLE, key)).collect(),
        expires_ms: section.duration("expires", default.expires_ms, 60 * SECOND_MS..=30 * DAY_MS),
        horizon_ms: section.duration("horizon", default.horizon_ms, SECOND_MS..=31 * DAY_MS),
        prior: section.integer("prior", default.prior, 0..=1_000_000),
    }
}
