//! A running service: the log, the store, the owners of the lanes, and HTTP in front of them.

use crate::archive;
use crate::commands::Failure;
use crate::config::{Config, Fault, LogKind, Pages, StoreKind};
use crate::log::{self, Log, LogAgain};
use crate::repair::Repairs;
use crate::store::{self, OpenStore};
use crate::wiring;
use marquee_runtime::archive::Archive;
use marquee_runtime::examples::{Examples, ExamplesSettings};
use marquee_runtime::lanes::{Lanes, LanesSettings, SnapshotsSettings, StateFolder, StateMemory};
use marquee_runtime::sealer::{Sealer, SealerSettings};
use marquee_runtime::status::StatusBoard;
use marquee_runtime::{Plan, SystemClock, history, open_files, pages};
use marquee_server::{Annotations, Demo, Parts, What};
use marquee_sinks::embedded::OWNER_FILE;
use marquee_sinks::lake::SealingSettings;
use marquee_sinks::snapshots::SnapshotFolder;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long a stop waits for a store that does not answer.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// A service that has been started.
pub struct Service {
    address: SocketAddr,
    lanes: Lanes,
    repairs: Option<Repairs>,
    runtime: tokio::runtime::Runtime,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: Arc<watch::Sender<Option<Stop>>>,
    store: OpenStore,
    /// What the process keeps for itself.
    folder: PathBuf,
    /// `None` where there is no lake.
    sealer: Option<Sealer>,
    /// `None` where no training examples are made.
    examples: Option<Examples>,
    /// `None` where raw events are not kept.
    archive: Option<Archive>,
    annotations: Arc<Annotations>,
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

/// What a service has from whoever starts it, besides its configuration.
#[derive(Default)]
pub struct Given {
    /// A socket that is listened on already; otherwise it binds the address of the configuration.
    pub listener: Option<std::net::TcpListener>,
    /// The buttons of the demo.
    pub demo: Option<Arc<dyn Demo>>,
}

impl Service {
    /// Starts everything that the configuration names, and listens.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        Service::start_given(config, Given::default())
    }

    /// The same with what it is given.
    pub fn start_given(config: &Config, given: Given) -> Result<Self, Failure> {
        open_files::raise_limit();
        pages::stay_small();
        let plan = wiring::plan(config)?;
        refuse_unbuilt(config)?;
        // The embedded log must not be made where the store refuses; Kafka says how many lanes
        // there are.
        let (plan, cluster) = log::connect(config, plan)?;
        let store = store::open(config, &plan)?;
        let plan = Arc::new(plan);
        let log = Log::open(config, &plan, cluster)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failure::failed)?;
        let listener = listen(config, given.listener, &runtime)?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        let (stop, stopped) = watch::channel(None);
        let stop = Arc::new(stop);
        let sealer = start_sealer(config, &store, &stop)?;
        let lanes = start_lanes(config, &plan, &log, &store, &stop)?;
        let fail = fail(&stop);
        let again = log.again().with_archive(config)?;
        let repairs = Repairs::start(
            config,
            &plan,
            again.clone(),
            store.readers.clone(),
            &lanes,
            fail.clone(),
        );
        let archive = archive::start(config, &plan, log.again(), &store.readers, &lanes, fail)?;
        let examples = start_examples(config, &plan, again, &store, &lanes, &stop)?;
        let ops = wiring::ops_settings(config, &plan);
        let annotations = ops.annotations.clone();
        let parts = Parts {
            plan,
            log: log.appender(),
            store: store.readers.clone(),
            status: lanes.status().clone(),
            lake: sealer.as_ref().map(|sealer| sealer.status().clone()),
            max_body_bytes: config.collector.max_body_bytes,
            collector: wiring::collector_settings(config),
            rank: wiring::rank_settings(config),
            member_pages: config.http.pages == Pages::Demo,
            ops,
            demo: given.demo,
            clock: wiring::now_ms,
        };
        runtime.spawn(keep_history(lanes.status().clone(), history_file(config)));
        let (router, names) = (marquee_server::router(parts), config.http.allowed_hosts.clone());
        let server =
            async move { marquee_server::serve(listener, router, &names, wait(stopped)).await };
        let server = runtime.spawn(server);
        let folder = config.store.path.clone();
        write_owner(&folder, address)?;
        Ok(Service {
            address,
            lanes,
            repairs,
            runtime,
            server,
            stop,
            store,
            folder,
            sealer,
            examples,
            archive,
            annotations,
        })
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
        if let Some(repairs) = self.repairs {
            repairs.stop();
        }
        if let Some(examples) = self.examples {
            examples.stop();
        }
        if let Some(archive) = self.archive {
            archive.stop();
        }
        if let Some(sealer) = self.sealer {
            sealer.stop();
        }
        let _ = std::fs::remove_file(self.folder.join(OWNER_FILE));
        self.store.give_up_after(LAST_PATIENCE);
        if let Some(Stop::Failed(reason)) = reason {
            return Err(Failure::Failed(reason));
        }
        let (status, history) = (self.lanes.status().clone(), self.folder.join(HISTORY));
        self.lanes.stop().map_err(Failure::failed)?;
        if let Err(error) = history::keep(&status, &history) {
            tracing::debug!("the history of batches is not kept: {error}");
        }
        self.annotations.add(What::Stop, "asked to end, and all is committed", wiring::now_ms());
        match served {
            Ok(result) => result.map_err(Failure::failed),
            Err(panic) => Err(Failure::failed(panic)),
        }
    }
}

