//! The configuration: read once, before anything starts, and checked as a whole.
//!
//! `walk` goes through the TOML and knows where everything stands, `read` asks it for every key,
//! `check` looks at what takes several keys; faults are collected and reported together. The
//! result is plain data, [`Config`]. Nothing here opens a log or a store, compiles an expression,
//! or looks at the environment: who compiles an expression reports what is wrong with it through
//! [`Config::fault_at`].
//!
//! ```
//! use marquee::config::Config;
//! use std::path::Path;
//!
//! let config = Config::parse("[join]\nwithin = \"2h\"", "marquee.toml", Path::new("."));
//! assert_eq!(config.expect("a good file").join.within_ms, 7_200_000);
//!
//! let faults = Config::parse("[join]\nwithin = \"1hour\"", "marquee.toml", Path::new("."));
//! assert_eq!(
//!     faults.expect_err("a bad file")[0].to_string(),
//!     r#"marquee.toml:2: join.within: found "1hour", expected a duration, for example "1h""#,
//! );
//! ```

mod check;
mod defaults;
mod environment;
mod fault;
mod fingerprint;
mod load;
mod read;
mod sections;
mod summary;
mod value;
mod walk;

#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use sections::{
    Aggregate, Attribute, AttributeType, Cassandra, Collector, Consistency, EpochOfPlay,
    Expression, Http, Idle, Join, JoinedImpressions, Lake, LakePlace, Log, LogKind, Match, Members,
    Pages, Partitioner, Rank, Repair, Runtime, S3Place, Secret, Snapshots, Store, StoreKind,
    Stream, TimeUnit, Transform,
};
pub use value::{Properties, is_broker_list};

use marquee_model::Kind;
use marquee_sources::json::OfRecord;
use std::collections::BTreeMap;

/// A whole configuration, checked. [`Config::default`] is what an empty file says, with the paths
/// relative to the current folder.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where records come from.
    pub log: Log,
    /// How impressions are found in them.
    pub impressions: Stream,
    /// How plays are found in them.
    pub plays: Stream,
    /// Which of them belong together, and when state may go.
    pub join: Join,
    /// What an event counts under.
    pub transform: Transform,
    /// The windows of event time.
    pub aggregate: Aggregate,
    /// Where counts and members are kept.
    pub store: Store,
    /// Where closed epochs go as Parquet files.
    pub lake: Lake,
    /// How long a restart takes.
    pub snapshots: Snapshots,
    /// Whether late members are added to closed epochs, and how often.
    pub repair: Repair,
    /// How much of the machine is used.
    pub runtime: Runtime,
    /// The server.
    pub http: Http,
    /// The part of the server that takes events.
    pub collector: Collector,
    /// Recommendations.
    pub rank: Rank,
    origin: Origin,
}

/// Where a configuration was read, for faults that are found later.
#[derive(Clone, Debug)]
struct Origin {
    /// The file as the user named it.
    file: String,
    /// The line of each key that the file has.
    lines: BTreeMap<String, usize>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            log: Log::default(),
            impressions: Stream::of_topic("impressions"),
            plays: Stream::of_topic("plays"),
            join: Join::default(),
            transform: Transform::default(),
            aggregate: Aggregate::default(),
            store: Store::default(),
            lake: Lake::default(),
            snapshots: Snapshots::default(),
            repair: Repair::default(),
            runtime: Runtime::default(),
            http: Http::default(),
            collector: Collector::default(),
            rank: Rank::default(),
            origin: Origin { file: "(built in)".into(), lines: BTreeMap::new() },
        }
    }
}

impl Config {
    /// The section of one kind of event.
    pub fn stream(&self, kind: Kind) -> &Stream {
        match kind {
            Kind::Impression => &self.impressions,
            Kind::Play => &self.plays,
        }
    }

    /// The file that it was read from, as the user named it.
    pub fn file(&self) -> &str {
        &self.origin.file
    }

    /// Whether any expression or path looks at the headers of records, which cost time to read.
    pub fn uses_headers(&self) -> bool {
        self.uses("headers", |of| matches!(of, OfRecord::Header(_)))
    }

    /// The same for their keys.
    pub fn uses_keys(&self) -> bool {
        self.uses("key", |of| *of == OfRecord::Key)
    }

    fn uses(&self, name: &str, is_that: impl Fn(&OfRecord) -> bool) -> bool {
        let in_paths = |stream: &Stream| {
            let attributes = stream.attributes.iter().map(|attribute| &attribute.path);
            let mut paths =
                [&stream.request_id, &stream.video, &stream.time].into_iter().chain(attributes);
            paths.any(|path| matches!(OfRecord::of_path(path), Some(Ok(of)) if is_that(&of)))
        };
        let streams = [&self.impressions, &self.plays];
        let filters = streams.into_iter().map(|stream| &stream.filter);
        let mut expressions = filters.chain([&self.transform.video]);
        streams.into_iter().any(in_paths)
            || expressions.any(|e| value::identifiers(&e.source).contains(&name))
    }

    /// The line of a key, `join.within`; that of its section where the file does not have the key,
    /// and 1 where it does not have the section.
    pub fn line_of(&self, key: &str) -> usize {
        let above = |key: &str| key.rfind('.').map(|dot| key[..dot].to_owned());
        std::iter::successors(Some(key.to_owned()), |key| above(key))
            .find_map(|key| self.origin.lines.get(&key).copied())
            .unwrap_or(1)
    }

    /// A fault that the caller found in this file, at [`Expression::line`] or
    /// [`Config::line_of`]: an expression that does not compile, a value that a command refuses.
    pub fn fault_at(
        &self,
        line: usize,
        key: &str,
        found: &str,
        expected: &str,
        example: &str,
    ) -> Fault {
        Fault {
            file: self.origin.file.clone(),
            line,
            key: key.into(),
            found: found.into(),
            expected: expected.into(),
            example: example.into(),
            hint: None,
        }
    }

    fn fault(&self, key: &str, found: &str, expected: &str, example: &str) -> Fault {
        self.fault_at(self.line_of(key), key, found, expected, example)
    }
}
