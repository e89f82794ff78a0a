//! Ranking, the codes of its tiles, and what one client may send.

use crate::support::{Answer, HALF_HOUR_MS, NOW_MS, Server, Setup, event};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value as Json, json};

const KEY: &str = "a secret of the tests, thirty-two bytes or more";
const TOKEN: &str = "a token of the tests";

fn signing(change: impl FnOnce(&mut Setup)) -> Server {
    let mut setup = Setup::default();
    setup.rank.keys = vec![KEY.to_owned()];
    setup.rank.token = TOKEN.to_owned();
    change(&mut setup);
    setup.start()
}

async fn ask(server: &Server, question: &Json) -> Answer {
    let post = Request::post("/v1/rank").header("authorization", format!("Bearer {TOKEN}"));
    server.send(post.body(Body::from(question.to_string())).unwrap()).await
}

async fn rank(server: &Server, candidates: &[&str]) -> Json {
    let answer = ask(server, &json!({ "candidates": candidates, "row": 2 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// The event of a tile as the script of a page sends it.
fn of_tile(ranked: &Json, place: usize) -> Json {
    let item = &ranked["items"][place];
    json!({
        "request_id": ranked["request_id"], "video_id": item["video"], "ts": NOW_MS,
        "row": 2, "position": item["position"], "code": item["code"],
    })
}

#[tokio::test]
async fn candidates_are_ranked_by_what_was_counted_lately() {
    let server = signing(|_| {});
    let epoch = NOW_MS - NOW_MS % HALF_HOUR_MS;
    let old = epoch - 40 * HALF_HOUR_MS;
    let cells = [
        ("loved", epoch, HALF_HOUR_MS, "", 1_000, 400),
        ("shown", epoch, HALF_HOUR_MS, "", 1_000, 50),
        ("lucky", epoch - HALF_HOUR_MS, HALF_HOUR_MS, "", 2, 1),
        ("once", old, HALF_HOUR_MS, "", 1_000, 900),
        ("shown", epoch, HALF_HOUR_MS, r#"{"country":"US"}"#, 10, 10),
    ];
    server.write(0, epoch / HALF_HOUR_MS, &cells);
    let ranked = rank(&server, &["shown", "lucky", "once", "loved"]).await;
    let order: Vec<&str> =
        ranked["items"].as_array().unwrap().iter().map(|i| i["video"].as_str().unwrap()).collect();
    assert_eq!(order, ["loved", "lucky", "once", "shown"], "{ranked}");
    // (400 + 50 * 451 / 2002) / (1000 + 50), by hand.
    let score = ranked["items"][0]["score"].as_f64().unwrap();
    assert!((score - 0.391_680).abs() < 1e-5, "{score}");
    assert_eq!(ranked["items"][2]["impressions"], 0, "what is long ago does not count");
    assert_eq!(
        (&ranked["complete"], &ranked["items"][0]["propensity"]),
        (&json!(true), &json!(1.0))
    );
    assert_eq!(ranked["generation"], "generation-1");
    let other = rank(&server, &["loved"]).await;
    assert_ne!(other["request_id"], ranked["request_id"], "an order is shown once");

    let question = json!({ "candidates": ["shown", "loved"], "slice": { "country": "US" } });
    let of_slice = ask(&server, &question).await.json();
    let counted =
        |place: usize| (&of_slice["items"][place]["video"], &of_slice["items"][place]["plays"]);
    assert_eq!(counted(0), (&json!("loved"), &json!(0)), "as likely as the mean: {of_slice}");
    assert_eq!(counted(1), (&json!("shown"), &json!(10)), "{of_slice}");
    ask(&server, &json!({})).await.is_problem(400, "candidates");
    ask(&server, &json!({ "candidates": ["v"], "rows": 1 })).await.is_problem(400, "rows");
}

#[tokio::test]
async fn ranking_asks_for_its_token() {
    let server = signing(|_| {});
    let ask = |token: &str| {
        Request::post("/v1/rank")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(r#"{"candidates":["v"]}"#))
            .unwrap()
    };
    assert_eq!(server.send(ask(TOKEN)).await.status, 200);
    for wrong in ["", "a token of the test", "a token of the tests "] {
        let refused = server.send(ask(wrong)).await;
        refused.is_problem(401, "[rank]");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    let foreign = Request::post("/v1/rank")
        .header("origin", "https://evil.example")
        .header("host", "localhost")
        .body(Body::from(r#"{"candidates":["v"]}"#))
        .unwrap();
    server.send(foreign).await.is_problem(403, "Origin");
    // Whoever is on this machine may ask for an order, and nobody without a token for codes.
    let question = r#"{"candidates":["v"]}"#;
    let open = signing(|setup| setup.rank.token = String::new());
    open.post("/v1/rank", question).await.is_problem(403, "signed");
    assert_eq!(Server::new().post("/v1/rank", question).await.status, 200);
}

#[tokio::test]
async fn the_code_of_a_tile_is_good_for_it_alone() {
    let server = signing(|_| {});
    let ranked = rank(&server, &["a", "b", "c"]).await;
    let good = of_tile(&ranked, 1);
    // A redelivered event is no forgery.
    for _ in 0..2 {
        assert_eq!(server.post("/v1/impressions", good.to_string()).await.status, 202);
    }
    assert_eq!(server.post("/v1/plays", good.to_string()).await.status, 202);
    let records = server.records(0).len();
    let other = rank(&server, &["a", "b", "c"]).await;
    let changes = [
        ("request_id", other["request_id"].clone()),
        ("video_id", json!("a")),
        ("row", json!(3)),
        ("position", json!(2)),
        ("position", Json::Null),
        ("code", other["items"][1]["code"].clone()),
        ("code", json!("nonsense")),
        ("code", json!(7)),
    ];
    for (field, value) in changes {
        let mut forged = good.clone();
        forged[field] = value;
        for path in ["/v1/impressions", "/v1/plays"] {
            let refused = server.post(path, forged.to_string()).await;
            refused.is_problem(400, "No item was accepted");
            let reason = refused.json()["rejected"][0]["reason"].to_string();
            assert!(reason.contains("not the code of this request"), "{field}: {reason}");
        }
    }
    for (ts, status) in [
        (NOW_MS + 2 * HALF_HOUR_MS, 400), // too far ahead for any event
        (NOW_MS - 60_000, 202),
        (NOW_MS - 60_001, 400),
    ] {
        let mut moved = good.clone();
        moved["ts"] = json!(ts);
        let answer = server.post("/v1/plays", moved.to_string()).await;
        assert_eq!(answer.status, status, "{ts}: {}", answer.text);
    }
    assert_eq!(server.records(0).len(), records, "nothing refused is in the log");
    let metrics = server.get("/metrics").await.text;
    for line in [
        "marquee_collector_events_total{kind=\"impressions\",signed=\"yes\"} 2",
        "marquee_collector_refused_total{kind=\"impressions\",reason=\"forged\"} 8",
        "marquee_collector_refused_total{kind=\"plays\",reason=\"forged\"} 8",
        "marquee_collector_refused_total{kind=\"plays\",reason=\"expired\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn unsigned_events_are_counted_apart_or_refused() {
    let server = signing(|_| {});
    assert_eq!(server.post("/v1/impressions", event("r").to_string()).await.status, 202);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("events_total{kind=\"impressions\",signed=\"no\"} 1"), "{metrics}");

    let server = signing(|setup| {
        setup.collector.require_signed = true;
        setup.collector.token = TOKEN.to_owned();
    });
    let refused = server.post("/v1/impressions", event("r").to_string()).await;
    refused.is_problem(400, "No item was accepted");
    assert!(refused.text.contains("require_signed"), "{}", refused.text);
    let of_server = Request::post("/v1/impressions")
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Body::from(event("r").to_string()))
        .unwrap();
    assert_eq!(server.send(of_server).await.status, 202, "servers need no code");
    let ranked = rank(&server, &["a"]).await;
    assert_eq!(server.post("/v1/plays", of_tile(&ranked, 0).to_string()).await.status, 202);
}

#[tokio::test]
async fn elements_of_a_list_have_codes_of_their_own() {
    let server = signing(|setup| {
        setup.explode = Some("tiles");
        setup.collector.require_signed = true;
    });
    let ranked = rank(&server, &["a", "b"]).await;
    let tile = |place: usize| {
        let item = &ranked["items"][place];
        json!({ "video_id": item["video"], "position": item["position"], "code": item["code"] })
    };
    let record = |tiles: Json| json!({ "request_id": ranked["request_id"], "ts": NOW_MS, "row": 2, "tiles": tiles });
    let good = record(json!([tile(0), tile(1)]));
    assert_eq!(server.post("/v1/impressions", good.to_string()).await.status, 202);
    let mut swapped = tile(0);
    swapped["video_id"] = tile(1)["video_id"].clone();
    let forged = record(json!([tile(1), swapped]));
    let refused = server.post("/v1/impressions", forged.to_string()).await;
    refused.is_problem(400, "No item was accepted");
    assert!(refused.text.contains("element 1: code"), "{}", refused.text);
}

#[tokio::test]
async fn one_client_adds_only_so_much() {
    let mut setup = Setup::default();
    setup.collector.limits.video_events = 2;
    setup.collector.limits.rate = 1;
    setup.collector.limits.header = "x-client".to_owned();
    setup.collector.token = TOKEN.to_owned();
    let server = setup.start();
    let send = |client: &str, token: &str, count: usize| {
        let body: String =
            (0..count).map(|n| format!("{}\n", event(&format!("{client}-{n}")))).collect();
        Request::post("/v1/plays")
            .header("x-client", client)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body))
            .unwrap()
    };
    let some = server.send(send("192.0.2.1", "", 3)).await;
    assert_eq!(some.status, 207, "{}", some.text);
    assert_eq!(some.json()["accepted"], 2);
    assert!(some.text.contains("client_video_events"), "{}", some.text);
    // Three of ten are used up.
    let late = server.send(send("192.0.2.1", "", 8)).await;
    late.is_problem(429, "client_rate");
    assert_eq!(late.header("retry-after"), "1");
    assert_eq!(server.send(send("192.0.2.2", "", 2)).await.status, 202);
    assert_eq!(
        server.send(send("192.0.2.1", TOKEN, 50)).await.status,
        202,
        "servers are not bounded"
    );
}

#[tokio::test]
async fn a_code_is_good_for_as_long_as_it_is_configured() {
    const EXPIRES_MS: i64 = 300_000; // events may be ahead by more
    let server = signing(|setup| setup.rank.expires_ms = EXPIRES_MS);
    let ranked = rank(&server, &["a"]).await;
    let at = |after_ms: i64| {
        let mut event = of_tile(&ranked, 0);
        event["ts"] = json!(ranked["served_ms"].as_i64().unwrap() + after_ms);
        server.post("/v1/plays", event.to_string())
    };
    assert_eq!(at(EXPIRES_MS).await.status, 202);
    let late = at(EXPIRES_MS + 1).await;
    assert!(late.status == 400 && late.text.contains("too late for it"), "{}", late.text);
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains(r#"reason="expired"} 1"#), "{metrics}");
}

/// How many events there are in an item is known when it has been read: they are paid for afterwards.
#[tokio::test]
async fn elements_of_a_list_are_events_of_a_client_too() {
    let mut setup = Setup { explode: Some("tiles"), ..Setup::default() };
    setup.collector.limits.rate = 10;
    setup.collector.limits.header = "x-client".to_owned();
    let server = setup.start();
    let send = |client: &str, elements: usize| {
        let tiles: Vec<Json> =
            (0..elements).map(|n| json!({ "video_id": format!("v{n}") })).collect();
        let item = json!({ "request_id": "r", "ts": NOW_MS, "tiles": tiles }).to_string();
        let post = Request::post("/v1/impressions").header("x-client", client);
        post.body(Body::from(item)).unwrap()
    };
    assert_eq!(server.send(send("192.0.2.1", 99)).await.status, 202);
    assert_eq!(server.send(send("192.0.2.1", 200)).await.status, 202, "one is left of 100");
    let late = server.send(send("192.0.2.1", 1)).await;
    late.is_problem(429, "client_rate");
    assert_eq!(late.header("retry-after"), "20", "200 are owed, 10 come each second");
    assert_eq!(server.send(send("192.0.2.2", 1)).await.status, 202);
}

/// Otherwise whoever gives a video many names adds to it as often.
#[tokio::test]
async fn what_is_bounded_is_the_video_that_counts() {
    let transform = r#"video.startsWith("episode") ? "show" : video"#;
    let mut setup = Setup { transform, ..Setup::default() };
    setup.collector.limits.video_events = 2;
    setup.collector.limits.header = "x-client".to_owned();
    let server = setup.start();
    let send = |video: String| {
        let item = json!({ "request_id": "r", "video_id": video, "ts": NOW_MS }).to_string();
        let post = Request::post("/v1/plays").header("x-client", "192.0.2.1");
        server.send(post.body(Body::from(item)).unwrap())
    };
    for episode in 0..2 {
        assert_eq!(send(format!("episode-{episode}")).await.status, 202);
    }
    let more = send("episode-3".to_owned()).await;
    assert!(more.status == 400 && more.text.contains("client_video_events"), "{}", more.text);
    assert_eq!(send("another".to_owned()).await.status, 202);
}

/// A client that is told to send again must not be refused for what it has sent before.
#[tokio::test]
async fn what_was_not_kept_is_not_held_against_its_client() {
    let bounded = |explode| {
        let mut setup = Setup { explode, ..Setup::default() };
        setup.collector.limits.video_events = 1;
        setup.collector.limits.header = "x-client".to_owned();
        setup.start()
    };
    let post = |server: &Server, body: String| {
        let post = Request::post("/v1/plays").header("x-client", "192.0.2.1");
        let (router, request) = (server.router.clone(), post.body(Body::from(body)).unwrap());
        async move { tower::ServiceExt::oneshot(router, request).await.unwrap().status() }
    };
    // An item that is refused as a whole.
    let server = bounded(Some("tiles"));
    let item = |count: usize| {
        let tiles = vec![json!({ "video_id": "v" }); count];
        json!({ "request_id": "r", "ts": NOW_MS, "tiles": tiles }).to_string()
    };
    assert_eq!(post(&server, item(2)).await, 400);
    assert_eq!(post(&server, item(1)).await, 202);
    assert_eq!(post(&server, item(1)).await, 400);
    // A log that takes nothing.
    let server = bounded(None);
    std::fs::remove_dir_all(server.folder.path().join("log").join("plays")).unwrap();
    for _ in 0..3 {
        assert_eq!(post(&server, event("r").to_string()).await, 503);
    }
}

/// It would count as what nobody was asked for.
#[tokio::test]
async fn a_record_of_both_kinds_is_not_taken_from_who_is_bounded() {
    let mut setup = Setup { topics: ["events"; 2], ..Setup::default() };
    setup.collector.limits.video_events = 1;
    setup.collector.token = TOKEN.to_owned();
    let server = setup.start();
    let refused = server.post("/v1/impressions", event("r").to_string()).await;
    let words = "also one of [plays]";
    assert!(refused.status == 400 && refused.text.contains(words), "{}", refused.text);
    let post = Request::post("/v1/impressions").header("authorization", format!("Bearer {TOKEN}"));
    let own = server.send(post.body(Body::from(event("r").to_string())).unwrap()).await;
    assert_eq!(own.status, 202);
}

#[tokio::test]
async fn pages_of_sites_that_are_listed_send_and_read_the_answer() {
    let mut setup = Setup::default();
    setup.collector.allowed_origins = vec!["https://www.example.com".to_owned()];
    let server = setup.start();
    let from = |origin: &str, body: String| {
        Request::post("/v1/impressions")
            .header("origin", origin)
            .header("host", "collector.example.com")
            .body(Body::from(body))
            .unwrap()
    };
    for (body, status) in [(event("r").to_string(), 202), ("nonsense".to_owned(), 400)] {
        let answer = server.send(from("https://www.example.com", body)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(answer.header("access-control-allow-origin"), "https://www.example.com");
        assert_eq!(answer.header("access-control-expose-headers"), "Retry-After");
        assert_eq!(answer.header("vary"), "Origin");
    }
    for foreign in ["https://example.com", "https://www.example.com.evil.example", "null"] {
        let refused = server.send(from(foreign, event("r").to_string())).await;
        refused.is_problem(403, "allowed_origins");
        assert_eq!(refused.header("access-control-allow-origin"), "");
    }
    let ask = |origin: &str| {
        Request::options("/v1/plays")
            .header("origin", origin)
            .header("host", "collector.example.com")
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = server.send(ask("https://www.example.com")).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-methods"), "POST");
    server.send(ask("https://evil.example")).await.is_problem(403, "allowed_origins");
    // Nothing else may be read by that page.
    let trends = Request::get("/v1/trends").header("origin", "https://www.example.com");
    let trends = server.send(trends.body(Body::empty()).unwrap()).await;
    assert_eq!(trends.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn who_has_sent_learns_when_it_is_counted() {
    let server = Server::new();
    let body: String = (0..40).map(|n| format!("{}\n", event(&format!("r{n}")))).collect();
    let answer = server.post("/v1/impressions", body).await.json();
    let positions = answer["positions"].as_array().unwrap();
    assert_eq!(positions.len(), 4, "{answer}");
    let sum: u64 = positions.iter().map(|place| place["offset"].as_u64().unwrap()).sum();
    assert_eq!(sum, 40, "the next offset of each lane: {answer}");
    assert!(positions.iter().all(|place| place["topic"] == "impressions"));
    let status = server.get("/v1/status").await.json();
    assert!(status["lanes"][0]["next_offsets"].is_object(), "{status}");
}
