//! The rows of the page: which titles, in which order, under which request ids.

use super::catalogue::{Genre, Title, title_of, titles};
use crate::app::App;
use crate::problem::Problem;
use crate::rank::{self, Ranked};
use serde_json::{Value, json};
use std::sync::Arc;

/// Titles of the first row, and of each other one.
const TRENDING: usize = 16;
const SHOWN: usize = 12;

/// Number of the row that is a title's own page.
const ALONE: u32 = 100;

/// One row, as it is shown once.
pub(super) struct Row {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) request_id: String,
    /// Plays per impression of all its candidates; `None`: nothing was counted.
    pub(super) mean: Option<f64>,
    pub(super) tiles: Vec<Tile>,
}

/// One place in a row.
pub(super) struct Tile {
    pub(super) title: &'static Title,
    pub(super) position: u32,
    pub(super) score: f64,
    pub(super) impressions: u64,
    pub(super) plays: u64,
    /// What shows that this service has put it there; `None` where nothing is signed.
    pub(super) code: Option<String>,
}

/// All rows of the home page: what is rising, then each genre.
pub(super) async fn all(app: &Arc<App>) -> Result<Vec<Row>, Problem> {
    let mut rows = vec![row(app, 0, "Trending now", titles().iter(), TRENDING).await?];
    for (number, genre) in (1..).zip(Genre::ALL) {
        let of_genre = titles().iter().filter(|title| title.genre == genre);
        rows.push(row(app, number, &genre.to_string(), of_genre, SHOWN).await?);
    }
    Ok(rows)
}

/// Titles of the same genre, for the page of a title.
pub(super) async fn like(app: &Arc<App>, title: &'static Title) -> Result<Row, Problem> {
    let others = titles().iter().filter(|other| other.genre == title.genre && other.id != title.id);
    let number = 1 + title.genre as u32;
    row(app, number, &format!("More {}", title.genre.to_string().to_lowercase()), others, 12).await
}

/// The title itself: who comes without a tile plays what this page has served.
pub(super) async fn alone(app: &Arc<App>, title: &'static Title) -> Result<Row, Problem> {
    row(app, ALONE, &title.name, std::iter::once(title), 1).await
}

async fn row(
    app: &Arc<App>,
    number: u32,
    name: &str,
    candidates: impl Iterator<Item = &'static Title>,
    most: usize,
) -> Result<Row, Problem> {
    let candidates = candidates.map(|title| title.id.clone()).collect();
    let ranked = rank::serve(app, candidates, "", number).await?;
    Ok(of_ranked(ranked, number, name, most))
}

fn of_ranked(ranked: Ranked, number: u32, name: &str, most: usize) -> Row {
    let Ranked { request_id, items, mean, .. } = ranked;
    let tile = |item: rank::Item| {
        Some(Tile {
            title: title_of(&item.video)?,
            position: item.position,
            score: item.score,
            impressions: item.impressions,
            plays: item.plays,
            code: item.code,
        })
    };
    let tiles = items.into_iter().take(most).filter_map(tile).collect();
    Row { number, name: name.to_owned(), request_id, mean, tiles }
}

/// The same rows for a page that is open: it puts them in place where nobody looks.
pub(super) fn json(rows: &[Row]) -> Value {
    let of_row = |row: &Row| {
        let tile = |tile: &Tile| json!({ "video": tile.title.id, "name": tile.title.name, "code": tile.code });
        let tiles: Vec<Value> = row.tiles.iter().map(tile).collect();
        json!({ "row": row.number, "request_id": row.request_id, "tiles": tiles })
    };
    json!({ "rows": rows.iter().map(of_row).collect::<Vec<_>>() })
}

/// Why a title stands where it stands, in its genre and among all.
pub(super) async fn why(app: &Arc<App>, title: &'static Title) -> Result<Value, Problem> {
    let candidates = titles().iter().map(|title| title.id.clone()).collect();
    let ranked = rank::serve(app, candidates, "", 0).await?;
    let read_to = ranked.read_to.clone();
    let all = of_ranked(ranked, 0, "", usize::MAX);
    let of_genre = |tile: &&Tile| tile.title.genre == title.genre;
    let rank = |mut tiles: Box<dyn Iterator<Item = &Tile> + '_>| {
        tiles.position(|tile| tile.title.id == title.id).map(|place| place + 1)
    };
    let tile = all.tiles.iter().find(|tile| tile.title.id == title.id);
    let (score, impressions, plays) =
        tile.map_or((0.0, 0, 0), |tile| (tile.score, tile.impressions, tile.plays));
    Ok(json!({
        "video": title.id,
        "name": title.name,
        "genre": title.genre.to_string(),
        "impressions": impressions,
        "plays": plays,
        "score": score,
        "mean": all.mean,
        "rank": rank(Box::new(all.tiles.iter())),
        "of": all.tiles.len(),
        "rank_in_genre": rank(Box::new(all.tiles.iter().filter(of_genre))),
        // As in /v1/status: all before these is in the numbers above.
        "lanes": *read_to,
    }))
}
