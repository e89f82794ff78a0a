//! A running service: the log, the store, the owners of the lanes, and HTTP in front of them.

use crate::commands::Failure;
use crate::config::{Config, Fault, LogKind};
use crate::log::{self, Log};
use crate::wiring;
use marquee_runtime::SystemClock;
use marquee_runtime::lanes::{Lanes, LanesSettings, SnapshotsSettings, StateFolder, StateMemory};
use marquee_runtime::sealer::{Sealer, SealerSettings};
use marquee_runtime::{open_files, pages};
use marquee_server::Parts;
use marquee_sinks::embedded::{EmbeddedStore, OWNER_FILE, StoreMemory};
use marquee_sinks::lake::SealingSettings;
use marquee_sinks::letters::LetterFolder;
use marquee_sinks::snapshots::SnapshotFolder;
use marquee_sinks::{Identity, SinkError, Store};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long a store may be locked by somebody else before that is an error.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A service that has been started.
pub struct Service {
    address: SocketAddr,
    lanes: Lanes,
    runtime: tokio::runtime::Runtime,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: Arc<watch::Sender<Option<Stop>>>,
    store: EmbeddedStore,
    /// `None` where there is no lake.
    sealer: Option<Sealer>,
}

/// Why a service stops.
#[derive(Clone, Debug)]
enum Stop {
    /// Somebody asked.
    Asked,
    /// An owner failed.
    Failed(String),
}

/// Asks a service to stop; can be sent to other threads.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<Option<Stop>>>);

impl Stopper {
    /// The service finishes its batch, commits, and ends.
    pub fn stop(&self) {
        self.0.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(Stop::Asked);
            first
        });
    }
}

impl Service {
    /// Starts everything that the configuration names, and listens.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        open_files::raise_limit();
        pages::stay_small();
        let plan = wiring::plan(config)?;
        refuse_unbuilt(config)?;
        // The embedded log must not be made where the store refuses; Kafka says how many lanes
        // there are.
        let (plan, cluster) = log::connect(config, plan)?;
        let store = open_store(config, &plan)?;
        let plan = Arc::new(plan);
        let log = Log::open(config, &plan, cluster)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failure::failed)?;
        let listen = config.http.listen;
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(|error| {
            let words =
                "stop what listens there, or change [http] listen (port 0 takes a free one)";
            Failure::Failed(format!("cannot listen on {listen}: {error}; {words}"))
        })?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        let (stop, stopped) = watch::channel(None);
        let stop = Arc::new(stop);
        let sealer = start_sealer(config, &store, &stop)?;
        let lanes = start_lanes(config, &plan, &log, &store, &stop)?;
        let parts = Parts {
            plan,
            log: log.appender(),
            store: Arc::new(store.clone()),
            status: lanes.status().clone(),
            lake: sealer.as_ref().map(|sealer| sealer.status().clone()),
            max_body_bytes: config.collector.max_body_bytes,
            clock: wiring::now_ms,
        };
        let server = marquee_server::serve(listener, marquee_server::router(parts), wait(stopped));
        let server = runtime.spawn(server);
        write_owner(&store, address)?;
        Ok(Service { address, lanes, runtime, server, stop, store, sealer })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Stops on SIGTERM and SIGINT.
    pub fn stop_on_signals(&self) -> Result<(), Failure> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals =
            signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(Failure::failed)?;
        let stopper = self.stopper();
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                stopper.stop();
            }
        });
        Ok(())
    }

    /// Waits until it is asked to stop (then everything accepted is committed) or fails.
    pub fn wait(self) -> Result<(), Failure> {
        let mut stopped = self.stop.subscribe();
        let reason = self.runtime.block_on(async {
            match stopped.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone(),
                Err(_) => None,
            }
        });
        let served = self.runtime.block_on(self.server);
        let _ = std::fs::remove_file(self.store.path().join(OWNER_FILE));
        if let Some(sealer) = self.sealer {
            sealer.stop();
        }
        if let Some(Stop::Failed(reason)) = reason {
            return Err(Failure::Failed(reason));
        }
        self.lanes.stop().map_err(Failure::failed)?;
        match served {
            Ok(result) => result.map_err(Failure::failed),
            Err(panic) => Err(Failure::failed(panic)),
        }
    }
}

