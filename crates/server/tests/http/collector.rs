//! What the collector accepts, what it rejects, and what it writes.

use crate::support::{Answer, LANES, NOW_MS, Server, Setup, event};
use axum::body::Body;
use axum::http::Request;
use marquee_model::{Partitioner, lane_of};
use serde_json::{Value as Json, json};

fn lane(request_id: &str) -> u32 {
    lane_of(Partitioner::Murmur2, request_id.as_bytes(), LANES)
}

#[track_caller]
fn check(answer: &Answer, status: u16, accepted: u64, rejected: &[(u64, &str)]) {
    let body = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{body}");
    assert_eq!(body["accepted"], accepted);
    assert_eq!(body["rejected_count"], rejected.len());
    let listed: Vec<&Json> = body["rejected"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), rejected.len());
    for (listed, (index, words)) in listed.iter().zip(rejected) {
        assert_eq!(listed["index"], *index);
        assert!(listed["reason"].as_str().unwrap().contains(words), "{listed}");
    }
}

#[tokio::test]
async fn an_object_an_array_and_lines() {
    let server = Server::new();
    check(&server.post("/v1/impressions", event("r1").to_string()).await, 202, 1, &[]);
    let odd = "{ \"video_id\" : \"v\",\n\t\"ts\":1.479688200e12 }";
    let pretty =
        "{ \"request_id\":\"r2\",\n \"video_id\" : \"v\\u00e9\",\n\t\"ts\":1479688200000 }";
    check(&server.post("/v1/impressions", pretty).await, 202, 1, &[]);
    check(&server.post("/v1/plays", format!("[{},\n{pretty}]", event("r3"))).await, 202, 2, &[]);
    let lines = format!("{}\r\n\n{}\n", event("r4"), event("r5"));
    check(&server.post("/v1/plays", lines).await, 202, 2, &[]);
    check(&server.post("/v1/plays", odd).await, 400, 0, &[(0, "request_id is missing")]);

    let mut impressions = server.records(0);
    impressions.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (lane("r1"), "r1".to_owned(), event("r1").to_string()),
        (lane("r2"), "r2".to_owned(), pretty.to_owned()),
    ];
    assert_eq!(impressions, expected, "the bytes are those that were sent");
    assert_eq!(server.records(1).len(), 4);
}

#[tokio::test]
async fn bad_items_are_named_and_the_others_are_written() {
    let server = Server::new();
    let ahead = json!({ "request_id": "r", "video_id": "v", "ts": NOW_MS + 600_001 });
    let edge = json!({ "request_id": "edge", "video_id": "v", "ts": NOW_MS + 600_000 });
    let far = json!({ "request_id": "r", "video_id": "v", "ts": i64::MAX });
    let wrong = json!({ "request_id": "r", "video_id": "v", "ts": NOW_MS, "n": "one" });
    let items = [
        event("good"),
        json!(1),
        json!([event("r")]),
        json!("text"),
        json!(null),
        json!({}),
        ahead,
        edge,
        far,
        wrong,
        json!({ "request_id": "", "video_id": "v", "ts": 1 }),
    ];
    let rejected = [
        (1, "the item is a number, not a JSON object"),
        (2, "is a list"),
        (3, "is a text"),
        (4, "is null"),
        (5, "request_id is missing"),
        (6, "600001 ms after the record time, more than max_ahead (600000 ms)"),
        (8, "after the year 9999"),
        (9, "n is a text, not the declared int"),
        (10, "request_id is empty"),
    ];
    check(&server.post("/v1/impressions", json!(items).to_string()).await, 207, 2, &rejected);
    let lines: Vec<String> = items.iter().map(Json::to_string).collect();
    check(&server.post("/v1/impressions", lines.join("\n")).await, 207, 2, &rejected);
    assert_eq!(server.records(0).len(), 4);

    let answer = server.post("/v1/impressions", format!("{}\nnonsense", event("r"))).await;
    check(&answer, 207, 1, &[(1, "not JSON")]);
    let answer = server.post("/v1/impressions", "{}").await;
    answer.is_problem(400, "No item was accepted");
    check(&answer, 400, 0, &[(0, "request_id is missing")]);
}

