//! The server as its clients see it: requests into the router, answers and the log behind it out.

#![allow(clippy::unwrap_used)]

#[path = "http/support.rs"]
mod support;

#[path = "http/collector.rs"]
mod collector;
#[path = "http/kinds.rs"]
mod kinds;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/member.rs"]
mod member;
#[path = "http/ops.rs"]
mod ops;
#[path = "http/pages.rs"]
mod pages;
#[path = "http/script.rs"]
mod script;
#[path = "http/serving.rs"]
mod serving;
#[path = "http/signed.rs"]
mod signed;
#[path = "http/trends.rs"]
mod trends;
