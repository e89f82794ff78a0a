//! What expressions evaluate to.

use super::*;
use crate::RecordPredicate;

#[test]
fn comparisons() {
    for (source, expected) in [
        (r#"device != "console""#, true),
        (r#""console" == device"#, false),
        ("duration_s >= 60", true),
        ("60 > duration_s", false),
        ("duration_s == 90u && duration_s < 90.5", true),
        ("score > 0 && score <= 0.5 && 1 > score", true),
        ("score == 0.5 || false", true),
        (r#"device < "u" && device >= "tv""#, true),
        ("kids == true && kids > false && kids", true),
        ("row != null && !(row == null)", true),
        ("duration_s < 18446744073709551615u", true),
        ("null == null", true),
    ] {
        check(source, &full(), Ok(expected));
    }
}

#[test]
fn null_compares_as_cel_says() {
    for (source, expected) in [
        (r#"country != "US""#, Ok(true)),
        (r#"country == "US""#, Ok(false)),
        ("row == 3", Ok(false)),
        ("3 != row", Ok(true)),
        ("score != 0.5 && score != 1", Ok(true)),
        ("row == null && null == score", Ok(true)),
        ("row != duration_s", Ok(true)),
        (r#"country in ["US", "DE"]"#, Ok(false)),
        ("row in [1, 2]", Ok(false)),
        ("row in [1, null]", Ok(true)),
        ("row < 3", Err("null")),
        ("score >= 0.1", Err("null")),
        ("row + 1 == 2", Err("null")),
        ("-row == 2", Err("null")),
        ("kids", Err("null")),
        ("!kids", Err("null")),
        ("kids ? true : false", Err("null")),
        (r#"country.startsWith("U")"#, Err("null")),
        (r#"country in headers"#, Err("null")),
        ("has(headers.x)", Err("null")),
        ("size(country) == 0", Err("null")),
        ("int(country) == 0", Err("null")),
    ] {
        check(source, &sparse(), expected);
    }
}

#[test]
fn logic_absorbs_errors() {
    for (source, expected) in [
        ("row < 3 && false", Ok(false)),
        ("false && row < 3", Ok(false)),
        ("row < 3 || true", Ok(true)),
        ("true || row < 3", Ok(true)),
        ("row < 3 && true", Err("null")),
        ("true && row < 3", Err("null")),
        ("row < 3 || false", Err("null")),
        ("kids && duration_s < 60 && score > 1", Ok(false)),
        ("(kids || score > 1) && duration_s < 60", Ok(false)),
        ("duration_s < 60 ? row < 3 : true", Ok(true)),
    ] {
        check(source, &sparse(), expected);
    }
}

#[test]
fn arithmetic() {
    for (source, expected) in [
        ("duration_s + row * 2 - 1 == 95", Ok(true)),
        ("duration_s / 60 == 1 && duration_s % 60 == 30", Ok(true)),
        ("-duration_s == -90 && -7 / 2 == -3 && -7 % 2 == -1", Ok(true)),
        ("score * 2.0 + 1.0 == 2", Ok(true)),
        ("duration_s / 0 == 1", Err("zero")),
        ("duration_s % (row - 3) == 1", Err("zero")),
        ("score / 0.0 > 1000000", Ok(true)),
        ("0.0 / 0.0 == 0.0 / 0.0", Ok(false)),
        ("0.0 / 0.0 < 1.0", Err("NaN")),
        ("duration_s * 9223372036854775807 > 0", Err("overflow")),
        ("duration_s + 9223372036854775807 > 0", Err("overflow")),
        ("(-9223372036854775807 - 1) / -1 > 0", Err("overflow")),
        ("-(-9223372036854775807 - 1) > 0", Err("overflow")),
    ] {
        check(source, &full(), expected);
    }
}

#[test]
fn membership() {
    let many = (0..200).map(|i| format!("\"c{i}\"")).collect::<Vec<_>>().join(",");
    for (source, expected) in [
        (r#"device in ["tv", "phone"]"#, Ok(true)),
        (r#"!(device in ["console"])"#, Ok(true)),
        ("device in []", Ok(false)),
        (&format!("device in [{many}]"), Ok(false)),
        (&format!(r#"device in [{many}, "tv"]"#), Ok(true)),
        ("row in [3, 1, 2] && !(row in [])", Ok(true)),
        ("row in [3.0, 1.5] && row in [3u]", Ok(true)),
        ("score in [1, 0.5]", Ok(true)),
        ("duration_s in [row, row * 30]", Ok(true)),
        ("duration_s in [90, row / 0]", Err("zero")),
        (r#""x" in headers && !("y" in headers)"#, Ok(true)),
        ("kids in [false]", Ok(false)),
    ] {
        check(source, &full(), expected);
    }
}

#[test]
fn texts_and_conversions() {
    for (source, expected) in [
        (r#"device.startsWith("t") && device.endsWith("v") && device.contains("")"#, Ok(true)),
        (r#"device.matches("^(tv|phone)$") && matches(device, "t.")"#, Ok(true)),
        (r#"size("añb") == 3 && device.size() == 2 && size(headers) == 2"#, Ok(true)),
        (r#"device + "-" + country + "!" == "tv-US!""#, Ok(true)),
        (r#"string(duration_s) + string(1.0) + string(kids) == "901true""#, Ok(true)),
        (r#"int("12") == 12 && int(2.9) == 2 && int(duration_s) == 90"#, Ok(true)),
        (r#"double("0.5") == score && double(2) == 2.0 && bool("true")"#, Ok(true)),
        (r#"int(headers.trace) == 7"#, Ok(true)),
        (r#"int("1x") == 1"#, Err("type")),
        (r#"int(9223372036854775808.0) == 1"#, Err("overflow")),
    ] {
        check(source, &full(), expected);
    }
}

#[test]
fn headers() {
    for (source, expected) in [
        (r#"headers.x == "new" && headers["x"] == "new""#, Ok(true)),
        (r#"headers["tr" + "ace"] == "7""#, Ok(true)),
        ("has(headers.x) && !has(headers.y)", Ok(true)),
        (r#"headers.y == "new""#, Err("no such key")),
        (r#"has(headers.y) && headers.y == "new""#, Ok(false)),
        (r#"has(headers.x) ? headers.x == "new" : false"#, Ok(true)),
    ] {
        check(source, &full(), expected);
    }
}

#[test]
fn what_is_not_compiled_is_interpreted() {
    for (source, expected) in [
        (r#"headers.exists(k, k.startsWith("tra"))"#, Ok(true)),
        (r#"[1, 2, row].all(x, x < duration_s)"#, Ok(true)),
        (r#"[device, country].map(x, x + "!") == ["tv!", "US!"]"#, Ok(true)),
        ("type(row) == int && uint(row) + 1u == 4u", Ok(true)),
        (r#"{"tv": 1}[device] == 1"#, Ok(true)),
        (r#"{"tv": 1}[country] == 1"#, Err("no such key")),
        ("[0].exists(x, duration_s / x > 1)", Err("zero")),
        ("dyn(row)", Err("not a bool")),
    ] {
        assert!(environment().predicate(source).unwrap().is_interpreted(), "{source}");
        check(source, &full(), expected);
    }
    check(r#"[1].exists(x, country == "US")"#, &sparse(), Ok(false));
}

#[test]
fn the_result_of_a_text() {
    check_text("country", &full(), Ok("US"));
    check_text("duration_s", &full(), Ok("90"));
    check_text(r#""all""#, &full(), Ok("all"));
    check_text(r#"country == null ? "??" : country"#, &sparse(), Ok("??"));
    check_text(r#"duration_s < 60 ? "short" : device"#, &full(), Ok("tv"));
    check_text(r#"{"US": "america"}[country]"#, &full(), Ok("america"));
    check_text("dyn(row)", &full(), Ok("3"));
    check_text("dyn(score)", &full(), Err("neither"));
    check_text("country", &sparse(), Err("null"));
    check_text("dyn(country)", &sparse(), Err("null"));
}

#[test]
fn a_text_is_borrowed_from_the_event() {
    let text = environment().text("country == null ? device : country").unwrap();
    assert!(matches!(text.eval(&full()), Ok(Cow::Borrowed("US"))));
    assert!(matches!(text.eval(&sparse()), Ok(Cow::Borrowed("tv"))));
}

#[test]
fn slots_and_source() {
    let source = r#"row == 1 || country in ["a"] || row > 3"#;
    let predicate = environment().predicate(source).unwrap();
    assert_eq!((predicate.slots(), predicate.source()), (&[1, 3][..], source));
    let text = environment().text("[device].map(row, row)[0]").unwrap();
    assert_eq!(text.slots(), [0]);
    let shared: Box<dyn std::any::Any + Send + Sync> =
        Box::new((predicate.clone(), text.clone(), environment()));
    drop(shared);
}

#[test]
fn slots_that_do_not_fit_are_an_error() {
    check(r#"device == "tv""#, &[], Err("too few slots"));
    check("duration_s > 1", &[Value::Null, Value::Null, Value::Bool(true)], Err("another type"));
}

#[test]
fn records() {
    let record = serde_json::json!({
        "type": "play", "user": {"country": "US", "tags": ["a", "b"]}, "n": 3, "x": 1.5,
        "big": u64::MAX, "a.b": true, "int": 7, "none": null,
    });
    for (source, expected) in [
        (r#"type == "play" && user.country == "US""#, Ok(true)),
        ("n < 4 && x > 1 && int == 7 && big > 5u", Ok(true)),
        ("absent == null && none == null", Ok(true)),
        (r#"absent != "console""#, Ok(true)),
        ("absent < 3", Err("null")),
        ("absent.field == 3", Err("")),
        ("has(user.country) && !has(user.age) && !has(record.age)", Ok(true)),
        (r#"user.tags.exists(t, t == "b") && "a" in user.tags"#, Ok(true)),
        (r#"record.n == 3 && "n" in record && !("m" in record)"#, Ok(true)),
        ("a.b", Ok(true)),
        ("n", Err("not a bool")),
        ("type(n) == type(1)", Ok(true)),
        (r#"type.matches("^pl.y$")"#, Ok(true)),
    ] {
        let predicate = RecordPredicate::compile(source).unwrap();
        match (predicate.eval(&record), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{source}"),
            (Err(error), Err(part)) => assert!(error.reason.contains(part), "{source}: {error}"),
            (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
        }
    }
    let absent = RecordPredicate::compile("n == null").unwrap();
    assert_eq!(absent.clone().eval(&serde_json::json!([1])), Ok(true));
}

#[test]
fn a_record_that_nests_without_end_is_cut() {
    let mut record = serde_json::json!(1);
    for _ in 0..10_000 {
        record = serde_json::Map::from_iter([("a".to_owned(), record)]).into();
    }
    let predicate = RecordPredicate::compile("record.a.a != null").unwrap();
    assert_eq!(predicate.eval(&record), Ok(true));
    // The drop of such a value recurses: take it apart from outside.
    while let serde_json::Value::Object(mut fields) = record {
        record = fields.remove("a").unwrap_or_default();
    }
}

#[test]
fn types_by_name() {
    assert_eq!("float".parse(), Ok(Type::Double));
    assert_eq!(Type::StringMap.to_string(), "map(string, string)");
    for ty in [Type::String, Type::Int, Type::Double, Type::Bool] {
        assert_eq!(ty.to_string().parse(), Ok(ty));
    }
    assert!("text".parse::<Type>().unwrap_err().to_string().contains("string, int"));
}
