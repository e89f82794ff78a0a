//! The documents: HTML that is readable without any script.

use super::catalogue::{Length, Title};
use super::rows::{Row, Tile};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Crect width='16' height='16' rx='3' fill='%23b4462f'/%3E\
    %3Cpath d='M3 12V7h2v5zm4 0V3h2v9zm4 0V9h2v3z' fill='white'/%3E%3C/svg%3E";

/// What every page has around it.
fn page(name: &str, script: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (name) }
                link rel="icon" href=(PreEscaped(ICON));
                link rel="stylesheet" href="/member/base.css";
                link rel="stylesheet" href="/member/member.css";
                script src="/member/loop.js" type="module" {}
                script src=(script) type="module" {}
                script src="/marquee.js" defer data-attributes=r#"{"device":"web"}"# {}
            }
            body {
                a.skip href="#main" { "Skip to the titles" }
                header.top {
                    a.brand href="/" { span.mark aria-hidden="true" {} "marquee" }
                    p.claim { "Invented titles, real recommendations: what you look at and play is counted." }
                    nav aria-label="Pages" { a href="/ops" { "Operator page" } }
                }
                p #stale .notice role="status" hidden {}
                (body)
                (panel())
            }
        }
    }
}

/// The loop, live. It has its own place in the layout, beside the tiles or below them.
fn panel() -> Markup {
    html! {
        aside #loop aria-labelledby="loop-title" {
            details open {
                summary #loop-title { "The loop, live" }
                p.small {
                    "What you see here for half a second goes through the whole pipeline: collector, log, \
                     join, exact sets, score."
                }
                ol #loop-list aria-live="off" {
                    li.empty { "Nothing seen yet." }
                }
            }
        }
    }
}

pub(super) fn home(rows: &[Row]) -> Markup {
    let is_empty = rows.iter().all(|row| row.mean.is_none());
    page(
        "marquee: home",
        "/member/home.js",
        &html! {
            main #main {
                h1.unseen { "Home" }
                @if is_empty {
                    p.notice {
                        "Nothing has been counted yet, so the order is that of the catalogue. It changes \
                         with the first impressions and plays, yours among them."
                    }
                }
                section.row #continue hidden aria-labelledby="continue-title" {
                    div.head { h2 #continue-title { "Continue watching" } }
                    ul.tiles role="list" {}
                }
                @for row in rows { (of_row(row)) }
            }
        },
    )
}

fn of_row(row: &Row) -> Markup {
    let id = format!("row-{}", row.number);
    html! {
        section.row id=(id) data-row=(row.number) data-request=(row.request_id)
            aria-labelledby=(format!("{id}-title")) {
            div.head {
                h2 id=(format!("{id}-title")) { (row.name) }
                button.fresh type="button" hidden { "New order" }
            }
            ul.tiles role="list" {
                @for tile in &row.tiles { (of_tile(row, tile)) }
            }
        }
    }
}

fn of_tile(row: &Row, tile: &Tile) -> Markup {
    let Tile { title, position, code, .. } = tile;
    html! {
        li {
            a.tile href=(format!("/title/{}", title.id)) tabindex=[(*position > 0).then_some("-1")]
                data-video-id=(title.id) data-request-id=(row.request_id) data-row=(row.number)
                data-position=(position) data-code=[code.as_deref()] {
                img src=(format!("/poster/{}.svg", title.id)) alt="" width="200" height="300"
                    loading=[(row.number > 1).then_some("lazy")] decoding="async";
                span.name { (title.name) }
            }
            button.why type="button" tabindex="-1" aria-label=(format!("Why is {} here?", title.name)) { "?" }
        }
    }
}

pub(super) fn title(title: &Title, own: &Row, row: &Row) -> Markup {
    let code = own.tiles.first().and_then(|tile| tile.code.as_deref());
    page(
        &format!("{} · marquee", title.name),
        "/member/title.js",
        &html! {
            main #main .title-page {
                article.stage data-number=(title.number) data-name=(title.name) {
                    div.screen {
                        canvas #screen width="1280" height="720" role="img"
                            aria-label=(format!("A drawn animation for {}", title.name)) {}
                        a.play #play role="button" href=(format!("/title/{}?play", title.id))
                            data-video-id=(title.id) data-request-id=(own.request_id)
                            data-row=(own.number) data-position="0" data-code=[code] { span aria-hidden="true" { "▶" } " Play" }
                    }
                    div.facts {
                        h1 { (title.name) }
                        p.meta { (title.year) " · " (title.genre) " · " (title.length_words()) }
                        p.line { (title.line) }
                        @if let Length::Show(seasons) = &title.length {
                            (episodes(title, seasons))
                        }
                    }
                }
                (of_row(row))
            }
        },
    )
}

fn episodes(title: &Title, seasons: &[u32]) -> Markup {
    html! {
        @for (season, count) in (1..).zip(seasons) {
            details.season open[season == 1] {
                summary { "Season " (season) }
                ol.episodes {
                    @for episode in 1..=*count {
                        li {
                            button.episode type="button" data-episode=(format!("s{season}e{episode}")) {
                                "Episode " (episode)
                                span.unseen { " of season " (season) " of " (title.name) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn no_such_title(id: &str) -> Markup {
    page(
        "No such title · marquee",
        "/member/title.js",
        &html! {
            main #main {
                h1 { "No such title" }
                p { "The catalogue has no title " code { (id) } "." }
                p { a href="/" { "Back to the home page" } }
            }
        },
    )
}
