//! Fetches servers from the registries of their languages: Kafka and Cassandra as jars by Maven,
//! toxiproxy and versitygw as modules by Go. What is there already is left alone.

use crate::home::{folder, home};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

const KAFKA: &str = "4.4.0";
/// Kafka brings no logger, and what it logs is how we know that it is ready.
const LOG4J: &str = "2.25.5";
const TOXIPROXY: &str = "2.5.0";
const CASSANDRA: &str = "5.0.9";
const VERSITYGW: &str = "1.8.0";

/// A server that this crate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The broker.
    Kafka,
    /// The fault proxy.
    Toxiproxy,
    /// One node of Cassandra.
    Cassandra,
    /// Three nodes of it, from the same files.
    Cassandra3,
    /// The object store: versitygw over a plain folder.
    S3,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 5] =
        [Service::Kafka, Service::Toxiproxy, Service::Cassandra, Service::Cassandra3, Service::S3];

    /// Fetches what is not there yet. Returns the folder that has it.
    pub fn install(self) -> Result<PathBuf> {
        let made = folder(&home()?, &self.folder_name(), |new| {
            eprintln!("{self}: installing (once)");
            match self {
                Service::Kafka => fetch_jars(new, self.name(), &KAFKA_JARS),
                Service::Cassandra | Service::Cassandra3 => {
                    fetch_jars(new, self.name(), &CASSANDRA_JARS)
                }
                Service::Toxiproxy => fetch_toxiproxy(new),
                Service::S3 => fetch_versitygw(new),
            }
        });
        made.with_context(|| format!("cannot install {self}"))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Kafka => "kafka",
            Service::Toxiproxy => "toxiproxy",
            Service::Cassandra => "cassandra",
            Service::Cassandra3 => "cassandra3",
            Service::S3 => "s3",
        }
    }

    fn folder_name(self) -> String {
        match self {
            Service::Kafka => format!("kafka-{KAFKA}"),
            Service::Toxiproxy => format!("toxiproxy-{TOXIPROXY}"),
            Service::Cassandra | Service::Cassandra3 => format!("cassandra-{CASSANDRA}"),
            Service::S3 => format!("versitygw-{VERSITYGW}"),
        }
    }

    fn is_installed(self) -> bool {
        home().is_ok_and(|home| home.join(self.folder_name()).is_dir())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Service> {
        let found = Service::ALL.into_iter().find(|service| service.name() == name);
        let names = || Service::ALL.map(Service::name).join(", ");
        found.with_context(|| format!("no service is called {name:?}: there are {}", names()))
    }
}

/// The tool that is missing on this machine to run Kafka, or `None`. Tests that start it ask this
/// first, and are skipped. Maven is not missed where Kafka is installed already.
pub fn missing_for_kafka() -> Option<String> {
    missing_to_run(Service::Kafka, &tools::FOR_KAFKA)
}

/// The tool that is missing on this machine to run Cassandra, one node or three, or `None`.
pub fn missing_for_cassandra() -> Option<String> {
    missing_to_run(Service::Cassandra, &tools::FOR_CASSANDRA)
}

/// The tool that is missing on this machine to run toxiproxy, or `None`.
pub fn missing_for_toxiproxy() -> Option<String> {
    missing_to_fetch(Service::Toxiproxy, "go")
}

/// The tool that is missing on this machine to run the object store, or `None`.
pub fn missing_for_s3() -> Option<String> {
    missing_to_fetch(Service::S3, "go")
}

fn missing_to_run(service: Service, java: &tools::JavaVersions) -> Option<String> {
    if java.find().is_none() {
        return Some(java.to_string());
    }
    missing_to_fetch(service, "mvn")
}

fn missing_to_fetch(service: Service, tool: &str) -> Option<String> {
    let is_missing = !service.is_installed() && tools::on_path(tool).is_none();
    is_missing.then(|| tool.to_owned())
}

/// Group, name and version of what Maven fetches; what it depends on comes along.
type Jar = (&'static str, &'static str, &'static str);

const KAFKA_JARS: [Jar; 2] = [
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
];
const CASSANDRA_JARS: [Jar; 1] = [("org.apache.cassandra", "cassandra-all", CASSANDRA)];

/// A server and all that it needs as jars in `lib`.
fn fetch_jars(new: &Path, name: &str, jars: &[Jar]) -> Result<()> {
    let Some(mvn) = tools::on_path("mvn") else { bail!("mvn is missing: install Maven") };
    let pom = new.join("pom.xml");
    std::fs::write(&pom, pom_xml(name, jars))?;
    let mut command = Command::new(mvn);
    command.args(["-q", "-B", "-f"]).arg(pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    tools::run(command.arg(format!("-DoutputDirectory={}", new.join("lib").display())))
}

fn pom_xml(name: &str, jars: &[Jar]) -> String {
    let dependency = |(group, artifact, version): &Jar| {
        format!(
            "    <dependency>\n      <groupId>{group}</groupId>\n      \
             <artifactId>{artifact}</artifactId>\n      <version>{version}</version>\n    \
             </dependency>\n"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  \
         <modelVersion>4.0.0</modelVersion>\n  <groupId>marquee</groupId>\n  \
         <artifactId>{name}</artifactId>\n  <version>1</version>\n  <packaging>pom</packaging>\n  \
         <dependencies>\n{}  </dependencies>\n</project>\n",
        jars.iter().map(dependency).collect::<String>()
    )
}

/// The program, which Go names after its folder: `server`.
fn fetch_toxiproxy(new: &Path) -> Result<()> {
    fetch_by_go(new, &format!("github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY}"))?;
    Ok(std::fs::rename(new.join("server"), new.join(TOXIPROXY_PROGRAM))?)
}

fn fetch_versitygw(new: &Path) -> Result<()> {
    fetch_by_go(new, &format!("github.com/versity/versitygw/cmd/{VERSITYGW_PROGRAM}@v{VERSITYGW}"))
}

fn fetch_by_go(new: &Path, module: &str) -> Result<()> {
    let Some(go) = tools::on_path("go") else { bail!("go is missing: install Go") };
    tools::run(Command::new(go).args(["install", module]).env("GOBIN", new))
}

/// Its name in the folder that has it.
pub(crate) const TOXIPROXY_PROGRAM: &str = "toxiproxy-server";

/// The same of the object store.
pub(crate) const VERSITYGW_PROGRAM: &str = "versitygw";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_names() {
        for service in Service::ALL {
            assert_eq!(service.name().parse::<Service>().expect("it is known"), service);
        }
        let error = "redis".parse::<Service>().expect_err("it is not known");
        assert_eq!(
            error.to_string(),
            "no service is called \"redis\": there are kafka, toxiproxy, cassandra, cassandra3, s3"
        );
    }
}
