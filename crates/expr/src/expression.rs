//! Expressions over declared attributes: predicates that filter events, and texts that a
//! transform or a slice takes from them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use cel::common::ast::IdedExpr;

use crate::check::{Checked, Names, check};
use crate::declare::{Declared, Value};
use crate::error::{EvalError, ExprError};
use crate::interpret::{Slots, bool_result, interpret, text_result};
use crate::node::{Term, Test};
use crate::syntax::Parsed;
use crate::{cost, syntax};

/// The attributes that expressions may use. Slot `i` of an evaluation belongs to the `i`-th.
#[derive(Clone, Debug)]
pub struct Environment {
    declared: Arc<[Declared]>,
}

impl Environment {
    /// An environment of these attributes, in the order of their slots.
    pub fn new(declared: Vec<Declared>) -> Self {
        Environment { declared: declared.into() }
    }

    /// The attributes in the order of their slots.
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// Compiles a filter.
    ///
    /// # Errors
    /// The source is no valid expression over these attributes, exceeds [`crate::limits`], or
    /// its result is not a bool.
    pub fn predicate(&self, source: &str) -> Result<Predicate, ExprError> {
        let parsed = syntax::parse(source)?;
        let mut checked = check(&parsed, Names::Declared(&self.declared))?;
        checked.require_bool(&parsed)?;
        let plan = match checked.take_term() {
            Some(term) => Plan::Compiled(term.into_test()),
            None => Plan::interpreted(parsed, &self.declared)?,
        };
        Ok(Predicate { compiled: Arc::new(Compiled::new(source, checked, plan)) })
    }

    /// Compiles a text: its result is a string, or an int that is written in decimal.
    ///
    /// # Errors
    /// As for [`Environment::predicate`], with another type of result.
    pub fn text(&self, source: &str) -> Result<TextExpr, ExprError> {
        let parsed = syntax::parse(source)?;
        let mut checked = check(&parsed, Names::Declared(&self.declared))?;
        checked.require_text(&parsed)?;
        let plan = match checked.take_term() {
            Some(term) => Plan::Compiled(term),
            None => Plan::interpreted(parsed, &self.declared)?,
        };
        Ok(TextExpr { compiled: Arc::new(Compiled::new(source, checked, plan)) })
    }
}

/// A filter over one event.
#[derive(Clone)]
pub struct Predicate {
    compiled: Arc<Compiled<Test>>,
}

impl Predicate {
    /// Whether the event passes.
    ///
    /// # Errors
    /// The expression has no value for this event: an operator met null, an integer overflowed, a
    /// key is absent, or the slots do not fit the declaration.
    pub fn eval(&self, slots: &[Value<'_>]) -> Result<bool, EvalError> {
        match &self.compiled.plan {
            Plan::Compiled(test) => test.eval(slots),
            Plan::Interpreted { tree, declared } => {
                interpret(tree, &Slots { declared, values: slots }, bool_result)
            }
        }
    }

    /// The slots that it reads, ascending.
    pub fn slots(&self) -> &[usize] {
        &self.compiled.slots
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// Whether it is interpreted, and so slower by a factor of ten and more.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.compiled.plan, Plan::Interpreted { .. })
    }
}

/// A text taken from one event.
#[derive(Clone)]
pub struct TextExpr {
    compiled: Arc<Compiled<Term>>,
}

impl TextExpr {
    /// The text for an event; borrowed from it where it is one of its own string attributes.
    ///
    /// # Errors
    /// As for [`Predicate::eval`]; a result that is null is one too.
    pub fn eval<'a>(&self, slots: &[Value<'a>]) -> Result<Cow<'a, str>, EvalError> {
        match &self.compiled.plan {
            Plan::Compiled(term) => term.result(slots),
            Plan::Interpreted { tree, declared } => {
                interpret(tree, &Slots { declared, values: slots }, text_result).map(Cow::Owned)
            }
        }
    }

    /// The slots that it reads, ascending.
    pub fn slots(&self) -> &[usize] {
        &self.compiled.slots
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.compiled.source
    }

    /// Whether it is interpreted, and so slower by a factor of ten and more.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.compiled.plan, Plan::Interpreted { .. })
    }
}

struct Compiled<T> {
    source: Box<str>,
    slots: Box<[usize]>,
    plan: Plan<T>,
}

impl<T> Compiled<T> {
    fn new(source: &str, checked: Checked, plan: Plan<T>) -> Self {
        Compiled { source: source.into(), slots: checked.slots, plan }
    }
}

enum Plan<T> {
    Compiled(T),
    Interpreted { tree: IdedExpr, declared: Arc<[Declared]> },
}

impl<T> Plan<T> {
    fn interpreted(parsed: Parsed, declared: &Arc<[Declared]>) -> Result<Self, ExprError> {
        cost::bound(&parsed.tree)?;
        Ok(Plan::Interpreted { tree: parsed.tree, declared: Arc::clone(declared) })
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Predicate").field(&self.source()).finish()
    }
}

impl fmt::Debug for TextExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TextExpr").field(&self.source()).finish()
    }
}
