//! The machine that figures were measured on: a figure without it says nothing.

use std::process::Command;

/// What stands above a table: the date, the machine and the commit.
pub(crate) fn describe() -> String {
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory_kb = field("/proc/meminfo", "MemTotal");
    let memory_kb = memory_kb.and_then(|kb| kb.trim_end_matches(" kB").parse::<u64>().ok());
    let memory_gb = memory_kb.unwrap_or(0) * 1024 / 1_000_000_000;
    format!("{date}, {cores} cores of {model}, {memory_gb} GB, commit {}", commit())
}

/// The value of the first `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let is_clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
    if is_clean { commit } else { commit + " with changes" }
}
