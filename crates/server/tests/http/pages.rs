//! Health, metrics, what pages are made of, and problems that belong to no route.

use crate::support::{LANES, NOW_MS, Server, event};
use axum::body::Body;
use axum::http::Request;
use marquee_pipeline::lane::Counters;
use marquee_runtime::status::LaneStatus;
use serde_json::json;

fn lane(lane: u32) -> LaneStatus {
    LaneStatus {
        lane,
        held: true,
        is_behind_group: false,
        rebuilt_records: (0, 0),
        rebuild_left: None,
        records_per_second: 12.5,
        snapshot: None,
        rebuilding: false,
        next_offsets: vec![5, 7],
        end_offsets: vec![6, 9],
        counters: Counters { events: 12, filtered: 1, dead: 2, late: 3, duplicates: 4 },
        watermark_ms: Some(NOW_MS - i64::from(lane) * 1000),
        frontier_ms: 1_800_000,
        state_bytes: 1000,
        state_disk_bytes: 2000,
        open_cells: 10,
        replayed_records: 99,
        batches: 8,
        last_batch_seconds: 0.25,
        last_batch_records: 3,
        matches: Default::default(),
    }
}

#[tokio::test]
async fn health() {
    let server = Server::new();
    assert_eq!(server.get("/healthz").await.status, 200);
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"].as_array().unwrap().len() as u32, LANES);
    (0..LANES).for_each(|number| server.status.set(lane(number)));
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "ready": true, "reasons": [] }));
    server.status.fail("lane 1: broken");
    let answer = server.get("/readyz").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["reasons"][0]),
        (503, &json!("lane 1: broken"))
    );
    assert_eq!(server.get("/healthz").await.status, 200, "it still lives");
}

#[tokio::test]
async fn metrics() {
    let server = Server::new();
    server.status.set(lane(1));
    server.post("/v1/plays", format!("{}\n{{}}", event("r"))).await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE marquee_events_total counter",
        "marquee_events_total{lane=\"1\"} 12",
        "marquee_filtered_total{lane=\"1\"} 1",
        "marquee_dead_total{lane=\"1\"} 2",
        "marquee_late_total{lane=\"1\"} 3",
        "marquee_duplicates_total{lane=\"1\"} 4",
        "marquee_replayed_records_total{lane=\"1\"} 99",
        "marquee_batches_total{lane=\"1\"} 8",
        "marquee_lag_records{lane=\"1\"} 3.0",
        "marquee_next_offset{lane=\"1\",topic=\"plays\"} 7.0",
        "marquee_end_offset{lane=\"1\",topic=\"impressions\"} 6.0",
        "marquee_watermark_seconds{lane=\"1\"} 1479688199.0",
        "marquee_frontier_seconds{lane=\"1\"} 1800.0",
        "marquee_last_batch_seconds{lane=\"1\"} 0.25",
        "marquee_state_bytes{lane=\"1\"} 1000.0",
        "marquee_state_disk_bytes{lane=\"1\"} 2000.0",
        "marquee_open_cells{lane=\"1\"} 10.0",
        "marquee_lane_ready{lane=\"1\"} 1.0",
        "marquee_lane_ready{lane=\"0\"} 0.0",
        "marquee_ready 0.0",
        "marquee_collector_requests_total{kind=\"plays\",code=\"207\"} 1",
        "marquee_collector_items_total{kind=\"plays\",outcome=\"rejected\"} 1",
        "# TYPE marquee_collector_in_flight_bytes gauge",
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line}\n{}", answer.text);
    }
    assert!(!answer.text.contains("watermark_seconds{lane=\"0\"}"), "an unknown one is not zero");
    let open = Request::get("/metrics").header("accept", "application/openmetrics-text;q=1");
    let open = server.send(open.body(Body::empty()).unwrap()).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    assert!(open.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_page_is_served_and_loads_nothing_else() {
    let server = Server::new();
    for (uri, content_type) in [
        ("/ops", "text/html; charset=utf-8"),
        ("/ops/assets/ops.js", "text/javascript; charset=utf-8"),
        ("/ops/assets/ops.css", "text/css; charset=utf-8"),
        ("/ops/assets/base.css", "text/css; charset=utf-8"),
    ] {
        let answer = server.get(uri).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, content_type));
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.text.len() > 1000);
        let text = answer.text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "innerHTML", "eval(", " style=", "onclick"] {
            assert!(!text.contains(foreign), "{uri} holds {foreign}");
        }
    }
    let answer = server.get("/v1/trends").await;
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn status_is_what_the_page_needs() {
    let server = Server::new();
    let before = server.get("/v1/status").await.json();
    assert_eq!((&before["watermark_ms"], &before["ready"]), (&json!(null), &json!(false)));
    (0..LANES).for_each(|number| server.status.set(lane(number)));
    let status = server.get("/v1/status").await.json();
    assert_eq!(status["totals"]["events"], 48);
    assert_eq!(status["lag"], 12);
    assert_eq!(status["watermark_ms"], NOW_MS - 3000, "the slowest lane counts");
    let record = &status["first"]["impressions"]["record"];
    let answer = server.post("/v1/impressions", record.to_string()).await;
    assert_eq!(answer.status, 202, "the first lesson works: {record}");
}

#[tokio::test]
async fn no_such_thing() {
    let server = Server::new();
    server.get("/v1/trend").await.is_problem(404, "/v1/trend");
    let answer = server.get("/v1/plays").await;
    answer.is_problem(405, "does not take GET");
    assert_eq!(answer.header("allow"), "POST,OPTIONS");
    let answer = server.post("/v1/trends", "").await;
    answer.is_problem(405, "does not take POST");
    assert!(answer.header("allow").contains("GET"));
}
