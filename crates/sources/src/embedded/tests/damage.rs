//! Damage to what was acknowledged is reported and never repaired; a crash's torn end is cut off.

use super::*;

fn flip(file: &Path, position: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[position] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

#[test]
fn an_end_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ends) = numbered(folder.path(), 3);
    let whole = fs::read(&file).unwrap();
    for length in ends[2]..ends[3] {
        for garbage in [&b""[..], &[0; 100], &[0xff; 100]] {
            fs::write(&file, [&whole[..length], garbage].concat()).unwrap();
            let log = open(folder.path()).unwrap();
            assert_eq!(payloads(&log, 0, 0).unwrap(), [b"record 0", b"record 1"]);
            assert_eq!(fs::metadata(&file).unwrap().len() as usize, ends[2]);
            assert_eq!(append(&log, b"after").unwrap().offset, 2);
            drop(log);
            let found = payloads(&open(folder.path()).unwrap(), 0, 0).unwrap();
            assert_eq!(found, [&b"record 0"[..], b"record 1", b"after"]);
        }
    }
}

#[test]
fn a_changed_byte_before_the_last_record_is_corruption_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ends) = numbered(folder.path(), 4);
    for position in 0..ends[3] {
        flip(&file, position);
        let damaged = fs::read(&file).unwrap();
        let found = open(folder.path()).unwrap_err();
        let frame = ends.iter().rfind(|end| **end <= position).copied().unwrap_or(0);
        match found {
            LogError::Corrupt { file: named, position, .. } => {
                assert_eq!((named, position as usize), (file.clone(), frame));
            }
            LogError::OtherVersion { .. } => assert!((8..12).contains(&position)),
            other => panic!("byte {position}: {other}"),
        }
        assert_eq!(fs::read(&file).unwrap(), damaged, "the evidence must stay");
        flip(&file, position);
    }
    assert_eq!(payloads(&open(folder.path()).unwrap(), 0, 0).unwrap().len(), 4);
}

#[test]
fn a_changed_byte_in_the_last_record_cannot_be_told_from_a_torn_write() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ends) = numbered(folder.path(), 3);
    let whole = fs::read(&file).unwrap();
    for position in ends[2]..ends[3] {
        fs::write(&file, &whole).unwrap();
        flip(&file, position);
        assert_eq!(payloads(&open(folder.path()).unwrap(), 0, 0).unwrap().len(), 2);
    }
}

#[test]
fn a_record_cut_out_of_the_middle_is_corruption() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ends) = numbered(folder.path(), 4);
    let mut bytes = fs::read(&file).unwrap();
    bytes.drain(ends[1]..ends[2]);
    fs::write(&file, bytes).unwrap();
    assert!(is_corrupt(open(folder.path())));
}

#[test]
fn a_payload_that_looks_like_records_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ends) = numbered(folder.path(), 2);
    let log = open(folder.path()).unwrap();
    // The next record would have the offset 3; the forger knows everything but the salt.
    let record = NewRecord { topic: 0, lane: 0, record_time_ms: 0, key: None, payload: b"forged" };
    let mut forged = Vec::new();
    crate::embedded::frame::push_unstamped(&record, &mut forged);
    crate::embedded::frame::stamp(&mut forged, 3, 0, |_, _| {});
    append(&log, &forged.repeat(3)).unwrap();
    drop(log);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(payloads(&open(folder.path()).unwrap(), 0, 0).unwrap().len(), 2);
    assert_eq!(fs::metadata(&file).unwrap().len() as usize, ends[2]);
}

/// A log whose topic 0, lane 0 has several segments.
fn many_segments(path: &Path) -> Vec<PathBuf> {
    let log = open_small(path).unwrap();
    for number in 0..30 {
        append(&log, format!("record {number:02}").as_bytes()).unwrap();
    }
    let files = segments(path);
    assert!(files.len() >= 5, "segments are too large for this test: {files:?}");
    files
}

#[test]
fn a_missing_segment_is_corruption() {
    let folder = tempfile::tempdir().unwrap();
    let files = many_segments(folder.path());
    for file in &files[..files.len() - 1] {
        let content = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        assert!(is_corrupt(open_small(folder.path())), "{} was not missed", file.display());
        fs::write(file, content).unwrap();
    }
    assert_eq!(payloads(&open_small(folder.path()).unwrap(), 0, 0).unwrap().len(), 30);
}

#[test]
fn an_older_segment_of_another_length_is_corruption() {
    let folder = tempfile::tempdir().unwrap();
    let files = many_segments(folder.path());
    let content = fs::read(&files[1]).unwrap();
    for other in [&content[..content.len() - 1], &[&content[..], b"x"].concat()] {
        fs::write(&files[1], other).unwrap();
        assert!(is_corrupt(open_small(folder.path())));
    }
    fs::write(&files[1], fs::read(&files[2]).unwrap()).unwrap();
    assert!(is_corrupt(open_small(folder.path())), "a segment under another's name");
}

#[test]
fn a_changed_byte_in_an_older_segment_stops_the_reader_there() {
    let folder = tempfile::tempdir().unwrap();
    let files = many_segments(folder.path());
    let name = files[1].file_stem().unwrap().to_str().unwrap();
    let first: u64 = name.parse().unwrap();
    let length = fs::metadata(&files[1]).unwrap().len() as usize;
    for position in crate::embedded::frame::HEADER_LEN..length {
        flip(&files[1], position);
        let log = open_small(folder.path()).unwrap();
        let mut batch = RecordBatch::new();
        log.read(0, 0, 0, 100, 1 << 20, &mut batch).unwrap();
        let next = batch.last().unwrap().offset + 1;
        assert!(next >= first, "what stands before the damage must be read");
        let held = batch.len();
        for _ in 0..2 {
            let read = log.read(0, 0, next, 100, 1 << 20, &mut batch);
            assert!(matches!(read, Err(LogError::Corrupt { .. })), "byte {position}: {read:?}");
            assert_eq!(batch.len(), held, "a failed read adds nothing");
        }
        flip(&files[1], position);
    }
}

#[test]
fn a_lane_or_description_that_is_gone_is_corruption_and_not_a_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = numbered(folder.path(), 2);
    fs::rename(&file, folder.path().join("aside")).unwrap();
    assert!(is_corrupt(open(folder.path())), "the lane's only segment is gone");
    fs::remove_dir(file.parent().unwrap()).unwrap();
    assert!(is_corrupt(open(folder.path())), "the lane's folder is gone");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::rename(folder.path().join("aside"), &file).unwrap();

    let description = folder.path().join("marquee-log");
    let text = fs::read_to_string(&description).unwrap();
    fs::remove_file(&description).unwrap();
    assert!(is_corrupt(open(folder.path())), "the description is gone");
    fs::write(&description, "something else").unwrap();
    assert!(is_corrupt(open(folder.path())));
    fs::write(&description, text.replace("version 1", "version 2")).unwrap();
    assert!(matches!(open(folder.path()), Err(LogError::OtherVersion { found: 2, known: 1, .. })));
    fs::write(&description, text).unwrap();
    assert_eq!(payloads(&open(folder.path()).unwrap(), 0, 0).unwrap().len(), 2);
}

#[test]
fn another_number_of_lanes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let error = EmbeddedLog::open(folder.path(), &topics(), 3).unwrap_err();
    assert!(matches!(error, LogError::OtherLanes { stored: 2, wanted: 3, .. }));
    assert!(error.to_string().contains("set `lanes = 2`"), "{error}");
}
