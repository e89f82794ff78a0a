//! The operator's page: what the service does, has done, and puts aside, live.
//!
//! Its sections are made on the server, as HTML with charts in SVG, for the first answer and for each
//! event of a stream alike; a small module puts them in place. A permalink is the address itself: all
//! that was asked for is in its query ([`view`]).
//!
//! | route | what | needs |
//! |---|---|---|
//! | `GET /ops` | the page | `read` |
//! | `GET /ops/stream` | server-sent events, each a JSON object of sections that have changed | `read` |
//! | `GET /ops/trends.csv` | what the table of trends shows, all rows | `read` |
//! | `GET /ops/assets/*` | its style and its module | |
//! | `POST /ops/login`, `/ops/logout` | a cookie for the token | the token |
//! | `POST /ops/api/annotations` | a mark on the charts | `write` |
//! | `POST /ops/api/demo/*` | the buttons of the demo | `write` |
//!
//! `read`: anybody on a loopback address, who has the token elsewhere; `write`: who has the token
//! ([`access`]).

mod access;
mod actions;
pub(crate) mod annotations;
mod charts;
mod page;
mod sections;
mod stream;
mod trends;
mod view;

pub(crate) use stream::STREAMS;

use crate::app::App;
use crate::problem::Problem;
use annotations::Annotations;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use tower_http::compression::CompressionLayer;
use view::View;

/// How the operator's page is set up.
#[derive(Clone, Debug)]
pub struct OpsSettings {
    /// What operators show; empty: nobody can change anything, and the page is for loopback only.
    pub token: String,
    /// Names besides loopback ones that may stand in the address of the page.
    pub allowed_hosts: Vec<String>,
    /// Whether others than this machine can reach the server.
    pub is_public: bool,
    /// How long a batch that keeps up may take, milliseconds.
    pub batch_interval_ms: i64,
    /// What has happened to the service.
    pub annotations: Arc<Annotations>,
}

/// Its routes.
pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/ops", get(page))
        .route("/ops/trends.csv", get(trends::csv))
        .route("/ops/assets/base.css", get(|| style(include_str!("../assets/base.css"))))
        .route("/ops/assets/ops.css", get(|| style(include_str!("../assets/ops/ops.css"))))
        .route("/ops/assets/ops.js", get(|| script(include_str!("../assets/ops/ops.js"))))
        .route("/ops/login", post(access::login))
        .route("/ops/logout", post(access::logout))
        .route("/ops/api/annotations", post(actions::annotate))
        .route("/ops/api/demo/event", post(actions::event))
        .route("/ops/api/demo/source", post(actions::source))
        .route("/ops/api/demo/crash", post(actions::crash))
        .layer(CompressionLayer::new())
        // Compressing a stream would hold its events back.
        .route("/ops/stream", get(stream::stream))
        .layer(axum::middleware::from_fn_with_state(app.clone(), access::check))
}

async fn page(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let may = access::rights(&app, &request);
    if !may.read {
        return Ok(Html(page::login(app.ops.token.is_empty()).into_string()).into_response());
    }
    let view = View::of(request.uri())?;
    let sections = sections::all(&app, &view).await?;
    Ok(Html(page::page(&app, &view, &sections, may).into_string()).into_response())
}

async fn style(text: &'static str) -> impl IntoResponse {
    asset("text/css; charset=utf-8", text)
}

async fn script(text: &'static str) -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", text)
}

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], text)
}
