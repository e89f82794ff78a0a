//! `GET /ops/stream`: the sections that have changed, each second, as server-sent events.

use super::sections::{self, Sections};
use super::view::View;
use crate::app::App;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often somebody who looks is told what has changed.
const EVERY: Duration = Duration::from_secs(1);

/// Every so many times the store is read.
const STORE_EVERY: u64 = 2;

/// Streams at a time: each costs a read of the store every two seconds.
pub(crate) const STREAMS: usize = 16;

struct Watcher {
    app: Arc<App>,
    view: View,
    /// What was sent.
    sent: Sections,
    ticks: Interval,
    number: u64,
    _turn: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let view = View::of(&uri)?;
    let turn = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let detail = format!("{STREAMS} pages are being kept up to date; close some of them.");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(10)
    })?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher { app, view, sent: Sections::new(), ticks, number: 0, _turn: turn };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Watcher {
    /// The next event. One is sent each second, if only to say that all is as it was.
    async fn next(&mut self) -> Event {
        self.ticks.tick().await;
        let sections = match self.look().await {
            Ok(sections) => sections,
            Err(problem) => {
                // The page says so, and goes on to listen.
                return Event::default().event("trouble").data(problem.into_detail());
            }
        };
        self.number += 1;
        let changed: Sections =
            sections.into_iter().filter(|(name, html)| self.sent.get(name) != Some(html)).collect();
        let data = serde_json::to_string(&changed).unwrap_or_default();
        self.sent.extend(changed);
        Event::default().event("sections").data(data)
    }

    async fn look(&self) -> Result<Sections, Problem> {
        let mut sections = sections::live(&self.app, &self.view)?;
        if self.number.is_multiple_of(STORE_EVERY) {
            sections.insert("trends", sections::trends(&self.app, &self.view).await?);
        }
        Ok(sections)
    }
}
