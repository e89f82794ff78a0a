//! What an event costs at each stage, in instructions: repeatable on a noisy machine.
//!
//! valgrind counts for each instruction how often it ran; addr2line says from which functions it was
//! inlined. An instruction belongs to the stage of the innermost of these that is ours. What belongs
//! to others (the standard library, the allocator) is charged to those who call it, in proportion to
//! what is spent in their calls.

use crate::callgrind::{FLAGS, Profile};
use crate::stream::Milestone;
use anyhow::{Context, Result, bail, ensure};
use marquee_e2e::data::{Data, example};
use marquee_e2e::program::binary;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events of each run (valgrind takes a minute for half a million)
    #[arg(long, default_value_t = 600_000)]
    events: u64,
}

/// Where instructions are counted: names of rows, and parts of the paths whose code belongs there.
/// The first one that fits counts.
const STAGES: [(&str, &[&str]); 12] = [
    (MAKING, &["bench/src/", "marquee/src/generate/", "rand_chacha"]),
    ("read: files, batches, the owner's loop", &["sources/src/files", "crates/runtime/src/"]),
    ("decode JSON", &["sources/src/json"]),
    ("request ids", &["model/src/request", "model/src/uuid", "model/src/"]),
    ("filter, transform", &["crates/expr/src/", "pipeline/src/prepare"]),
    ("watermark", &["pipeline/src/watermark"]),
    ("symbols", &["pipeline/src/symbols"]),
    ("join", &["pipeline/src/join"]),
    ("aggregate", &["pipeline/src/aggregate"]),
    ("chunks of members", &["pipeline/src/chunk"]),
    ("lane: what ties the stages", &["pipeline/src/"]),
    ("store, output", &["crates/sinks/src/", "fjall", "lsm-tree", "lsm_tree", "parquet-", "csv"]),
];

/// Not marquee's: left out of the table.
const MAKING: &str = "making events";
/// Work of any stage for letting epochs go.
const EXPIRY: &str = "letting epochs go";
/// Of functions with these names, and of what is inlined into them.
const EXPIRES: [&str; 4] =
    ["::drop_before", "::sweep", "LanePipeline::advance", "LanePipeline>::advance"];
const REST: &str = "the rest: start, configuration, threads";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for tool in ["valgrind", "addr2line"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            bail!("{tool} is missing: install the packages valgrind and binutils, and try again");
        }
    }
    let folder = tempfile::tempdir()?;
    let events = arguments.events;
    let this = std::env::current_exe()?;
    let mut lanes = Command::new("valgrind");
    lanes.args(FLAGS).arg(out(folder.path())).arg(&this).args(["stream", "--threads=1"]);
    // A small half hour: many epochs come and go. Under valgrind a quarter of a second is nothing.
    lanes.args(["--requests=5000", "--batch-events=25000", &format!("--events={events}")]);
    let output = lanes.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "{lanes:?} failed");
    let last = String::from_utf8(output.stdout)?;
    let reached = Milestone::of_json(last.lines().last().context("it says what it has done")?)?;
    print("lanes and store, one thread", &table(&this, folder.path())?, reached.events);

    let data = Data::generated(events * 10 / 87, 7);
    let mut backfill = Command::new("valgrind");
    let marquee = binary();
    backfill.args(FLAGS).arg(out(folder.path())).arg(&marquee);
    backfill.args(["backfill", "--threads=1", "-c"]).arg(example("reference.toml"));
    backfill.arg("--impressions").arg(&data.impressions).arg("--plays").arg(&data.plays);
    backfill.arg("--out").arg(data.file("cells.csv"));
    let output = backfill.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{backfill:?} failed");
    print("backfill, one thread", &table(&marquee, folder.path())?, data.events());
    Ok(())
}

fn out(folder: &Path) -> String {
    format!("--callgrind-out-file={}", folder.join("callgrind").display())
}

