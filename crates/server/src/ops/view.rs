//! What was asked for, in the query of the page's address.
//!
//! | parameter | meaning |
//! |---|---|
//! | `range` | what the charts show: `5m` (default), `30m`, `24h` |
//! | `search` | trends of videos whose id contains this |
//! | `from`, `to` | trends of epochs that start at or after, and before; RFC 3339 or milliseconds; default: the newest 24 epochs |
//! | `by` | order of trends: `plays` (default), `impressions`, `rate` (smoothed) |

use crate::problem::Problem;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use marquee_model::parse_time_ms;

/// What the charts show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Span {
    #[default]
    FiveMinutes,
    HalfHour,
    Day,
}

impl Span {
    pub(super) const ALL: [Span; 3] = [Span::FiveMinutes, Span::HalfHour, Span::Day];

    pub(super) fn name(self) -> &'static str {
        match self {
            Span::FiveMinutes => "5m",
            Span::HalfHour => "30m",
            Span::Day => "24h",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Span::FiveMinutes => "5 minutes",
            Span::HalfHour => "30 minutes",
            Span::Day => "24 hours",
        }
    }

    pub(super) fn ms(self) -> i64 {
        match self {
            Span::FiveMinutes => 300_000,
            Span::HalfHour => 1_800_000,
            Span::Day => 86_400_000,
        }
    }

    /// Width of a point of a chart.
    pub(super) fn step_ms(self) -> i64 {
        match self {
            Span::FiveMinutes => 1_000,
            Span::HalfHour => 5_000,
            Span::Day => 300_000,
        }
    }
}

/// Which trends come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    #[default]
    Plays,
    Impressions,
    Rate,
}

impl By {
    pub(super) const ALL: [By; 3] = [By::Plays, By::Impressions, By::Rate];

    pub(super) fn name(self) -> &'static str {
        match self {
            By::Plays => "plays",
            By::Impressions => "impressions",
            By::Rate => "rate",
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) span: Span,
    pub(super) search: String,
    pub(super) from_ms: Option<i64>,
    pub(super) to_ms: Option<i64>,
    /// As they were written.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) by: By,
}

impl View {
    pub(super) fn of(uri: &Uri) -> Result<View, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| bad(format!("The parameters cannot be read: {error}.")))?;
        let mut view = View::default();
        for (name, value) in parameters {
            let value = value.trim().to_owned();
            let unknown = |words: &str| bad(format!("`{name}={value}`: {words}."));
            let time = || match value.is_empty() {
                true => Ok(None),
                false => {
                    parse_time_ms(&value).map(Some).map_err(|error| unknown(&error.to_string()))
                }
            };
            match name.as_str() {
                "range" => {
                    let span = Span::ALL.into_iter().find(|span| span.name() == value);
                    view.span = span.ok_or_else(|| unknown("it is 5m, 30m or 24h"))?;
                }
                "by" => {
                    let by = By::ALL.into_iter().find(|by| by.name() == value);
                    view.by = by.ok_or_else(|| unknown("it is plays, impressions or rate"))?;
                }
                "search" => view.search = value,
                "from" => (view.from_ms, view.from) = (time()?, value),
                "to" => (view.to_ms, view.to) = (time()?, value),
                _ => {
                    return Err(unknown(
                        "there is no such parameter; there are range, search, from, to, by",
                    ));
                }
            }
        }
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_its_mistakes_are_said() {
        let of = |query: &str| View::of(&format!("/ops?{query}").parse().expect("a path"));
        assert_eq!(of("").expect("all defaults"), View::default());
        let view =
            of("range=24h&by=rate&search=a%26b&from=1970-01-01T00:00:01Z&to=").expect("good");
        assert_eq!((view.span, view.by, view.search.as_str()), (Span::Day, By::Rate, "a&b"));
        assert_eq!((view.from_ms, view.to_ms), (Some(1000), None));
        for bad in ["range=1h", "by=x", "from=yesterday", "what=1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
