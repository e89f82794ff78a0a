//! Types and compiled forms of the operators.

use cel::common::ast::{CallExpr, IdedExpr, operators};

use super::{Checker, Kind, Typed, describe};
use crate::declare::Value;
use crate::error::ExprError;
use crate::node::{Arithmetic, Comparison, Term, Test};

impl Checker<'_> {
    /// Checks a call of an operator; none if it is one of a function.
    pub(super) fn lower_operator(
        &mut self,
        node: &IdedExpr,
        call: &CallExpr,
    ) -> Result<Option<Typed>, ExprError> {
        let typed = match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.lower_conditional(node, condition, yes, no)?
            }
            (operators::LOGICAL_AND, args) => self.lower_logic("&&", args)?,
            (operators::LOGICAL_OR, args) => self.lower_logic("||", args)?,
            (operators::LOGICAL_NOT, [operand]) => {
                let test = self.lower_test("!", operand)?;
                match test {
                    Some(test) => Typed::new(Kind::Bool, Test::Not(Box::new(test))),
                    None => Typed::interpreted(Kind::Bool),
                }
            }
            (operators::NOT_STRICTLY_FALSE, [operand]) => {
                self.lower(operand)?;
                Typed::interpreted(Kind::Bool)
            }
            (operators::NEGATE, [operand]) => self.lower_negation(node, operand)?,
            (operators::IN, [needle, haystack]) => self.lower_in(node, needle, haystack)?,
            (operators::INDEX, [operand, index]) => self.lower_index(node, operand, index)?,
            (name, [left, right]) => {
                if let Some((sign, comparison)) = comparison(name) {
                    self.lower_comparison(node, sign, comparison, left, right)?
                } else if let Some((sign, kind)) = arithmetic(name) {
                    self.lower_arithmetic(node, sign, kind, left, right)?
                } else {
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(typed))
    }

    fn lower_conditional(
        &mut self,
        node: &IdedExpr,
        condition: &IdedExpr,
        yes: &IdedExpr,
        no: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let test = self.lower_test("?:", condition)?;
        let (yes, no) = (self.lower(yes)?, self.lower(no)?);
        let kind = match (yes.kind, no.kind) {
            (left, right) if left == right => left,
            (Kind::Dyn, _) | (_, Kind::Dyn) => Kind::Dyn,
            (Kind::Null, other) | (other, Kind::Null) => other,
            (left, right) => {
                let message =
                    format!("the branches of `?:` give {left} and {right}: one type only");
                return Err(self.error(node, message));
            }
        };
        Ok(match (test, yes.term, no.term) {
            (Some(test), Some(yes), Some(no)) => {
                Typed::new(kind, Term::If(Box::new((test, yes, no))))
            }
            _ => Typed::interpreted(kind),
        })
    }

    fn lower_logic(&mut self, sign: &str, args: &[IdedExpr]) -> Result<Typed, ExprError> {
        let and = sign == "&&";
        let mut tests = Some(Vec::with_capacity(args.len()));
        for arg in args {
            let test = self.lower_test(sign, arg)?;
            match (&mut tests, test) {
                // Grouping is no part of the meaning: `(a && b) && c` absorbs errors alike.
                (Some(tests), Some(Test::All(inner))) if and => tests.extend(inner),
                (Some(tests), Some(Test::Any(inner))) if !and => tests.extend(inner),
                (Some(tests), Some(test)) => tests.push(test),
                (_, None) | (None, _) => tests = None,
            }
        }
        Ok(match tests {
            Some(tests) if and => Typed::new(Kind::Bool, Test::All(tests.into())),
            Some(tests) => Typed::new(Kind::Bool, Test::Any(tests.into())),
            None => Typed::interpreted(Kind::Bool),
        })
    }

    /// An operand that has to be a bool.
    fn lower_test(&mut self, sign: &str, node: &IdedExpr) -> Result<Option<Test>, ExprError> {
        let operand = self.lower(node)?;
        match operand.kind {
            Kind::Bool | Kind::Dyn => Ok(operand.term.map(Term::into_test)),
            kind => {
                let message = format!("`{sign}` needs a bool, {} is none", describe(node, kind));
                Err(self.error(node, message))
            }
        }
    }

    fn lower_negation(&mut self, node: &IdedExpr, arg: &IdedExpr) -> Result<Typed, ExprError> {
        let operand = self.lower(arg)?;
        match operand.kind {
            Kind::Int | Kind::Double => Ok(Typed {
                kind: operand.kind,
                term: operand.term.map(|term| Term::Negate(Box::new(term))),
            }),
            Kind::Dyn => Ok(Typed::interpreted(Kind::Dyn)),
            kind => {
                let message = format!("`-` needs a number, not {}", describe(arg, kind));
                Err(self.error(node, message))
            }
        }
    }

    fn lower_comparison(
        &mut self,
        node: &IdedExpr,
        sign: &str,
        comparison: Comparison,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let (one, other) = (self.lower(left)?, self.lower(right)?);
        let fits = if comparison.orders() {
            one.kind.orderable(other.kind)
        } else {
            one.kind.equatable(other.kind)
        };
        if !fits {
            let (left, right) = (describe(left, one.kind), describe(right, other.kind));
            return Err(self.error(node, format!("`{sign}` cannot compare {left} with {right}")));
        }
        let maps = matches!((one.kind, other.kind), (Kind::StringMap, Kind::StringMap));
        Ok(match (one.term, other.term) {
            (Some(left), Some(right)) if !maps => {
                Typed::new(Kind::Bool, self.compare(comparison, left, right))
            }
            _ => Typed::interpreted(Kind::Bool),
        })
    }

    /// The narrowest node for a comparison: a slot with a literal has its own.
    fn compare(&self, comparison: Comparison, left: Term, right: Term) -> Test {
        let (comparison, slot, literal) = match (&left, &right) {
            (Term::Slot(slot), Term::Const(literal)) => (comparison, *slot, literal),
            (Term::Const(literal), Term::Slot(slot)) => (comparison.flipped(), *slot, literal),
            _ => return Test::Compare(Box::new((comparison, left, right))),
        };
        let negated = comparison == Comparison::NotEqual;
        match (self.slot_kind(slot), literal) {
            (Kind::String, Value::String(text)) if !comparison.orders() => {
                Test::TextIs { slot, text: (**text).into(), negated }
            }
            (_, Value::Null) => Test::NullIs { slot, negated },
            (Kind::Int, Value::Int(bound)) => Test::IntIs { slot, comparison, bound: *bound },
            (Kind::Double, Value::Double(bound)) => {
                Test::DoubleIs { slot, comparison, bound: *bound }
            }
            (Kind::Double, Value::Int(bound)) => {
                Test::DoubleIs { slot, comparison, bound: *bound as f64 }
            }
            _ => Test::Compare(Box::new((comparison, Term::Slot(slot), literal.clone().into()))),
        }
    }

    fn lower_arithmetic(
        &mut self,
        node: &IdedExpr,
        sign: &str,
        kind: Arithmetic,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let (one, other) = (self.lower(left)?, self.lower(right)?);
        let result = match (one.kind, other.kind) {
            (Kind::Int, Kind::Int) => Kind::Int,
            (Kind::Uint, Kind::Uint) => return Ok(Typed::interpreted(Kind::Uint)),
            (Kind::Double, Kind::Double) if kind != Arithmetic::Remainder => Kind::Double,
            (Kind::String, Kind::String) if kind == Arithmetic::Add => {
                return Ok(concat(one.term, other.term));
            }
            (Kind::List | Kind::Bytes, same) if same == one.kind && kind == Arithmetic::Add => {
                return Ok(Typed::interpreted(one.kind));
            }
            (Kind::Dyn, _) | (_, Kind::Dyn) => return Ok(Typed::interpreted(Kind::Dyn)),
            (first, second) => {
                let hint = match (first, second) {
                    (Kind::Int, Kind::Double) | (Kind::Double, Kind::Int) => {
                        "; convert one with double() or int()"
                    }
                    (Kind::String, _) | (_, Kind::String) if kind == Arithmetic::Add => {
                        "; convert one with string()"
                    }
                    _ => "",
                };
                let (left, right) = (describe(left, first), describe(right, second));
                let message = format!("`{sign}` cannot combine {left} and {right}{hint}");
                return Err(self.error(node, message));
            }
        };
        Ok(match (one.term, other.term) {
            (Some(left), Some(right)) => {
                Typed::new(result, Term::Arithmetic(Box::new((kind, left, right))))
            }
            _ => Typed::interpreted(result),
        })
    }

    fn slot_kind(&self, slot: usize) -> Kind {
        match self.names {
            super::Names::Declared(declared) => declared[slot].ty.into(),
            super::Names::Record => Kind::Dyn,
        }
    }
}