#[tokio::test]
async fn bodies_without_events() {
    let server = Server::new();
    for body in ["", " \n ", "[]"] {
        let answer = server.post("/v1/plays", body).await;
        answer.is_problem(400, "holds no event");
        check(&answer, 400, 0, &[]);
    }
    let answer = server.post("/v1/plays", format!("[{},", event("r"))).await;
    answer.is_problem(400, "begins like a JSON array");
    check(&answer, 400, 0, &[]);
    assert!(server.records(1).is_empty());
}

#[tokio::test]
async fn what_a_filter_refuses_is_written_and_what_it_cannot_judge_is_not() {
    let setup = Setup { filter: "100 / n > 1 && key == request_id", ..Setup::default() };
    let server = setup.start();
    let with = |n: i64| json!({ "request_id": "r", "video_id": "v", "ts": 1, "n": n }).to_string();
    check(&server.post("/v1/plays", with(1)).await, 202, 1, &[]);
    check(&server.post("/v1/plays", with(1000)).await, 202, 1, &[]);
    check(&server.post("/v1/plays", with(0)).await, 400, 0, &[(0, "filter `100 / n > 1")]);
    assert_eq!(server.records(1).len(), 2);
}

#[tokio::test]
async fn ids_of_all_kinds() {
    let server = Server::new();
    let long = "x".repeat(1024);
    for id in ["日本語", "a\"b\\c", "\0", "line\nbreak", "\u{202e}odd", &long, "constructor"] {
        check(&server.post("/v1/plays", event(id).to_string()).await, 202, 1, &[]);
        let found = server.records(1).into_iter().find(|(_, key, _)| key == id);
        assert_eq!(found.unwrap().0, lane(id), "{id:?}");
    }
    let escaped = r#"{"request_id":"\u0061\ud83d\ude00","video_id":"\u0000","ts":5}"#;
    check(&server.post("/v1/plays", escaped).await, 202, 1, &[]);
    let record = server.records(1).into_iter().find(|(_, key, _)| key == "a😀").unwrap();
    assert_eq!((record.0, &*record.2), (lane("a😀"), escaped));
    let number = r#"{"request_id":12,"video_id":7,"ts":5}"#;
    check(&server.post("/v1/plays", number).await, 202, 1, &[]);
    assert!(server.records(1).iter().any(|(at, key, _)| key == "12" && *at == lane("12")));

    let megabyte = event(&"y".repeat(1 << 20)).to_string();
    check(&server.post("/v1/plays", megabyte).await, 400, 0, &[(0, "has 1048576 bytes; ids have")]);
    let nul = event("a").to_string().replace('a', "\0");
    check(&server.post("/v1/plays", nul).await, 400, 0, &[(0, "not JSON")]);
    let broken = [event("a").to_string().as_bytes(), b"\n{\"request_id\":\"\xff\"}"].concat();
    check(&server.post("/v1/plays", broken).await, 207, 1, &[(1, "not JSON")]);
}

#[tokio::test]
async fn long_lists_of_rejections_and_long_reasons_are_cut() {
    let server = Server::new();
    let answer = server.post("/v1/plays", "{}\n".repeat(1500) + &event("r").to_string()).await;
    assert_eq!(answer.status, 207);
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["rejected_count"]), (&json!(1), &json!(1500)));
    assert_eq!(body["rejected"].as_array().unwrap().len(), 1000);
    assert_eq!(body["rejected"][999]["index"], 999);
}

#[tokio::test]
async fn requests_of_other_sites_are_refused() {
    let server = Server::new();
    let post = |origin: &str| {
        Request::post("/v1/plays")
            .header("host", "localhost:8080")
            .header("origin", origin)
            .body(Body::from(event("r").to_string()))
            .unwrap()
    };
    server.send(post("http://evil.example")).await.is_problem(403, "another site");
    server.send(post("null")).await.is_problem(403, "another site");
    assert!(server.records(1).is_empty());
    check(&server.send(post("http://localhost:8080")).await, 202, 1, &[]);
}
