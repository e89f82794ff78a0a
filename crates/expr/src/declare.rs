//! What an expression may speak about: attributes with a name and a type, and the values that
//! stand in their slots for one event.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::ExprError;

/// The declared type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    String,
    /// A signed 64-bit integer.
    Int,
    /// A 64-bit float.
    Double,
    /// True or false.
    Bool,
    /// Text by text: the headers of a record.
    StringMap,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::String => "string",
            Type::Int => "int",
            Type::Double => "double",
            Type::Bool => "bool",
            Type::StringMap => "map(string, string)",
        })
    }
}

impl FromStr for Type {
    type Err = ExprError;

    /// Reads the types that a configuration may declare: `string`, `int`, `double` (or `float`)
    /// and `bool`. Header maps are declared by the program, never by name.
    fn from_str(name: &str) -> Result<Self, ExprError> {
        match name {
            "string" => Ok(Type::String),
            "int" => Ok(Type::Int),
            "double" | "float" => Ok(Type::Double),
            "bool" => Ok(Type::Bool),
            other => Err(ExprError::new(format!(
                "unknown type `{other}`; the types are string, int, double and bool"
            ))),
        }
    }
}

/// One attribute that expressions may use. Where a name is declared twice, the first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The identifier.
    pub name: String,
    /// Its type; a value in its slot is of this type or, if optional, null.
    pub ty: Type,
    /// Whether the attribute may be absent, and its slot null.
    pub optional: bool,
}

/// What a slot holds for one event: slot `i` belongs to the `i`-th declared attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// An optional attribute that is absent.
    Null,
    /// A string.
    String(Cow<'a, str>),
    /// An int.
    Int(i64),
    /// A double.
    Double(f64),
    /// A bool.
    Bool(bool),
    /// Headers in the order of the record. Of several with one name the last one counts.
    StringMap(&'a [(Cow<'a, str>, Cow<'a, str>)]),
}

impl Value<'_> {
    /// The same value, borrowed from this one: nothing is copied.
    pub(crate) fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Null => Value::Null,
            Value::String(text) => Value::String(Cow::Borrowed(text)),
            Value::Int(number) => Value::Int(*number),
            Value::Double(number) => Value::Double(*number),
            Value::Bool(truth) => Value::Bool(*truth),
            Value::StringMap(entries) => Value::StringMap(entries),
        }
    }
}
