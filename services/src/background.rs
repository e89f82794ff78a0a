//! Servers for people: they go on when the command that started them has ended, listen on fixed
//! ports, and keep their data.

use crate::home::{home, lock};
use crate::install::{Service, TOXIPROXY_PROGRAM};
use crate::kafka::{self, broker};
use crate::ports::ensure_free;
use crate::process::{self, Log, command_line, end, wait_until_ready};
use crate::toxiproxy;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const KAFKA: u16 = 19_092;
const KAFKA_CONTROLLER: u16 = 19_093;
const TOXIPROXY: u16 = 8_474;

/// Starts a server, unless it runs, and waits until it is ready. Returns what happened, in a line.
pub fn up(service: Service) -> Result<String> {
    let place = Place::of(service)?;
    let _lock = lock(&place.folder, service.name())?;
    if let Some(pid) = place.running() {
        return Ok(format!("{service}: already running, pid {pid}, {}", address(service)));
    }
    for port in ports(service) {
        ensure_free(service.name(), *port)?;
    }
    let pid = place.start().with_context(|| format!("{service} does not start"))?;
    Ok(format!("{service}: ready, pid {pid}, {}", address(service)))
}

/// Ends a server that [`up`] has started; its data stay. Returns what happened, in a line.
pub fn down(service: Service) -> Result<String> {
    let place = Place::of(service)?;
    let _lock = lock(&place.folder, service.name())?;
    let Some(pid) = place.running() else { return Ok(format!("{service}: not running")) };
    // A process that is killed frees its ports a little after its command line is gone.
    let is_gone = || {
        place.running().is_none()
            && ports(service).iter().all(|port| ensure_free(service.name(), *port).is_ok())
    };
    ensure!(process::stop(pid, is_gone), "{service}: pid {pid} does not end");
    fs::remove_file(place.pid_file())?;
    Ok(format!("{service}: stopped, was pid {pid}"))
}

fn address(service: Service) -> String {
    match service {
        Service::Kafka => format!("bootstrap 127.0.0.1:{KAFKA}"),
        Service::Toxiproxy => format!("http://127.0.0.1:{TOXIPROXY}"),
    }
}

fn ports(service: Service) -> &'static [u16] {
    match service {
        Service::Kafka => &[KAFKA, KAFKA_CONTROLLER],
        Service::Toxiproxy => &[TOXIPROXY],
    }
}

/// Where a server keeps its things.
struct Place {
    service: Service,
    folder: PathBuf,
}

impl Place {
    fn of(service: Service) -> Result<Place> {
        Ok(Place { service, folder: home()?.join("background").join(service.name()) })
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// The process of the pid file, if it is still ours: numbers are used again.
    fn running(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let (program, mark) = match self.service {
            Service::Kafka => (broker::CLASS, self.folder.display().to_string()),
            Service::Toxiproxy => (TOXIPROXY_PROGRAM, format!("-port {TOXIPROXY}")),
        };
        let line = command_line(pid)?;
        (line.contains(program) && line.contains(&mark)).then_some(pid)
    }

    fn start(&self) -> Result<u32> {
        let mut log = Log::new(self.folder.join(format!("{}.log", self.service)));
        let (command, limit) = match self.service {
            Service::Kafka => (self.broker().prepare()?, kafka::READY_WITHIN),
            Service::Toxiproxy => (toxiproxy::command(TOXIPROXY)?, toxiproxy::READY_WITHIN),
        };
        let mut child = process::spawn(&mut in_own_session(&command), &mut log)?;
        let is_ready = || match self.service {
            Service::Kafka => log.contains(broker::READY),
            Service::Toxiproxy => toxiproxy::is_ready(TOXIPROXY),
        };
        let started = fs::write(self.pid_file(), child.id().to_string())
            .map_err(anyhow::Error::from)
            .and_then(|()| wait_until_ready(&mut child, limit, &log, is_ready));
        started.inspect_err(|_| {
            end(&mut child);
            let _ = fs::remove_file(self.pid_file());
        })?;
        Ok(child.id())
    }

    fn broker(&self) -> broker::Broker {
        broker::Broker {
            port: KAFKA,
            controller_port: KAFKA_CONTROLLER,
            advertised: None,
            extra: Vec::new(),
            heap: kafka::HEAP.to_owned(),
            run: self.folder.clone(),
            data: self.folder.join("data"),
        }
    }
}

/// The same command by `setsid`, which keeps its process number: out of the reach of the terminal.
fn in_own_session(command: &Command) -> Command {
    let mut own = Command::new("setsid");
    own.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        own.current_dir(folder);
    }
    own
}
