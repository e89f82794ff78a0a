//! Tests: values and errors through one helper, hostile sources, and agreement with the
//! interpreter of the `cel` crate on generated expressions.

#![allow(clippy::unwrap_used)]

mod agreement;
mod hostile;
mod refusals;
mod speed;
mod values;

use std::borrow::Cow;

use crate::{Declared, Environment, Type, Value};

/// One attribute of every type, required (`device`, ...) and optional (`country`, ...).
fn environment() -> Environment {
    let declare = |name: &str, ty, optional| Declared { name: name.to_owned(), ty, optional };
    Environment::new(vec![
        declare("device", Type::String, false),
        declare("country", Type::String, true),
        declare("duration_s", Type::Int, false),
        declare("row", Type::Int, true),
        declare("score", Type::Double, true),
        declare("kids", Type::Bool, true),
        declare("headers", Type::StringMap, true),
    ])
}

static HEADERS: [(Cow<'_, str>, Cow<'_, str>); 3] = [
    (Cow::Borrowed("x"), Cow::Borrowed("old")),
    (Cow::Borrowed("trace"), Cow::Borrowed("7")),
    (Cow::Borrowed("x"), Cow::Borrowed("new")),
];

/// `device = "tv"`, `country = "US"`, `duration_s = 90`, `row = 3`, `score = 0.5`, `kids = true`.
fn full() -> Vec<Value<'static>> {
    vec![
        Value::String("tv".into()),
        Value::String("US".into()),
        Value::Int(90),
        Value::Int(3),
        Value::Double(0.5),
        Value::Bool(true),
        Value::StringMap(&HEADERS),
    ]
}

/// The same event with every optional attribute absent.
fn sparse() -> Vec<Value<'static>> {
    let absent = vec![Value::Null; 4];
    [vec![Value::String("tv".into()), Value::Null, Value::Int(90)], absent].concat()
}

/// `Ok` for a predicate that holds or not, `Err` for a part of the error's reason.
fn check(source: &str, slots: &[Value<'_>], expected: Result<bool, &str>) {
    let predicate = environment().predicate(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    match (predicate.eval(slots), expected) {
        (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{source}"),
        (Err(error), Err(part)) => {
            assert!(error.reason.contains(part), "{source}: {error}, not {part}");
        }
        (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
    }
}

/// The same for a text.
fn check_text(source: &str, slots: &[Value<'_>], expected: Result<&str, &str>) {
    let text = environment().text(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    match (text.eval(slots), expected) {
        (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{source}"),
        (Err(error), Err(part)) => {
            assert!(error.reason.contains(part), "{source}: {error}, not {part}");
        }
        (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
    }
}

/// The whole message of a predicate that is refused.
fn refusal(source: &str) -> String {
    match environment().predicate(source) {
        Ok(_) => panic!("{source} was accepted"),
        Err(error) => error.to_string(),
    }
}
