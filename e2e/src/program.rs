//! Runs the real binary, with a limit of time, and keeps all that it said.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// No call in these tests takes a fraction of this; one that does hangs.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output, as it came.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub seconds: f64,
}

impl Finished {
    /// Panics, with all that the program said, unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Finished {
        assert_eq!(self.code, Some(code), "exit code; standard error:\n{}", self.stderr);
        self
    }

    /// Panics unless standard error contains these words.
    #[track_caller]
    pub fn expect_words(self, words: &str) -> Finished {
        assert!(self.stderr.contains(words), "no {words:?} in standard error:\n{}", self.stderr);
        self
    }

    /// The number before a word in the summary: `12` for `dead` in `7 events, 12 dead`.
    #[track_caller]
    pub fn number(&self, word: &str) -> u64 {
        let last = self.stderr.lines().last().unwrap_or_default();
        let part = last.split(", ").find_map(|part| part.strip_suffix(word));
        let number = part.and_then(|number| number.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no number of {word} in {last:?}"))
    }
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e/ is in the workspace").to_owned()
}

/// The binary: `MARQUEE_BIN`, or the youngest that cargo has built here.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MARQUEE_BIN") {
        return root().join(path);
    }
    let built =
        ["release", "debug"].map(|profile| root().join("target").join(profile).join("marquee"));
    let age = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    let youngest = built.into_iter().filter(|path| path.is_file()).max_by_key(age);
    youngest.expect("there is no marquee; build it (cargo build) or name it by MARQUEE_BIN")
}

/// A call of the binary.
pub fn marquee<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(binary());
    // Colours and levels of the log must not depend on who runs the tests.
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// Runs a command without standard input.
pub fn run(command: &mut Command) -> Finished {
    run_limited(command, &[], TIME_LIMIT)
}

/// Runs a command that reads these bytes from standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Finished {
    run_limited(command, input, TIME_LIMIT)
}

/// Runs a command that must end within this time; panics where it does not.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Finished {
    run_limited(command, &[], limit)
}

#[track_caller]
fn run_limited(command: &mut Command, input: &[u8], limit: Duration) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let stdout = read_all(child.stdout.take().expect("it is piped"));
    let stderr = read_all(child.stderr.take().expect("it is piped"));
    let ended = thread::scope(|scope| {
        // Who does not read its input to the end has ended: its exit code will tell.
        scope.spawn(move || stdin.write_all(input));
        wait(&mut child, limit)
    });
    let Some(status) = ended else { panic!("not ended after {limit:?}: {command:?}") };
    Finished {
        code: status.code(),
        stdout: stdout.join().expect("a reader does not panic"),
        stderr: String::from_utf8_lossy(&stderr.join().expect("a reader does not panic")).into(),
        seconds: start.elapsed().as_secs_f64(),
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before an error is all there is.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for the end, or kills; `None` if it had to.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return Some(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
