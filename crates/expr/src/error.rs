//! The two ways to fail: an expression that cannot be used at all, and an event that it cannot be
//! evaluated for.

use std::borrow::Cow;
use std::fmt;

/// Where in the source an error is, counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Position {
    /// The position of a byte of the source.
    pub(crate) fn of(source: &str, offset: usize) -> Self {
        let before = source.as_bytes().get(..offset).unwrap_or(source.as_bytes());
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        // A byte that continues a character starts no column of its own.
        let columns = before[line_start..].iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        Position { line: count(lines), column: count(columns) }
    }
}

fn count(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX - 1) + 1
}

/// Why a source is not an expression that can be used. The fault is the configuration's: nothing
/// is gained by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ExprError {
    /// Where, if the parser knows.
    pub position: Option<Position>,
    /// What is wrong and, where there is one, the remedy.
    pub message: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl ExprError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ExprError { position: None, message: message.into() }
    }

    pub(crate) fn at(position: Option<Position>, message: impl Into<String>) -> Self {
        ExprError { position, message: message.into() }
    }
}

/// Why an expression has no value for one event: the event is a dead letter with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EvalError {
    /// A short text. It costs nothing to make where the reason is a known one.
    pub reason: Cow<'static, str>,
}

impl EvalError {
    pub(crate) const fn new(reason: &'static str) -> Self {
        EvalError { reason: Cow::Borrowed(reason) }
    }

    pub(crate) fn owned(reason: String) -> Self {
        EvalError { reason: Cow::Owned(reason) }
    }
}

pub(crate) const NULL_OPERAND: EvalError = EvalError::new("operator or function on null");
pub(crate) const NULL_RESULT: EvalError = EvalError::new("the result is null");
pub(crate) const WRONG_TYPE: EvalError =
    EvalError::new("a value has another type than its attribute declares");
pub(crate) const NO_SLOT: EvalError = EvalError::new("too few slots for the declared attributes");
pub(crate) const OVERFLOW: EvalError = EvalError::new("integer overflow");
pub(crate) const ZERO_DIVISOR: EvalError = EvalError::new("division by zero");
pub(crate) const NO_ORDER: EvalError = EvalError::new("NaN has no order");
pub(crate) const NO_SUCH_KEY: EvalError = EvalError::new("no such key");
pub(crate) const NO_CONVERSION: EvalError = EvalError::new("the text is not of the type asked for");
