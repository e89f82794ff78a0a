//! Trends for the page: what was counted of each video through its epochs, the most of it first.

use super::view::{By, View};
use crate::app::App;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use marquee_recommend::{Counted, Ranking, Recent};
use marquee_sinks::{CellQuery, Gap, SinkError, Store};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// Epochs that are shown where nobody says which.
const EPOCHS: i64 = 24;

/// Points of a sparkline; more epochs are added up.
const POINTS: i64 = 48;

/// What was counted of one video.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) video: String,
    pub(super) counted: Counted,
    /// The take rate, smoothed toward the mean of all.
    pub(super) score: f64,
    /// Plays by point, the oldest first.
    pub(super) plays: Vec<u64>,
    /// Whether a gap in the log may have taken members of it.
    pub(super) complete: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Trends {
    /// Start of the first epoch, and end of the last one.
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) epoch_ms: i64,
    /// In the order that was asked for.
    pub(super) rows: Vec<Row>,
    /// Videos that anybody was counted in, also those that were not searched for.
    pub(super) videos: usize,
    /// What no repair has filled.
    pub(super) gaps: Vec<Gap>,
}

/// Reads what a view asks for, beside other readers.
pub(super) async fn of(app: &Arc<App>, view: &View) -> Result<Trends, Problem> {
    let turn =
        Arc::clone(&app.reads).acquire_owned().await.map_err(|error| Problem::bug(&error))?;
    let (asked, view) = (app.clone(), view.clone());
    let watermark_ms = watermark_ms(app);
    let read = move || {
        let trends = read(&*asked.store, &view, watermark_ms, asked.rank.prior);
        drop(turn);
        trends
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| Problem::bug(&error))?;
    read.map_err(|error| {
        tracing::error!("trends could not be read for the operator's page: {error}");
        let detail = "The store cannot be read now. The server's own log says why.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(5)
    })
}

/// The newest watermark of any lane: no event is newer than that by more than their lateness, and the
/// time for which a topic was idle. Now, where there is none.
fn watermark_ms(app: &App) -> i64 {
    let lanes = app.status.lanes();
    lanes.iter().filter_map(|lane| lane.watermark_ms).max().unwrap_or_else(|| (app.clock)())
}

/// The end of the newest epoch in which anything was counted, at least that of the watermark's.
fn newest_end_ms(store: &dyn Store, watermark_ms: i64, epoch_ms: i64) -> Result<i64, SinkError> {
    let start_ms = watermark_ms - watermark_ms.rem_euclid(epoch_ms);
    let newer =
        CellQuery { from_ms: Some(start_ms), slice: Some(String::new()), ..CellQuery::default() };
    let mut newest_ms = start_ms;
    store.cells(&newer, &mut |key, _| {
        if key.epoch_ms == epoch_ms {
            newest_ms = newest_ms.max(key.epoch_start_ms);
        }
    })?;
    Ok(newest_ms + epoch_ms)
}

fn read(
    store: &dyn Store,
    view: &View,
    watermark_ms: i64,
    prior: f64,
) -> Result<Trends, SinkError> {
    // Lengths of epochs overlap: those of one length have everything once.
    let epochs_ms = store.generation().epochs_ms();
    let epoch_ms = epochs_ms.iter().copied().min().expect("a generation has a length of epochs");
    let to_ms = match view.to_ms {
        Some(to_ms) => to_ms,
        None => newest_end_ms(store, watermark_ms, epoch_ms)?,
    };
    let from_ms = view.from_ms.unwrap_or_else(|| to_ms.saturating_sub(EPOCHS * epoch_ms));
    let from_ms = from_ms - from_ms.rem_euclid(epoch_ms);
    let epochs = (to_ms.saturating_sub(from_ms) + epoch_ms - 1).div_euclid(epoch_ms).max(1);
    let each = (epochs + POINTS - 1) / POINTS;
    let points = ((epochs + each - 1) / each) as usize;
    let gaps = Gap::unrepaired(store.gaps()?, &store.repairs()?);
    let query = CellQuery {
        from_ms: Some(from_ms),
        to_ms: Some(to_ms),
        slice: Some(String::new()),
        ..CellQuery::default()
    };
    let mut recent = Recent::default();
    let mut rows: HashMap<String, Row> = HashMap::new();
    store.cells(&query, &mut |key, counts| {
        if key.epoch_ms != epoch_ms {
            return;
        }
        let counted = Counted { impressions: counts.impressions, plays: counts.plays };
        recent.add(&key.video, counted);
        let row = rows.entry(key.video.clone()).or_insert_with(|| Row {
            video: key.video,
            plays: vec![0; points],
            complete: true,
            ..Row::default()
        });
        row.counted.impressions += counted.impressions;
        row.counted.plays += counted.plays;
        row.complete &= !gaps.iter().any(|gap| gap.touches(key.epoch_start_ms, key.epoch_ms));
        let point = ((key.epoch_start_ms - from_ms) / epoch_ms / each) as usize;
        if let Some(plays) = row.plays.get_mut(point) {
            *plays += counted.plays;
        }
    })?;
    // After the newest epoch nothing is known yet, which is not the same as nothing.
    let played = |row: &Row| row.plays.iter().rposition(|plays| *plays > 0).map_or(0, |at| at + 1);
    let known = rows.values().map(played).max().unwrap_or(0);
    let videos = rows.len();
    let search = view.search.to_lowercase();
    let mut rows: Vec<Row> =
        rows.into_values().filter(|row| row.video.to_lowercase().contains(&search)).collect();
    let ranking = Ranking::SmoothedTakeRate { prior };
    for row in &mut rows {
        row.score = ranking.score(&recent, row.counted);
        row.plays.truncate(known);
    }
    rows.sort_by(|a, b| {
        let first = match view.by {
            By::Plays => b.counted.plays.cmp(&a.counted.plays),
            By::Impressions => b.counted.impressions.cmp(&a.counted.impressions),
            By::Rate => b.score.total_cmp(&a.score),
        };
        first.then_with(|| a.video.cmp(&b.video))
    });
    Ok(Trends { from_ms, to_ms, epoch_ms, rows, videos, gaps })
}

/// All rows, as CSV.
pub(super) async fn csv(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<impl IntoResponse, Problem> {
    let trends = of(&app, &View::of(&uri)?).await?;
    let mut text = "video,impressions,plays,smoothed_take_rate,complete,from_ms,to_ms\n".to_owned();
    for row in &trends.rows {
        let Row { video, counted, score, complete, .. } = row;
        let (Counted { impressions, plays }, Trends { from_ms, to_ms, .. }) = (counted, &trends);
        let _ = writeln!(
            text,
            "{},{impressions},{plays},{score:.6},{complete},{from_ms},{to_ms}",
            quoted(video)
        );
    }
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"trends.csv\""),
    ];
    Ok((headers, text))
}

/// A field of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
