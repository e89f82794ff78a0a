//! `GET /v1/trends`: [`trends`](crate::trends) over HTTP.

use crate::app::App;
use crate::problem::Problem;
use crate::trends::{self, Page, TrendQuery};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use marquee_sinks::SinkError;
use std::sync::Arc;

/// Answers with a page of cells.
pub(crate) async fn trends(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Page>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, format!("{detail}."));
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|error| bad(format!("The parameters cannot be read: {error}")))?;
    let mut query =
        TrendQuery::from_parameters(&parameters).map_err(|error| bad(error.to_string()))?;
    query.newest_near_ms = Some((app.clock)());
    let lanes = app.status.lanes();
    // Where the store is shared, what other processes count is in it, too.
    let is_shared = app.store.is_shared();
    let may_lack = lanes.iter().filter(|lane| !is_shared && (!lane.held || lane.is_behind_group));
    query.lanes_elsewhere = may_lack.map(|lane| lane.lane).collect();
    let turn =
        Arc::clone(&app.reads).acquire_owned().await.map_err(|error| Problem::bug(&error))?;
    // Reading waits for the disk. The turn ends with it, not with a client that has gone.
    let read = move || {
        let page = trends::run(&*app.store, &query);
        drop(turn);
        page
    };
    let page = tokio::task::spawn_blocking(read).await.map_err(|error| Problem::bug(&error))?;
    page.map(Json).map_err(|error| unreadable(&error))
}

fn unreadable(error: &SinkError) -> Problem {
    tracing::error!("trends could not be read: {error}");
    let detail = "The store cannot be read now. The server's own log says why.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5)
}
