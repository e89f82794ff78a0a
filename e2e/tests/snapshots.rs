//! The service goes on from snapshots of its state: killed with -9, with both snapshots of each lane,
//! with the newer one damaged, with both damaged, and with none. Whatever it begins with, its cells
//! and members are those of a backfill.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::{Data, example};
use marquee_e2e::members;
use marquee_e2e::program::{marquee, run};
use marquee_e2e::service::{Feed, Service, post};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LANES: usize = 4;
const LOADED: &str = "the state was taken from a snapshot";
const DAMAGED: &str = "a snapshot cannot be used: it is damaged";

/// The reference job with a log and a store of its own, by the name of a folder.
fn config(data: &Data, name: &str, folder: &str, interval: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let path = data.file(folder);
    let own = format!(
        "{reference}\n[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[snapshots]\ninterval = \"{interval}\"\n",
        path.display()
    );
    data.write(name, own)
}

/// What is done to the snapshots of a lane, how many lanes go on from one, and how many are said to
/// be damaged.
type Round<'a> = (&'a dyn Fn(usize), usize, usize);

/// All bodies of both topics, in the order in which they are sent.
struct Sender {
    bodies: std::vec::IntoIter<(&'static str, Vec<u8>)>,
}

impl Sender {
    fn of(data: &Data) -> Sender {
        let [shown, played] =
            [(&data.impressions, "impressions"), (&data.plays, "plays")].map(|(file, kind)| {
                Feed::of(file, kind, 1500)
                    .bodies()
                    .iter()
                    .map(|b| (kind, b.clone()))
                    .collect::<Vec<_>>()
            });
        let (mut bodies, mut played) = (Vec::new(), played.into_iter());
        let every = shown.len() / played.len().max(1) + 1;
        for (number, body) in shown.into_iter().enumerate() {
            bodies.push(body);
            if number % every == 0 {
                bodies.extend(played.next());
            }
        }
        bodies.extend(played);
        Sender { bodies: bodies.into_iter() }
    }

    fn send(&mut self, service: &Service) -> bool {
        let Some((kind, body)) = self.bodies.next() else { return false };
        assert_eq!(post(&service.address, kind, &body).unwrap().0, 202);
        true
    }

