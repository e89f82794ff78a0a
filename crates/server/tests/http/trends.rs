//! Trends: selection, order, pages.

use crate::support::{HALF_HOUR_MS, LANES, NOW_MS, Server, Setup};
use marquee_server::trends::{Slices, Sort, TrendQuery, run};
use marquee_sinks::{Gap, Repair, Sink, Store};
use serde_json::{Value as Json, json};

const E0: i64 = NOW_MS - 4 * HALF_HOUR_MS;
const E1: i64 = NOW_MS - HALF_HOUR_MS;
const US: &str = r#"{"country":"US"}"#;

/// Three videos in two epochs, spread over two lanes.
fn filled() -> Server {
    let server = Server::new();
    let l = HALF_HOUR_MS;
    let frontier = E0 / l + 1;
    let first = [
        ("a", E0, l, "", 10, 1),
        ("b", E0, l, "", 10, 5),
        ("a", E1, l, "", 4, 2),
        ("b", E1, l, "", 9, 2),
        ("a", E1, l, US, 3, 1),
        ("nobody", E1, l, "", 0, 0),
    ];
    server.write(0, frontier, &first);
    server.write(1, frontier + 5, &[("a", E1, l, "", 1, 1), ("c", E1, l, "", 0, 3)]);
    server.write(2, frontier + 5, &[]);
    server.write(3, frontier + 5, &[]);
    server
}

/// The cells of an answer as `video@epoch`, the slice behind it.
async fn names(server: &Server, uri: &str) -> String {
    let answer = server.get(uri).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    show(&answer.json())
}

