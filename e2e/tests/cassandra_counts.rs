//! Invariant COUNT on a real Cassandra: of two counts the larger one stays, whoever writes when.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cassandra::{Cql, alone, own_node};
use marquee_model::Side;
use marquee_services::Cassandra;
use marquee_sinks::cassandra::cluster::{Cluster, Column, CountRow, Partition, Select, Write};
use marquee_sinks::cassandra::schema;
use marquee_sinks::cassandra::session::{CassandraCluster, ClusterOptions, Consistency, Tls};
use std::borrow::Cow;
use std::time::{Duration, Instant};

const KEYSPACE: &str = "counts_test";
const GENERATION: &str = "a generation";
const START_MS: i64 = 1_479_686_400_000;
const HOUR_S: i32 = 3600;
/// Long enough for all writes of a test, also on a slow machine.
const SOON_S: i32 = 8;

fn options(node: &Cassandra) -> ClusterOptions {
    ClusterOptions {
        nodes: vec![node.address().to_string()],
        keyspace: KEYSPACE.to_owned(),
        credentials: None,
        datacenter: String::new(),
        consistency: Consistency::LocalQuorum,
        timeout: Duration::from_secs(10),
        in_flight: 16,
        tls: Tls::Off,
    }
}

fn partition() -> Partition<'static> {
    let slice = Cow::Borrowed("");
    Partition { epoch_ms: 1_800_000, epoch_start_ms: START_MS, slice, bucket: 3 }
}

/// As the store writes a count: under the start of its epoch in microseconds and the count.
fn count(video: &str, side: Side, count: u64, ttl_seconds: i32) -> Write<'_> {
    let column = Column::Count { at: partition(), video, lane: 2, side, count };
    Write { column, timestamp: START_MS * 1000 + count as i64, ttl_seconds }
}

fn rows(cluster: &CassandraCluster) -> Vec<CountRow> {
    let mut read = cluster.counts(GENERATION, &[partition()], Select::All).unwrap();
    read.remove(0)
}

/// Numbers that look random, the same in each run.
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for end in (1..items.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(end, (state >> 33) as usize % (end + 1));
    }
    items
}

#[test]
fn the_larger_count_stays_whoever_writes_when() {
    let _alone = alone();
    let (Some(cql), Some(node)) = (Cql::find(), own_node()) else { return };
    let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    CassandraCluster::apply(&options(&node), &schema::statements(KEYSPACE, replication)).unwrap();
    let videos: Vec<String> = (0..50).map(|n| format!("video-{n:02}")).collect();

    // Two writers race, each with all counts of both columns from 1 to the last, in an order of its
    // own, impressions up and plays down, everything twice; flushes make them meet on disk, too.
    let last = |number: usize| (40 + number as u64, 7 + number as u64);
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (node, videos) = (&node, &videos);
            scope.spawn(move || {
                let cluster = CassandraCluster::connect(&options(node)).unwrap();
                let mut writes = Vec::new();
                for (number, video) in videos.iter().enumerate() {
                    let (shown, played) = last(number);
                    writes.extend((1..=shown).map(|n| count(video, Side::Impressions, n, 0)));
                    writes.extend((1..=played).rev().map(|n| count(video, Side::Plays, n, 0)));
                }
                writes.extend(writes.clone());
                for part in shuffled(writes, writer).chunks(200) {
                    cluster.write(GENERATION, part).unwrap();
                }
            });
        }
        scope.spawn(|| node.nodetool(&["flush", KEYSPACE]).unwrap());
    });
    let cluster = CassandraCluster::connect(&options(&node)).unwrap();
    let expected: Vec<CountRow> = videos
        .iter()
        .enumerate()
        .map(|(number, video)| {
            let (impressions, plays) = last(number);
            CountRow { video: video.clone(), lane: 2, impressions, plays }
        })
        .collect();
    assert_eq!(rows(&cluster), expected, "both columns end at their largest counts");

    // A writer that is hours behind, after everything is on disk and merged.
    node.nodetool(&["flush", KEYSPACE]).unwrap();
    node.nodetool(&["compact", KEYSPACE]).unwrap();
    for video in &videos {
        let late = [count(video, Side::Plays, 3, 0), count(video, Side::Impressions, 5, 0)];
        cluster.write(GENERATION, &late).unwrap();
    }
    assert_eq!(rows(&cluster), expected, "a writer that is behind lowers nothing");
    // And a stock client sees the same.
    let seen = cql.cells(node.address(), KEYSPACE);
    let seen: Vec<_> = seen.iter().map(|c| (c.video.as_str(), c.impressions, c.plays)).collect();
    let wanted: Vec<_> =
        expected.iter().map(|row| (row.video.as_str(), row.impressions, row.plays)).collect();
    assert_eq!(seen, wanted);
}

#[test]
fn a_count_goes_when_its_time_is_over_and_no_sooner() {
    let _alone = alone();
    let Some(node) = own_node() else { return };
    let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    CassandraCluster::apply(&options(&node), &schema::statements(KEYSPACE, replication)).unwrap();
    let cluster = CassandraCluster::connect(&options(&node)).unwrap();
    // Written twice, the second time with more time to live, or with less: the later end stays.
    let pairs = [
        ("longer", SOON_S, HOUR_S),
        ("shorter", HOUR_S, SOON_S),
        ("both", SOON_S, SOON_S),
        ("for-ever", 0, SOON_S),
    ];
    let begun = Instant::now();
    for (video, first, second) in pairs {
        for ttl_seconds in [first, second] {
            let writes =
                [Side::Impressions, Side::Plays].map(|side| count(video, side, 4, ttl_seconds));
            cluster.write(GENERATION, &writes).unwrap();
        }
    }
    // A larger count is another one, with a time of its own.
    cluster.write(GENERATION, &[count("grown", Side::Plays, 4, HOUR_S)]).unwrap();
    cluster.write(GENERATION, &[count("grown", Side::Plays, 5, SOON_S)]).unwrap();
    let all = rows(&cluster);
    assert!(
        begun.elapsed() < Duration::from_secs(SOON_S as u64),
        "this machine is too slow for the test"
    );
    assert_eq!(all.len(), 5, "{all:?}");
    std::thread::sleep(Duration::from_secs(SOON_S as u64 + 2));
    let left = rows(&cluster);
    let left: Vec<&str> = left.iter().map(|row| row.video.as_str()).collect();
    assert_eq!(left, ["longer", "shorter"], "of two times with one timestamp the later one holds");
}
