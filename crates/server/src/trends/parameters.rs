//! From the parameters of a URL to a question.

use super::{Cursor, Slices, Sort, TrendQuery};
use marquee_model::{parse_duration_ms, parse_time_ms};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use thiserror::Error;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// A question that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct QueryError(String);

fn wrong<T>(message: impl Into<String>) -> Result<T, QueryError> {
    Err(QueryError(message.into()))
}

impl TrendQuery {
    /// Reads the parameters of a URL, each of which may be there once.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn from_parameters(parameters: &[(String, String)]) -> Result<Self, QueryError> {
        let mut query = TrendQuery { limit: Some(LIMIT_DEFAULT), ..TrendQuery::default() };
        let mut after = None;
        for (place, (name, value)) in parameters.iter().enumerate() {
            if parameters[..place].iter().any(|(before, _)| before == name) {
                return wrong(format!("`{name}` is there twice; give it once"));
            }
            match name.as_str() {
                "after" => after = Some(value),
                "slices" if parameters.iter().any(|(other, _)| other == "slice") => {
                    return wrong("`slice` and `slices` exclude each other; give one of them");
                }
                _ => query.set(name, value)?,
            }
        }
        if let Some(after) = after {
            query.after = Some(query.cursor(after)?);
        }
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), QueryError> {
        let time = || match parse_time_ms(value) {
            Ok(time_ms) => Ok(Some(time_ms)),
            Err(error) => wrong(format!("`{name}`: {error}")),
        };
        match name {
            "from" => self.from_ms = time()?,
            "to" => self.to_ms = time()?,
            "video" if value.is_empty() => return wrong("`video` is empty; give a video id"),
            "video" => self.video = Some(value.to_owned()),
            "slice" => self.slices = Slices::One(canonical_slice(value)?),
            "slices" if value == "all" => self.slices = Slices::All,
            "slices" => {
                return wrong("`slices` takes only `all`; one slice is asked for by `slice`");
            }
            "epoch_ms" => self.epoch_ms = Some(epoch_ms(value)?),
            "sort" => self.sort = Sort::named(value)?,
            "limit" => self.limit = Some(limit(value)?),
            _ => {
                return wrong(format!(
                    "`{name}` is no parameter; there are from, to, video, slice, slices, epoch_ms, \
                     sort, limit and after"
                ));
            }
        }
        Ok(())
    }

    fn cursor(&self, text: &str) -> Result<Cursor, QueryError> {
        match Cursor::decode(text) {
            Some(cursor) if cursor.belongs_to(self) => Ok(cursor),
            Some(_) => wrong(
                "`after` belongs to another query; repeat all parameters (but `limit`) of the page \
                 that gave it",
            ),
            None => wrong("`after` is no cursor; give `next` of the page before, as it is"),
        }
    }
}

impl Sort {
    /// The order of that name.
    ///
    /// # Errors
    /// There is none; the message names them all.
    pub fn named(name: &str) -> Result<Self, QueryError> {
        match name {
            "plays" => Ok(Sort::Plays),
            "impressions" => Ok(Sort::Impressions),
            "take_rate" => Ok(Sort::TakeRate),
            "video" => Ok(Sort::Video),
            other => wrong(format!(
                "`sort` is {other:?}; it can be plays, impressions, take_rate or video, and without \
                 it the newest epoch comes first"
            )),
        }
    }
}

fn limit(value: &str) -> Result<usize, QueryError> {
    match value.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => wrong(format!("`limit` is {value:?}; it can be 1 to {LIMIT_MAX}")),
    }
}

fn epoch_ms(value: &str) -> Result<i64, QueryError> {
    match value.parse().ok().or_else(|| parse_duration_ms(value).ok()) {
        Some(epoch_ms) if epoch_ms > 0 => Ok(epoch_ms),
        _ => wrong(format!("`epoch_ms` is {value:?}; give a length in milliseconds (1800000)")),
    }
}

/// A slice as the store writes it: compact JSON with sorted keys, nothing for the empty slice.
///
/// ```
/// use marquee_server::trends::canonical_slice;
/// assert_eq!(canonical_slice(r#"{"b": 1, "a": null}"#).as_deref(), Ok(r#"{"a":null,"b":1}"#));
/// assert_eq!(canonical_slice("{}").as_deref(), Ok(""));
/// ```
///
/// # Errors
/// It is no JSON object of plain values.
pub fn canonical_slice(text: &str) -> Result<String, QueryError> {
    let Ok(object) = serde_json::from_str::<Map<String, Json>>(text) else {
        return wrong(format!(
            "`slice` is {text:?}; give a JSON object such as {{\"country\":\"US\"}}"
        ));
    };
    if object.values().any(|value| value.is_array() || value.is_object()) {
        return wrong("`slice` holds a list or an object; attributes are plain values");
    }
    if object.is_empty() {
        return Ok(String::new());
    }
    let sorted: BTreeMap<&String, &Json> = object.iter().collect();
    Ok(serde_json::to_string(&sorted).expect("plain values always serialize"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parameters: &[(&str, &str)], expected: &str) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let parameters: Vec<_> = parameters.iter().map(owned).collect();
        let error = TrendQuery::from_parameters(&parameters).expect_err("it is wrong");
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn wrong_parameters_are_named() {
        check(&[("form", "1")], "`form` is no parameter");
        check(&[("from", "yesterday")], "`from`: \"yesterday\" is not a time");
        check(&[("to", "")], "`to`: \"\" is not a time");
        check(&[("to", "1"), ("to", "1")], "`to` is there twice");
        check(&[("slice", "US")], "give a JSON object");
        check(&[("slice", "[]")], "give a JSON object");
        check(&[("slice", r#"{"a":[1]}"#)], "plain values");
        check(&[("slices", "some")], "takes only `all`");
        check(&[("slices", "all"), ("slice", "{}")], "exclude each other");
        check(&[("sort", "newest")], "take_rate");
        check(&[("limit", "0")], "1 to 10000");
        check(&[("limit", "10001")], "1 to 10000");
        check(&[("epoch_ms", "-1")], "in milliseconds");
        check(&[("after", "?")], "is no cursor");
        check(&[("video", "")], "is empty");
    }
}
