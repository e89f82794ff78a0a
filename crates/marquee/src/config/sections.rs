//! The configuration as plain structs: one for each section, fields named as the keys.
//!
//! Everything is parsed, bounded and defaulted here: who uses a `Config` never parses a text
//! again, except the expressions, which are compiled by the caller. Durations are whole
//! milliseconds and end in `_ms`, sizes whole bytes and end in `_bytes`, paths are resolved.
//! docs/configuration.md is the same for those who write the file.

use super::value::Properties;
pub use marquee_model::Partitioner;
pub use marquee_sinks::lake::{LakePlace, S3Place};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A CEL expression as it stands in the file, not compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expression {
    /// The text without blanks around it; empty where there is none.
    pub source: String,
    /// The line of its key, for [`Config::fault_at`](super::Config::fault_at).
    pub line: usize,
}

impl Expression {
    /// Whether there is no expression.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }
}

/// `[log]`: where records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Which of the two logs is used; the keys of the other are checked and ignored.
    pub kind: LogKind,
    /// Embedded: the folder.
    pub path: PathBuf,
    /// Embedded: number of lanes, 1 to 1,024. In Kafka it is the number of partitions.
    pub lanes: u32,
    /// Kafka: `host:port`, several separated by commas.
    pub brokers: String,
    /// Kafka: the consumer group.
    pub group: String,
    /// Kafka: how the producers of both topics choose a partition. The embedded log always uses
    /// murmur2; see [`Log::partitioner_in_force`].
    pub partitioner: Partitioner,
    /// Kafka: settings passed to the client as they are.
    pub properties: Properties,
    /// Kafka: memory for records that were fetched and not read yet, over all partitions, bytes.
    pub fetch_memory_bytes: u64,
}

impl Log {
    /// The partitioner that decides a request's lane in the log that is used.
    pub fn partitioner_in_force(&self) -> Partitioner {
        match self.kind {
            LogKind::Embedded => Partitioner::Murmur2,
            LogKind::Kafka => self.partitioner,
        }
    }
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Files in a folder of this process.
    Embedded,
    /// Apache Kafka.
    Kafka,
}

/// `[impressions]` and `[plays]`: how one kind of event is found in its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The topic; both kinds may share one, and then both have a `where_`.
    pub topic: String,
    /// Which records are of this kind, over the whole record before `explode`; empty: all.
    pub where_: Expression,
    /// Path of a list in the record: one event for each element. The other paths are then looked
    /// up in the element first and in the record after that.
    pub explode: Option<Vec<String>>,
    /// Path of the request id.
    pub request_id: Vec<String>,
    /// Path of the video id.
    pub video: Vec<String>,
    /// Path of the event time.
    pub time: Vec<String>,
    /// How the event time is written.
    pub time_unit: TimeUnit,
    /// The fields that expressions and slices may use, sorted by name.
    pub attributes: Vec<Attribute>,
    /// Which events exist for what follows; empty: all.
    pub filter: Expression,
}

impl Stream {
    /// The declared attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// A field with a declared type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name in expressions and slices, a CEL identifier.
    pub name: String,
    /// Where it stands in the record (or in the element of the exploded list).
    pub path: Vec<String>,
    /// Its type.
    pub ty: AttributeType,
    /// Whether it may be absent or null; it is null then.
    pub optional: bool,
}

/// The type of an attribute; named in the file as in [`AttributeType::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    /// Text.
    String,
    /// A whole number of 64 bits with sign.
    Int,
    /// A number of 64 bits with fraction.
    Double,
    /// True or false.
    Bool,
}

/// How an event time is written in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970 UTC.
    S,
    /// Milliseconds since 1970 UTC.
    Ms,
    /// Microseconds since 1970 UTC.
    Us,
    /// RFC 3339 text.
    Rfc3339,
}

/// `[join]`: which impressions and plays belong together, and when state may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// What an impression and a play must share.
    pub match_: Match,
    /// Which impressions count.
    pub impressions: JoinedImpressions,
    /// Whose epoch and slice a play counts in.
    pub epoch_of_play: EpochOfPlay,
    /// A play matches up to this long after the impression, milliseconds.
    pub within_ms: i64,
    /// A play matches up to this long before the impression (skewed clocks), milliseconds.
    pub early_ms: i64,
    /// How far the watermark stays behind the newest event times, milliseconds.
    pub lateness_ms: i64,
    /// An event further ahead of its record time than this is a dead letter, milliseconds.
    pub max_ahead_ms: i64,
    /// What a topic with nothing to read does to the watermark.
    pub idle: Idle,
    /// How many distinct requests must have reached an event time before the watermark follows.
    pub watermark_support: u32,
    /// Facts of one kind that one request may have in one epoch; what exceeds it goes to the late
    /// output.
    pub max_facts: u32,
}

