//! Takes a body apart. What it is, its content decides, not its content type: one object, an array
//! of objects, or lines of which each is an object (NDJSON). Blank lines are no items.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Calls `each` with the bytes of every item, just as they were sent.
///
/// # Errors
/// The body begins like an array but is none. `each` may have been called: forget that.
pub(super) fn for_each<'b>(body: &'b [u8], each: &mut dyn FnMut(&'b [u8])) -> Result<(), String> {
    let body = body.trim_ascii();
    match body.first() {
        Some(b'[') if !first_line_is_whole(body) => array(body, each),
        Some(b'{') if is_one_value(body) => {
            each(body);
            Ok(())
        }
        _ => {
            lines(body).for_each(each);
            Ok(())
        }
    }
}

/// Whether a whole JSON value is on the first of several lines: then these are NDJSON whose first
/// item happens to be bad, and the others must not suffer for it.
fn first_line_is_whole(body: &[u8]) -> bool {
    let Some(end) = body.iter().position(|byte| *byte == b'\n') else { return false };
    is_one_value(&body[..end])
}

fn is_one_value(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty())
}

fn array<'b>(body: &'b [u8], each: &mut dyn FnMut(&'b [u8])) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_seq(Elements { each }).and_then(|()| json.end());
    read.map_err(|error| error.to_string())
}

/// Hands on the elements of an array one by one: a list of millions of tiny ones would take many
/// times the room of the body.
struct Elements<'e, 'b> {
    each: &'e mut dyn FnMut(&'b [u8]),
}

impl<'b> Visitor<'b> for Elements<'_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element_seed(Raw)? {
            (self.each)(element.get().as_bytes());
        }
        Ok(())
    }
}

struct Raw;

impl<'b> serde::de::DeserializeSeed<'b> for Raw {
    type Value = &'b RawValue;

    fn deserialize<D: Deserializer<'b>>(self, json: D) -> Result<Self::Value, D::Error> {
        <&RawValue>::deserialize(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<&[&str], &str>) {
        let mut items = Vec::new();
        let read = for_each(body.as_bytes(), &mut |item| {
            items.push(str::from_utf8(item).expect("tests are text"));
        });
        let read = read.map(|()| &items[..]);
        assert_eq!(read.as_ref().map_err(|e| &e[..]).copied(), expected, "{body:?}");
    }

    #[test]
    fn the_content_decides() {
        check("", Ok(&[]));
        check(" \n\r\n ", Ok(&[]));
        check("{}", Ok(&["{}"]));
        check(" {\n\"a\" : 1\n}\n", Ok(&["{\n\"a\" : 1\n}"]));
        check("[ ]", Ok(&[]));
        check("[{\"a\": [1]},\n {} , 3]", Ok(&["{\"a\": [1]}", "{}", "3"]));
        check("{}\r\n\n {\"a\":1} \n", Ok(&["{}", "{\"a\":1}"]));
        check("{\n{}", Ok(&["{", "{}"]));
        check("[1]\n{}", Ok(&["[1]", "{}"]));
        check("{} {}", Ok(&["{} {}"]));
        check("nonsense", Ok(&["nonsense"]));
        check("[{}", Err("EOF while parsing a list at line 1 column 3"));
        check("[\n{}\n]\n{}", Err("trailing characters at line 4 column 1"));
    }
}
