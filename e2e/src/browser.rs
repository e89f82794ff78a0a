//! Checks in a real browser: scripts for Node in e2e/browser, which drive Chromium by
//! `playwright-core` and look at a running service.
//!
//! Nothing is fetched here. `.ci/run` installs what is needed; where something is missing the test
//! says what, and is skipped. Checks run one after the other: what a browser shows in half a second
//! depends on what else the processor has to do.

use crate::program::{root, run, run_within};
use crate::skip;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The longest check takes a fraction of this.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// What Playwright asks for.
const NODE_MIN: u32 = 20;

/// Packages of e2e/browser/package.json that checks import.
const PACKAGES: [&str; 2] = ["playwright-core", "axe-core"];

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Node, its packages and Chromium.
#[derive(Clone, Debug)]
pub struct Browser {
    chromium: PathBuf,
}

impl Browser {
    /// Finds all of it. Where something is missing, the test is skipped (and fails in CI).
    pub fn find() -> Option<Browser> {
        let found = look();
        if let Err(missing) = &found {
            skip::missing_tool(missing);
        }
        found.ok()
    }

    /// Runs a check of `e2e/browser/FILE.mjs` against the service at `address`; panics with all
    /// that it said unless it passed. `more`: what else of its environment it reads.
    #[track_caller]
    pub fn check(&self, file: &str, name: &str, address: &str, more: &[(&str, &str)]) {
        // A check that failed has poisoned nothing but the lock.
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = node(&["run.mjs", file, name]);
        command.env("MARQUEE_ADDRESS", address).env("MARQUEE_CHROMIUM", &self.chromium);
        command.envs(more.iter().copied());
        let finished = run_within(&mut command, TIME_LIMIT);
        let said = String::from_utf8_lossy(&finished.stdout);
        assert_eq!(finished.code, Some(0), "{file}: {name}\n{said}{}", finished.stderr);
        print!("{said}");
    }

    /// The names of all checks of a file, in their order of the alphabet.
    pub fn checks(&self, file: &str) -> Vec<String> {
        let finished = run(&mut node(&["run.mjs", file, "--list"])).expect_code(0);
        let mut names: Vec<String> =
            String::from_utf8_lossy(&finished.stdout).lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(root().join("e2e/browser"));
    command
}

/// Everything, or what is missing.
fn look() -> Result<Browser, String> {
    let version = Command::new("node").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let major = |text: &str| text.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    match version {
        Err(_) => return Err(format!("node (version {NODE_MIN} or newer)")),
        Ok(text) if major(&text).is_none_or(|major| major < NODE_MIN) => {
            return Err(format!("node of version {NODE_MIN} or newer (this is {text})"));
        }
        Ok(_) => {}
    }
    for package in PACKAGES {
        let folder = root().join("e2e/browser/node_modules").join(package);
        if !folder.join("package.json").is_file() {
            return Err(format!("the npm package {package} (npm ci --prefix e2e/browser)"));
        }
    }
    let named = std::env::var_os("MARQUEE_CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let mut places = named.into_iter().chain(usual.map(PathBuf::from));
    let chromium = places.find(|path| path.is_file());
    let missing =
        || "Chromium (apt-get install chromium, or name it by MARQUEE_CHROMIUM)".to_owned();
    Ok(Browser { chromium: chromium.ok_or_else(missing)? })
}
