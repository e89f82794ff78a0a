//! `GET /marquee.js`: the script that sites put on their pages to send events here.
//!
//! It is the only file that pages of other sites may load. It holds no secret and reads nothing of
//! this server; what it may send, the collector decides. What it does is in docs/script.md.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

/// As it is written, with comments and indentation, which nobody has to download.
const SOURCE: &str = include_str!("../assets/marquee.js");

/// How long browsers use it without asking: so long an old one may be at work after an update.
const CACHED: &str = "public, max-age=300";

/// For pages that load nothing which has not agreed to it (`Cross-Origin-Embedder-Policy`).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::of(SOURCE));

struct Script {
    text: String,
    etag: String,
}

impl Script {
    fn of(source: &str) -> Script {
        let text = without_comments(source);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Script { etag: format!("\"{:016x}\"", hasher.finish()), text }
    }
}

/// Leaves out lines that are only a comment, after the first, and the space at the start of lines.
fn without_comments(source: &str) -> String {
    let is_code =
        |line: &&str| !(line.is_empty() || line.starts_with("//") || line.starts_with("/**"));
    let mut lines = source.lines().map(str::trim_start);
    let first = lines.next().unwrap_or_default();
    let mut text = format!("{first}\n");
    for line in lines.filter(is_code) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

pub(crate) async fn script(headers: HeaderMap) -> Response {
    let Script { text, etag } = &*SCRIPT;
    let common = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (RESOURCE_POLICY, HeaderValue::from_static("cross-origin")),
        (CACHE_CONTROL, HeaderValue::from_static(CACHED)),
        (ETAG, HeaderValue::from_str(etag).expect("hexadecimal digits in quotes are a header")),
    ];
    if headers.get_all(IF_NONE_MATCH).iter().any(|known| names(known, etag)) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let content_type = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (common, content_type, text.as_str()).into_response()
}

/// Whether one of the tags in an `If-None-Match` is this one. Proxies that compress make it weak.
fn names(known: &HeaderValue, etag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small() {
        let bytes = SCRIPT.text.len();
        assert!((4_000..13_500).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn only_comments_and_indentation_are_left_out() {
        let source =
            "// What it is.\n(() => {\n  // Why.\n\n  /** What. */\n  let a = 1; // one\n})();\n";
        assert_eq!(
            without_comments(source),
            "// What it is.\n(() => {\nlet a = 1; // one\n})();\n"
        );
        // Otherwise a line of a text could look like a comment.
        assert!(SOURCE.lines().all(|line| line.matches('`').count() % 2 == 0), "a text of lines");
        assert!(
            !SOURCE.contains("/*\n")
                && SOURCE.matches("/*").count() == SOURCE.matches("/**").count()
        );
    }

    #[test]
    fn tags() {
        let known = |text| names(&HeaderValue::from_static(text), "\"ab\"");
        assert!(known("\"ab\"") && known("\"x\", W/\"ab\""));
        assert!(!known("\"abc\"") && !known("ab") && !known(""));
    }
}