fn print(what: &str, instructions: &BTreeMap<&'static str, f64>, events: u64) {
    let all = instructions.iter().filter(|(stage, _)| **stage != MAKING);
    let all: f64 = all.map(|(_, instructions)| instructions).sum();
    println!("{}, {events} events:\n", crate::machine::describe());
    println!("| {what} | instructions an event | share |\n|---|---|---|");
    let names = STAGES.iter().map(|(name, _)| *name).chain([EXPIRY, REST]);
    for name in names.filter(|name| *name != MAKING) {
        let of_stage = instructions.get(name).copied().unwrap_or(0.0);
        let share = 100.0 * of_stage / all;
        println!("| {name} | {:.0} | {share:.1} % |", of_stage / events as f64);
    }
    println!("| all | {:.0} | |\n", all / events as f64);
}

/// Instructions by stage.
fn table(program: &Path, folder: &Path) -> Result<BTreeMap<&'static str, f64>> {
    let text = std::fs::read_to_string(folder.join("callgrind"))?;
    let profile = Profile::parse(&text)?;
    let object = program.canonicalize()?.display().to_string();
    let stages = Stages::of(&profile, &object)?;
    Ok(charge(&profile, &stages))
}

/// Which stage an address of the program belongs to; those of nobody's are absent.
struct Stages {
    object: String,
    by_address: HashMap<u64, &'static str>,
}

impl Stages {
    fn of(profile: &Profile, object: &str) -> Result<Stages> {
        let ours = profile.functions.iter().filter(|function| function.object == object);
        let addresses = ours.flat_map(|function| {
            let calls = function.calls.iter().map(|call| call.from);
            function.own.iter().map(|(address, _)| *address).chain(calls)
        });
        let addresses: BTreeSet<u64> = addresses.collect();
        let by_address = inlined(object, &addresses)?;
        let by_address = by_address.into_iter().filter_map(|(a, chain)| Some((a, stage(&chain)?)));
        Ok(Stages { object: object.to_owned(), by_address: by_address.collect() })
    }

    fn find(&self, object: &str, address: u64) -> Option<&'static str> {
        (object == self.object).then(|| self.by_address.get(&address).copied()).flatten()
    }
}

/// A function and its file.
type Frame = (String, String);

/// The stage of an instruction, by the functions from which it was inlined, the innermost first.
fn stage(chain: &[Frame]) -> Option<&'static str> {
    let own = chain.iter().find_map(|(_, file)| {
        let is_here = |part: &&str| file.contains(*part);
        STAGES.iter().find(|(_, paths)| paths.iter().any(is_here)).map(|(n, _)| *n)
    })?;
    let expires = |(name, _): &Frame| EXPIRES.iter().any(|part| name.contains(part));
    Some(if own != MAKING && chain.iter().any(expires) { EXPIRY } else { own })
}

/// Asks addr2line: for each address the functions that it stands in, the innermost first.
fn inlined(object: &str, addresses: &BTreeSet<u64>) -> Result<HashMap<u64, Vec<Frame>>> {
    let mut command = Command::new("addr2line");
    command.args(["-a", "-i", "-f", "-C", "-e", object]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("it is piped")?;
    let asked: Vec<u64> = addresses.iter().copied().collect();
    let asking = std::thread::spawn(move || -> std::io::Result<()> {
        asked.iter().try_for_each(|address| writeln!(input, "{address:#x}"))
    });
    let answer = String::from_utf8(child.wait_with_output()?.stdout)?;
    asking.join().map_err(|_| anyhow::anyhow!("asking addr2line failed"))??;
    let mut found: HashMap<u64, Vec<Frame>> = HashMap::new();
    let (mut chain, mut name): (Option<&mut Vec<Frame>>, Option<&str>) = (None, None);
    for line in answer.lines() {
        if let Some(address) = line.strip_prefix("0x")
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            chain = Some(found.entry(address).or_default());
        } else if let Some(name) = name.take() {
            let chain = chain.as_mut().context("an address comes first")?;
            chain.push((name.to_owned(), line.to_owned()));
        } else {
            name = Some(line);
        }
    }
    Ok(found)
}

