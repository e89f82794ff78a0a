//! The document around the sections.

use super::access::Rights;
use super::sections::Sections;
use super::view::{By, Span, View};
use crate::app::App;
use crate::member::catalogue;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Crect width='16' height='16' rx='3' fill='%231c1a17'/%3E\
    %3Cpath d='M3 12V7h2v5zm4 0V3h2v9zm4 0V9h2v3z' fill='white'/%3E%3C/svg%3E";

fn document(name: &str, body: &Markup) -> Markup {
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
                link rel="stylesheet" href="/ops/assets/base.css";
                link rel="stylesheet" href="/ops/assets/ops.css";
                script src="/ops/assets/ops.js" type="module" {}
            }
            body { (body) }
        }
    }
}

/// For who may not read yet.
pub(super) fn login(has_no_token: bool) -> Markup {
    document(
        "marquee: log in",
        &html! {
            main.login #main {
                h1 { "marquee" }
                @if has_no_token {
                    p.notice {
                        "This server can be reached by others and has no operator's token, so the page \
                         is shut. Set " code { "[http] token" } " or the environment variable "
                        code { "MARQUEE_HTTP_TOKEN" } ", and start again."
                    }
                } @else {
                    p { "The operator's page needs the token of " code { "[http]" } "." }
                    (login_form())
                }
            }
        },
    )
}

fn login_form() -> Markup {
    html! {
        form.inline method="post" action="/ops/login" {
            label for="token" { "Token" }
            input #token name="token" type="password" required autocomplete="current-password";
            button type="submit" { "Log in" }
        }
    }
}

fn section(id: &str, name: &str, words: &str, sections: &Sections) -> Markup {
    html! {
        section aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (name) }
            @if !words.is_empty() { p.small { (words) } }
            div.scroll id=(id) tabindex="0" role="region" aria-labelledby=(format!("{id}-title")) {
                (PreEscaped(sections.get(id).map_or("", String::as_str)))
            }
        }
    }
}

/// The page.
pub(super) fn page(app: &App, view: &View, sections: &Sections, may: Rights) -> Markup {
    let has_demo = app.demo.is_some();
    document(
        "marquee: operator",
        &html! {
            a.skip href="#main" { "Skip to the numbers" }
            header.top {
                a.brand href="/ops" { span.mark aria-hidden="true" {} "marquee" span.small { "operator" } }
                nav aria-label="Pages" {
                    @if app.member_pages { a href="/" { "Member page" } }
                    a href="/metrics" { "Metrics" }
                    a href="/v1/trends" { "Trends API" }
                }
                @if may.write {
                    form method="post" action="/ops/logout" { button.quiet type="submit" { "Log out" } }
                }
            }
            p #said role="status" aria-live="polite" {}
            main #main {
                h1.unseen { "What the service does" }
                div #summary { (PreEscaped(&sections["summary"])) }
                @if has_demo { (demo(may)) }
                section aria-labelledby="charts-title" {
                    div.head {
                        h2 #charts-title { "Over time" }
                        (ranges(view))
                    }
                    div.charts #charts { (PreEscaped(&sections["charts"])) }
                }
                (trends(view, sections))
                (section("lanes", "Lanes", "Times are of events, UTC. The watermark is how far event time has come; before the frontier all epochs are closed.", sections))
                div.pair {
                    section aria-labelledby="health-title" {
                        h2 #health-title { "Stores" }
                        div #health { (PreEscaped(&sections["health"])) }
                    }
                    section aria-labelledby="annotations-title" {
                        h2 #annotations-title { "What happened" }
                        @if may.write {
                            form.inline data-post="/ops/api/annotations" {
                                label.unseen for="note" { "Note" }
                                input #note name="text" maxlength="200" required placeholder="A note on the charts, for example: canary at 10 %";
                                button type="submit" { "Note" }
                            }
                        }
                        div #annotations { (PreEscaped(&sections["annotations"])) }
                    }
                }
                section aria-labelledby="aside-title" {
                    h2 #aside-title { "Late and dead letters" }
                    p.small { "The last ones since the start; all of them are in the outputs that the configuration names." }
                    div.pair #aside { (PreEscaped(&sections["aside"])) }
                }
            }
            footer.small {
                "marquee " (env!("CARGO_PKG_VERSION")) ". Live by server-sent events; without scripts, reload the page."
            }
        },
    )
}

