//! A real cluster: Cassandra, or ScyllaDB, by the `scylla` driver.
//!
//! Every statement is prepared, idempotent and routed to a replica; counts of one partition go
//! together as an unlogged batch, which is one mutation there. At most so many requests are on their
//! way as the cluster has shown to bear: half as many after a failure, a few more after a success.
//! Whether something is tried again later decides the store ([`super::patience`]).

use super::cluster::{
    Cluster, ClusterError, Column, CountRow, LaneRow, NotWritten, Part, Partition, Select, Write,
};
use super::statements::Statements;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{
    DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError, RequestError,
};
use scylla::errors::{NextPageError, NextRowError, PagerExecutionError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::serialize::row::SerializeRow;
pub use scylla::statement::Consistency;
use scylla::statement::SerialConsistency;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Statements in a batch at most.
const BATCH_STATEMENTS: usize = 100;
/// Bytes of a batch, about: ScyllaDB warns from 128 KiB on.
const BATCH_BYTES: usize = 48 << 10;
/// What a statement of a batch takes beside its texts, bytes.
const STATEMENT_BYTES: usize = 90;
/// Partitions that are read at once.
const READS_AT_ONCE: usize = 16;
/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often a connection is asked whether it lives, and how long it may think about that: one that
/// is half open is given up then.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// Where the cluster is, and how it is asked.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Some of its nodes, `host:port`.
    pub nodes: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// Name and password, where it asks for them.
    pub credentials: Option<(String, String)>,
    /// The data center whose nodes are asked; empty: any.
    pub datacenter: String,
    /// How many replicas must have acknowledged a write, or answered a read.
    pub consistency: Consistency,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Requests that may be on their way at once, at most.
    pub in_flight: usize,
    /// How connections are encrypted.
    pub tls: Tls,
}

impl std::fmt::Debug for ClusterOptions {
    /// Without name and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ClusterOptions { nodes, keyspace, datacenter, consistency, .. } = self;
        let mut options = f.debug_struct("ClusterOptions");
        options.field("nodes", nodes).field("keyspace", keyspace);
        options.field("datacenter", datacenter).field("consistency", consistency);
        options.finish_non_exhaustive()
    }
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// By TLS, with certificates from this file (PEM) as the ones to trust.
    Trusting(std::path::PathBuf),
}

/// A session with a cluster.
pub struct CassandraCluster {
    runtime: Runtime,
    session: Session,
    statements: Statements,
    in_flight: usize,
    /// Writes that may be on their way at once, for now, of one who writes.
    window: AtomicUsize,
    /// And of all of them, at most.
    permits: Semaphore,
}

impl CassandraCluster {
    /// Connects, and prepares all statements: the tables must be there.
    pub fn connect(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let (runtime, session) = connect(options)?;
        let prepared = runtime.block_on(Statements::prepare(&session, &options.keyspace));
        let statements = prepared.map_err(|error| of_prepare(&error))?;
        let in_flight = options.in_flight.max(1);
        let window = AtomicUsize::new(in_flight);
        let permits = Semaphore::new(in_flight);
        Ok(CassandraCluster { runtime, session, statements, in_flight, window, permits })
    }