/// Charges every instruction to a stage.
fn charge(profile: &Profile, stages: &Stages) -> BTreeMap<&'static str, f64> {
    let mut charged: BTreeMap<&'static str, f64> = BTreeMap::new();
    let shares = shares(profile, stages);
    for (place, function) in profile.functions.iter().enumerate() {
        for (address, instructions) in &function.own {
            match stages.find(&function.object, *address) {
                Some(stage) => *charged.entry(stage).or_default() += *instructions as f64,
                None => {
                    for (stage, share) in &shares[place] {
                        *charged.entry(stage).or_default() += share * *instructions as f64;
                    }
                }
            }
        }
    }
    charged
}

/// For each function the stages that call it, directly or through others that are nobody's, with
/// their shares of what is spent in it.
fn shares(profile: &Profile, stages: &Stages) -> Vec<BTreeMap<&'static str, f64>> {
    /// Longer chains of functions that are nobody's there are not, or they are circles.
    const ROUNDS: usize = 30;
    let count = profile.functions.len();
    let mut shares = vec![BTreeMap::from([(REST, 1.0)]); count];
    for _ in 0..ROUNDS {
        let mut sums = vec![BTreeMap::<&'static str, f64>::new(); count];
        for (place, function) in profile.functions.iter().enumerate() {
            for call in &function.calls {
                let sum = &mut sums[call.to];
                match stages.find(&function.object, call.from) {
                    Some(stage) => *sum.entry(stage).or_default() += call.instructions as f64,
                    None => {
                        for (stage, share) in &shares[place] {
                            *sum.entry(stage).or_default() += share * call.instructions as f64;
                        }
                    }
                }
            }
        }
        for (share, mut sum) in shares.iter_mut().zip(sums) {
            let all: f64 = sum.values().sum();
            if all > 0.0 {
                sum.values_mut().for_each(|value| *value /= all);
                *share = sum;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nobodys_is_charged_to_those_who_call_it() {
        let text = "ob=/bin/a\nfn=join\n0x10 1 100\ncfn=copy\ncalls=1 0x50\n0x14 2 30\nfn=decode\n\
                    0x20 1 200\ncfn=copy\ncalls=1 0x50\n0x24 2 10\nfn=copy\n0x50 1 4\ncob=/lib/c\n\
                    cfn=memcpy\ncalls=1 0x90\n0x54 1 36\nob=/lib/c\nfn=memcpy\n0x90 1 36\n";
        let profile = Profile::parse(text).expect("it is well formed");
        let by_address = [(0x10, "join"), (0x14, "join"), (0x20, "decode"), (0x24, "decode")];
        let stages = Stages { object: "/bin/a".into(), by_address: by_address.into() };
        let charged = charge(&profile, &stages);
        assert_eq!(charged.get("join").map(|f| f.round()), Some(130.0));
        assert_eq!(charged.get("decode").map(|f| f.round()), Some(210.0));
    }

    #[test]
    fn an_instruction_belongs_to_the_innermost_function_that_is_ours() {
        let frame = |name: &str, file: &str| (name.to_owned(), file.to_owned());
        let probe = frame("find", "/registry/hashbrown-0.17/src/raw.rs:7");
        let join = frame("Join::apply", "/x/crates/pipeline/src/join.rs:9");
        let lane = frame("LanePipeline>::event", "/x/crates/pipeline/src/lane.rs:3");
        assert_eq!(stage(&[probe.clone(), join.clone(), lane.clone()]), Some("join"));
        assert_eq!(stage(&[lane]), Some("lane: what ties the stages"));
        assert_eq!(stage(&[probe]), None);
        let drop = frame("marquee_pipeline::join::Join::drop_before", &join.1);
        assert_eq!(stage(&[join, drop]), Some(EXPIRY));
    }
}