/// What an impression and a play must share to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The request id and the transformed video.
    RequestAndVideo,
    /// The request id.
    Request,
}

/// Which impressions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedImpressions {
    /// Every one.
    All,
    /// Only those that match a play.
    Joined,
}

/// Whose epoch and slice a play counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochOfPlay {
    /// Those of every matching impression: plays / impressions is a rate over one cohort.
    Impression,
    /// Its own: when people watched.
    Play,
}

/// What a topic with nothing to read does to the watermark of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It holds the watermark for so long, which then follows the clock.
    After {
        /// Milliseconds.
        idle_grace_ms: i64,
    },
    /// It holds the watermark until it has something to read.
    Hold,
}

/// `[transform]`: what an event counts under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// The video to count under; empty: the video id itself.
    pub video: Expression,
    /// The grouping sets: lists of attribute names, each sorted. The empty list counts everybody.
    pub slices: Vec<Vec<String>>,
}

/// `[aggregate]`: the windows of event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Lengths of epochs in milliseconds, the longest first; each divides the longest.
    pub epochs_ms: Vec<i64>,
}

impl Aggregate {
    /// The longest epoch in milliseconds: the one that state is grouped by.
    pub fn longest_ms(&self) -> i64 {
        self.epochs_ms.iter().copied().max().expect("a checked configuration has an epoch")
    }
}

impl Store {
    /// How long the store keeps members after the end of their epoch, milliseconds; `None`: as long as
    /// their cells.
    pub fn members_go_after_ms(&self) -> Option<i64> {
        (self.members == Members::Lake).then_some(self.members_retention_ms)
    }
}

/// `[store]`: where counts and members are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which store.
    pub kind: StoreKind,
    /// The folder: of the store, or with Cassandra of what each process keeps for itself (letters,
    /// snapshots, state that does not fit into memory).
    pub path: PathBuf,
    /// Where the members are kept beside the counts.
    pub members: Members,
    /// With [`Members::Lake`] how long the store keeps them after the end of their epoch, milliseconds.
    pub members_retention_ms: i64,
    /// How long a cell is kept after the end of its epoch, milliseconds; `None`: for ever.
    pub retention_ms: Option<i64>,
    /// Where Cassandra is; these keys are checked and ignored with the embedded store.
    pub cassandra: Cassandra,
}

/// Where the sets of request ids are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// In the store, and in the lake if there is one.
    All,
    /// In the store; the lake has counts only.
    Store,
    /// In the lake; the store has them for a while, until they are there and repairs are done.
    Lake,
    /// In the store and in the lake.
    Both,
    /// Nowhere: counts only.
    Off,
}

impl Members {
    /// Whether the store keeps them, at least for a while.
    pub fn in_store(self) -> bool {
        self != Members::Off
    }

    /// Whether they are written into the lake, where there is one.
    pub fn in_lake(self) -> bool {
        !matches!(self, Members::Store | Members::Off)
    }
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Files in a folder of this process.
    Embedded,
    /// Apache Cassandra or ScyllaDB.
    Cassandra,
}

/// The keys of `[store]` for Cassandra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cassandra {
    /// `host:port` of some nodes, separated by commas.
    pub nodes: String,
    /// The keyspace, which belongs to one generation.
    pub keyspace: String,
    /// The data center whose nodes are asked; empty: any.
    pub datacenter: String,
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// The keyspace's map of replication, as CQL writes it: for `marquee schema`.
    pub replication: String,
    /// Into how many partitions the videos of an epoch and slice are divided, where the store is new.
    pub buckets: u16,
    /// How long an answer may take, milliseconds.
    pub timeout_ms: i64,
    /// Requests that may be on their way at once, at most.
    pub in_flight: u32,
    /// A name, where the cluster asks for one; empty: none. `MARQUEE_CASSANDRA_USERNAME` wins.
    pub username: String,
    /// Its password. `MARQUEE_CASSANDRA_PASSWORD` wins.
    pub password: Secret,
    /// The certificates (a PEM file) of those whom connections by TLS trust; `None`: no TLS.
    pub tls: Option<PathBuf>,
}

