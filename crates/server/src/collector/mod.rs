//! The collector: what members' clients send is checked and appended to the log.
//!
//! A **body** holds **items** (an object, the elements of an array, or lines); an item becomes one
//! **record** of the log, or several where `explode` makes events of several lanes of it.
//!
//! - `body` reads it, within the bounds of one request and of all together;
//! - `items` takes it apart;
//! - `judge` decides on each item: records to write, or the reason why it is rejected;
//! - `split` cuts an item that belongs to several lanes;
//! - `clients` bounds what one client may add, and `signed` looks at the codes of tiles;
//! - `answer` says how it went.
//!
//! An item is accepted or rejected as a whole: if one of its exploded elements is bad, nothing of
//! it is written. All accepted items of a body are appended by one call that returns when they are
//! synced, so an answer of 202 or 207 means durable. An answer of 503 may stand for a body of
//! which a crash leaves a part behind: sending it again is harmless, duplicates count once.

mod answer;
mod body;
mod clients;
mod items;
mod judge;
mod signed;
mod split;

use crate::app::App;
use crate::problem::Problem;
use crate::{cors, guard};
use answer::{Answer, Place};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use axum::response::{IntoResponse, Response};
use clients::Client;
use judge::{Judge, Record, Sender};
use marquee_model::Kind;
use marquee_sources::embedded::{LogError, Position};
use marquee_sources::{NewRecord, SourceError};
use serde_json::json;
use std::sync::Arc;

pub use clients::ClientLimits;
pub(crate) use clients::Clients;
pub(crate) use judge::{Refused, Tally};

/// Handles one request of one kind.
pub(crate) async fn collect(kind: Kind, State(app): State<Arc<App>>, request: Request) -> Response {
    let origin = cors::allowed(request.headers(), &app.allowed_origins);
    let response = match receive(kind, &app, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => problem.into_response(),
    };
    app.metrics.answered(kind, response.status());
    // Whatever the answer is: a page that cannot read it would send again what was refused.
    cors::tell(response, origin)
}

async fn receive(kind: Kind, app: &Arc<App>, request: Request) -> Result<Answer, Problem> {
    guard::may_send(request.headers(), &app.allowed_origins)?;
    refuse_when_failed(app)?;
    refuse_encodings(&request)?;
    let sender = Sender {
        client: Client::of(app.clients.limits(), request.headers(), request.extensions()),
        is_server: guard::has_token(request.headers(), &app.collector_token),
    };
    if !sender.is_server {
        // Who has sent too much holds no room that others need.
        app.clients.take(sender.client, 0, (app.clock)()).map_err(too_fast)?;
    }
    let (body, room) = body::read(app, request).await?;
    let app = Arc::clone(app);
    // Decoding takes a while and appending waits for the disk: neither belongs on a thread that
    // serves connections. The body keeps its room there even if the client is gone.
    let work = move || {
        let answer = take(kind, &app, sender, &body);
        drop(room);
        answer
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::bug(&error))?
}

fn refuse_when_failed(app: &App) -> Result<(), Problem> {
    let Some(reason) = app.status.failure() else { return Ok(()) };
    tracing::debug!("events are refused: {reason}");
    let detail = "The process is about to end, since one of its lanes failed. Nothing of this \
        request was kept: send it again when the process is back.";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5))
}

fn refuse_encodings(request: &Request) -> Result<(), Problem> {
    let Some(encoding) = request.headers().get(CONTENT_ENCODING) else { return Ok(()) };
    if encoding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    let detail = "The collector takes plain bodies only. Send it without `Content-Encoding`.";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Judges all items of a body and appends what is accepted.
fn take(kind: Kind, app: &App, sender: Sender, body: &[u8]) -> Result<Answer, Problem> {
    let now_ms = (app.clock)();
    let is_bounded = !sender.is_server && app.clients.limits().rate > 0;
    let mut items = 0;
    if is_bounded {
        items::for_each(body, &mut |_| items += 1).map_err(not_an_array)?;
        app.clients.take(sender.client, items, now_ms).map_err(too_fast)?;
    }
    let mut judge = Judge::new(app, kind, sender, now_ms);
    let (mut answer, mut records) = (Answer::default(), Vec::new());
    let each = &mut |item| match judge.judge(item, &mut records) {
        Ok(()) => answer.accept(),
        Err(reason) => answer.reject(reason),
    };
    let read = items::for_each(body, each).map_err(not_an_array);
    if is_bounded {
        app.clients.owe(sender.client, judge.tally.events().saturating_sub(items));
    }
    let topic = app.topic_index(kind);
    let appended = read.and_then(|()| append(app, topic, now_ms, &records));
    if appended.is_err() {
        // It will be sent again.
        app.clients.give_back(&judge.added);
    }
    for position in appended? {
        let (lane, next_offset) = (position.lane, position.offset + 1);
        answer.stands_at(Place { topic: app.topic_name(topic), lane, offset: next_offset });
    }
    app.metrics.judged(kind, answer.accepted, answer.rejected_count);
    app.metrics.looked_at(kind, judge.tally);
    Ok(answer)
}

fn append<'r>(
    app: &App,
    topic: usize,
    now_ms: i64,
    records: &'r [Record<'_>],
) -> Result<Vec<Position>, Problem> {
    let record = |record: &'r Record<'_>| NewRecord {
        topic,
        lane: record.lane,
        record_time_ms: now_ms,
        key: Some(record.key.as_bytes()),
        payload: &record.payload,
    };
    let batch: Vec<NewRecord<'_>> = records.iter().map(record).collect();
    match app.log.append(&batch) {
        Ok(positions) => Ok(positions),
        // These would be faults of the collector, which chose the lanes and checked the sizes.
        Err(SourceError::Embedded(error @ (LogError::TooLarge { .. } | LogError::Unusable(_)))) => {
            Err(Problem::bug(&error))
        }
        Err(error) => {
            tracing::error!("events were refused: {error}");
            let detail = "The log cannot take records now. Nothing of this request was \
                acknowledged: send it again later. The server's own log says why.";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5))
        }
    }
}

fn too_fast(seconds: u32) -> Problem {
    let detail = "This client sends more events than it may ([collector] client_rate). Nothing of this \
        request was kept: send it again later.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(seconds)
}

fn not_an_array(error: String) -> Problem {
    let detail = format!(
        "The body begins like a JSON array, but is none: {error}. Nothing of it was kept. Send an \
         object, an array of objects, or one object on each line."
    );
    let none = json!({ "accepted": 0, "rejected": [], "rejected_count": 0 });
    Problem::new(StatusCode::BAD_REQUEST, detail).with(none)
}
