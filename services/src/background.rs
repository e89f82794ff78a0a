//! Servers for people: they go on when the command that started them has ended, listen on fixed
//! ports, and keep their data.

mod process;

use crate::cassandra::{self, node, ring};
use crate::home::{home, lock};
use crate::install::Service;
use crate::kafka::{self, broker};
use crate::s3::Gateway;
use anyhow::{Context, Result};
use process::{Kind, Process};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

const KAFKA: u16 = 19_092;
const KAFKA_CONTROLLER: u16 = 19_093;
const TOXIPROXY: u16 = 8_474;
const CASSANDRA: u16 = 9_042;
const CASSANDRA_STORAGE: u16 = 7_000;
const CASSANDRA_JMX: u16 = 7_199;
const S3: u16 = 19_000;

/// Starts a server, unless it runs, and waits until it is ready. Returns what happened, in a line.
pub fn up(service: Service) -> Result<String> {
    let folder = folder(service)?;
    let _lock = lock(&folder, service.name())?;
    let processes = processes(service, &folder);
    let missing: Vec<&Process> = processes.iter().filter(|one| one.running().is_none()).collect();
    if missing.is_empty() {
        return Ok(format!("{service}: already running, {}", words(service, &processes)));
    }
    for process in &missing {
        process.ensure_free()?;
    }
    for process in missing {
        process.start(&processes).with_context(|| format!("{service} does not start"))?;
    }
    Ok(format!("{service}: ready, {}", words(service, &processes)))
}

/// Ends a server that [`up`] has started; its data stay. Returns what happened, in a line.
pub fn down(service: Service) -> Result<String> {
    let folder = folder(service)?;
    let _lock = lock(&folder, service.name())?;
    let processes = processes(service, &folder);
    let pids = pids(&processes);
    if pids.is_empty() {
        return Ok(format!("{service}: not running"));
    }
    // All at once: a node of Cassandra takes its time.
    std::thread::scope(|scope| {
        let ends: Vec<_> = processes.iter().map(|one| scope.spawn(|| one.stop())).collect();
        let ended = ends.into_iter().map(|end| end.join().expect("stopping does not panic"));
        ended.collect::<Result<()>>()
    })?;
    Ok(format!("{service}: stopped, was {pids}"))
}

fn folder(service: Service) -> Result<PathBuf> {
    Ok(home()?.join("background").join(service.name()))
}

fn words(service: Service, processes: &[Process]) -> String {
    let address = match service {
        Service::Kafka => format!("bootstrap 127.0.0.1:{KAFKA}"),
        Service::Toxiproxy => format!("http://127.0.0.1:{TOXIPROXY}"),
        Service::Cassandra => format!("CQL 127.0.0.1:{CASSANDRA}"),
        Service::Cassandra3 => format!("CQL 127.0.0.1 to 127.0.0.3, port {CASSANDRA}"),
        Service::S3 => format!(
            "http://127.0.0.1:{S3}, path style, key {}, secret {}",
            crate::S3::ACCESS_KEY,
            crate::S3::SECRET_KEY
        ),
    };
    format!("{}, {address}", pids(processes))
}

/// `pid 7` or `pid 7, 8, 9`; empty if none of them runs.
fn pids(processes: &[Process]) -> String {
    let pids = processes.iter().filter_map(Process::running);
    let pids = pids.map(|pid| pid.to_string()).collect::<Vec<_>>().join(", ");
    if pids.is_empty() { pids } else { format!("pid {pids}") }
}

/// What a server consists of, in the order in which it starts.
fn processes(service: Service, folder: &Path) -> Vec<Process> {
    let process = |kind| Process { service, folder: folder.to_owned(), kind };
    match service {
        Service::Kafka => vec![process(Kind::Kafka(kafka(folder)))],
        Service::Toxiproxy => vec![process(Kind::Toxiproxy { port: TOXIPROXY })],
        Service::S3 => vec![process(Kind::S3(Gateway { port: S3, data: folder.join("data") }))],
        Service::Cassandra => {
            let seeds = vec![Ipv4Addr::LOCALHOST];
            vec![process(Kind::Cassandra(cassandra(folder, Ipv4Addr::LOCALHOST, 0, seeds)))]
        }
        Service::Cassandra3 => {
            let seeds = ring::addresses(Ipv4Addr::LOCALHOST);
            let nodes = seeds.into_iter().zip(ring::TOKENS).map(|(address, token)| {
                let folder = folder.join(address.to_string());
                let node = cassandra(&folder, address, token, seeds.to_vec());
                Process { service, folder, kind: Kind::Cassandra(node) }
            });
            nodes.collect()
        }
    }
}

fn kafka(folder: &Path) -> broker::Broker {
    broker::Broker {
        port: KAFKA,
        controller_port: KAFKA_CONTROLLER,
        advertised: None,
        extra: Vec::new(),
        heap: kafka::HEAP.to_owned(),
        run: folder.to_owned(),
        data: folder.join("data"),
    }
}

fn cassandra(folder: &Path, address: Ipv4Addr, token: i64, seeds: Vec<Ipv4Addr>) -> node::Node {
    let number = u16::from(address.octets()[3]) - 1;
    node::Node {
        address,
        port: CASSANDRA,
        storage_port: CASSANDRA_STORAGE,
        jmx_port: CASSANDRA_JMX + number,
        token,
        seeds,
        commitlog_sync: node::CommitlogSync::default(),
        extra: Vec::new(),
        heap: cassandra::HEAP.to_owned(),
        run: folder.to_owned(),
        data: folder.join("data"),
    }
}
