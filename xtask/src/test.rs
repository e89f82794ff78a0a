//! `cargo xtask test`: every check and every test, in the order in which they are cheap.
//!
//! Everything is built in one profile, `dev` (dependencies optimised, our own crates with
//! assertions on): one build serves unit tests, property tests and the binary that the end-to-end
//! tests run. Set `MARQUEE_BIN` to run those against another binary.

use crate::process::{cargo, is_ci, target_dir};
use crate::report::{Outcome, Report};
use crate::{licenses, tidy};
use anyhow::Result;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run the slow tests, too (sets MARQUEE_SLOW=1; note the result in docs/soak.md)
    #[arg(long)]
    slow: bool,
}

/// Runs all steps, whatever fails on the way; whether nothing failed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut report = Report::default();
    report.command("format", cargo(&["fmt", "--all", "--check"]));
    report.step("tidy", || Ok(if tidy::run()? { Outcome::Passed } else { Outcome::Failed }));
    report.command("clippy", clippy());
    report.step("licenses", licenses::run);
    report.step("cargo deny", cargo_deny);
    // One call with all targets: what `cargo test` needs, and the binary, with the same features.
    report.command("build", cargo_locked("build", &["--workspace", "--all-targets"]));
    report.tests("tests", tests(arguments.slow));
    Ok(report.close())
}

fn clippy() -> Command {
    let mut command = cargo_locked("clippy", &["--workspace", "--all-targets"]);
    command.args(["--", "-D", "warnings"]);
    command
}

fn tests(slow: bool) -> Command {
    let mut command = cargo_locked("test", &["--workspace", "--no-fail-fast"]);
    if std::env::var_os("MARQUEE_BIN").is_none() {
        command.env("MARQUEE_BIN", target_dir().join("debug/marquee"));
    }
    if slow {
        command.env("MARQUEE_SLOW", "1");
    }
    command
}

/// In CI the lock file is taken as it is; elsewhere cargo may add a dependency to it.
fn cargo_locked(what: &str, arguments: &[&str]) -> Command {
    let mut command = cargo(&[what]);
    if is_ci() {
        command.arg("--locked");
    }
    command.args(arguments);
    command
}

/// `cargo deny`, where it is installed. It is not worth the minutes that it takes to build: the
/// step `licenses` reads the same deny.toml and checks licenses, sources and bans by itself.
fn cargo_deny() -> Result<Outcome> {
    let found = cargo(&["deny", "--version"]).output()?.status.success();
    if !found {
        let reason = "cargo-deny is not installed (cargo install cargo-deny --locked); \
                      the step `licenses` has checked the same by itself";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    let checks = ["deny", "--offline", "check", "bans", "licenses", "sources"];
    let success = crate::process::pass_through(&mut cargo(&checks), |_| {})?;
    Ok(if success { Outcome::Passed } else { Outcome::Failed })
}