/// A link that keeps the rest of the question.
fn link(view: &View) -> String {
    let mut pairs = vec![("range", view.span.name()), ("by", view.by.name())];
    let texts = [("search", &view.search), ("from", &view.from), ("to", &view.to)];
    pairs.extend(
        texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(n, t)| (n, t.as_str())),
    );
    let query: Vec<String> =
        pairs.iter().map(|(name, text)| format!("{name}={}", escaped(text))).collect();
    query.join("&")
}

/// Percent-encoded: all but what never needs it (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn ranges(view: &View) -> Markup {
    html! {
        nav.ranges aria-label="Range of the charts" {
            @for span in Span::ALL {
                @let there = View { span, ..view.clone() };
                a href=(format!("/ops?{}", link(&there))) aria-current=[(span == view.span).then_some("true")] { (span.words()) }
            }
        }
    }
}

fn trends(view: &View, sections: &Sections) -> Markup {
    let query = link(view);
    html! {
        section aria-labelledby="trends-title" {
            div.head {
                h2 #trends-title { "Trends" }
                p.links {
                    a href=(format!("/ops?{query}")) { "Permalink" }
                    a href=(format!("/ops/trends.csv?{query}")) download { "CSV" }
                }
            }
            form.filters method="get" action="/ops" {
                input type="hidden" name="range" value=(view.span.name());
                label { "Search" input type="search" name="search" value=(view.search) placeholder="part of a video id"; }
                label { "From" input name="from" value=(view.from) placeholder="2026-01-31T18:00:00Z"; }
                label { "To" input name="to" value=(view.to) placeholder="now"; }
                label { "Order"
                    select name="by" {
                        @for by in By::ALL { option value=(by.name()) selected[by == view.by] { (by.name()) } }
                    }
                }
                button type="submit" { "Show" }
            }
            div.scroll #trends tabindex="0" role="region" aria-labelledby="trends-title" {
                (PreEscaped(sections.get("trends").map_or("", String::as_str)))
            }
        }
    }
}

/// The buttons of the demo.
fn demo(may: Rights) -> Markup {
    html! {
        section.demo aria-labelledby="demo-title" {
            h2 #demo-title { "Try it" }
            @if may.write {
                div.buttons {
                    form.inline data-post="/ops/api/demo/event" {
                        label for="title" { "In the news:" }
                        select #title name="video" {
                            @for title in catalogue::titles().iter().take(60) {
                                option value=(title.id) { (title.name) }
                            }
                        }
                        button type="submit" { "Make it happen" }
                    }
                    div.inline role="group" aria-label="Sources" {
                        @for kind in ["impressions", "plays"] {
                            button.quiet type="button" data-post="/ops/api/demo/source" data-body=(format!("{{\"kind\":\"{kind}\",\"stopped\":true}}")) { "Stop " (kind) }
                            button.quiet type="button" data-post="/ops/api/demo/source" data-body=(format!("{{\"kind\":\"{kind}\",\"stopped\":false}}")) { "Start " (kind) }
                        }
                    }
                    div.inline {
                        button.danger #crash type="button" { "Crash the processor" }
                        span.small { "SIGKILL. It starts again, and each count is compared with what it was." }
                    }
                }
                ol #crash-log aria-live="polite" {}
            } @else {
                p.small { "Start a real-world event, stop a source, or kill the processor: log in with the token that the demo has printed (or open its link)." }
                (login_form())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permalink_asks_the_same_again() {
        let uri = "/ops?range=30m&by=rate&search=a%26b%20%C3%A4&from=1970-01-01T00:00:00Z";
        let view = View::of(&uri.parse().expect("a path")).expect("a view");
        let there: axum::http::Uri = format!("/ops?{}", link(&view)).parse().expect("a link");
        assert_eq!(View::of(&there).expect("a view"), view);
    }
}
