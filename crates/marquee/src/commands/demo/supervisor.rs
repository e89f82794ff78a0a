//! The supervisor of the demo: holds the socket, starts the processor, again and again if need be, and
//! decides when everything ends.
//!
//! All that happens comes to one thread as [`Message`]s, in the order in which it happens: what the
//! processor says, that it has ended, signals, and the end of the members. The order of the end is:
//! members first, then the processor, which counts what it has acknowledged, then the socket.

use super::control::Told;
use super::members::Members;
use super::processor::ProcessorArguments;
use super::screen::Screen;
use super::topics::Topics;
use super::{Arguments, Failure};
use crate::commands::run::say_listening;
use crate::wiring;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A processor that ends by itself is started again so many times within [`RESTARTS_WITHIN`].
const RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// How long the processor may take to end: more than it waits by itself for requests and for a store.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// The variable by which the processor learns what operators have to show. Command lines can be read
/// by everybody on the machine.
const TOKEN_VARIABLE: &str = "MARQUEE_HTTP_TOKEN";

/// The same for what tiles are signed with.
const KEYS_VARIABLE: &str = "MARQUEE_RANK_KEYS";

/// Something has happened.
#[derive(Debug)]
pub(super) enum Message {
    /// The processor says something.
    Told(Told),
    /// The processor's end of the channel is closed: it has ended.
    Ended,
    /// A signal asks for the end.
    Stop,
    /// The members send no more.
    MembersEnded,
}

pub(super) fn run(arguments: Arguments, verbose: bool) -> Result<(), Failure> {
    // From here on an end that is asked for is an end in good order: nothing is left behind.
    let (messages, heard) = channel();
    stop_on_signals(messages.clone())?;
    let temporary = tempfile::tempdir().map_err(Failure::failed)?;
    let data = arguments.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    let listener = listen(arguments.port)?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let topics = arguments.log.as_deref().map(Topics::create).transpose()?;
    let names = topics.as_ref().map(|topics| topics.names.clone());
    let random = || format!("{:032x}", u128::from_le_bytes(wiring::secret()));
    // A token and a key that somebody has set are not replaced; empty ones are none.
    let of_environment = |variable| {
        let set = std::env::var(variable).ok().filter(|text| !text.trim().is_empty());
        set.unwrap_or_else(random)
    };
    let (token, key) = (of_environment(TOKEN_VARIABLE), of_environment(KEYS_VARIABLE));
    let processor = ProcessorArguments {
        data,
        brokers: names.as_ref().map(|names| names.brokers.clone()),
        prefix: names.map(|names| names.prefix),
        after: None,
    };
    let launch = Launch { listener, processor, verbose, token, key, messages: messages.clone() };
    let mut keeper = Keeper::start(launch, heard)?;
    if !keeper.wait_until_ready()? {
        return keeper.end();
    }
    say_listening(address)?;
    let token = &keeper.launch.token;
    eprintln!(
        "Open http://{address} to watch, http://{address}/ops#token={token} to operate; \
         Ctrl-C ends it."
    );
    let (result, sent) = play(keeper, &arguments, address, messages);
    eprintln!("{sent} events were sent and accepted.");
    drop(topics);
    result
}

/// Members send and a screen shows until it is over; how many events were accepted.
fn play(
    mut keeper: Keeper,
    arguments: &Arguments,
    address: SocketAddr,
    messages: Sender<Message>,
) -> (Result<(), Failure>, u64) {
    let until = arguments.for_ms.map(|ms| Instant::now() + Duration::from_millis(ms as u64));
    let base = format!("http://{address}");
    let members = Members::start(base.clone(), arguments.rate, until, messages);
    let screen_stops = Arc::new(AtomicBool::new(false));
    let screen = Screen { base, stop: screen_stops.clone() };
    let screen: JoinHandle<()> = std::thread::spawn(move || screen.run());
    // Without the keeper nobody holds the socket, so no thread waits for an answer.
    let result = match keeper.watch(&members) {
        Ok(()) => keeper.end(),
        Err(failure) => {
            drop(keeper);
            Err(failure)
        }
    };
    screen_stops.store(true, Ordering::Relaxed);
    let sent = members.finish();
    screen.join().expect("the thread of the screen does not panic");
    (result, sent)
}

fn listen(port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(address).map_err(|error| {
        let words = "stop what listens there, or take another --port (0 takes a free one)";
        Failure::Failed(format!("cannot listen on {address}: {error}; {words}"))
    })
}

