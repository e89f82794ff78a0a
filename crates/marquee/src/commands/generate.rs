//! `marquee generate`: invented data, the same bytes for the same flags.

use super::Failure;
use crate::generate::{GenerateError, Options, write_files};
use marquee_model::{parse_duration_ms, parse_time_ms};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many requests (8 impressions each, on average)
    #[arg(long, value_name = "N")]
    requests: u64,
    /// Another seed, other data
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// First event time: RFC 3339, milliseconds since 1970, or `now` (then the span ends now)
    #[arg(long, value_name = "T", default_value = "2016-11-21T00:00:00Z")]
    start: String,
    /// Requests start within this span
    #[arg(long, value_name = "DURATION", default_value = "3h", value_parser = parse_duration_ms)]
    span: i64,
    /// Share of events that arrive too late (0.02 is 2 %)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    late: f64,
    /// Folder for impressions.ndjson and plays.ndjson
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.out == Path::new("kafka") {
            let words = "`--out kafka` is not built yet: Kafka comes with a later version; write \
                         to a folder (`--out ./kafka` for one of that name)";
            return Err(Failure::Usage(words.to_owned()));
        }
        let start_ms = match self.start.as_str() {
            "now" => (crate::wiring::now_ms() - self.span).max(0),
            time => parse_time_ms(time).map_err(|e| Failure::Usage(format!("--start: {e}")))?,
        };
        let options = Options {
            requests: self.requests,
            seed: self.seed,
            start_ms,
            span_ms: self.span,
            late_share: self.late,
        };
        let summary = write_files(&options, &self.out).map_err(|error| match error {
            GenerateError::Io { .. } => Failure::failed(error),
            usage => Failure::Usage(usage.to_string()),
        })?;
        eprintln!(
            "{} impressions and {} plays in {}",
            summary.impressions,
            summary.plays,
            self.out.display()
        );
        Ok(())
    }
}
