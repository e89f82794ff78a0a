//! The store that the configuration names: a folder of this process, or Cassandra. Both are opened
//! here, for those who write and for those who only look.

use crate::commands::Failure;
use crate::config::{Config, Consistency, LogKind, StoreKind};
use crate::wiring;
use marquee_runtime::Plan;
use marquee_sinks::cassandra::cluster::{Cluster, ClusterError};
use marquee_sinks::cassandra::patience::{Patience, Waits};
use marquee_sinks::cassandra::session::{CassandraCluster, ClusterOptions, Tls};
use marquee_sinks::cassandra::{self, CassandraStore, StoreOptions};
use marquee_sinks::embedded::{EmbeddedStore, OWNER_FILE, StoreMemory};
use marquee_sinks::letters::LetterFolder;
use marquee_sinks::{Identity, Sink, SinkError, Store};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a store may be locked by somebody else before that is an error.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long a start waits for a cluster that does not answer.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(60);
/// And a command that only looks.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
const CLUSTER_PAUSE: Duration = Duration::from_secs(2);

/// The file in a process's folder that says whose it is, with Cassandra.
const FOLDER_NAME_FILE: &str = "name";
/// The file that is locked while a process has the folder, with Cassandra.
const FOLDER_LOCK_FILE: &str = "lock";

/// A store that is open for writing.
pub struct OpenStore {
    /// For the lanes, which wait for it.
    pub lanes: Arc<dyn Sink>,
    /// For people, who do not wait long.
    pub readers: Arc<dyn Store>,
    /// Where letters go.
    pub letters: LetterFolder,
    /// What the lanes wait with, with Cassandra.
    patience: Option<Arc<Waits>>,
    /// The process's folder, while it is its own.
    _lock: Option<File>,
}

impl OpenStore {
    /// The process wants to end: what fails from now on is not waited for longer than this.
    pub fn give_up_after(&self, time: Duration) {
        if let Some(patience) = &self.patience {
            patience.give_up_after(time);
        }
    }
}

/// A store that somebody wants to look at.
pub enum Look {
    /// It is open.
    Open(Arc<dyn Store>),
    /// A running service has it.
    InUse {
        /// What that means.
        error: SinkError,
        /// Where to ask the service.
        address: Option<String>,
    },
}

/// Opens the configured store for a service; makes it when there is none.
pub fn open(config: &Config, plan: &Plan) -> Result<OpenStore, Failure> {
    match config.store.kind {
        StoreKind::Embedded => {
            let store = Arc::new(open_embedded(config, plan)?);
            let letters = LetterFolder::new(config.store.path.clone());
            Ok(OpenStore {
                lanes: store.clone(),
                readers: store,
                letters,
                patience: None,
                _lock: None,
            })
        }
        StoreKind::Cassandra => open_cassandra(config, plan),
    }
}

