//! The pure core: events go in, members go out.
//!
//! In the order of the data: [`prepare`] filters and transforms one decoded event, [`symbols`]
//! replaces its texts by numbers, [`watermark`] says how far event time has come, [`join`] holds
//! what each request has shown and played and finds what is new, [`aggregate`] counts it per cell,
//! and [`lane`] puts these stages together for one lane. [`snapshot`] turns a lane's state
//! into bytes and back.
//!
//! Invariant PURE: nothing here does I/O, reads a clock, draws a random number or iterates a
//! randomly ordered map. The same inputs in the same order give the same outputs, always.

pub mod aggregate;
pub mod chunk;
pub mod join;
pub mod lane;
pub mod matches;
pub mod prepare;
pub mod settings;
pub mod snapshot;
pub mod symbols;
mod waiting;
pub mod watermark;

pub use lane::{LaneBatch, LanePipeline};
pub use settings::Settings;
