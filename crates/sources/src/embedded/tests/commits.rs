//! Many callers, one sync; and nobody waits for ever.

use std::{
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use super::*;
use crate::embedded::commit::{Commit, Failure};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn concurrent_appenders_get_distinct_rising_offsets_and_all_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_small(folder.path()).unwrap();
    let mut acknowledged: Vec<(Position, String)> = thread::scope(|scope| {
        let writer = |thread: usize| {
            let log = &log;
            scope.spawn(move || {
                let mut mine: Vec<(Position, String)> = Vec::new();
                for round in 0..25 {
                    let texts: Vec<_> = (0..5).map(|n| format!("{thread} {round} {n}")).collect();
                    let record = |(n, text): (usize, &'_ String)| (n as u32 % 2, text.clone());
                    let wanted: Vec<_> = texts.iter().enumerate().map(record).collect();
                    let batch: Vec<_> =
                        wanted.iter().map(|(lane, text)| new(*lane, text)).collect();
                    mine.extend(log.append(&batch).unwrap().into_iter().zip(texts));
                }
                for lane in 0..2 {
                    let own = mine.iter().filter(|(position, _)| position.lane == lane);
                    assert!(own.map(|(position, _)| position.offset).is_sorted_by(|a, b| a < b));
                }
                mine
            })
        };
        let threads: Vec<_> = (0..6).map(writer).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    acknowledged.sort_by_key(|(position, _)| *position);
    acknowledged.dedup_by_key(|(position, _)| *position);
    assert_eq!(acknowledged.len(), 6 * 25 * 5, "an offset was given out twice");
    drop(log);
    let log = open_small(folder.path()).unwrap();
    for lane in 0..2 {
        let own = acknowledged.iter().filter(|(position, _)| position.lane == lane);
        let texts: Vec<_> = own.map(|(_, text)| text.as_bytes().to_vec()).collect();
        assert_eq!(payloads(&log, 0, lane).unwrap(), texts);
    }
}

fn new(lane: u32, payload: &str) -> NewRecord<'_> {
    NewRecord { topic: 0, lane, record_time_ms: 0, key: None, payload: payload.as_bytes() }
}

/// How many records wait in the forming group: more callers than are in it cannot be seen.
fn wait_until_forming(commit: &Commit, records: u64) {
    while commit.forming_records() < records {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn callers_that_come_while_a_group_is_written_share_the_next_one() {
    let commit = Commit::new(1, 1_000);
    let (writing, groups) = (Barrier::new(2), std::sync::Mutex::new(Vec::new()));
    let write = |group: &mut crate::embedded::commit::Group| {
        let mut groups = groups.lock().unwrap();
        groups.push(group.parts[0].records);
        if groups.len() == 1 {
            writing.wait();
            wait_until_forming(&commit, 5);
        }
        Ok(vec![if groups.len() == 1 { 0 } else { 1 }])
    };
    let mut offsets: Vec<u64> = thread::scope(|scope| {
        let submit = || commit.submit(&[new(0, "x")], |_, _| 0, write).unwrap()[0].offset;
        let mut threads = vec![scope.spawn(submit)];
        writing.wait();
        threads.extend((0..5).map(|_| scope.spawn(submit)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(*groups.lock().unwrap(), [1, 5], "five callers waited, and one sync was due");
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_group_takes_no_more_than_its_bytes() {
    let two = 2 * crate::embedded::frame::size_of(&new(0, "12345"));
    let commit = Commit::new(1, two);
    let writing = Barrier::new(2);
    let sizes = std::sync::Mutex::new(Vec::new());
    let write = |group: &mut crate::embedded::commit::Group| {
        let first = sizes.lock().unwrap().is_empty();
        sizes.lock().unwrap().push(group.parts[0].records);
        if first {
            writing.wait();
            wait_until_forming(&commit, 2);
        }
        Ok(vec![0])
    };
    thread::scope(|scope| {
        let submit = || drop(commit.submit(&[new(0, "12345")], |_, _| 0, write).unwrap());
        scope.spawn(submit);
        writing.wait();
        (0..5).for_each(|_| drop(scope.spawn(submit)));
    });
    let sizes = sizes.into_inner().unwrap();
    assert_eq!(sizes.iter().sum::<u64>(), 6);
    assert!(sizes.iter().all(|records| *records <= 2), "there is room for two: {sizes:?}");
}

#[test]
fn a_leader_that_panics_does_not_leave_others_waiting() {
    let commit = Commit::new(1, 1_000);
    let writing = Barrier::new(2);
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            commit.submit(
                &[new(0, "leader")],
                |_, _| 0,
                |_| {
                    writing.wait();
                    wait_until_forming(&commit, 1);
                    panic!("this panic belongs to the test")
                },
            )
        });
        writing.wait();
        let follower = commit.submit(&[new(0, "follower")], |_, _| 0, |_| Ok(vec![0]));
        assert!(matches!(follower, Err(LogError::Poisoned { .. })));
        assert!(leader.join().is_err());
    });
    assert!(commit.poison().is_some());
}

#[test]
fn a_failure_that_was_undone_lets_the_next_group_through_and_another_does_not() {
    let commit = Commit::new(1, 1_000);
    let full = || LogError::io("write", Path::new("x"), std::io::ErrorKind::StorageFull.into());
    let submit = |outcome: Result<Vec<u64>, Failure>| {
        commit.submit(&[new(0, "x")], |_, _| 0, |_| outcome).map(|positions| positions[0].offset)
    };
    assert!(matches!(submit(Err(Failure::Undone(full()))), Err(LogError::Io { .. })));
    assert_eq!(submit(Ok(vec![3])).unwrap(), 3);
    assert!(matches!(submit(Err(Failure::Unknown(full()))), Err(LogError::Io { .. })));
    assert!(matches!(submit(Ok(vec![4])), Err(LogError::Poisoned { .. })));
}

#[test]
fn a_sleeper_wakes_when_something_is_appended_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let seen = log.wait_for_data(0, LONG);
    assert_eq!(log.wait_for_data(seen, Duration::from_millis(10)), seen);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let sleeper = log.clone();
        scope.spawn(move || {
            let now = sleeper.wait_for_data(seen, LONG);
            sender.send((now, sleeper.end_offset(0, 0))).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(30)).is_err(), "nothing was appended");
        append(&log, b"wake up").unwrap();
        assert_eq!(receiver.recv_timeout(LONG / 2).unwrap(), (seen + 1, 1));
    });
}
