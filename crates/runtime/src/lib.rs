//! Drives the pure pipeline: [`backfill`] over files that end, [`lanes`] over a log that does not.
//! [`sealer`] brings what they have closed into the lake, [`examples`] makes training examples of it,
//! [`archive`] keeps raw records there, and [`verify`] compares what either has left in a store with
//! the input, counted once more.
//!
//! Here, and not in the pipeline, are threads, clocks and errors of the outside world.

pub mod archive;
pub mod backfill;
pub mod lanes;

mod clock;
pub mod examples;
pub mod history;
pub mod open_files;
pub mod pages;
mod plan;
pub mod sealer;
pub mod status;
pub mod verify;

pub use clock::{Clock, SystemClock};
pub use plan::{Plan, StreamPlan};
