//! Input for the program: what `marquee generate` writes, or lines that a test writes itself.

use crate::program::{marquee, root, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Two files of events, and a folder for what is made of them.
pub struct Data {
    dir: TempDir,
    /// NDJSON.
    pub impressions: PathBuf,
    /// NDJSON.
    pub plays: PathBuf,
}

impl Data {
    /// What `marquee generate` draws.
    pub fn generated(requests: u64, seed: u64) -> Data {
        Data::generated_by(&[&format!("--requests={requests}"), &format!("--seed={seed}")])
    }

    /// What it draws with these flags.
    pub fn generated_by(flags: &[&str]) -> Data {
        let data = Data::empty();
        run(marquee(["generate"]).args(flags).arg("--out").arg(data.dir.path())).expect_code(0);
        data
    }

    /// These lines.
    pub fn of(impressions: impl AsRef<[u8]>, plays: impl AsRef<[u8]>) -> Data {
        let data = Data::empty();
        std::fs::write(&data.impressions, impressions).expect("the folder is ours");
        std::fs::write(&data.plays, plays).expect("the folder is ours");
        data
    }

    fn empty() -> Data {
        let dir = tempfile::tempdir().expect("the system has a temporary folder");
        let file = |name: &str| dir.path().join(name);
        Data { impressions: file("impressions.ndjson"), plays: file("plays.ndjson"), dir }
    }

    /// A file in the folder of this data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder of this data.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, bytes).expect("the folder is ours");
        path
    }

    /// Number of lines in both files.
    pub fn events(&self) -> u64 {
        let lines = |file: &Path| {
            let bytes = std::fs::read(file).expect("the folder is ours");
            bytes.iter().filter(|byte| **byte == b'\n').count() as u64
        };
        lines(&self.impressions) + lines(&self.plays)
    }

    /// A backfill of the two files, without `--out`.
    pub fn backfill(&self, config: &Path) -> Command {
        backfill(config, &self.impressions, &self.plays)
    }

    /// The cells of a backfill that ends well, as CSV. Each call writes a file of its own.
    pub fn cells(&self, command: &mut Command) -> Vec<u8> {
        let out = tempfile::Builder::new().suffix(".csv").tempfile_in(self.dir.path());
        let out = out.expect("the folder is ours").into_temp_path();
        run(command.arg("--out").arg(&out)).expect_code(0);
        std::fs::read(&out).expect("a backfill that ends well has written its output")
    }
}

/// A backfill of two inputs, without `--out`.
pub fn backfill(config: &Path, impressions: &Path, plays: &Path) -> Command {
    let mut command = marquee(["backfill", "-c"]);
    command.arg(config).arg("--impressions").arg(impressions).arg("--plays").arg(plays);
    command
}

/// A configuration of `examples/`.
pub fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}
