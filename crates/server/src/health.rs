//! Whether the process lives, and whether its results are up to date.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// It answers, so it lives.
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when all lanes count what arrives, 503 with the reasons while they do not.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let reasons = app.reasons_not_ready();
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}
