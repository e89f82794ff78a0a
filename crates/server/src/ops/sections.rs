//! The sections of the page: each a piece of HTML under a name of its own, made from what the process
//! knows now.

use super::annotations::What;
use super::charts::{self, ChartError, Frame, clock, short};
use super::trends::{self, Trends};
use super::view::View;
use crate::app::App;
use crate::mapping;
use crate::problem::Problem;
use marquee_model::{Kind, format_duration_ms, format_time_ms};
use marquee_pipeline::matches::Matches;
use marquee_runtime::history::{Bucket, LetterSample, Stage};
use marquee_runtime::status::LaneStatus;
use marquee_sinks::letters::LetterKind;
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Trends in the table.
const TOP: usize = 50;

/// Over how long the numbers at the top are taken, milliseconds.
const RECENT_MS: i64 = 10_000;

/// Annotations and letters in their lists.
const LISTED: usize = 20;

/// By the `id` of the element that it belongs in.
pub(super) type Sections = BTreeMap<&'static str, String>;

/// What sections are made from.
struct Now<'a> {
    app: &'a Arc<App>,
    now_ms: i64,
    lanes: Vec<LaneStatus>,
    buckets: Vec<Bucket>,
    matches: Matches,
}

/// All of them.
pub(super) async fn all(app: &Arc<App>, view: &View) -> Result<Sections, Problem> {
    let mut sections = live(app, view)?;
    sections.insert("trends", trends(app, view).await?);
    Ok(sections)
}

/// Those that are made from what is in memory.
pub(super) fn live(app: &Arc<App>, view: &View) -> Result<Sections, Problem> {
    let now_ms = (app.clock)();
    let mut lanes = app.status.lanes();
    lanes.retain(|lane| lane.held);
    let mut matches = Matches::default();
    lanes.iter().for_each(|lane| matches.add(&lane.matches));
    let by_minute = view.span.step_ms() >= 60_000;
    let from_ms = now_ms - view.span.ms() - view.span.step_ms();
    let buckets = app.status.history(from_ms, by_minute);
    let now = Now { app, now_ms, lanes, buckets, matches };
    let charts = charts(&now, view).map_err(|error| Problem::bug(&error))?;
    Ok(BTreeMap::from([
        ("summary", summary(&now).into_string()),
        ("charts", charts.into_string()),
        ("lanes", lanes_table(&now).into_string()),
        ("health", health(&now).into_string()),
        ("aside", aside(app).into_string()),
        ("annotations", annotations(app).into_string()),
    ]))
}

/// The table of trends and the list of gaps, which need the store.
pub(super) async fn trends(app: &Arc<App>, view: &View) -> Result<String, Problem> {
    let trends = trends::of(app, view).await?;
    let table = trends_table(&trends, view).map_err(|error| Problem::bug(&error))?;
    Ok(table.into_string())
}

fn card(name: &str, value: &str, words: &str, mood: &str) -> Markup {
    html! {
        div.card data-mood=(mood) {
            dt { (name) }
            dd { strong { (value) } span { (words) } }
        }
    }
}

