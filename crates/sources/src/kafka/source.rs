//! An owner's share of the topics: a member of the consumer group, with a reader for each partition
//! that the group gives it.
//!
//! The group's wishes arrive on the **keeper**'s thread, which polls the client all the time, except
//! while it asks the broker about topics. They are only noted there: the owner asks for them between
//! two batches ([`Source::change`]) and answers them then, after it has committed what it had. So
//! nothing is ever torn out of a batch, and a batch that takes long keeps no heartbeat waiting.

use super::cluster::KafkaCluster;
use super::context::{Context, GroupEvent};
use super::ffi::{Code, Commits, Queue, known_end, note_of};
use super::keeper::Keeper;
use super::reader::{PartitionReader, Stop};
use super::{KafkaError, Role, client, settings};
use crate::{AssignedLane, Change, Commit, Limit, Record, Source, SourceError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a broker may take to answer one question, before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two tries to learn about new lanes.
const RETRY: Duration = Duration::from_millis(500);
/// How often a waiting owner looks whether something has come.
const LOOK: Duration = Duration::from_millis(5);
/// How long a stop waits for the group to take note.
const LEAVE_PATIENCE: Duration = Duration::from_secs(8);
/// How long an end before our position is taken for a broker that has just come back, and does not
/// know yet what it has.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// What librdkafka keeps for each queued record besides its bytes, about.
const OVERHEAD_BYTES: u64 = 450;

/// One owner's share of the topics of a [`KafkaCluster`].
pub struct KafkaSource {
    /// Dropped before the client, which outlives its queues by their own references.
    lanes: BTreeMap<u32, Vec<PartitionReader>>,
    commits: Option<Commits>,
    /// `None` only while it is dropped.
    consumer: Option<Arc<BaseConsumer<Context>>>,
    cluster: KafkaCluster,
    /// Names of the topics as librdkafka's functions take them.
    topics: Vec<CString>,
    events: Receiver<GroupEvent>,
    /// Events that were received and not handled.
    pending: VecDeque<GroupEvent>,
    /// Partitions that the group has given, about which we do not know enough to begin.
    wanted: Option<Vec<(String, i32)>>,
    wanted_since: Instant,
    retry_at: Instant,
    /// Partitions (lane, topic) whose position the broker did not find: since when, and when it is
    /// asked again.
    lost: BTreeMap<(u32, usize), (Instant, Instant)>,
    /// Said while partitions are assigned without those of the other topic.
    lacks_counterparts: Option<String>,
    /// Whether the last commit failed: said once, and not for each.
    commits_fail: bool,
    /// The ends of the partitions of each lane when they were assigned.
    first_ends: BTreeMap<u32, Vec<u64>>,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// New members of the group, which wait for their shares.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn join(cluster: &KafkaCluster, owners: usize) -> Result<Vec<KafkaSource>, KafkaError> {
        let new = |owner| KafkaSource::new(cluster, owner);
        let sources = (0..owners).map(new).collect::<Result<Vec<_>, _>>()?;
        // All at once, or the first is given everything and has to give it up again.
        let names: Vec<&str> =
            cluster.options().topics.iter().map(|(topic, _)| topic.as_str()).collect();
        for source in &sources {
            source.consumer().subscribe(&names).map_err(|error| settings(&error))?;
        }
        Ok(sources)
    }

    /// `owner` tells the members of one process apart.
    fn new(cluster: &KafkaCluster, owner: usize) -> Result<KafkaSource, KafkaError> {
        let options = cluster.options();
        let (context, events) = Context::new();
        let consumer: BaseConsumer<Context> = consumer_config(cluster, owner)
            .create_with_context(context)
            .map_err(|error| settings(&error))?;
        let consumer = Arc::new(consumer);
        let names: Vec<&str> = options.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            consumer: consumer.clone(),
            cluster: cluster.clone(),
            stop: stop.clone(),
            checks: owner == 0,
        };
        let keeper = std::thread::Builder::new()
            .name(format!("keeper-{owner}"))
            .spawn(move || keeper.run())
            .expect("the system starts threads");
        let name = |name: &&str| CString::new(*name).expect("topics are checked");
        Ok(KafkaSource {
            lanes: BTreeMap::new(),
            commits: Some(Commits::new(&consumer)),
            topics: names.iter().map(name).collect(),
            consumer: Some(consumer),
            cluster: cluster.clone(),
            events,
            pending: VecDeque::new(),
            wanted: None,
            retry_at: Instant::now(),
            lost: BTreeMap::new(),
            commits_fail: false,
            lacks_counterparts: None,
            wanted_since: Instant::now(),
            first_ends: BTreeMap::new(),
            stop,
            keeper: Some(keeper),
        })
    }

    fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        self.consumer.as_ref().expect("it is there until the source is dropped")
    }

    fn commits(&mut self) -> &mut Commits {
        self.commits.as_mut().expect("they are there until the source is dropped")
    }

    /// Records and events of a partition that wait in this process.
    #[cfg(test)]
    pub(super) fn queued(&self, topic: usize, lane: u32) -> usize {
        self.lanes[&lane][topic].queued()
    }

    /// Lets the client fetch from somewhere, as it may do by itself, while the reader stays.
    #[cfg(test)]
    pub(super) fn fetch_from(&self, lane: u32, from: &[u64]) {
        let list = self.list(&[(lane, from.to_vec())]);
        self.consumer().seek_partitions(list, PATIENCE).expect("it takes them");
    }

    /// Takes in what the keeper has noted.
    fn pump(&mut self) {
        self.pending.extend(self.events.try_iter());
    }

    fn topic_name(&self, topic: usize) -> &str {
        &self.cluster.options().topics[topic].0
    }

    /// Lanes of which all topics are assigned.
    fn whole_lanes(&mut self, partitions: &[(String, i32)]) -> Vec<u32> {
        let has = |topic: &str, lane: u32| {
            partitions.iter().any(|(t, p)| t == topic && u32::try_from(*p) == Ok(lane))
        };
        let topics = &self.cluster.options().topics;
        let is_whole = |lane: &u32| topics.iter().all(|(topic, _)| has(topic, *lane));
        let lanes: Vec<u32> = (0..self.cluster.lanes()).filter(is_whole).collect();
        let is_whole = lanes.len() * topics.len() == partitions.len();
        self.lacks_counterparts = (!is_whole).then(|| {
            let words = "partitions were assigned without those of the other topic, and are not \
                         read: does a topic exist no more, or does a member of the group not use \
                         the range assignor?";
            tracing::warn!(?partitions, "{words}");
            words.to_owned()
        });
        lanes
    }

    /// What must be known of lanes before they begin. `Err(None)`: ask again later.
    fn look_up(&self, lanes: &[u32]) -> Result<Vec<AssignedLane>, Option<SourceError>> {
        let later = |error: rdkafka::error::KafkaError| {
            tracing::warn!("waiting for Kafka to tell about assigned lanes: {error}");
            None
        };
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        self.cluster.check(self.consumer(), PATIENCE).map_err(|e| Some(e.into()))?;
        let mut asked = TopicPartitionList::new();
        for lane in lanes {
            for (topic, _) in &self.cluster.options().topics {
                asked.add_partition(topic, *lane as i32);
            }
        }
        let committed = self.consumer().committed_offsets(asked, PATIENCE).map_err(later)?;
        let mut found = Vec::new();
        for &lane in lanes {
            let mut assigned = AssignedLane {
                lane,
                start_offsets: Vec::new(),
                end_offsets: Vec::new(),
                notes: Vec::new(),
            };
            for (topic, _) in &self.cluster.options().topics {
                let (start, end) = self
                    .consumer()
                    .fetch_watermarks(topic, lane as i32, PATIENCE)
                    .map_err(later)?;
                if let Some(element) = committed.find_partition(topic, lane as i32)
                    && matches!(element.offset(), Offset::Offset(at) if at > end)
                    && self.wanted_since.elapsed() < END_PATIENCE
                {
                    return Err(None);
                }
                assigned.start_offsets.push(u64::try_from(start).unwrap_or(0));
                assigned.end_offsets.push(u64::try_from(end).unwrap_or(0));
                assigned.notes.extend(note_of(&committed, topic, lane as i32));
            }
            found.push(assigned);
        }
        Ok(found)
    }

    fn list(&self, from: &[(u32, Vec<u64>)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (lane, offsets) in from {
            for (topic, offset) in offsets.iter().enumerate() {
                let offset = Offset::Offset(i64::try_from(*offset).expect("an offset of Kafka's"));
                list.add_partition_offset(self.topic_name(topic), *lane as i32, offset)
                    .expect("the offset is a plain one");
            }
        }
        list
    }

    fn fatal(&self, error: &rdkafka::error::KafkaError) -> SourceError {
        self.fatal_text(error.to_string())
    }

    fn fatal_text(&self, reason: String) -> SourceError {
        KafkaError::Fatal { group: self.cluster.options().group.clone(), reason }.into()
    }

    /// The broker did not find a position: asks it, now and then, what it has. A broker that has
    /// just come back may say so of an offset that it has; then it is simply asked for it again.
    fn find_again(&mut self, topic: usize, lane: u32) -> Result<u64, SourceError> {
        let position = self.lanes[&lane][topic].position();
        let (since, again) = self.lost[&(lane, topic)];
        if Instant::now() < again {
            return Ok(position);
        }
        self.cluster.check(self.consumer(), PATIENCE)?;
        let name = self.topic_name(topic).to_owned();
        if let Ok((start, end)) = self.consumer().fetch_watermarks(&name, lane as i32, PATIENCE) {
            let (start, end) = (u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0));
            if (start..=end).contains(&position) {
                self.lost.remove(&(lane, topic));
                let at: Vec<u64> =
                    self.lanes[&lane].iter().map(PartitionReader::position).collect();
                self.seek(lane, &at)?;
                return Ok(position);
            }
            if position < start || since.elapsed() >= END_PATIENCE {
                self.lost.remove(&(lane, topic));
                return Err(SourceError::OutOfRange {
                    topic: name,
                    topic_index: topic,
                    lane,
                    position,
                    start,
                    end,
                });
            }
        }
        self.lost.insert((lane, topic), (since, Instant::now() + RETRY));
        Ok(position)
    }

    /// How a commit went. One that failed is no reason to stop: the next one says the same and
    /// more.
    fn judge_commit(&mut self, code: Code) {
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR | Code::RD_KAFKA_RESP_ERR__NO_OFFSET => {
                self.commits_fail = false;
            }
            // The group has moved on without us: whoever has the lane now reads again what this
            // commit would have said, which adds nothing new (invariant MONO).
            Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID
            | Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR__DESTROY => {
                tracing::debug!("a commit came too late: the lanes have gone to another member");
            }
            code if self.commits_fail => {
                tracing::debug!("offsets could not be committed: {code:?}")
            }
            code => {
                self.commits_fail = true;
                tracing::warn!(
                    "offsets could not be committed ({code:?}); the next commit says the same and \
                     more"
                );
            }
        }
    }
}

