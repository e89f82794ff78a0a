//! `marquee trends`: questions about cells, answered by the store or, where a service has it
//! open, by that service over HTTP.

use super::{ConfigArgument, Failure};
use crate::config::{AttributeType, Config, LogKind};
use crate::store::{self, Look};
use crate::wiring;
use marquee_model::{CellCounts, CellKey, format_time_ms, parse_time_ms};
use marquee_server::trends::{Page, Slices, Sort, TrendCell, TrendQuery, run};
use marquee_sinks::cells::write_csv;
use serde_json::{Map, Value as Json};
use std::io::Write;

/// Rows of a table without `--top`.
const TABLE_ROWS: usize = 20;

/// Cells asked for in one request.
const PAGE: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Epochs that start at or after this time (RFC 3339 or milliseconds)
    #[arg(long, value_name = "T", value_parser = parse_time_ms)]
    from: Option<i64>,
    /// Epochs that start before this time
    #[arg(long, value_name = "T", value_parser = parse_time_ms)]
    to: Option<i64>,
    /// Only this video
    #[arg(long, value_name = "V")]
    video: Option<String>,
    /// The slice with exactly these attributes, for example country=US (may be repeated)
    #[arg(long = "slice", value_name = "NAME=VALUE")]
    slices: Vec<String>,
    /// All slices (default: the empty one, which counts everybody)
    #[arg(long, conflicts_with = "slices")]
    all_slices: bool,
    /// Order (default: newest epoch, then plays; csv: video, epoch, slice)
    #[arg(long, value_parser = ["plays", "impressions", "take_rate", "video"])]
    sort: Option<String>,
    /// The first N cells
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    top: Option<u64>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people: the newest epochs first, with take rates
    Table,
    /// All matching cells, sorted by video, epoch and slice
    Csv,
    /// As `GET /v1/trends` answers
    Json,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.load()?;
        let plan = wiring::plan(&config)?;
        let mut query = self.query(&config)?;
        let page = match store::look(&config, &plan)? {
            Look::Open(store) => {
                if config.log.kind == LogKind::Kafka && !store.is_shared() {
                    // Nobody here knows what other members of the group have counted since.
                    query.lanes_elsewhere = (0..store.generation().lanes).collect();
                }
                run(&*store, &query).map_err(Failure::failed)?
            }
            // A service has it: that one answers.
            Look::InUse { address: Some(address), .. } => ask(&address, &query)?,
            Look::InUse { error, .. } => return Err(Failure::failed(error)),
        };
        let mut out = std::io::stdout().lock();
        let several = config.aggregate.epochs_ms.len() > 1;
        let written = match self.format {
            Format::Table => write_table(&mut out, &page.cells),
            Format::Csv => write_csv(&mut out, &rows(page.cells), several),
            Format::Json => serde_json::to_writer_pretty(&mut out, &page)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(out)),
        };
        match written.and_then(|()| out.flush()) {
            // Whoever reads has seen enough (`| head`).
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Failure::failed),
        }
    }

    fn query(&self, config: &Config) -> Result<TrendQuery, Failure> {
        let sort = match &self.sort {
            Some(name) => Sort::named(name).map_err(|e| Failure::Usage(e.to_string()))?,
            None if self.format == Format::Csv => Sort::Video,
            None => Sort::Newest,
        };
        let limit = match (self.top, self.format) {
            (Some(top), _) => Some(top as usize),
            (None, Format::Table) => Some(TABLE_ROWS),
            (None, _) => None,
        };
        let slices = if self.all_slices { Slices::All } else { Slices::One(self.slice(config)?) };
        let (from_ms, to_ms, video) = (self.from, self.to, self.video.clone());
        let newest_near_ms = Some(wiring::now_ms());
        let query = TrendQuery {
            from_ms,
            to_ms,
            video,
            slices,
            sort,
            limit,
            newest_near_ms,
            ..TrendQuery::default()
        };
        Ok(query)
    }

    /// The slice that `--slice` names, as the store writes it.
    fn slice(&self, config: &Config) -> Result<String, Failure> {
        let mut attributes = Map::new();
        for text in &self.slices {
            let usage = |words: &str| Failure::Usage(format!("--slice {text}: {words}"));
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| usage("write NAME=VALUE, for example country=US"))?;
            let attribute = config
                .impressions
                .attribute(name)
                .or_else(|| config.plays.attribute(name))
                .ok_or_else(|| usage("the configuration declares no such attribute"))?;
            let value = typed(value, attribute.ty)
                .ok_or_else(|| usage(&format!("the value is no {}", attribute.ty.name())))?;
            attributes.insert(name.to_owned(), value);
        }
        if attributes.is_empty() {
            return Ok(String::new());
        }
        let sorted: std::collections::BTreeMap<_, _> = attributes.into_iter().collect();
        serde_json::to_string(&sorted).map_err(Failure::failed)
    }
}

