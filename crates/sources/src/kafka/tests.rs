//! The source against librdkafka's mock cluster: no Java, no network. The same tests run under an
//! address sanitizer (`cargo xtask sanitize`): they go through all of `ffi`, but for the ids of
//! topics, which the mock cluster does not tell (a real broker does, in `e2e/tests`).

use super::{KafkaAppender, KafkaCluster, KafkaOptions, KafkaReplay, KafkaSource};
use crate::{Appender, AssignedLane, Change, Commit, Limit, NewRecord, Replay, Source};
use rdkafka::ClientConfig;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const ALL: Limit = Limit { before: u64::MAX, records: usize::MAX, bytes: usize::MAX };

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    options: KafkaOptions,
}

impl Mock {
    /// A cluster with two topics of so many partitions.
    fn new(lanes: i32) -> Mock {
        let cluster = MockCluster::new(1).expect("librdkafka has a mock cluster");
        for topic in ["impressions", "plays"] {
            cluster.create_topic(topic, lanes, 1).expect("it takes topics");
        }
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = KafkaOptions {
            brokers: cluster.bootstrap_servers(),
            group: "group".to_owned(),
            properties: [
                property("session.timeout.ms", "6000"),
                property("max.poll.interval.ms", "6000"),
                property("heartbeat.interval.ms", "100"),
            ]
            .into(),
            topics: vec![("impressions".to_owned(), "impressions"), ("plays".to_owned(), "plays")],
            with_headers: true,
            fetch_memory_bytes: 4 << 20,
        };
        Mock { cluster, options }
    }

    fn appender(&self) -> KafkaAppender {
        let topics = ["impressions".to_owned(), "plays".to_owned()];
        KafkaAppender::new(&self.options.brokers, &Default::default(), &topics).expect("it starts")
    }

    fn append(&self, topic: usize, lane: u32, payloads: std::ops::Range<u64>) {
        let texts: Vec<String> = payloads.map(|n| format!("{topic}/{lane}/{n}")).collect();
        let record =
            |text| NewRecord { topic, lane, record_time_ms: 1_000, key: Some(b"k"), payload: text };
        let records: Vec<NewRecord<'_>> =
            texts.iter().map(|text| record(text.as_bytes())).collect();
        self.appender().append(&records).expect("they are acknowledged");
    }

    fn join(&self, owners: usize) -> Vec<KafkaSource> {
        let cluster = KafkaCluster::connect(self.options.clone()).expect("the topics are good");
        KafkaSource::join(&cluster, owners).expect("they join")
    }

    fn one(&self) -> KafkaSource {
        self.join(1).pop().expect("there is one")
    }
}

/// Waits for lanes.
fn assigned(source: &mut KafkaSource) -> Vec<AssignedLane> {
    let until = Instant::now() + PATIENCE;
    loop {
        match source.change().expect("nothing fails") {
            Change::Assigned(lanes) => return lanes,
            Change::Revoked => source.release().expect("nothing fails"),
            Change::None => source.wait(Duration::from_millis(20)),
        }
        assert!(Instant::now() < until, "no lanes were assigned");
    }
}

/// Takes all assigned lanes from the beginning.
fn started(source: &mut KafkaSource) -> Vec<u32> {
    let lanes: Vec<u32> = assigned(source).iter().map(|lane| lane.lane).collect();
    let from: Vec<_> = lanes.iter().map(|lane| (*lane, vec![0, 0])).collect();
    source.start(&from).expect("it starts");
    lanes
}

/// Reads until the position is reached; what was read.
fn read_to(
    source: &mut KafkaSource,
    topic: usize,
    lane: u32,
    limit: Limit,
    to: u64,
) -> Vec<Copied> {
    let until = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    loop {
        let each = &mut |stretch: &[crate::Record<'_>]| {
            assert!(!stretch.is_empty() && stretch.len() <= crate::STRETCH);
            records.extend(stretch.iter().map(Copied::of));
        };
        let position = source.read(topic, lane, limit, each).expect("nothing fails");
        if position >= to {
            assert_eq!(position, to);
            return records;
        }
        assert!(Instant::now() < until, "{position} of {to} after {} records", records.len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Debug, PartialEq)]
struct Copied {
    offset: u64,
    time_ms: Option<i64>,
    key: Option<String>,
    payload: Option<String>,
    headers: Vec<(String, String)>,
}

impl Copied {
    fn of(record: &crate::Record<'_>) -> Copied {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Copied {
            offset: record.offset,
            time_ms: record.record_time_ms,
            key: record.key.map(text),
            payload: record.payload.map(text),
            headers: record.headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        }
    }
}

