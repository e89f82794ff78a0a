//! Invented members: the events of `marquee generate`, and the live ones of `marquee demo`.
//!
//! It stands before the pipeline, in the place of the clients: it writes what they would send, and
//! knows nothing of what is counted. It never reads a clock and never asks the machine for
//! randomness, so that the same flags give the same bytes on every machine.
//!
//! In the order of the data:
//! - `draw`: random words and the distributions that are made of them;
//! - `request`: one request number -> the events that the request causes, with their lags;
//! - `late`: which of them come too late on purpose, and by how much;
//! - `arrivals`: all requests -> one stream in arrival order, in little memory;
//! - `json`: an event -> its bytes;
//! - `files`: the stream -> `impressions.ndjson` and `plays.ndjson`;
//! - `kafka`: the stream -> the topics of a log;
//! - `members`: the endless live source;
//! - `popularity`: how often it shows and plays each video;
//! - `happenings`: what raises interest in one of its videos for a while;
//! - `sources`: what it leaves out while a kind of events is stopped.
//!
//! **What is drawn.** Requests start evenly over the span (request i of N at a random place of the
//! i-th of N equal strata), each with a country (10), a device (5, so a fifth are consoles) and a
//! row (0 to 39). A request shows 2 + Poisson(6) videos, 200 to 2,999 ms apart, by Zipf(10,000
//! videos, exponent 1.05). An impression arrives after a lag of the request (clients send in
//! batches) and one of its own, each log-normal with a median of 1.8 s. 2 % are delivered twice,
//! 5 % reappear 3 to 30 s later. 12 % of requests play one of their videos, log-normal with a
//! median of 40 s after its impression; 3 % of these plays are delivered twice. 0.5 % of requests
//! come with a play that was never shown, under a request id of its own.
//!
//! **Invariants.** An event never arrives before it happened. A request is drawn from its own
//! stream of random words, `(seed, request number)`, so that no request depends on another. An
//! impression arrives within 20 min and a play within 9 min, duplicates included: less than the
//! default `lateness` of 10 min, so that nothing is late unless `late_share` asks for it.

mod arrivals;
mod draw;
mod files;
mod happenings;
mod json;
mod kafka;
mod late;
mod members;
mod popularity;
mod request;
mod sources;
#[cfg(test)]
mod tests;

pub use arrivals::{Arrivals, arrivals};
pub use files::{Summary, write_files};
pub use json::GeneratedEvent;
pub use kafka::{Topics, write_topics};
pub use members::LiveMembers;

use marquee_model::MAX_EVENT_TIME_MS;
use std::path::PathBuf;
use thiserror::Error;

/// 2016-11-21T00:00:00Z: where generated time starts unless told otherwise.
pub const DEFAULT_START_MS: i64 = 1_479_686_400_000;
/// Three hours: the span of request starts unless told otherwise.
pub const DEFAULT_SPAN_MS: i64 = 10_800_000;

/// Keeps the arithmetic of request starts inside 128 bits.
const MAX_REQUESTS: u64 = 1_000_000_000_000;
/// More than the last event of a request, or its arrival, can follow the start of the request,
/// unless it is late on purpose.
const MAX_TAIL_MS: i64 = 2 * 3_600_000;

/// What to generate. The same options give the same events for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Number of requests. Each causes 8.6 impressions and 0.13 plays on average.
    pub requests: u64,
    /// Another seed, other events.
    pub seed: u64,
    /// The first request starts here or just after, milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// All requests start within this many milliseconds. Their plays follow up to 58 min later,
    /// and arrive up to 9 min after that.
    pub span_ms: i64,
    /// The share of events, 0 to 1, that arrives so late that the default settings call it late.
    pub late_share: f64,
}

impl Options {
    /// The default start and span, and nothing late.
    ///
    /// ```
    /// use marquee::generate::{Options, arrivals};
    /// let events = arrivals(&Options::new(100, 7))?;
    /// assert!(events.count() > 200);
    /// # Ok::<(), marquee::generate::GenerateError>(())
    /// ```
    pub fn new(requests: u64, seed: u64) -> Self {
        let (start_ms, span_ms) = (DEFAULT_START_MS, DEFAULT_SPAN_MS);
        Options { requests, seed, start_ms, span_ms, late_share: 0.0 }
    }

    /// The end of the span, in which all requests start. Call it after `check`.
    fn end_ms(&self) -> i64 {
        self.start_ms + self.span_ms
    }

    fn check(&self) -> Result<(), GenerateError> {
        if self.requests > MAX_REQUESTS {
            return Err(GenerateError::TooManyRequests(self.requests));
        }
        if self.span_ms <= 0 {
            return Err(GenerateError::EmptySpan(self.span_ms));
        }
        let last_ms = self.start_ms.checked_add(self.span_ms).and_then(|ms| {
            let late = late::largest_lag_ms(self.span_ms);
            ms.checked_add(MAX_TAIL_MS)?.checked_add(late)
        });
        match last_ms {
            Some(last_ms) if self.start_ms >= 0 && last_ms <= MAX_EVENT_TIME_MS => Ok(()),
            _ => Err(GenerateError::TimeOutOfRange(self.start_ms, self.span_ms)),
        }
    }
}

/// Why nothing was generated. All but `Io` are wrong usage.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// More requests than the arithmetic holds.
    #[error("{0} requests are too many; ask for at most 1000000000000")]
    TooManyRequests(u64),
    /// The span holds no time.
    #[error("a span of {0} ms is empty; ask for at least 1 ms, such as --span 3h")]
    EmptySpan(i64),
    /// Some event could fall before 1970 or after the year 9999.
    #[error(
        "events from {0} ms on over {1} ms would leave the years 1970 to 9999; choose another \
         --start or a shorter --span"
    )]
    TimeOutOfRange(i64, i64),
    /// The share is no share.
    #[error("a late share of {0} is no share; write a number from 0 to 1, such as --late 0.02")]
    BadLateShare(f64),
    /// The watermark does not move far enough within the span to make so many events late.
    #[error(
        "a late share of {wanted} cannot be reached: in this span at most {possible:.2} of the \
         events can be late, because the watermark must first pass them by up to 100 minutes; ask \
         for a lower --late or a longer --span"
    )]
    LateShareOutOfReach {
        /// What was asked for.
        wanted: f64,
        /// The largest share that this span and number of requests allow.
        possible: f64,
    },
    /// A file could not be written.
    #[error(
        "cannot {action} {}: {source}; check that --out names a writable folder with room",
        path.display()
    )]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The log does not take the events.
    #[error(transparent)]
    Log(#[from] marquee_sources::SourceError),
}

/// An event and the moment at which it reaches the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Milliseconds since 1970 UTC, never before the event's own time. The record time in a log.
    pub arrival_ms: i64,
    /// What the member's device sent.
    pub event: GeneratedEvent,
}
