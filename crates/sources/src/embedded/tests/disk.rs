//! Disks that are full, and disks that fail.

use std::{os::unix::fs::symlink, process::Command};

use super::*;

/// A small file system of its own; unmounted when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "marquee-test"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_records_and_the_log_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    let path = disk.folder.path();
    let log = open(path).unwrap();
    let ballast = path.join("ballast");
    fs::write(&ballast, vec![0; 300_000]).unwrap();
    let (payload, mut kept) = (vec![b'x'; 50_000], 0);
    let record = NewRecord { topic: 0, lane: 0, record_time_ms: 0, key: None, payload: &payload };
    let batch = [record, NewRecord { lane: 1, ..record }, NewRecord { topic: 1, ..record }];
    let error = loop {
        match log.append(&batch) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Io { .. }) && error.to_string().contains("free some space"));
    assert!(kept > 0, "the disk was full at once");
    log.health().unwrap();
    for (topic, lane) in [(0, 0), (0, 1), (1, 0)] {
        assert_eq!(log.end_offset(topic, lane), kept);
        let file = path.join(&topics()[topic]).join(format!("{lane}/{:020}.log", 0));
        let whole = log.shared.lanes[topic * 2 + lane as usize].state().segments[0].length;
        assert_eq!(fs::metadata(file).unwrap().len(), whole, "a part of the write was left");
    }
    assert!(log.append(&batch).is_err());
    fs::remove_file(ballast).unwrap();
    assert_eq!(log.append(&batch).unwrap()[2].offset, kept);
    drop(log);
    let log = open(path).unwrap();
    for (topic, lane) in [(0, 0), (0, 1), (1, 0)] {
        assert_eq!(payloads(&log, topic, lane).unwrap(), vec![payload.clone(); kept as usize + 1]);
    }
}

#[test]
fn a_full_disk_while_a_segment_is_begun_is_survived_too() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    let path = disk.folder.path();
    let log = open_small(path).unwrap();
    append(&log, &[b'x'; 300]).unwrap();
    let ballast = path.join("ballast");
    // Writing stops with an error when the disk is full, which is what is wanted.
    let _ = fs::write(&ballast, vec![0; 2 << 20]);
    for _ in 0..3 {
        assert!(matches!(append(&log, &[b'y'; 300]), Err(LogError::Io { .. })));
    }
    log.health().unwrap();
    fs::remove_file(ballast).unwrap();
    append(&log, &[b'z'; 300]).unwrap();
    drop(log);
    let found = payloads(&open_small(path).unwrap(), 0, 0).unwrap();
    assert_eq!(found, [[b'x'; 300], [b'z'; 300]]);
}

/// Replaces a log's segment by a device, appends, and puts the segment back.
fn append_to_device(path: &Path, device: &str) -> LogError {
    let (file, _) = numbered(path, 2);
    let log = open(path).unwrap();
    let aside = path.join("aside");
    fs::rename(&file, &aside).unwrap();
    symlink(device, &file).unwrap();
    let error = append(&log, b"lost").unwrap_err();
    assert!(log.health().unwrap_err().contains("reopened"));
    assert_eq!(log.end_offset(0, 0), 2, "a record that is not durable became visible");
    fs::rename(&aside, &file).unwrap();
    // A record for another lane, whose file is sound, is refused as well.
    let record = NewRecord { topic: 1, lane: 1, record_time_ms: 0, key: None, payload: b"" };
    assert!(matches!(log.append(&[record]), Err(LogError::Poisoned { .. })));
    drop(log);
    let log = open(path).unwrap();
    log.health().unwrap();
    assert_eq!(append(&log, b"record 2").unwrap().offset, 2);
    error
}

#[test]
fn a_failed_sync_poisons_the_log_until_it_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    // The null device takes every write and cannot be synced.
    let error = append_to_device(folder.path(), "/dev/null");
    assert!(matches!(error, LogError::Io { doing: "sync", .. }), "{error}");
}

#[test]
fn a_failed_write_that_cannot_be_cut_off_poisons_the_log() {
    let folder = tempfile::tempdir().unwrap();
    // This device is always full and cannot be cut.
    let error = append_to_device(folder.path(), "/dev/full");
    assert!(matches!(error, LogError::Io { doing: "write", .. }), "{error}");
}