    /// Runs statements of a schema, one after the other.
    pub fn apply(options: &ClusterOptions, statements: &[String]) -> Result<(), ClusterError> {
        let (runtime, session) = connect(options)?;
        for statement in statements {
            let ran = runtime.block_on(session.query_unpaged(statement.as_str(), ()));
            ran.map_err(|error| match error {
                ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                    DbError::Unauthorized,
                    words,
                )) => ClusterError::Refused(words),
                other => of_execution(&other),
            })?;
        }
        runtime
            .block_on(session.await_schema_agreement())
            .map_err(|error| ClusterError::Unavailable(error.to_string()))?;
        Ok(())
    }

    /// All rows that a statement finds.
    async fn rows<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        mut each: impl FnMut(R),
    ) -> Result<(), ClusterError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + 'static,
    {
        let pager = self.session.execute_iter(statement.clone(), values).await;
        let pager = pager.map_err(|error| of_pager(&error))?;
        let rows = pager.rows_stream::<R>();
        let mut rows = rows.map_err(|error| ClusterError::Refused(error.to_string()))?;
        while let Some(row) = rows.try_next().await.map_err(|error| of_row(&error))? {
            each(row);
        }
        Ok(())
    }

    async fn counts_of(
        &self,
        generation: &str,
        at: &Partition<'_>,
        select: Select<'_>,
    ) -> Result<Vec<CountRow>, ClusterError> {
        let mut rows = Vec::new();
        let each = |(video, lane, impressions, plays): CountColumns| {
            let count = |count: Option<i64>| count.unwrap_or(0).max(0) as u64;
            let (impressions, plays) = (count(impressions), count(plays));
            rows.push(CountRow { video, lane: lane as u32, impressions, plays });
        };
        let (bucket, start) = (i16::from(at.bucket), CqlTimestamp(at.epoch_start_ms));
        let (a, b, c, d, e) = (generation, at.epoch_ms, start, &*at.slice, bucket);
        let tables = &self.statements;
        match select {
            Select::All => self.rows(&tables.read_counts, (a, b, c, d, e), each).await,
            Select::Lane(lane) => {
                let values = (a, b, c, d, e, lane as i32);
                self.rows(&tables.read_counts_of_lane, values, each).await
            }
            Select::Video(video) => {
                let values = (a, b, c, d, e, video);
                self.rows(&tables.read_counts_of_video, values, each).await
            }
        }?;
        Ok(rows)
    }

    async fn send(&self, generation: &str, writes: &[Write<'_>]) -> Result<(), ClusterError> {
        let sent = match writes {
            [write] => self.send_one(generation, write).await,
            _ => self.send_counts(generation, writes).await,
        };
        sent.map_err(|error| of_execution(&error))
    }

    /// Counts of one partition, as one mutation.
    async fn send_counts(
        &self,
        generation: &str,
        writes: &[Write<'_>],
    ) -> Result<(), ExecutionError> {
        let mut statements = Vec::with_capacity(writes.len());
        let mut values = Vec::with_capacity(writes.len());
        for write in writes {
            let Column::Count { at, video, lane, side, count } = &write.column else {
                unreachable!("only counts go together");
            };
            let statement = self.statements.count(*side).clone();
            statements.push(BatchStatement::PreparedStatement(statement));
            values.push((
                write.timestamp,
                write.ttl_seconds,
                *count as i64,
                generation,
                at.epoch_ms,
                CqlTimestamp(at.epoch_start_ms),
                &*at.slice,
                i16::from(at.bucket),
                *video,
                *lane as i32,
            ));
        }
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        self.session.batch(&batch, values).await?;
        Ok(())
    }

    async fn send_one(&self, generation: &str, write: &Write<'_>) -> Result<(), ExecutionError> {
        let Write { timestamp, ttl_seconds: ttl, column } = write;
        let (timestamp, ttl) = (*timestamp, *ttl);
        let tables = &self.statements;
        match column {
            Column::Count { at, video, lane, side, count } => {
                let cell = (at.epoch_ms, CqlTimestamp(at.epoch_start_ms), &*at.slice);
                let row = (i16::from(at.bucket), *video, *lane as i32);
                let (epoch_ms, start, slice) = cell;
                let (bucket, video, lane) = row;
                let key = (generation, epoch_ms, start, slice, bucket, video, lane);
                let (a, b, c, d, e, f, g) = key;
                let values = (timestamp, ttl, *count as i64, a, b, c, d, e, f, g);
                self.run(tables.count(*side), values).await
            }
            Column::Members { at, lane, part, name, ids } => {
                let (bucket, lane) = (i16::from(at.bucket), *lane as i32);
                let start = CqlTimestamp(at.epoch_start_ms);
                let partition = (generation, at.epoch_ms, start, &*at.slice, bucket, lane, *part);
                let (a, b, c, d, e, f, g) = partition;
                let values = (timestamp, ttl, *ids, a, b, c, d, e, f, g, name.as_slice());
                self.run(&tables.write_members, values).await
            }
            Column::Part { at, lane, part } => {
                let (bucket, lane) = (i16::from(at.bucket), *lane as i32);
                let start = CqlTimestamp(at.epoch_start_ms);
                let row = (at.epoch_ms, start, &*at.slice, bucket, lane, *part);
                let (a, b, c, d, e, f) = row;
                let values = (timestamp, ttl, generation, a, b, c, d, e, f);
                self.run(&tables.write_part, values).await
            }
            Column::Slice { epoch_ms, epoch_start_ms, slice } => {
                let page = super::page_of(*epoch_ms, *epoch_start_ms);
                let start = CqlTimestamp(*epoch_start_ms);
                let values = (timestamp, ttl, generation, *epoch_ms, page, start, *slice);
                self.run(&tables.write_slice, values).await
            }
            Column::Page { epoch_ms, page } => {
                let values = (timestamp, ttl, generation, *epoch_ms, *page);
                self.run(&tables.write_page, values).await
            }
            Column::Frontier { lane, frontier } => {
                let values = (timestamp, ttl, *frontier, generation, *lane as i32);
                self.run(&tables.write_frontier, values).await
            }
            Column::State { lane, state } => {
                let values = (timestamp, ttl, *state, generation, *lane as i32);
                self.run(&tables.write_state, values).await
            }
            Column::Repair { repair } => {
                self.run(&tables.write_repair, (timestamp, ttl, generation, *repair)).await
            }
            Column::Gap { gap } => {
                self.run(&tables.write_gap, (timestamp, ttl, generation, *gap)).await
            }
        }
    }

    async fn run(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), ExecutionError> {
        self.session.execute_unpaged(statement, values).await.map(drop)
    }
}

fn connect(options: &ClusterOptions) -> Result<(Runtime, Session), ClusterError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("cassandra")
        .enable_all()
        .build()
        .map_err(|error| ClusterError::Refused(error.to_string()))?;
    let mut balancing = DefaultPolicy::builder().token_aware(true);
    if !options.datacenter.is_empty() {
        balancing = balancing.prefer_datacenter(options.datacenter.clone());
    }
    let profile = ExecutionProfile::builder()
        .consistency(options.consistency)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.timeout))
        .load_balancing_policy(balancing.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .connection_timeout(CONNECT_WITHIN)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .tcp_nodelay(true)
        // Who has which rows: without it nothing is routed to a replica.
        .keyspaces_to_fetch([&options.keyspace])
        .fetch_full_schema_metadata(false)
        .default_execution_profile_handle(profile.into_handle());
    if let Some((user, password)) = &options.credentials {
        builder = builder.user(user, password);
    }
    if let Tls::Trusting(authorities) = &options.tls {
        builder = super::tls::encrypted(builder, authorities)?;
    }
    let session =
        runtime.block_on(builder.build()).map_err(|error| of_session(&error, &options.tls))?;
    Ok((runtime, session))
}

