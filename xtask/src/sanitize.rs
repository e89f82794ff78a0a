//! `cargo xtask sanitize`: the tests of the only unsafe code under an address sanitizer.
//!
//! The pinned toolchain ships the sanitizer's runtime; the compiler flag is unstable, so it is
//! allowed for this one build, in a target folder of its own. Our own code is instrumented and so is
//! librdkafka: a message that is read after it was destroyed, or destroyed twice, ends the test.

use crate::process::{cargo, output_of, pass_through, target_dir};
use anyhow::{Context, Result};
use std::process::Command;

/// Runs them; whether all passed.
pub(crate) fn run() -> Result<bool> {
    let version = output_of(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not name its host")?.to_owned();
    // With a target named, build scripts and macros stay without the sanitizer.
    let mut tests = cargo(&["test", "-p", "marquee-sources", "--lib", "--target", &host, "kafka"]);
    tests
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address -Cforce-frame-pointers=yes")
        // The crate `cc` takes over the sanitizer for C; librdkafka's own configure script must.
        .env("CFLAGS", "-fsanitize=address -fno-omit-frame-pointer")
        .env("LDFLAGS", "-fsanitize=address")
        // librdkafka keeps some memory until the process ends, which is no leak that grows.
        .env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")
        .env("CARGO_TARGET_DIR", target_dir().join("sanitize"));
    pass_through(&mut tests, |_| {})
}
