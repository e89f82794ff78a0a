//! Evaluation of the compiled tree over the slots of one event. Nothing is allocated except by
//! concatenation, conversions to string, `size()` of headers and regular expressions.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::declare::Value;
use crate::error::{
    EvalError, NO_CONVERSION, NO_ORDER, NO_SLOT, NO_SUCH_KEY, NULL_OPERAND, NULL_RESULT, OVERFLOW,
    WRONG_TYPE, ZERO_DIVISOR,
};
use crate::node::{Arithmetic, Comparison, Conversion, Term, Test, TextTest};

type Outcome<T> = Result<T, EvalError>;

impl Test {
    pub(crate) fn eval(&self, slots: &[Value<'_>]) -> Outcome<bool> {
        match self {
            Test::TextIs { slot, text, negated } => match slots.get(*slot) {
                Some(Value::String(value)) => Ok((**value == **text) != *negated),
                Some(Value::Null) => Ok(*negated),
                other => Err(misfit(other)),
            },
            Test::IntIs { slot, comparison, bound } => match slots.get(*slot) {
                Some(Value::Int(value)) => Ok(holds(*comparison, value.cmp(bound))),
                other => absent(*comparison, other),
            },
            Test::DoubleIs { slot, comparison, bound } => match slots.get(*slot) {
                Some(Value::Double(value)) => double_holds(*comparison, *value, *bound),
                other => absent(*comparison, other),
            },
            Test::NullIs { slot, negated } => match slots.get(*slot) {
                Some(value) => Ok(matches!(value, Value::Null) != *negated),
                None => Err(NO_SLOT),
            },
            Test::All(tests) => absorb(tests, slots, false),
            Test::Any(tests) => absorb(tests, slots, true),
            Test::Not(test) => Ok(!test.eval(slots)?),
            Test::Const(truth) => Ok(*truth),
            Test::Truth(term) => truth(term.eval(slots)?),
            Test::Compare(parts) => {
                let (comparison, left, right) = &**parts;
                compare(*comparison, &left.eval(slots)?, &right.eval(slots)?)
            }
            Test::Text(parts) => {
                let (test, text, part) = &**parts;
                let (text, part) = (text.text(slots)?, part.text(slots)?);
                Ok(match test {
                    TextTest::StartsWith => text.starts_with(&*part),
                    TextTest::EndsWith => text.ends_with(&*part),
                    TextTest::Contains => text.contains(&*part),
                })
            }
            Test::Matches { text, pattern } => pattern.is_match(&text.text(slots)?),
            rest => rest.eval_membership(slots),
        }
    }

    fn eval_membership(&self, slots: &[Value<'_>]) -> Outcome<bool> {
        match self {
            Test::InTexts { needle: Term::Slot(slot), set } => match slots.get(*slot) {
                Some(Value::String(text)) => Ok(set.contains(text)),
                Some(Value::Null) => Ok(false),
                other => Err(misfit(other)),
            },
            Test::InTexts { needle, set } => match needle.eval(slots)? {
                Value::String(text) => Ok(set.contains(&text)),
                Value::Null => Ok(false),
                other => Err(misfit(Some(&other))),
            },
            Test::InInts { needle, sorted } => match needle.eval(slots)? {
                Value::Int(number) => Ok(sorted.binary_search(&number).is_ok()),
                Value::Null => Ok(false),
                other => Err(misfit(Some(&other))),
            },
            Test::InTerms { needle, items } => {
                let needle = needle.eval(slots)?;
                let mut found = false;
                // An error in a later item is an error of the whole, as in CEL.
                for item in items {
                    found |= equal(&needle, &item.eval(slots)?);
                }
                Ok(found)
            }
            Test::InMap(parts) => {
                let (key, map) = (parts.0.text(slots)?, &parts.1);
                Ok(map.entry(slots, &key)?.is_some())
            }
            Test::Has { map, key } => Ok(map.entry(slots, key)?.is_some()),
            _ => Err(WRONG_TYPE),
        }
    }
}

impl Term {
    pub(crate) fn eval<'s>(&'s self, slots: &'s [Value<'s>]) -> Outcome<Value<'s>> {
        match self {
            Term::Const(value) => Ok(value.borrowed()),
            Term::Slot(slot) => slots.get(*slot).map(Value::borrowed).ok_or(NO_SLOT),
            Term::Test(test) => test.eval(slots).map(Value::Bool),
            Term::If(parts) => {
                if parts.0.eval(slots)? {
                    parts.1.eval(slots)
                } else {
                    parts.2.eval(slots)
                }
            }
            Term::Arithmetic(parts) => {
                arithmetic(parts.0, parts.1.eval(slots)?, parts.2.eval(slots)?)
            }
            Term::Negate(term) => match term.eval(slots)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(OVERFLOW),
                Value::Double(number) => Ok(Value::Double(-number)),
                other => Err(misfit(Some(&other))),
            },
            Term::Concat(terms) => {
                let mut whole = String::new();
                for term in terms {
                    whole.push_str(&term.text(slots)?);
                }
                Ok(Value::String(Cow::Owned(whole)))
            }
            Term::Size(term) => size(&term.eval(slots)?),
            Term::Entry(parts) => {
                let (map, key) = (parts.0.eval(slots)?, parts.1.text(slots)?);
                entry(&map, &key)?.map(|text| Value::String(Cow::Borrowed(text))).ok_or(NO_SUCH_KEY)
            }
            Term::Convert(conversion, term) => convert(*conversion, term.eval(slots)?),
        }
    }

    fn text<'s>(&'s self, slots: &'s [Value<'s>]) -> Outcome<Cow<'s, str>> {
        // The first two are most of all texts; as values they would be moved twice.
        match self {
            Term::Slot(slot) => match slots.get(*slot) {
                Some(Value::String(text)) => Ok(Cow::Borrowed(text)),
                other => Err(misfit(other)),
            },
            Term::Const(Value::String(text)) => Ok(Cow::Borrowed(text)),
            other => match other.eval(slots)? {
                Value::String(text) => Ok(text),
                other => Err(misfit(Some(&other))),
            },
        }
    }

    /// The value of a header map under a key, if it has one.
    fn entry<'s>(&'s self, slots: &'s [Value<'s>], key: &str) -> Outcome<Option<&'s str>> {
        match self {
            Term::Slot(slot) => slots.get(*slot).map_or(Err(NO_SLOT), |map| entry(map, key)),
            other => entry(&other.eval(slots)?, key),
        }
    }

    /// The result of a whole text expression, borrowed from the event wherever it is one of its
    /// values.
    pub(crate) fn result<'a>(&self, slots: &[Value<'a>]) -> Outcome<Cow<'a, str>> {
        match self {
            Term::Slot(slot) => match slots.get(*slot).ok_or(NO_SLOT)? {
                Value::String(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text)),
                other => written(other.borrowed()).map(|text| Cow::Owned(text.into_owned())),
            },
            Term::If(parts) if parts.0.eval(slots)? => parts.1.result(slots),
            Term::If(parts) => parts.2.result(slots),
            other => written(other.eval(slots)?).map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// A result as text: a string itself, an int as its decimal digits.
