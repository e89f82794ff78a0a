//! An object store of a test's own: S3 by versitygw, over a plain folder.
//!
//! It checks signatures, and of writers that put under a condition at the same time one wins. A
//! bucket is a folder and an object a file of the same path, hence there is no object `a` beside an
//! object `a/b`.

use crate::install::{Service, VERSITYGW_PROGRAM};
use crate::ports::{ensure_free, free_port};
use crate::process::{Log, Server};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// From the start to ready: 0.1 s on an idle machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);

/// How the object store is set up.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Port of 127.0.0.1; 0 is a free one.
    pub port: u16,
    /// Folder of the data. `None` is a temporary one, which goes with the store.
    pub data: Option<PathBuf>,
}

/// An object store. It is killed when this is dropped, and when the process that holds it dies.
#[derive(Debug)]
pub struct S3 {
    gateway: Gateway,
    log: Log,
    /// `None` after [`S3::kill`] and [`S3::stop`].
    server: Option<Server>,
    /// The log, and the data if they have no other place. Dropped after the server.
    temporary: TempDir,
}

impl S3 {
    /// The key that it knows.
    pub const ACCESS_KEY: &str = "test";
    /// The secret of the key.
    pub const SECRET_KEY: &str = "testtest";
    /// The region that signatures name.
    pub const REGION: &str = "us-east-1";

    /// Installs versitygw if it is absent, starts it and waits until it answers.
    pub fn start(options: S3Options) -> Result<S3> {
        let temporary = tempfile::Builder::new().prefix("marquee-s3-").tempdir()?;
        let port = if options.port == 0 { free_port() } else { options.port };
        let data = options.data.unwrap_or_else(|| temporary.path().join("data"));
        let log = Log::new(temporary.path().join("s3.log"));
        let mut s3 = S3 { gateway: Gateway { port, data }, log, server: None, temporary };
        s3.start_again()?;
        Ok(s3)
    }

    /// Starts a store that was killed or stopped: on the same port, with the same data. One that runs
    /// is left alone.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let command = self.gateway.prepare()?;
        ensure_free("s3", self.gateway.port)?;
        let mut server = Server::start(command, &mut self.log, self.temporary.path())?;
        let is_ready = || self.gateway.is_ready();
        let ready = server.wait_until_ready(READY_WITHIN, &self.log, is_ready);
        ready.context("s3 does not start")?;
        self.server = Some(server);
        Ok(())
    }

    /// Where clients come. The bucket is the first part of the path.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// Its port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.gateway.port
    }

    /// Makes a bucket, unless it is there: a folder, which this returns. The name has 3 to 63 small
    /// letters, digits, `-` and `.`: the store makes do with any folder, but refuses to serve others.
    pub fn bucket(&self, name: &str) -> Result<PathBuf> {
        let folder = self.gateway.buckets().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
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

    /// Stops it in the middle of what it does, with all its connections open, until [`S3::resume`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn pause(&self) {
        self.running().signal("STOP");
    }

    /// Lets it go on after [`S3::pause`].
    ///
    /// # Panics
    ///
    /// If it was killed or stopped.
    pub fn resume(&self) {
        self.running().signal("CONT");
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("the store runs: it was not killed or stopped before")
    }
}

/// A store that can be started.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) port: u16,
    pub(crate) data: PathBuf,
}

impl Gateway {
    /// Installs versitygw if it is absent, and makes the folders. Returns the command that runs it.
    pub(crate) fn prepare(&self) -> Result<Command> {
        let program = Service::S3.install()?.join(VERSITYGW_PROGRAM);
        // It compares them as they are written, and takes some relative ones for one another.
        let absolute = |folder: PathBuf| std::path::absolute(folder);
        let [buckets, accounts, versions] =
            [self.buckets(), self.data.join("accounts"), self.data.join("versions")];
        let mut command = Command::new(program);
        command.args(["--access", S3::ACCESS_KEY, "--secret", S3::SECRET_KEY]);
        command.args(["--region", S3::REGION, "--port", &self.address(), "--health", HEALTH]);
        for folder in [&buckets, &accounts, &versions] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        command.arg("--iam-dir").arg(absolute(accounts)?);
        // Without it a bucket cannot be told to keep old versions.
        command.args(["posix", "--versioning-dir"]).arg(absolute(versions)?);
        command.arg(absolute(buckets)?);
        Ok(command)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(1)));
        let agent: ureq::Agent = config.build().into();
        agent.get(format!("{}{HEALTH}", self.url())).call().is_ok()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// With the host, or it would listen for everybody.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn buckets(&self) -> PathBuf {
        self.data.join("buckets")
    }
}

/// Path that answers without a signature. No bucket can be called so.
const HEALTH: &str = "/health";
