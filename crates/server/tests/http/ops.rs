//! The operator's page: what it shows, who may see it, and who may change something.

use crate::support::{HALF_HOUR_MS, LANES, NOW_MS, Server, Setup};
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;
use marquee_model::Kind;
use marquee_runtime::history::{BatchNote, LetterSample, Stage, Stages};
use marquee_runtime::status::LaneStatus;
use marquee_server::{Demo, What};
use marquee_sinks::letters::LetterKind;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOKEN: &str = "a token of the tests";

/// Writes down what is pressed.
#[derive(Default)]
struct Pressed(Mutex<Vec<String>>);

impl Demo for Pressed {
    fn event(&self, video: &str) {
        self.0.lock().unwrap().push(format!("event {video}"));
    }

    fn source(&self, kind: Kind, stopped: bool) {
        self.0.lock().unwrap().push(format!("{} {stopped}", kind.plural()));
    }

    fn crash(&self) {
        self.0.lock().unwrap().push("crash".to_owned());
    }
}

fn server(change: impl FnOnce(&mut Setup)) -> Server {
    let mut setup = Setup::default();
    setup.ops.token = TOKEN.to_owned();
    setup.ops.annotations = Arc::default();
    change(&mut setup);
    setup.start()
}

fn bearer(request: Builder) -> Builder {
    request.header("authorization", format!("Bearer {TOKEN}"))
}

fn request(request: Builder, body: &str) -> Request<Body> {
    request.body(Body::from(body.to_owned())).unwrap()
}

const NOTES: &str = "/ops/api/annotations";
const NOTE: &str = r#"{"text":"canary at 10 %"}"#;

