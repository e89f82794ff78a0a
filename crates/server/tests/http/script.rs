//! `/marquee.js`: for pages of any site, and not downloaded twice.

use crate::support::Server;
use axum::body::Body;
use axum::http::Request;

#[tokio::test]
async fn any_site_may_load_it_and_only_it() {
    let server = Server::new();
    let answer = server.get("/marquee.js").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.text.starts_with("// marquee.js ") && answer.text.ends_with("})();\n"));
    for uri in ["/", "/ops/assets/ops.js", "/v1/trends", "/v1/status"] {
        let headers = server.get(uri).await.headers;
        assert!(!headers.contains_key("access-control-allow-origin"), "{uri}");
    }
}

#[tokio::test]
async fn who_has_it_is_told_so() {
    let server = Server::new();
    let answer = server.get("/marquee.js").await;
    assert!(answer.header("cache-control").contains("max-age="));
    let etag = answer.header("etag").to_owned();
    let ask = |known: String| Request::get("/marquee.js").header("if-none-match", known);
    let again = server.send(ask(etag.clone()).body(Body::empty()).unwrap()).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    assert_eq!((again.header("etag"), again.header("access-control-allow-origin")), (&*etag, "*"));
    let other = server.send(ask("\"other\"".into()).body(Body::empty()).unwrap()).await;
    assert_eq!(other.status, 200);
}