impl Source for KafkaSource {
    fn change(&mut self) -> Result<Change, SourceError> {
        self.pump();
        while let Some(event) = self.pending.pop_front() {
            match event {
                GroupEvent::Assigned(partitions) => {
                    self.wanted = Some(partitions);
                    (self.wanted_since, self.retry_at) = (Instant::now(), Instant::now());
                }
                // Taken back before it was begun: the group only wants an answer.
                GroupEvent::Revoked if self.wanted.take().is_some() => {
                    self.consumer().unassign().map_err(|error| self.fatal(&error))?;
                }
                GroupEvent::Revoked => return Ok(Change::Revoked),
                GroupEvent::Fatal(error) => return Err(error),
            }
        }
        if Instant::now() < self.retry_at {
            return Ok(Change::None);
        }
        let Some(partitions) = self.wanted.clone() else { return Ok(Change::None) };
        let lanes = self.whole_lanes(&partitions);
        match self.look_up(&lanes) {
            Ok(lanes) => {
                self.wanted = None;
                let ends = |lane: &AssignedLane| (lane.lane, lane.end_offsets.clone());
                self.first_ends = lanes.iter().map(ends).collect();
                Ok(Change::Assigned(lanes))
            }
            Err(Some(error)) => Err(error),
            Err(None) => {
                self.retry_at = Instant::now() + RETRY;
                Ok(Change::None)
            }
        }
    }

