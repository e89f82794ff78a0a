//! From a field as it stands to a value of the type that the mapping wants.

use super::TimeUnit;
use super::fields::Raw;
use marquee_expr::{Declared, Type, Value};
use marquee_model::{MAX_EVENT_TIME_MS, MAX_ID_BYTES};
use marquee_pipeline::prepare::DeadReason;
use std::borrow::Cow;

/// What a slot wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Path of the field, for messages.
    name: String,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Id,
    Time(TimeUnit),
    Attribute(Type, bool),
}

impl Wanted {
    pub(super) fn id(name: &str) -> Self {
        Wanted { name: name.to_owned(), what: What::Id }
    }

    pub(super) fn time(name: &str, unit: TimeUnit) -> Self {
        Wanted { name: name.to_owned(), what: What::Time(unit) }
    }

    pub(super) fn attribute(name: &str, declared: &Declared) -> Self {
        let what = What::Attribute(declared.ty, declared.optional);
        Wanted { name: name.to_owned(), what }
    }

    /// The typed value, or why it is none.
    pub(super) fn value<'a>(&self, raw: Raw<'a>) -> Result<Value<'a>, DeadReason> {
        match self.what {
            What::Id => self.id_value(raw),
            What::Time(unit) => self.time_value(raw, unit).map(Value::Int),
            What::Attribute(ty, optional) => self.attribute_value(raw, ty, optional),
        }
    }

    /// The value of a text; `None` if it is not plainly a good one.
    #[inline(always)]
    pub(super) fn text<'a>(&self, text: &'a str) -> Option<Value<'a>> {
        match self.what {
            What::Id => {
                (1..=MAX_ID_BYTES).contains(&text.len()).then_some(Value::String(text.into()))
            }
            What::Attribute(Type::String, _) => Some(Value::String(text.into())),
            _ => self.value(Raw::String(text.into())).ok(),
        }
    }

    /// The value of a whole number; `None` if it is not plainly a good one.
    #[inline(always)]
    pub(super) fn int<'a>(&self, number: i64) -> Option<Value<'a>> {
        match self.what {
            What::Time(TimeUnit::Milliseconds) => {
                (0..=MAX_EVENT_TIME_MS).contains(&number).then_some(Value::Int(number))
            }
            What::Attribute(Type::Int, _) => Some(Value::Int(number)),
            _ => self.value(Raw::Int(number)).ok(),
        }
    }

    /// The value of `true`, `false` or (`None`) `null`, if it is a good one.
    pub(super) fn word<'a>(&self, word: Option<bool>) -> Option<Value<'a>> {
        self.value(word.map_or(Raw::Null, Raw::Bool)).ok()
    }

    /// Whether an event without this field is good.
    pub(super) fn may_be_missing(&self) -> bool {
        matches!(self.what, What::Attribute(_, true))
    }

    fn id_value<'a>(&self, raw: Raw<'a>) -> Result<Value<'a>, DeadReason> {
        let text = match raw {
            Raw::String(text) => text,
            // A numeric id counts as its decimal text.
            Raw::Int(number) => Cow::Owned(number.to_string()),
            Raw::Large(number) => Cow::Owned(number.to_string()),
            other => return Err(self.wrong(&other, "a text or a whole number")),
        };
        match text.len() {
            1..=MAX_ID_BYTES => Ok(Value::String(text)),
            0 => Err(self.dead("is empty")),
            len => Err(self.dead(&format!("has {len} bytes; ids have at most {MAX_ID_BYTES}"))),
        }
    }

    fn time_value(&self, raw: Raw<'_>, unit: TimeUnit) -> Result<i64, DeadReason> {
        let ms = match (unit, &raw) {
            (TimeUnit::Milliseconds, Raw::Int(ms)) => Some(*ms),
            (TimeUnit::Microseconds, Raw::Int(us)) => Some(us.div_euclid(1000)),
            (TimeUnit::Seconds, Raw::Int(s)) => s.checked_mul(1000).or(Some(i64::MAX)),
            // A double holds every millisecond of the allowed range exactly enough: the error of
            // its product is far below half a millisecond, so rounding finds the written one.
            (TimeUnit::Seconds, Raw::Double(s)) => Some((s * 1e6).round().div_euclid(1e3) as i64),
            (TimeUnit::Rfc3339, Raw::String(text)) => {
                let time: Result<jiff::Timestamp, _> = text.parse();
                let time = time.map_err(|_| self.dead(&format!("is {text:?}, not RFC 3339")))?;
                Some(time.as_millisecond())
            }
            (_, Raw::Large(_)) => Some(i64::MAX),
            _ => None,
        };
        let expected = match unit {
            TimeUnit::Rfc3339 => "an RFC 3339 text",
            TimeUnit::Seconds => "a number of seconds",
            TimeUnit::Milliseconds => "a whole number of milliseconds",
            TimeUnit::Microseconds => "a whole number of microseconds",
        };
        match ms {
            None => Err(self.wrong(&raw, expected)),
            Some(ms) if ms < 0 => Err(self.dead("is before 1970")),
            Some(ms) if ms > MAX_EVENT_TIME_MS => {
                Err(self.dead("is after the year 9999; is time_unit right?"))
            }
            Some(ms) => Ok(ms),
        }
    }

    fn attribute_value<'a>(
        &self,
        raw: Raw<'a>,
        ty: Type,
        optional: bool,
    ) -> Result<Value<'a>, DeadReason> {
        match (ty, raw) {
            (Type::String, Raw::String(text)) => Ok(Value::String(text)),
            (Type::Int, Raw::Int(number)) => Ok(Value::Int(number)),
            (Type::Double, Raw::Double(number)) => Ok(Value::Double(number)),
            (Type::Double, Raw::Int(number)) => Ok(Value::Double(number as f64)),
            (Type::Double, Raw::Large(number)) => Ok(Value::Double(number as f64)),
            (Type::Bool, Raw::Bool(value)) => Ok(Value::Bool(value)),
            (_, Raw::Missing | Raw::Null) if optional => Ok(Value::Null),
            (ty, other) => Err(self.wrong(&other, &format!("the declared {ty}"))),
        }
    }

    #[cold]
    fn wrong(&self, found: &Raw<'_>, expected: &str) -> DeadReason {
        self.dead(&format!("is {}, not {expected}", found.kind()))
    }

    #[cold]
    fn dead(&self, what: &str) -> DeadReason {
        DeadReason::Malformed(format!("{} {what}", self.name))
    }
}
