//! The compiled form: a tree of tests (bool) and terms (any value), with the common shapes of a
//! filter as nodes of their own. It is built by the checker, so the types of operands are known
//! to fit; what remains to be found out for an event is whether something is null.

use crate::declare::Value;
use crate::pattern::Pattern;
use crate::sets::TextSet;

/// A node whose value is a bool.
#[derive(Debug)]
pub(crate) enum Test {
    Const(bool),
    /// A bool term; null is an error.
    Truth(Term),
    Not(Box<Test>),
    /// `&&` of all, flattened: false wins over an error.
    All(Box<[Test]>),
    /// `||` of all, flattened: true wins over an error.
    Any(Box<[Test]>),
    /// A string slot against a literal: `device != "console"`.
    TextIs {
        slot: usize,
        text: Box<str>,
        negated: bool,
    },
    /// A slot against null.
    NullIs {
        slot: usize,
        negated: bool,
    },
    /// An int slot against a literal: `duration_s >= 60`.
    IntIs {
        slot: usize,
        comparison: Comparison,
        bound: i64,
    },
    /// A double slot against a literal of either number type.
    DoubleIs {
        slot: usize,
        comparison: Comparison,
        bound: f64,
    },
    Compare(Box<(Comparison, Term, Term)>),
    InTexts {
        needle: Term,
        set: TextSet,
    },
    /// Sorted, for a needle that is an int or null.
    InInts {
        needle: Term,
        sorted: Box<[i64]>,
    },
    InTerms {
        needle: Term,
        items: Box<[Term]>,
    },
    InMap(Box<(Term, Term)>),
    /// `has(map.key)`.
    Has {
        map: Term,
        key: Box<str>,
    },
    Text(Box<(TextTest, Term, Term)>),
    Matches {
        text: Term,
        pattern: Box<Pattern>,
    },
}

/// A node of any type.
#[derive(Debug)]
pub(crate) enum Term {
    Const(Value<'static>),
    Slot(usize),
    Test(Box<Test>),
    If(Box<(Test, Term, Term)>),
    Arithmetic(Box<(Arithmetic, Term, Term)>),
    Negate(Box<Term>),
    Concat(Box<[Term]>),
    Size(Box<Term>),
    Entry(Box<(Term, Term)>),
    Convert(Conversion, Box<Term>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    String,
    Int,
    Double,
    Bool,
}

impl Comparison {
    /// The comparison with its sides exchanged.
    pub(crate) fn flipped(self) -> Self {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }

    /// Whether this orders its sides, rather than asking whether they are equal.
    pub(crate) fn orders(self) -> bool {
        !matches!(self, Comparison::Equal | Comparison::NotEqual)
    }
}

impl Term {
    /// This term as a condition.
    pub(crate) fn into_test(self) -> Test {
        match self {
            Term::Test(test) => *test,
            Term::Const(Value::Bool(truth)) => Test::Const(truth),
            other => Test::Truth(other),
        }
    }
}

impl From<Test> for Term {
    fn from(test: Test) -> Self {
        match test {
            Test::Const(truth) => Term::Const(Value::Bool(truth)),
            Test::Truth(term) => term,
            other => Term::Test(Box::new(other)),
        }
    }
}
