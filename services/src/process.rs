//! Processes of servers: started with a log, awaited until ready, signalled, ended and reaped.
//!
//! Signals go by the shell's `kill`: the standard library knows only SIGKILL.

use crate::tools::tail;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);
/// How long a server may take to end by itself.
const STOP: Duration = Duration::from_secs(20);

/// A server that goes with this process, however this process ends.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// A shell that waits for the end of its standard input, which this process holds open and the
    /// system closes when this process is gone. Then it kills the server.
    guard: Child,
}

impl Server {
    /// Starts a server. If this process dies without dropping it, `temporary` is removed.
    pub(crate) fn start(mut command: Command, log: &mut Log, temporary: &Path) -> Result<Server> {
        // A group of its own: Ctrl-C at a test ends the test, and the guard ends the server.
        let mut child = spawn(command.process_group(0), log)?;
        let guard = guard(child.id(), temporary).inspect_err(|_| end(&mut child))?;
        Ok(Server { child, guard })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `is_ready` says so, or fails with the last lines of the log.
    pub(crate) fn wait_until_ready(
        &mut self,
        limit: Duration,
        log: &Log,
        is_ready: impl FnMut() -> bool,
    ) -> Result<()> {
        wait_until_ready(&mut self.child, limit, log, is_ready)
    }

    pub(crate) fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }

    /// Asks the server to end, and kills it if it does not.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        // A server that was paused gets the other signal only now.
        self.signal("CONT");
        let ended = || self.child.try_wait().is_ok_and(|status| status.is_some());
        wait_for(STOP, ended);
        // Dropped, hence killed if it is still there.
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
        // After the server, and by force: its standard input must not end before it.
        end(&mut self.guard);
    }
}

/// The log of a server, from its last start on.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Earlier starts have written up to here: an old "ready" must not count.
    from: u64,
}

