//! Inputs that cannot be read and outputs that cannot be written: the exit code says whose fault it
//! is, the words say which file, and no half of a file is left.

use marquee_e2e::data::{Data, backfill, example};
use marquee_e2e::program::{Finished, binary, run};
use marquee_e2e::skip;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Enough that a cut-off file has lost something.
fn data() -> Data {
    Data::generated(2_000, 3)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("it is listed").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A backfill that must fail with this code and leave nothing in the folder of its output.
#[track_caller]
fn fails(data: &Data, impressions: &Path, code: i32) -> Finished {
    let out = data.file("out");
    std::fs::create_dir_all(&out).expect("the folder is ours");
    let mut command = backfill(&example("reference.toml"), impressions, &data.plays);
    let finished = run(command.arg("--out").arg(out.join("cells.csv"))).expect_code(code);
    assert_eq!(names(&out), Vec::<String>::new(), "nothing is left");
    let words = impressions.display().to_string();
    let is_named = finished.stderr.lines().any(|l| l.starts_with("error: ") && l.contains(&words));
    assert!(is_named, "{words} is not named:\n{}", finished.stderr);
    finished
}

#[test]
fn a_missing_input_is_wrong_usage() {
    let data = data();
    fails(&data, &data.file("missing.ndjson"), 2);
}

#[test]
fn a_folder_as_input_is_wrong_usage() {
    let data = data();
    fails(&data, data.file("").as_path(), 2).expect_words("folder");
}

#[test]
fn compressed_files_that_are_cut_off_fail_and_leave_no_output() {
    let data = data();
    let plain = std::fs::read(&data.impressions).expect("it was generated");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).expect("memory takes all");
    let gz = gz.finish().expect("memory takes all");
    let zst = zstd::encode_all(&*plain, 1).expect("memory takes all");
    for (name, whole) in [("cut.gz", gz), ("cut.zst", zst)] {
        for kept in [5, whole.len() / 2, whole.len() - 1] {
            let cut = data.write(name, &whole[..kept]);
            fails(&data, &cut, 1);
        }
        // And one that is damaged in the middle.
        let mut damaged = whole.clone();
        damaged[whole.len() / 2..whole.len() / 2 + 64].fill(0x55);
        fails(&data, &data.write(name, damaged), 1);
    }
}

#[test]
fn parquet_that_is_cut_off_or_no_parquet_fails() {
    let data = data();
    for bytes in [
        &b"PAR1"[..],
        b"PAR1PAR1",
        b"PAR1 is how this text begins\n",
        &[b"PAR1", [0; 4096].as_slice()].concat(),
    ] {
        let path = data.write("cut.parquet", bytes);
        let finished = fails(&data, &path, 1);
        assert!(finished.stderr.contains("Parquet"), "{}", finished.stderr);
    }
}

#[test]
fn standard_input_can_be_read_once() {
    let data = data();
    let mut command = backfill(&example("reference.toml"), Path::new("-"), Path::new("-"));
    run(command.arg("--out").arg(data.file("x.csv"))).expect_code(2).expect_words("standard input");
}

#[test]
fn an_input_is_never_written_to() {
    let data = data();
    let before = std::fs::read(&data.impressions).expect("it was generated");
    let mut command = data.backfill(&example("reference.toml"));
    run(command.arg("--out").arg(data.file("cells.csv"))).expect_code(0);
    assert!(before == std::fs::read(&data.impressions).expect("it is still there"));
}

#[test]
fn an_output_in_a_folder_that_does_not_exist_is_named() {
    let data = data();
    let out = data.file("no/such/folder/cells.csv");
    let mut command = data.backfill(&example("reference.toml"));
    let finished = run(command.arg("--out").arg(&out));
    assert!(matches!(finished.code, Some(1 | 2)), "{:?}", finished.code);
    finished.expect_words(&out.display().to_string());
    assert!(!data.file("no").exists());
}

