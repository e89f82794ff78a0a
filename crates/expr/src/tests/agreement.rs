//! Generated expressions of the compiled shapes, over generated values: the compiled form and the
//! interpreter of the `cel` crate give the same value, or both an error.

use proptest::prelude::*;

use super::*;
use crate::interpret::{Slots, bool_result, interpret, text_result};
use crate::syntax;

const TEXTS: [&str; 9] = ["", "a", "tv", "US", "7", "-3", "1.5", "true", "ünï"];

fn text_literal() -> impl Strategy<Value = String> {
    prop::sample::select(&TEXTS[..]).prop_map(|text| format!("{text:?}"))
}

fn int_literal() -> impl Strategy<Value = String> {
    prop_oneof![
        (-4_i64..5).prop_map(|int| format!("({int})")),
        Just("9223372036854775807".to_owned()),
        Just("(-9223372036854775807 - 1)".to_owned()),
        Just("9007199254740993".to_owned()),
    ]
}

fn double_literal() -> impl Strategy<Value = String> {
    prop::sample::select(
        &["0.0", "(-0.0)", "1.5", "3.0", "-2.0", "1e300", "(0.0 / 0.0)", "9223372036854775808.0"][..],
    )
    .prop_map(str::to_owned)
}

/// Sources of every type, built from each other: bool, int, double, string.
#[derive(Clone)]
struct Sources {
    test: BoxedStrategy<String>,
    int: BoxedStrategy<String>,
    double: BoxedStrategy<String>,
    text: BoxedStrategy<String>,
}

fn leaves() -> Sources {
    let names =
        |names: &'static [&'static str]| prop::sample::select(names).prop_map(str::to_owned);
    Sources {
        test: names(&["true", "false", "kids", "has(headers.x)", "kids == null"]).boxed(),
        int: prop_oneof![int_literal(), names(&["duration_s", "row"])].boxed(),
        double: prop_oneof![double_literal(), names(&["score"])].boxed(),
        text: prop_oneof![text_literal(), names(&["device", "country", "headers.x"])].boxed(),
    }
}

fn grown(inner: &Sources) -> Sources {
    let Sources { test, int, double, text } = inner.clone();
    let pair = |left: &BoxedStrategy<String>,
                right: &BoxedStrategy<String>,
                signs: &'static [&'static str]| {
        (left.clone(), prop::sample::select(signs), right.clone())
            .prop_map(|(left, sign, right)| format!("({left} {sign} {right})"))
    };
    let choice = |of: &BoxedStrategy<String>| {
        (test.clone(), of.clone(), of.clone()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})"))
    };
    let list = |of: &BoxedStrategy<String>| {
        (of.clone(), prop::collection::vec(of.clone(), 0..9))
            .prop_map(|(needle, items)| format!("({needle} in [{}])", items.join(", ")))
    };
    const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
    let nulls = prop_oneof![test.clone(), int.clone(), double.clone(), text.clone()]
        .prop_map(|operand| format!("({operand} != null)"));
    let calls = (
        text.clone(),
        text.clone(),
        prop::sample::select(&["startsWith", "endsWith", "contains"][..]),
    )
        .prop_map(|(text, part, name)| format!("{text}.{name}({part})"));
    let patterns = prop::sample::select(&["^(tv|US)$", "^a", "t|7", "^[a-z]+$", "\\\\d"][..]);
    let matches = (text.clone(), patterns).prop_map(|(text, p)| format!("{text}.matches(\"{p}\")"));
    let convert = |name: &'static str, of: BoxedStrategy<String>| {
        of.prop_map(move |operand| format!("{name}({operand})"))
    };
    let any_number = prop_oneof![int.clone(), double.clone(), text.clone()].boxed();
    let any = prop_oneof![test.clone(), int.clone(), double.clone(), text.clone()].boxed();
    Sources {
        test: prop_oneof![
            4 => pair(&test, &test, &["&&", "||", "==", "!=", "<", ">="]),
            1 => test.clone().prop_map(|test| format!("!{test}")),
            2 => pair(&int, &int, COMPARISONS),
            2 => pair(&int, &double, COMPARISONS),
            1 => pair(&double, &int, COMPARISONS),
            1 => pair(&double, &double, COMPARISONS),
            2 => pair(&text, &text, COMPARISONS),
            1 => nulls, 1 => calls, 1 => matches,
            1 => list(&text), 1 => list(&int), 1 => list(&double), 1 => list(&test),
            1 => pair(&int, &double, &["=="]).prop_map(|test| format!("({test} in [true, null])")),
            1 => text.clone().prop_map(|key| format!("({key} in headers)")),
            1 => choice(&test),
            1 => convert("bool", prop_oneof![test.clone(), text.clone()].boxed()),
        ]
        .boxed(),
        int: prop_oneof![
            3 => pair(&int, &int, &["+", "-", "*", "/", "%"]),
            1 => int.clone().prop_map(|int| format!("(-{int})")),
            1 => choice(&int),
            1 => convert("size", prop_oneof![text.clone(), Just("headers".to_owned())].boxed()),
            1 => convert("int", any_number.clone()),
        ]
        .boxed(),
        double: prop_oneof![
            3 => pair(&double, &double, &["+", "-", "*", "/"]),
            1 => double.clone().prop_map(|double| format!("(-{double})")),
            1 => choice(&double),
            1 => convert("double", any_number),
        ]
        .boxed(),
        text: prop_oneof![
            2 => pair(&text, &text, &["+"]),
            1 => choice(&text),
            1 => convert("string", any),
            1 => text.clone().prop_map(|key| format!("headers[{key}]")),
        ]
        .boxed(),
    }
}