/// A command that only looks at the store may have it for a moment, so a locked one is tried again.
fn open_embedded(config: &Config, plan: &Plan) -> Result<EmbeddedStore, Failure> {
    let identity = identity(plan);
    let memory = StoreMemory::of_process(config.runtime.memory_bytes);
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match EmbeddedStore::open(
            &config.store.path,
            &identity,
            config.store.members.in_store(),
            memory,
        ) {
            Err(SinkError::Locked { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other.map_err(failure),
        }
    }
}

fn open_cassandra(config: &Config, plan: &Plan) -> Result<OpenStore, Failure> {
    let lock = lock_folder(&config.store.path).map_err(failure)?;
    let folder_name = name_of_folder(&config.store.path).map_err(Failure::failed)?;
    let cluster = cluster(config, CLUSTER_PATIENCE)?;
    let (opening, patience) = (Waits::at_most(CLUSTER_PATIENCE), Arc::new(Waits::for_ever()));
    let writer: Arc<dyn Patience> = patience.clone();
    let (identity, options) = (identity(plan), options(config));
    let store = CassandraStore::open(cluster, &identity, options, &opening, writer);
    let store = store.map_err(failure)?;
    Ok(OpenStore {
        readers: Arc::new(store.with_patience(Arc::new(Waits::for_people()))),
        lanes: Arc::new(store),
        letters: LetterFolder::named(config.store.path.clone(), folder_name),
        patience: Some(patience),
        _lock: Some(lock),
    })
}

/// Opens the configured store to write into closed epochs; makes it when there is none. A service
/// may have a Cassandra one open meanwhile.
pub fn open_to_add(config: &Config, plan: &Plan) -> Result<Arc<dyn Store>, Failure> {
    match config.store.kind {
        StoreKind::Embedded => Ok(Arc::new(open_embedded(config, plan)?)),
        StoreKind::Cassandra => {
            let cluster = cluster(config, CLUSTER_PATIENCE)?;
            let patience = Arc::new(Waits::at_most(CLUSTER_PATIENCE));
            let (identity, options) = (identity(plan), options(config));
            let opening = patience.clone();
            let store = CassandraStore::open(cluster, &identity, options, &*opening, patience);
            Ok(Arc::new(store.map_err(failure)?))
        }
    }
}

/// Opens a store that is there, to look at it; makes none.
pub fn look(config: &Config, plan: &Plan) -> Result<Look, Failure> {
    let identity = identity_to_look(config, plan);
    match config.store.kind {
        StoreKind::Embedded => {
            let (path, members) = (&config.store.path, config.store.members.in_store());
            match EmbeddedStore::open_existing(path, &identity, members) {
                Ok(store) => Ok(Look::Open(Arc::new(store))),
                // Its address is only believed then, since a service that was killed leaves it.
                Err(error @ SinkError::Locked { .. }) => {
                    Ok(Look::InUse { error, address: owner(path) })
                }
                Err(error) => Err(failure(error)),
            }
        }
        StoreKind::Cassandra => {
            let cluster = cluster(config, LOOK_PATIENCE)?;
            let name = name(config);
            let patience = Arc::new(Waits::for_people());
            let lanes = CassandraStore::stored_lanes(&*cluster, &name, &*patience);
            if lanes.map_err(failure)?.is_none() {
                return Err(failure(SinkError::Absent { path: name }));
            }
            let options = options(config);
            let opening = patience.clone();
            let store = CassandraStore::open(cluster, &identity, options, &*opening, patience);
            Ok(Look::Open(Arc::new(store.map_err(failure)?)))
        }
    }
}

/// The number of lanes of the configured store; `None` where there is none.
pub fn stored_lanes(config: &Config) -> Result<Option<u32>, Failure> {
    match config.store.kind {
        StoreKind::Embedded => EmbeddedStore::stored_lanes(&config.store.path).map_err(failure),
        StoreKind::Cassandra => {
            let cluster = cluster(config, CLUSTER_PATIENCE)?;
            let patience = Waits::for_people();
            CassandraStore::stored_lanes(&*cluster, &name(config), &patience).map_err(failure)
        }
    }
}

/// Connects to Cassandra, and waits for it: it may be starting, too.
fn cluster(config: &Config, patience: Duration) -> Result<Arc<dyn Cluster>, Failure> {
    let options = cluster_options(config);
    let until = Instant::now() + patience;
    loop {
        match CassandraCluster::connect(&options) {
            Ok(cluster) => return Ok(Arc::new(cluster)),
            Err(ClusterError::Unavailable(error)) if Instant::now() < until => {
                let nodes = &config.store.cassandra.nodes;
                tracing::warn!("Cassandra at {nodes} does not answer: {error}. Trying on");
                std::thread::sleep(CLUSTER_PAUSE);
            }
            Err(error) => return Err(failure(cassandra::of_cluster(&name(config), error))),
        }
    }
}

/// Where Cassandra is, and how it is asked. Name and password of the environment win, so that they
/// need not stand in a file.
pub fn cluster_options(config: &Config) -> ClusterOptions {
    let of = &config.store.cassandra;
    let secret = |variable: &str, configured: &str| {
        std::env::var(variable).unwrap_or_else(|_| configured.to_owned())
    };
    let username = secret("MARQUEE_CASSANDRA_USERNAME", &of.username);
    let password = secret("MARQUEE_CASSANDRA_PASSWORD", &of.password.0);
    ClusterOptions {
        nodes: of.nodes.split(',').map(|node| node.trim().to_owned()).collect(),
        keyspace: of.keyspace.clone(),
        credentials: (!username.is_empty()).then_some((username, password)),
        datacenter: of.datacenter.clone(),
        consistency: match of.consistency {
            Consistency::LocalQuorum => cassandra::session::Consistency::LocalQuorum,
            Consistency::Quorum => cassandra::session::Consistency::Quorum,
            Consistency::All => cassandra::session::Consistency::All,
            Consistency::LocalOne => cassandra::session::Consistency::LocalOne,
            Consistency::One => cassandra::session::Consistency::One,
        },
        timeout: Duration::from_millis(of.timeout_ms as u64),
        in_flight: of.in_flight as usize,
        tls: of.tls.clone().map_or(Tls::Off, Tls::Trusting),
    }
}

/// What the store is called in messages.
pub fn name(config: &Config) -> String {
    let of = &config.store.cassandra;
    format!("{} (Cassandra at {})", of.keyspace, of.nodes)
}

fn options(config: &Config) -> StoreOptions {
    /// What a row takes in memory, about.
    const ROW_BYTES: u64 = 100;
    StoreOptions {
        name: name(config),
        buckets: config.store.cassandra.buckets,
        keeps_members: config.store.members.in_store(),
        members_retention_ms: config.store.members_go_after_ms(),
        retention_ms: config.store.retention_ms,
        clock: wiring::now_ms,
        first_part: wiring::random_words()[0] as i32,
        view_rows: (config.runtime.memory_bytes / 16 / ROW_BYTES) as usize,
    }
}

/// Takes a process's folder for it alone.
fn lock_folder(folder: &Path) -> Result<File, SinkError> {
    let path = folder.join(FOLDER_LOCK_FILE);
    let failed = |error: std::io::Error| SinkError::File {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed)?;
    let until = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = file.try_lock() {
        match error {
            std::fs::TryLockError::WouldBlock if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            std::fs::TryLockError::WouldBlock => {
                let owner = owner(folder).map(|a| format!(" ({a})")).unwrap_or_default();
                let path = folder.display().to_string();
                return Err(SinkError::Locked { path, owner });
            }
            std::fs::TryLockError::Error(error) => return Err(failed(error)),
        }
    }
    Ok(file)
}

/// A name that no other folder has, kept in it.
fn name_of_folder(folder: &Path) -> std::io::Result<String> {
    let path = folder.join(FOLDER_NAME_FILE);
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let name = format!("{:032x}", u128::from_le_bytes(wiring::secret()));
    let partial = folder.join(format!("{FOLDER_NAME_FILE}.partial"));
    std::fs::write(&partial, format!("{name}\n"))?;
    File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(name)
}

/// Address of the service that has a folder.
fn owner(folder: &Path) -> Option<String> {
    let owner = std::fs::read_to_string(folder.join(OWNER_FILE)).ok()?;
    let owner: serde_json::Value = serde_json::from_str(&owner).ok()?;
    owner["address"].as_str().map(str::to_owned)
}

/// What this process would count, for a command that only looks: with Kafka it takes the number of
/// lanes from the store and asks no broker.
fn identity_to_look(config: &Config, plan: &Plan) -> Identity {
    let mut identity = identity(plan);
    if config.log.kind == LogKind::Kafka {
        identity.lanes = None;
    }
    identity
}

/// What this process would count.
fn identity(plan: &Plan) -> Identity {
    Identity {
        settings: plan.fingerprint.clone(),
        lanes: Some(plan.lanes),
        epochs_ms: plan.settings.epochs_ms.clone(),
        new_id: new_generation_id(),
        new_secret: wiring::secret(),
    }
}

/// Time, so that ids sort by age, and random digits, so that no id is used twice.
fn new_generation_id() -> String {
    let random = u128::from_le_bytes(wiring::secret()) as u32;
    format!("{:011x}-{random:08x}", wiring::now_ms())
}

/// Settings that contradict the store are a wrong configuration, found before anything was done.
fn failure(error: SinkError) -> Failure {
    match error {
        SinkError::OtherGeneration { .. }
        | SinkError::OtherFormat { .. }
        | SinkError::NoTables { .. } => Failure::Usage(error.to_string()),
        other => Failure::failed(other),
    }
}
