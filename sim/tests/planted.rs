//! Would the simulation find a fault? Plants one at a time into a copy of the workspace, builds the
//! simulation there, and runs it until it fails: within 20,000 seeds, or this test fails.
//!
//! Slow: each fault is a build. `cargo xtask test --slow` runs it; the table that it prints goes into
//! docs/soak.md. The product's code knows nothing of this: a fault is a text that is replaced.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "planted/bugs.rs"]
mod bugs;

use bugs::{BUGS, Bug};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Seeds in which a planted fault must show.
const SEEDS: u64 = 20_000;

#[test]
fn every_text_of_a_planted_fault_occurs_once() {
    for bug in &BUGS {
        for (file, find, _) in bug.edits {
            let text = std::fs::read_to_string(root().join(file)).unwrap();
            let found = text.matches(find).count();
            assert_eq!(found, 1, "{}: {file} has this text {found} times: {find}", bug.name);
        }
    }
}

#[test]
fn every_planted_fault_is_found() {
    if !marquee_e2e::skip::slow() {
        return;
    }
    let only = std::env::var("MARQUEE_BUG").unwrap_or_default();
    let copy = Copy::new();
    let mut missed = Vec::new();
    for bug in BUGS.iter().filter(|bug| bug.name.contains(&only)) {
        let row = match copy.found_after(bug) {
            Some((seeds, rule)) => format!("| {} | {seeds} | {rule} |", bug.name),
            None => {
                missed.push(bug.name);
                format!("| {} | not in {SEEDS} | |", bug.name)
            }
        };
        eprintln!("{row}");
    }
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A copy of the workspace, with a target folder of its own. Both stay, so that the next fault, and
/// the next run, build only what changed.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn new() -> Copy {
        let copy = Copy { folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted") };
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = output(git.current_dir(root()));
        let listed = String::from_utf8(listed.stdout).unwrap();
        for path in listed.split('\0').filter(|path| root().join(path).is_file()) {
            copy.write(path, &std::fs::read(root().join(path)).unwrap());
        }
        copy
    }

    /// Writes a file, unless it is so already: what is not touched is not built again.
    fn write(&self, path: &str, content: &[u8]) {
        let file = self.folder.join(path);
        if std::fs::read(&file).is_ok_and(|is| is == content) {
            return;
        }
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }

    /// How many seeds it takes until a fault shows, and the rule that it breaks.
    fn found_after(&self, bug: &Bug) -> Option<(u64, String)> {
        for (file, find, replacement) in bug.edits {
            // In the copy: it may have an edit of this fault already.
            let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
            assert!(text.contains(find), "{}: {file} no longer has the text: {find}", bug.name);
            self.write(file, text.replacen(find, replacement, 1).as_bytes());
        }
        self.build(bug);
        let found = self.run();
        for (file, ..) in bug.edits {
            self.write(file, &std::fs::read(root().join(file)).unwrap());
        }
        found
    }

    fn build(&self, bug: &Bug) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--release", "--package", "marquee-sim"]);
        cargo.current_dir(&self.folder).env("CARGO_TARGET_DIR", self.folder.join("target"));
        // It is built more often than it runs for long.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        let built = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{}: it does not build:\n{said}", bug.name);
    }

    fn run(&self) -> Option<(u64, String)> {
        let mut sim = Command::new(self.folder.join("target/release/marquee-sim"));
        sim.args(["--until-failure", &format!("--count={SEEDS}")]);
        let said = String::from_utf8(sim.output().unwrap().stdout).unwrap();
        let line = said.lines().find(|line| line.contains(" failed \""))?;
        let (rule, seed) = line.rsplit_once(", first seed ").unwrap();
        let rule = rule.split('"').nth(1).unwrap().to_owned();
        Some((seed.parse::<u64>().unwrap() + 1, rule))
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output
}