/// Concatenation, flattened to one pass over all its parts.
fn concat(left: Option<Term>, right: Option<Term>) -> Typed {
    let (Some(left), Some(right)) = (left, right) else {
        return Typed::interpreted(Kind::String);
    };
    let mut parts = match left {
        Term::Concat(parts) => parts.into_vec(),
        other => vec![other],
    };
    parts.push(right);
    Typed::new(Kind::String, Term::Concat(parts.into()))
}

fn comparison(name: &str) -> Option<(&'static str, Comparison)> {
    Some(match name {
        operators::EQUALS => ("==", Comparison::Equal),
        operators::NOT_EQUALS => ("!=", Comparison::NotEqual),
        operators::LESS => ("<", Comparison::Less),
        operators::LESS_EQUALS => ("<=", Comparison::LessOrEqual),
        operators::GREATER => (">", Comparison::Greater),
        operators::GREATER_EQUALS => (">=", Comparison::GreaterOrEqual),
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<(&'static str, Arithmetic)> {
    Some(match name {
        operators::ADD => ("+", Arithmetic::Add),
        operators::SUBSTRACT => ("-", Arithmetic::Subtract),
        operators::MULTIPLY => ("*", Arithmetic::Multiply),
        operators::DIVIDE => ("/", Arithmetic::Divide),
        operators::MODULO => ("%", Arithmetic::Remainder),
        _ => return None,
    })
}

impl From<Value<'static>> for Term {
    fn from(value: Value<'static>) -> Self {
        Term::Const(value)
    }
}