/// How many replicas must have acknowledged a write, or answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// A majority of those in the data center.
    LocalQuorum,
    /// A majority of all.
    Quorum,
    /// All.
    All,
    /// One in the data center.
    LocalOne,
    /// One.
    One,
}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(
    /// The text.
    pub String,
);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(not shown)" })
    }
}

/// `[lake]`: where closed epochs go as Parquet files. Nothing here changes a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lake {
    /// Where it is; `None`: there is none.
    pub place: Option<LakePlace>,
    /// A file holds the epochs of so much time, at least one, milliseconds.
    pub file_span_ms: i64,
    /// A file is ended when it has so many bytes.
    pub file_bytes: u64,
    /// How often what is new in open epochs is written, too, milliseconds; 0: never.
    pub deltas_ms: i64,
    /// Whether late and dead letters are copied there, too.
    pub letters: bool,
    /// How often it is looked what has closed, milliseconds.
    pub interval_ms: i64,
    /// Whether training examples are made.
    pub examples: bool,
    /// The share of examples without a play that is kept, millionths.
    pub negatives_ppm: u32,
    /// How often the log is read once more for examples of what has closed, milliseconds.
    pub examples_interval_ms: i64,
    /// For so long after it closed the examples of a stretch are corrected, milliseconds; 0: never.
    pub corrections_ms: i64,
    /// Whether raw events are kept.
    pub events: bool,
    /// A file of raw events has records of so much time, at most an hour, milliseconds.
    pub events_interval_ms: i64,
}

/// `[snapshots]`: how long a restart takes. Nothing here changes a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// Each lane's state is saved after this long, milliseconds; 0: never.
    pub interval_ms: i64,
}

/// `[repair]`: closed epochs are compared with the log now and then, and what they lack is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// How often, milliseconds; 0: never.
    pub interval_ms: i64,
    /// How far back from the end of the newest sealed epoch, milliseconds.
    pub horizon_ms: i64,
}

/// `[runtime]`: how much of the machine is used. Nothing here changes a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Threads that own lanes, up to 256; 0: one for each core.
    pub threads: u32,
    /// A batch is committed after this long, milliseconds.
    pub batch_interval_ms: i64,
    /// A batch is committed after so many events.
    pub batch_events: u32,
    /// Memory for the events that a backfill buffers, bytes; beyond it they go to temporary files.
    /// The state of a running service is not bounded by it yet.
    pub memory_bytes: u64,
}

/// `[http]`: the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Which pages there are besides.
    pub pages: Pages,
    /// What an operator shows; empty: nobody changes anything.
    pub token: Secret,
    /// Names besides loopback ones under which the operator's page is answered.
    pub allowed_hosts: Vec<String>,
}

/// Which pages the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Those of an operator.
    None,
    /// The invented video service of the demo, too.
    Demo,
}

/// `[collector]`: the part of the server that takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// The largest body of a request, bytes.
    pub max_body_bytes: u64,
    /// Origins (`https://www.example.com`) whose pages may send, besides those of this server.
    pub allowed_origins: Vec<String>,
    /// What a server shows to be neither limited nor asked for codes; empty: there is none.
    pub token: Secret,
    /// Whether events of browsers need the code of a tile.
    pub require_signed: bool,
    /// Events a second that one client may send for long; 0: any number.
    pub client_rate: u32,
    /// Events of one kind that one client may add to one video within an hour; 0: any number.
    pub client_video_events: u32,
    /// A header in which a proxy names the client; empty: the client is who connects.
    pub client_header: String,
}

/// `[rank]`: recommendations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// What a server shows to be answered; empty: only callers on this machine are.
    pub token: Secret,
    /// Secrets that tiles are signed with: the first one signs, all are accepted.
    pub keys: Vec<Secret>,
    /// How long after it was served the code of a tile is good, by the time of the event, milliseconds.
    pub expires_ms: i64,
    /// Cells of the newest epochs that count, milliseconds.
    pub horizon_ms: i64,
    /// By how many impressions a rate is drawn to the mean.
    pub prior: u32,
}
