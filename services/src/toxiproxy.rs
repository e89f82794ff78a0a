//! A fault proxy of a test's own: it stands before a server and makes its connections slow, cut or
//! dead, as it is told by HTTP.

use crate::install::{Service, TOXIPROXY_PROGRAM};
use crate::ports::free_port;
use crate::process::{Log, Server};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// From the start to ready: 0.1 s on an idle machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);

/// Toxiproxy. It is killed when this is dropped, and when the process that holds it dies.
#[derive(Debug)]
pub struct Toxiproxy {
    port: u16,
    /// Owned for its end. Dropped before the folder with its log.
    _server: Server,
    _temporary: TempDir,
}

impl Toxiproxy {
    /// Installs toxiproxy if it is absent, starts it on a free port and waits until it is ready.
    pub fn start() -> Result<Toxiproxy> {
        let port = free_port();
        let temporary = tempfile::Builder::new().prefix("marquee-toxiproxy-").tempdir()?;
        let mut log = Log::new(temporary.path().join("toxiproxy.log"));
        let mut server = Server::start(command(port)?, &mut log, temporary.path())?;
        let ready = server.wait_until_ready(READY_WITHIN, &log, || is_ready(port));
        ready.context("toxiproxy does not start")?;
        Ok(Toxiproxy { port, _server: server, _temporary: temporary })
    }

    /// Listens on a port of 127.0.0.1 and forwards to `upstream`, a `host:port`.
    pub fn proxy(&self, name: &str, listen_port: u16, upstream: &str) -> Result<()> {
        let listen = format!("127.0.0.1:{listen_port}");
        let proxy = json!({"name": name, "listen": listen, "upstream": upstream});
        self.post("proxies", &proxy.to_string())
    }

    /// Adds a fault, such as `{"type": "latency", "attributes": {"latency": 500}}` (milliseconds,
    /// towards the client unless `"stream": "upstream"`). Types: latency, bandwidth, slow_close,
    /// timeout, reset_peer, slicer, limit_data.
    pub fn toxic(&self, proxy: &str, toxic_json: &str) -> Result<()> {
        self.post(&format!("proxies/{proxy}/toxics"), toxic_json)
    }

    /// Removes all faults of a proxy.
    pub fn clear(&self, proxy: &str) -> Result<()> {
        let path = format!("proxies/{proxy}/toxics");
        let toxics: Vec<Value> = serde_json::from_str(&self.call("GET", &path, "")?)?;
        for name in toxics.iter().filter_map(|toxic| toxic["name"].as_str()) {
            self.call("DELETE", &format!("{path}/{name}"), "")?;
        }
        Ok(())
    }

    /// Lets a proxy listen, or cuts all its connections and refuses new ones.
    pub fn enabled(&self, proxy: &str, enabled: bool) -> Result<()> {
        self.post(&format!("proxies/{proxy}"), &json!({"enabled": enabled}).to_string())
    }

    fn post(&self, path: &str, body: &str) -> Result<()> {
        self.call("POST", path, body).map(drop)
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        call(self.port, method, path, body)
            .with_context(|| format!("toxiproxy: {method} {path} {body}"))
    }
}

/// The command that runs it; installs it if it is absent.
pub(crate) fn command(port: u16) -> Result<Command> {
    let program: PathBuf = Service::Toxiproxy.install()?.join(TOXIPROXY_PROGRAM);
    let mut command = Command::new(program);
    command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
    Ok(command)
}

pub(crate) fn is_ready(port: u16) -> bool {
    call(port, "GET", "version", "").is_ok()
}

fn call(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let config = ureq::Agent::config_builder();
    let config = config.timeout_global(Some(Duration::from_secs(10))).http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let request = ureq::http::Request::builder().method(method);
    let request = request.uri(format!("http://127.0.0.1:{port}/{path}")).body(body.to_owned())?;
    let mut response = agent.run(request)?;
    let answer = response.body_mut().read_to_string()?;
    let status = response.status();
    ensure!(status.is_success(), "it answered {status}: {}", answer.trim());
    Ok(answer)
}