fn stop_on_signals(messages: Sender<Message>) -> Result<(), Failure> {
    let mut ends = vec![SIGTERM, SIGINT];
    // A terminal that is closed hangs up; under nohup that is nobody's wish to end.
    if !is_ignored(SIGHUP) {
        ends.push(SIGHUP);
    }
    let signals = signal_hook::iterator::Signals::new(ends);
    let mut signals = signals.map_err(Failure::failed)?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if messages.send(Message::Stop).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Whether whoever has started this process wants a signal to be ignored, where the system says so.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// How a processor is started.
struct Launch {
    listener: TcpListener,
    processor: ProcessorArguments,
    verbose: bool,
    /// What operators have to show; the same for every processor of this demo.
    token: String,
    /// What tiles are signed with: pages that are open outlive a processor.
    key: String,
    messages: Sender<Message>,
}

impl Launch {
    fn start(&self, after: Option<&str>) -> Result<Processor, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("cannot start the processor of the demo: {error}"))
        };
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let socket = self.listener.try_clone().map_err(failed)?;
        let mut command = Command::new(this_program());
        command
            .args(self.arguments(after))
            .env(TOKEN_VARIABLE, &self.token)
            .env(KEYS_VARIABLE, &self.key)
            .stdin(OwnedFd::from(socket))
            .stdout(OwnedFd::from(theirs));
        let child = command.spawn().map_err(failed)?;
        // It holds their end of the channel, which must be closed when they have ended.
        drop(command);
        let ours = control.try_clone().map_err(failed)?;
        let messages = self.messages.clone();
        std::thread::spawn(move || listen_to(ours, &messages));
        Ok(Processor { child, control })
    }

    fn arguments(&self, after: Option<&str>) -> Vec<OsString> {
        let ProcessorArguments { data, brokers, prefix, after: _ } = &self.processor;
        let mut arguments: Vec<OsString> =
            vec!["demo-processor".into(), "--data".into(), data.into()];
        let texts = [("--brokers", brokers.as_deref()), ("--prefix", prefix.as_deref())];
        for (flag, text) in texts.into_iter().chain([("--after", after)]) {
            arguments.extend(text.into_iter().flat_map(|text| [flag.into(), text.into()]));
        }
        arguments.extend(self.verbose.then(|| "--verbose".into()));
        arguments
    }
}

/// This very program, even if a build has put another in its place meanwhile.
fn this_program() -> PathBuf {
    let path = std::env::current_exe().ok().filter(|path| path.is_file());
    path.unwrap_or_else(|| "/proc/self/exe".into())
}

/// Passes on what a processor says, and in the end that it says no more.
fn listen_to(control: UnixStream, messages: &Sender<Message>) {
    for line in BufReader::new(control).lines().map_while(Result::ok) {
        let sent = match Told::read(&line) {
            Ok(told) => messages.send(Message::Told(told)),
            Err(error) => {
                tracing::warn!("the processor of the demo says {line:?}: {error}; a bug");
                Ok(())
            }
        };
        if sent.is_err() {
            return;
        }
    }
    // An error: the supervisor has ended before.
    let _ = messages.send(Message::Ended);
}

/// A processor that was started.
struct Processor {
    child: Child,
    control: UnixStream,
}

impl Processor {
    fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().map_err(Failure::failed)
    }
}