pub(crate) fn written(value: Value<'_>) -> Outcome<Cow<'_, str>> {
    match value {
        Value::String(text) => Ok(text),
        Value::Int(number) => Ok(Cow::Owned(number.to_string())),
        Value::Null => Err(NULL_RESULT),
        _ => Err(EvalError::new("the result is neither string nor int")),
    }
}

/// `&&` (decided by false) or `||` (decided by true): the deciding value wins over errors.
fn absorb(tests: &[Test], slots: &[Value<'_>], deciding: bool) -> Outcome<bool> {
    let mut failure = None;
    for test in tests {
        match test.eval(slots) {
            Ok(truth) if truth == deciding => return Ok(deciding),
            Ok(_) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(!deciding), Err)
}

/// The error for a value that is not of the type that an operator works on.
fn misfit(value: Option<&Value<'_>>) -> EvalError {
    match value {
        Some(Value::Null) => NULL_OPERAND,
        Some(_) => WRONG_TYPE,
        None => NO_SLOT,
    }
}

/// A comparison with a number where the slot holds none.
fn absent(comparison: Comparison, value: Option<&Value<'_>>) -> Outcome<bool> {
    match (value, comparison) {
        (Some(Value::Null), Comparison::Equal) => Ok(false),
        (Some(Value::Null), Comparison::NotEqual) => Ok(true),
        (other, _) => Err(misfit(other)),
    }
}

fn truth(value: Value<'_>) -> Outcome<bool> {
    match value {
        Value::Bool(truth) => Ok(truth),
        other => Err(misfit(Some(&other))),
    }
}

fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> Outcome<bool> {
    match comparison {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        _ => Ok(holds(comparison, order(left, right)?)),
    }
}

fn holds(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

fn double_holds(comparison: Comparison, left: f64, right: f64) -> Outcome<bool> {
    match (left.partial_cmp(&right), comparison) {
        (Some(order), _) => Ok(holds(comparison, order)),
        (None, Comparison::Equal) => Ok(false),
        (None, Comparison::NotEqual) => Ok(true),
        (None, _) => Err(NO_ORDER),
    }
}

// An int meets a double as a double, as in CEL: precision beyond 2^53 is lost.
fn equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Int(int), Value::Double(double)) | (Value::Double(double), Value::Int(int)) => {
            *int as f64 == *double
        }
        (Value::Double(left), Value::Double(right)) => left == right,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Null, Value::Null) => true,
        _ => false,
    }
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Outcome<Ordering> {
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Double(right)) => (*left as f64).partial_cmp(right),
        (Value::Double(left), Value::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, _) | (_, Value::Null) => return Err(NULL_OPERAND),
        _ => return Err(WRONG_TYPE),
    };
    order.ok_or(NO_ORDER)
}

