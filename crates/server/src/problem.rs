//! Errors as problem documents (RFC 9457): a stable status, and words that say what to do.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value as Json, json};

/// An error that a client is told. It never holds paths or other secrets of the machine.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    retry_after_seconds: Option<u32>,
    header: Option<Box<(HeaderName, &'static str)>>,
    /// Extension members.
    more: Map<String, Json>,
}

impl Problem {
    /// `detail` is whole sentences, the last of which says what to do.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            status,
            detail: detail.into(),
            retry_after_seconds: None,
            header: None,
            more: Map::new(),
        }
    }

    /// The same request may succeed later.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// One header more.
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Adds extension members.
    pub(crate) fn with(mut self, more: Json) -> Self {
        if let Json::Object(more) = more {
            self.more.extend(more);
        }
        self
    }

    /// The words of it.
    pub(crate) fn into_detail(self) -> String {
        self.detail
    }

    /// A bug. It is logged, since the client cannot do anything about it.
    pub(crate) fn bug(error: &dyn std::fmt::Display) -> Self {
        tracing::error!("a request failed by a fault of this program: {error}");
        let detail = "The server failed by a fault of its own. Its log says more; report it there.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Json::Object(members) = &mut document {
            members.extend(self.more);
        }
        let headers = [(CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, headers, document.to_string()).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

pub(crate) async fn no_such_route(uri: Uri) -> Problem {
    let detail = format!(
        "There is nothing at {}. Send events to /v1/impressions and /v1/plays, read /v1/trends, \
         and look at / in a browser.",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail =
        format!("{} does not take {method}. The header `allow` says what it takes.", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
