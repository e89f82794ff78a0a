//! `marquee run`: the service.

use super::{ConfigArgument, Failure};
use crate::service::Service;
use std::io::Write;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let service = Service::start(&config)?;
        service.stop_on_signals()?;
        say_listening(service.address())?;
        service.wait()
    }
}

/// The first line on standard output: it is ready to accept.
pub(super) fn say_listening(address: SocketAddr) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")
        .and_then(|()| out.flush())
        .map_err(Failure::failed)
}
