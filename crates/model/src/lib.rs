//! The words that everybody shares, in the order in which the data meets them.
//!
//! docs/semantics.md is their definition; this crate is their Rust. It does no I/O, reads no
//! clock and draws no random number, and it depends on nothing that does.

mod cell;
mod partition;
mod request;
mod time;

pub use cell::{CellCounts, CellKey, Kind, Side};
pub use partition::{Partitioner, lane_of, murmur2};
pub use request::{MAX_ID_BYTES, RequestHasher, RequestKey, parse_uuid};
pub use time::{
    DurationError, MAX_EVENT_TIME_MS, TimeError, format_duration_ms, format_time_ms,
    parse_duration_ms, parse_time_ms,
};