fn summary(now: &Now<'_>) -> Markup {
    let sum = |of: fn(&LaneStatus) -> u64| now.lanes.iter().map(of).sum::<u64>();
    let recent: Vec<Bucket> = now.app.status.history(now.now_ms - RECENT_MS, false);
    let batches = recent.iter().map(|b| b.batches).sum::<u64>();
    let records = recent.iter().map(|b| b.records).sum::<u64>() as f64 * 1000.0 / RECENT_MS as f64;
    let busy_ms = recent.iter().map(Bucket::busy_seconds).sum::<f64>() * 1000.0;
    let batch_ms = busy_ms / batches.max(1) as f64;
    let longest_ms = recent.iter().map(|b| b.longest_us).max().unwrap_or(0) as f64 / 1000.0;
    let interval_ms = now.app.ops.batch_interval_ms;
    let keeps_up = longest_ms <= interval_ms as f64;
    let waiting = sum(LaneStatus::lag);
    let Matches { impressions, plays, .. } = now.matches;
    let found = now.matches.found();
    let joined = match plays {
        0 => "–".to_owned(),
        plays => format!("{:.1} %", 100.0 * found.min(plays) as f64 / plays as f64),
    };
    let events = sum(|lane| lane.counters.events);
    let late = sum(|lane| lane.counters.late);
    let dead = sum(|lane| lane.counters.dead);
    let share = |part: u64| match events {
        0 => String::new(),
        events => {
            format!("{:.2} % of {}", 100.0 * part as f64 / events as f64, short(events as f64))
        }
    };
    let reasons = now.app.reasons_not_ready();
    let (ready, mood) = if reasons.is_empty() { ("Ready", "good") } else { ("Not ready", "bad") };
    html! {
        p.state data-mood=(mood) {
            strong { (ready) }
            @for reason in reasons.iter().take(3) { span { (reason) } }
            @if reasons.len() > 3 { span { "and " (reasons.len() - 3) " more reasons" } }
            time datetime=(format_time_ms(now.now_ms)) { (clock(now.now_ms)) " UTC" }
        }
        @if events == 0 { (first_event(now)) }
        dl.cards {
            (card("Input", &format!("{} / s", short(records)), "records, over 10 s", ""))
            (card("Waiting", &short(waiting as f64), "records not counted yet", if waiting as f64 > 10.0 * records.max(100.0) { "warn" } else { "" }))
            (card("Batch", &format!("{batch_ms:.0} ms"), &format!("of {interval_ms} ms; longest {longest_ms:.0} ms"), if keeps_up { "" } else { "warn" }))
            (card("Plays joined", &joined, &format!("{} of {}; {} shown", short(found as f64), short(plays as f64), short(impressions as f64)), ""))
            (card("Late", &short(late as f64), &share(late), if late > 0 { "warn" } else { "" }))
            (card("Dead", &short(dead as f64), &share(dead), if dead > 0 { "warn" } else { "" }))
            (card("There before", &short(sum(|lane| lane.counters.duplicates) as f64), "duplicates, counted once", ""))
            (card("Read again", &short(sum(|lane| lane.replayed_records) as f64), "to rebuild state; moves no number", ""))
        }
    }
}

/// For who has just started it.
fn first_event(now: &Now<'_>) -> Markup {
    let stream = now.app.plan.stream(Kind::Impression).decoder.mapping();
    let record = mapping::example(stream, now.now_ms);
    html! {
        div.notice {
            p { "Nothing was counted yet. A first impression, sent to this server:" }
            pre { code { "curl -d '" (record) "' ADDRESS/v1/impressions" } }
        }
    }
}

fn charts(now: &Now<'_>, view: &View) -> Result<Markup, ChartError> {
    let from_ms = now.now_ms - view.span.ms();
    let annotations = now.app.ops.annotations.since(from_ms);
    let frame = Frame {
        span: view.span,
        now_ms: now.now_ms,
        buckets: &now.buckets,
        annotations: &annotations,
    };
    let interval_ms = now.app.ops.batch_interval_ms;
    let within_ms = now.app.plan.settings.within_ms;
    let stages: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    let within = format_duration_ms(within_ms);
    let tail = tail(&now.matches, within_ms);
    Ok(html! {
        (figure("Input", "records read, a second", &[], &frame.input()?))
        (figure("Waiting", "records of the log that were not counted yet", &[], &frame.waiting()?))
        (figure("Time of a batch", &format!("milliseconds in each stage, against the batch interval of {interval_ms} ms"), &stages, &frame.stages(interval_ms)?))
        (figure("Put aside, and read again", "events a second", &["late", "dead", "there before", "read again"], &frame.aside()?))
        (figure("Delay of plays", &format!("from the impression to the play; [join] within is {within}. {tail}"), &[], &charts::delays(&now.matches, within_ms)?))
    })
}

/// Whether `within` looks right.
fn tail(matches: &Matches, within_ms: i64) -> String {
    use marquee_pipeline::matches::BOUNDS_MS;
    let found = matches.found();
    if found < 100 {
        return "Too few plays to say whether that is right.".to_owned();
    }
    // The last place that `within` reaches into, and where it begins.
    let last = BOUNDS_MS.partition_point(|bound| *bound < within_ms).min(BOUNDS_MS.len());
    let after = format_duration_ms(BOUNDS_MS[last.saturating_sub(1)]);
    let share = 100.0 * matches.delays[last] as f64 / found as f64;
    match share {
        s if s > 2.0 => format!("{s:.1} % come after {after}: a longer one may find more."),
        s => format!("{s:.1} % come after {after}: it is long enough."),
    }
}

