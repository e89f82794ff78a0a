//! Records with several events, and topics with two kinds of them.

use crate::support::{LANES, NOW_MS, Server, Setup};
use marquee_model::{Partitioner, lane_of};
use serde_json::{Value as Json, json};

fn lane(request_id: &str) -> u32 {
    lane_of(Partitioner::Murmur2, request_id.as_bytes(), LANES)
}

fn exploding() -> Server {
    Setup { explode: Some("page.items"), ..Setup::default() }.start()
}

fn record(items: Json) -> Json {
    json!({ "ts": NOW_MS, "request_id": "shared", "page": { "items": items, "row": 3 } })
}

#[tokio::test]
async fn elements_of_one_lane_stay_together() {
    let server = exploding();
    let body = record(json!([{ "video_id": "a" }, { "video_id": "b" }])).to_string();
    assert_eq!(server.post("/v1/impressions", body.clone()).await.status, 202);
    assert_eq!(server.records(0), [(lane("shared"), "shared".to_owned(), body)]);
}

#[tokio::test]
async fn elements_of_several_lanes_are_cut_into_them() {
    let server = exploding();
    let ids: Vec<String> = (0..40).map(|i| format!("r{i}")).collect();
    let items = ids.iter().map(|id| json!({ "request_id": id, "video_id": "v" }));
    let body = record(items.collect());
    let answer = server.post("/v1/impressions", body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["accepted"].clone()), (202, json!(1)));
    let records = server.records(0);
    assert_eq!(records.len() as u32, LANES);
    let mut found = Vec::new();
    for (at, key, payload) in &records {
        let record: Json = serde_json::from_str(payload).unwrap();
        assert_eq!((&record["page"]["row"], &record["ts"]), (&json!(3), &json!(NOW_MS)));
        let items = record["page"]["items"].as_array().unwrap();
        assert_eq!(items[0]["request_id"], **key, "the key is the first event's");
        for item in items {
            let id = item["request_id"].as_str().unwrap();
            assert_eq!(lane(id), *at);
            found.push(id.to_owned());
        }
    }
    found.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(found, expected, "each element once");
}

#[tokio::test]
async fn one_bad_element_rejects_the_whole_item() {
    let server = exploding();
    let good = record(json!([{ "video_id": "a" }]));
    let bad = record(json!([{ "video_id": "a" }, { "video_id": 1.5 }, {}]));
    let empty = record(json!([]));
    let none = json!({ "request_id": "r", "ts": 1 });
    let answer = server.post("/v1/impressions", json!([good, bad, empty, none]).to_string()).await;
    assert_eq!(answer.status, 207);
    let rejected = &answer.json()["rejected"];
    let reason = |i: usize| rejected[i]["reason"].as_str().unwrap().to_owned();
    assert!(reason(0).starts_with("element 1: video_id is a number with a fraction"), "{rejected}");
    assert!(reason(1).contains("\"page.items\" is empty"), "{rejected}");
    assert!(reason(2).starts_with("explode: there is no list"), "{rejected}");
    assert_eq!(server.records(0).len(), 1);
}

#[tokio::test]
async fn a_cut_that_would_change_the_record_is_refused() {
    let wheres = ["size(record.page.items) > 1", ""];
    let server = Setup { explode: Some("page.items"), wheres, ..Setup::default() }.start();
    let other = (0..).map(|i| format!("r{i}")).find(|id| lane(id) != lane("shared")).unwrap();
    let items = json!([{ "video_id": "a" }, { "video_id": "b", "request_id": other }]);
    let answer = server.post("/v1/impressions", record(items).to_string()).await;
    answer.is_problem(400, "No item was accepted");
    assert!(answer.text.contains("cut into the lanes of its elements"), "{}", answer.text);
    assert!(server.records(0).is_empty());
}

#[tokio::test]
async fn what_elements_share_is_not_copied_without_bounds() {
    let server =
        Setup { max_body_bytes: 8 << 20, explode: Some("page.items"), ..Setup::default() }.start();
    let items = (0..40).map(|i| json!({ "request_id": format!("r{i}"), "video_id": "v" }));
    let mut body = record(items.collect());
    body["ballast"] = json!("x".repeat(6 << 20));
    let answer = server.post("/v1/impressions", body.to_string()).await;
    assert!(answer.text.contains("too often"), "{}", answer.text);
    assert!(server.records(0).is_empty());
}

fn shared() -> Server {
    let wheres = [r#"kind == "impression""#, r#"kind == "play" || both == true"#];
    let topics = ["events", "events"];
    Setup { topics, wheres, ..Setup::default() }.start()
}

#[tokio::test]
async fn kinds_that_share_a_topic_are_told_apart() {
    let server = shared();
    let event = |kind: &str| json!({ "kind": kind, "request_id": kind, "video_id": "v", "ts": 1 });
    let (impression, play) = (event("impression").to_string(), event("play").to_string());
    assert_eq!(server.post("/v1/impressions", impression.clone()).await.status, 202);
    assert_eq!(server.post("/v1/plays", play.clone()).await.status, 202);
    let answer = server.post("/v1/plays", impression).await;
    answer.is_problem(400, "No item was accepted");
    assert!(answer.text.contains("[plays] where"), "{}", answer.text);
    let answer = server.post("/v1/impressions", format!("{play}\n{}", event("impression"))).await;
    assert_eq!(answer.status, 207);
    assert_eq!(server.records(0).len(), 3);
}

#[tokio::test]
async fn a_record_of_both_kinds_must_belong_to_one_lane() {
    let topics = ["events", "events"];
    let request_ids = ["request_id", "played_in"];
    let server = Setup { topics, request_ids, ..Setup::default() }.start();
    let other = (0..).map(|i| format!("r{i}")).find(|id| lane(id) != lane("r")).unwrap();
    let same = (0..).map(|i| format!("r{i}")).find(|id| lane(id) == lane("r")).unwrap();
    let both = |played_in: &str| {
        json!({ "request_id": "r", "played_in": played_in, "video_id": "v", "ts": 1 }).to_string()
    };
    assert_eq!(server.post("/v1/impressions", both(&same)).await.status, 202);
    let answer = server.post("/v1/impressions", both(&other)).await;
    answer.is_problem(400, "No item was accepted");
    assert!(answer.text.contains("also one of [plays]"), "{}", answer.text);
    assert_eq!(server.records(0).len(), 1);
}
