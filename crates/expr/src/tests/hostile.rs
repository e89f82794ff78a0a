//! Sources that mean harm: each is refused, or evaluated, quickly and without a panic.

use std::time::{Duration, Instant};

use super::*;
use crate::RecordPredicate;
use crate::limits::SOURCE_BYTES_MAX;

/// Compiles the source in every way and, where it is accepted, evaluates it. Returns whether it
/// was accepted as a predicate over declared attributes.
fn survives(source: &str) -> bool {
    let start = Instant::now();
    let predicate = environment().predicate(source);
    if let Ok(predicate) = &predicate {
        drop(predicate.eval(&full()));
        drop(predicate.eval(&sparse()));
        drop(predicate.eval(&[]));
    }
    drop(environment().text(source).map(|text| text.eval(&full()).map(Cow::into_owned)));
    let record = serde_json::json!({"a": [1, 2, 3], "device": "tv"});
    drop(RecordPredicate::compile(source).map(|predicate| predicate.eval(&record)));
    let shown: String = source.chars().take(60).collect();
    assert!(start.elapsed() < Duration::from_secs(20), "{shown}: {:?}", start.elapsed());
    predicate.is_ok()
}

#[test]
fn long_sources_are_refused_unread() {
    for part in ["(", "!", "[", "-", "{", "a && ", "a ? b : ", "\"", "\\", "a.", "f("] {
        assert!(!survives(&part.repeat(100_000)), "{part}");
    }
    assert!(refusal(&"(".repeat(100_000)).contains("100000 bytes"));
}

#[test]
fn nesting_is_bounded() {
    let full = |part: &str, rest: &str| {
        let room = SOURCE_BYTES_MAX - rest.len();
        format!("{}{rest}", part.repeat(room / part.len()))
    };
    for (part, rest) in [
        ("(", "1"),
        ("[", "1"),
        ("{", "1"),
        ("!", "kids"),
        ("-", "1"),
        ("! ", "kids"),
        ("!-", "1"),
        ("- -", "1"),
        ("[[(", ""),
        ("kids ? true : ", "false"),
        ("true ? ", "1"),
        ("1 + ", "1"),
        ("row - ", "1"),
        ("1 == ", "1"),
        ("a.", "b"),
        ("f(", ""),
        ("\"\\", "\""),
        ("// (\n(", ")"),
        ("r'\\'(", ""),
        ("'''(", ""),
        ("has(", "a"),
        ("[0].map(x,", "1"),
        ("1?", "1"),
        ("a[", "0"),
        ("1 in ", "[1]"),
        ("{1:", "1"),
        (")", ""),
        ("?", ""),
        (",", ""),
        ("a{", "}"),
        ("1+", "1"),
        ("1<", "1"),
        ("1==", "1"),
        ("1in", "[]"),
        ("kids||", "kids&&"),
        ("[0]", ""),
        (".a", ""),
        ("a.b()", ""),
        (".size()", ""),
        ("[1][0].", "a"),
        ("`", ""),
    ] {
        assert!(!survives(&full(part, rest)), "{part}");
    }
    for (part, count) in [("(", 40), ("[", 40)] {
        let closing = if part == "(" { ")" } else { "]" };
        survives(&format!("{}1{}", part.repeat(count), closing.repeat(count)));
    }
    assert!(survives(&format!("{}kids{}", "(".repeat(48), ")".repeat(48))));
    assert!(survives(&format!("{}kids", "!".repeat(24))));
    assert!(survives(&format!("{}true", "kids ? false : ".repeat(48))));
    assert!(survives(&format!("{}kids", "kids && ".repeat(1_000))));
    assert!(survives(&format!("{}kids", "kids || row == 3 && ".repeat(400))));
    assert!(survives(&format!("1{} > 0", " + 1".repeat(90))));
    assert!(refusal(&format!("1{} > 0", " + 1".repeat(500))).contains("deeper"));
}