#[test]
fn records_come_in_order_and_whole_from_each_lane_of_each_topic() {
    let mock = Mock::new(2);
    for (topic, lane) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        mock.append(topic, lane, 0..100);
    }
    let mut source = mock.one();
    assert_eq!(started(&mut source), [0, 1]);
    for (topic, lane) in [(1, 1), (0, 0), (0, 1), (1, 0)] {
        let records = read_to(&mut source, topic, lane, ALL, 100);
        assert_eq!(records.len(), 100);
        for (number, record) in (0..).zip(records) {
            let expected = Copied {
                offset: number,
                time_ms: Some(1_000),
                key: Some("k".to_owned()),
                payload: Some(format!("{topic}/{lane}/{number}")),
                headers: Vec::new(),
            };
            assert_eq!(record, expected);
        }
        wait_until(|| source.end_offset(topic, lane) == 100);
        assert!(!source.has_data(topic, lane));
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it never becomes so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn headers_null_keys_and_null_values_arrive_as_they_are() {
    let mock = Mock::new(1);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &mock.options.brokers)
        .create()
        .expect("a producer");
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "a", value: Some("2") })
        .insert(Header { key: "none", value: None::<&str> });
    let record = BaseRecord::<str, str>::to("plays").partition(0).payload("x").headers(headers);
    producer.send(record).expect("it is queued");
    let tombstone = BaseRecord::<str, str>::to("plays").partition(0).key("gone");
    producer.send(tombstone).expect("it is queued");
    producer.flush(PATIENCE).expect("they are acknowledged");
    let mut source = mock.one();
    started(&mut source);
    let records = read_to(&mut source, 1, 0, ALL, 2);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!((&records[0].key, &records[0].payload), (&None, &Some("x".to_owned())));
    assert_eq!(records[0].headers, [header("a", "1"), header("a", "2"), header("none", "")]);
    assert_eq!((&records[1].key, &records[1].payload), (&Some("gone".to_owned()), &None));
}

#[test]
fn a_limit_holds_back_what_lies_behind_it() {
    let mock = Mock::new(1);
    mock.append(0, 0, 0..50);
    let mut source = mock.one();
    started(&mut source);
    let before = Limit { before: 20, ..ALL };
    assert_eq!(read_to(&mut source, 0, 0, before, 20).len(), 20);
    assert_eq!(read_to(&mut source, 0, 0, before, 20).len(), 0);
    let few = Limit { records: 7, ..ALL };
    let mut count = 0;
    let each = &mut |stretch: &[crate::Record<'_>]| count += stretch.len();
    assert_eq!(source.read(0, 0, few, each).expect("nothing fails"), 27);
    assert_eq!(count, 7);
    // However little is allowed, one record is given out.
    let little = Limit { bytes: 1, ..ALL };
    assert_eq!(source.read(0, 0, little, &mut |s| count += s.len()).expect("nothing fails"), 28);
    assert_eq!(count, 8);
    assert_eq!(read_to(&mut source, 0, 0, ALL, 50).len(), 22);
    source.seek(0, &[40, 0]).expect("it goes back");
    let again = read_to(&mut source, 0, 0, ALL, 50);
    assert_eq!((again.len(), again[0].offset), (10, 40));
}

#[test]
fn the_note_of_a_commit_reaches_the_next_owner() {
    let mock = Mock::new(2);
    mock.append(0, 1, 0..10);
    let mut source = mock.one();
    started(&mut source);
    for n in 0..3 {
        let note = format!("note {n}");
        let commit = Commit { lane: 1, next_offsets: &[7 + n, 0], note };
        source.commit(&[commit]).expect("it is sent");
    }
    source.flush_commits();
    drop(source);
    let mut next = mock.one();
    let lanes = assigned(&mut next);
    assert_eq!(lanes[0].notes, Vec::<String>::new());
    assert_eq!(lanes[1].notes, ["note 2", "note 2"], "each topic has it");
    assert_eq!(
        (&lanes[1].start_offsets[..], &lanes[1].end_offsets[..]),
        (&[0, 0][..], &[10, 0][..])
    );
}

#[test]
fn what_nobody_reads_is_bounded_and_costs_no_membership() {
    let mock = Mock::new(1);
    let big = vec![b'x'; 1000];
    let record = NewRecord { topic: 0, lane: 0, record_time_ms: 0, key: None, payload: &big };
    let appender = mock.appender();
    for _ in 0..30 {
        appender.append(&vec![record; 1000]).expect("they are acknowledged");
    }
    let mut source = mock.one();
    started(&mut source);
    wait_until(|| source.has_data(0, 0));
    // Longer than the group's patience with a member that does not poll.
    std::thread::sleep(Duration::from_secs(8));
    assert!(!source.is_revoked(), "the keeper polls for an owner that is busy");
    let queued = source.queued(0, 0);
    assert!((1..12_000).contains(&queued), "{queued} of 30,000 records are queued");
    assert_eq!(read_to(&mut source, 0, 0, ALL, 30_000).len(), 30_000);
}

#[test]
fn what_is_delivered_again_is_not_read_again() {
    let mock = Mock::new(1);
    mock.append(0, 0, 0..500);
    let mut source = mock.one();
    started(&mut source);
    assert_eq!(read_to(&mut source, 0, 0, ALL, 500).len(), 500);
    source.fetch_from(0, &[100, 0]);
    mock.append(0, 0, 500..510);
    let offsets: Vec<u64> =
        read_to(&mut source, 0, 0, ALL, 510).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (500..510).collect::<Vec<_>>());
}

