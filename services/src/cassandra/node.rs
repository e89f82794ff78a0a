//! What a node is started with: its settings, its command line, and how it is known to be ready.
//!
//! Sized for a machine with two cores; three of them fit into 2 GB.

use crate::install::Service;
use crate::ports::local;
use crate::process::Log;
use crate::tools;
use anyhow::{Context, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitlogSync {
    /// When it is on the disk. The default here, though not Cassandra's own: a test that kills a node
    /// wants to find again whatever was acknowledged. Writes that come together share a sync.
    #[default]
    Batch,
    /// The same, but the syncs wait for each other's writes: fewer syncs, slower writes.
    Group {
        /// How long they wait.
        window_ms: u32,
    },
    /// At once; it comes to the disk later. Faster, and not even `kill -9` is survived by all that
    /// was acknowledged: a restart reads the log up to its last mark only, and marks are written by
    /// the clock.
    Periodic {
        /// From one sync to the next.
        period_ms: u32,
    },
}

impl CommitlogSync {
    fn yaml(self) -> String {
        match self {
            CommitlogSync::Batch => "commitlog_sync: batch\n".to_owned(),
            CommitlogSync::Group { window_ms } => {
                format!("commitlog_sync: group\ncommitlog_sync_group_window: {window_ms}ms\n")
            }
            CommitlogSync::Periodic { period_ms } => {
                format!("commitlog_sync: periodic\ncommitlog_sync_period: {period_ms}ms\n")
            }
        }
    }
}

/// A node that can be started.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: Ipv4Addr,
    /// For clients.
    pub(crate) port: u16,
    /// For the other nodes.
    pub(crate) storage_port: u16,
    /// For nodetool; of 127.0.0.1, whatever the node's address is.
    pub(crate) jmx_port: u16,
    /// Where its part of the ring ends. It is written down with the data: it cannot change.
    pub(crate) token: i64,
    /// All nodes of its cluster. A node that is named here starts also when no other one runs.
    pub(crate) seeds: Vec<Ipv4Addr>,
    pub(crate) commitlog_sync: CommitlogSync,
    pub(crate) extra: Vec<String>,
    pub(crate) heap: String,
    /// For settings and logs.
    pub(crate) run: PathBuf,
    pub(crate) data: PathBuf,
}

/// What it logs when clients can come.
const READY: &str = "Starting listening for CQL clients";

/// Its main class; processes are recognised by it.
pub(crate) const CLASS: &str = "org.apache.cassandra.service.CassandraDaemon";

impl Node {
    /// Installs Cassandra if it is absent, and writes the settings. Returns the command that runs the
    /// node.
    pub(crate) fn prepare(&self) -> Result<Command> {
        for folder in [&self.run, &self.data] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(self.settings(), self.cassandra_yaml())?;
        fs::write(self.run.join("logback.xml"), LOGBACK)?;
        let (mut command, jars) = self.java(&format!("{} {MEMORY}", self.heap))?;
        command.arg(format!("-javaagent:{}", agent(&jars)?.display()));
        command.args(FLAGS.split_whitespace());
        command.arg(format!("-Dcassandra.config=file://{}", self.settings().display()));
        command.arg(format!("-Dcassandra.storagedir={}", self.data.display()));
        command.arg(format!("-Dcassandra.logdir={}", self.run.display()));
        command.arg(format!("-Dcassandra.jmx.local.port={}", self.jmx_port));
        command.arg(CLASS);
        Ok(command)
    }

    /// Runs nodetool on it and returns what it prints.
    pub(crate) fn nodetool(&self, arguments: &[&str]) -> Result<String> {
        let (mut command, _) = self.java("-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1")?;
        // It keeps a history of commands in the home of the user.
        command.arg(format!("-Duser.home={}", self.run.display()));
        command.args(["org.apache.cassandra.tools.NodeTool", "-p", &self.jmx_port.to_string()]);
        tools::output(command.args(arguments))
    }

    pub(crate) fn is_ready(&self, log: &Log) -> bool {
        let second = Duration::from_secs(1);
        log.contains(READY) && TcpStream::connect_timeout(&self.cql().into(), second).is_ok()
    }

    /// Where clients come.
    pub(crate) fn cql(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    /// Where the other nodes come.
    pub(crate) fn storage(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.storage_port)
    }

    /// All that it listens on.
    pub(crate) fn listens_on(&self) -> [SocketAddrV4; 3] {
        [self.cql(), self.storage(), local(self.jmx_port)]
    }

