//! The checker: walks the syntax tree once, names every type error, and builds the compiled tree
//! as far as it can. A node without a compiled form is still checked; it makes the whole
//! expression an interpreted one.

mod functions;
mod kind;
mod membership;
mod operators;

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr};

use crate::declare::{Declared, Value};
use crate::error::ExprError;
use crate::limits::COMPREHENSION_DEPTH_MAX;
use crate::node::{Term, Test};
use crate::spelling::nearest;
use crate::syntax::Parsed;
pub(crate) use kind::Kind;

/// What identifiers stand for.
#[derive(Clone, Copy)]
pub(crate) enum Names<'n> {
    /// Declared attributes, and nothing else.
    Declared(&'n [Declared]),
    /// Fields of a record: any name, of any type.
    Record,
}

/// A checked expression.
pub(crate) struct Checked {
    kind: Kind,
    term: Option<Term>,
    /// The slots that it reads, ascending.
    pub(crate) slots: Box<[usize]>,
}

/// A checked node: its type, and its compiled form if it has one.
struct Typed {
    kind: Kind,
    term: Option<Term>,
}

/// Names of CEL's types, which are values of their own: `type(x) == int`.
const TYPE_NAMES: [&str; 10] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "uint"];

pub(crate) fn check(parsed: &Parsed, names: Names<'_>) -> Result<Checked, ExprError> {
    let mut checker =
        Checker { parsed, names, bound: Vec::new(), folds: 0, slots: BTreeSet::new() };
    let Typed { kind, term } = checker.lower(&parsed.tree)?;
    Ok(Checked { kind, term, slots: checker.slots.into_iter().collect() })
}

impl Checked {
    pub(crate) fn require_bool(&self, parsed: &Parsed) -> Result<(), ExprError> {
        match self.kind {
            Kind::Bool | Kind::Dyn => Ok(()),
            other => Err(self.unwanted(parsed, "a bool", other)),
        }
    }

    pub(crate) fn require_text(&self, parsed: &Parsed) -> Result<(), ExprError> {
        match self.kind {
            Kind::String | Kind::Int | Kind::Dyn => Ok(()),
            other => Err(self.unwanted(parsed, "a string or an int", other)),
        }
    }

    fn unwanted(&self, parsed: &Parsed, wanted: &str, kind: Kind) -> ExprError {
        let message = format!("the expression must give {wanted}, this gives {kind}");
        ExprError::at(parsed.position(&parsed.tree), message)
    }

    /// The compiled form; none if the expression has to be interpreted.
    pub(crate) fn take_term(&mut self) -> Option<Term> {
        self.term.take()
    }
}

impl Typed {
    fn new(kind: Kind, term: impl Into<Term>) -> Self {
        Typed { kind, term: Some(term.into()) }
    }

    /// A node that only the interpreter can evaluate.
    fn interpreted(kind: Kind) -> Self {
        Typed { kind, term: None }
    }
}

struct Checker<'c> {
    parsed: &'c Parsed,
    names: Names<'c>,
    /// Variables of the comprehensions around a node, innermost last.
    bound: Vec<(String, Kind)>,
    /// Comprehensions around a node.
    folds: usize,
    slots: BTreeSet<usize>,
}