    /// Sends until each lane has two snapshots that were taken since the last start.
    fn until_two_each(&mut self, service: &Service, store: &Path, before: &BTreeSet<PathBuf>) {
        let is_done = || {
            let new =
                |lane| snapshots(store, lane).into_iter().filter(|s| !before.contains(s)).count();
            (0..LANES).all(|lane| new(lane) >= 2)
        };
        while !is_done() {
            assert!(
                self.send(service),
                "all was sent before there were two snapshots of each lane"
            );
            std::thread::sleep(Duration::from_millis(40));
        }
        // Something that no snapshot holds.
        assert!(self.send(service));
    }
}

/// The snapshots of a lane, oldest first.
fn snapshots(store: &Path, lane: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.join(format!("snapshots/lane-{lane}")));
    let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "snapshot")).collect();
    paths.sort();
    paths
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn replayed(service: &Service) -> u64 {
    let mut answer = ureq::get(&format!("{}/metrics", service.address)).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let rows = text.lines().filter(|row| row.starts_with("marquee_replayed_records_total{"));
    rows.map(|row| row.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

fn count(service: &Service, words: &str) -> usize {
    service.said().matches(words).count()
}

#[test]
fn killed_with_good_damaged_and_no_snapshots_it_counts_what_a_backfill_counts() {
    let data = Data::generated(30_000, 19);
    let often = config(&data, "often.toml", "snap-data", "50ms");
    let (log, store) = (data.file("snap.log"), data.file("snap-data/store"));
    let mut sender = Sender::of(&data);
    let (mut before, mut loaded, mut damaged) = (BTreeSet::new(), 0, 0);
    let mut service = Service::start(&often, &log);
    let all = |lane: usize| snapshots(&store, lane);
    let newest = |lane: usize| flip(all(lane).last().unwrap());
    let both = |lane: usize| all(lane).iter().for_each(|snapshot| flip(snapshot));
    let none = |_: usize| {};
    let rounds: [Round<'_>; 3] =
        [(&none, LANES, 0), (&newest, LANES, LANES), (&both, 0, 2 * LANES)];
    for (harm, loads, harmed) in rounds {
        sender.until_two_each(&service, &store, &before);
        service.kill();
        (0..LANES).for_each(harm);
        before = (0..LANES).flat_map(all).collect();
        service = Service::start(&often, &log);
        let status = service.wait_until_counted(0);
        loaded += loads;
        damaged += harmed;
        assert_eq!(count(&service, LOADED), loaded, "{}", service.said());
        assert_eq!(count(&service, DAMAGED), damaged, "{}", service.said());
        let events = status["totals"]["events"].as_u64().unwrap();
        let share = replayed(&service) as f64 / events as f64;
        assert!((share < 0.7) == (loads > 0), "{share} of {events} were read again");
    }
    // Without any: as it ever was.
    while sender.send(&service) {}
    service.kill();
    std::fs::remove_dir_all(store.join("snapshots")).unwrap();
    let never = config(&data, "never.toml", "snap-data", "0s");
    let service = Service::start(&never, &log);
    let lines = |file: &Path| std::fs::read_to_string(file).unwrap().lines().count() as u64;
    let events = lines(&data.impressions) + lines(&data.plays);
    let status = service.wait_until_counted(events);
    assert_eq!(
        (&status["totals"]["events"], &status["totals"]["late"]),
        (&events.into(), &0.into())
    );
    assert_eq!(count(&service, LOADED), loaded);
    assert!(!store.join("snapshots").exists());
    assert_eq!(service.terminate(), Some(0));
    judge(&data, &never, &store);
}

/// Counts and members are those of a backfill.
fn judge(data: &Data, config_of_store: &Path, store: &Path) {
    let csv = run(marquee(["trends", "--format", "csv", "-c"]).arg(config_of_store)).expect_code(0);
    let expected = cells::of_csv(&data.cells(&mut data.backfill(&example("reference.toml"))));
    cells::assert_same(&cells::of_csv(&csv.stdout), &expected);
    let into = config(data, "into.toml", "into-data", "0s");
    run(&mut data.backfill(&into)).expect_code(0);
    let members_of = |store: &Path| {
        let file = data.file("members.csv");
        members::write(&[store], &file);
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (found, expected) = (members_of(store), members_of(&data.file("into-data/store")));
    assert!(found.len() > 10_000 && found == expected, "{} and {}", found.len(), expected.len());
}

#[test]
fn a_stop_leaves_a_snapshot_and_the_next_start_reads_nothing_again() {
    let data = Data::generated(5_000, 20);
    let seldom = config(&data, "seldom.toml", "stop-data", "1d");
    let (log, store) = (data.file("stop.log"), data.file("stop-data/store"));
    let mut sender = Sender::of(&data);
    let service = Service::start(&seldom, &log);
    while sender.send(&service) {}
    assert!((0..LANES).all(|lane| snapshots(&store, lane).is_empty()));
    assert_eq!(service.terminate(), Some(0));
    assert!((0..LANES).all(|lane| snapshots(&store, lane).len() == 1));
    let began = Instant::now();
    let service = Service::start(&seldom, &log);
    service.wait_until_counted(0);
    assert_eq!((count(&service, LOADED), replayed(&service)), (LANES, 0), "{:?}", began.elapsed());
    // A newer program's is not ours to use nor to remove; settings in another order are others.
    assert_eq!(service.terminate(), Some(0));
    for lane in 0..LANES {
        let path = &snapshots(&store, lane)[0];
        let mut bytes = std::fs::read(path).unwrap();
        bytes[8] = 99;
        std::fs::write(path, bytes).unwrap();
    }
    let service = Service::start(&seldom, &log);
    service.wait_until_counted(0);
    assert_eq!(count(&service, "it has version 99"), LANES, "{}", service.said());
    assert!(replayed(&service) > 10_000);
    assert_eq!(service.terminate(), Some(0));
    assert!((0..LANES).all(|lane| snapshots(&store, lane).len() == 2), "one of each version");
    judge(&data, &seldom, &store);
}
