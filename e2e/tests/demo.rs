//! `marquee demo` in its two processes: the one that counts is killed while members send, comes back,
//! and has lost nothing that it had acknowledged; connections wait meanwhile; both end together.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::Data;
use marquee_e2e::kafka::broker;
use marquee_e2e::program::{marquee, root, run};
use marquee_e2e::service::{Service, post};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than a start takes on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What no title of the catalogue is called.
const VIDEO: &str = "seen-by-this-test";

fn demo(data: &Path, rate: u32) -> Command {
    let mut command = marquee(["demo", "--port", "0", "--rate", &rate.to_string(), "--data"]);
    command.arg(data);
    command
}

/// The state and the parent of a process; `None` where there is none.
fn state_of(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|(state, _)| state != "Z")
}

/// The processor of a demo, another one than `old`.
#[track_caller]
fn processor_of(demo: &Service, old: Option<u32>) -> u32 {
    let mut found = None;
    wait_until("a processor", || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_child =
            |pid: &u32| state_of(*pid).is_some_and(|(state, of)| of == demo.pid() && state != "Z");
        found = pids.filter(is_child).find(|pid| Some(*pid) != old);
        found.is_some()
    });
    found.unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(arguments: &[impl AsRef<OsStr>]) {
    assert!(Command::new("kill").args(arguments).status().unwrap().success());
}

