//! The servers are what they promise to be: a broker that comes back after `kill -9`, a proxy that
//! cuts. What clients do with them is tested where the clients are.

mod skip;

use marquee_services::{
    Kafka, KafkaOptions, Toxiproxy, free_port, missing_for_kafka, missing_for_toxiproxy,
};
use skip::is_there;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Asks which versions of the protocol the other side speaks: every broker answers that, with the
/// number of the question.
fn answers_as_kafka(stream: &mut TcpStream) -> std::io::Result<bool> {
    const QUESTION: [u8; 4] = *b"marq";
    let api_versions_v0 = [0, 18, 0, 0];
    let no_client_id = [0xff, 0xff];
    let request: [&[u8]; 4] = [&[0, 0, 0, 10], &api_versions_v0, &QUESTION, &no_client_id];
    stream.write_all(&request.concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    let no_error = [0, 0];
    Ok(answer.starts_with(&[QUESTION.as_slice(), &no_error].concat()))
}

#[test]
fn a_broker_comes_back_after_kill_and_stop_with_its_data() {
    if !is_there(missing_for_kafka()) {
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let identity = || std::fs::read_to_string(data.path().join("meta.properties"));
    let data_there = Some(data.path().to_owned());
    let mut kafka = Kafka::start(KafkaOptions { data: data_there, ..KafkaOptions::default() })
        .expect("it starts");
    let (port, pid, first) = (kafka.port(), kafka.pid(), identity().expect("it is formatted"));
    assert_eq!(kafka.bootstrap(), format!("127.0.0.1:{port}"));
    let mut client = connect(port).expect("it listens");
    assert!(answers_as_kafka(&mut client).expect("it answers"));

    kafka.kill();
    assert!(client.read(&mut [0]).map_or(true, |read| read == 0), "its connections are dead");
    assert_eq!(connect(port).expect_err("it is gone").kind(), ErrorKind::ConnectionRefused);

    kafka.start_again().expect("it starts again");
    assert_ne!(kafka.pid(), pid);
    assert_eq!((kafka.port(), identity().expect("it is there")), (port, first));
    let mut client = connect(port).expect("it listens again");
    kafka.pause();
    client.set_read_timeout(Some(Duration::from_millis(300))).expect("it is set");
    let silence = answers_as_kafka(&mut client).expect_err("it is paused");
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    kafka.resume();
    let mut client = connect(port).expect("it listens");
    assert!(answers_as_kafka(&mut client).expect("it goes on"));

    let start = Instant::now();
    kafka.stop();
    assert!(start.elapsed() < Duration::from_secs(15), "it ended by itself");
    assert_eq!(connect(port).expect_err("it is gone").kind(), ErrorKind::ConnectionRefused);
    // Kafka leaves it when it has closed its files.
    assert!(data.path().join(".kafka_cleanshutdown").exists(), "it ended in order");
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    if !is_there(missing_for_kafka()) {
        return;
    }
    let extra = vec!["num.io.threads=none".to_owned()];
    let error = Kafka::start(KafkaOptions { extra, ..KafkaOptions::default() });
    let words = format!("{:#}", error.expect_err("that is no number"));
    assert!(words.contains("num.io.threads"), "{words}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port();
    let error = Kafka::start(KafkaOptions { port, ..KafkaOptions::default() });
    let words = format!("{:#}", error.expect_err("the port is taken"));
    assert!(words.contains(&format!("127.0.0.1:{port}")), "{words}");
}

#[test]
fn a_proxy_forwards_is_cut_slow_and_clear_again() {
    if !is_there(missing_for_toxiproxy()) {
        return;
    }
    // The server behind it: what it reads it writes.
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let upstream = server.local_addr().expect("it has one").to_string();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().expect("it is cloned");
                let _ = std::io::copy(&mut stream, &mut back);
            });
        }
    });
    let echo = |stream: &mut TcpStream| -> std::io::Result<Duration> {
        let (start, mut answer) = (Instant::now(), [0; 4]);
        stream.write_all(b"ping")?;
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"ping");
        Ok(start.elapsed())
    };

    let toxiproxy = Toxiproxy::start().expect("it starts");
    let port = free_port();
    toxiproxy.proxy("echo", port, &upstream).expect("it is made");
    let mut client = connect(port).expect("it listens");
    echo(&mut client).expect("it forwards");

    toxiproxy.enabled("echo", false).expect("it is switched off");
    echo(&mut client).expect_err("the connection is cut");
    assert_eq!(connect(port).expect_err("it is off").kind(), ErrorKind::ConnectionRefused);
    toxiproxy.enabled("echo", true).expect("it is switched on");
    let mut client = connect(port).expect("it listens again");
    echo(&mut client).expect("it forwards again");

    let slow = r#"{"type": "latency", "attributes": {"latency": 1000}}"#;
    toxiproxy.toxic("echo", slow).expect("it is taken");
    assert!(echo(&mut client).expect("it is slow") >= Duration::from_secs(1));
    toxiproxy.clear("echo").expect("it is removed");
    assert!(echo(&mut client).expect("it is fast") < Duration::from_secs(1));

    let error = toxiproxy.toxic("nobody", slow).expect_err("there is no such proxy");
    assert!(format!("{error:#}").contains("404"), "{error:#}");
}
