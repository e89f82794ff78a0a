//! One lane goes from owner to owner: processes with stores of their own, that stop, die before or
//! after their commits, and find the log trimmed.
//!
//! The real owner threads run against a log in memory, whose commits may get lost, and stores in
//! memory, which check every write. `marquee-oracle` says what the sets are.
//! `MARQUEE_CASES=10000 cargo test -p marquee-runtime --test takeover` looks longer.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

#[path = "takeover/history.rs"]
mod history;
#[path = "takeover/log.rs"]
mod log;
#[path = "takeover/snapshots.rs"]
mod snapshots;
#[path = "takeover/store.rs"]
mod store;

use history::{End, History, PROCESSES, Run, plan};
use log::{Log, ScriptedSource};
use marquee_oracle::{Member, Side};
use marquee_runtime::SystemClock;
use marquee_runtime::lanes::{Lanes, LanesSettings, SnapshotsSettings, StateFolder, StateMemory};
use marquee_sinks::letters::LetterFolder;
use marquee_sources::Source;
use proptest::prelude::*;
use snapshots::MemorySnapshots;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::MemoryStore;

/// Counts by cell.
type Counts = BTreeMap<marquee_model::CellKey, marquee_model::CellCounts>;

fn config() -> ProptestConfig {
    let asked = std::env::var("MARQUEE_CASES").ok().and_then(|text| text.parse().ok());
    let slow = std::env::var_os("MARQUEE_SLOW").is_some();
    let cases = asked.unwrap_or(if slow { 3_000 } else { 300 });
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whoever_has_the_lane_the_stores_together_hold_the_oracles_sets(history in history::any()) {
        let world = World::play(&history);
        world.judge(&history)?;
    }
}

#[test]
fn a_lane_that_comes_back_to_a_store_that_is_behind() {
    let history = history::comes_back();
    World::play(&history).judge(&history).unwrap();
}

/// What is left when all processes have run.
struct World {
    stores: Vec<Arc<MemoryStore>>,
    /// (topic, offset) of every event in a late output.
    late: BTreeSet<(usize, u64)>,
    log: Arc<Mutex<Log>>,
}

impl World {
    fn play(history: &History) -> World {
        let letters = tempfile::tempdir().unwrap();
        let log = Arc::new(Mutex::new(Log::new(&history.topics)));
        let stores: Vec<Arc<MemoryStore>> = (0..PROCESSES).map(|_| Arc::default()).collect();
        let snapshots: Vec<Arc<MemorySnapshots>> = (0..PROCESSES).map(|_| Arc::default()).collect();
        for run in &history.runs {
            let folder = letters.path().join(run.process.to_string());
            snapshots[run.process].damage(run.damage);
            let process = (&stores[run.process], &snapshots[run.process]);
            run_one(history, run, &log, process, &folder);
            if std::env::var_os("MARQUEE_TRACE").is_some() {
                let said = &log.lock().unwrap().commit;
                eprintln!("{run:?}\n  group {said:?}\n  store {:?}", stores[run.process]);
                eprintln!("  snapshots, opened {:?}", snapshots[run.process].use_made());
            }
        }
        let folder = |process: usize| letters.path().join(process.to_string());
        let late = (0..PROCESSES).flat_map(|process| late_of(&folder(process))).collect();
        World { stores, late, log }
    }

    fn judge(&self, history: &History) -> Result<(), TestCaseError> {
        let events = history.oracle_events();
        let proofs = marquee_oracle::proofs(&events, &history.oracle_settings());
        let union: BTreeSet<Member> = self.stores.iter().flat_map(|s| s.members()).collect();
        for member in &union {
            prop_assert!(proofs.contains_key(member), "a wrong member: {:?}", member);
        }
        // Contract 2: what is missing would be added by the late output; contract 4: or its cell
        // says that it may lack members.
        let trimmed = |member: &Member| self.stores.iter().any(|s| s.doubts(member, "trimmed"));
        let last = &self.stores[history.runs.last().unwrap().process];
        let own = last.members();
        for (member, proofs) in &proofs {
            if !union.contains(member) && !trimmed(member) {
                self.is_late(history, proofs, member)?;
            }
            // The last owner has read everything: where its store admits no doubt, it has all.
            if !own.contains(member) && !last.doubts_at_all(member) {
                self.is_late(history, proofs, member)?;
            }
        }
        Ok(())
    }

