//! What is refused when it is compiled, and how it is said.

use super::*;
use crate::{Position, RecordPredicate};

/// Every part must be in the message.
fn refused(source: &str, parts: &[&str]) {
    let message = refusal(source);
    for part in parts {
        assert!(message.contains(part), "{source}: {message}, without {part}");
    }
}

#[test]
fn undeclared_names() {
    refused("devise == 1", &["column 1", "`devise` is not", "did you mean `device`?", "`row`"]);
    refused("Kids", &["did you mean `kids`?"]);
    refused("zzz", &["`zzz` is not declared; declared: `device`"]);
    refused("[1].exists(x, y > x)", &["`y`"]);
    refused("device == \"a\" &&\n  nope", &["line 2, column 3", "`nope`"]);
    refused("startWith(device)", &["no function `startWith`", "did you mean `startsWith`?"]);
    refused("now() > 3", &["no function `now`"]);
    refused("device.size(1) == 1", &["`size` cannot be called on a value with 1"]);
    let empty = Environment::new(Vec::new()).predicate("a").unwrap_err();
    assert!(empty.to_string().contains("no attribute is declared"));
}

#[test]
fn type_errors_name_both_types() {
    for (source, parts) in [
        ("device > 3", &["column 8", "`>`", "`device` (string)", "3 (int)"][..]),
        ("device == 3", &["`==`", "string", "int"]),
        ("kids == \"true\"", &["bool", "string"]),
        ("row < null", &["int", "null"]),
        ("device + 1 == \"\"", &["`+`", "string()"]),
        ("score + 1 > 2", &["double()"]),
        ("score % 2.0 == 1.0", &["`%`"]),
        ("row + 1u == 2", &["int", "uint"]),
        ("-device == \"\"", &["`-`", "string"]),
        ("!row", &["`!`", "`row` (int)"]),
        ("row && kids", &["`&&`", "`row` (int)"]),
        ("device ? true : false", &["`?:`", "string"]),
        ("(kids ? 1 : \"a\") == 1", &["int and string"]),
        ("device in [\"a\", 1]", &["column 17", "string", "int"]),
        ("row in headers", &["string key"]),
        ("\"t\" in device", &["list or a map", "contains()"]),
        ("headers[1] == \"\"", &["keys of headers"]),
        ("device.x == 1", &["`device` (string) has no field `x`"]),
        ("device[0] == \"t\"", &["`device` (string)", "[]"]),
        ("row.startsWith(\"a\")", &["startsWith()", "int"]),
        ("size(row) == 1", &["size()", "int"]),
        ("int(kids) == 1", &["int()", "bool"]),
        ("device.exists(c, c == \"t\")", &["`device` (string)"]),
        ("headers == 3", &["map(string, string)"]),
        ("headers.x == 3", &["`.x` (string)", "int"]),
        ("[1].exists(x, device > 3)", &["`device` (string)"]),
    ] {
        refused(source, parts);
    }
}

#[test]
fn results_of_another_type() {
    refused("duration_s", &["must give a bool", "gives int"]);
    refused("[1, 2].map(x, x)", &["must give a bool", "gives list"]);
    for source in ["kids", "score", "null", "headers", "row == 1", "1u"] {
        let error = environment().text(source).unwrap_err().to_string();
        assert!(error.contains("a string or an int"), "{source}: {error}");
    }
}

#[test]
fn syntax_errors() {
    for source in ["", "  ", "device ==", "== 1", "a b", "\"open", "1 +* 2", "device = \"x\"", "#"]
    {
        assert!(!refusal(source).is_empty());
    }
    refused("has(device)", &["has(headers.x)", "!= null"]);
    refused("headers.?x == 1", &["optional syntax"]);
    refused("optional.of(1) == 1", &["optional values"]);
    refused("Msg{a: 1} == 1", &["no messages"]);
    refused("(device == \"a\"", &["column 1", "`(` is never closed"]);
    refused("device == \"a\")", &["column 14", "closes nothing"]);
    refused("[1)", &["closes a `[`"]);
    refused("device.matches(country)", &["must be a literal"]);
    refused("device.matches(\"(\")", &["valid regex"]);
}

#[test]
fn positions_count_characters() {
    let error = environment().predicate("\"é\" == \"é\" && nope").unwrap_err();
    assert_eq!(error.position, Some(Position { line: 1, column: 15 }));
}

#[test]
fn records_are_checked_as_far_as_can_be() {
    for source in ["\"a\" > 3", "1 + 2", "foo(a)", "a &&", "matches(a, b)", "\"x\""] {
        assert!(RecordPredicate::compile(source).is_err(), "{source}");
    }
}
