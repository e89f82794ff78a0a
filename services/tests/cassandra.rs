//! Cassandra is what it promises to be: it comes back after `kill -9` with all that it has
//! acknowledged, and three nodes are one cluster that does without one of them.

mod skip;

use marquee_services::{
    Cassandra, CassandraOptions, CassandraRing, CommitlogSync, missing_for_cassandra,
};
use skip::is_there;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The little of a client that is needed here: version 4 of the protocol, one question at a time.
struct Client(TcpStream);

const OPTIONS: u8 = 5;
const SUPPORTED: u8 = 6;
const STARTUP: u8 = 1;
const READY: u8 = 2;
const QUERY: u8 = 7;
const RESULT: u8 = 8;

const ONE: u16 = 1;
const QUORUM: u16 = 4;

impl Client {
    fn connect(address: SocketAddrV4) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut client = Client(stream);
        let one_option = [0, 1];
        let version = [text("CQL_VERSION"), text("3.0.0")].concat();
        client.ask(STARTUP, &[one_option.as_slice(), &version].concat(), READY)?;
        Ok(client)
    }

    fn options(&mut self) -> Result<String> {
        let supported = self.ask(OPTIONS, &[], SUPPORTED)?;
        Ok(String::from_utf8_lossy(&supported).into_owned())
    }

    /// The answer ends with the last value of the last row, if it has rows.
    fn query(&mut self, consistency: u16, cql: &str) -> Result<Vec<u8>> {
        let length = u32::try_from(cql.len()).expect("it is short").to_be_bytes();
        let no_flags = [0];
        let consistency = consistency.to_be_bytes();
        let body: [&[u8]; 4] = [&length, cql.as_bytes(), &consistency, &no_flags];
        self.ask(QUERY, &body.concat(), RESULT)
    }

    fn count(&mut self, consistency: u16) -> Result<u64> {
        let answer = self.query(consistency, "SELECT count(*) FROM test.numbers")?;
        let count = answer.last_chunk().ok_or(ErrorKind::InvalidData)?;
        Ok(u64::from_be_bytes(*count))
    }

    /// The version of the tables' definitions that the node knows.
    fn schema(&mut self) -> Vec<u8> {
        let answer = self.query(ONE, "SELECT schema_version FROM system.local");
        answer.expect("it answers").last_chunk::<16>().expect("a UUID comes last").to_vec()
    }

    fn make_table(&mut self, copies: usize) {
        for cql in [
            &format!(
                "CREATE KEYSPACE IF NOT EXISTS test WITH replication = \
                 {{'class': 'SimpleStrategy', 'replication_factor': {copies}}}"
            ),
            "CREATE TABLE IF NOT EXISTS test.numbers (number int PRIMARY KEY)",
        ] {
            self.query(ONE, cql).expect("it is made");
        }
    }

    fn insert(&mut self, consistency: u16, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let cql = format!("INSERT INTO test.numbers (number) VALUES ({number})");
            self.query(consistency, &cql).expect("it is acknowledged");
        }
    }

    fn ask(&mut self, question: u8, body: &[u8], expected: u8) -> Result<Vec<u8>> {
        let length = u32::try_from(body.len()).expect("it is short").to_be_bytes();
        let head = [4, 0, 0, 1, question];
        self.0.write_all(&[head.as_slice(), &length, body].concat())?;
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [.., opcode, l0, l1, l2, l3] = head;
        let mut answer = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
        self.0.read_exact(&mut answer)?;
        if opcode == expected {
            return Ok(answer);
        }
        Err(Error::other(format!("answer {opcode}: {}", String::from_utf8_lossy(&answer))))
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("it is short").to_be_bytes();
    [length.as_slice(), text.as_bytes()].concat()
}

/// A machine of CI has two cores: five nodes that start at once would be slow.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn refusal(address: SocketAddrV4) -> Option<ErrorKind> {
    TcpStream::connect(address).err().map(|error| error.kind())
}

