//! `generate`: invented data that is the same on every machine for the same flags.

use marquee_e2e::data::{Data, example};
use marquee_e2e::program::{marquee, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn generate(out: &Path, flags: &[&str]) -> marquee_e2e::program::Finished {
    run(marquee(["generate", "--out"]).arg(out).args(flags))
}

/// Both files of a generated folder.
fn files(flags: &[&str]) -> (String, String) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("made/on/the/way");
    generate(&out, flags).expect_code(0);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("it was written");
    let names = std::fs::read_dir(&out).expect("it was made").count();
    assert_eq!(names, 2, "nothing but the two files");
    (read("impressions.ndjson"), read("plays.ndjson"))
}

#[test]
fn the_same_flags_give_the_same_bytes() {
    let flags = ["--requests", "3000", "--seed", "5", "--late", "0.02"];
    assert!(files(&flags) == files(&flags));
}

#[test]
fn another_seed_gives_other_bytes() {
    let (one, other) = (
        files(&["--requests", "500", "--seed", "1"]),
        files(&["--requests", "500", "--seed", "2"]),
    );
    assert!(one.0 != other.0);
    assert!(one.1 != other.1);
}

#[test]
fn events_have_the_fields_of_the_contract_and_start_where_they_are_told() {
    let flags = ["--requests", "400", "--start", "2020-01-01T00:00:00Z", "--span", "30m"];
    let (impressions, plays) = files(&flags);
    let start_ms = 1_577_836_800_000;
    // A play comes at most an hour after its impression.
    for (lines, last) in [(&impressions, "position"), (&plays, "duration_s")] {
        assert!(lines.lines().count() > 10);
        for line in lines.lines() {
            let event: Value = serde_json::from_str(line).expect("each line is JSON");
            let time_ms = event["ts"].as_i64().expect("a whole number");
            assert!((start_ms..start_ms + 2 * 3_600_000).contains(&time_ms), "{line}");
            assert!(event["request_id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
            assert!(event["video_id"].is_string() && event["country"].is_string(), "{line}");
            assert!(event["device"].is_string() && event[last].is_u64(), "{line}");
        }
    }
    let requests = |lines: &str| -> BTreeSet<String> {
        lines.lines().map(|line| line.split('"').nth(3).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(requests(&impressions).len(), 400);
}

#[test]
fn a_share_of_late_events_changes_when_they_arrive_but_not_what_they_are() {
    let sorted = |flags: &[&str]| -> Vec<String> {
        let mut lines: Vec<String> = files(flags).0.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let flags = ["--requests", "2000", "--late", "0.1"];
    assert_eq!(sorted(&flags), sorted(&flags[..2]));
    assert!(files(&flags).0 != files(&flags[..2]).0, "nothing arrived late");
}

#[test]
fn generated_events_are_all_good_in_both_examples() {
    let data = Data::generated(1000, 3);
    for config in ["reference.toml", "slides.toml"] {
        let out = data.file("cells.csv");
        run(data.backfill(&example(config)).arg("--strict").arg("--out").arg(&out)).expect_code(0);
    }
}

#[test]
fn wrong_flags_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for flags in [
        &["--requests", "-1"][..],
        &["--requests", "1", "--start", "yesterday"],
        &["--requests", "1", "--span", "3"],
        &["--requests", "1", "--late", "1.5"],
        &["--requests", "1", "--late", "NaN"],
        &[],
    ] {
        let out = dir.path().join("out");
        let finished = generate(&out, flags);
        assert_eq!(finished.code, Some(2), "{flags:?}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty(), "{flags:?} are refused without a word");
        assert!(!out.exists(), "{flags:?} wrote something");
    }
}

#[test]
fn a_file_where_the_folder_should_be_is_named() {
    let data = Data::of("", "");
    generate(&data.impressions, &["--requests", "1"])
        .expect_code(1)
        .expect_words(&data.impressions.display().to_string());
}