    fn ends_now(&self, lane: u32) -> Option<Vec<u64>> {
        let end = |(topic, _): &(String, &str)| {
            let found = self.consumer().fetch_watermarks(topic, lane as i32, PATIENCE);
            u64::try_from(found.ok()?.1).ok()
        };
        self.cluster.options().topics.iter().map(end).collect()
    }

    fn is_revoked(&mut self) -> bool {
        self.pump();
        self.pending.iter().any(|event| !matches!(event, GroupEvent::Assigned(_)))
    }

    fn start(&mut self, from: &[(u32, Vec<u64>)]) -> Result<(), SourceError> {
        self.lanes.clear();
        self.lost.clear();
        for (lane, offsets) in from {
            let mut readers = Vec::new();
            for (topic, offset) in offsets.iter().enumerate() {
                let queue = Queue::of_partition(self.consumer(), &self.topics[topic], *lane as i32)
                    .ok_or_else(|| self.fatal_text("a partition has no queue".to_owned()))?;
                let with_headers = self.cluster.options().with_headers;
                let first_end = self.first_ends.get(lane).map_or(0, |ends| ends[topic]);
                readers.push(PartitionReader::new(queue, *offset, first_end, with_headers));
            }
            self.lanes.insert(*lane, readers);
        }
        self.consumer().assign(&self.list(from)).map_err(|error| self.fatal(&error))
    }

