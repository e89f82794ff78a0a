//! How much of what is counted one client may add, before it is in the log: what is there is counted.
//!
//! A client is who connects, or whom a proxy names; a network of 64 bits where it has an IPv6 address,
//! since whoever has one has all of them. What is known of clients is bounded: of more than two times
//! [`MOST`] in an hour the ones that were silent for longest are forgotten, and begin anew.

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use marquee_model::Kind;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard};

/// Entries of each of two tables.
const MOST: usize = 100_000;

/// A client that was silent may send so many times its rate at once.
const BURST: f64 = 10.0;

const HOUR_MS: i64 = 3_600_000;

/// Nobody owes more than what comes in so many seconds.
const DEBT_S: f64 = 3600.0;

/// What one client may do. 0: any number.
#[derive(Clone, Debug, Default)]
pub struct ClientLimits {
    /// Events a second, for long.
    pub rate: u32,
    /// Events of one kind for one video within an hour.
    pub video_events: u32,
    /// The header in which a proxy names the client, in lower case; empty: there is none.
    pub header: String,
}

/// A client, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client(IpAddr);

impl Client {
    /// Who has sent a request; `None`: nobody knows.
    pub(super) fn of(
        limits: &ClientLimits,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Option<Client> {
        let named = match limits.header.as_str() {
            "" => None,
            // What stands before the last entry was written by the client itself.
            name => headers.get_all(name).iter().next_back().and_then(|value| {
                value.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
            }),
        };
        let peer = || extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        named.or_else(peer).map(|ip| Client(network(ip)))
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// What clients have sent lately.
pub(crate) struct Clients {
    limits: ClientLimits,
    hasher: RandomState,
    rates: Mutex<Table<Client, Bucket>>,
    /// By client, kind and video.
    videos: Mutex<Table<u64, Sent>>,
}

/// A token bucket: how many events may come now, and when that was so. Less than none is a debt.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    since_ms: i64,
}

impl Bucket {
    fn pay(&mut self, events: u64, rate: f64) {
        self.tokens = (self.tokens - events as f64).max(-rate * DEBT_S);
    }
}

/// One event that was taken of those that a client may add to a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Added {
    key: u64,
    hour: i64,
}

/// A client has added as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Clone, Copy)]
struct Sent {
    hour: i64,
    events: u32,
}

impl Clients {
    pub(crate) fn new(limits: ClientLimits) -> Self {
        let hasher = RandomState::new();
        Clients { limits, hasher, rates: Mutex::default(), videos: Mutex::default() }
    }

    pub(super) fn limits(&self) -> &ClientLimits {
        &self.limits
    }

    /// Takes events of a client; `Err`: in so many seconds there is room for them.
    pub(super) fn take(&self, client: Option<Client>, events: u64, now_ms: i64) -> Result<(), u32> {
        let (Some(client), rate) = (client, f64::from(self.limits.rate)) else { return Ok(()) };
        if rate == 0.0 {
            return Ok(());
        }
        let full = rate * BURST;
        let mut rates = lock(&self.rates);
        let bucket = rates.entry(client, || Bucket { tokens: full, since_ms: now_ms });
        let passed_s = (now_ms - bucket.since_ms).max(0) as f64 / 1000.0;
        bucket.tokens = (bucket.tokens + passed_s * rate).min(full);
        bucket.since_ms = bucket.since_ms.max(now_ms);
        // More than a bucket holds passes when it is full, and its client waits for longer afterwards.
        let needed = (events as f64).min(full);
        if bucket.tokens < needed {
            return Err(((needed - bucket.tokens) / rate).ceil().clamp(1.0, DEBT_S) as u32);
        }
        bucket.pay(events, rate);
        Ok(())
    }

    /// Takes what the items of a client had in them besides one event each, which is known only when
    /// they have been read: it is owed, and the client waits the longer before it may send again.
    pub(super) fn owe(&self, client: Option<Client>, events: u64) {
        let Some(client) = client.filter(|_| self.limits.rate > 0) else { return };
        let mut rates = lock(&self.rates);
        // One that is forgotten already was silent, or is one of very many.
        if let Some(bucket) = rates.known(&client) {
            bucket.pay(events, f64::from(self.limits.rate));
        }
    }

    /// Takes one of the events that a client may add to a video; `Err`: none is left. What becomes of no
    /// event is to be given back.
    pub(super) fn add(
        &self,
        client: Option<Client>,
        kind: Kind,
        video: &str,
        now_ms: i64,
    ) -> Result<Option<Added>, Full> {
        let (Some(client), most) = (client, self.limits.video_events) else { return Ok(None) };
        if most == 0 {
            return Ok(None);
        }
        let hour = now_ms.div_euclid(HOUR_MS);
        let key = self.hasher.hash_one((client, kind.plural(), video));
        let mut videos = lock(&self.videos);
        let sent = videos.entry(key, || Sent { hour, events: 0 });
        if sent.hour != hour {
            *sent = Sent { hour, events: 0 };
        }
        if sent.events >= most {
            return Err(Full);
        }
        sent.events += 1;
        Ok(Some(Added { key, hour }))
    }

