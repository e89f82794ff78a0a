//! A Kafka broker of a test's own: real, on a free port, in a temporary folder.

pub(crate) mod broker;

use crate::ports::{ensure_free, free_port};
use crate::process::{Log, Server};
use anyhow::{Context, Result};
use broker::{Broker, READY};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// From the start to ready: 3 s on an idle machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(90);

pub(crate) const HEAP: &str = "-Xms256m -Xmx1g";

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Port of 127.0.0.1; 0 is a free one.
    pub port: u16,
    /// `host:port` that clients are told to come to, when a fault proxy stands before the broker.
    pub advertised: Option<String>,
    /// Folder of the data, formatted if it is new. `None` is a temporary one, which goes with the
    /// broker.
    pub data: Option<PathBuf>,
    /// More lines of `server.properties`. They win over the built-in ones.
    pub extra: Vec<String>,
    /// Flags of java for the memory.
    pub heap: String,
}

impl Default for KafkaOptions {
    fn default() -> KafkaOptions {
        let heap = HEAP.to_owned();
        KafkaOptions { port: 0, advertised: None, data: None, extra: Vec::new(), heap }
    }
}

/// A broker. It is killed when this is dropped, and when the process that holds it dies.
#[derive(Debug)]
pub struct Kafka {
    broker: Broker,
    log: Log,
    /// `None` after [`Kafka::kill`] and [`Kafka::stop`].
    server: Option<Server>,
    /// Settings, log, and the data if they have no other place. Dropped after the server.
    temporary: TempDir,
}

impl Kafka {
    /// Installs Kafka if it is absent, formats the storage if it is new, starts the broker and waits
    /// until it is ready. If it does not come up, the error has the end of its log.
    pub fn start(options: KafkaOptions) -> Result<Kafka> {
        let temporary = tempfile::Builder::new().prefix("marquee-kafka-").tempdir()?;
        let KafkaOptions { port, advertised, data, extra, heap } = options;
        let broker = Broker {
            port: if port == 0 { free_port() } else { port },
            controller_port: free_port(),
            advertised,
            extra,
            heap,
            run: temporary.path().to_owned(),
            data: data.unwrap_or_else(|| temporary.path().join("data")),
        };
        let log = Log::new(temporary.path().join("kafka.log"));
        let mut kafka = Kafka { broker, log, server: None, temporary };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// Starts a broker that was killed or stopped: on the same port, with the same data. One that
    /// runs is left alone.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let command = self.broker.prepare()?;
        for port in [self.broker.port, self.broker.controller_port] {
            ensure_free("kafka", port)?;
        }
        let mut server = Server::start(command, &mut self.log, self.temporary.path())?;
        let log = &self.log;
        let ready = server.wait_until_ready(READY_WITHIN, log, || log.contains(READY));
        ready.context("kafka does not start")?;
        self.server = Some(server);
        Ok(())
    }

    /// The address of the broker itself, also when clients are told another.
    pub fn bootstrap(&self) -> String {
        self.broker.bootstrap()
    }

    /// Its port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Its log, of all its starts.
    pub fn log(&self) -> &Path {
        self.log.path()
    }

    /// Kills it as `kill -9` does. It is gone when this returns.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Asks it to end and waits for that; after 20 s it is killed. It is gone when this returns.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    /// Stops it in the middle of what it does, with all its connections open, until
    /// [`Kafka::resume`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn pause(&self) {
        self.running().signal("STOP");
    }

    /// Lets it go on after [`Kafka::pause`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn resume(&self) {
        self.running().signal("CONT");
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the broker runs: it was not killed or stopped before")
    }
}
