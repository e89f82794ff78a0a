//! Processes seen from outside: what they have used so far, as the kernel keeps it.

use anyhow::{Context, Result, ensure};
use marquee_e2e::data::Data;
use std::path::Path;
use std::process::Command;

/// Ticks of the kernel's clock in a second (`USER_HZ`, which Linux has fixed).
const TICKS_PER_SECOND: f64 = 100.0;

/// The most memory that a process had at once; `None` once it has ended.
pub(crate) fn peak_bytes_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Time that all threads of a process have had a core, in the kernel too.
pub(crate) fn cpu_seconds_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything. Then come the state and ten numbers before these.
    let (_, numbers) = stat.rsplit_once(')').context("the name stands in brackets")?;
    let ticks = numbers.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Memory of this process now.
pub(crate) fn rss_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb =
        line.and_then(|line| line.trim().strip_suffix(" kB")).context("the kernel tells it")?;
    Ok(kb.trim().parse::<u64>()? * 1024)
}

/// Time that this thread has had a core, which others on the machine disturb less than the clock.
pub(crate) fn thread_cpu_ns() -> Result<u64> {
    cpu_ns_of(Path::new("/proc/thread-self"))
}

fn cpu_ns_of(thread: &Path) -> Result<u64> {
    let times = std::fs::read_to_string(thread.join("schedstat"))?;
    let on_core = times.split(' ').next().context("schedstat starts with the time on a core")?;
    Ok(on_core.parse()?)
}

/// Seconds that the threads of this process have had a core: those whose names begin so, and all
/// others but the one that asks.
pub(crate) fn cpu_of_threads(prefix: &str) -> Result<[f64; 2]> {
    let mut seconds = [0.0; 2];
    let this = std::fs::read_link("/proc/thread-self")?;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?;
        if this.file_name() == Some(&task.file_name()) {
            continue;
        }
        // A thread may end while it is looked at.
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
        let place = usize::from(!name.starts_with(prefix));
        seconds[place] += cpu_ns_of(&task.path()).unwrap_or(0) as f64 / 1e9;
    }
    Ok(seconds)
}

/// Waits until the system has written what was generated: whoever writes first would wait for it.
pub(crate) fn sync() -> Result<()> {
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    Ok(())
}

/// Number of events in both files.
pub(crate) fn events(data: &Data) -> Result<u64> {
    let lines = |path: &Path| -> Result<u64> {
        Ok(std::fs::read(path)?.iter().filter(|byte| **byte == b'\n').count() as u64)
    };
    Ok(lines(&data.impressions)? + lines(&data.plays)?)
}
