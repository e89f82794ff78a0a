//! Runs other programs: their output passes through, line by line, and can be read on the way.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().map_or_else(|| xtask.to_owned(), Path::to_owned)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A call of cargo in the workspace's root, by the toolchain that built this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Whether this is CI: there a tool that is missing is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Runs a command and shows what it prints as it comes; `each_line` sees the lines of both streams.
/// Returns whether the command succeeded.
pub(crate) fn pass_through(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<bool> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (sender, lines) = channel();
    let readers = [
        child.stdout.take().map(|from| forward(from, std::io::stdout(), sender.clone())),
        child.stderr.take().map(|from| forward(from, std::io::stderr(), sender)),
    ];
    lines.iter().for_each(|line: String| each_line(&line));
    for reader in readers.into_iter().flatten() {
        // A reader that fails has lost output, not the command's exit code.
        let _ = reader.join();
    }
    Ok(child.wait()?.success())
}

/// Copies a stream line by line, in a thread of its own so that neither stream blocks the other.
fn forward(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    lines: Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

/// What a command prints on standard output; an error if it fails.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_are_seen_and_the_exit_code_counts() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let success = pass_through(&mut command, |line| lines.push(line.to_owned()));
        lines.sort();
        assert!(!success.expect("sh starts"));
        assert_eq!(lines, ["err", "out"]);
    }
}