    fn seek(&mut self, lane: u32, from: &[u64]) -> Result<(), SourceError> {
        let list = self.list(&[(lane, from.to_vec())]);
        let until = Instant::now() + PATIENCE * 6;
        loop {
            // Right after an assignment a partition is not ready for it: that passes.
            let sought = self.consumer().seek_partitions(list.clone(), PATIENCE);
            let error = match sought {
                Ok(list) => list.elements().iter().find_map(|e| e.error().err()),
                Err(error) => Some(error),
            };
            match error {
                None => break,
                // A broker that is away is waited for.
                Some(error) if Instant::now() >= until && self.trouble().is_none() => {
                    return Err(self.fatal(&error));
                }
                Some(_) => std::thread::sleep(RETRY / 5),
            }
        }
        let readers = self.lanes.get_mut(&lane).expect("a lane that was started");
        readers.iter_mut().zip(from).for_each(|(reader, position)| reader.jump(*position));
        Ok(())
    }

    fn release(&mut self) -> Result<(), SourceError> {
        self.consumer().unassign().map_err(|error| self.fatal(&error))?;
        // Whoever may never have these lanes again need not keep what was fetched of them.
        self.lanes.values_mut().flatten().for_each(PartitionReader::discard);
        self.lanes.clear();
        Ok(())
    }