#[test]
fn odd_bytes_and_escapes() {
    for source in [
        "\0",
        "device == \"\0\"",
        "device == \"a\\x00\"",
        "device == \"\\xff\\xfe\"",
        "device == \"\\ud800\"",
        "device == \"\\U00110000\"",
        "device == \"\\377\"",
        "b\"\\xff\"",
        "device == \"\\",
        "device == \"\\u12",
        "'\\8'",
        "\u{feff}kids",
        "kids\u{202e}",
        "ki\u{0301}ds",
        "99999999999999999999 > row",
        "-9223372036854775808 < row",
        "0xffffffffffffffffff > 1",
        "18446744073709551616u > 1",
        "1e999 > score",
        "1e-999 < score",
        "1.e",
        "0x",
        "1u.x",
        "9223372036854775808 == 1",
        "-9223372036854775809 == 1",
        "kids // (((",
        "//",
        "'''",
        "\"\"\"",
        ".kids",
        "..kids",
        "@result",
        "__result__",
        "in",
        "null.x",
        "true()",
        "device.device()",
        "{",
        "}",
        "[?1]",
        "{?1: 2}",
        "a.`b`",
        "\r\n\t\u{c}kids",
        "_&&_(kids, kids)",
        "\u{a0}kids",
        "kids\u{2028}",
        "if",
        "as",
        "{1: 1, 1: 2} == {}",
        "{null: 1} == {}",
        "f()()",
        "1.0.0",
        "[].map(1, 1)",
        "[].map(kids, kids) == []",
        "[].all(x)",
        "has(a)",
        "has()",
        "has(headers)",
    ] {
        survives(source);
    }
    assert!(survives("-9223372036854775808 < row") && survives(".kids"));
    for end in 0..100 {
        // Not a character boundary everywhere: the lexer sees every kind of end.
        let source = "[\"é\\u00e9\", r'x', b\"\\x41\", '''y'''].exists(z, z == {'k': [1u, 0x2, 3.5e1]}[device])";
        if let Some(cut) = source.get(..end) {
            survives(cut);
        }
    }
}

#[test]
fn regular_expressions_are_bounded() {
    assert!(survives(r#""a".matches("(a+)+$")"#));
    assert!(survives(r#"device.matches("(a*)*(a*)*(a*)*b")"#));
    for pattern in
        ["(((((a{99}){99}){99}){99}){99})", "\\\\w{9999}", "(?i)[^x]{9999}", "(", "a{2,1}"]
    {
        assert!(!survives(&format!("device.matches(\"{pattern}\")")), "{pattern}");
    }
    assert!(!survives("[\"(a{1000}){1000}\"].exists(p, device.matches(p))"));
}

#[test]
fn comprehensions_are_bounded() {
    let nested = |depth: usize| {
        let open: String = (0..depth).map(|i| format!("[1,2,3].exists(x{i}, ")).collect();
        format!("{open}false{}", ")".repeat(depth))
    };
    assert!(survives(&nested(3)));
    assert!(!survives(&nested(4)));
    assert!(!survives(&nested(20)));
    let doubling = |times: usize| format!("size([device]{}) == 1", ".map(x, x + x)".repeat(times));
    assert!(survives(&doubling(2)));
    assert!(survives(&doubling(8)));
    for times in [20, 40, 90] {
        assert!(!survives(&doubling(times)), "{times}");
    }
    let ten = "[0,1,2,3,4,5,6,7,8,9]";
    let product = format!("{ten}.map(a, {ten}.map(b, {ten}.map(c, a + b + c))).size() == 10");
    survives(&product);
    let long = format!("[{}1]", "1,".repeat(3_000));
    assert!(!survives(&format!("{long}.all(a, {long}.all(b, a == b))")));
    let wide = format!("[{}1]", "1,".repeat(900));
    assert!(!survives(&format!("{wide}.all(a, {wide}.all(b, {wide}.all(c, a == b)))")));
}
