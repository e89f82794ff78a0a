//! What a broker is started with: its settings, its formatted storage, its command line.
//!
//! One node that is broker and controller at once (KRaft), sized for a machine with two cores.

use crate::install::Service;
use crate::tools;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A broker that can be started.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
    /// `host:port` that clients are told.
    pub(crate) advertised: Option<String>,
    pub(crate) extra: Vec<String>,
    pub(crate) heap: String,
    /// For settings and logs.
    pub(crate) run: PathBuf,
    pub(crate) data: PathBuf,
}

/// What it logs when clients can come.
pub(crate) const READY: &str = "Kafka Server started";

/// Its main class; processes are recognised by it.
pub(crate) const CLASS: &str = "kafka.Kafka";

impl Broker {
    /// Installs Kafka if it is absent, writes the settings, formats the storage if it is new.
    /// Returns the command that runs the broker.
    pub(crate) fn prepare(&self) -> Result<Command> {
        let java = tools::FOR_KAFKA.require()?;
        let jars = Service::Kafka.install()?.join("lib/*");
        for folder in [&self.run, &self.data] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(self.settings(), self.server_properties())?;
        fs::write(self.run.join("log4j2.xml"), LOG4J)?;
        let java_with = |flags: &str| {
            let mut command = Command::new(&java);
            let log4j = format!("-Dlog4j2.configurationFile={}/log4j2.xml", self.run.display());
            command.args(flags.split_whitespace()).arg("-cp").arg(&jars).arg(log4j);
            command.arg("-Djava.awt.headless=true").current_dir(&self.run);
            command
        };
        if !self.data.join("meta.properties").exists() {
            let mut format = java_with("-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1");
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]);
            tools::run(format.arg(self.settings())).context("cannot format Kafka's storage")?;
        }
        let mut command = java_with(&format!("{} -XX:+UseG1GC", self.heap));
        command.arg(CLASS).arg(self.settings());
        Ok(command)
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn settings(&self) -> PathBuf {
        self.run.join("server.properties")
    }

    fn server_properties(&self) -> String {
        let controller = format!("127.0.0.1:{}", self.controller_port);
        let listener = self.bootstrap();
        let advertised = self.advertised.as_ref().unwrap_or(&listener);
        let addresses = format!(
            "controller.quorum.voters=1@{controller}\n\
             listeners=PLAINTEXT://{listener},CONTROLLER://{controller}\n\
             advertised.listeners=PLAINTEXT://{advertised}\n\
             log.dirs={}\n",
            self.data.display()
        );
        // Last, because the last of two lines for one setting counts.
        let extra = self.extra.iter().map(|line| format!("{line}\n")).collect::<String>();
        [FIXED, &addresses, &extra].concat()
    }
}

/// Any value does: no two of these brokers ever meet.
const CLUSTER: &str = "bWFycXVlZS1zZXJ2aWNlcw";

const FIXED: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT

# Topics are made on purpose, never by a typing error.
auto.create.topics.enable=false
num.partitions=1

# There is no second node.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A small machine, and nobody who waits.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=33554432
group.initial.rebalance.delay.ms=0

# After kill -9 the broker may come back only when its own controller has missed it for so long:
# by default 9 s, and then every start after kill takes 11 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=300

# Generated events are years old; they must not be deleted for that.
log.retention.ms=-1

";

/// It must not close when the process is asked to end: the broker has more to say.
const LOG4J: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Configuration shutdownHook="disable">
  <Appenders>
    <Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="info"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"#;