/// How often the history of batches is written to its file: so much of it a crash loses.
const HISTORY_EVERY: Duration = Duration::from_secs(5);

/// Its name, beside the store.
const HISTORY: &str = "history.json";

fn history_file(config: &Config) -> PathBuf {
    config.store.path.join(HISTORY)
}

/// What operators look at outlives the process. Nothing else depends on it: what fails is logged.
async fn keep_history(status: Arc<StatusBoard>, file: PathBuf) {
    if let Err(error) = history::restore(&status, &file) {
        tracing::warn!("{}: the history of batches begins anew: {error}", file.display());
    }
    let mut ticks = tokio::time::interval(HISTORY_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (status, file) = (status.clone(), file.clone());
        let kept = tokio::task::spawn_blocking(move || history::keep(&status, &file)).await;
        if let Ok(Err(error)) = kept {
            tracing::debug!("the history of batches is not kept: {error}");
        }
    }
}

/// The socket that was given, or one at the address of the configuration.
fn listen(
    config: &Config,
    given: Option<std::net::TcpListener>,
    runtime: &tokio::runtime::Runtime,
) -> Result<TcpListener, Failure> {
    if let Some(listener) = given {
        listener.set_nonblocking(true).map_err(Failure::failed)?;
        let _within = runtime.enter();
        return TcpListener::from_std(listener).map_err(Failure::failed);
    }
    let listen = config.http.listen;
    runtime.block_on(TcpListener::bind(listen)).map_err(|error| {
        let words = "stop what listens there, or change [http] listen (port 0 takes a free one)";
        Failure::Failed(format!("cannot listen on {listen}: {error}; {words}"))
    })
}

/// What the configuration can say, but this version does not do.
pub fn unbuilt(config: &Config) -> Vec<Fault> {
    let fault = |key: &str, found: &str, expected: &str, example: &str| {
        config.fault_at(config.line_of(key), key, found, expected, example)
    };
    let mut faults = Vec::new();
    if config.store.retention_ms.is_some() && config.store.kind == StoreKind::Embedded {
        let expected = "\"\" (the embedded store keeps everything; Cassandra does what it says)";
        faults.push(fault("store.retention", "a duration", expected, "\"\""));
    }
    faults
}

/// Refuses what this version does not do, instead of doing something else.
pub fn refuse_unbuilt(config: &Config) -> Result<(), Failure> {
    let faults = unbuilt(config);
    if faults.is_empty() { Ok(()) } else { Err(Failure::Config(faults)) }
}