fn arithmetic<'s>(kind: Arithmetic, left: Value<'s>, right: Value<'s>) -> Outcome<Value<'s>> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            let divides = matches!(kind, Arithmetic::Divide | Arithmetic::Remainder);
            if divides && right == 0 {
                return Err(ZERO_DIVISOR);
            }
            let result = match kind {
                Arithmetic::Add => left.checked_add(right),
                Arithmetic::Subtract => left.checked_sub(right),
                Arithmetic::Multiply => left.checked_mul(right),
                Arithmetic::Divide => left.checked_div(right),
                Arithmetic::Remainder => left.checked_rem(right),
            };
            result.map(Value::Int).ok_or(OVERFLOW)
        }
        (Value::Double(left), Value::Double(right)) => match kind {
            Arithmetic::Add => Ok(Value::Double(left + right)),
            Arithmetic::Subtract => Ok(Value::Double(left - right)),
            Arithmetic::Multiply => Ok(Value::Double(left * right)),
            Arithmetic::Divide => Ok(Value::Double(left / right)),
            Arithmetic::Remainder => Err(WRONG_TYPE),
        },
        (Value::Null, _) | (_, Value::Null) => Err(NULL_OPERAND),
        _ => Err(WRONG_TYPE),
    }
}

/// Characters of a string, distinct keys of a map.
fn size<'s>(value: &Value<'s>) -> Outcome<Value<'s>> {
    let count = match value {
        Value::String(text) => text.chars().count(),
        Value::StringMap(entries) => {
            let mut keys: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
            keys.sort_unstable();
            keys.dedup();
            keys.len()
        }
        other => return Err(misfit(Some(other))),
    };
    i64::try_from(count).map(Value::Int).map_err(|_| OVERFLOW)
}

fn entry<'s>(map: &Value<'s>, key: &str) -> Outcome<Option<&'s str>> {
    match map {
        Value::StringMap(entries) => {
            Ok(entries.iter().rev().find(|(name, _)| *name == key).map(|(_, text)| &**text))
        }
        other => Err(misfit(Some(other))),
    }
}

fn convert(conversion: Conversion, value: Value<'_>) -> Outcome<Value<'_>> {
    match (conversion, value) {
        (_, Value::Null) => Err(NULL_OPERAND),
        (Conversion::String, Value::String(text)) => Ok(Value::String(text)),
        (Conversion::String, Value::Int(number)) => Ok(Value::String(number.to_string().into())),
        (Conversion::String, Value::Double(number)) => Ok(Value::String(number.to_string().into())),
        (Conversion::String, Value::Bool(truth)) => Ok(Value::String(truth.to_string().into())),
        (Conversion::Int, Value::Int(number)) => Ok(Value::Int(number)),
        // Both bounds are excluded, and NaN with them: the spec's range for this conversion.
        (Conversion::Int, Value::Double(number)) => {
            let fits = number > i64::MIN as f64 && number < i64::MAX as f64;
            if fits { Ok(Value::Int(number as i64)) } else { Err(OVERFLOW) }
        }
        (Conversion::Int, Value::String(text)) => {
            text.parse().map(Value::Int).map_err(|_| NO_CONVERSION)
        }
        (Conversion::Double, Value::Double(number)) => Ok(Value::Double(number)),
        (Conversion::Double, Value::Int(number)) => Ok(Value::Double(number as f64)),
        (Conversion::Double, Value::String(text)) => {
            text.parse().map(Value::Double).map_err(|_| NO_CONVERSION)
        }
        (Conversion::Bool, Value::Bool(truth)) => Ok(Value::Bool(truth)),
        (Conversion::Bool, Value::String(text)) => match &*text {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(NO_CONVERSION),
        },
        _ => Err(WRONG_TYPE),
    }
}