#[test]
fn an_output_that_is_a_folder_is_refused_and_nothing_is_left_beside_it() {
    let data = data();
    let out = data.file("folder/cells.csv");
    std::fs::create_dir_all(&out).expect("the folder is ours");
    let mut command = data.backfill(&example("reference.toml"));
    let finished = run(command.arg("--out").arg(&out));
    assert!(matches!(finished.code, Some(1 | 2)), "{:?}", finished.code);
    finished.expect_words(&out.display().to_string());
    assert_eq!(names(&data.file("folder")), ["cells.csv"]);
}

#[test]
fn an_older_output_is_replaced_as_a_whole_or_left() {
    let data = data();
    let out = data.write("cells.csv", "older");
    let missing = data.file("missing.ndjson");
    let mut command = backfill(&example("reference.toml"), &missing, &data.plays);
    run(command.arg("--out").arg(&out)).expect_code(2);
    assert_eq!(std::fs::read(&out).expect("it is left"), b"older");
    run(data.backfill(&example("reference.toml")).arg("--out").arg(&out)).expect_code(0);
    assert!(std::fs::read(&out).expect("it is replaced").starts_with(b"video_id,"));
}

#[test]
fn dead_letters_that_cannot_be_written_are_no_success() {
    let data = data();
    let dead = data.file("no/such/folder/dead.ndjson");
    let mut command = data.backfill(&example("reference.toml"));
    let finished = run(command.arg("--out").arg(data.file("x.csv")).arg("--dead").arg(&dead));
    finished.expect_code(2).expect_words(&dead.display().to_string());
}

/// Runs a backfill that may write no file of more than this many KiB: what a full disk does, but
/// without the right to mount one.
fn limited(kib: u32, command: &Command) -> Finished {
    let script = format!(r#"ulimit -f {kib}; trap '' XFSZ; exec "$@""#);
    let mut limited = Command::new("bash");
    limited.args(["-c", &script, "bash"]).arg(binary()).args(command.get_args());
    run(limited.env_remove("RUST_LOG"))
}

#[test]
fn an_output_that_does_not_fit_fails_and_leaves_no_half_file() {
    let data = data();
    let out = data.file("out");
    std::fs::create_dir_all(&out).expect("the folder is ours");
    for name in ["cells.csv", "cells.parquet"] {
        let mut command = data.backfill(&example("reference.toml"));
        let finished = limited(16, command.arg("--out").arg(out.join(name)));
        finished.expect_code(1).expect_words(&out.join(name).display().to_string());
        assert_eq!(names(&out), Vec::<String>::new());
    }
}

#[test]
fn dead_letters_that_do_not_fit_fail_and_write_no_cells() {
    let data = Data::of("bad\n".repeat(20_000), "");
    let (out, dead) = (data.file("cells.csv"), data.file("dead.ndjson"));
    let mut command = data.backfill(&example("reference.toml"));
    let finished = limited(16, command.arg("--out").arg(&out).arg("--dead").arg(&dead));
    finished.expect_code(1).expect_words(&dead.display().to_string());
    assert!(!out.exists());
}

#[test]
fn a_full_folder_for_temporary_files_is_named_and_fails() {
    let data = Data::generated(300_000, 5);
    let reference = std::fs::read_to_string(example("reference.toml")).expect("it is in the tree");
    let config = data.write("small.toml", reference + "\n[runtime]\nmemory = '64MiB'\n");
    let out = data.file("cells.csv");
    let finished = limited(16, data.backfill(&config).arg("--out").arg(&out));
    finished.expect_code(1).expect_words("TMPDIR");
    assert!(!out.exists());
}

#[test]
fn a_full_disk_fails_and_leaves_no_half_file() {
    let data = data();
    let Some(disk) = Disk::mount(&data.file("disk"), "16k") else {
        return skip::skipped("mounting a small disk needs root");
    };
    for name in ["cells.csv", "cells.parquet"] {
        let out = disk.0.join(name);
        let finished = run(data.backfill(&example("reference.toml")).arg("--out").arg(&out));
        finished.expect_code(1).expect_words("No space left").expect_words(name);
        assert_eq!(names(&disk.0), Vec::<String>::new());
    }
}

/// A disk in memory, unmounted at the end.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(path).expect("the folder is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Disk(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What stays mounted goes with the machine; the test has said what it had to.
        let _ = Command::new("umount").arg(&self.0).output();
    }
}
