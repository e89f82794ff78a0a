//! Three nodes that are one cluster, each with a third of the ring.
//!
//! A node that listens to clients is not enough: until it and the others see each other, QUORUM
//! fails. So each node that starts waits for those that run.

use super::node::Node;
use super::{Cassandra, CassandraOptions};
use crate::ports::free_port;
use crate::process::Log;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddrV4};

/// How many nodes there are: with three copies two are a quorum, and one may be away.
pub(crate) const NODES: usize = 3;

/// Thirds of the ring, from its begin.
pub(crate) const TOKENS: [i64; NODES] =
    [i64::MIN, -3_074_457_345_618_258_603, 3_074_457_345_618_258_602];

/// What a node must know of its cluster.
pub(crate) struct Place {
    pub(crate) storage_port: u16,
    pub(crate) token: i64,
    pub(crate) seeds: Vec<Ipv4Addr>,
}

/// A node that runs while another one starts.
pub(crate) struct Witness {
    pub(crate) storage: SocketAddrV4,
    /// What it has logged since then.
    pub(crate) log: Log,
}

/// Whether a node that starts and those that run have said so of each other.
pub(crate) fn see_each_other(node: &Node, log: &Log, witnesses: &[Witness]) -> bool {
    let is_up = |address: SocketAddrV4| format!("/{address} is now UP");
    witnesses.iter().all(|witness| {
        log.contains(&is_up(witness.storage)) && witness.log.contains(&is_up(node.storage()))
    })
}

/// The addresses of the nodes, from the first one on.
pub(crate) fn addresses(first: Ipv4Addr) -> [Ipv4Addr; NODES] {
    [0, 1, 2].map(|step| Ipv4Addr::from_bits(first.to_bits() + step))
}

/// A cluster of three nodes. They are killed when this is dropped, and when the process that holds
/// them dies.
#[derive(Debug)]
pub struct CassandraRing {
    nodes: [Cassandra; NODES],
}

impl CassandraRing {
    /// Installs Cassandra if it is absent, starts the nodes one after the other and waits until each
    /// sees the others. The address of the options is the first node's, the other two follow it; the
    /// port is the same for all; in the folder of the data each has one named after its address.
    ///
    /// Data of a ring remember the ports by which its nodes have met: they are only good for
    /// [`CassandraRing::start_again`], not for another ring.
    pub fn start(options: CassandraOptions) -> Result<CassandraRing> {
        let port = if options.port == 0 { free_port() } else { options.port };
        let storage_port = free_port();
        let seeds = addresses(options.address);
        let node = |index: usize| {
            let data = options.data.as_ref().map(|data| data.join(seeds[index].to_string()));
            let own = CassandraOptions { address: seeds[index], port, data, ..options.clone() };
            let place = Place { storage_port, token: TOKENS[index], seeds: seeds.to_vec() };
            Cassandra::new(own, place)
        };
        let mut ring = CassandraRing { nodes: [node(0)?, node(1)?, node(2)?] };
        ring.start_again()?;
        Ok(ring)
    }

    /// Starts the nodes that were killed or stopped, one after the other: each on its ports, with its
    /// data. Waits until each of them sees those that run, and they see it; one that is paused does
    /// not count.
    pub fn start_again(&mut self) -> Result<()> {
        for index in 0..NODES {
            let (before, rest) = self.nodes.split_at_mut(index);
            let Some((node, after)) = rest.split_first_mut() else { break };
            let others = before.iter().chain(after.iter());
            let running = others.filter(|other| other.server.is_some() && !other.is_paused);
            let witness = |other: &Cassandra| Witness {
                storage: other.node.storage(),
                log: other.log.rest(),
            };
            let witnesses: Vec<Witness> = running.map(witness).collect();
            node.start_among(&witnesses)?;
        }
        Ok(())
    }

    /// A node: 0, 1 or 2.
    pub fn node(&self, index: usize) -> &Cassandra {
        &self.nodes[index]
    }

    /// A node, to kill, stop, pause or resume it. [`CassandraRing::start_again`] starts it.
    pub fn node_mut(&mut self, index: usize) -> &mut Cassandra {
        &mut self.nodes[index]
    }

    /// Where clients come, node by node.
    pub fn addresses(&self) -> [SocketAddrV4; NODES] {
        [0, 1, 2].map(|index| self.nodes[index].address())
    }
}