#[tokio::test]
async fn the_page_shows_batches_lanes_letters_and_trends() {
    let server = server(|_| {});
    let epoch = NOW_MS - NOW_MS % HALF_HOUR_MS;
    let cells = [
        ("<b>bold</b>", epoch, HALF_HOUR_MS, "", 1_000, 400),
        ("quiet", epoch - HALF_HOUR_MS, HALF_HOUR_MS, "", 500, 5),
        ("quiet", epoch, HALF_HOUR_MS, r#"{"country":"US"}"#, 500, 500),
    ];
    server.write(0, epoch / HALF_HOUR_MS, &cells);
    for lane in 0..LANES {
        let held = LaneStatus {
            lane,
            held: true,
            // A topic is silent: the watermark is held far behind what the other one brings.
            watermark_ms: Some(NOW_MS - 3 * HALF_HOUR_MS),
            next_offsets: vec![5, 5],
            end_offsets: vec![5, 7],
            ..LaneStatus::default()
        };
        server.status.set(held);
    }
    let mut stages = Stages::default();
    stages.add(Stage::Store, Duration::from_millis(120));
    server.status.note_batch(&BatchNote { at_ms: NOW_MS - 5_000, records: 4_000, stages });
    let sample = LetterSample::new(NOW_MS, "plays/3", 17, "too late by far", b"{\"a\":\"<i>\"}");
    server.status.note_letters(vec![(LetterKind::Late, sample)]);
    let page = server.get("/ops").await;
    assert_eq!(page.status, 200, "{}", page.text);
    for words in [
        "Ready",
        "400 / s",
        "120 ms",
        "of 250 ms",
        "<dt>Waiting</dt><dd><strong>8</strong>",
        "&lt;b&gt;bold&lt;/b&gt;",
        "too late by far",
        "plays/3 at offset 17",
        "&lt;i&gt;",
        "<svg",
        "read and join",
        "2 of 2 videos",
    ] {
        assert!(page.text.contains(words), "{words}\n{}", page.text);
    }
    assert!(!page.text.contains("<b>bold") && !page.text.contains("<i>"), "nothing of strangers");
    assert!(page.text.len() < 100_000, "{} bytes", page.text.len());
    // Another order, another range, a search, and all of it as CSV.
    let csv = server.get("/ops/trends.csv?by=impressions").await;
    assert!(csv.header("content-disposition").starts_with("attachment"));
    let lines: Vec<&str> = csv.text.lines().collect();
    assert!(lines[1].starts_with("<b>bold</b>,1000,400,0.39"), "{}", csv.text);
    // (5 + 50 * 405 / 1500) / (500 + 50), by hand.
    assert!(lines[2].starts_with("quiet,500,5,0.033636,true,"), "{}", csv.text);
    let found = server.get("/ops?search=QUI&range=24h").await;
    assert!(found.text.contains("1 of 1 videos that match, of 2 in all"), "{}", found.text);
    let earlier = format!("/ops/trends.csv?to={epoch}");
    assert_eq!(server.get(&earlier).await.text.lines().count(), 2, "the newest epoch is left out");
    server.get("/ops?range=1y").await.is_problem(400, "5m, 30m or 24h");
}

#[tokio::test]
async fn a_stream_brings_all_sections_and_then_what_has_changed() {
    use http_body::Body as _;
    let server = server(|_| {});
    server.write(0, 1, &[("v", 0, HALF_HOUR_MS, "", 1, 1)]);
    let request = request(Request::get("/ops/stream"), "");
    let answer = tower::ServiceExt::oneshot(server.router.clone(), request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = Box::pin(answer.into_body());
    let mut next = async || loop {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
        let data = frame.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(data.to_vec()).unwrap();
        let event = text.strip_prefix("event: sections\ndata: ");
        if let Some(event) = event {
            break serde_json::from_str::<serde_json::Value>(event.trim()).unwrap();
        }
    };
    let first = next().await;
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    let all = ["aside", "annotations", "charts", "health", "lanes", "summary", "trends"];
    assert!(all.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    // The clock of the tests stands still: nothing changes but what was noted.
    let noted = bearer(Request::post(NOTES));
    assert_eq!(server.send(self::request(noted, NOTE)).await.status, 202);
    let second = next().await;
    let names: Vec<&String> = second.as_object().unwrap().keys().collect();
    assert_eq!(names, ["annotations", "charts"], "a note is a mark on the charts");
}

#[tokio::test]
async fn changes_need_the_token_and_no_page_of_another_site_has_it() {
    let server = server(|_| {});
    let send = async |change: fn(Builder) -> Builder| {
        server
            .send(request(change(Request::post(NOTES).header("host", "localhost:80")), NOTE))
            .await
    };
    send(|r| r).await.is_problem(401, "operator's token");
    send(|r| r.header("authorization", "Bearer a token of the testz"))
        .await
        .is_problem(401, "token");
    assert_eq!(send(bearer).await.status, 202);
    send(|r| bearer(r).header("origin", "http://evil.example"))
        .await
        .is_problem(403, "another site");
    send(|r| bearer(r).header("sec-fetch-site", "cross-site"))
        .await
        .is_problem(403, "another site");
    send(|r| bearer(r).header("sec-fetch-site", "same-site")).await.is_problem(403, "another site");
    assert_eq!(send(|r| bearer(r).header("sec-fetch-site", "same-origin")).await.status, 202);

    // The cookie of a login, as a browser sends it.
    let login = |token: &str, change: fn(Builder) -> Builder| {
        let form = Request::post("/ops/login").header("host", "localhost:80");
        let form = change(form.header("content-type", "application/x-www-form-urlencoded"));
        server.send(request(form, &format!("token={token}")))
    };
    login("wrong", |r| r).await.is_problem(401, "token");
    let token = TOKEN.replace(' ', "+");
    login(&token, |r| r.header("origin", "http://evil.example")).await.is_problem(403, "another");
    let answer = login(&token, |r| r.header("origin", "http://localhost")).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/ops"));
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("token"), "the cookie holds no token: {cookie}");
    let pair = cookie.split(';').next().unwrap();
    let with = async |origin: Option<&str>, pair: &str| {
        let mut sent = Request::post(NOTES).header("host", "localhost:80").header("cookie", pair);
        if let Some(origin) = origin {
            sent = sent.header("origin", origin);
        }
        server.send(request(sent, NOTE)).await
    };
    assert_eq!(with(Some("http://localhost"), pair).await.status, 202);
    with(Some("http://evil.example"), pair).await.is_problem(403, "another site");
    with(Some("null"), pair).await.is_problem(403, "another site");
    with(None, pair).await.is_problem(403, "Origin");
    let forged = pair.replace(|c: char| c.is_ascii_digit(), "0");
    with(Some("http://localhost"), &forged).await.is_problem(401, "token");
    // Nothing was changed but by those who may.
    let seen = server.get("/ops").await.text;
    assert_eq!(seen.matches("canary at 10 %").count(), 3, "{seen}");
}

#[tokio::test]
async fn without_a_token_nobody_changes_anything_and_others_see_nothing() {
    let open = server(|setup| setup.ops.token = String::new());
    assert_eq!(open.get("/ops").await.status, 200, "on a loopback address one may look");
    open.post(NOTES, NOTE).await.is_problem(403, "MARQUEE_HTTP_TOKEN");
    let public = server(|setup| {
        setup.ops.token = String::new();
        setup.ops.is_public = true;
    });
    let page = public.get("/ops").await;
    assert!(page.text.contains("has no operator's token") && !page.text.contains("<svg"));
    public.get("/ops/stream").await.is_problem(403, "MARQUEE_HTTP_TOKEN");
    let public = server(|setup| setup.ops.is_public = true);
    let page = public.get("/ops").await;
    assert!(page.text.contains("<form") && !page.text.contains("<svg"), "a form and no more");
    for path in ["/ops/stream", "/ops/trends.csv"] {
        public.get(path).await.is_problem(401, "token");
        let own = public.send(request(bearer(Request::get("/ops/trends.csv")), "")).await;
        assert_eq!(own.status, 200);
    }
    assert_eq!(public.get("/ops/assets/ops.css").await.status, 200);
}

/// Who connects through a proxy seems to be on this machine.
#[tokio::test]
async fn who_comes_through_a_proxy_needs_the_token() {
    let server = server(|setup| setup.ops.allowed_hosts = vec!["marquee.example".to_owned()]);
    let through = |name: &str, value: &str| Request::get("/ops/trends.csv").header(name, value);
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 a"),
        ("host", "marquee.example"),
    ] {
        server.send(request(through(name, value), "")).await.is_problem(401, "token");
        let own = server.send(request(bearer(through(name, value)), "")).await;
        assert_eq!(own.status, 200, "{name}");
        let page = Request::get("/ops").header(name, value);
        let page = server.send(request(page, "")).await;
        assert!(page.text.contains("<form") && !page.text.contains("<svg"), "{name}");
        let rank = Request::post("/v1/rank").header(name, value);
        let rank = server.send(request(rank, r#"{"candidates":["a"]}"#)).await;
        rank.is_problem(403, "[rank]");
    }
    // It keeps the name, so the page of that name may log in.
    let login = |origin: &str| {
        let post = Request::post("/ops/login").header("host", "marquee.example");
        let post = post.header("x-forwarded-for", "192.0.2.1").header("origin", origin);
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        request(post, &format!("token={}", TOKEN.replace(' ', "+")))
    };
    assert_eq!(server.send(login("https://marquee.example")).await.status, 303);
    assert_eq!(server.send(login("https://evil.example")).await.status, 403);
}

#[tokio::test]
async fn names_that_anybody_could_point_here_are_not_answered() {
    let server = server(|setup| setup.ops.allowed_hosts = vec!["marquee.example".to_owned()]);
    let host = |host: &'static str| {
        let get = bearer(Request::get("/ops/trends.csv").header("host", host));
        server.send(request(get, ""))
    };
    for good in ["localhost:8080", "127.0.0.1", "[::1]:80", "10.1.2.3:80", "Marquee.Example:8080"] {
        assert_eq!(host(good).await.status, 200, "{good}");
    }
    for bad in ["evil.example", "marquee.example.evil.example", "127.0.0.1.evil.example:80"] {
        host(bad).await.is_problem(421, "allowed_hosts");
    }
    // A link from elsewhere may be followed to the page, and to nothing else.
    let follow = |path: &'static str, dest: &'static str| {
        let link = Request::get(path).header("sec-fetch-site", "cross-site");
        let link = link.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", dest);
        server.send(request(link, ""))
    };
    assert_eq!(follow("/ops", "document").await.status, 200);
    follow("/ops", "iframe").await.is_problem(403, "another site");
    follow("/ops/trends.csv", "document").await.is_problem(403, "another site");
    let page = server.get("/ops").await;
    assert!(page.header("access-control-allow-origin").is_empty());
    assert_eq!(page.header("cross-origin-resource-policy"), "same-origin");
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
}

#[tokio::test]
async fn the_buttons_are_the_demos_alone() {
    let plain = server(|_| {});
    let crash = bearer(Request::post("/ops/api/demo/crash"));
    plain.send(request(crash, "")).await.is_problem(404, "marquee demo");
    let pressed = Arc::new(Pressed::default());
    let demo = pressed.clone();
    let server = server(|setup| {
        setup.demo = Some(demo);
        setup.rank.keys = vec!["a secret of the tests, thirty-two bytes or more".to_owned()];
    });
    let ranked = server.post("/v1/rank", r#"{"candidates":["a-quiet-orchard"]}"#).await;
    assert!(ranked.json()["items"][0]["code"].is_string(), "{}", ranked.text);
    let press = async |path: &str, body: &str| {
        server.send(request(bearer(Request::post(format!("/ops/api/demo/{path}"))), body)).await
    };
    assert_eq!(press("event", r#"{"video":"a-quiet-orchard"}"#).await.status, 202);
    press("event", r#"{"video":"nothing"}"#).await.is_problem(404, "no title");
    press("event", "{").await.is_problem(400, "Send");
    assert_eq!(press("source", r#"{"kind":"plays","stopped":true}"#).await.status, 202);
    press("source", r#"{"kind":"clicks","stopped":true}"#).await.is_problem(400, "clicks");
    server.post("/ops/api/demo/crash", "").await.is_problem(401, "token");
    // Nor by a page of another site, though the operator's browser has the token.
    for (path, body) in [
        ("event", r#"{"video":"a-quiet-orchard"}"#),
        ("source", r#"{"kind":"plays","stopped":false}"#),
        ("crash", ""),
    ] {
        let post = || bearer(Request::post(format!("/ops/api/demo/{path}")));
        for foreign in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            let refused = server.send(request(post().header(foreign.0, foreign.1), body)).await;
            refused.is_problem(403, "another site");
        }
    }
    let answer = press("crash", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (202, json!({ "said": "The process is being killed." }))
    );
    // It answers first.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(*pressed.0.lock().unwrap(), ["event a-quiet-orchard", "plays true", "crash"]);
    let page = server.get("/ops").await.text;
    for words in ["A Quiet Orchard is in the news", "plays are stopped", "the crash button"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.contains("log in with the token"), "who may not press is told how");
}

#[tokio::test]
async fn a_note_has_a_length() {
    let server = server(|setup| setup.ops.annotations.add(What::Note, "before", NOW_MS));
    let long = json!({ "text": "x".repeat(201) }).to_string();
    for bad in [r#"{"text":"  "}"#, long.as_str()] {
        let answer = server.send(request(bearer(Request::post(NOTES)), bad)).await;
        answer.is_problem(400, "1 to 200 characters");
    }
    assert!(server.get("/ops").await.text.contains("before"));
}
