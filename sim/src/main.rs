//! `cargo xtask sim`: replays one seed, or runs many and tells the story of what failed.

use clap::Parser;
use marquee_sim::{Fault, run, script, short_story, story, trace_hash};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds that are named of each rule that was broken.
const TOLD: usize = 20;

#[derive(Debug, Parser)]
struct Arguments {
    /// Replay this seed and print what happens
    #[arg(long)]
    seed: Option<u64>,
    /// The first of many seeds
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Threads, each with runs of its own; as many as there are processors, if not set
    #[arg(long)]
    threads: Option<usize>,
    /// End with the first failure
    #[arg(long)]
    until_failure: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => replay(seed),
        None => many(&arguments),
    }
}

fn replay(seed: u64) -> ExitCode {
    let whole = script(seed);
    let outcome = run(&whole, true);
    println!("seed {seed}\n{}", story(&whole, &outcome));
    println!("trace {:016x}, {} steps", trace_hash(&outcome), outcome.steps);
    match outcome.fault {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            println!("\n{}", short_story(seed, &fault));
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let threads = arguments.threads.or(std::thread::available_parallelism().ok().map(Into::into));
    let (next, end) = (AtomicU64::new(arguments.from), arguments.from + arguments.count);
    let (steps, ran) = (AtomicU64::new(0), AtomicU64::new(0));
    let faults: Mutex<BTreeMap<u64, Fault>> = Mutex::default();
    let lock = || faults.lock().expect("no thread panics with it");
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || (arguments.until_failure && !lock().is_empty()) {
                        break;
                    }
                    let outcome = run(&script(seed), false);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    ran.fetch_add(1, Ordering::Relaxed);
                    if let Some(fault) = outcome.fault {
                        lock().insert(seed, fault);
                    }
                }
            });
        }
    });
    let (seconds, ran) = (started.elapsed().as_secs_f64(), ran.into_inner());
    let faults = faults.into_inner().expect("no thread panics with it");
    println!(
        "{ran} seeds from {}, {} steps of owners, in {seconds:.1} s: {:.0} seeds a second; {} failed",
        arguments.from,
        steps.into_inner(),
        ran as f64 / seconds,
        faults.len()
    );
    tell(&faults)
}

/// Names what failed, and tells the story of the first failure of each rule.
fn tell(faults: &BTreeMap<u64, Fault>) -> ExitCode {
    let mut by_rule: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seed, fault) in faults {
        by_rule.entry(fault.rule).or_default().push(*seed);
    }
    for (rule, seeds) in &by_rule {
        println!("\n{} failed \"{rule}\", first seed {}", seeds.len(), seeds[0]);
        println!("seeds {:?}", &seeds[..seeds.len().min(TOLD)]);
        println!("{}", short_story(seeds[0], &faults[&seeds[0]]));
    }
    if by_rule.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
