//! The tools of the machine that fetch and run servers.

use anyhow::{Context, Result, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Kafka 4 asks for.
pub(crate) const FOR_KAFKA: JavaVersions = JavaVersions { min: 17, max: u32::MAX };

/// The newest that Cassandra 5 is made for: it sets a security manager, which later ones refuse.
pub(crate) const FOR_CASSANDRA: JavaVersions = JavaVersions { min: 17, max: 17 };

/// The versions of Java that a server runs on.
pub(crate) struct JavaVersions {
    min: u32,
    max: u32,
}

impl JavaVersions {
    /// A `java` of such a version: on the path, of JAVA_HOME, or where Debian puts them.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let of_home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
        let installed = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
        let installed = installed.map(|entry| entry.path().join("bin/java"));
        let candidates = on_path("java").into_iter().chain(of_home).chain(installed);
        let fits = |java: &PathBuf| version(java).is_some_and(|version| self.has(version));
        candidates.into_iter().find(fits)
    }

    /// The same, or an error that says which is missing.
    pub(crate) fn require(&self) -> Result<PathBuf> {
        self.find().with_context(|| format!("{self} is missing"))
    }

    fn has(&self, version: u32) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

impl fmt::Display for JavaVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            u32::MAX => write!(f, "java {} or newer", self.min),
            max if max == self.min => write!(f, "java {max}"),
            max => write!(f, "java {} to {max}", self.min),
        }
    }
}

/// A program by its name, if the path has it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a command to its end. If it fails, the error has what it printed last.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The same; returns what the command has printed on its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = tail(&text(&[output.stdout.as_slice(), &output.stderr].concat()));
    ensure!(output.status.success(), "{program} failed ({}):\n{printed}", output.status);
    Ok(text(&output.stdout))
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").stdin(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stderr))
}

/// 17 of `openjdk version "17.0.15" 2025-04-15`; 1 of the old `"1.8.0"`.
fn major(printed: &str) -> Option<u32> {
    let (_, version) = printed.split_once("version \"")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java_are_read() {
        for (printed, expected) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime", Some(17)),
            ("java version \"1.8.0_202\"", Some(1)),
            ("openjdk version \"25\" 2025-09-16", Some(25)),
            ("Picked up JAVA_TOOL_OPTIONS: x\nopenjdk version \"21-ea\"", Some(21)),
            ("no such file", None),
        ] {
            assert_eq!(major(printed), expected, "{printed}");
        }
    }

    #[test]
    fn a_server_takes_the_versions_that_it_is_made_for() {
        for (java, version, expected) in [
            (FOR_KAFKA, 11, false),
            (FOR_KAFKA, 17, true),
            (FOR_KAFKA, 25, true),
            (FOR_CASSANDRA, 11, false),
            (FOR_CASSANDRA, 17, true),
            (FOR_CASSANDRA, 21, false),
        ] {
            assert_eq!(java.has(version), expected, "{java}: {version}");
        }
        assert_eq!(FOR_KAFKA.to_string(), "java 17 or newer");
        assert_eq!(FOR_CASSANDRA.to_string(), "java 17");
    }

    #[test]
    fn a_failure_has_the_words_of_the_program() {
        let error = run(Command::new("sh").args(["-c", "echo first; echo why >&2; exit 3"]));
        let words = format!("{:#}", error.expect_err("it failed"));
        assert!(words.starts_with("sh failed (exit status: 3):\n"), "{words}");
        assert!(words.ends_with("first\nwhy"), "{words}");
    }
}
