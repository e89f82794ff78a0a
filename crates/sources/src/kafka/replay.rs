//! Reads partitions again, beside the group that counts them: it joins no group, so it takes no
//! lane from anybody, and it commits nothing.
//!
//! One partition is read at a time, from an offset on. The group's name is only told so that a
//! broker that asks for rights to it knows us by the one that it lets in.

use super::cluster::KafkaCluster;
use super::context::Context;
use super::ffi::Queue;
use super::reader::{PartitionReader, Stop};
use super::source::consumer_config;
use super::{KafkaError, settings};
use crate::{Limit, Record, Replay, SourceError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a broker may take to answer one question, before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take until there is an answer, or a record that is known to be there.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(60);
/// Records fetched ahead, KiB: one partition is read at a time.
const FETCHED_KB: &str = "16384";

/// The topics of a [`KafkaCluster`], read again.
pub struct KafkaReplay {
    /// Dropped before the client, which outlives its queue by the queue's own reference.
    reading: Option<Reading>,
    consumer: Arc<BaseConsumer<Context>>,
    cluster: KafkaCluster,
}

/// The partition that is read now.
struct Reading {
    topic: usize,
    lane: u32,
    /// Where it was known to end when its reading began.
    end: u64,
    reader: PartitionReader,
    /// When it last gave something out.
    moved: Instant,
}

impl KafkaReplay {
    /// A reader of its own.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn new(cluster: &KafkaCluster) -> Result<KafkaReplay, KafkaError> {
        let (context, _) = Context::new();
        let mut config = consumer_config(cluster, 0);
        // It is no member, and must not be taken for one.
        config.remove("group.instance.id");
        config.set("queued.max.messages.kbytes", FETCHED_KB);
        config.set("queued.min.messages", "100000");
        let consumer = config.create_with_context(context).map_err(|error| settings(&error))?;
        Ok(KafkaReplay { reading: None, consumer: Arc::new(consumer), cluster: cluster.clone() })
    }

    fn topic(&self, topic: usize) -> &str {
        &self.cluster.options().topics[topic].0
    }

    /// Asks until there is an answer: a broker that is away may come back.
    fn ask<T>(
        &self,
        mut question: impl FnMut() -> Result<T, rdkafka::error::KafkaError>,
    ) -> Result<T, SourceError> {
        let until = Instant::now() + PATIENCE_IN_ALL;
        loop {
            match question() {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() >= until => {
                    return Err(self.unreachable(error.to_string()));
                }
                Err(error) => {
                    tracing::debug!("Kafka: {error}; asking again");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn unreachable(&self, reason: String) -> SourceError {
        let brokers = self.cluster.options().brokers.clone();
        KafkaError::Unreachable { brokers, reason }.into()
    }

    fn failed(&self, reason: String) -> SourceError {
        KafkaError::Fatal { group: self.cluster.options().group.clone(), reason }.into()
    }

    /// Where records are read: what the log has is asked again only when it lacks what is wanted.
    fn out_of_range(&mut self) -> SourceError {
        let reading = self.reading.as_ref().expect("it is being read");
        let (topic_index, lane, position) =
            (reading.topic, reading.lane, reading.reader.position());
        let (start, end) = match self.bounds(topic_index, lane) {
            Ok(bounds) => bounds,
            Err(error) => return error,
        };
        let topic = self.topic(topic_index).to_owned();
        SourceError::OutOfRange { topic, topic_index, lane, position, start, end }
    }
}

impl Replay for KafkaReplay {
    fn bounds(&mut self, topic: usize, lane: u32) -> Result<(u64, u64), SourceError> {
        let name = self.topic(topic);
        let (start, end) =
            self.ask(|| self.consumer.fetch_watermarks(name, lane as i32, PATIENCE))?;
        Ok((u64::try_from(start).unwrap_or(0), u64::try_from(end).unwrap_or(0)))
    }

    /// A broker answers with the first offset whose record is stamped at that time or later: all
    /// before it are stamped earlier, in whatever order they stand.
    fn first_at(&mut self, topic: usize, lane: u32, time_ms: i64) -> Result<u64, SourceError> {
        let (start, end) = self.bounds(topic, lane)?;
        if time_ms <= 0 {
            return Ok(start);
        }
        let name = self.topic(topic);
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset(name, lane as i32, Offset::Offset(time_ms))
            .expect("a time is a plain number");
        let found = self.ask(|| {
            let found = self.consumer.offsets_for_times(asked.clone(), PATIENCE)?;
            found
                .elements()
                .iter()
                .try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)?;
            Ok(found)
        })?;
        let offset = found.find_partition(name, lane as i32).map(|element| element.offset());
        Ok(match offset {
            Some(Offset::Offset(offset)) => u64::try_from(offset).unwrap_or(0).max(start),
            // No record is stamped so late.
            Some(Offset::End) => end,
            // It does not say: everything is read.
            _ => start,
        })
    }

    fn seek(&mut self, topic: usize, lane: u32, offset: u64) -> Result<(), SourceError> {
        let (_, end) = self.bounds(topic, lane)?;
        self.reading = None;
        let name = CString::new(self.topic(topic)).expect("topics are checked");
        let queue = Queue::of_partition(&self.consumer, &name, lane as i32)
            .ok_or_else(|| self.failed("a partition has no queue".to_owned()))?;
        let mut list = TopicPartitionList::new();
        let at = Offset::Offset(i64::try_from(offset).expect("an offset of Kafka's"));
        list.add_partition_offset(self.topic(topic), lane as i32, at)
            .expect("the offset is a plain one");
        self.consumer.assign(&list).map_err(|error| self.failed(error.to_string()))?;
        let with_headers = self.cluster.options().with_headers;
        let reader = PartitionReader::new(queue, offset, end, with_headers);
        self.reading = Some(Reading { topic, lane, end, reader, moved: Instant::now() });
        Ok(())
    }

    fn read(
        &mut self,
        limit: Limit,
        each: &mut dyn FnMut(&[Record<'_>]),
    ) -> Result<Option<u64>, SourceError> {
        // Nothing is subscribed: all that can come is what the client has to say.
        let _ = self.consumer.poll(Duration::ZERO);
        let reading = self.reading.as_mut().expect("it was told what to read");
        let before = reading.reader.position();
        let read = reading.reader.read(limit, each);
        let position = match read {
            Ok(position) => position,
            Err(Stop::OutOfRange) => return Err(self.out_of_range()),
            Err(Stop::Failed(reason)) => return Err(self.failed(reason)),
        };
        if position > before {
            reading.moved = Instant::now();
        }
        if position >= limit.before.min(reading.end) || reading.reader.is_idle() {
            return Ok(None);
        }
        if position == before {
            if reading.moved.elapsed() >= PATIENCE_IN_ALL {
                let (topic, lane, end) = (reading.topic, reading.lane, reading.end);
                return Err(self.unreachable(format!(
                    "partition {lane} of {} has records up to offset {end}, but none came for a \
                     minute after offset {position}",
                    self.topic(topic)
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Some(position))
    }
}
