//! `cargo xtask sim`: runs seeds and tells of the first that goes against the contract.

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed and print what happens
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds
    #[arg(long, default_value_t = 10_000)]
    count: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let outcome = marquee_sim::run(&marquee_sim::script(seed), true);
        for line in outcome.trace {
            println!("{line}");
        }
        println!("{:?}", outcome.fault);
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let mut rules = std::collections::BTreeMap::new();
    let mut steps = 0;
    for seed in arguments.from..arguments.from + arguments.count {
        let outcome = marquee_sim::run(&marquee_sim::script(seed), false);
        steps += outcome.steps;
        if let Some(fault) = outcome.fault {
            let entry = rules.entry(fault.rule).or_insert((0, seed, fault.words));
            entry.0 += 1;
        }
    }
    println!("{rules:#?}");
    let seconds = started.elapsed().as_secs_f64();
    println!("{} seeds, {steps} steps, {:.0}/s", arguments.count, arguments.count as f64 / seconds);
    ExitCode::SUCCESS
}