fn mixed(depth: usize) -> Sources {
    if depth == 0 {
        return leaves();
    }
    let inner = mixed(depth - 1);
    let outer = grown(&inner);
    let mix = |outer: BoxedStrategy<String>, inner: BoxedStrategy<String>| {
        prop_oneof![3 => outer, 1 => inner].boxed()
    };
    Sources {
        test: mix(outer.test, inner.test),
        int: mix(outer.int, inner.int),
        double: mix(outer.double, inner.double),
        text: mix(outer.text, inner.text),
    }
}

fn slots() -> impl Strategy<Value = Vec<Value<'static>>> {
    let text = prop::sample::select(&TEXTS[..]).prop_map(|text| Value::String(text.into()));
    let int = prop_oneof![-4_i64..5, Just(i64::MAX), Just(i64::MIN)].prop_map(Value::Int);
    let double = prop_oneof![Just(0.5), Just(3.0), Just(f64::NAN), Just(f64::INFINITY), -2.0..2.0]
        .prop_map(Value::Double);
    let headers = prop::sample::select(vec![&HEADERS[..], &HEADERS[..1], &[]]);
    let or_null =
        |value: BoxedStrategy<Value<'static>>| prop_oneof![3 => value, 1 => Just(Value::Null)];
    (
        text.clone(),
        or_null(text.boxed()),
        int.clone(),
        or_null(int.boxed()),
        or_null(double.boxed()),
        or_null(any::<bool>().prop_map(Value::Bool).boxed()),
        or_null(headers.prop_map(Value::StringMap).boxed()),
    )
        .prop_map(|(a, b, c, d, e, f, g)| vec![a, b, c, d, e, f, g])
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn predicates_agree_with_the_interpreter(
        source in mixed(3).test,
        events in prop::collection::vec(slots(), 8),
    ) {
        let environment = environment();
        let predicate = environment.predicate(&source).expect("a well-typed expression");
        prop_assert!(!predicate.is_interpreted(), "{source}");
        let tree = syntax::parse(&source).expect("it was parsed before").tree;
        for values in &events {
            let variables = Slots { declared: environment.declared(), values };
            let expected = interpret(&tree, &variables, bool_result);
            let found = predicate.eval(values);
            prop_assert_eq!(found.clone().ok(), expected.clone().ok(),
                "{} over {:?}: {:?}, interpreted {:?}", source, values, found, expected);
        }
    }

    #[test]
    fn texts_agree_with_the_interpreter(
        source in prop_oneof![mixed(3).text, mixed(3).int],
        events in prop::collection::vec(slots(), 8),
    ) {
        let environment = environment();
        let text = environment.text(&source).expect("a well-typed expression");
        prop_assert!(!text.is_interpreted(), "{source}");
        let tree = syntax::parse(&source).expect("it was parsed before").tree;
        for values in &events {
            let variables = Slots { declared: environment.declared(), values };
            let expected = interpret(&tree, &variables, text_result);
            let found = text.eval(values).map(Cow::into_owned);
            prop_assert_eq!(found.clone().ok(), expected.clone().ok(),
                "{} over {:?}: {:?}, interpreted {:?}", source, values, found, expected);
        }
    }

    #[test]
    fn no_source_panics(source in r#"[a-z0-9 ()\[\]{}.,:?!&|=<>+*/%'"\\-]{0,60}"#) {
        drop(environment().predicate(&source).map(|predicate| predicate.eval(&full())));
    }
}
