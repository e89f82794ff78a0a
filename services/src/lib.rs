//! Real servers for tests and for people: a [`Kafka`] broker, [`Cassandra`] with one node or three
//! ([`CassandraRing`]), an object store ([`S3`]), and [`Toxiproxy`], a proxy that makes connections
//! slow, cut or dead.
//!
//! Tests start their own, on free ports and in temporary folders; those go with the test, even if it
//! is killed. People start them by `cargo xtask services`, on fixed ports and with data that stays:
//! that is [`background`]. Neither needs a container engine: the servers are fetched from the
//! package registries of their languages, once, into the folder that [`home`] names.
//!
//! Everything listens on loopback only. Nothing of the product uses this crate.
//!
//! ```no_run
//! use marquee_services::{CassandraOptions, CassandraRing, S3, S3Options};
//! use marquee_services::{Kafka, KafkaOptions, Toxiproxy, free_port};
//!
//! # fn main() -> anyhow::Result<()> {
//! let before = free_port();
//! let advertised = Some(format!("127.0.0.1:{before}"));
//! let mut kafka = Kafka::start(KafkaOptions { advertised, ..KafkaOptions::default() })?;
//! let toxiproxy = Toxiproxy::start()?;
//! toxiproxy.proxy("kafka", before, &kafka.bootstrap())?;
//! toxiproxy.toxic("kafka", r#"{"type": "latency", "attributes": {"latency": 500}}"#)?;
//! kafka.kill();
//! kafka.start_again()?;
//!
//! let mut ring = CassandraRing::start(CassandraOptions::default())?;
//! ring.node_mut(2).kill();
//! ring.start_again()?;
//!
//! let s3 = S3::start(S3Options::default())?;
//! s3.bucket("cells")?;
//! # Ok(())
//! # }
//! ```

pub mod background;
mod cassandra;
mod home;
mod install;
mod kafka;
mod ports;
mod process;
mod s3;
mod tools;
mod toxiproxy;

pub use cassandra::node::CommitlogSync;
pub use cassandra::ring::CassandraRing;
pub use cassandra::{Cassandra, CassandraOptions};
pub use home::home;
pub use install::{
    Service, missing_for_cassandra, missing_for_kafka, missing_for_s3, missing_for_toxiproxy,
};
pub use kafka::{Kafka, KafkaOptions};
pub use ports::free_port;
pub use s3::{S3, S3Options};
pub use toxiproxy::Toxiproxy;
