//! `POST /v1/rank`: candidates in, an order out, with a request id under which it is shown and a code
//! for each place.
//!
//! What was counted lately is read from the store when somebody asks and what is known is older than a
//! batch, or half a second: how many ask costs the store nothing.

use crate::app::App;
use crate::guard;
use crate::problem::Problem;
use crate::status_api::next_offsets;
use crate::tiles::Tile;
use crate::trends::canonical_slice;
use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use marquee_recommend::{Counted, Ranking, Recent};
use marquee_runtime::status::LaneStatus;
use marquee_sinks::{CellQuery, Gap, SinkError, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How old what is known may be, at most: a batch interval, if that is shorter.
const FRESH: Duration = Duration::from_millis(500);

/// Slices of which something is known at a time.
const SLICES: usize = 64;

/// Candidates of one request.
const MOST: usize = 10_000;

/// Bytes of one request: so many candidates have longer names than any service gives.
const BODY_BYTES: usize = 4 << 20;

/// How ranking is set up.
#[derive(Clone, Debug)]
pub struct RankSettings {
    /// What callers show; empty: callers on this machine need nothing, others get nothing, and where tiles
    /// are signed nobody gets anything.
    pub token: String,
    /// Secrets that tiles are signed with; the first one signs. None: nothing is signed.
    pub keys: Vec<String>,
    /// How long after it was served a tile's code is good, milliseconds.
    pub expires_ms: i64,
    /// Epochs that start within so much time before the newest watermark, or later, count.
    pub horizon_ms: i64,
    /// By how many impressions a rate is drawn to the mean.
    pub prior: f64,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    candidates: Vec<String>,
    #[serde(default)]
    slice: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    row: u32,
}

/// An order, to be shown once.
#[derive(Debug, Serialize)]
pub(crate) struct Ranked {
    /// The request id of all that is shown of it: a random UUID.
    pub(crate) request_id: String,
    /// Of the store that it was made from.
    generation: String,
    /// Whether no cell that it was made from can lack members because of a gap.
    complete: bool,
    /// When, milliseconds since 1970 UTC.
    served_ms: i64,
    /// Plays for each impression, of all videos of the slice; `null` where nothing was counted.
    pub(crate) mean: Option<f64>,
    pub(crate) items: Vec<Item>,
    #[serde(skip)]
    pub(crate) read_to: ReadTo,
}

/// One place.
#[derive(Debug, Serialize)]
pub(crate) struct Item {
    pub(crate) video: String,
    pub(crate) score: f64,
    /// Counted from 0.
    pub(crate) position: u32,
    propensity: f64,
    pub(crate) impressions: u64,
    pub(crate) plays: u64,
    /// To be sent with the events of this tile; `null` where nothing is signed.
    pub(crate) code: Option<String>,
}

/// What was counted lately, by slice.
#[derive(Default)]
pub(crate) struct Known {
    slices: Mutex<HashMap<String, (Instant, Arc<Lately>)>>,
}

struct Lately {
    recent: Recent,
    complete: bool,
    read_to: ReadTo,
}

/// How far the lanes had counted the log before a store was read, as `/v1/status` says it.
pub(crate) type ReadTo = Arc<[Value]>;

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<Lately>)>> {
        // Whole values only: usable whatever happened to whoever held them.
        self.slices.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn of(&self, slice: &str, fresh: Duration) -> Option<Arc<Lately>> {
        let slices = self.lock();
        let (since, lately) = slices.get(slice)?;
        (since.elapsed() < fresh).then(|| lately.clone())
    }

    /// `since`: when it began to be read.
    fn know(&self, slice: &str, since: Instant, lately: Arc<Lately>) {
        let mut slices = self.lock();
        slices.retain(|_, (since, _)| since.elapsed() < FRESH);
        if slices.len() < SLICES {
            slices.insert(slice.to_owned(), (since, lately));
        }
    }
}