/// Opens the configured store; makes it when there is none. A command that only looks at it may
/// have it for a moment, so a locked one is tried again.
pub fn open_store(config: &Config, plan: &marquee_runtime::Plan) -> Result<EmbeddedStore, Failure> {
    let identity = identity(plan);
    let memory = StoreMemory::of_process(config.runtime.memory_bytes);
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match EmbeddedStore::open(&config.store.path, &identity, config.store.members, memory) {
            Err(SinkError::Locked { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other.map_err(store_failure),
        }
    }
}

/// What this process would count, for a command that only looks: with Kafka it takes the number of
/// lanes from the store and asks no broker.
pub fn identity_to_look(config: &Config, plan: &marquee_runtime::Plan) -> Identity {
    let mut identity = identity(plan);
    if config.log.kind == LogKind::Kafka {
        identity.lanes = None;
    }
    identity
}

/// What this process would count.
pub fn identity(plan: &marquee_runtime::Plan) -> Identity {
    Identity {
        settings: plan.fingerprint.clone(),
        lanes: Some(plan.lanes),
        epochs_ms: plan.settings.epochs_ms.clone(),
        new_id: new_generation_id(),
        new_secret: wiring::secret(),
    }
}

/// Settings that contradict the store are a wrong configuration, found before anything was done.
pub fn store_failure(error: SinkError) -> Failure {
    match error {
        SinkError::OtherGeneration { .. } | SinkError::OtherFormat { .. } => {
            Failure::Usage(error.to_string())
        }
        other => Failure::failed(other),
    }
}

/// What the configuration can say, but this version does not do.
pub fn unbuilt(config: &Config) -> Vec<Fault> {
    let fault = |key: &str, found: &str, expected: &str, example: &str| {
        config.fault_at(config.line_of(key), key, found, expected, example)
    };
    let mut faults = Vec::new();
    if config.store.retention_ms.is_some() {
        let expected = "\"\" (everything is kept; retention comes with a later version)";
        faults.push(fault("store.retention", "a duration", expected, "\"\""));
    }
    faults
}

/// Refuses what this version does not do, instead of doing something else.
pub fn refuse_unbuilt(config: &Config) -> Result<(), Failure> {
    let faults = unbuilt(config);
    if faults.is_empty() { Ok(()) } else { Err(Failure::Config(faults)) }
}

/// Time, so that ids sort by age, and random digits, so that no id is used twice.
fn new_generation_id() -> String {
    let random = u128::from_le_bytes(wiring::secret()) as u32;
    format!("{:011x}-{random:08x}", wiring::now_ms())
}

fn start_lanes(
    config: &Config,
    plan: &Arc<marquee_runtime::Plan>,
    log: &Log,
    store: &EmbeddedStore,
    stop: &Arc<watch::Sender<Option<Stop>>>,
) -> Result<Lanes, Failure> {
    let settings = LanesSettings {
        name: LanesSettings::name_of(plan),
        plan: plan.clone(),
        secret: store.generation().secret,
        checks_partitions: config.log.kind == LogKind::Kafka,
        topic_ids: log.topic_ids(),
        batch_interval: Duration::from_millis(config.runtime.batch_interval_ms as u64),
        batch_events: wiring::batch_events(config, plan),
        memory: StateMemory::new(
            wiring::state_bytes(config),
            Arc::new(StateFolder::new(store.path().join("state"))),
        ),
        letters: Arc::new(LetterFolder::new(store.path().to_owned())),
        clock: Arc::new(SystemClock::new(wiring::now_ms)),
        snapshots: snapshots(config, store),
    };
    let stop = stop.clone();
    let on_failure = move |reason: &str| {
        stop.send_replace(Some(Stop::Failed(reason.to_owned())));
    };
    let sources = log.sources(wiring::threads(config))?;
    Ok(Lanes::start(&settings, sources, Arc::new(store.clone()), on_failure))
}

/// Brings closed epochs into the lake, where there is one.
fn start_sealer(
    config: &Config,
    store: &EmbeddedStore,
    stop: &Arc<watch::Sender<Option<Stop>>>,
) -> Result<Option<Sealer>, Failure> {
    let Some(settings) = sealer_settings(config) else { return Ok(None) };
    let stop = stop.clone();
    let on_failure = move |reason: &str| {
        stop.send_replace(Some(Stop::Failed(reason.to_owned())));
    };
    let sealer = Sealer::start(settings, Arc::new(store.clone()), on_failure);
    Ok(Some(sealer.map_err(Failure::failed)?))
}

/// How the lake is written; `None` where there is none.
pub fn sealer_settings(config: &Config) -> Option<SealerSettings> {
    let lake = &config.lake;
    Some(SealerSettings {
        place: lake.place.clone()?,
        sealing: SealingSettings {
            file_bytes: lake.file_bytes as usize,
            span_ms: lake.file_span_ms,
            memory_bytes: wiring::sealer_bytes(config),
            ..SealingSettings::default()
        },
        letters: lake.letters.then(|| config.store.path.clone()),
        interval: Duration::from_millis(lake.interval_ms as u64),
        now_ms: wiring::now_ms,
    })
}

/// Beside the store whose counts they go with.
fn snapshots(config: &Config, store: &EmbeddedStore) -> Option<SnapshotsSettings> {
    let interval_ms = config.snapshots.interval_ms;
    (interval_ms > 0).then(|| SnapshotsSettings {
        place: Arc::new(SnapshotFolder::new(store.path().join("snapshots"))),
        interval: Duration::from_millis(interval_ms as u64),
    })
}

async fn wait(mut stopped: watch::Receiver<Option<Stop>>) {
    // An error means that the sender is gone, and with it the service.
    let _ = stopped.wait_for(Option::is_some).await;
}

/// Tells commands that find the store in use where to ask instead.
fn write_owner(store: &EmbeddedStore, address: SocketAddr) -> Result<(), Failure> {
    let owner = serde_json::json!({
        "address": format!("http://{address}"),
        "pid": std::process::id(),
    });
    std::fs::write(store.path().join(OWNER_FILE), owner.to_string()).map_err(Failure::failed)
}