/// Ranges of writes that go together: counts of one partition, a bounded number of them.
fn groups(writes: &[Write<'_>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut partition, mut bytes) = (None, 0);
    for (index, write) in writes.iter().enumerate() {
        let of_this = write.column.partition_of_count();
        let more = match &write.column {
            Column::Count { at, video, .. } => STATEMENT_BYTES + at.slice.len() + video.len(),
            _ => 0,
        };
        let last = groups.last_mut().filter(|group| {
            of_this.is_some()
                && of_this == partition
                && group.len() < BATCH_STATEMENTS
                && bytes + more <= BATCH_BYTES
        });
        match last {
            Some(group) => {
                group.end = index + 1;
                bytes += more;
            }
            None => {
                groups.push(index..index + 1);
                bytes = more;
            }
        }
        partition = of_this;
    }
    groups
}

impl Cluster for CassandraCluster {
    fn generation(&self) -> Result<Option<String>, ClusterError> {
        let mut generation = None;
        let each = |(found,): (Option<String>,)| generation = found;
        let read = self.rows(&self.statements.read_generation, ("current",), each);
        self.runtime.block_on(read)?;
        Ok(generation)
    }

    fn create_generation(&self, generation: &str) -> Result<String, ClusterError> {
        let create = self
            .session
            .execute_unpaged(&self.statements.create_generation, (generation, "current"));
        // Whether ours or another one was there first: what stands there now is what counts.
        self.runtime.block_on(create).map_err(|error| of_execution(&error))?;
        let mut found = None;
        let each = |(stored,): (Option<String>,)| found = stored;
        // Of a write under a condition only a serial read is sure to see all.
        let mut read = self.statements.read_generation.clone();
        read.set_consistency(Consistency::Serial);
        self.runtime.block_on(self.rows(&read, ("current",), each))?;
        let absent = || ClusterError::Unavailable("a generation was not written".to_owned());
        found.ok_or_else(absent)
    }

    fn write(&self, generation: &str, writes: &[Write<'_>]) -> Result<(), NotWritten> {
        let window = self.window.load(Ordering::Relaxed).max(1);
        let groups = groups(writes);
        let mut is_acknowledged = vec![false; groups.len()];
        let mut worst: Option<ClusterError> = None;
        // After a failure nothing more is begun: whoever asks decides first whether to go on.
        let has_failed = AtomicBool::new(false);
        let send = |number: usize| {
            let (range, has_failed) = (groups[number].clone(), &has_failed);
            async move {
                let _permit = self.permits.acquire().await.ok();
                if has_failed.load(Ordering::Relaxed) {
                    return (number, None);
                }
                let sent = self.send(generation, &writes[range]).await;
                has_failed.fetch_or(sent.is_err(), Ordering::Relaxed);
                (number, Some(sent))
            }
        };
        let mut sent = stream::iter(0..groups.len()).map(send).buffer_unordered(window);
        self.runtime.block_on(async {
            while let Some((number, sent)) = sent.next().await {
                match sent {
                    Some(Ok(())) => is_acknowledged[number] = true,
                    Some(Err(error)) if !matches!(worst, Some(ClusterError::Refused(_))) => {
                        worst = Some(error);
                    }
                    _ => {}
                }
            }
        });
        drop(sent);
        let Some(error) = worst else {
            let more = (window + window.div_ceil(8)).min(self.in_flight);
            self.window.store(more, Ordering::Relaxed);
            return Ok(());
        };
        self.window.store((window / 2).max(1), Ordering::Relaxed);
        let left = groups.iter().zip(&is_acknowledged).filter(|(_, is)| !**is);
        Err(NotWritten { left: left.flat_map(|(range, _)| range.clone()).collect(), error })
    }

    fn pages(&self, generation: &str, epoch_ms: i64) -> Result<Vec<i64>, ClusterError> {
        let mut pages = Vec::new();
        let each = |(page,): (i64,)| pages.push(page);
        self.runtime.block_on(self.rows(
            &self.statements.read_pages,
            (generation, epoch_ms),
            each,
        ))?;
        Ok(pages)
    }

    fn slices(
        &self,
        generation: &str,
        epoch_ms: i64,
        page: i64,
    ) -> Result<Vec<(i64, String)>, ClusterError> {
        let mut slices = Vec::new();
        let each = |(start, slice): (CqlTimestamp, String)| slices.push((start.0, slice));
        let values = (generation, epoch_ms, page);
        self.runtime.block_on(self.rows(&self.statements.read_slices, values, each))?;
        Ok(slices)
    }

    fn counts(
        &self,
        generation: &str,
        partitions: &[Partition<'_>],
        select: Select<'_>,
    ) -> Result<Vec<Vec<CountRow>>, ClusterError> {
        let read = |at| self.counts_of(generation, at, select);
        let reads = stream::iter(partitions).map(read).buffered(READS_AT_ONCE);
        self.runtime.block_on(reads.try_collect())
    }

    fn parts(&self, generation: &str, at: &Partition<'_>) -> Result<Vec<Part>, ClusterError> {
        let mut parts = Vec::new();
        let each = |(bucket, lane, part): (i16, i32, i32)| {
            parts.push(Part { bucket: bucket as u8, lane: lane as u32, part });
        };
        let start = CqlTimestamp(at.epoch_start_ms);
        let values = (generation, at.epoch_ms, start, &*at.slice);
        self.runtime.block_on(self.rows(&self.statements.read_parts, values, each))?;
        Ok(parts)
    }

    fn members(
        &self,
        generation: &str,
        at: &Partition<'_>,
        (lane, part): (u32, i32),
        from_name: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), ClusterError> {
        let (bucket, lane) = (i16::from(at.bucket), lane as i32);
        let start = CqlTimestamp(at.epoch_start_ms);
        let values = (generation, at.epoch_ms, start, &*at.slice, bucket, lane, part, from_name);
        let each = |(name, ids): (Vec<u8>, Vec<u8>)| each(&name, &ids);
        self.runtime.block_on(self.rows(&self.statements.read_members, values, each))
    }

    fn lane(&self, generation: &str, lane: u32) -> Result<LaneRow, ClusterError> {
        let mut row = LaneRow::default();
        let each = |(frontier, state, timestamp): LaneColumns| {
            row = LaneRow { frontier, state: state.zip(timestamp) };
        };
        let values = (generation, lane as i32);
        self.runtime.block_on(self.rows(&self.statements.read_lane, values, each))?;
        Ok(row)
    }

    fn frontiers(&self, generation: &str) -> Result<Vec<(u32, i64)>, ClusterError> {
        let mut frontiers = Vec::new();
        let each = |(lane, frontier): (i32, Option<i64>)| {
            frontiers.extend(frontier.map(|frontier| (lane as u32, frontier)));
        };
        let values = (generation,);
        self.runtime.block_on(self.rows(&self.statements.read_frontiers, values, each))?;
        Ok(frontiers)
    }

    fn gaps(&self, generation: &str) -> Result<Vec<String>, ClusterError> {
        let mut gaps = Vec::new();
        let each = |(gap,): (String,)| gaps.push(gap);
        self.runtime.block_on(self.rows(&self.statements.read_gaps, (generation,), each))?;
        Ok(gaps)
    }

    fn repairs(&self, generation: &str) -> Result<Vec<String>, ClusterError> {
        let mut repairs = Vec::new();
        let each = |(repair,): (String,)| repairs.push(repair);
        self.runtime.block_on(self.rows(&self.statements.read_repairs, (generation,), each))?;
        Ok(repairs)
    }
}

type CountColumns = (String, i32, Option<i64>, Option<i64>);
type LaneColumns = (Option<i64>, Option<String>, Option<i64>);

/// Whether it helps to ask again. A cluster whose own tables of permissions are away says that one is
/// not authorized, so that is waited for, too.
fn of_attempt(error: &RequestAttemptError) -> ClusterError {
    let words = error.to_string();
    match error {
        RequestAttemptError::DbError(
            DbError::SyntaxError
            | DbError::Invalid
            | DbError::AuthenticationError
            | DbError::ConfigError
            | DbError::AlreadyExists { .. },
            _,
        )
        | RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_) => ClusterError::Refused(words),
        _ => ClusterError::Unavailable(words),
    }
}

fn of_execution(error: &ExecutionError) -> ClusterError {
    match error {
        ExecutionError::LastAttemptError(error) => of_attempt(error),
        ExecutionError::PrepareError(error) => of_prepare(error),
        ExecutionError::BadQuery(error) => ClusterError::Refused(error.to_string()),
        other => ClusterError::Unavailable(other.to_string()),
    }
}

fn of_prepare(error: &PrepareError) -> ClusterError {
    match error {
        PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(DbError::Invalid, words),
        } => ClusterError::NoTables(words.clone()),
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        other => ClusterError::Unavailable(other.to_string()),
    }
}

fn of_pager(error: &PagerExecutionError) -> ClusterError {
    match error {
        PagerExecutionError::PrepareError(error) => of_prepare(error),
        PagerExecutionError::NextPageError(error) => of_page(error),
        PagerExecutionError::SerializationError(error) => ClusterError::Refused(error.to_string()),
        other => ClusterError::Unavailable(other.to_string()),
    }
}

fn of_page(error: &NextPageError) -> ClusterError {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(error)) => of_attempt(error),
        other => ClusterError::Unavailable(other.to_string()),
    }
}

