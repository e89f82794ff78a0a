//! Types and compiled forms of `in` and of `[]`.

use cel::common::ast::{Expr, IdedExpr, ListExpr};

use super::{Checker, Kind, Typed, describe};
use crate::declare::Value;
use crate::error::ExprError;
use crate::node::{Term, Test};
use crate::sets::TextSet;

impl Checker<'_> {
    pub(super) fn lower_in(
        &mut self,
        node: &IdedExpr,
        needle: &IdedExpr,
        haystack: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let searched = self.lower(needle)?;
        if let Expr::List(list) = &haystack.expr {
            return self.lower_in_list(needle, searched, list);
        }
        let container = self.lower(haystack)?;
        let keyed = matches!(searched.kind, Kind::String | Kind::Dyn);
        match (container.kind, searched.term, container.term) {
            (Kind::StringMap, key, map) if keyed => Ok(match (key, map) {
                (Some(key), Some(map)) => Typed::new(Kind::Bool, Test::InMap(Box::new((key, map)))),
                _ => Typed::interpreted(Kind::Bool),
            }),
            (Kind::StringMap, ..) => {
                let needle = describe(needle, searched.kind);
                Err(self.error(node, format!("`in` looks for a string key, not {needle}")))
            }
            (Kind::Map | Kind::List | Kind::Dyn, ..) => Ok(Typed::interpreted(Kind::Bool)),
            (kind, ..) => {
                let haystack = describe(haystack, kind);
                let hint = if kind == Kind::String { "; use contains()" } else { "" };
                Err(self.error(node, format!("`in` needs a list or a map, not {haystack}{hint}")))
            }
        }
    }

    fn lower_in_list(
        &mut self,
        needle: &IdedExpr,
        searched: Typed,
        list: &ListExpr,
    ) -> Result<Typed, ExprError> {
        let mut items = Some(Vec::with_capacity(list.elements.len()));
        let mut kinds = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            let item = self.lower(element)?;
            if !searched.kind.equatable(item.kind) {
                let (needle, element_text) =
                    (describe(needle, searched.kind), describe(element, item.kind));
                let message = format!("`in` cannot compare {needle} with {element_text}");
                return Err(self.error(element, message));
            }
            kinds.push(item.kind);
            match (&mut items, item.term) {
                (Some(items), Some(term)) => items.push(term),
                _ => items = None,
            }
        }
        let maps = kinds.contains(&Kind::StringMap);
        Ok(match (searched.term, items) {
            (Some(term), Some(items)) if !maps => {
                Typed::new(Kind::Bool, membership(searched.kind, term, items))
            }
            _ => Typed::interpreted(Kind::Bool),
        })
    }

    pub(super) fn lower_index(
        &mut self,
        node: &IdedExpr,
        operand: &IdedExpr,
        index: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let (container, key) = (self.lower(operand)?, self.lower(index)?);
        match (container.kind, key.kind) {
            (Kind::StringMap, Kind::String | Kind::Dyn) => Ok(match (container.term, key.term) {
                (Some(map), Some(key)) => {
                    Typed::new(Kind::String, Term::Entry(Box::new((map, key))))
                }
                _ => Typed::interpreted(Kind::String),
            }),
            (Kind::StringMap, kind) => {
                let key = describe(index, kind);
                Err(self.error(node, format!("the keys of headers are strings, not {key}")))
            }
            (Kind::List | Kind::Map | Kind::Dyn, _) => Ok(Typed::interpreted(Kind::Dyn)),
            (kind, _) => {
                let operand = describe(operand, kind);
                Err(self.error(node, format!("{operand} has no elements to take with `[]`")))
            }
        }
    }
}

/// The narrowest node for `in` a list: literals of one type are a set.
fn membership(kind: Kind, needle: Term, items: Vec<Term>) -> Test {
    let texts: Option<Vec<Box<str>>> = items
        .iter()
        .map(|item| match item {
            Term::Const(Value::String(text)) => Some((**text).into()),
            _ => None,
        })
        .collect();
    let ints: Option<Vec<i64>> = items
        .iter()
        .map(|item| match item {
            Term::Const(Value::Int(int)) => Some(*int),
            _ => None,
        })
        .collect();
    match (kind, texts, ints) {
        (Kind::String, Some(texts), _) => {
            Test::InTexts { needle, set: TextSet::new(texts.into_iter()) }
        }
        (Kind::Int, _, Some(mut ints)) => {
            ints.sort_unstable();
            Test::InInts { needle, sorted: ints.into() }
        }
        _ => Test::InTerms { needle, items: items.into() },
    }
}
