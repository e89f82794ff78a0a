//! Tests of decoding: every kind of bad input, and every way of mapping.

mod alike;
mod rows;

use super::*;
use marquee_expr::Type;

fn path(text: &str) -> Path {
    text.split('.').map(str::to_owned).collect()
}

fn declared(name: &str, ty: Type, optional: bool) -> (Declared, Path) {
    (Declared { name: name.to_owned(), ty, optional }, path(name))
}

fn mapping() -> Mapping {
    Mapping {
        record_filter: None,
        explode: None,
        request_id: path("r"),
        video: path("v"),
        time: path("t"),
        time_unit: TimeUnit::Milliseconds,
        attributes: vec![declared("d", Type::String, true), declared("n", Type::Int, true)],
    }
}

/// Decodes a record and shows its events, one a line.
fn show(mapping: Mapping, record: &[u8]) -> String {
    let mut lines = Vec::new();
    Decoder::new(mapping).decode(record, &RecordMeta::default(), |event| {
        lines.push(match event {
            Err(reason) => format!("dead: {reason}"),
            Ok(values) => {
                let shown = |value: &Value<'_>| match value {
                    Value::Null => "null".to_owned(),
                    Value::String(text) => format!("{text:?}"),
                    Value::Int(number) => number.to_string(),
                    Value::Double(number) => format!("{number:?}"),
                    Value::Bool(value) => value.to_string(),
                    Value::StringMap(_) => "headers".to_owned(),
                };
                let own = values[..3].iter().chain(&values[ATTRIBUTES..]);
                own.map(shown).collect::<Vec<_>>().join(" ")
            }
        });
    });
    lines.join("\n")
}

fn check(record: &str, expected: &str) {
    assert_eq!(show(mapping(), record.as_bytes()), expected, "{record}");
}