    /// Every proof of a member has an event in it that is in a late output; or that was lost before
    /// anybody read it, when the cell was closed already: then it would have been late, and a gap
    /// names its offset.
    fn is_late(
        &self,
        history: &History,
        proofs: &[Vec<usize>],
        member: &Member,
    ) -> Result<(), TestCaseError> {
        let is_late = |event: &usize| {
            let (topic, offset) = history.place_of(*event);
            let closed_ms = member.cell.epoch_start_ms + member.cell.epoch_ms;
            self.late.contains(&(topic, offset))
                || self.stores.iter().any(|s| s.lost_when_closed(topic, offset, closed_ms))
        };
        let in_time = proofs.iter().find(|proof| !proof.iter().any(is_late));
        let Some(proof) = in_time else { return Ok(()) };
        let places: Vec<_> = proof.iter().map(|event| history.place_of(*event)).collect();
        let log = self.log.lock().unwrap();
        Err(TestCaseError::fail(format!(
            "lost: {member:?}, proven by {places:?}; the log starts at {:?}, the group says {:?}",
            log.start, log.commit
        )))
    }
}

/// One process has the lane, until it stops or dies.
fn run_one(
    history: &History,
    run: &Run,
    log: &Arc<Mutex<Log>>,
    (store, snapshots): (&Arc<MemoryStore>, &Arc<MemorySnapshots>),
    letters: &Path,
) {
    let plan = Arc::new(plan());
    let settings = LanesSettings {
        name: LanesSettings::name_of(&plan),
        plan,
        secret: [3; 16],
        batch_interval: Duration::from_millis(1),
        batch_events: run.batch_events,
        memory: StateMemory::new(1 << 20, Arc::new(StateFolder::new(letters.join("state")))),
        letters: Arc::new(LetterFolder::new(letters.to_owned())),
        clock: Arc::new(SystemClock::new(|| 0)),
        checks_partitions: true,
        topic_ids: vec!["one".to_owned(), "two".to_owned()],
        snapshots: run.saves_after_ms.map(|ms| SnapshotsSettings {
            place: snapshots.clone(),
            interval: Duration::from_millis(ms),
        }),
    };
    log.lock().unwrap().trim(run.trims, &history.topics);
    let done = Arc::new(AtomicBool::new(false));
    let source = ScriptedSource::new(log.clone(), run.clone(), done.clone());
    let on_failure = move |_: &str| done.store(true, Ordering::SeqCst);
    let (is_done, is_released) = (source.done(), source.released());
    let sources: Vec<Box<dyn Source>> = vec![Box::new(source)];
    let lanes = Lanes::start(&settings, sources, store.clone(), on_failure);
    while !is_done.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_micros(200));
    }
    if matches!(run.end, End::IsRevoked(_)) && is_released.load(Ordering::SeqCst) {
        let lane = &lanes.status().lanes()[0];
        assert!(!lane.held && !lane.rebuilding, "a lane that was taken away: {lane:?}");
        assert_eq!(lanes.status().reasons_not_ready().len(), 1, "it waits for others");
    }
    // A death is an error that the script made up; every other one is a failed test.
    if let Err(error) = lanes.stop() {
        let is_death = error.to_string().contains(log::DEATH);
        assert!(is_death, "{error}; {:?}; {store:?}", log.lock().unwrap().commit);
    }
    store.check();
}

/// The events in a late output.
fn late_of(folder: &Path) -> Vec<(usize, u64)> {
    let text = std::fs::read_to_string(folder.join("late/lane-0.ndjson")).unwrap_or_default();
    let place = |line: &str| {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        let topic = usize::from(letter["source"] == "plays/0");
        (topic, letter["position"].as_u64().unwrap())
    };
    text.lines().map(place).collect()
}

/// A member as the oracle writes it.
fn member(video: &str, epoch_start_ms: i64, side: Side, request_id: &str) -> Member {
    let cell = marquee_oracle::Cell {
        video: video.to_owned(),
        epoch_ms: history::EPOCH_MS,
        epoch_start_ms,
        slice: String::new(),
    };
    Member { cell, side, request_id: request_id.to_owned() }
}
