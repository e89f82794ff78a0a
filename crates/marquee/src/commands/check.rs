//! `marquee check`: is the configuration right, and what does it mean?

use super::{ConfigArgument, Failure};
use crate::{service, wiring};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        wiring::plan(&config)?;
        print!("{}", config.summary());
        for fault in service::unbuilt(&config) {
            eprintln!("not in this version: {fault}");
        }
        Ok(())
    }
}
