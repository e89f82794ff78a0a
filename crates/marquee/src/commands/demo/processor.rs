//! `marquee demo-processor`: the service of the demo, in a process of its own that the supervisor
//! starts.
//!
//! Its standard input is the socket that is listened on, as `inetd` hands it over; its standard output
//! is one end of the control channel. Both are taken by their descriptors, so nothing is inherited
//! that is not named.

use super::control::Told;
use super::topics::Names;
use super::{CONFIG, Failure};
use crate::config::Config;
use crate::service::{Given, Service, Stopper};
use marquee_model::Kind;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the supervisor says; its secrets are in the environment.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct ProcessorArguments {
    /// The folder of log and store
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Brokers, where the log is a Kafka
    #[arg(long, requires = "prefix")]
    pub(super) brokers: Option<String>,
    /// What topics and group begin with there
    #[arg(long, requires = "brokers")]
    pub(super) prefix: Option<String>,
    /// How the processor before this one has ended
    #[arg(long)]
    pub(super) after: Option<String>,
}

impl ProcessorArguments {
    pub(in crate::commands) fn run(self) -> Result<(), Failure> {
        leave_signals_to_the_supervisor()?;
        let (listener, control) = inherited().map_err(by_hand)?;
        let stage = Arc::new(Mutex::new(Stage::Starting));
        end_with(control.try_clone().map_err(Failure::failed)?, stage.clone());
        let mut config = self.config()?;
        config.http.listen = listener.local_addr().map_err(by_hand)?;
        if let Some(after) = &self.after {
            tracing::debug!("the processor before {after}");
        }
        let buttons = Arc::new(Buttons { control: Mutex::new(control) });
        let given = Given { listener: Some(listener), demo: Some(buttons.clone()) };
        let service = Service::start_given(&config, given)?;
        *lock(&stage) = Stage::Running(service.stopper());
        buttons.tell(&Told::Ready);
        service.wait()
    }

    fn config(&self) -> Result<Config, Failure> {
        let config = Config::parse(CONFIG, "examples/demo.toml", &self.data);
        let mut config = config.map_err(Failure::Config)?;
        if let (Some(brokers), Some(prefix)) = (&self.brokers, &self.prefix) {
            Names { brokers: brokers.clone(), prefix: prefix.clone() }.set(&mut config);
        }
        Ok(config)
    }
}

/// A terminal sends Ctrl-C to both processes, and its end, too. The supervisor stops the members first,
/// and then this one.
fn leave_signals_to_the_supervisor() -> Result<(), Failure> {
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let nobody_asks = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, nobody_asks).map_err(Failure::failed)?;
    }
    Ok(())
}

/// The socket that is listened on, and the control channel.
fn inherited() -> std::io::Result<(TcpListener, UnixStream)> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    let control = UnixStream::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    control.peer_addr()?;
    Ok((listener, control))
}

fn by_hand(error: std::io::Error) -> Failure {
    let words = "this is the part of `marquee demo` that it starts by itself; run that";
    Failure::Usage(format!("there is no supervisor: {error}; {words}"))
}

/// How far the service is.
enum Stage {
    Starting,
    Running(Stopper),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the service when the supervisor asks for it, or is no more: both close the channel.
///
/// The supervisor waits for who starts before it asks, unless nobody was ready ever. So one that
/// starts is alone, or has nothing to count; and what it has acknowledged is in the log.
fn end_with(mut control: UnixStream, stage: Arc<Mutex<Stage>>) {
    std::thread::spawn(move || {
        // Nothing is sent; an error is an end, too.
        let _ = control.read_to_end(&mut Vec::new());
        match &*lock(&stage) {
            Stage::Starting => exit(0),
            Stage::Running(stopper) => stopper.stop(),
        }
    });
}

/// The buttons of the operator's page.
struct Buttons {
    control: Mutex<UnixStream>,
}

impl Buttons {
    fn tell(&self, told: &Told) {
        if let Err(error) = lock(&self.control).write_all(told.line().as_bytes()) {
            tracing::warn!("the supervisor of the demo does not hear: {error}");
        }
    }
}

impl marquee_server::Demo for Buttons {
    fn event(&self, video: &str) {
        self.tell(&Told::Event { video: video.to_owned() });
    }

    fn source(&self, kind: Kind, stopped: bool) {
        self.tell(&Told::Source { kind: kind.into(), stopped });
    }

    fn crash(&self) {
        self.tell(&Told::Crash);
        if let Err(error) = signal_hook::low_level::raise(SIGKILL) {
            tracing::error!("this process cannot kill itself: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use marquee_server::Demo;
    use std::io::{BufRead, BufReader};

    #[test]
    fn buttons_are_heard_at_the_other_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let buttons = Buttons { control: Mutex::new(theirs) };
        buttons.event("a \"quiet\"\norchard");
        buttons.source(Kind::Impression, true);
        buttons.source(Kind::Impression, false);
        drop(buttons);
        let lines = BufReader::new(ours).lines();
        let told: Vec<Told> = lines.map(|line| Told::read(&line.unwrap()).unwrap()).collect();
        let source = |stopped| Told::Source { kind: Kind::Impression.into(), stopped };
        let event = Told::Event { video: "a \"quiet\"\norchard".to_owned() };
        assert_eq!(told, [event, source(true), source(false)]);
    }

    /// Whoever presses a button must not be told of it by a panic.
    #[test]
    fn without_a_supervisor_nothing_happens() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        Buttons { control: Mutex::new(theirs) }.source(Kind::Play, true);
    }
}
