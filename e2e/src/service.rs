//! A running `marquee run`, that a test can kill, and a client that keeps what was not accepted.

use crate::program::marquee;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No wait in these tests takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(120);

/// A service of this test's own.
pub struct Service {
    child: Child,
    /// `http://HOST:PORT`.
    pub address: String,
    /// Kept open: a service whose standard output is gone must not matter to the test.
    _stdout: BufReader<ChildStdout>,
    /// What it says on standard error.
    pub log: PathBuf,
}

impl Service {
    /// Starts one and waits until it listens.
    pub fn start(config: &Path, log: &Path) -> Service {
        Service::of(marquee(["run", "-c"]).arg(config), log)
    }

    /// The same for a command that starts one.
    pub fn of(command: &mut Command, log: &Path) -> Service {
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.expect("the folder is ours"))
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it is UTF-8");
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let _ = child.kill();
            panic!("the first line is {line:?}; standard error:\n{said}");
        };
        let address = address.to_owned();
        Service { child, address, _stdout: stdout, log: log.to_owned() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it said on standard error: for the message of a test that fails.
    pub fn last_said(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already is as dead.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal by its name: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the service does not end on SIGTERM");
    }

    /// Waits until the service ends by itself.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("the child is ours").code()
    }

    /// The same, and panics unless it ends in time.
    pub fn wait_within(mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not ended after {limit:?}:\n{}", self.said());
    }

    /// What it, and those before it with the same log, have said on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("it was created")
    }

    /// The JSON of a GET.
    pub fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.address);
        let answer = ureq::get(&url).call();
        let mut answer = answer.unwrap_or_else(|e| {
            // One that is ending says why last of all.
            std::thread::sleep(Duration::from_secs(8));
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let start = said.len().saturating_sub(3000);
            panic!("GET {url}: {e}; standard error:\n{}", said.get(start..).unwrap_or(&said))
        });
        answer.body_mut().read_json().expect("it is JSON")
    }

    /// All cells that it serves, of all slices.
    pub fn trends(&self) -> Vec<Value> {
        let (mut cells, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/trends?limit=10000&sort=video&slices=all{after}"));
            cells.extend(page["cells"].as_array().expect("a list").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return cells,
            }
        }
    }

    /// What `/metrics` says of positions.
    pub fn positions(&self) -> String {
        let mut answer =
            ureq::get(&format!("{}/metrics", self.address)).call().expect("it answers");
        let metrics = answer.body_mut().read_to_string().expect("it is text");
        let is_position = |line: &&str| line.starts_with("marquee_next_offset{");
        let mut positions: Vec<&str> = metrics.lines().filter(is_position).collect();
        positions.sort_unstable();
        positions.join("\n")
    }

    /// The JSON of a GET, whatever its code is.
    pub fn get_any(&self, path: &str) -> Value {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(&format!("{}{path}", self.address)).call();
        answer.expect("it answers").body_mut().read_json().expect("it is JSON")
    }

    /// The code of `/readyz`.
    pub fn readiness(&self) -> u16 {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(&format!("{}/readyz", self.address)).call();
        answer.expect("it answers").status().as_u16()
    }

    /// Waits until everything in the log is counted, at least `events` events.
    pub fn wait_until_counted(&self, events: u64) -> Value {
        let start = Instant::now();
        loop {
            let status = self.get("/v1/status");
            let read = status["totals"]["events"].as_u64().unwrap_or(0);
            if status["ready"] == true && status["lag"] == 0 && read >= events {
                return status;
            }
            if start.elapsed() >= PATIENCE {
                panic!(
                    "not counted, wanted {events}: {status}\nit said last:\n{}",
                    self.last_said()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the collector answered: its status and its body.
pub fn post(address: &str, kind: &str, body: &[u8]) -> Result<(u16, Value), ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let url = format!("{address}/v1/{kind}");
    let mut answer = agent.post(&url).content_type("application/x-ndjson").send(body)?;
    let status = answer.status().as_u16();
    Ok((status, answer.body_mut().read_json().unwrap_or(Value::Null)))
}

/// Lines of a file that are sent in order, each body until it was accepted.
pub struct Feed {
    bodies: Vec<Vec<u8>>,
    kind: &'static str,
    /// Bodies that were accepted.
    pub accepted: AtomicU64,
    /// Bodies that were being sent when the connection broke: work in flight.
    pub broken: AtomicU64,
}

impl Feed {
    /// Cuts a file into bodies of so many lines.
    pub fn of(file: &Path, kind: &'static str, lines: usize) -> Feed {
        let text = std::fs::read_to_string(file).expect("the test wrote it");
        let all: Vec<&str> = text.lines().collect();
        let body = |lines: &[&str]| (lines.join("\n") + "\n").into_bytes();
        let bodies = all.chunks(lines).map(body).collect();
        Feed { bodies, kind, accepted: AtomicU64::new(0), broken: AtomicU64::new(0) }
    }

    /// The bodies, in order.
    pub fn bodies(&self) -> &[Vec<u8>] {
        &self.bodies
    }

    /// Number of bodies.
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Sends everything. `address` is asked before each try: the service may have moved. `wait`
    /// is called with the number of the body before it is sent for the first time.
    pub fn send_all(&self, address: &dyn Fn() -> String, wait: &dyn Fn(usize)) {
        for (number, body) in self.bodies.iter().enumerate() {
            wait(number);
            loop {
                match post(&address(), self.kind, body) {
                    Ok((202, _)) => break,
                    Ok((429 | 503, _)) => {}
                    Ok((status, answer)) => panic!("{status}: {answer}"),
                    Err(_) => {
                        self.broken.fetch_add(1, Ordering::SeqCst);
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
        }
    }
}
