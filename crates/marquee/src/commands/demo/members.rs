//! The simulated members: a thread that sends what they show and play, and keeps what was not
//! acknowledged, as a member's client would.

use super::control::Source;
use super::supervisor::Message;
use crate::generate::LiveMembers;
use crate::wiring::now_ms;
use marquee_model::Kind;
use marquee_server::member::catalogue::titles;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often members send what they have collected.
const SEND_EVERY: Duration = Duration::from_millis(100);

/// How long something is in the news, and how much more often it is looked for then.
const EVENT_LASTS_MS: i64 = 120_000;
const EVENT_FACTOR: u32 = 20;

/// Members who send until they are stopped, or their time is over.
pub(super) struct Members {
    stop: Arc<AtomicBool>,
    switches: Sender<Switch>,
    /// How many events were sent and accepted.
    thread: JoinHandle<u64>,
}

/// What changes in their world, and when.
enum Switch {
    Event { video: String, now_ms: i64 },
    Source { kind: Kind, stopped: bool, now_ms: i64 },
}

impl Members {
    /// They send to `base`, and say [`Message::MembersEnded`] when they do no more.
    pub(super) fn start(
        base: String,
        rate: u64,
        until: Option<Instant>,
        messages: Sender<Message>,
    ) -> Members {
        let stop = Arc::new(AtomicBool::new(false));
        let (switches, switched) = channel();
        let start_ms = now_ms();
        let videos = titles().iter().map(|title| title.id.as_str()).collect();
        let client = Client {
            agent: agent(),
            base,
            stop: stop.clone(),
            members: LiveMembers::new(videos, start_ms as u64, start_ms, rate),
            switched,
            accepted: 0,
        };
        let thread = std::thread::spawn(move || {
            let accepted = client.run(until);
            // Nobody listens any more where the demo has failed.
            let _ = messages.send(Message::MembersEnded);
            accepted
        });
        Members { stop, switches, thread }
    }

    /// They send no more than what they are sending now, and try that only once.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// For two minutes a video is what everybody looks for.
    pub(super) fn raise(&self, video: String) {
        // An error says that they have ended: nothing happens in the world any more.
        let _ = self.switches.send(Switch::Event { video, now_ms: now_ms() });
    }

    /// Events of a kind stop, or start.
    pub(super) fn source(&self, kind: Source, stopped: bool) {
        let switch = Switch::Source { kind: kind.into(), stopped, now_ms: now_ms() };
        let _ = self.switches.send(switch);
    }

    /// Stops them; how many events were sent and accepted.
    pub(super) fn finish(self) -> u64 {
        self.stop();
        self.thread.join().expect("the thread of the members does not panic")
    }
}

/// A client for requests to the demo itself.
pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into()
}

/// The client of all members.
struct Client {
    agent: ureq::Agent,
    base: String,
    stop: Arc<AtomicBool>,
    members: LiveMembers,
    switched: Receiver<Switch>,
    accepted: u64,
}

impl Client {
    fn run(mut self, until: Option<Instant>) -> u64 {
        while !self.stops() && until.is_none_or(|until| Instant::now() < until) {
            while let Ok(switch) = self.switched.try_recv() {
                self.switch(&switch);
            }
            let (mut impressions, mut plays) = (Vec::new(), Vec::new());
            for (kind, event) in self.members.take_until(now_ms()) {
                let body = match kind {
                    Kind::Impression => &mut impressions,
                    Kind::Play => &mut plays,
                };
                body.extend_from_slice(&event);
                body.push(b'\n');
            }
            self.send(Kind::Impression, &impressions);
            self.send(Kind::Play, &plays);
            std::thread::sleep(SEND_EVERY);
        }
        self.accepted
    }

    fn switch(&mut self, switch: &Switch) {
        match switch {
            Switch::Event { video, now_ms } => {
                let until_ms = now_ms + EVENT_LASTS_MS;
                if !self.members.raise(video, EVENT_FACTOR, *now_ms, until_ms) {
                    tracing::warn!(video, "nothing happens: no such video is in the catalogue");
                }
            }
            Switch::Source { kind, stopped, now_ms } => {
                self.members.stop(*kind, *stopped, *now_ms);
            }
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends until it is accepted: a member's client keeps what was not acknowledged.
    fn send(&mut self, kind: Kind, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let url = format!("{}/v1/{}", self.base, kind.plural());
        while !self.stops() {
            let sent = self.agent.post(&url).content_type("application/x-ndjson").send(body);
            match sent.map(|answer| answer.status().as_u16()) {
                Ok(202) => {
                    self.accepted += body.iter().filter(|byte| **byte == b'\n').count() as u64;
                    return;
                }
                Ok(status @ (207 | 400..=428)) => {
                    tracing::warn!(status, "the collector refuses what the demo sends: a bug");
                    return;
                }
                Ok(_) | Err(_) => std::thread::sleep(SEND_EVERY),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    /// What came to a collector that takes everything: kind and number of events of each body.
    type Came = Arc<Mutex<Vec<(String, usize)>>>;

    /// A collector on a free port; its address.
    fn collector(came: Came) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let came = came.clone();
                std::thread::spawn(move || take_all(connection.unwrap(), &came));
            }
        });
        format!("http://{address}")
    }

    /// Until the client closes the connection.
    fn take_all(mut connection: TcpStream, came: &Came) {
        let mut from = BufReader::new(connection.try_clone().unwrap());
        loop {
            let mut head = Vec::new();
            while head.last().is_none_or(|line: &String| !line.trim_end().is_empty()) {
                let mut line = String::new();
                if from.read_line(&mut line).unwrap() == 0 {
                    return;
                }
                head.push(line.to_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().trim_end().parse().unwrap()];
            from.read_exact(&mut body).unwrap();
            let kind = if head[0].starts_with("post /v1/plays ") { "plays" } else { "impressions" };
            let events = body.iter().filter(|byte| **byte == b'\n').count();
            came.lock().unwrap().push((kind.to_owned(), events));
            let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
            connection.write_all(answer).unwrap();
        }
    }

    /// Impressions that come within half a second, from a moment on at which the last switch has worked.
    fn impressions(came: &Came) -> usize {
        std::thread::sleep(Duration::from_millis(500));
        let before = came.lock().unwrap().len();
        std::thread::sleep(Duration::from_millis(500));
        let came = came.lock().unwrap();
        let of_kind = came[before..].iter().filter(|(kind, _)| kind == "impressions");
        of_kind.map(|(_, events)| events).sum()
    }

    #[test]
    fn switches_work_while_they_send_and_what_was_accepted_is_told() {
        let came = Came::default();
        let (messages, heard) = channel();
        let members = Members::start(collector(came.clone()), 2_000, None, messages);
        assert!(impressions(&came) > 100);
        members.source(Source::Impressions, true);
        assert_eq!(impressions(&came), 0);
        members.source(Source::Impressions, false);
        assert!(impressions(&came) > 100);
        members.raise("no-such-title".to_owned());
        let accepted = members.finish();
        assert_eq!(accepted as usize, came.lock().unwrap().iter().map(|(_, n)| n).sum::<usize>());
        assert!(matches!(heard.try_recv(), Ok(Message::MembersEnded)));
    }

    #[test]
    fn their_time_ends_by_itself() {
        let (messages, heard) = channel();
        let until = Some(Instant::now() + Duration::from_millis(300));
        let members = Members::start(collector(Came::default()), 1_000, until, messages);
        let first = heard.recv_timeout(Duration::from_secs(30));
        assert!(matches!(first, Ok(Message::MembersEnded)), "{first:?}");
        assert!(members.finish() > 0);
    }
}
