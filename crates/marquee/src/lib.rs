//! marquee: what people were shown, joined with what they chose, as exact sets, while it happens.
//!
//! This crate is the command line and the wiring: [`config`] reads and checks the configuration,
//! [`wiring`] compiles it, [`commands`] runs what was asked for. The work is done by the other
//! crates.

mod archive;
pub mod commands;
pub mod config;
pub mod generate;
mod log;
mod repair;
pub mod service;
pub mod store;
pub mod wiring;
