//! Too large, too much, too early, and a disk that fails.

use crate::support::{Server, Setup, event};
use axum::body::Body;
use axum::http::Request;
use marquee_sources::embedded::MAX_RECORD_BYTES;
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body whose length nobody knows before; with `false` it never ends.
struct Pieces(usize, bool);

impl axum::body::HttpBody for Pieces {
    type Data = axum::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Infallible>>> {
        if self.0 == 0 {
            return if self.1 { Poll::Ready(None) } else { Poll::Pending };
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(http_body::Frame::data(vec![b' '; 1000].into()))))
    }
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let server = Setup { max_body_bytes: 10_000, ..Setup::default() }.start();
    let body = " ".repeat(10_000 - event("r").to_string().len()) + &event("r").to_string();
    assert_eq!(server.post("/v1/plays", body.clone()).await.status, 202);
    server.post("/v1/plays", body + " ").await.is_problem(413, "larger than 10000 bytes");
    let announced = Request::post("/v1/plays")
        .header("content-length", "10001")
        .header("expect", "100-continue")
        .body(Body::new(Pieces(0, false)))
        .unwrap();
    server.send(announced).await.is_problem(413, "larger than 10000 bytes");
    let chunked = || Body::new(Pieces(11, true));
    server.post("/v1/plays", chunked()).await.is_problem(413, "larger than 10000 bytes");
    server.post("/v1/plays", Body::new(Pieces(10, true))).await.is_problem(400, "no event");
    assert_eq!(server.records(1).len(), 1);
}

#[tokio::test]
async fn items_that_are_too_large_for_the_log() {
    let server = Setup { max_body_bytes: 64 << 20, ..Setup::default() }.start();
    let mut large = event("rr");
    large["ballast"] = json!("");
    let rest = MAX_RECORD_BYTES - large.to_string().len();
    // One byte less than the decoder refuses, but too much together with the key.
    large["ballast"] = json!("x".repeat(rest - 1));
    let body = format!("{large}\n{}", event("r"));
    let answer = server.post("/v1/plays", body).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    assert!(answer.text.contains("at most 16777216 are allowed"), "{}", answer.text);
    large["ballast"] = json!("x".repeat(rest));
    let answer = server.post("/v1/plays", large.to_string()).await;
    answer.is_problem(400, "No item");
    assert!(answer.text.contains("records must stay under"), "{}", answer.text);
}

#[tokio::test]
async fn bodies_in_flight_are_bounded() {
    let server = Setup { max_body_bytes: 40 << 20, ..Setup::default() }.start();
    let router = server.router.clone();
    let stuck = tokio::spawn(async move {
        let request = Request::post("/v1/plays").body(Body::new(Pieces(1, false))).unwrap();
        tower::ServiceExt::oneshot(router, request).await
    });
    // The first one holds room for the largest body, since its length is not known.
    while !server.get("/metrics").await.text.contains("in_flight_bytes 41943040") {
        tokio::task::yield_now().await;
    }
    let answer = server.post("/v1/plays", Body::new(Pieces(1, true))).await;
    answer.is_problem(429, "as many bodies as it can");
    assert_eq!(answer.header("retry-after"), "1");
    let small = Request::post("/v1/plays").header("content-length", "60");
    let small = small.body(Body::from(format!("{:60}", event("r").to_string()))).unwrap();
    assert_eq!(server.send(small).await.status, 202, "a small one still has room");
    stuck.abort();
    let _ = stuck.await;
    let answer = server.post("/v1/plays", Body::new(Pieces(1, true))).await;
    answer.is_problem(400, "no event");
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_arrive() {
    let server = Server::new();
    let answer = server.post("/v1/plays", Body::new(Pieces(1, false))).await;
    answer.is_problem(408, "took more than 30 s");
}

#[tokio::test]
async fn encodings_are_not_taken() {
    let server = Server::new();
    let request = |encoding: &str| {
        let request = Request::post("/v1/plays").header("content-encoding", encoding);
        request.body(Body::from(event("r").to_string())).unwrap()
    };
    server.send(request("gzip")).await.is_problem(415, "without `Content-Encoding`");
    assert_eq!(server.send(request("Identity")).await.status, 202);
}

#[tokio::test]
async fn a_log_that_cannot_write_acknowledges_nothing() {
    let server = Server::new();
    std::fs::remove_dir_all(server.folder.path().join("log").join("plays")).unwrap();
    let answer = server.post("/v1/plays", event("r").to_string()).await;
    answer.is_problem(503, "Nothing of this request was acknowledged");
    assert_eq!(answer.header("retry-after"), "5");
    let folder = server.folder.path().to_str().unwrap();
    assert!(!answer.text.contains(folder), "paths are for the operator's eyes");
}

#[tokio::test]
async fn a_failed_process_takes_nothing() {
    let server = Server::new();
    server.status.fail("lane 2: the disk is gone");
    let answer = server.post("/v1/plays", event("r").to_string()).await;
    answer.is_problem(503, "about to end");
    assert_eq!(answer.header("retry-after"), "5");
    assert!(server.records(1).is_empty());
}