impl Drop for Processor {
    /// Without its supervisor it would end by itself, but its folder may go before.
    fn drop(&mut self) {
        // One that was waited for is left alone: its number may be another's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sees to it that there is a processor.
struct Keeper {
    processor: Processor,
    launch: Launch,
    heard: Receiver<Message>,
    /// Whether the processor takes connections.
    ready: bool,
    /// Whether one ever has.
    was_ready: bool,
    /// Whether it has said that it kills itself.
    kills_itself: bool,
    restarts: Restarts,
}

impl Keeper {
    fn start(launch: Launch, heard: Receiver<Message>) -> Result<Keeper, Failure> {
        let processor = launch.start(None)?;
        Ok(Keeper {
            processor,
            launch,
            heard,
            ready: false,
            was_ready: false,
            kills_itself: false,
            restarts: Restarts::default(),
        })
    }

    fn next(&self) -> Message {
        self.heard.recv().expect("this supervisor keeps a sender for the next processor")
    }

    /// Waits for the first processor. False where somebody asks for the end before. One that fails is
    /// not started again: nothing has changed that would help.
    fn wait_until_ready(&mut self) -> Result<bool, Failure> {
        loop {
            match self.next() {
                Message::Told(Told::Ready) => {
                    (self.ready, self.was_ready) = (true, true);
                    return Ok(true);
                }
                Message::Ended => return Err(failure_of(self.processor.wait()?)),
                Message::Stop => return Ok(false),
                // There are no members yet.
                Message::Told(_) | Message::MembersEnded => {}
            }
        }
    }

    /// Does what it is told until the members send no more.
    fn watch(&mut self, members: &Members) -> Result<(), Failure> {
        loop {
            match self.next() {
                Message::Told(Told::Ready) => self.ready = true,
                Message::Told(Told::Event { video }) => members.raise(video),
                Message::Told(Told::Source { kind, stopped }) => members.source(kind, stopped),
                Message::Told(Told::Crash) => self.kills_itself = true,
                Message::Ended => {
                    let status = self.processor.wait()?;
                    self.start_again(status)?;
                }
                Message::Stop => members.stop(),
                Message::MembersEnded => return Ok(()),
            }
        }
    }

    fn start_again(&mut self, status: ExitStatus) -> Result<(), Failure> {
        let how = how_it_ended(status);
        if !std::mem::take(&mut self.kills_itself) && !self.restarts.allows(Instant::now()) {
            return Err(Failure::Failed(format!(
                "the processor of the demo has ended {} times within a minute, at last it {how}: \
                 what it said of that stands above. What was accepted is in the log: with --data \
                 the next demo in that folder goes on with it",
                RESTARTS + 1
            )));
        }
        tracing::warn!("the processor {how}; it is started again, and connections wait");
        self.ready = false;
        self.processor = self.launch.start(Some(&how))?;
        Ok(())
    }

    /// Ends the processor. One that is starting is waited for, and one that is killed now is started
    /// once more: what was acknowledged is to be counted.
    fn end(mut self) -> Result<(), Failure> {
        let until = Instant::now() + END_PATIENCE;
        let mut asked = false;
        loop {
            if !asked && (self.ready || !self.was_ready) {
                // An error: it has ended just now, which is heard next.
                let _ = self.processor.control.shutdown(Shutdown::Write);
                asked = true;
            }
            match self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Told(Told::Ready)) => self.ready = true,
                Ok(Message::Told(Told::Crash)) => self.kills_itself = true,
                Ok(Message::Ended) => {
                    let status = self.processor.wait()?;
                    if asked && status.success() {
                        return Ok(());
                    }
                    if asked && status.code().is_some() {
                        return Err(failure_of(status));
                    }
                    self.start_again(status)?;
                    asked = false;
                }
                // Nobody is left for whom a button could do anything.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Failed(format!(
                        "the processor of the demo has not ended within {END_PATIENCE:?} and was \
                         killed; what was accepted is in the log"
                    )));
                }
            }
        }
    }
}

/// What a processor's end means for the demo. It has said itself what was wrong, unless it was killed.
fn failure_of(status: ExitStatus) -> Failure {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) if code > 0 => Failure::Said(code),
        _ => Failure::Failed(format!("the processor of the demo {}", how_it_ended(status))),
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// When processors were started again that had ended by themselves.
#[derive(Debug, Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Whether one more is allowed now; then it counts.
    fn allows(&mut self, now: Instant) -> bool {
        self.0.retain(|then| now.saturating_duration_since(*then) < RESTARTS_WITHIN);
        let allows = self.0.len() < RESTARTS;
        if allows {
            self.0.push_back(now);
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_restarts_within_a_minute_and_no_more() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for seconds in [0, 10, 20, 30, 40] {
            assert!(restarts.allows(at(seconds)), "{seconds}");
        }
        assert!(!restarts.allows(at(59)));
        // The first is a minute ago; what was refused does not count.
        assert!(restarts.allows(at(60)));
        assert!(!restarts.allows(at(69)));
        assert!(restarts.allows(at(70)));
    }

    #[test]
    fn a_processor_speaks_for_itself_unless_it_was_killed() {
        // As wait(2) encodes them: the exit code times 256, or the signal.
        let of = |wait: i32| failure_of(ExitStatus::from_raw(wait));
        assert_eq!((of(2 << 8).exit_code(), of(2 << 8).lines()), (2, Vec::new()));
        let killed = of(9);
        assert_eq!(killed.exit_code(), 1);
        assert_eq!(killed.lines(), ["error: the processor of the demo was killed by signal 9"]);
        // One that ends well before it was ready has not done what it is there for.
        assert_eq!(of(0).exit_code(), 1);
    }
}