/// A value as the attribute's type writes it; `null` is an absent one.
fn typed(value: &str, ty: AttributeType) -> Option<Json> {
    match ty {
        _ if value == "null" => Some(Json::Null),
        AttributeType::String => Some(Json::from(value)),
        AttributeType::Int => value.parse::<i64>().ok().map(Json::from),
        AttributeType::Double => value.parse::<f64>().ok().map(Json::from),
        AttributeType::Bool => value.parse::<bool>().ok().map(Json::from),
    }
}

/// Asks a running service, page by page.
fn ask(address: &str, query: &TrendQuery) -> Result<Page, Failure> {
    let mut page = Page { cells: Vec::new(), next: None, generation: String::new() };
    loop {
        let wanted = query.limit.map_or(PAGE, |limit| (limit - page.cells.len()).min(PAGE));
        let mut request =
            ureq::get(format!("{address}/v1/trends")).query("limit", wanted.to_string());
        for (name, value) in parameters(query) {
            request = request.query(name, value);
        }
        if let Some(after) = &page.next {
            request = request.query("after", after);
        }
        let answer = request.call().map_err(|error| {
            Failure::Failed(format!("the service at {address} has the store, but: {error}"))
        })?;
        let answer: Json = answer.into_body().read_json().map_err(Failure::failed)?;
        page.cells.extend(answer["cells"].as_array().into_iter().flatten().map(cell));
        page.generation = answer["generation"].as_str().unwrap_or_default().to_owned();
        page.next = answer["next"].as_str().map(str::to_owned);
        if page.next.is_none() || query.limit.is_some_and(|limit| page.cells.len() >= limit) {
            return Ok(page);
        }
    }
}

fn parameters(query: &TrendQuery) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    let mut add = |name, value: Option<String>| {
        parameters.extend(value.map(|value| (name, value)));
    };
    add("from", query.from_ms.map(|ms| ms.to_string()));
    add("to", query.to_ms.map(|ms| ms.to_string()));
    add("video", query.video.clone());
    match &query.slices {
        Slices::All => add("slices", Some("all".to_owned())),
        Slices::One(slice) if !slice.is_empty() => add("slice", Some(slice.clone())),
        Slices::One(_) => {}
    }
    add(
        "sort",
        match query.sort {
            Sort::Newest => None,
            Sort::Plays => Some("plays".to_owned()),
            Sort::Impressions => Some("impressions".to_owned()),
            Sort::TakeRate => Some("take_rate".to_owned()),
            Sort::Video => Some("video".to_owned()),
        },
    );
    parameters
}

/// A cell of an answer. Fields that are not there read as nothing.
fn cell(json: &Json) -> TrendCell {
    let slice = json["slice"].as_object().filter(|slice| !slice.is_empty());
    TrendCell {
        video: json["video"].as_str().unwrap_or_default().to_owned(),
        epoch_start_ms: json["epoch_start_ms"].as_i64().unwrap_or_default(),
        epoch_ms: json["epoch_ms"].as_i64().unwrap_or_default(),
        slice: slice.map_or_else(String::new, |_| json["slice"].to_string()),
        impressions: json["impressions"].as_u64().unwrap_or_default(),
        plays: json["plays"].as_u64().unwrap_or_default(),
        complete: json["complete"].as_bool().unwrap_or_default(),
        sealed: json["sealed"].as_bool().unwrap_or_default(),
    }
}

fn rows(cells: Vec<TrendCell>) -> Vec<(CellKey, CellCounts)> {
    let row = |cell: TrendCell| {
        let counts = CellCounts { impressions: cell.impressions, plays: cell.plays };
        let TrendCell { video, epoch_start_ms, epoch_ms, slice, .. } = cell;
        (CellKey { video, epoch_start_ms, epoch_ms, slice }, counts)
    };
    cells.into_iter().map(row).collect()
}

fn write_table(out: &mut impl Write, cells: &[TrendCell]) -> std::io::Result<()> {
    let video = cells
        .iter()
        .map(|cell| printable(&cell.video).chars().count())
        .max()
        .unwrap_or(5)
        .clamp(5, 40);
    let with_slices = cells.iter().any(|cell| !cell.slice.is_empty());
    let header = format!(
        "{:<20}  {:<video$}  {:>11}  {:>8}  {:>9}",
        "epoch", "video", "impressions", "plays", "take rate"
    );
    writeln!(out, "{header}{}", if with_slices { "  slice" } else { "" })?;
    for cell in cells {
        let counts = CellCounts { impressions: cell.impressions, plays: cell.plays };
        let rate =
            counts.take_rate().map_or("-".to_owned(), |rate| format!("{:.2}%", 100.0 * rate));
        write!(
            out,
            "{:<20}  {:<video$}  {:>11}  {:>8}  {rate:>9}",
            format_time_ms(cell.epoch_start_ms),
            printable(&cell.video),
            cell.impressions,
            cell.plays,
        )?;
        writeln!(out, "{}{}", if with_slices { "  " } else { "" }, printable(&cell.slice))?;
    }
    Ok(())
}

/// Text from outside, without what would move the cursor of a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
