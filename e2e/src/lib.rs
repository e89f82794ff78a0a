//! End-to-end tests: the real binary, real files, DuckDB as a judge.
//!
//! This crate is what the tests in `tests/` share, in the order in which they need it: [`skip`] says
//! that a test cannot run here, [`program`] runs the binary, [`data`] makes its input, [`cells`]
//! reads and compares its output, [`duckdb`] counts the same by SQL, [`service`] is a running
//! `marquee run`, [`browser`] looks at one as visitors of a site do, [`kafka`] is a real broker with a
//! stock client, [`cassandra`] a real node with another,
//! [`lake`] reads what was written into the lake, [`members`] takes the sets themselves
//! out of a store. It knows the program from outside only: its command line, its files, its HTTP and
//! docs/semantics.md; but for the members, which no command shows yet.

pub mod browser;
pub mod cassandra;
pub mod cells;
pub mod data;
pub mod duckdb;
pub mod examples;
pub mod kafka;
pub mod lake;
pub mod members;
pub mod program;
pub mod service;
pub mod skip;
