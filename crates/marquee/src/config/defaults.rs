//! The defaults: what holds where the file says nothing.
//!
//! They stand here and nowhere else in the program; a test holds docs/configuration.md to them.

use super::value::Properties;
use super::{
    Aggregate, AttributeType, Cassandra, Collector, Consistency, EpochOfPlay, Expression, Http,
    Idle, Join, JoinedImpressions, Lake, Log, LogKind, Match, Members, Partitioner, Repair,
    Runtime, Snapshots, Store, StoreKind, Stream, TimeUnit, Transform,
};
use super::{Pages, Rank, Secret};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

impl Default for Log {
    fn default() -> Self {
        Log {
            kind: LogKind::Embedded,
            path: PathBuf::from("data/log"),
            lanes: 4,
            brokers: "127.0.0.1:19092".into(),
            group: "marquee".into(),
            partitioner: Partitioner::Murmur2,
            properties: Properties::default(),
            fetch_memory_bytes: 128 << 20,
        }
    }
}

impl Stream {
    /// The default of one section; the two differ in their topic only.
    pub(super) fn of_topic(topic: &str) -> Stream {
        let path = |key: &str| vec![key.to_owned()];
        Stream {
            topic: topic.into(),
            where_: Expression::default(),
            explode: None,
            request_id: path("request_id"),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Ms,
            attributes: Vec::new(),
            filter: Expression::default(),
        }
    }
}

impl Default for Join {
    fn default() -> Self {
        Join {
            match_: Match::RequestAndVideo,
            impressions: JoinedImpressions::All,
            epoch_of_play: EpochOfPlay::Impression,
            within_ms: HOUR_MS,
            early_ms: MINUTE_MS,
            lateness_ms: 10 * MINUTE_MS,
            max_ahead_ms: 10 * MINUTE_MS,
            idle: Idle::After { idle_grace_ms: HOUR_MS },
            watermark_support: 16,
            max_facts: 10_000,
        }
    }
}

impl Default for Transform {
    fn default() -> Self {
        Transform { video: Expression::default(), slices: vec![Vec::new()] }
    }
}

impl Default for Aggregate {
    fn default() -> Self {
        Aggregate { epochs_ms: vec![30 * MINUTE_MS] }
    }
}

impl Default for Store {
    fn default() -> Self {
        Store {
            kind: StoreKind::Embedded,
            path: PathBuf::from("data/store"),
            members: Members::All,
            members_retention_ms: 48 * HOUR_MS,
            retention_ms: None,
            cassandra: Cassandra::default(),
        }
    }
}

impl Default for Cassandra {
    fn default() -> Self {
        Cassandra {
            nodes: "127.0.0.1:9042".into(),
            keyspace: "marquee".into(),
            datacenter: String::new(),
            consistency: Consistency::LocalQuorum,
            replication: "{'class': 'SimpleStrategy', 'replication_factor': 1}".into(),
            buckets: 16,
            timeout_ms: 5_000,
            in_flight: 64,
            username: String::new(),
            password: Default::default(),
            tls: None,
        }
    }
}

impl Default for Lake {
    fn default() -> Self {
        Lake {
            place: None,
            file_span_ms: 30 * MINUTE_MS,
            file_bytes: 64 << 20,
            deltas_ms: 5 * MINUTE_MS,
            letters: true,
            interval_ms: 5000,
            examples: false,
            negatives_ppm: 1_000_000,
            examples_interval_ms: 60 * MINUTE_MS,
            corrections_ms: 24 * 60 * MINUTE_MS,
            events: false,
            events_interval_ms: HOUR_MS,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Snapshots { interval_ms: 2 * MINUTE_MS }
    }
}

impl Default for Repair {
    fn default() -> Self {
        Repair { interval_ms: 0, horizon_ms: 24 * HOUR_MS }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime { threads: 0, batch_interval_ms: 250, batch_events: 200_000, memory_bytes: 1 << 30 }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            pages: Pages::None,
            token: Secret::default(),
            allowed_hosts: Vec::new(),
        }
    }
}

impl Default for Collector {
    fn default() -> Self {
        Collector {
            max_body_bytes: 4 << 20,
            allowed_origins: Vec::new(),
            token: Secret::default(),
            require_signed: false,
            client_rate: 0,
            client_video_events: 0,
            client_header: String::new(),
        }
    }
}

impl Default for Rank {
    fn default() -> Self {
        Rank {
            token: Secret::default(),
            keys: Vec::new(),
            expires_ms: 6 * HOUR_MS,
            horizon_ms: 2 * HOUR_MS,
            prior: 50,
        }
    }
}

/// How each choice is written in the file. The first name of a list is its default.
pub(super) mod names {
    use super::*;

    pub(crate) const LOG_KIND: &[(&str, LogKind)] =
        &[("embedded", LogKind::Embedded), ("kafka", LogKind::Kafka)];
    pub(crate) const PARTITIONER: &[(&str, Partitioner)] =
        &[("murmur2", Partitioner::Murmur2), ("crc32", Partitioner::Crc32)];
    pub(crate) const TIME_UNIT: &[(&str, TimeUnit)] = &[
        ("ms", TimeUnit::Ms),
        ("s", TimeUnit::S),
        ("us", TimeUnit::Us),
        ("rfc3339", TimeUnit::Rfc3339),
    ];
    pub(crate) const ATTRIBUTE_TYPE: &[(&str, AttributeType)] = &[
        ("string", AttributeType::String),
        ("int", AttributeType::Int),
        ("double", AttributeType::Double),
        ("bool", AttributeType::Bool),
    ];
    pub(crate) const MATCH: &[(&str, Match)] =
        &[("request_and_video", Match::RequestAndVideo), ("request", Match::Request)];
    pub(crate) const IMPRESSIONS: &[(&str, JoinedImpressions)] =
        &[("all", JoinedImpressions::All), ("joined", JoinedImpressions::Joined)];
    pub(crate) const EPOCH_OF_PLAY: &[(&str, EpochOfPlay)] =
        &[("impression", EpochOfPlay::Impression), ("play", EpochOfPlay::Play)];
    pub(crate) const IDLE: &[(&str, ())] = &[("hold", ())];
    pub(crate) const PAGES: &[(&str, Pages)] = &[("none", Pages::None), ("demo", Pages::Demo)];
    pub(crate) const STORE_KIND: &[(&str, StoreKind)] =
        &[("embedded", StoreKind::Embedded), ("cassandra", StoreKind::Cassandra)];
    pub(crate) const MEMBERS: &[(&str, Members)] = &[
        ("store", Members::Store),
        ("lake", Members::Lake),
        ("both", Members::Both),
        ("off", Members::Off),
    ];
    pub(crate) const CONSISTENCY: &[(&str, Consistency)] = &[
        ("local_quorum", Consistency::LocalQuorum),
        ("quorum", Consistency::Quorum),
        ("all", Consistency::All),
        ("local_one", Consistency::LocalOne),
        ("one", Consistency::One),
    ];

    /// The name of a value in its list.
    pub(crate) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
        names
            .iter()
            .find(|(_, named)| named == value)
            .map(|(name, _)| *name)
            .expect("every value has a name")
    }
}

impl AttributeType {
    /// The name in the file: `string`, `int`, `double` or `bool`.
    pub fn name(self) -> &'static str {
        names::name_of(names::ATTRIBUTE_TYPE, &self)
    }
}
