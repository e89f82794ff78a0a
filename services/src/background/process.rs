//! One process of a server in the background: known by its pid file, and by its command line,
//! because numbers are used again.

use crate::cassandra::ring::{self, Witness};
use crate::cassandra::{self, node::Node};
use crate::install::{Service, TOXIPROXY_PROGRAM, VERSITYGW_PROGRAM};
use crate::kafka::{self, broker};
use crate::ports::{ensure_free_at, local};
use crate::process::{self, Log, command_line, end, wait_until_ready};
use crate::{s3, toxiproxy};
use anyhow::{Result, ensure};
use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub(super) struct Process {
    pub(super) service: Service,
    /// Settings, log, pid and data.
    pub(super) folder: PathBuf,
    pub(super) kind: Kind,
}

/// What runs in it.
pub(super) enum Kind {
    Kafka(broker::Broker),
    Toxiproxy { port: u16 },
    Cassandra(Node),
    S3(s3::Gateway),
}

impl Process {
    /// Its number, if it runs.
    pub(super) fn running(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // A word of its own for each process that can run beside it.
        let (program, mark) = match &self.kind {
            Kind::Kafka(_) => (broker::CLASS, format!("{}/", self.folder.display())),
            Kind::Toxiproxy { port } => (TOXIPROXY_PROGRAM, format!("-port {port}")),
            Kind::Cassandra(_) => (cassandra::node::CLASS, format!("{}/", self.folder.display())),
            Kind::S3(gateway) => (VERSITYGW_PROGRAM, gateway.address()),
        };
        let line = command_line(pid)?;
        (line.contains(program) && line.contains(&mark)).then_some(pid)
    }

    /// An error if somebody else listens where it shall.
    pub(super) fn ensure_free(&self) -> Result<()> {
        let name = self.service.name();
        self.listens_on().into_iter().try_for_each(|address| ensure_free_at(name, address))
    }

    /// Starts it and waits until it is ready; in a ring, also until it and those of `all` that run
    /// see each other.
    pub(super) fn start(&self, all: &[Process]) -> Result<()> {
        let witnesses: Vec<Witness> = all.iter().filter_map(Process::witness).collect();
        let mut log = self.log();
        let mut child = process::spawn(&mut in_own_session(&self.prepare()?), &mut log)?;
        let is_ready = || self.is_ready(&log, &witnesses);
        let started = fs::write(self.pid_file(), child.id().to_string())
            .map_err(anyhow::Error::from)
            .and_then(|()| wait_until_ready(&mut child, self.ready_within(), &log, is_ready));
        started.inspect_err(|_| {
            end(&mut child);
            let _ = fs::remove_file(self.pid_file());
        })
    }

    /// Ends it, if it runs.
    pub(super) fn stop(&self) -> Result<()> {
        let Some(pid) = self.running() else { return Ok(()) };
        // A process that is killed frees its ports a little after its command line is gone.
        let is_gone = || self.running().is_none() && self.ensure_free().is_ok();
        ensure!(process::stop(pid, is_gone), "{}: pid {pid} does not end", self.service);
        Ok(fs::remove_file(self.pid_file())?)
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn log(&self) -> Log {
        Log::new(self.folder.join(format!("{}.log", self.service)))
    }

    fn witness(&self) -> Option<Witness> {
        match &self.kind {
            Kind::Cassandra(node) if self.running().is_some() => {
                Some(Witness { storage: node.storage(), log: self.log().rest() })
            }
            _ => None,
        }
    }

    fn listens_on(&self) -> Vec<SocketAddrV4> {
        match &self.kind {
            Kind::Kafka(broker) => vec![local(broker.port), local(broker.controller_port)],
            Kind::Toxiproxy { port } => vec![local(*port)],
            Kind::Cassandra(node) => node.listens_on().to_vec(),
            Kind::S3(gateway) => vec![local(gateway.port)],
        }
    }

    fn prepare(&self) -> Result<Command> {
        fs::create_dir_all(&self.folder)?;
        match &self.kind {
            Kind::Kafka(broker) => broker.prepare(),
            Kind::Toxiproxy { port } => toxiproxy::command(*port),
            Kind::Cassandra(node) => node.prepare(),
            Kind::S3(gateway) => gateway.prepare(),
        }
    }

    fn ready_within(&self) -> Duration {
        match &self.kind {
            Kind::Kafka(_) => kafka::READY_WITHIN,
            Kind::Toxiproxy { .. } => toxiproxy::READY_WITHIN,
            Kind::Cassandra(_) => cassandra::READY_WITHIN,
            Kind::S3(_) => s3::READY_WITHIN,
        }
    }

    fn is_ready(&self, log: &Log, witnesses: &[Witness]) -> bool {
        match &self.kind {
            Kind::Kafka(_) => log.contains(broker::READY),
            Kind::Toxiproxy { port } => toxiproxy::is_ready(*port),
            Kind::Cassandra(node) => {
                node.is_ready(log) && ring::see_each_other(node, log, witnesses)
            }
            Kind::S3(gateway) => gateway.is_ready(),
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
