//! `cargo xtask services`: real servers for people who try something, and for the tests of CI.
//!
//! Only the words of the command line; the servers are the business of `marquee-services`.

use anyhow::Result;
use clap::Subcommand;
use marquee_services::{Service, background};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start servers in the background, on fixed ports; installs what is missing
    Up(Services),
    /// Stop servers that were started by `up`; their data stay
    Down(Services),
    /// Only fetch what they need, into $MARQUEE_SERVICES_HOME (default ~/.cache/marquee-services)
    Install(Services),
}

#[derive(Debug, clap::Args)]
struct Services {
    /// kafka, toxiproxy, cassandra (one node), cassandra3 (three nodes), s3
    #[arg(required = true, value_name = "NAME")]
    services: Vec<Service>,
}

/// Does it for one server after the other, until one fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (services, act): (_, fn(Service) -> Result<String>) = match &arguments.what {
        What::Up(of) => (&of.services, background::up),
        What::Down(of) => (&of.services, background::down),
        What::Install(of) => (&of.services, install),
    };
    for service in services {
        println!("{}", act(*service)?);
    }
    Ok(())
}

fn install(service: Service) -> Result<String> {
    Ok(format!("{service}: installed in {}", service.install()?.display()))
}
