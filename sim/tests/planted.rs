//! Would the simulations find a fault? Plants one at a time into a copy of the workspace, builds the
//! simulation there, and runs it until it fails: within 20,000 seeds (of the lake's: 2,000 histories), or
//! this test fails.
//!
//! Slow: each fault is a build. `cargo xtask test --slow` runs it; the table that it prints goes into
//! docs/soak.md. The product's code knows nothing of this: a fault is a text that is replaced.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "planted/bugs.rs"]
mod bugs;

use bugs::{BUGS, Bug, LAKE_BUGS};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Seeds in which a planted fault must show.
const SEEDS: u64 = 20_000;

/// The same of the histories of the lake, which take longer.
const HISTORIES: u64 = 2_000;

/// The test that runs them.
const LAKE_TEST: &str = "lake::tests::the_newest_manifest_is_whole_and_never_shrinks";

#[test]
fn every_text_of_a_planted_fault_occurs_once() {
    for bug in BUGS.iter().chain(&LAKE_BUGS) {
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
        let found = copy.with(bug, || {
            copy.build(bug);
            copy.run()
        });
        say(bug, found, &mut missed);
    }
    let of_lake: Vec<&Bug> = LAKE_BUGS.iter().filter(|bug| bug.name.contains(&only)).collect();
    if !of_lake.is_empty() {
        // What finds a fault must find none without it.
        assert_eq!(copy.run_lake("no fault"), None, "the lake's histories fail as they are");
    }
    for bug in of_lake {
        say(bug, copy.with(bug, || copy.run_lake(bug.name)), &mut missed);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

fn say(bug: &Bug, found: Option<(u64, String)>, missed: &mut Vec<&'static str>) {
    match found {
        Some((seeds, rule)) => eprintln!("| {} | {seeds} | {rule} |", bug.name),
        None => {
            missed.push(bug.name);
            eprintln!("| {} | not found | |", bug.name);
        }
    }
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

    /// What is found while a fault is planted.
    fn with<T>(&self, bug: &Bug, find: impl Fn() -> T) -> T {
        for (file, text, replacement) in bug.edits {
            // In the copy: it may have an edit of this fault already.
            let of_file = std::fs::read_to_string(self.folder.join(file)).unwrap();
            assert!(of_file.contains(text), "{}: {file} no longer has: {text}", bug.name);
            self.write(file, of_file.replacen(text, replacement, 1).as_bytes());
        }
        let found = find();
        for (file, ..) in bug.edits {
            self.write(file, &std::fs::read(root().join(file)).unwrap());
        }
        found
    }

    fn build(&self, bug: &Bug) {
        let built = self.cargo(&["build", "--package", "marquee-sim"]).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{}: it does not build:\n{said}", bug.name);
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(arguments).args(["--quiet", "--release"]);
        cargo.current_dir(&self.folder).env("CARGO_TARGET_DIR", self.folder.join("target"));
        // It is built more often than it runs for long.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        cargo
    }

    /// How many seeds it takes until a fault shows, and the rule that it breaks.
    fn run(&self) -> Option<(u64, String)> {
        let mut sim = Command::new(self.folder.join("target/release/marquee-sim"));
        sim.args(["--until-failure", &format!("--count={SEEDS}")]);
        let said = String::from_utf8(sim.output().unwrap().stdout).unwrap();
        let line = said.lines().find(|line| line.contains(" failed \""))?;
        let (rule, seed) = line.rsplit_once(", first seed ").unwrap();
        let rule = rule.split('"').nth(1).unwrap().to_owned();
        Some((seed.parse::<u64>().unwrap() + 1, rule))
    }

    /// How many histories of the lake it takes, and what was wrong then. No failing history is kept in
    /// the copy: the next fault must be found anew.
    fn run_lake(&self, name: &str) -> Option<(u64, String)> {
        let mut cargo = self.cargo(&["test", "--package", "marquee-sinks", "--lib", LAKE_TEST]);
        cargo.args(["--", "--exact"]).env("MARQUEE_CASES", HISTORIES.to_string());
        cargo
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        let finished = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        let ran = said.contains("running 1 test");
        let errors = String::from_utf8_lossy(&finished.stderr);
        assert!(ran, "{name}: the histories of the lake do not run:\n{errors}");
        if finished.status.success() {
            return None;
        }
        let lines: Vec<&str> = said.lines().collect();
        let number = |line: &&str| line.trim().strip_prefix("successes: ")?.parse::<u64>().ok();
        let before = lines.iter().find_map(number).unwrap_or_else(|| panic!("{name}: {said}"));
        let rules = ["has shrunk", "what is listed is there and whole", "is missing"];
        let is_rule = |line: &&&str| rules.iter().any(|rule| line.contains(rule));
        let rule = lines.iter().find(is_rule).map_or("", |line| line.trim());
        Some((before + 1, rule.chars().take(80).collect()))
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output
}
