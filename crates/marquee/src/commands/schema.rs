//! `marquee schema`: the tables of a Cassandra store. No other command makes any.

use super::{ConfigArgument, Failure};
use crate::config::StoreKind;
use crate::store;
use marquee_sinks::cassandra::{of_cluster, schema, session::CassandraCluster};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print the statements, as a script for cqlsh
    #[arg(long, group = "what")]
    print: bool,
    /// Make the keyspace and the tables that are not there; what is there stays as it is
    #[arg(long, group = "what")]
    apply: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        if config.store.kind != StoreKind::Cassandra {
            let line = config.line_of("store.kind");
            let (found, expected) = ("the embedded store, which has no schema", "a store with one");
            let example = "\"cassandra\"";
            let fault = config.fault_at(line, "store.kind", found, expected, example);
            return Err(Failure::Config(vec![fault]));
        }
        let of = &config.store.cassandra;
        if self.print {
            print!("{}", schema::script(&of.keyspace, &of.replication));
            return Ok(());
        }
        let statements = schema::statements(&of.keyspace, &of.replication);
        CassandraCluster::apply(&store::cluster_options(&config), &statements)
            .map_err(|error| Failure::failed(of_cluster(&store::name(&config), error)))?;
        eprintln!("{} is ready", store::name(&config));
        Ok(())
    }
}