fn figure(name: &str, words: &str, series: &[&str], svg: &str) -> Markup {
    html! {
        figure.chart {
            figcaption {
                h3 { (name) }
                p.small { (words) }
                @if !series.is_empty() {
                    ul.legend role="list" {
                        @for (number, name) in series.iter().enumerate() {
                            li { span.key data-series=(number + 1) aria-hidden="true" {} (name) }
                        }
                    }
                }
            }
            div role="img" aria-label=(format!("{name}: {words}")) { (PreEscaped(svg)) }
        }
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / f64::from(1 << 30)),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b => format!("{:.0} KiB", b as f64 / 1024.0),
    }
}

fn lanes_table(now: &Now<'_>) -> Markup {
    let time = |ms: Option<i64>| match ms {
        Some(ms) if ms > 0 => html! {
            time datetime=(format_time_ms(ms)) title=(format_time_ms(ms)) { (clock(ms)) }
        },
        _ => html! { "–" },
    };
    html! {
        table {
            thead { tr {
                th scope="col" { "Lane" } th scope="col" { "State" } th.n scope="col" { "Waiting" }
                th.n scope="col" { "Records / s" } th.n scope="col" { "Watermark" }
                th.n scope="col" { "Frontier" } th.n scope="col" { "Open cells" }
                th.n scope="col" { "State" } th.n scope="col" { "Last batch" } th.n scope="col" { "Read again" }
            } }
            tbody {
                @for lane in &now.lanes {
                    tr {
                        th scope="row" { (lane.lane) }
                        td { @if lane.rebuilding { span.warn { "rebuilding" } } @else { "counts" } }
                        td.n { (short(lane.lag() as f64)) }
                        td.n { (short(lane.records_per_second)) }
                        td.n { (time(lane.watermark_ms)) }
                        td.n { (time(Some(lane.frontier_ms))) }
                        td.n { (short(lane.open_cells as f64)) }
                        td.n {
                            (bytes(lane.state_bytes))
                            @if lane.state_disk_bytes > 0 { " + " (bytes(lane.state_disk_bytes)) " on disk" }
                        }
                        td.n { (format!("{:.0} ms", 1000.0 * lane.last_batch_seconds)) }
                        td.n { (short(lane.replayed_records as f64)) }
                    }
                }
                @if now.lanes.is_empty() { tr { td colspan="10" { "This process has no lanes." } } }
            }
        }
    }
}

fn health(now: &Now<'_>) -> Markup {
    let app = now.app;
    let store = app.store.trouble();
    let lake = app.lake.as_ref().map(|lake| lake.numbers());
    let repair = app.status.repair();
    let item = |name: &str, is_good: bool, words: &str| {
        html! {
            li data-mood=(if is_good { "good" } else { "bad" }) { strong { (name) } span { (words) } }
        }
    };
    html! {
        ul.health role="list" {
            (item("Store", store.is_none(), &store.clone().unwrap_or_else(|| {
                format!("answers; generation {}", app.store.generation().id)
            })))
            @match &lake {
                Some(lake) => (item("Lake", lake.trouble.is_none(), &format!("{}: {}", lake.place, lake.words()))),
                None => li { strong { "Lake" } span { "none is configured" } },
            }
            @if let Some(made) = app.status.examples() {
                (item("Examples", made.failures == 0, &format!("{} rows, {} stretches waiting, {} failures", made.rows, made.waiting, made.failures)))
            }
            @if let Some(kept) = app.status.archive() {
                (item("Raw events", kept.failures == 0 && kept.lost == 0, &format!("{} records kept, {} lost, {} failures", kept.records, kept.lost, kept.failures)))
            }
            @if let Some(repair) = repair {
                (item("Repair", repair.failures == 0 && repair.left_cells == 0, &format!("{} runs, {} members added, {} cells left, {} failures", repair.runs, repair.added_members, repair.left_cells, repair.failures)))
            }
        }
    }
}

