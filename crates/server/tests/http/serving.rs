//! A real listener: names of hosts, and the end.

use crate::support::{Server, event};
use marquee_server::serve;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

async fn exchange(port: u16, request: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_loopback_server_answers_to_loopback_names_and_ends_when_told() {
    let server = Server::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = ended.await;
    };
    let router = server.router.clone();
    let serving = tokio::spawn(async move {
        serve(listener, router, &["marquee.example".to_owned()], shutdown).await
    });

    let get =
        |host: &str| format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert!(exchange(port, &get(&format!("localhost:{port}"))).await.starts_with("HTTP/1.1 200"));
    let proxied = exchange(port, &get("Marquee.Example")).await;
    assert!(proxied.starts_with("HTTP/1.1 200"), "{proxied}");
    let answer = exchange(port, &get("rebound.example")).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert!(answer.contains("application/problem+json"));
    // Addresses of others are none of a server that nobody else can reach.
    assert!(exchange(port, &get("10.0.0.1")).await.starts_with("HTTP/1.1 421"));

    let body = event("r").to_string();
    let post = format!(
        "POST /v1/plays HTTP/1.1\r\nhost: [::1]:1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(exchange(port, &post).await.starts_with("HTTP/1.1 202"));
    assert_eq!(server.records(1).len(), 1);

    // A connection that waits for its next request holds nobody up.
    let mut idle = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).await.unwrap();
    let begun = Instant::now();
    end.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_public_server_answers_to_its_names_where_it_has_any() {
    for (allowed, others) in [(vec!["marquee.example".to_owned()], "421"), (Vec::new(), "200")] {
        let server = Server::new();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = server.router.clone();
        let end = std::future::pending();
        let serving = tokio::spawn(async move { serve(listener, router, &allowed, end).await });
        for (host, status) in [
            ("marquee.example:8080", "200"),
            ("10.0.0.1:8080", "200"),
            ("localhost", "200"),
            ("rebound.example:8080", others),
        ] {
            let get = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = exchange(port, &get).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        }
        serving.abort();
    }
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off() {
    let server = Server::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = ended.await;
    };
    let router = server.router.clone();
    let serving = tokio::spawn(async move { serve(listener, router, &[], shutdown).await });
    let mut slow = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = "POST /v1/plays HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    while !server.get("/metrics").await.text.contains("in_flight_bytes 16384") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    end.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let took = begun.elapsed();
    assert!((4..8).contains(&took.as_secs()), "{took:?}");
}