fn start_lanes(
    config: &Config,
    plan: &Arc<Plan>,
    log: &Log,
    store: &OpenStore,
    stop: &Arc<watch::Sender<Option<Stop>>>,
) -> Result<Lanes, Failure> {
    let settings = LanesSettings {
        name: LanesSettings::name_of(plan),
        plan: plan.clone(),
        secret: store.readers.generation().secret,
        checks_partitions: config.log.kind == LogKind::Kafka,
        topic_ids: log.topic_ids(),
        batch_interval: Duration::from_millis(config.runtime.batch_interval_ms as u64),
        batch_events: wiring::batch_events(config, plan),
        memory: StateMemory::new(
            wiring::state_bytes(config),
            Arc::new(StateFolder::new(config.store.path.join("state"))),
        ),
        letters: Arc::new(store.letters.clone()),
        clock: Arc::new(SystemClock::new(wiring::now_ms)),
        snapshots: snapshots(config),
    };
    let sources = log.sources(wiring::threads(config))?;
    Ok(Lanes::start(&settings, sources, store.lanes.clone(), fail(stop)))
}

/// Ends the service with a reason.
fn fail(stop: &Arc<watch::Sender<Option<Stop>>>) -> impl Fn(&str) + Send + Sync + Clone + 'static {
    let stop = stop.clone();
    move |reason: &str| {
        stop.send_replace(Some(Stop::Failed(reason.to_owned())));
    }
}

/// Brings closed epochs into the lake, where there is one.
fn start_sealer(
    config: &Config,
    store: &OpenStore,
    stop: &Arc<watch::Sender<Option<Stop>>>,
) -> Result<Option<Sealer>, Failure> {
    let Some(settings) = sealer_settings(config) else { return Ok(None) };
    let sealer = Sealer::start(settings, store.readers.clone(), fail(stop));
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
            deltas_ms: (lake.deltas_ms > 0).then_some(lake.deltas_ms),
            members: config.store.members.in_lake(),
            forget_after_ms: config.store.members_go_after_ms(),
            ..SealingSettings::default()
        },
        letters: lake.letters.then(|| config.store.path.clone()),
        interval: Duration::from_millis(lake.interval_ms as u64),
        now_ms: wiring::now_ms,
    })
}

/// How training examples are made; `None` where none are.
pub fn examples_settings(config: &Config, plan: &Arc<Plan>) -> Option<ExamplesSettings> {
    let lake = &config.lake;
    let place = lake.place.clone().filter(|_| lake.examples)?;
    Some(ExamplesSettings {
        plan: plan.clone(),
        place,
        span_ms: lake.file_span_ms,
        file_bytes: lake.file_bytes as usize,
        memory_bytes: wiring::sealer_bytes(config),
        negatives: f64::from(lake.negatives_ppm) / 1e6,
        interval: Duration::from_millis(lake.examples_interval_ms as u64),
        corrections_ms: lake.corrections_ms,
        now_ms: wiring::now_ms,
    })
}

/// Makes training examples, where that is wanted.
fn start_examples(
    config: &Config,
    plan: &Arc<Plan>,
    log: LogAgain,
    store: &OpenStore,
    lanes: &Lanes,
    stop: &Arc<watch::Sender<Option<Stop>>>,
) -> Result<Option<Examples>, Failure> {
    let Some(settings) = examples_settings(config, plan) else { return Ok(None) };
    let (plan, lanes_of, store) = (plan.clone(), store.readers.clone(), store.readers.clone());
    let open = move || {
        let events = log.events(&*lanes_of, &plan, 1);
        events.map_err(|failure| failure.lines().join("; "))
    };
    let status = lanes.status().clone();
    let examples = Examples::start(settings, store, Box::new(open), status, fail(stop));
    Ok(Some(examples.map_err(Failure::failed)?))
}

/// Beside the store whose counts they go with.
fn snapshots(config: &Config) -> Option<SnapshotsSettings> {
    let interval_ms = config.snapshots.interval_ms;
    (interval_ms > 0).then(|| SnapshotsSettings {
        place: Arc::new(SnapshotFolder::new(config.store.path.join("snapshots"))),
        interval: Duration::from_millis(interval_ms as u64),
    })
}

async fn wait(mut stopped: watch::Receiver<Option<Stop>>) {
    // An error means that the sender is gone, and with it the service.
    let _ = stopped.wait_for(Option::is_some).await;
}

/// Tells commands that find the store in use where to ask instead.
fn write_owner(folder: &Path, address: SocketAddr) -> Result<(), Failure> {
    let owner = serde_json::json!({
        "address": format!("http://{address}"),
        "pid": std::process::id(),
    });
    std::fs::write(folder.join(OWNER_FILE), owner.to_string()).map_err(Failure::failed)
}
