//! One process at a time, and what a killed one leaves behind.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::*;

/// Tells a child process, which runs this same test program, which folder to write to.
const CHILD_FOLDER: &str = "MARQUEE_EMBEDDED_TEST_FOLDER";

/// What the child process of the next test does.
#[test]
#[ignore = "it is no test: everything_acknowledged_survives_kill_9 starts it as a process"]
fn child_that_appends_for_ever() {
    let Ok(folder) = env::var(CHILD_FOLDER) else { return };
    let log = open_small(Path::new(&folder)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let log = &log;
            scope.spawn(move || {
                for number in 0.. {
                    let text = format!("{thread}-{number}");
                    let offset = append(log, text.as_bytes()).unwrap().offset;
                    println!("ack {offset} {text}");
                }
            });
        }
    });
}

fn start_child(folder: &Path) -> Child {
    let name = "embedded::tests::crash::child_that_appends_for_ever";
    Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn everything_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let mut child = start_child(folder.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines {
            // Several threads print, and the harness does too, so a line need not begin with it.
            let line = line.unwrap();
            let Some((_, ack)) = line.split_once("ack ") else { continue };
            // The last line may be torn as well.
            if let Some((offset, text)) = ack.split_once(' ') {
                acknowledged.push((offset.parse::<usize>().unwrap(), text.to_owned()));
            }
            count += 1;
            if count == 40 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= 40, "the child ended by itself");
        let found = payloads(&open_small(folder.path()).unwrap(), 0, 0).unwrap();
        for (offset, text) in &acknowledged {
            let kept = String::from_utf8_lossy(&found[*offset]);
            assert!(kept.starts_with(text.as_str()), "offset {offset}: {kept} for {text}");
        }
    }
    assert!(segments(folder.path()).len() > 3);
}

#[test]
fn a_second_opener_is_told_who_holds_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    let clone = log.clone();
    let error = open(folder.path()).unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(matches!(&error, LogError::Locked { holder: named, .. } if *named == holder));
    assert!(error.to_string().contains(&holder));
    drop(log);
    assert!(matches!(open(folder.path()), Err(LogError::Locked { .. })), "a clone still has it");
    drop(clone);
    open(folder.path()).unwrap();
}

#[test]
fn a_file_that_was_never_finished_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = numbered(folder.path(), 2);
    // A crash while the next segment was being created leaves this.
    let unfinished = file.with_file_name("00000000000000000002.unfinished");
    fs::write(&unfinished, b"mrq").unwrap();
    let log = open(folder.path()).unwrap();
    assert_eq!(payloads(&log, 0, 0).unwrap().len(), 2);
    assert!(!unfinished.exists());
}

#[test]
fn a_new_segment_that_stayed_empty_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_small(folder.path()).unwrap();
    while segments(folder.path()).len() < 3 {
        append(&log, b"record").unwrap();
    }
    let end = log.end_offset(0, 0);
    drop(log);
    // As after a crash between creating the segment and writing to it.
    let newest = segments(folder.path()).pop().unwrap();
    let header = fs::read(&newest).unwrap()[..crate::embedded::frame::HEADER_LEN].to_vec();
    fs::write(&newest, header).unwrap();
    let log = open_small(folder.path()).unwrap();
    assert_eq!(append(&log, b"again").unwrap().offset, end - 1);
    drop(log);
    let found = payloads(&open_small(folder.path()).unwrap(), 0, 0).unwrap();
    assert_eq!((found.len() as u64, found.last().unwrap().as_slice()), (end, &b"again"[..]));
}
