//! An upper estimate of what one interpreted evaluation may cost: comprehensions can nest, and can
//! double a value at every step, so a short source could otherwise run for hours on one event.

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::error::ExprError;
use crate::limits::COST_MAX;
use crate::syntax::children;

/// The elements, or sixteens of bytes, that an attribute is assumed to have.
const INPUT_WEIGHT: u64 = 64;

/// What evaluating a node costs, and how large its value is.
#[derive(Clone, Copy)]
struct Estimate {
    cost: u64,
    size: Size,
}

/// How large a value is, at most.
#[derive(Clone, Copy)]
struct Size {
    /// Elements at all levels, plus sixteens of bytes.
    weight: u64,
    /// Elements that a comprehension over it visits.
    count: u64,
}

impl Size {
    const SCALAR: Size = Size { weight: 1, count: 1 };

    fn of_text(bytes: usize) -> Self {
        let weight = 1 + bytes as u64 / 16;
        Size { weight, count: weight }
    }

    fn plus(self, other: Size) -> Size {
        Size {
            weight: self.weight.saturating_add(other.weight),
            count: self.count.saturating_add(other.count),
        }
    }

    fn max(self, other: Size) -> Size {
        Size { weight: self.weight.max(other.weight), count: self.count.max(other.count) }
    }

    /// The size after so many turns of a loop, of which one made `self` into `after`.
    fn grown(self, after: Size, turns: u64) -> Size {
        let grown =
            |from: u64, to: u64| from.saturating_add(to.saturating_sub(from).saturating_mul(turns));
        Size { weight: grown(self.weight, after.weight), count: grown(self.count, after.count) }
    }
}

/// The variables of the comprehensions around a node.
type Bound<'t> = Vec<(&'t str, Size)>;

/// Refuses a tree whose evaluation may take more than [`COST_MAX`] steps.
pub(crate) fn bound(tree: &IdedExpr) -> Result<(), ExprError> {
    let estimate = estimate(tree, &mut Vec::new());
    let steps = estimate.cost.max(estimate.size.weight);
    if steps > COST_MAX {
        return Err(ExprError::new(format!(
            "one evaluation could take {steps} steps, at most {COST_MAX} are accepted: use fewer \
             or shorter comprehensions"
        )));
    }
    Ok(())
}

fn estimate<'t>(node: &'t IdedExpr, bound: &mut Bound<'t>) -> Estimate {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => {
            Estimate { cost: 1, size: Size::of_text(text.inner().len()) }
        }
        Expr::Literal(_) | Expr::Unspecified => Estimate { cost: 1, size: Size::SCALAR },
        Expr::Ident(name) => {
            let known = bound.iter().rev().find(|(bound, _)| bound == name);
            let input = Size { weight: INPUT_WEIGHT, count: INPUT_WEIGHT };
            Estimate { cost: 1, size: known.map_or(input, |(_, size)| *size) }
        }
        Expr::Comprehension(fold) => estimate_fold(fold, bound),
        expr => {
            let parts: Vec<Estimate> =
                children(expr).into_iter().map(|part| estimate(part, bound)).collect();
            // Every operator may have to look at the whole of its operands.
            let cost = parts.iter().fold(1_u64, |sum, part| {
                sum.saturating_add(part.cost).saturating_add(part.size.weight)
            });
            Estimate { cost, size: size(expr, &parts) }
        }
    }
}

/// The size of the value of a node, from those of its parts.
fn size(expr: &Expr, parts: &[Estimate]) -> Size {
    let whole = parts.iter().map(|part| part.size).fold(Size::SCALAR, Size::plus);
    match expr {
        _ if is_scalar(expr) => Size::SCALAR,
        Expr::List(list) => Size { count: list.elements.len() as u64, ..whole },
        Expr::Map(map) => Size { count: map.entries.len() as u64, ..whole },
        Expr::Call(call) => match (call.func_name.as_str(), parts) {
            (operators::CONDITIONAL, [_, yes, no]) => yes.size.max(no.size),
            (operators::ADD, [left, right]) => left.size.plus(right.size),
            _ => Size { count: whole.weight, ..whole },
        },
        _ => Size { count: whole.weight, ..whole },
    }
}

fn estimate_fold<'t>(fold: &'t ComprehensionExpr, bound: &mut Bound<'t>) -> Estimate {
    let range = estimate(&fold.iter_range, bound);
    let init = estimate(&fold.accu_init, bound);
    let turns = range.size.count;
    let depth = bound.len();
    // One element may be all there is to the range.
    bound.push((&fold.iter_var, Size { count: range.size.weight, ..range.size }));
    // The interpreter appends to a growing list in place: a step costs what it adds.
    bound.push((&fold.accu_var, init.size));
    let step = estimate(&fold.loop_step, bound);
    let condition = estimate(&fold.loop_cond, bound);
    if let Some(accumulator) = bound.last_mut() {
        accumulator.1 = init.size.grown(step.size, turns);
    }
    let result = estimate(&fold.result, bound);
    bound.truncate(depth);
    let cost = turns
        .saturating_mul(step.cost.saturating_add(condition.cost))
        .saturating_add(range.cost)
        .saturating_add(init.cost)
        .saturating_add(result.cost);
    Estimate { cost, size: result.size }
}

/// Whether the value of a node is a bool or a number whatever its operands are.
fn is_scalar(expr: &Expr) -> bool {
    match expr {
        Expr::Select(select) => select.test,
        Expr::Call(call) => {
            matches!(
                call.func_name.as_str(),
                operators::SUBSTRACT
                    | operators::MULTIPLY
                    | operators::DIVIDE
                    | operators::MODULO
                    | operators::NEGATE
                    | operators::EQUALS
                    | operators::NOT_EQUALS
                    | operators::LESS
                    | operators::LESS_EQUALS
                    | operators::GREATER
                    | operators::GREATER_EQUALS
                    | operators::LOGICAL_AND
                    | operators::LOGICAL_OR
                    | operators::LOGICAL_NOT
                    | operators::NOT_STRICTLY_FALSE
                    | operators::IN
                    | "size"
                    | "startsWith"
                    | "endsWith"
                    | "contains"
                    | "matches"
                    | "int"
                    | "uint"
                    | "double"
                    | "bool"
                    | "type"
            )
        }
        _ => false,
    }
}
