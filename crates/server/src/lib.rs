//! HTTP: the collector, the trends API, ranking, health, metrics and the pages.
//!
//! The server stands at both ends of the pipeline. What members' clients send, the
//! [collector](self#routes) checks and appends to the log; what the lanes have written to the
//! store, [`trends`] reads. In between it knows nothing but the [`StatusBoard`].
//!
//! # Routes
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/impressions`, `/v1/plays` | the collector: an object, an array or NDJSON |
//! | `GET /v1/trends` | cells, a page at a time; parameters in [`trends`] |
//! | `POST /v1/rank` | candidates in an order, each place signed |
//! | `GET /v1/status` | how the lanes are doing; **unstable** |
//! | `GET /healthz`, `/readyz`, `/metrics` | for whoever runs the process |
//! | `GET /ops`, `/ops/...` | the operator's page ([`ops`](OpsSettings)) |
//! | `GET /` | the [member] page of the demo; elsewhere it leads to `/ops` |
//! | `GET /marquee.js` | the script that any site may put on its pages to send events |
//!
//! Every error is a problem document (RFC 9457) whose `detail` says what to do.
//!
//! **What it never does.** It counts nothing, it never writes to the store, and it speaks no TLS: who
//! may reach it is decided by the address it listens on, or by a proxy. Operators and servers that
//! send or rank show tokens. Against web pages of other sites it has guards: [`serve`] on a loopback
//! address answers only to loopback names, and the collector refuses an `Origin` that nobody allowed.

mod app;
mod collector;
mod cors;
mod demo;
mod guard;
mod headers;
mod health;
mod mapping;
pub mod member;
mod metrics;
mod ops;
mod problem;
mod rank;
mod script;
mod serve;
mod status_api;
mod tiles;
pub mod trends;
mod trends_api;

pub use collector::ClientLimits;
pub use demo::Demo;
pub use ops::OpsSettings;
pub use ops::annotations::{Annotation, Annotations, What};
pub use rank::RankSettings;
pub use serve::serve;

use app::App;
use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use marquee_model::Kind;
use marquee_runtime::Plan;
use marquee_runtime::status::StatusBoard;
use marquee_sinks::Store;
use marquee_sinks::lake::LakeStatus;
use marquee_sources::Appender;
use std::sync::Arc;

/// What the server works with.
pub struct Parts {
    /// What is counted, and how records are read.
    pub plan: Arc<Plan>,
    /// Takes what is accepted; its topics are those of [`Plan::topics`] in their order.
    pub log: Arc<dyn Appender>,
    /// The store, which is only read.
    pub store: Arc<dyn Store>,
    /// What the lanes say of themselves.
    pub status: Arc<StatusBoard>,
    /// What the sealer of the lake says of itself; `None` where there is no lake.
    pub lake: Option<Arc<LakeStatus>>,
    /// The largest body of a request to the collector.
    pub max_body_bytes: u64,
    /// Who may send, and how much.
    pub collector: CollectorSettings,
    /// Recommendations.
    pub rank: RankSettings,
    /// Whether the invented video service is served.
    pub member_pages: bool,
    /// The operator's page.
    pub ops: OpsSettings,
    /// The buttons of the demo; `None` everywhere else.
    pub demo: Option<Arc<dyn Demo>>,
    /// Now, in milliseconds since 1970 UTC: the record time of what is accepted.
    pub clock: fn() -> i64,
}

/// Who may send events, and how much.
#[derive(Clone, Debug, Default)]
pub struct CollectorSettings {
    /// Origins whose pages may send, besides those of this server.
    pub allowed_origins: Vec<String>,
    /// What servers show to be neither limited nor asked for codes; empty: there is none.
    pub token: String,
    /// Whether others need the code of a tile.
    pub require_signed: bool,
    /// What one client may add.
    pub limits: ClientLimits,
}

/// All routes. Serve them with [`serve`].
pub fn router(parts: Parts) -> Router {
    let app = Arc::new(App::new(parts));
    let take = |kind: Kind| {
        post(move |state, request| collector::collect(kind, state, request))
            .options(cors::preflight)
    };
    let pages = match app.member_pages {
        true => member::routes(),
        false => Router::new().route("/", get(|| async { Redirect::to("/ops") })),
    };
    Router::new()
        .route("/v1/impressions", take(Kind::Impression))
        .route("/v1/plays", take(Kind::Play))
        .route("/v1/rank", post(rank::rank))
        .route("/v1/trends", get(trends_api::trends))
        .route("/v1/status", get(status_api::status))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/marquee.js", get(script::script))
        .merge(pages)
        .merge(ops::routes(&app))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::middleware::map_response(headers::secure))
        .with_state(app)
}
