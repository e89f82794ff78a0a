//! Configurations that want to hang, overflow or mislead the program: refused before anything
//! starts, with file and line, within seconds.

use marquee_e2e::data::Data;
use marquee_e2e::program::run;

/// Expressions that must be refused.
fn refused() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}true{}", open.repeat(depth), close.repeat(depth))
    };
    vec![
        ("unfinished", "device ==".into()),
        ("unknown name", "nosuch == 1".into()),
        ("unknown function", "device.launch()".into()),
        ("types that never meet", "device == 3".into()),
        ("no bool", "device".into()),
        ("no expression", "device; true".into()),
        ("two expressions", "true true".into()),
        ("open text", "device == \"tv".into()),
        ("NUL", "device == \\u0000".into()),
        ("a million parentheses", nested("(", ")", 1_000_000)),
        ("10,000 parentheses", nested("(", ")", 10_000)),
        ("parentheses that stay open", "(".repeat(10_000)),
        ("100,000 negations", nested("!", "", 100_000)),
        ("100,000 conditions", nested("true ? ", " : false", 100_000)),
        ("10,000 lists", format!("device in {}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ("100,000 terms", format!("true{}", " && device != \"x\"".repeat(100_000))),
        ("1 MB of text", format!("device == '{}", "x".repeat(1 << 20))),
        ("a number too large", "duration == 99999999999999999999".into()),
        ("loops in loops", {
            let list = format!("[{}]", vec!["1"; 100].join(","));
            let open: String = ('a'..='h').map(|v| format!("{list}.all({v}, ")).collect();
            format!("{open}true{}", ")".repeat(8))
        }),
        ("a pattern that is none", "device.matches('(')".into()),
        ("a pattern that explodes", "device.matches('((a{1,1000}){1,1000}){1,1000}')".into()),
    ]
}

#[test]
fn hostile_expressions_are_refused_with_file_and_line_within_seconds() {
    let data = Data::of("", "");
    for section in ["impressions", "plays"] {
        for (name, expression) in refused() {
            let literal = serde_json::to_string(&expression).expect("a text");
            let text = format!(
                "[{section}]\nattributes = {{ device = \"string?\", duration = \"int?\" }}\n\
                 filter = {literal}\n"
            );
            let config = data.write("hostile.toml", text);
            let out = data.file("cells.csv");
            let finished = run(data.backfill(&config).arg("--out").arg(&out));
            assert_eq!(finished.code, Some(2), "{name}: {:.300}", finished.stderr);
            let place = format!("{}:", config.display());
            assert!(finished.stderr.contains(&place), "{name}: {:.300}", finished.stderr);
            let line = format!("{}:3: {section}.filter", config.display());
            let is_too_large = finished.stderr.contains("MiB") || finished.stderr.contains("bytes");
            assert!(
                finished.stderr.contains(&line) || is_too_large,
                "{name}: {:.300}",
                finished.stderr
            );
            assert!(finished.seconds < 5.0, "{name} took {} seconds", finished.seconds);
            assert!(finished.stderr.len() < 10_000, "{name}: {} bytes said", finished.stderr.len());
            assert!(!out.exists(), "{name}: something was started");
        }
    }
}

/// An expression may fail on single events: they are dead letters, and the rest counts.
#[test]
fn an_expression_that_fails_on_an_event_makes_it_a_dead_letter() {
    let line = |request: &str, duration: &str| {
        format!("{{\"request_id\":\"{request}\",\"video_id\":\"v\",\"ts\":1{duration}}}\n")
    };
    let (zero, none, good) = (line("a", ",\"d\":0"), line("b", ""), line("c", ",\"d\":2"));
    let data = Data::of(zero + &none + &good, "");
    let text = "[impressions]\nattributes = { d = \"int?\" }\nfilter = '10 / d > 1'\n";
    let config = data.write("divides.toml", text);
    let finished = run(data.backfill(&config).arg("--out").arg(data.file("cells.csv")));
    let finished = finished.expect_code(0);
    assert_eq!((finished.number("events"), finished.number("dead")), (3, 2), "{}", finished.stderr);
}

/// The worst pattern of a backtracking matcher, against the worst text.
#[test]
fn patterns_do_not_backtrack() {
    let line =
        format!("{{\"request_id\":\"r\",\"video_id\":\"{}!\",\"ts\":1}}\n", "a".repeat(1000));
    let data = Data::of(line.repeat(100), "");
    let config =
        data.write("pattern.toml", "[impressions]\nfilter = 'video.matches(\"^(a+)+$\")'\n");
    let finished = run(data.backfill(&config).arg("--out").arg(data.file("cells.csv")));
    let finished = finished.expect_code(0);
    assert_eq!(finished.number("filtered"), 100);
    assert!(finished.seconds < 5.0, "{} seconds", finished.seconds);
}