fn aside(app: &App) -> Markup {
    let list = |name: &str, none: &str, letters: Vec<LetterSample>| {
        html! {
            section {
                h3 { (name) }
                @if letters.is_empty() { p.small { (none) } }
                ul.letters role="list" {
                    @for letter in letters.iter().take(LISTED) {
                        li {
                            details id=(format!("{}-{}-{}", name, letter.source, letter.offset)) {
                                summary {
                                    time datetime=(format_time_ms(letter.at_ms)) { (clock(letter.at_ms)) }
                                    span { (letter.reason) }
                                }
                                p.small { (letter.source) " at offset " (letter.offset) }
                                pre { code { (letter.record) } }
                            }
                        }
                    }
                }
            }
        }
    };
    html! {
        (list("Late", "No event has come too late since the start.", app.status.letters(LetterKind::Late)))
        (list("Dead", "Every record could be read since the start.", app.status.letters(LetterKind::Dead)))
    }
}

fn annotations(app: &App) -> Markup {
    html! {
        ol.annotations role="list" {
            @for annotation in app.ops.annotations.newest(LISTED) {
                li data-what=(annotation.what.name()) {
                    time datetime=(format_time_ms(annotation.at_ms)) { (format_time_ms(annotation.at_ms).get(..19).unwrap_or_default().replace('T', " ")) }
                    strong { (annotation.what.name()) }
                    span {
                        (annotation.text)
                        @if annotation.what == What::Deployment { " (not what ran before)" }
                    }
                }
            }
        }
    }
}

fn trends_table(trends: &Trends, view: &View) -> Result<Markup, ChartError> {
    let shown = trends.rows.len().min(TOP);
    let times = |ms: i64| format_time_ms(ms).get(..16).unwrap_or_default().replace('T', " ");
    let (from, to) = (times(trends.from_ms), times(trends.to_ms));
    let mut sparks = Vec::with_capacity(shown);
    for row in &trends.rows[..shown] {
        sparks.push(charts::sparkline(&row.plays)?);
    }
    Ok(html! {
        p.small {
            (shown) " of " (trends.rows.len()) " videos"
            @if !view.search.is_empty() { " that match, of " (trends.videos) " in all" }
            ", epochs of " (format_duration_ms(trends.epoch_ms)) " from " (from) " to " (to) " UTC."
        }
        @if !trends.gaps.is_empty() {
            div.notice {
                p { strong { (trends.gaps.len()) " gaps" } " that no repair has filled: cells that they touch are served as incomplete." }
                ul { @for gap in trends.gaps.iter().take(LISTED) {
                    li { "lane " (gap.lane) ": " (times(gap.from_ms)) " to " (times(gap.to_ms)) }
                } }
            }
        }
        table.trends {
            thead { tr {
                th.n scope="col" { "#" } th scope="col" { "Video" } th.n scope="col" { "Impressions" }
                th.n scope="col" { "Plays" } th.n scope="col" { "Take rate" } th.n scope="col" { "Smoothed" }
                th scope="col" { "Plays by epoch" }
            } }
            tbody {
                @for (place, (row, spark)) in trends.rows.iter().zip(&sparks).enumerate() {
                    tr {
                        td.n { (place + 1) }
                        th scope="row" {
                            (row.video)
                            @if !row.complete { " " abbr title="a gap in the log touches it" { "incomplete" } }
                        }
                        td.n { (row.counted.impressions) }
                        td.n { (row.counted.plays) }
                        td.n { @match row.counted.impressions {
                            0 => "–",
                            shown => (format!("{:.1} %", 100.0 * row.counted.plays as f64 / shown as f64)),
                        } }
                        td.n { (format!("{:.1} %", 100.0 * row.score)) }
                        td.spark { div role="img" aria-label=(format!("plays by epoch: {}", row.plays.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))) { (PreEscaped(spark)) } }
                    }
                }
                @if shown == 0 { tr { td colspan="7" { "Nothing was counted there." } } }
            }
        }
    })
}