/// Answers a server that ranks for its visitors.
pub(crate) async fn rank(State(app): State<Arc<App>>, request: Request) -> Response {
    match answer(&app, request).await {
        Ok(ranked) => Json(ranked).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn answer(app: &Arc<App>, request: Request) -> Result<Ranked, Problem> {
    guard::same_origin(request.headers())?;
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    may_ask(app, &request)?;
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES).await.map_err(|_| {
        let detail = format!("The body is larger than {BODY_BYTES} bytes, or broke off.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let question: Question = serde_json::from_slice(&body).map_err(|error| {
        bad(format!(
            "The question cannot be read: {error}. Send {{\"candidates\": [\"video\"], \"slice\": {{}}, \
             \"row\": 0}}."
        ))
    })?;
    if question.candidates.len() > MOST {
        let (asked, most) = (question.candidates.len(), MOST);
        return Err(bad(format!(
            "There are {asked} candidates; at most {most} are ranked at once."
        )));
    }
    let slice = canonical_slice(&serde_json::Value::Object(question.slice).to_string())
        .map_err(|error| bad(format!("{error}.")))?;
    serve(app, question.candidates, &slice, question.row).await
}

/// Who has the token; without one whoever is on this machine, if nothing is signed.
fn may_ask(app: &App, request: &Request) -> Result<(), Problem> {
    if !app.rank.token.is_empty() {
        if guard::has_token(request.headers(), &app.rank.token) {
            return Ok(());
        }
        let detail = "Ranking signs what it serves, so only servers may ask: send the token of [rank] as \
            `Authorization: Bearer ...`.";
        return Err(
            Problem::new(StatusCode::UNAUTHORIZED, detail).header(WWW_AUTHENTICATE, "Bearer")
        );
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    // The demo is for whoever is on this machine, and what it signs is as invented as its titles.
    if app.tiles.is_some() && app.demo.is_none() {
        let detail = "What is ranked here is signed, and [rank] token is empty: whoever may ask can have \
            anything signed. Set it, and send it as `Authorization: Bearer ...`.";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let is_near = peer.is_none_or(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    if is_near && !guard::is_passed_on(request) {
        return Ok(());
    }
    let detail = "[rank] token is empty, so only callers on the same machine are answered. Set it, and \
        send it as `Authorization: Bearer ...`.";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Ranks candidates and signs their places. `slice` is written as the store writes it.
pub(crate) async fn serve(
    app: &Arc<App>,
    candidates: Vec<String>,
    slice: &str,
    row: u32,
) -> Result<Ranked, Problem> {
    let lately = lately(app, slice).await?;
    let ranking = Ranking::SmoothedTakeRate { prior: app.rank.prior };
    let request_id = new_request_id()?;
    let served_ms = (app.clock)();
    let mut items = Vec::with_capacity(candidates.len());
    for (position, ranked) in (0..).zip(ranking.rank(&lately.recent, candidates)) {
        let tile = Tile { request_id: &request_id, video: &ranked.video, row, position };
        let code = app.tiles.as_ref().map(|tiles| tiles.code(tile, served_ms));
        items.push(Item {
            score: ranked.score,
            position,
            propensity: ranked.propensity,
            impressions: ranked.counted.impressions,
            plays: ranked.counted.plays,
            code,
            video: ranked.video,
        });
    }
    Ok(Ranked {
        generation: app.store.generation().id.clone(),
        complete: lately.complete,
        served_ms,
        mean: lately.recent.mean(),
        read_to: lately.read_to.clone(),
        request_id,
        items,
    })
}

async fn lately(app: &Arc<App>, slice: &str) -> Result<Arc<Lately>, Problem> {
    let fresh = Duration::from_millis(app.ops.batch_interval_ms.max(0) as u64).min(FRESH);
    if let Some(lately) = app.known.of(slice, fresh) {
        return Ok(lately);
    }
    let turn =
        Arc::clone(&app.reads).acquire_owned().await.map_err(|error| Problem::bug(&error))?;
    // Somebody else may have read it meanwhile.
    if let Some(lately) = app.known.of(slice, fresh) {
        return Ok(lately);
    }
    let (asked, slice) = (app.clone(), slice.to_owned());
    let read = move || {
        let since = Instant::now();
        let lanes = asked.status.lanes();
        let stands = |lane: &LaneStatus| json!({ "lane": lane.lane, "next_offsets": next_offsets(&asked, lane) });
        let read_to = lanes.iter().map(stands).collect();
        let read =
            read(&*asked.store, watermark_ms(&asked), asked.rank.horizon_ms, &slice, read_to);
        drop(turn);
        read.map(|lately| {
            let lately = Arc::new(lately);
            asked.known.know(&slice, since, lately.clone());
            lately
        })
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| Problem::bug(&error))?;
    read.map_err(|error| {
        tracing::error!("what was counted lately could not be read: {error}");
        let detail = "The store cannot be read now. The server's own log says why.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5)
    })
}

/// The newest watermark of any lane; now, where none has any.
fn watermark_ms(app: &App) -> i64 {
    let lanes = app.status.lanes();
    let newest = lanes.iter().filter_map(|lane| lane.watermark_ms).max();
    newest.unwrap_or_else(|| (app.clock)())
}

fn read(
    store: &dyn Store,
    watermark_ms: i64,
    horizon_ms: i64,
    slice: &str,
    read_to: ReadTo,
) -> Result<Lately, SinkError> {
    // Lengths of epochs overlap: those of one length have everything once.
    let epochs_ms = store.generation().epochs_ms();
    let shortest_ms = epochs_ms.iter().copied().min().expect("a generation has a length of epochs");
    let query = CellQuery {
        from_ms: Some(watermark_ms.saturating_sub(horizon_ms.max(shortest_ms))),
        slice: Some(slice.to_owned()),
        ..CellQuery::default()
    };
    let gaps = Gap::unrepaired(store.gaps()?, &store.repairs()?);
    let mut lately = Lately { recent: Recent::default(), complete: true, read_to };
    store.cells(&query, &mut |key, counts| {
        if key.epoch_ms == shortest_ms {
            let counted = Counted { impressions: counts.impressions, plays: counts.plays };
            lately.recent.add(&key.video, counted);
            let touches = |gap: &Gap| gap.touches(key.epoch_start_ms, key.epoch_ms);
            lately.complete &= !gaps.iter().any(touches);
        }
    })?;
    Ok(lately)
}

/// A random UUID of version 4 (RFC 9562, 5.4): the state of the join keeps it in 16 bytes.
fn new_request_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Problem::bug(&error))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}
