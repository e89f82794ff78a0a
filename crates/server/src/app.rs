//! What all handlers share.

use crate::collector::Clients;
use crate::metrics::CollectorMetrics;
use crate::ops;
use crate::rank::{Known, RankSettings};
use crate::tiles::Tiles;
use crate::{Demo, Parts};
use marquee_model::Kind;
use marquee_runtime::Plan;
use marquee_runtime::status::StatusBoard;
use marquee_sinks::Store;
use marquee_sinks::lake::LakeStatus;
use marquee_sources::Appender;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bodies that the collector holds at once, in bytes, unless one body may be larger.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Reads of the store that run at once; further ones wait. Each of them may scan many cells, and
/// they must leave processors to the lanes.
const READS_AT_ONCE: usize = 4;

/// A record that is read as a tree takes this many times its bytes, at worst (a list of digits).
const TREE_FACTOR: usize = 16;

pub(crate) struct App {
    pub(crate) plan: Arc<Plan>,
    pub(crate) log: Arc<dyn Appender>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) lake: Option<Arc<LakeStatus>>,
    pub(crate) max_body_bytes: usize,
    pub(crate) clock: fn() -> i64,
    pub(crate) allowed_origins: Vec<String>,
    /// Empty: nobody has it.
    pub(crate) collector_token: String,
    pub(crate) require_signed: bool,
    pub(crate) clients: Clients,
    pub(crate) rank: RankSettings,
    /// `None`: nothing is signed.
    pub(crate) tiles: Option<Tiles>,
    /// What was counted lately, for who ranks.
    pub(crate) known: Known,
    pub(crate) member_pages: bool,
    pub(crate) demo: Option<Arc<dyn Demo>>,
    pub(crate) ops: ops::OpsSettings,
    /// One permit for each operator's page that is kept up to date.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) metrics: CollectorMetrics,
    /// One permit for each byte of a body. A request holds its permits until it is answered.
    pub(crate) in_flight: Arc<Semaphore>,
    /// Bytes of memory that a byte of a body may take while it is judged.
    pub(crate) memory_factor: usize,
    /// Number of all permits of `in_flight`.
    pub(crate) in_flight_bytes: usize,
    pub(crate) reads: Arc<Semaphore>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        // Permits are asked for as a `u32`.
        let max_body_bytes = parts.max_body_bytes.min(1 << 31) as usize;
        let in_flight_bytes = IN_FLIGHT_BYTES.max(max_body_bytes);
        let is_tree = |kind| {
            let mapping = parts.plan.stream(kind).decoder.mapping();
            mapping.explode.is_some() || mapping.record_filter.is_some()
        };
        // One to find events, and one to find codes.
        let decodes = is_tree(Kind::Impression) || is_tree(Kind::Play);
        let trees = usize::from(decodes) + usize::from(!parts.rank.keys.is_empty());
        App {
            memory_factor: (trees * TREE_FACTOR).max(1),
            plan: parts.plan,
            log: parts.log,
            store: parts.store,
            status: parts.status,
            lake: parts.lake,
            max_body_bytes,
            clock: parts.clock,
            allowed_origins: parts.collector.allowed_origins,
            collector_token: parts.collector.token,
            require_signed: parts.collector.require_signed,
            clients: Clients::new(parts.collector.limits),
            tiles: Tiles::new(&parts.rank.keys, parts.rank.expires_ms),
            rank: parts.rank,
            known: Known::default(),
            member_pages: parts.member_pages,
            demo: parts.demo,
            ops: parts.ops,
            streams: Arc::new(Semaphore::new(ops::STREAMS)),
            metrics: CollectorMetrics::default(),
            in_flight: Arc::new(Semaphore::new(in_flight_bytes)),
            in_flight_bytes,
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
        }
    }

    /// Why results are not up to date, if they are not.
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        let mut reasons = self.status.reasons_not_ready();
        reasons.extend(self.store.trouble());
        reasons
    }

    /// Index of a kind's topic in the log: 0 for both if they share one.
    pub(crate) fn topic_index(&self, kind: Kind) -> usize {
        let topic = &self.plan.stream(kind).topic;
        self.plan.topics().iter().position(|t| t == topic).unwrap_or(0)
    }

    /// The name of a topic of the log.
    pub(crate) fn topic_name(&self, index: usize) -> String {
        self.plan.topics().into_iter().nth(index).unwrap_or_default()
    }
}