#[test]
fn a_node_comes_back_after_kill_and_stop_with_all_that_it_acknowledged() {
    if !is_there(missing_for_cassandra()) {
        return;
    }
    let _alone = alone();
    let data = tempfile::tempdir().expect("a folder");
    let options =
        CassandraOptions { data: Some(data.path().to_owned()), ..CassandraOptions::default() };
    let mut cassandra = Cassandra::start(options.clone()).expect("it starts");
    let (address, pid) = (cassandra.address(), cassandra.pid());
    let mut client = Client::connect(address).expect("it answers");
    let supported = client.options().expect("it answers");
    assert!(supported.contains("CQL_VERSION"), "{supported}");
    client.make_table(1);
    client.insert(ONE, 0..200);
    cassandra.kill();
    assert_eq!(refusal(address), Some(ErrorKind::ConnectionRefused), "it is gone");

    cassandra.start_again().expect("it starts again");
    assert_eq!(cassandra.address(), address);
    assert_ne!(cassandra.pid(), pid);
    let mut client = Client::connect(address).expect("it answers");
    assert_eq!(client.count(ONE).expect("it answers"), 200);

    cassandra.pause();
    client.0.set_read_timeout(Some(Duration::from_millis(300))).expect("it is set");
    assert_eq!(client.options().expect_err("it is paused").kind(), ErrorKind::WouldBlock);
    cassandra.resume();
    let mut client = Client::connect(address).expect("it goes on");
    client.insert(ONE, 200..201);
    let status = cassandra.nodetool(&["status"]).expect("it answers");
    assert!(status.contains("UN  127.0.0.1"), "{status}");

    cassandra.stop();
    assert_eq!(refusal(address), Some(ErrorKind::ConnectionRefused), "it is gone");
    let log = std::fs::read_to_string(cassandra.log()).expect("it is there");
    assert!(log.contains("Cassandra shutdown complete"), "it ended in order");

    // The same data on other ports, at another address, and with another way to sync.
    let other = CassandraOptions {
        address: [127, 0, 0, 5].into(),
        commitlog_sync: CommitlogSync::Group { window_ms: 5 },
        ..options
    };
    let cassandra = Cassandra::start(other).expect("it starts");
    assert_ne!(cassandra.address(), address);
    let mut client = Client::connect(cassandra.address()).expect("it answers");
    assert_eq!(client.count(ONE).expect("it answers"), 201);
}

#[test]
fn a_node_that_cannot_start_says_why() {
    if !skip::slow() || !is_there(missing_for_cassandra()) {
        return;
    }
    let _alone = alone();
    let extra = vec!["concurrent_reads: none".to_owned()];
    let error = Cassandra::start(CassandraOptions { extra, ..CassandraOptions::default() });
    let words = format!("{:#}", error.expect_err("that is no number"));
    assert!(words.contains("concurrent_reads"), "{words}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port();
    let error = Cassandra::start(CassandraOptions { port, ..CassandraOptions::default() });
    let words = format!("{:#}", error.expect_err("the port is taken"));
    assert!(words.contains(&format!("127.0.0.1:{port}")), "{words}");
}

/// A ring with a table of fifty numbers.
fn ring_with_numbers() -> CassandraRing {
    let ring = CassandraRing::start(CassandraOptions::default()).expect("it starts");
    let [mut client, others @ ..] =
        ring.addresses().map(|address| Client::connect(address).expect("it answers"));
    client.make_table(3);
    // Of a table, the others are told later.
    let schema = client.schema();
    for mut other in others {
        wait_until("it learns the table", || other.schema() == schema);
    }
    client.insert(QUORUM, 0..50);
    ring
}

/// Reads wait for a node that was killed until it is missed.
fn wait_for_quorum(client: &mut Client) {
    wait_until("two are a quorum", || client.count(QUORUM).is_ok_and(|count| count == 50));
}

#[test]
fn three_nodes_do_without_one_of_them() {
    if !skip::slow() || !is_there(missing_for_cassandra()) {
        return;
    }
    let _alone = alone();
    let mut ring = ring_with_numbers();
    let addresses = ring.addresses();
    assert_eq!(addresses.map(|address| address.ip().octets()[3]), [1, 2, 3]);
    let status = ring.node(0).nodetool(&["status"]).expect("it answers");
    assert_eq!(status.matches("UN  127.0.0.").count(), 3, "{status}");

    // The first one is not special.
    let mut client = Client::connect(addresses[1]).expect("it answers");
    ring.node_mut(0).kill();
    wait_for_quorum(&mut client);
    ring.start_again().expect("it starts again");
    let mut client = Client::connect(addresses[0]).expect("it answers");
    assert_eq!(client.count(QUORUM).expect("it sees the others"), 50);
}

#[test]
fn a_node_comes_back_while_another_one_is_away() {
    if !skip::slow() || !is_there(missing_for_cassandra()) {
        return;
    }
    let _alone = alone();
    let mut ring = ring_with_numbers();
    ring.node_mut(0).pause();
    ring.node_mut(1).kill();
    ring.start_again().expect("it starts without the first");
    wait_for_quorum(&mut Client::connect(ring.addresses()[1]).expect("it answers"));
    ring.node_mut(0).resume();
    wait_for_quorum(&mut Client::connect(ring.addresses()[0]).expect("it goes on"));
}