impl Checker<'_> {
    fn lower(&mut self, node: &IdedExpr) -> Result<Typed, ExprError> {
        match &node.expr {
            Expr::Literal(literal) => Ok(lower_literal(literal)),
            Expr::Ident(name) => self.lower_identifier(node, name),
            Expr::Select(select) => self.lower_select(node, select),
            Expr::Call(call) => self.lower_call(node, call),
            Expr::List(list) => {
                for element in &list.elements {
                    self.lower(element)?;
                }
                Ok(Typed::interpreted(Kind::List))
            }
            Expr::Map(_) => {
                for part in crate::syntax::children(&node.expr) {
                    self.lower(part)?;
                }
                Ok(Typed::interpreted(Kind::Map))
            }
            Expr::Comprehension(fold) => self.lower_comprehension(node, fold),
            Expr::Struct(message) => Err(self.error(
                node,
                format!("there are no messages here: `{}{{...}}`", message.type_name),
            )),
            Expr::Unspecified => Err(self.error(node, "an operand is missing")),
        }
    }

    fn lower_identifier(&mut self, node: &IdedExpr, name: &str) -> Result<Typed, ExprError> {
        if let Some((_, kind)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Ok(Typed::interpreted(*kind));
        }
        let Names::Declared(declared) = self.names else {
            return Ok(Typed::interpreted(Kind::Dyn));
        };
        let plain = name.strip_prefix('.').unwrap_or(name);
        if let Some(slot) = declared.iter().position(|declared| declared.name == plain) {
            self.slots.insert(slot);
            return Ok(Typed::new(declared[slot].ty.into(), Term::Slot(slot)));
        }
        if TYPE_NAMES.contains(&plain) {
            return Ok(Typed::interpreted(Kind::Type));
        }
        Err(self.error(node, undeclared(plain, declared)))
    }

    fn lower_select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Result<Typed, ExprError> {
        let operand = self.lower(&select.operand)?;
        let result = if select.test { Kind::Bool } else { operand.kind.entry() };
        match (operand.kind, operand.term) {
            (Kind::StringMap, Some(map)) if select.test => {
                Ok(Typed::new(Kind::Bool, Test::Has { map, key: select.field.as_str().into() }))
            }
            (Kind::StringMap, Some(map)) => {
                let key = Term::Const(Value::String(select.field.clone().into()));
                Ok(Typed::new(Kind::String, Term::Entry(Box::new((map, key)))))
            }
            (Kind::StringMap | Kind::Map | Kind::Dyn, _) => Ok(Typed::interpreted(result)),
            (kind, _) => {
                let operand = describe(&select.operand, kind);
                Err(self.error(node, format!("{operand} has no field `{}`", select.field)))
            }
        }
    }

    fn lower_call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Typed, ExprError> {
        match self.lower_operator(node, call)? {
            Some(typed) => Ok(typed),
            None => self.lower_function(node, call),
        }
    }

    fn lower_comprehension(
        &mut self,
        node: &IdedExpr,
        fold: &ComprehensionExpr,
    ) -> Result<Typed, ExprError> {
        let range = self.lower(&fold.iter_range)?.kind;
        if !matches!(range, Kind::List | Kind::Map | Kind::StringMap | Kind::Dyn) {
            let range = describe(&fold.iter_range, range);
            return Err(self.error(node, format!("{range} has no elements: it is no list or map")));
        }
        if self.folds == COMPREHENSION_DEPTH_MAX {
            let message =
                format!("comprehensions nest deeper than {COMPREHENSION_DEPTH_MAX} levels");
            return Err(self.error(node, message));
        }
        let accumulated = self.lower(&fold.accu_init)?.kind;
        let depth = self.bound.len();
        self.folds += 1;
        self.bound.push((fold.iter_var.clone(), range.key()));
        self.bound.extend(fold.iter_var2.iter().map(|name| (name.clone(), Kind::Dyn)));
        self.bound.push((fold.accu_var.clone(), accumulated));
        self.lower(&fold.loop_cond)?;
        self.lower(&fold.loop_step)?;
        let result = self.lower(&fold.result)?.kind;
        self.bound.truncate(depth);
        self.folds -= 1;
        Ok(Typed::interpreted(result))
    }

    fn error(&self, node: &IdedExpr, message: impl Into<String>) -> ExprError {
        ExprError::at(self.parsed.position(node), message)
    }
}

/// Literals. A uint is kept as an int where it fits: nothing that is compiled can tell them apart.
fn lower_literal(literal: &LiteralValue) -> Typed {
    match literal {
        LiteralValue::Null => Typed::new(Kind::Null, Term::Const(Value::Null)),
        LiteralValue::Boolean(truth) => Typed::new(Kind::Bool, Test::Const(*truth.inner())),
        LiteralValue::Int(int) => Typed::new(Kind::Int, Term::Const(Value::Int(*int.inner()))),
        LiteralValue::Double(double) => {
            Typed::new(Kind::Double, Term::Const(Value::Double(*double.inner())))
        }
        LiteralValue::String(text) => {
            let text = text.inner().to_owned();
            Typed::new(Kind::String, Term::Const(Value::String(text.into())))
        }
        LiteralValue::UInt(uint) => Typed {
            kind: Kind::Uint,
            term: i64::try_from(*uint.inner()).ok().map(|int| Term::Const(Value::Int(int))),
        },
        LiteralValue::Bytes(_) => Typed::interpreted(Kind::Bytes),
    }
}

/// An operand for a message: with its name or its text if it has a short one, and its type.
fn describe(node: &IdedExpr, kind: Kind) -> String {
    match &node.expr {
        Expr::Ident(name) => format!("`{name}` ({kind})"),
        Expr::Literal(LiteralValue::String(text)) if text.inner().len() <= 40 => {
            format!("{:?} ({kind})", text.inner())
        }
        Expr::Literal(LiteralValue::Int(int)) => format!("{} ({kind})", int.inner()),
        Expr::Literal(LiteralValue::Double(double)) => format!("{} ({kind})", double.inner()),
        Expr::Select(select) => format!("`.{}` ({kind})", select.field),
        _ => format!("a value of type {kind}"),
    }
}

fn undeclared(name: &str, declared: &[Declared]) -> String {
    let known = || declared.iter().map(|declared| declared.name.as_str());
    let mut message = format!("`{name}` is not declared");
    if let Some(near) = nearest(name, known()) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    let listed: Vec<String> = known().take(30).map(|name| format!("`{name}`")).collect();
    match (listed.len(), declared.len()) {
        (0, _) => message.push_str("; no attribute is declared"),
        (shown, all) if shown < all => message.push_str(&format!(
            "; declared: {}, and {} more",
            listed.join(", "),
            all - shown
        )),
        _ => message.push_str(&format!("; declared: {}", listed.join(", "))),
    }
    message
}