fn of_row(error: &NextRowError) -> ClusterError {
    match error {
        NextRowError::NextPageError(error) => of_page(error),
        other => ClusterError::Refused(other.to_string()),
    }
}

/// The driver tells in words only what another try does not change.
fn of_session(error: &NewSessionError, tls: &Tls) -> ClusterError {
    let words = error.to_string();
    let says = |what: &[&str]| what.iter().any(|what| words.contains(what));
    match error {
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => {
            ClusterError::Refused(words)
        }
        _ if says(&["uthentication", "credentials"]) => ClusterError::Refused(format!(
            "{words} ([store] username and password, or MARQUEE_CASSANDRA_USERNAME and \
             MARQUEE_CASSANDRA_PASSWORD of the environment)"
        )),
        _ if says(&["peer certificate"]) => ClusterError::Refused(format!(
            "{words} ([store] tls must name the authorities that have signed the certificates of the \
             nodes, which must be made out to the addresses in [store] nodes)"
        )),
        _ if *tls == Tls::Off && says(&["frame header"]) => ClusterError::Unavailable(format!(
            "{words} (a node that takes clients by TLS alone ends plain connections like this: then \
             set [store] tls)"
        )),
        _ => ClusterError::Unavailable(words),
    }
}

impl std::fmt::Debug for CassandraCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CassandraCluster").field("in_flight", &self.in_flight).finish()
    }
}

