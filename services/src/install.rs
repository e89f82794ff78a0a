//! Fetches servers from the registries of their languages: Kafka as jars by Maven, toxiproxy as a
//! module by Go. What is there already is left alone.

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

/// A server that this crate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The broker.
    Kafka,
    /// The fault proxy.
    Toxiproxy,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 2] = [Service::Kafka, Service::Toxiproxy];

    /// Fetches what is not there yet. Returns the folder that has it.
    pub fn install(self) -> Result<PathBuf> {
        let made = folder(&home()?, &self.folder_name(), |new| {
            eprintln!("{self}: installing (once)");
            match self {
                Service::Kafka => fetch_kafka(new),
                Service::Toxiproxy => fetch_toxiproxy(new),
            }
        });
        made.with_context(|| format!("cannot install {self}"))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Kafka => "kafka",
            Service::Toxiproxy => "toxiproxy",
        }
    }

    fn folder_name(self) -> String {
        match self {
            Service::Kafka => format!("kafka-{KAFKA}"),
            Service::Toxiproxy => format!("toxiproxy-{TOXIPROXY}"),
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
    if tools::java().is_none() {
        return Some(tools::java_in_words());
    }
    missing_to_fetch(Service::Kafka, "mvn")
}

/// The tool that is missing on this machine to run toxiproxy, or `None`.
pub fn missing_for_toxiproxy() -> Option<String> {
    missing_to_fetch(Service::Toxiproxy, "go")
}

fn missing_to_fetch(service: Service, tool: &str) -> Option<String> {
    let is_missing = !service.is_installed() && tools::on_path(tool).is_none();
    is_missing.then(|| tool.to_owned())
}

/// The broker and all that it needs as jars in `lib`.
fn fetch_kafka(new: &Path) -> Result<()> {
    let Some(mvn) = tools::on_path("mvn") else { bail!("mvn is missing: install Maven") };
    let pom = new.join("pom.xml");
    std::fs::write(&pom, kafka_pom())?;
    let mut command = Command::new(mvn);
    command.args(["-q", "-B", "-f"]).arg(pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    tools::run(command.arg(format!("-DoutputDirectory={}", new.join("lib").display())))
}

fn kafka_pom() -> String {
    let dependencies = [
        ("org.apache.kafka", "kafka_2.13", KAFKA),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
    ];
    let dependencies = dependencies.map(|(group, artifact, version)| {
        format!(
            "    <dependency>\n      <groupId>{group}</groupId>\n      \
             <artifactId>{artifact}</artifactId>\n      <version>{version}</version>\n    \
             </dependency>\n"
        )
    });
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  \
         <modelVersion>4.0.0</modelVersion>\n  <groupId>marquee</groupId>\n  \
         <artifactId>kafka</artifactId>\n  <version>1</version>\n  <packaging>pom</packaging>\n  \
         <dependencies>\n{}  </dependencies>\n</project>\n",
        dependencies.concat()
    )
}

/// The program, which Go names after its folder: `server`.
fn fetch_toxiproxy(new: &Path) -> Result<()> {
    let Some(go) = tools::on_path("go") else { bail!("go is missing: install Go") };
    let module = format!("github.com/Shopify/toxiproxy/v2/cmd/server@v{TOXIPROXY}");
    tools::run(Command::new(go).args(["install", &module]).env("GOBIN", new))?;
    Ok(std::fs::rename(new.join("server"), new.join(TOXIPROXY_PROGRAM))?)
}

/// Its name in the folder that has it.
pub(crate) const TOXIPROXY_PROGRAM: &str = "toxiproxy-server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_names() {
        for service in Service::ALL {
            assert_eq!(service.name().parse::<Service>().expect("it is known"), service);
        }
        let error = "redis".parse::<Service>().expect_err("it is not known");
        assert_eq!(error.to_string(), "no service is called \"redis\": there are kafka, toxiproxy");
    }
}