fn kill_9(pid: u32) {
    kill(&["-KILL".to_owned(), pid.to_string()]);
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A line that the demo takes, of a request of its own.
fn event(number: usize, more: &str) -> String {
    let id = format!("00000000-0000-4000-8000-{number:012x}");
    let now_ms = now_ms();
    format!("{{\"request_id\":\"{id}\",\"video_id\":\"{VIDEO}\",\"ts\":{now_ms}{more}}}\n")
}

/// How many events the members of a demo that has ended say were accepted.
#[track_caller]
fn accepted(log: &Path) -> u64 {
    let said = std::fs::read_to_string(log).unwrap();
    let line = said.lines().find_map(|line| line.strip_suffix(" events were sent and accepted."));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no sum in:\n{said}"))
}

/// The configuration of a service that goes on with what a demo has left in a folder.
fn config_in(data: &Path) -> PathBuf {
    let config = std::fs::read_to_string(root().join("examples/demo.toml")).unwrap();
    let config = config.replace("[http]\n", "[http]\nlisten = \"127.0.0.1:0\"\n");
    assert!(config.contains("127.0.0.1:0"));
    let path = data.join("demo.toml");
    std::fs::write(&path, config).unwrap();
    path
}

/// Requests that showed and that played this test's video, by what the store has.
#[track_caller]
fn counted(config: &Path) -> (usize, usize) {
    let trends = run(marquee(["trends", "--format", "csv", "-c"]).arg(config)).expect_code(0);
    let cells = cells::of_csv(&trends.stdout).into_iter().filter(|cell| cell.video == VIDEO);
    let add = |sum: (usize, usize), cell: cells::Cell| {
        (sum.0 + cell.impressions as usize, sum.1 + cell.plays as usize)
    };
    cells.fold((0, 0), add)
}

#[test]
fn what_was_acknowledged_is_counted_however_often_the_processor_is_killed() {
    const BODIES: usize = 200;
    const REQUESTS: usize = 10;
    let data = Data::of("", "");
    let (folder, log) = (data.file("demo"), data.file("demo.log"));
    let service = Service::of(&mut demo(&folder, 500), &log);
    let sent = AtomicUsize::new(0);
    let send = |kind: &str, body: &str| {
        while !post(&service.address, kind, body.as_bytes()).is_ok_and(|(code, _)| code == 202) {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for body in 0..BODIES {
                let requests = body * REQUESTS..(body + 1) * REQUESTS;
                let shown = requests.clone().map(|request| event(request, ",\"device\":\"tv\""));
                send("impressions", &shown.collect::<String>());
                // Every other request plays it.
                let played =
                    requests.step_by(2).map(|request| event(request, ",\"duration_s\":60"));
                send("plays", &played.collect::<String>());
                sent.store(body + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut old = None;
        for share in [20, 45, 70] {
            wait_until("what was sent", || sent.load(Ordering::SeqCst) * 100 >= share * BODIES);
            let pid = processor_of(&service, old);
            kill_9(pid);
            let killed = Instant::now();
            let again = processor_of(&service, Some(pid));
            assert_ne!(pid, again);
            let healthy = || post(&service.address, "impressions", b"").is_ok();
            wait_until("an answer of the next processor", healthy);
            assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
            old = Some(pid);
        }
        wait_until("everything was sent", || sent.load(Ordering::SeqCst) == BODIES);
    });
    assert_eq!(service.terminate(), Some(0));
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("was killed by signal 9; it is started again").count(), 3, "{said}");

    let config = config_in(&folder);
    assert_eq!(counted(&config), (BODIES * REQUESTS, BODIES * REQUESTS / 2));
    // What is in the log, the events whose answer was lost and that were sent again with it.
    let own = (BODIES * REQUESTS * 3 / 2) as u64;
    let members = accepted(&log);
    assert!(members > 500, "members did not send: {members}");
    let later = Service::start(&config, &data.file("later.log"));
    let status = later.wait_until_counted(members + own);
    assert_eq!(status["totals"]["dead"], 0, "{status}");
    assert_eq!(status["totals"]["late"], 0, "{status}");
    assert_eq!(later.terminate(), Some(0));
}

#[test]
fn connections_wait_while_there_is_no_processor() {
    let data = Data::of("", "");
    let service = Service::of(&mut demo(&data.file("demo"), 200), &data.file("demo.log"));
    let old = processor_of(&service, None);
    // Nobody starts the next one until somebody has come.
    service.signal("STOP");
    kill_9(old);
    wait_until("it is dead", || !is_alive(old));
    let address = service.address.clone();
    let body = event(1, ",\"device\":\"tv\"");
    let waits = std::thread::spawn(move || post(&address, "impressions", body.as_bytes()));
    std::thread::sleep(Duration::from_millis(700));
    assert!(!waits.is_finished(), "nobody is there, and it is answered: {:?}", waits.join());
    service.signal("CONT");
    let (code, answer) = waits.join().unwrap().expect("it was not refused and not cut off");
    assert_eq!(code, 202, "{answer}");
    assert_ne!(processor_of(&service, None), old);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn on_kafka_the_next_processor_goes_on_counting() {
    let Some(brokers) = broker() else { return };
    let data = Data::of("", "");
    let log = data.file("demo.log");
    let mut command = marquee(["demo", "--port", "0", "--rate", "200", "--log"]);
    let service = Service::of(command.arg(format!("kafka://{brokers}")), &log);
    let send = |number| {
        let body = event(number, ",\"device\":\"tv\"");
        let sent = || post(&service.address, "impressions", body.as_bytes());
        wait_until("a 202", || sent().is_ok_and(|(code, _)| code == 202));
    };
    let shown = |requests: u64| {
        wait_until("the count", || {
            let trends = service.get(&format!("/v1/trends?video={VIDEO}"));
            let cells = trends["cells"].as_array().unwrap().iter();
            cells.map(|cell| cell["impressions"].as_u64().unwrap()).sum::<u64>() == requests
        });
    };
    send(1);
    shown(1);
    let processor = processor_of(&service, None);
    kill_9(processor);
    let killed = Instant::now();
    let _ = processor_of(&service, Some(processor));
    send(2);
    shown(2);
    println!("counted {:?} after the kill", killed.elapsed());
    assert_eq!(service.terminate(), Some(0));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("left behind"), "{said}");
}

/// What was acknowledged is counted even if nobody is there to count it when the end is asked for.
#[test]
fn a_processor_that_is_killed_at_the_end_is_started_once_more() {
    let data = Data::of("", "");
    let (folder, log) = (data.file("demo"), data.file("demo.log"));
    let service = Service::of(&mut demo(&folder, 200), &log);
    let shown: String = (0..500).map(|request| event(request, ",\"device\":\"tv\"")).collect();
    assert_eq!(post(&service.address, "impressions", shown.as_bytes()).unwrap().0, 202);
    let processor = processor_of(&service, None);
    service.signal("STOP");
    kill_9(processor);
    // It is heard when the supervisor goes on, with the end of the processor.
    service.signal("TERM");
    service.signal("CONT");
    assert_eq!(service.wait_within(PATIENCE), Some(0));
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("it is started again").count(), 1, "{said}");
    assert_eq!(counted(&config_in(&folder)), (500, 0));
}

#[test]
fn without_its_supervisor_the_processor_ends() {
    let data = Data::of("", "");
    let folder = data.file("demo");
    let service = Service::of(&mut demo(&folder, 200), &data.file("demo.log"));
    let processor = processor_of(&service, None);
    assert!(is_alive(processor));
    service.kill();
    wait_until("the processor has ended", || !is_alive(processor));
    // Nobody has the store open any more.
    run(demo(&folder, 200).args(["--for", "1s"])).expect_code(0);
}

/// The terminal tells both of them; what they leave behind is what an end leaves that was asked for.
#[test]
fn a_terminal_that_is_closed_ends_it() {
    let data = Data::of("", "");
    let (log, temporary) = (data.file("demo.log"), data.file("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let mut command = marquee(["demo", "--port", "0", "--rate", "200"]);
    let service = Service::of(command.env("TMPDIR", &temporary), &log);
    let processor = processor_of(&service, None);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    assert!(
        Command::new("kill").args(["-HUP", &processor.to_string()]).status().unwrap().success()
    );
    service.signal("HUP");
    assert_eq!(service.wait_within(PATIENCE), Some(0));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("started again"), "{said}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "its folder is gone");
}

#[test]
fn a_processor_that_always_ends_is_given_up() {
    let data = Data::of("", "");
    let log = data.file("demo.log");
    let service = Service::of(&mut demo(&data.file("demo"), 200), &log);
    let mut old = None;
    for _ in 0..6 {
        let pid = processor_of(&service, old);
        kill_9(pid);
        old = Some(pid);
    }
    assert_eq!(service.wait_within(PATIENCE), Some(1));
    let said = std::fs::read_to_string(&log).unwrap();
    let words = "error: the processor of the demo has ended 6 times within a minute, at last it was \
                 killed by signal 9";
    assert!(said.contains(words), "{said}");
    assert_eq!(said.matches("it is started again").count(), 5, "{said}");
}

#[test]
fn it_ends_by_itself_and_says_where_operators_go() {
    let flags = ["demo", "--port", "0", "--for", "2s", "--rate", "500"];
    let finished = run(&mut marquee(flags)).expect_code(0);
    let said = String::from_utf8(finished.stdout.clone()).unwrap();
    let address = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("{said}")).trim_end();
    assert!(address.starts_with("http://127.0.0.1:") && !address.contains('\n'), "{said}");
    let link = format!("Open {address} to watch, {address}/ops#token=");
    let finished = finished.expect_words(&link).expect_words(" to operate; Ctrl-C ends it.");
    let sum = finished.stderr.lines().last().unwrap_or_default();
    let sum = sum.strip_suffix(" events were sent and accepted.").unwrap().parse::<u64>().unwrap();
    assert!((300..2_500).contains(&sum), "{sum}");
}

#[test]
fn the_token_goes_to_the_processor_and_stands_on_no_command_line() {
    let data = Data::of("", "");
    let service = Service::of(&mut demo(&data.file("demo"), 100), &data.file("demo.log"));
    let mut token = None;
    wait_until("the link", || {
        let said = service.said();
        let after = said.split_once("/ops#token=").map(|(_, after)| after.to_owned());
        token = after.and_then(|after| Some(after.split_once(' ')?.0.to_owned()));
        token.is_some()
    });
    let token = token.unwrap();
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let processor = processor_of(&service, None);
    let of = |file: &str| std::fs::read(format!("/proc/{processor}/{file}")).unwrap();
    let (environment, line) = (of("environ"), of("cmdline"));
    let (environment, line) =
        (String::from_utf8_lossy(&environment), String::from_utf8_lossy(&line));
    let variable = format!("MARQUEE_HTTP_TOKEN={token}");
    assert!(environment.split('\0').any(|one| one == variable), "not in its environment");
    assert!(line.contains("demo-processor") && !line.contains(&token), "{line}");
    assert_eq!(service.terminate(), Some(0));
}

/// A terminal sends Ctrl-C to every process of the group.
#[test]
fn ctrl_c_reaches_both_and_the_supervisor_decides() {
    let data = Data::of("", "");
    let log = data.file("demo.log");
    let service = Service::of(demo(&data.file("demo"), 500).process_group(0), &log);
    let processor = processor_of(&service, None);
    std::thread::sleep(Duration::from_secs(1));
    kill(&["-INT".to_owned(), "--".to_owned(), format!("-{}", service.pid())]);
    assert_eq!(service.wait_within(PATIENCE), Some(0));
    assert!(!is_alive(processor));
    assert!(accepted(&log) > 0);
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("started again"), "{said}");
}

#[test]
fn a_demo_that_cannot_start_says_why_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished = run(&mut marquee(["demo", "--for", "1s", "--port", &port])).expect_code(1);
    let finished = finished.expect_words(&format!("cannot listen on 127.0.0.1:{port}"));
    assert!(finished.expect_words("take another --port").stdout.is_empty());

    let data = Data::of("", "");
    let folder = data.file("demo");
    let first = Service::of(&mut demo(&folder, 100), &data.file("demo.log"));
    let second = run(demo(&folder, 100).args(["--for", "1s"])).expect_code(1);
    assert_eq!(second.stderr.matches("error: ").count(), 1, "{}", second.stderr);
    assert!(!second.stderr.contains("started again"), "{}", second.stderr);
    assert!(second.stdout.is_empty());
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn the_processor_is_nobodys_command() {
    let help = run(&mut marquee(["--help"])).expect_code(0);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("demo") && !help.contains("demo-processor"), "{help}");
    let data = Data::of("", "");
    let by_hand = run(marquee(["demo-processor", "--data"]).arg(data.file("demo"))).expect_code(2);
    by_hand.expect_words("this is the part of `marquee demo` that it starts by itself; run that");
}