/// A cluster that is shared by all who ask it.
pub type SharedCluster = Arc<dyn Cluster>;

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_model::Side;
    use std::borrow::Cow;

    fn count(bucket: u8, video: &str) -> Write<'_> {
        let at = Partition { epoch_ms: 1, epoch_start_ms: 0, slice: Cow::Borrowed(""), bucket };
        let column = Column::Count { at, video, lane: 0, side: Side::Plays, count: 1 };
        Write { column, timestamp: 1, ttl_seconds: 0 }
    }

    #[test]
    fn only_counts_of_one_partition_go_together_and_not_too_many() {
        let gap = || Write { column: Column::Gap { gap: "" }, timestamp: 1, ttl_seconds: 0 };
        let mut writes = vec![gap(), gap(), count(1, "a"), count(1, "b"), count(2, "c"), gap()];
        assert_eq!(groups(&writes), [0..1, 1..2, 2..4, 4..5, 5..6]);
        writes = (0..250).map(|_| count(1, "a")).collect();
        assert_eq!(groups(&writes), [0..100, 100..200, 200..250]);
        let long = "v".repeat(20 << 10);
        writes = (0..5).map(|_| count(1, &long)).collect();
        assert_eq!(groups(&writes), [0..2, 2..4, 4..5]);
    }
}