#[test]
fn good_records() {
    check(r#"{"r":"a","v":"b","t":5}"#, r#""a" "b" 5 null null"#);
    check(
        r#" {"x":{"r":1},"t":5,"v":7,"r":12,"d":"tv","n":-3,"y":[{}]} "#,
        r#""12" "7" 5 "tv" -3"#,
    );
    check(r#"{"r":"a","v":"b","t":5,"d":null}"#, r#""a" "b" 5 null null"#);
    check(r#"{"r":"a","r":"c","v":"b","t":5}"#, r#""c" "b" 5 null null"#);
    check(
        "{\"r\":\"\\u0041\\n\\u0000é\",\"v\":\"日本\",\"t\":0}",
        "\"A\\n\\0é\" \"日本\" 0 null null",
    );
    check(
        r#"{"r":18446744073709551615,"v":"b","t":5}"#,
        r#""18446744073709551615" "b" 5 null null"#,
    );
}

#[test]
fn bad_records() {
    check("", "dead: not JSON: EOF while parsing a value at line 1 column 0");
    check("nonsense", "dead: not JSON: expected ident at line 1 column 2");
    check(
        "[1]",
        "dead: not JSON: invalid type: sequence, expected a JSON object at line 1 column 0",
    );
    check(
        r#"{"r":"a","v":"b","t":5"#,
        "dead: not JSON: EOF while parsing an object at line 1 column 22",
    );
    check(
        r#"{"r":"a","v":"b","t":5} x"#,
        "dead: not JSON: trailing characters at line 1 column 25",
    );
    check(r#"{"v":"b","t":5}"#, "dead: r is missing, not a text or a whole number");
    check(r#"{"r":null,"v":"b","t":5}"#, "dead: r is null, not a text or a whole number");
    check(r#"{"r":"","v":"b","t":5}"#, "dead: r is empty");
    check(
        r#"{"r":1.5,"v":"b","t":5}"#,
        "dead: r is a number with a fraction, not a text or a whole number",
    );
    check(r#"{"r":"a","v":["b"],"t":5}"#, "dead: v is a list, not a text or a whole number");
    check(r#"{"r":"a","v":{},"t":5}"#, "dead: v is an object, not a text or a whole number");
    check(r#"{"r":"a","v":"b","t":"5"}"#, "dead: t is a text, not a whole number of milliseconds");
    check(r#"{"r":"a","v":"b","t":-1}"#, "dead: t is before 1970");
    check(
        r#"{"r":"a","v":"b","t":253402300800000}"#,
        "dead: t is after the year 9999; is time_unit right?",
    );
    check(
        r#"{"r":"a","v":"b","t":18446744073709551615}"#,
        "dead: t is after the year 9999; is time_unit right?",
    );
    check(r#"{"r":"a","v":"b","t":5,"n":"x"}"#, "dead: n is a text, not the declared int");
    check(
        r#"{"r":"a","v":"b","t":5,"n":1.0}"#,
        "dead: n is a number with a fraction, not the declared int",
    );
}

#[test]
fn ids_over_the_limit_and_bytes_that_are_no_text() {
    let long = format!(r#"{{"r":"{}","v":"b","t":5}}"#, "x".repeat(1 << 20));
    check(&long, "dead: r has 1048576 bytes; ids have at most 1024");
    let shown = show(mapping(), b"{\"r\":\"a\xff\",\"v\":\"b\",\"t\":5}");
    assert_eq!(shown, "dead: not JSON: invalid unicode code point at line 1 column 8");
    let shown = show(mapping(), br#"{"r":"\ud800","v":"b","t":5}"#);
    assert!(shown.starts_with("dead: not JSON: "), "{shown}");
    let nested = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(show(mapping(), nested.as_bytes()).starts_with("dead: r is missing"));
    let exploded = Mapping { explode: Some(path("x")), ..mapping() };
    assert!(show(exploded, nested.as_bytes()).starts_with("dead: not JSON: recursion limit"));
    let huge = vec![b' '; MAX_RECORD_BYTES];
    assert!(show(mapping(), &huge).starts_with("dead: the record has 16777216 bytes"));
}

#[test]
fn of_several_headers_of_one_name_the_last_counts_as_it_does_in_expressions() {
    let headers = [("h", "first"), ("other", "x"), ("h", "last")];
    let headers = headers.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value)));
    let meta = RecordMeta { headers: &headers, ..RecordMeta::default() };
    let (attribute, _) = declared("d", Type::String, true);
    let attributes = vec![(attribute, path("$record.headers.h"))];
    let mut events = 0;
    Decoder::new(Mapping { attributes, ..mapping() }).decode(
        br#"{"r":"a","v":"b","t":5}"#,
        &meta,
        |event| {
            events += 1;
            let values = event.expect("it is good");
            assert_eq!(values[ATTRIBUTES], Value::String("last".into()));
        },
    );
    assert_eq!(events, 1);
}

#[test]
fn nested_paths_and_units_of_time() {
    let at = |unit, record: &str| {
        let nested = Mapping {
            request_id: path("ctx.request.id"),
            video: path("ctx.video"),
            time_unit: unit,
            attributes: vec![],
            ..mapping()
        };
        show(nested, record.as_bytes())
    };
    let record = |t: &str| format!(r#"{{"ctx":{{"video":"b","request":{{"id":"a"}}}},"t":{t}}}"#);
    assert_eq!(at(TimeUnit::Seconds, &record("5")), r#""a" "b" 5000"#);
    assert_eq!(at(TimeUnit::Seconds, &record("1479686400.123")), r#""a" "b" 1479686400123"#);
    assert_eq!(
        at(TimeUnit::Seconds, &record("9223372036854775807")),
        "dead: t is after the year 9999; is time_unit right?"
    );
    assert_eq!(at(TimeUnit::Microseconds, &record("5999")), r#""a" "b" 5"#);
    assert_eq!(at(TimeUnit::Rfc3339, &record(r#""1970-01-01T00:00:01.5Z""#)), r#""a" "b" 1500"#);
    assert_eq!(at(TimeUnit::Rfc3339, &record(r#""soon""#)), r#"dead: t is "soon", not RFC 3339"#);
    let twice = r#"{"ctx":{"video":"b","request":{"id":"a"}},"ctx":7,"t":5}"#;
    assert!(at(TimeUnit::Seconds, twice).starts_with("dead: ctx.request.id is missing"));
    assert_eq!(
        at(TimeUnit::Seconds, r#"{"ctx":7,"t":5}"#),
        "dead: ctx.request.id is missing, not a text or a whole number"
    );
}

#[test]
fn a_list_of_videos_is_one_event_each() {
    let exploded = |record: &str| {
        let mapping = Mapping { explode: Some(path("items")), ..mapping() };
        show(mapping, record.as_bytes())
    };
    assert_eq!(
        exploded(r#"{"r":"a","t":5,"d":"tv","items":[{"v":"x"},{"v":"y","t":6,"d":"web"},{}]}"#),
        "\"a\" \"x\" 5 \"tv\" null\n\"a\" \"y\" 6 \"web\" null\n\
         dead: v is missing, not a text or a whole number"
    );
    assert_eq!(exploded(r#"{"r":"a","t":5,"items":[]}"#), "");
    assert_eq!(exploded(r#"{"r":"a","t":5}"#), r#"dead: explode: there is no list at "items""#);
    let plain = Mapping { explode: Some(path("v")), ..mapping() };
    assert_eq!(
        show(plain, br#"{"r":"a","t":5,"v":["x",7]}"#),
        "\"a\" \"x\" 5 null null\n\"a\" \"7\" 5 null null"
    );
}

#[test]
fn both_kinds_in_one_stream() {
    let of_kind = |record: &str| {
        let filter = RecordPredicate::compile(r#"kind == "play""#).expect("it is valid");
        show(Mapping { record_filter: Some(filter), ..mapping() }, record.as_bytes())
    };
    assert_eq!(of_kind(r#"{"kind":"play","r":"a","v":"b","t":5}"#), r#""a" "b" 5 null null"#);
    assert_eq!(of_kind(r#"{"kind":"impression"}"#), "");
    assert_eq!(of_kind(r#"{"r":"a","v":"b","t":5}"#), "");
    assert_eq!(of_kind("[]"), "dead: the record is a list, not a JSON object");
}
