//! The member page: a video service that does not exist, with a home page that the recommender orders
//! and that reports what is seen and played like any other site.
//!
//! It is served where `[http] pages = "demo"`. What it shows is made on the server, escaped by its
//! templates; what moves is done by small modules (`assets/member/*.js`). It holds nothing: rows are
//! ranked when somebody asks for them, under a new request id each time.

pub mod catalogue;
mod pages;
mod poster;
mod rows;

use crate::app::App;
use crate::problem::Problem;
use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use catalogue::title_of;
use serde_json::Value;
use std::sync::Arc;
use tower_http::compression::CompressionLayer;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(home))
        .route("/title/{id}", get(title))
        .route("/poster/{file}", get(poster))
        .route("/member/rows", get(new_rows))
        .route("/member/why/{id}", get(why))
        .route("/member/base.css", get(|| style(include_str!("../assets/base.css"))))
        .route("/member/member.css", get(|| style(include_str!("../assets/member/member.css"))))
        .route("/member/home.js", get(|| script(include_str!("../assets/member/home.js"))))
        .route("/member/loop.js", get(|| script(include_str!("../assets/member/loop.js"))))
        .route("/member/title.js", get(|| script(include_str!("../assets/member/title.js"))))
        // A page of posters is a tenth of its size then. Nothing secret stands beside what a stranger
        // has written here.
        .layer(CompressionLayer::new())
}

async fn home(State(app): State<Arc<App>>) -> Result<Html<String>, Problem> {
    let rows = rows::all(&app).await?;
    Ok(Html(pages::home(&rows).into_string()))
}

async fn title(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let Some(title) = title_of(&id) else {
        let page = Html(pages::no_such_title(&id).into_string());
        return Ok((StatusCode::NOT_FOUND, page).into_response());
    };
    let row = rows::like(&app, title).await?;
    let own = rows::alone(&app, title).await?;
    Ok(Html(pages::title(title, &own, &row).into_string()).into_response())
}

/// Posters never change: a browser asks for each of them once.
async fn poster(Path(file): Path<String>) -> Response {
    let title = file.strip_suffix(".svg").and_then(title_of);
    let Some(title) = title else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "There is no such poster.");
        return problem.into_response();
    };
    let headers =
        [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, poster::svg(title)).into_response()
}

async fn new_rows(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    Ok(Json(rows::json(&rows::all(&app).await?)))
}

async fn why(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    match title_of(&id) {
        Some(title) => rows::why(&app, title).await.map(Json),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "There is no such title.")),
    }
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
