//! Counts what passed, failed and was skipped over all steps, and says so at the end.
//!
//! A step such as `clippy` is one test; a step that runs `cargo test` counts every test in it.

use crate::process::pass_through;
use anyhow::Result;
use std::fmt;
use std::process::Command;
use std::time::Instant;

/// How a test that cannot run here says so, on a line of its own (`marquee-e2e` prints it).
const SKIPPED: &str = "SKIPPED: ";

/// How the last line of each test program starts.
const RESULT: &str = "test result: ";

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Tally {
    /// Takes one line of the output of `cargo test`.
    fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix(RESULT) {
            self.passed += number_before(result, "passed");
            self.failed += number_before(result, "failed");
            self.skipped += number_before(result, "ignored");
        } else if line.starts_with(SKIPPED) {
            self.skipped += 1;
        }
    }

    fn plus(self, other: Tally) -> Tally {
        Tally {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let part = text.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// How a step ended that is one test.
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// Something is missing; why, and what to do about it.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self, Outcome::Passed)
    }
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Report {
    tally: Tally,
    failed: Vec<String>,
    skipped: Vec<String>,
    seconds: Vec<(String, f64)>,
}

impl Report {
    /// A step that is one test. An error of the step itself is a failure of it.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) {
        let outcome = self.timed(name, work);
        match outcome.unwrap_or_else(failure) {
            Outcome::Passed => self.tally.passed += 1,
            Outcome::Skipped(reason) => {
                println!("{name} skipped: {reason}");
                self.tally.skipped += 1;
                self.skipped.push(format!("{name}: {reason}"));
            }
            Outcome::Failed => self.fail(name),
        }
    }

    /// A step that is one test: a command, which succeeds or not.
    pub(crate) fn command(&mut self, name: &str, mut command: Command) {
        self.step(name, || {
            let success = pass_through(&mut command, |_| {})?;
            Ok(if success { Outcome::Passed } else { Outcome::Failed })
        });
    }

    /// A step of many tests: a call of `cargo test`.
    pub(crate) fn tests(&mut self, name: &str, mut command: Command) {
        let mut lines = Vec::new();
        let success = self.timed(name, || {
            pass_through(&mut command, |line| {
                if line.starts_with(RESULT) || line.starts_with(SKIPPED) {
                    lines.push(line.to_owned());
                }
            })
        });
        self.count(name, success.unwrap_or_else(|error| failure(error).is_passed()), &lines);
    }

    /// Counts a call of `cargo test` by its exit code and the lines of its output that tell.
    fn count(&mut self, name: &str, success: bool, lines: &[String]) {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.line(line));
        // The harness counts a test that returned early as passed.
        let skipped: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix(SKIPPED)).collect();
        tally.passed = tally.passed.saturating_sub(skipped.len() as u64);
        self.tally = self.tally.plus(tally);
        self.skipped.extend(skipped.into_iter().map(str::to_owned));
        if tally.failed > 0 {
            self.failed.push(format!("{name}: {} tests", tally.failed));
        } else if !success {
            // It did not compile, or a test took its process with it.
            self.fail(name);
        }
    }

    fn timed<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        println!("\n=== {name}");
        let start = Instant::now();
        let value = work();
        self.seconds.push((name.to_owned(), start.elapsed().as_secs_f64()));
        value
    }

    fn fail(&mut self, name: &str) {
        self.tally.failed += 1;
        self.failed.push(name.to_owned());
    }

    /// Prints the summary, whose last line is the tally. Whether nothing failed.
    pub(crate) fn close(self) -> bool {
        println!("\n=== summary");
        let times = self.seconds.iter().map(|(name, seconds)| format!("{name} {seconds:.0} s"));
        println!("time: {}", times.collect::<Vec<_>>().join(", "));
        self.skipped.iter().for_each(|what| println!("skipped: {what}"));
        self.failed.iter().for_each(|what| println!("FAILED: {what}"));
        println!("{}", self.tally);
        self.failed.is_empty()
    }
}

fn failure(error: anyhow::Error) -> Outcome {
    println!("error: {error:#}");
    Outcome::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of one call of `cargo test`.
    fn counted(success: bool, lines: &[&str]) -> Report {
        let mut report = Report::default();
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        report.count("tests", success, &lines);
        report
    }

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let report = counted(
            true,
            &[
                "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out",
                "test result: ok. 3 passed; 0 failed; 0 ignored; finished in 1.50s",
                "SKIPPED: python3 with duckdb is missing",
            ],
        );
        assert_eq!(report.tally, Tally { passed: 14, failed: 0, skipped: 3 });
        assert!(report.close());
    }

    #[test]
    fn a_skipped_test_is_not_passed_even_if_it_says_so_before_its_program_ends() {
        let report =
            counted(true, &["SKIPPED: x", "test result: ok. 3 passed; 0 failed; 0 ignored"]);
        assert_eq!(report.tally, Tally { passed: 2, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_failed_test_a_failed_build_and_a_failed_step_each_fail_the_report() {
        let failed_test = "test result: FAILED. 1 passed; 1 failed; 0 ignored";
        for report in [counted(false, &[failed_test]), counted(false, &[])] {
            assert_eq!(report.tally.failed, 1);
            assert!(!report.close());
        }
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", "exit 1"]);
        report.command("step", command);
        assert_eq!(report.tally, Tally { passed: 0, failed: 1, skipped: 0 });
        assert!(!report.close());
    }

    #[test]
    fn the_closing_line_has_the_form_that_ci_reads() {
        let tally = Tally { passed: 3, failed: 0, skipped: 1 };
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 1 skipped");
    }
}