    /// Gives back what was taken for events that were not kept.
    pub(super) fn give_back(&self, added: &[Added]) {
        if added.is_empty() {
            return;
        }
        let mut videos = lock(&self.videos);
        for Added { key, hour } in added {
            if let Some(sent) = videos.known(key).filter(|sent| sent.hour == *hour) {
                sent.events = sent.events.saturating_sub(1);
            }
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // Numbers: usable whatever happened to whoever held them.
    table.lock().unwrap_or_else(|e| e.into_inner())
}

/// A table that forgets: what nobody has asked for since the last [`MOST`] new entries.
struct Table<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> {
    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let known = self.old.remove(&key);
        if self.young.len() >= MOST && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert_with(|| known.unwrap_or_else(new))
    }

    fn known(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn client(ip: &str) -> Option<Client> {
        Some(Client(network(ip.parse().expect("an address"))))
    }

    fn clients(rate: u32, video_events: u32) -> Clients {
        Clients::new(ClientLimits { rate, video_events, header: String::new() })
    }

    #[test]
    fn a_client_that_sends_too_fast_is_told_when_to_come_again() {
        let clients = clients(10, 0);
        let one = client("192.0.2.1");
        assert_eq!(clients.take(one, 100, 0), Ok(()), "ten times the rate at once");
        assert_eq!(clients.take(one, 1, 0), Err(1));
        assert_eq!(clients.take(one, 50, 1_000), Err(4));
        assert_eq!(clients.take(client("192.0.2.2"), 100, 0), Ok(()), "others are not concerned");
        assert_eq!(clients.take(one, 10, 1_000), Ok(()));
        // More than a bucket holds, once it is full; it is paid for afterwards.
        assert_eq!(clients.take(one, 1_000, 60_000), Ok(()));
        assert_eq!(clients.take(one, 1, 60_000), Err(91));
        assert_eq!(clients.take(one, 1, 151_000), Ok(()));
        // What is known to be more only when it was read.
        assert_eq!(clients.take(one, 1, 200_000), Ok(()));
        clients.owe(one, 199);
        assert_eq!(clients.take(one, 1, 200_000), Err(11));
        clients.owe(one, u64::MAX);
        assert_eq!(clients.take(one, 1, 200_000), Err(3600));
        assert_eq!(clients.take(one, 1, 3_900_000), Ok(()), "an hour is the worst");
        clients.owe(client("192.0.2.9"), 1);
        clients.owe(None, 1);
        assert_eq!(clients.take(None, 1_000_000, 0), Ok(()));
        assert_eq!(self::clients(0, 0).take(one, u64::MAX, 0), Ok(()));
    }

    #[test]
    fn a_video_gets_only_so_many_events_of_a_client_within_an_hour() {
        let clients = clients(0, 3);
        let one = client("2001:db8::1");
        let neighbour = client("2001:db8::ffff");
        let add = |client, kind, video, now_ms| clients.add(client, kind, video, now_ms).is_ok();
        assert!((0..3).all(|_| add(one, Kind::Play, "v", 0)));
        assert!(!add(one, Kind::Play, "v", 1) && !add(neighbour, Kind::Play, "v", 2));
        assert!(add(one, Kind::Impression, "v", 3) && add(one, Kind::Play, "w", 3));
        assert!(add(client("2001:db8:1::1"), Kind::Play, "v", 3), "another network");
        assert!(add(one, Kind::Play, "v", HOUR_MS));
        // What was not kept may be sent again, and what is of another hour is nobody's any more.
        let added = |now_ms| clients.add(one, Kind::Play, "v", now_ms).ok().flatten();
        let taken: Vec<Added> = (0..2).filter_map(|_| added(HOUR_MS)).collect();
        assert!(taken.len() == 2 && added(HOUR_MS).is_none());
        clients.give_back(&taken[..1]);
        assert!(added(HOUR_MS).is_some() && added(HOUR_MS).is_none());
        assert!(added(2 * HOUR_MS).is_some());
        clients.give_back(&taken);
        assert_eq!((0..9).filter_map(|_| added(2 * HOUR_MS)).count(), 2);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let clients = clients(1, 0);
        let all = 5 * MOST as u32;
        for number in 0..all {
            let ip = IpAddr::V4((0x0b00_0000 + number).into());
            let _ = clients.take(Some(Client(ip)), 10, 0);
        }
        let rates = lock(&clients.rates);
        assert!(rates.young.len() <= MOST && rates.old.len() <= MOST);
    }

    #[test]
    fn a_proxy_names_the_client() {
        let limits = ClientLimits { header: "x-forwarded-for".into(), ..ClientLimits::default() };
        let mut extensions = Extensions::new();
        let peer: SocketAddr = "10.0.0.1:5".parse().expect("an address");
        extensions.insert(ConnectInfo(peer));
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap| Client::of(&limits, headers, &extensions);
        assert_eq!(of(&headers), client("10.0.0.1"));
        let value = HeaderValue::from_static("198.51.100.7, 192.0.2.9");
        headers.insert("x-forwarded-for", value);
        assert_eq!(of(&headers), client("192.0.2.9"), "the first was written by whoever came");
        headers.insert("x-forwarded-for", HeaderValue::from_static("nonsense"));
        assert_eq!(of(&headers), client("10.0.0.1"));
    }
}
