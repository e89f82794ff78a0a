//! Reads a body within bounds: of one request, and of all that are being worked on.

use crate::app::App;
use crate::problem::Problem;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A request takes at least this much room, so that there is a bound on their number, too.
const REQUEST_BYTES: usize = 16 << 10;

/// How long a body may take to arrive: slow ones hold room that others need.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How much of a body that is too large is read and thrown away. Many clients look at the answer
/// only after they have sent everything; to them, closing the connection is an error without words.
const DRAINED_BYTES: usize = 64 << 20;

/// The same, in time.
const DRAINING: Duration = Duration::from_secs(5);

/// The whole body, and the room that it takes until the request is answered.
pub(super) async fn read(
    app: &App,
    request: Request,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Problem> {
    let limit = app.max_body_bytes;
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Who asks before sending has not sent anything yet.
    let asks_first = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    if length.is_some_and(|length| length > limit) {
        if !asks_first {
            drain(&mut body).await;
        }
        return Err(too_large(limit));
    }
    let room = room(app, length.unwrap_or(limit).saturating_mul(app.memory_factor))?;
    let mut bytes = Vec::with_capacity(length.unwrap_or(0));
    match timeout(ARRIVAL, fill(&mut body, &mut bytes, limit)).await {
        Ok(Ok(true)) => Ok((bytes, room)),
        Ok(Ok(false)) => {
            drop((bytes, room));
            drain(&mut body).await;
            Err(too_large(limit))
        }
        Ok(Err(error)) => {
            let detail = format!("The body broke off ({error}). Nothing of it was kept.");
            Err(Problem::new(StatusCode::BAD_REQUEST, detail))
        }
        Err(_) => {
            let seconds = ARRIVAL.as_secs();
            let detail = format!(
                "The body took more than {seconds} s to arrive. Nothing of it was kept: send it \
                 again, in smaller pieces."
            );
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// Room for a body, at once or not at all: waiting requests would need room of their own.
fn room(app: &App, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let bytes = bytes.max(REQUEST_BYTES).min(app.in_flight_bytes);
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(&app.in_flight).try_acquire_many_owned(permits).map_err(|_| {
        let detail = "The collector holds as many bodies as it can and waits for the disk. Nothing \
            of this request was kept: send it again after a moment, and send fewer at once.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(1)
    })
}

/// Whether the whole body fits.
async fn fill(body: &mut Body, bytes: &mut Vec<u8>, limit: usize) -> Result<bool, axum::Error> {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - bytes.len() {
            return Ok(false);
        }
        bytes.extend_from_slice(data);
    }
    Ok(true)
}

async fn drain(body: &mut Body) {
    let all = async {
        let mut left = DRAINED_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            let read = frame.data_ref().map_or(0, |data| data.len());
            let Some(rest) = left.checked_sub(read) else { return };
            left = rest;
        }
    };
    // Whether the client was done in time is its own affair.
    let _ = timeout(DRAINING, all).await;
}

fn too_large(limit: usize) -> Problem {
    let detail = format!(
        "The body is larger than {limit} bytes. Nothing of it was kept: send it in several \
         requests, or raise [collector] max_body."
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}