    /// `java` with the flags that each of Cassandra's programs needs, and the folder of its jars.
    fn java(&self, memory: &str) -> Result<(Command, PathBuf)> {
        let java = tools::FOR_CASSANDRA.require()?;
        let jars = Service::Cassandra.install()?.join("lib");
        let mut command = Command::new(java);
        command.args(memory.split_whitespace()).arg("-cp").arg(jars.join("*"));
        for (option, packages) in [("--add-exports", EXPORTS), ("--add-opens", OPENS)] {
            for package in packages.split_whitespace() {
                command.args([option, &format!("{package}=ALL-UNNAMED")]);
            }
        }
        let logback = self.run.join("logback.xml");
        command.arg(format!("-Dlogback.configurationFile=file://{}", logback.display()));
        command.current_dir(&self.run);
        Ok((command, jars))
    }

    fn settings(&self) -> PathBuf {
        self.run.join("cassandra.yaml")
    }

    fn cassandra_yaml(&self) -> String {
        let Node { address, port, storage_port, token, .. } = self;
        let seed = |seed: &Ipv4Addr| format!("{seed}:{storage_port}");
        let seeds = self.seeds.iter().map(seed).collect::<Vec<_>>().join(",");
        let of_node = format!(
            "listen_address: {address}\n\
             rpc_address: {address}\n\
             native_transport_port: {port}\n\
             storage_port: {storage_port}\n\
             initial_token: '{token}'\n\
             seed_provider:\n\
             - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n  \
               parameters: [{{seeds: '{seeds}'}}]\n"
        );
        // Last, because the last of two lines for one setting counts.
        let extra = self.extra.iter().map(|line| format!("{line}\n")).collect::<String>();
        [FIXED, &of_node, &self.commitlog_sync.yaml(), &extra].concat()
    }
}

/// The jar that measures objects: it must be named, because it works as an agent.
fn agent(jars: &Path) -> Result<PathBuf> {
    let is_agent = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-"))
    };
    let mut files = fs::read_dir(jars)?.flatten().map(|entry| entry.path());
    files.find(is_agent).with_context(|| format!("{} has no jamm: remove it", jars.display()))
}

const FIXED: &str = "\
cluster_name: marquee
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch

# Each node has one fixed part of the ring, and there is nothing that it could fetch at its start.
num_tokens: 1
auto_bootstrap: false

# Nobody keeps what was dropped.
auto_snapshot: false

# A disk that fails is an error for clients, not the end of the process.
disk_failure_policy: stop
commit_failure_policy: stop

# A small machine.
commitlog_segment_size: 8MiB
commitlog_total_space: 128MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
key_cache_size: 8MiB
counter_cache_size: 4MiB
file_cache_size: 32MiB
networking_cache_size: 32MiB
concurrent_reads: 8
concurrent_writes: 8
concurrent_counter_writes: 4
concurrent_compactors: 1
native_transport_max_threads: 32

# A node that was killed is missed sooner.
phi_convict_threshold: 6
dynamic_snitch: false

# The newest formats on disk.
storage_compatibility_mode: NONE

";

/// Outside of the heap, and for the threads. A node that has too little ends, and does not limp.
const MEMORY: &str = "-XX:+UseG1GC -XX:MaxDirectMemorySize=256m -Xss384k \
                      -XX:+PerfDisableSharedMem -XX:+ExitOnOutOfMemoryError";

/// Loopback needs no settling: a node starts in seconds, not in a minute. The delay of the superuser
/// is also the pause between attempts to make it: with none, a node whose neighbours are away tries
/// without end, and fills the disk with log.
const FLAGS: &str = "\
-Djava.net.preferIPv4Stack=true -Djdk.attach.allowAttachSelf=true \
-Dio.netty.tryReflectionSetAccessible=true -Dcassandra-foreground=yes \
-Dcassandra.ring_delay_ms=100 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
-Dcassandra.superuser_setup_delay_ms=500 -Dcassandra.skip_schema_check=true \
-Dcassandra.consistent.rangemovement=false -Dcassandra.disable_tcactive_openssl=true";

/// Of Java itself, where Cassandra reaches in.
const EXPORTS: &str = "\
java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch \
java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry \
java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc";

const OPENS: &str = "\
java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref \
java.base/jdk.internal.reflect java.base/jdk.internal.math java.base/jdk.internal.module \
java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal java.base/sun.nio.ch \
java.base/java.io java.base/java.lang java.base/java.lang.reflect java.base/java.util \
java.base/java.util.concurrent java.base/java.util.concurrent.atomic java.base/java.nio \
java.base/java.net";

/// To the standard error, which nodetool's answer does not use.
const LOGBACK: &str = r#"<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"#;