/// Records of an earlier assignment fill the queue, and the new one begins at the end of the log:
/// only reading makes room, and only then a later end can become known.
#[test]
fn a_queue_that_is_full_of_an_earlier_assignment_does_not_keep_a_lane_from_what_comes() {
    let mock = Mock::new(1);
    mock.append(0, 0, 0..20_000);
    let mut source = mock.one();
    started(&mut source);
    let is_full = |source: &KafkaSource| {
        let before = source.queued(0, 0);
        std::thread::sleep(Duration::from_millis(300));
        before > 0 && source.queued(0, 0) == before
    };
    wait_until(|| is_full(&source));
    source.start(&[(0, vec![20_000, 0])]).expect("it starts again");
    mock.append(0, 0, 20_000..20_010);
    let (mut position, mut read) = (20_000, 0);
    wait_until(|| {
        // As a lane does it: what has no end behind its position is not read.
        if source.end_offset(0, 0) > position {
            position = source
                .read(0, 0, ALL, &mut |stretch| read += stretch.len())
                .expect("nothing fails");
        }
        position == 20_010
    });
    assert_eq!(read, 10);
}

#[test]
fn two_members_share_the_lanes_and_one_that_leaves_gives_them_back() {
    let mock = Mock::new(4);
    let mut one = mock.one();
    assert_eq!(started(&mut one), [0, 1, 2, 3]);
    let mut two = mock.one();
    wait_until(|| one.is_revoked());
    assert!(matches!(one.change(), Ok(Change::Revoked)));
    one.release().expect("nothing fails");
    let lanes = std::thread::scope(|scope| {
        let two = scope.spawn(|| started(&mut two));
        let mut lanes = started(&mut one);
        // On a slow machine the group may give the first one everything again, before it has seen
        // the second.
        while !two.is_finished() {
            if one.is_revoked() {
                assert!(matches!(one.change(), Ok(Change::Revoked)));
                one.release().expect("nothing fails");
                lanes = started(&mut one);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        lanes.extend(two.join().expect("no panic"));
        lanes.sort_unstable();
        lanes
    });
    assert_eq!(lanes, [0, 1, 2, 3], "every lane has one owner");
    drop(two);
    wait_until(|| one.is_revoked());
    assert!(matches!(one.change(), Ok(Change::Revoked)));
    one.release().expect("nothing fails");
    assert_eq!(started(&mut one), [0, 1, 2, 3]);
}

#[test]
fn topics_that_cannot_work_are_refused_with_words() {
    let mock = Mock::new(2);
    mock.cluster.create_topic("three", 3, 1).expect("it takes topics");
    let with = |topic: &str| {
        let mut options = mock.options.clone();
        options.topics[1].0 = topic.to_owned();
        KafkaCluster::connect(options).expect_err("it is refused").to_string()
    };
    assert!(with("three").contains("\"impressions\" has 2 partitions and topic \"three\" has 3"));
    let nobody = KafkaOptions { brokers: "127.0.0.1:1".to_owned(), ..mock.options.clone() };
    let error = KafkaCluster::connect(nobody).expect_err("nobody answers").to_string();
    assert!(error.starts_with("no broker answers at 127.0.0.1:1"), "{error}");
}

#[test]
fn a_replay_reads_what_is_there_beside_a_member_that_keeps_its_lanes() {
    let mock = Mock::new(2);
    mock.append(0, 1, 0..5000);
    mock.append(1, 1, 0..10);
    let cluster = KafkaCluster::connect(mock.options.clone()).expect("it is there");
    let mut member = mock.join(1).remove(0);
    let lanes = assigned(&mut member);
    assert_eq!(lanes.len(), 2);
    let mut replay = KafkaReplay::new(&cluster).expect("it starts");
    for (topic, lane, from, end) in
        [(0, 1, 0, 5000), (1, 1, 3, 10), (0, 0, 0, 0), (0, 1, 4990, 5000)]
    {
        assert_eq!(replay.bounds(topic, lane).expect("it answers"), (0, end));
        assert_eq!(replay.first_at(topic, lane, 0).expect("it answers"), 0);
        replay.seek(topic, lane, from).expect("it goes there");
        let mut offsets = Vec::new();
        let until = Instant::now() + PATIENCE;
        let each = &mut |records: &[crate::Record<'_>]| {
            offsets.extend(records.iter().map(|record| record.offset));
        };
        while replay.read(Limit { records: 700, ..ALL }, each).expect("it reads").is_some() {
            assert!(Instant::now() < until, "{topic}/{lane}: it does not end");
        }
        assert_eq!(offsets, (from..end).collect::<Vec<_>>(), "{topic}/{lane}");
    }
    assert!(!member.is_revoked(), "the replay has taken a lane");
}
