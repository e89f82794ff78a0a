//! What rises, as a table on the terminal.

use super::members::agent;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is drawn.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Draws until it is stopped.
pub(super) struct Screen {
    pub(super) base: String,
    pub(super) stop: Arc<AtomicBool>,
}

impl Screen {
    /// Does nothing where standard error is no terminal.
    pub(super) fn run(self) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let agent = agent();
        let mut lines = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok(table) = self.table(&agent) {
                // Back to the start of the last table, and over it.
                let back = if lines > 0 { format!("\x1b[{lines}A\x1b[J") } else { String::new() };
                let mut out = std::io::stderr().lock();
                let _ = write!(out, "{back}{table}").and_then(|()| out.flush());
                lines = table.lines().count();
            }
            std::thread::sleep(SHOW_EVERY);
        }
    }

    fn table(&self, agent: &ureq::Agent) -> Result<String, ureq::Error> {
        use std::fmt::Write;
        let url = format!("{}/v1/trends?limit=10", self.base);
        let answer: serde_json::Value = agent.get(&url).call()?.body_mut().read_json()?;
        let mut table =
            format!("{:<32} {:>12} {:>8} {:>10}\n", "video", "impressions", "plays", "take rate");
        for cell in answer["cells"].as_array().into_iter().flatten() {
            let number = |name: &str| cell[name].as_u64().unwrap_or(0);
            let rate = 100.0 * number("plays") as f64 / number("impressions").max(1) as f64;
            let video = cell["video"].as_str().unwrap_or_default();
            let _ = writeln!(
                table,
                "{video:<32} {:>12} {:>8} {rate:>9.2}%",
                number("impressions"),
                number("plays"),
            );
        }
        Ok(table)
    }
}
