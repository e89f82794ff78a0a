//! The types that the checker tells apart: the declared ones, and those of intermediate values.

use std::fmt;

use crate::declare::Type;

/// The type of a node. Whether it may be null is not part of it: that is found at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    List,
    Map,
    StringMap,
    Type,
    /// Not known before there is a value.
    Dyn,
}

impl Kind {
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Uint | Kind::Double)
    }

    /// Whether values of the two kinds can be equal at all.
    pub(crate) fn equatable(self, other: Kind) -> bool {
        self == other
            || [self, other].iter().any(|kind| matches!(kind, Kind::Null | Kind::Dyn))
            || (self.is_number() && other.is_number())
            || matches!((self, other), (Kind::Map, Kind::StringMap) | (Kind::StringMap, Kind::Map))
    }

    /// Whether values of the two kinds have an order.
    pub(crate) fn orderable(self, other: Kind) -> bool {
        let unordered = |kind| {
            matches!(kind, Kind::Null | Kind::List | Kind::Map | Kind::StringMap | Kind::Type)
        };
        self.equatable(other) && !unordered(self) && !unordered(other)
    }

    /// The kind of the values of a map.
    pub(crate) fn entry(self) -> Kind {
        if self == Kind::StringMap { Kind::String } else { Kind::Dyn }
    }

    /// The kind of what a comprehension goes over.
    pub(crate) fn key(self) -> Kind {
        if self == Kind::StringMap { Kind::String } else { Kind::Dyn }
    }
}

impl From<Type> for Kind {
    fn from(ty: Type) -> Self {
        match ty {
            Type::String => Kind::String,
            Type::Int => Kind::Int,
            Type::Double => Kind::Double,
            Type::Bool => Kind::Bool,
            Type::StringMap => Kind::StringMap,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Map => "map",
            Kind::StringMap => "map(string, string)",
            Kind::Type => "type",
            Kind::Dyn => "unknown",
        })
    }
}
