//! `marquee demo`: the service with simulated members, who send over HTTP like anybody else.
//!
//! Two processes, so that one of them can be killed before everybody's eyes:
//! - the [`supervisor`] holds the socket that is listened on, plays the [`members`], shows what rises
//!   on the [`screen`], and starts the processor again when it ends;
//! - the [`processor`] is the service itself: collector, log, lanes, store, pages. It takes
//!   connections from the supervisor's socket. While there is no processor they wait there.
//!
//! Both are the same program. Between them is a pair of connected sockets: the processor says a line
//! of JSON for each thing that the supervisor has to do ([`control`]); that the supervisor's end is
//! closed tells the processor to end.

mod control;
mod members;
mod processor;
mod screen;
mod supervisor;
mod topics;

pub(super) use processor::ProcessorArguments;

use super::Failure;
use crate::config::is_broker_list;
use marquee_model::parse_duration_ms;
use std::path::PathBuf;

/// The configuration of the demo, the same file that users can run and change.
const CONFIG: &str = include_str!("../../../../../examples/demo.toml");

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Port on this machine (0 takes a free one)
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// End after this time, for example 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration_ms)]
    for_ms: Option<i64>,
    /// Events a second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=200_000))]
    rate: u64,
    /// Keep log and store here (otherwise in a temporary folder that goes with the demo)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Use a Kafka as the log, in topics of the demo's own that go with it: kafka://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = brokers, conflicts_with = "data")]
    log: Option<String>,
}

/// The brokers of `kafka://HOST:PORT[,HOST:PORT...]`.
fn brokers(url: &str) -> Result<String, String> {
    let brokers = url.strip_prefix("kafka://").filter(|brokers| is_broker_list(brokers));
    brokers.map(str::to_owned).ok_or_else(|| {
        "write kafka://HOST:PORT, several with commas, for example kafka://127.0.0.1:19092"
            .to_owned()
    })
}

impl Arguments {
    pub(super) fn run(self, verbose: bool) -> Result<(), Failure> {
        supervisor::run(self, verbose)
    }
}