fn show(page: &Json) -> String {
    let name = |cell: &Json| {
        let epoch = if cell["epoch_start_ms"] == E0 { 0 } else { 1 };
        let slice = &cell["slice"]["country"];
        let slice = slice.as_str().map(|country| format!("/{country}")).unwrap_or_default();
        format!("{}{epoch}{slice}", cell["video"].as_str().unwrap())
    };
    page["cells"].as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_cell_is_shown_as_the_contract_says() {
    let server = filled();
    let page = server.get("/v1/trends?video=a").await.json();
    let cell = |start: i64, impressions: u64, plays: u64, sealed: bool| {
        json!({
            "video": "a", "epoch_start_ms": start, "epoch_ms": HALF_HOUR_MS, "slice": {},
            "impressions": impressions, "plays": plays, "complete": true, "sealed": sealed,
        })
    };
    let expected = json!({
        "cells": [cell(E1, 5, 3, false), cell(E0, 10, 1, true)],
        "next": null, "generation": "generation-1",
    });
    assert_eq!(page, expected);
}

#[tokio::test]
async fn cells_that_may_lack_members_say_so() {
    let server = filled();
    let complete = async || {
        let page = server.get("/v1/trends?video=a").await.json();
        let of = |cell: &serde_json::Value| cell["complete"].as_bool().unwrap();
        page["cells"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(complete().await, [true, true]);
    // Another process has a lane now: what is open here may grow there.
    server.status.take_back(std::iter::once(0));
    assert_eq!(complete().await, [false, true], "a sealed epoch does not grow");
    server.status.give(0..LANES, true);
    assert_eq!(complete().await, [false, true], "until the rebuild is written");
    server.status.give(0..LANES, false);
    assert_eq!(complete().await, [true, true]);
    let gap = Gap {
        lane: 0,
        topic: "impressions".to_owned(),
        from_offset: 3,
        to_offset: 9,
        from_ms: E0,
        to_ms: E0 + HALF_HOUR_MS,
        reason: "trimmed".to_owned(),
    };
    server.store.add_gaps(std::slice::from_ref(&gap)).unwrap();
    assert_eq!(complete().await, [true, false], "a gap is for ever");
    let repair = |to_ms, gap: Option<Gap>| {
        let source = Repair::FILES.to_owned();
        server.store.add_repairs(&[Repair { lane: 0, from_ms: E0, to_ms, source, gap }]).unwrap();
    };
    repair(E0 + HALF_HOUR_MS, None);
    repair(E0 + HALF_HOUR_MS, Some(Gap { to_offset: 10, ..gap.clone() }));
    repair(E0 + HALF_HOUR_MS / 2, Some(gap.clone()));
    assert_eq!(complete().await, [true, false], "none of these fills all of it");
    repair(E0 + HALF_HOUR_MS, Some(gap));
    assert_eq!(complete().await, [true, true], "until a repair has filled it");
}

#[tokio::test]
async fn orders() {
    let server = filled();
    assert_eq!(names(&server, "/v1/trends").await, "a1 c1 b1 b0 a0");
    assert_eq!(names(&server, "/v1/trends?sort=plays").await, "b0 a1 c1 b1 a0");
    assert_eq!(names(&server, "/v1/trends?sort=impressions").await, "b0 a0 b1 a1 c1");
    assert_eq!(names(&server, "/v1/trends?sort=take_rate").await, "a1 b0 b1 a0 c1");
    assert_eq!(names(&server, "/v1/trends?sort=video&slices=all").await, "a0 a1 a1/US b0 b1 c1");
}

#[tokio::test]
async fn selections() {
    let server = filled();
    let check = async |query: &str, expected: &str| {
        assert_eq!(names(&server, &format!("/v1/trends?{query}")).await, expected, "{query}");
    };
    check(&format!("from={E1}"), "a1 c1 b1").await;
    check(&format!("from={}", E1 + 1), "").await;
    check(&format!("to={E1}"), "b0 a0").await;
    check(&format!("from={E0}&to={}", E0 + 1), "b0 a0").await;
    check("from=2016-11-21T00:00:00Z", "a1 c1 b1").await;
    check("from=2030-01-01T00:00:00Z&to=2016-11-21T00:00:00Z", "").await;
    check("slice=%7B%20%22country%22%3A%20%22US%22%7D", "a1/US").await;
    check("slice=%7B%7D&video=b", "b1 b0").await;
    check("slices=all&limit=10000", "a1 c1 b1 a1/US b0 a0").await;
    check("epoch_ms=60000", "").await;
    check("video=%3Cscript%3E", "").await;
}

#[tokio::test]
async fn one_video_is_shown_as_among_all() {
    let server = filled();
    let times = ["".to_owned(), format!("&from={E1}"), format!("&to={E1}"), "&to=0".to_owned()];
    let mut found = 0;
    for slice in ["%7B%7D", "%7B%22country%22%3A%22US%22%7D"] {
        for time in &times {
            let all = names(&server, &format!("/v1/trends?slice={slice}{time}")).await;
            for video in ["a", "b", "c", "d"] {
                let of_video = all.split_whitespace().filter(|name| name.starts_with(video));
                let expected = of_video.collect::<Vec<_>>().join(" ");
                let uri = format!("/v1/trends?slice={slice}{time}&video={video}");
                assert_eq!(names(&server, &uri).await, expected, "{uri}");
                found += expected.len();
            }
        }
    }
    assert!(found > 0, "nothing was compared");
}

#[tokio::test]
async fn pages_hold_each_cell_once() {
    let server = filled();
    for sort in ["", "&sort=plays", "&sort=impressions", "&sort=take_rate", "&sort=video"] {
        let uri = format!("/v1/trends?slices=all{sort}");
        let whole = names(&server, &uri).await;
        for limit in [1, 2, 3, 6, 7] {
            let (mut turned, mut after) = (Vec::new(), String::new());
            loop {
                let page = server.get(&format!("{uri}&limit={limit}{after}")).await.json();
                turned.push(show(&page));
                assert!(turned.len() < 10, "{turned:?}");
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(turned.join(" "), whole, "{sort}, {limit}");
        }
    }
    let page = server.get("/v1/trends?limit=1").await.json();
    let next = page["next"].as_str().unwrap();
    let other = server.get(&format!("/v1/trends?limit=1&sort=plays&after={next}")).await;
    other.is_problem(400, "belongs to another query");
}

#[tokio::test]
async fn wrong_questions() {
    let server = filled();
    server.get("/v1/trends?vidoe=a").await.is_problem(400, "`vidoe` is no parameter");
    server.get("/v1/trends?limit=10001").await.is_problem(400, "1 to 10000");
    server.get("/v1/trends?from=soon").await.is_problem(400, "not a time");
    server.get("/v1/trends?after=x").await.is_problem(400, "no cursor");
    server.get("/v1/trends?video=a&video=b").await.is_problem(400, "twice");
}

#[tokio::test]
async fn several_lengths_of_epochs() {
    let server = Setup { epochs_ms: vec![HALF_HOUR_MS, 60_000], ..Setup::default() }.start();
    let cells = [
        ("a", E1, HALF_HOUR_MS, "", 5, 5),
        ("b", E1, 60_000, "", 9, 9),
        ("c", E1 + 60_000, 60_000, "", 1, 1),
    ];
    for lane in 0..4 {
        server.write(lane, E1 / HALF_HOUR_MS + 1, if lane == 0 { &cells } else { &[] });
    }
    assert_eq!(names(&server, "/v1/trends").await, "c1 a1 b1");
    assert_eq!(names(&server, "/v1/trends?epoch_ms=60000").await, "c1 b1");
    let page = server.get("/v1/trends").await.json();
    for cell in page["cells"].as_array().unwrap() {
        assert_eq!(cell["sealed"], true, "short epochs are sealed with the longest one");
    }
}

#[tokio::test]
async fn all_cells_without_a_limit() {
    let server = Server::new();
    let videos: Vec<String> = (0..3000).map(|i| format!("v{i:04}")).collect();
    let cells: Vec<_> = videos.iter().map(|v| (&**v, E0, HALF_HOUR_MS, "", 3, 1)).collect();
    server.write(0, 0, &cells);
    let query = TrendQuery { sort: Sort::Video, slices: Slices::All, ..TrendQuery::default() };
    let page = run(&server.store, &query).unwrap();
    let found: Vec<&String> = page.cells.iter().map(|cell| &cell.video).collect();
    assert_eq!(found, videos.iter().collect::<Vec<_>>());
    assert_eq!(page.next, None);
    let first = server.get("/v1/trends?sort=video&limit=1000").await.json();
    assert_eq!(first["cells"][999]["video"], "v0999");
    assert!(first["next"].is_string());
}

#[tokio::test]
async fn hostile_ids_come_back_as_they_are() {
    let server = Server::new();
    let id = "<img src=x onerror=alert(1)>\u{202e}\0\"\\\n日本";
    server.write(0, 0, &[(id, E0, HALF_HOUR_MS, "", 1, 0), ("z", E0, HALF_HOUR_MS, "", 1, 0)]);
    let page = server.get("/v1/trends?limit=1").await.json();
    assert_eq!(page["cells"][0]["video"], id);
    let next = page["next"].as_str().unwrap();
    let page = server.get(&format!("/v1/trends?limit=1&after={next}")).await.json();
    assert_eq!(page["cells"][0]["video"], "z");
}
