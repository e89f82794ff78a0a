//! The tools of the machine that fetch and run servers.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Kafka 4 asks for.
const JAVA_MIN: u32 = 17;

/// A `java` that is new enough: on the path, of JAVA_HOME, or where Debian puts them.
pub(crate) fn java() -> Option<PathBuf> {
    let of_home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let installed = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("bin/java"));
    let candidates = on_path("java").into_iter().chain(of_home).chain(installed);
    candidates.into_iter().find(|java| version(java).is_some_and(|version| version >= JAVA_MIN))
}

/// What is missing if [`java`] finds none.
pub(crate) fn java_in_words() -> String {
    format!("java {JAVA_MIN} or newer")
}

/// A program by its name, if the path has it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a command to its end. If it fails, the error has what it printed last.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = tail(&String::from_utf8_lossy(&printed));
    ensure!(output.status.success(), "{program} failed ({}):\n{printed}", output.status);
    Ok(())
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
    fn a_failure_has_the_words_of_the_program() {
        let error = run(Command::new("sh").args(["-c", "echo first; echo why >&2; exit 3"]));
        let words = format!("{:#}", error.expect_err("it failed"));
        assert!(words.starts_with("sh failed (exit status: 3):\n"), "{words}");
        assert!(words.ends_with("first\nwhy"), "{words}");
    }
}
