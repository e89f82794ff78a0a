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