    fn read(
        &mut self,
        topic: usize,
        lane: u32,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<u64, SourceError> {
        if self.lost.contains_key(&(lane, topic)) {
            return self.find_again(topic, lane);
        }
        let reader = &mut self.lanes.get_mut(&lane).expect("a lane that was started")[topic];
        match reader.read(limit, each) {
            Ok(position) => Ok(position),
            Err(Stop::Failed(reason)) => Err(self.fatal_text(reason)),
            Err(Stop::OutOfRange) => {
                self.lost.insert((lane, topic), (Instant::now(), Instant::now()));
                self.find_again(topic, lane)
            }
        }
    }

    fn has_data(&self, topic: usize, lane: u32) -> bool {
        if let Some((_, again)) = self.lost.get(&(lane, topic)) {
            return Instant::now() >= *again; // then a read asks again
        }
        self.lanes.get(&lane).is_some_and(|readers| readers[topic].has_data())
    }

    fn is_idle(&self, topic: usize, lane: u32) -> bool {
        self.trouble().is_none()
            && !self.lost.contains_key(&(lane, topic))
            && self.lanes.get(&lane).is_some_and(|readers| readers[topic].is_idle())
    }

    fn end_offset(&self, topic: usize, lane: u32) -> u64 {
        let Some(readers) = self.lanes.get(&lane) else { return 0 };
        let known = known_end(self.consumer(), &self.topics[topic], lane as i32);
        let end = readers[topic].end(known);
        // What waits has to be read, also where it turns out to be no record: as long as it fills
        // the queue, nothing is fetched that would tell of a later end.
        if self.has_data(topic, lane) { end.max(readers[topic].position() + 1) } else { end }
    }

    fn commit(&mut self, commits: &[Commit<'_>]) -> Result<u64, SourceError> {
        let mut list = TopicPartitionList::new();
        for Commit { lane, next_offsets, note } in commits {
            for (topic, offset) in next_offsets.iter().enumerate() {
                let mut element = list.add_partition(self.topic_name(topic), *lane as i32);
                let offset = Offset::Offset(i64::try_from(*offset).expect("an offset of Kafka's"));
                element.set_offset(offset).expect("the offset is a plain one");
                element.set_metadata(note);
            }
        }
        while let Some(code) = self.commits().answer(Duration::ZERO) {
            self.judge_commit(code);
        }
        if list.count() > 0
            && let Err(code) = self.commits().send(&list)
        {
            self.judge_commit(code);
        }
        Ok(self.commits().sent())
    }

    fn confirmed(&self) -> u64 {
        self.commits.as_ref().map_or(0, Commits::confirmed)
    }

    fn refused(&self) -> u64 {
        self.commits.as_ref().map_or(0, Commits::refused)
    }

    fn flush_commits(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.commits().waits() {
            let left = until.saturating_duration_since(Instant::now());
            match self.commits().answer(left) {
                Some(code) => self.judge_commit(code),
                None => {
                    tracing::warn!(
                        "Kafka did not confirm the last commit; what it covers is read \
                         again"
                    );
                    return;
                }
            }
        }
    }

    fn wait(&mut self, timeout: Duration) {
        let until = Instant::now() + timeout;
        loop {
            self.pump();
            let has_data = self.lanes.values().flatten().any(PartitionReader::has_data);
            let left = until.saturating_duration_since(Instant::now());
            if has_data || !self.pending.is_empty() || left.is_zero() {
                return;
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    fn trouble(&self) -> Option<String> {
        let context = self.consumer().context();
        context.trouble().or_else(|| context.gone()).or_else(|| self.lacks_counterparts.clone())
    }

    /// The log stays, and the group finds it another reader.
    fn ends_with_process(&self) -> bool {
        false
    }
}

impl Drop for KafkaSource {
    /// Leaves the group. Without a broker librdkafka may wait for ever for that, so it is waited for
    /// in a thread of its own, and only for a while: the group's own patience does the rest.
    fn drop(&mut self) {
        self.lanes.clear();
        self.commits = None;
        self.stop.store(true, Ordering::SeqCst);
        let Some(consumer) = self.consumer.take() else { return };
        consumer.context().close();
        // Answers a revocation that nobody has asked for any more.
        let _ = consumer.unassign();
        let keeper = self.keeper.take();
        let (left, is_left) = channel();
        let leave = move || {
            if let Some(keeper) = keeper {
                let _ = keeper.join();
            }
            drop(consumer); // the last reference
            let _ = left.send(());
        };
        let thread = std::thread::Builder::new().name("leave".to_owned()).spawn(leave);
        if thread.is_ok() && is_left.recv_timeout(LEAVE_PATIENCE).is_err() {
            tracing::warn!("the group did not confirm that this member leaves; it will miss it");
        }
    }
}

/// How a member of the group is set up. Where the configuration's own properties could lose or
/// double data they are refused before (see the documentation of `[log] properties`).
pub(super) fn consumer_config(cluster: &KafkaCluster, owner: usize) -> rdkafka::ClientConfig {
    let options = cluster.options();
    let mut config = client(&options.brokers, &options.properties, Role::Consumer);
    let mut default = |name: &str, value: &str| {
        if !options.properties.contains_key(name) {
            config.set(name, value);
        }
    };
    let partitions = u64::from(cluster.lanes()) * options.topics.len() as u64;
    let bytes = (options.fetch_memory_bytes / partitions).max(64 << 10);
    // A queue is full at so many bytes or at so many records, whichever comes first.
    default("queued.max.messages.kbytes", &(bytes >> 10).to_string());
    let records = (bytes / OVERHEAD_BYTES).clamp(100, 1_000_000);
    default("queued.min.messages", &records.to_string());
    default("fetch.message.max.bytes", &bytes.min(1 << 20).to_string());
    // At its default of a second, a reader slower than its queue stalls for a second at a time.
    default("fetch.queue.backoff.ms", "2");
    // One request asks for all partitions of a broker whose queues are not full. If those are just
    // the ones that have nothing new, it waits there, and the others starve as long: at the default
    // of 500 ms a catch-up made 0.4 M events/s instead of 1.3 M.
    default("fetch.wait.max.ms", "20");
    default("check.crcs", "true");
    // A member that was killed is missed after this long, and until then nobody has its lanes.
    default("session.timeout.ms", "10000");
    // A member learns from a heartbeat that the group wants to share anew.
    default("heartbeat.interval.ms", "500");
    if let Some(id) = options.properties.get("group.instance.id") {
        config.set("group.instance.id", format!("{id}-{owner}"));
    }
    config
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true");
    config
}