impl Log {
    pub(crate) fn new(path: PathBuf) -> Log {
        Log { path, from: 0 }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The log of a server that runs, read by somebody else: only what it writes from now on.
    pub(crate) fn rest(&self) -> Log {
        let from = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        Log { path: self.path.clone(), from }
    }

    pub(crate) fn contains(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    fn text(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Opens it for a server that starts now.
    fn open(&mut self) -> Result<File> {
        let file = File::options().create(true).append(true).open(&self.path);
        let file = file.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.from = file.metadata()?.len();
        Ok(file)
    }
}

/// Starts a command that writes to a log and reads nothing.
pub(crate) fn spawn(command: &mut Command, log: &mut Log) -> Result<Child> {
    let file = log.open()?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// Waits until `is_ready` says so, or fails with the last lines of the log.
pub(crate) fn wait_until_ready(
    child: &mut Child,
    limit: Duration,
    log: &Log,
    mut is_ready: impl FnMut() -> bool,
) -> Result<()> {
    let mut ended = None;
    let ready_or_ended = || {
        // In this order: what answers on the port of a server that has ended is not the server.
        ended = child.try_wait().ok().flatten();
        ended.is_some() || is_ready()
    };
    let in_time = wait_for(limit, ready_or_ended);
    let reason = match ended {
        Some(status) => format!("it ended at its start ({status})"),
        None if !in_time => format!("it was not ready after {} s", limit.as_secs()),
        None => return Ok(()),
    };
    bail!("{reason}; the end of {}:\n{}", log.path.display(), tail(&log.text()))
}

/// Asks again and again; whether the answer was yes in time.
pub(crate) fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// Sends a signal by its name. A process that is gone takes none, which is no error here.
pub(crate) fn signal_to(pid: u32, signal: &str) {
    // The one of the shell: a bare Debian has no other.
    let mut kill = Command::new("sh");
    kill.args(["-c", r#"kill -"$1" "$2""#, "kill", signal, &pid.to_string()]);
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// SIGTERM, and SIGKILL if that does not help, to a process that is no child; `is_gone` says when.
pub(crate) fn stop(pid: u32, mut is_gone: impl FnMut() -> bool) -> bool {
    signal_to(pid, "TERM");
    if wait_for(STOP, &mut is_gone) {
        return true;
    }
    signal_to(pid, "KILL");
    wait_for(STOP, is_gone)
}

/// The program and arguments of a process; `None` if there is none, or only its corpse.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    let text = match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => bytes,
        Err(_) if Path::new("/proc/self").exists() => return None,
        // No such folder on macOS.
        Err(_) => {
            Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output().ok()?.stdout
        }
    };
    let text = String::from_utf8_lossy(&text).replace('\0', " ");
    (!text.trim().is_empty()).then_some(text)
}

/// Kills a child and reaps it. One that has ended already is only reaped.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn guard(server: u32, temporary: &Path) -> Result<Child> {
    // The second lets the killed server go before its folder.
    let script = r#"read -r _; kill -9 "$1"; sleep 1; rm -rf "$2""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "guard", &server.to_string()]).arg(temporary).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().context("cannot start sh")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn start(script: &str) -> (Server, Log, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::new(folder.path().join("log"));
        let server = Server::start(sh(script), &mut log, folder.path()).expect("sh starts");
        (server, log, folder)
    }

    fn is_ready(script: &str, limit: Duration) -> Result<()> {
        let (mut server, log, _folder) = start(script);
        server.wait_until_ready(limit, &log, || log.contains("ready"))
    }

    #[test]
    fn a_server_that_does_not_come_up_leaves_its_last_words() {
        let short = Duration::from_millis(200);
        for (script, expected) in [
            ("echo no memory >&2; exit 7", "it ended at its start (exit status: 7)"),
            ("echo no memory; exec sleep 100", "it was not ready after 0 s"),
        ] {
            let limit = if script.contains("sleep") { short } else { STOP };
            let words = is_ready(script, limit).expect_err("it is not ready").to_string();
            assert!(words.starts_with(expected), "{words}");
            assert!(words.ends_with("log:\nno memory"), "{words}");
        }
        is_ready("echo I am ready; exec sleep 100", STOP).expect("it is ready");
    }

    #[test]
    fn an_earlier_start_does_not_make_the_next_one_ready() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = Log::new(folder.path().join("log"));
        for (script, is_ready) in [("echo ready", true), ("true", false)] {
            let mut child = spawn(&mut sh(script), &mut log).expect("sh starts");
            child.wait().expect("it ends");
            assert_eq!(log.contains("ready"), is_ready, "{script}");
        }
    }

    #[test]
    fn a_server_is_asked_to_end_also_when_it_is_paused() {
        let script = "trap 'echo asked; exit' TERM; echo ready; while :; do sleep 0.01; done";
        let (mut server, log, _folder) = start(script);
        server.wait_until_ready(STOP, &log, || log.contains("ready")).expect("it is ready");
        let pid = server.pid();
        server.signal("STOP");
        server.stop();
        assert_eq!(command_line(pid), None);
        assert!(log.contains("asked"));
    }

    /// Set in the process that the test below starts and kills.
    const HOLD: &str = "MARQUEE_SERVICES_TEST_HOLD";

    #[test]
    fn a_server_goes_with_the_process_that_holds_it() {
        if std::env::var_os(HOLD).is_some() {
            let (server, _log, folder) = start("exec sleep 100");
            println!("server {} {}", server.pid(), folder.path().display());
            thread::sleep(STOP);
            return;
        }
        let name = "process::tests::a_server_goes_with_the_process_that_holds_it";
        let mut holder = Command::new(std::env::current_exe().expect("it has a path"));
        holder.args(["--exact", name, "--nocapture"]).env(HOLD, "1").stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("it starts");
        let printed = BufReader::new(holder.stdout.take().expect("it is piped"));
        let mut lines = printed.lines().map(|line| line.expect("it is text"));
        // The harness writes the name of the test before it, in the same line.
        let found = lines.find_map(|line| Some(line.split_once("server ")?.1.to_owned()));
        let found = found.expect("it says its server");
        let (pid, folder) = found.split_once(' ').expect("a number and a folder");
        let pid = pid.parse().expect("a number");
        // While the shell becomes `sleep`, the kernel may show a command line that is still empty.
        let sleeps = || command_line(pid).is_some_and(|line| line.contains("sleep"));
        assert!(wait_for(STOP, sleeps), "{pid} is not the server: {:?}", command_line(pid));

        end(&mut holder);
        assert!(wait_for(STOP, || command_line(pid).is_none()), "{pid} still runs");
        assert!(wait_for(STOP, || !Path::new(folder).exists()), "{folder} is still there");
    }
}
