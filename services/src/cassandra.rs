//! Cassandra of a test's own: real, on free ports, in a temporary folder. One node here, three of
//! them in [`ring`].

pub(crate) mod node;
pub(crate) mod ring;

use crate::ports::{ensure_free_at, free_port};
use crate::process::{Log, Server};
use anyhow::{Context, Result};
use node::{CommitlogSync, Node};
use ring::Witness;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// From the start to ready: 6 s on an idle machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(120);

pub(crate) const HEAP: &str = "-Xms256m -Xmx512m -Xmn128m";

/// How a node is set up, or each of three.
#[derive(Clone, Debug)]
pub struct CassandraOptions {
    /// An address of loopback. All of 127.0.0.0/8 are there on Linux; macOS has to be told each.
    pub address: Ipv4Addr,
    /// Port for clients; 0 is a free one.
    pub port: u16,
    /// Folder of the data. `None` is a temporary one, which goes with the node.
    pub data: Option<PathBuf>,
    /// When a write is acknowledged.
    pub commitlog_sync: CommitlogSync,
    /// More lines of `cassandra.yaml`. They win over the built-in ones.
    pub extra: Vec<String>,
    /// Flags of java for the memory.
    pub heap: String,
}

impl Default for CassandraOptions {
    fn default() -> CassandraOptions {
        CassandraOptions {
            address: Ipv4Addr::LOCALHOST,
            port: 0,
            data: None,
            commitlog_sync: CommitlogSync::default(),
            extra: Vec::new(),
            heap: HEAP.to_owned(),
        }
    }
}

/// A node. It is killed when this is dropped, and when the process that holds it dies.
#[derive(Debug)]
pub struct Cassandra {
    node: Node,
    log: Log,
    /// `None` after [`Cassandra::kill`] and [`Cassandra::stop`].
    server: Option<Server>,
    /// Whether the server stands still: then it is no witness for other nodes.
    is_paused: bool,
    /// Settings, log, and the data if they have no other place. Dropped after the server.
    temporary: TempDir,
}

impl Cassandra {
    /// Installs Cassandra if it is absent, starts a node that is its own cluster and waits until
    /// clients can come. If it does not come up, the error has the end of its log.
    pub fn start(options: CassandraOptions) -> Result<Cassandra> {
        let address = options.address;
        let place = ring::Place { storage_port: free_port(), token: 0, seeds: vec![address] };
        let mut cassandra = Cassandra::new(options, place)?;
        cassandra.start_again()?;
        Ok(cassandra)
    }

    /// A node that does not run yet.
    fn new(options: CassandraOptions, place: ring::Place) -> Result<Cassandra> {
        let temporary = tempfile::Builder::new().prefix("marquee-cassandra-").tempdir()?;
        let CassandraOptions { address, port, data, commitlog_sync, extra, heap } = options;
        let node = Node {
            address,
            port: if port == 0 { free_port() } else { port },
            storage_port: place.storage_port,
            jmx_port: free_port(),
            token: place.token,
            seeds: place.seeds,
            commitlog_sync,
            extra,
            heap,
            run: temporary.path().to_owned(),
            data: data.unwrap_or_else(|| temporary.path().join("data")),
        };
        let log = Log::new(temporary.path().join("cassandra.log"));
        Ok(Cassandra { node, log, server: None, is_paused: false, temporary })
    }

    /// Starts a node that was killed or stopped: on the same ports, with the same data. One that
    /// runs is left alone. In a ring, [`ring::CassandraRing::start_again`] waits for the others, too.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_among(&[])
    }

    /// The same, and waits until the node and the witnesses see each other.
    fn start_among(&mut self, witnesses: &[Witness]) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let command = self.node.prepare()?;
        for address in self.node.listens_on() {
            ensure_free_at("cassandra", address)?;
        }
        let mut server = Server::start(command, &mut self.log, self.temporary.path())?;
        let (node, log) = (&self.node, &self.log);
        let is_ready = || node.is_ready(log) && ring::see_each_other(node, log, witnesses);
        let ready = server.wait_until_ready(READY_WITHIN, log, is_ready);
        ready.with_context(|| format!("cassandra does not start at {}", node.address))?;
        self.server = Some(server);
        self.is_paused = false;
        Ok(())
    }

    /// Where clients come.
    pub fn address(&self) -> SocketAddrV4 {
        self.node.cql()
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

    /// Runs nodetool on it (`&["flush"]`, `&["status"]`) and returns what it prints.
    pub fn nodetool(&self, arguments: &[&str]) -> Result<String> {
        self.node.nodetool(arguments)
    }

    /// Kills it as `kill -9` does. It is gone when this returns.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Asks it to end and waits for that, which takes some seconds; after 20 s it is killed. It is
    /// gone when this returns.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    /// Stops it in the middle of what it does, with all its connections open, until
    /// [`Cassandra::resume`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn pause(&mut self) {
        self.running().signal("STOP");
        self.is_paused = true;
    }

    /// Lets it go on after [`Cassandra::pause`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn resume(&mut self) {
        self.running().signal("CONT");
        self.is_paused = false;
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the node runs: it was not killed or stopped before")
    }
}
