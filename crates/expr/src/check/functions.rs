//! Types and compiled forms of the functions.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::{Checker, Kind, Typed, describe};
use crate::error::ExprError;
use crate::node::{Conversion, Term, Test, TextTest};
use crate::pattern::Pattern;
use crate::spelling::nearest;

/// The functions that there are; macros among them, for the message.
const FUNCTIONS: [&str; 19] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

impl Checker<'_> {
    pub(super) fn lower_function(
        &mut self,
        node: &IdedExpr,
        call: &CallExpr,
    ) -> Result<Typed, ExprError> {
        let name = call.func_name.as_str();
        if let Some(target) = call.target.as_deref()
            && matches!(&target.expr, Expr::Ident(name) if name == "optional")
        {
            return Err(self.error(node, "optional values are not supported"));
        }
        match (name, call.target.as_deref(), call.args.as_slice()) {
            ("size", None, [operand]) | ("size", Some(operand), []) => {
                self.lower_size(node, operand)
            }
            ("startsWith", Some(text), [part]) => {
                self.lower_text_test(node, TextTest::StartsWith, name, text, part)
            }
            ("endsWith", Some(text), [part]) => {
                self.lower_text_test(node, TextTest::EndsWith, name, text, part)
            }
            ("contains", Some(text), [part]) => {
                self.lower_text_test(node, TextTest::Contains, name, text, part)
            }
            ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
                self.lower_matches(node, text, pattern)
            }
            ("string", None, [operand]) => self.lower_conversion(node, Conversion::String, operand),
            ("int", None, [operand]) => self.lower_conversion(node, Conversion::Int, operand),
            ("double", None, [operand]) => self.lower_conversion(node, Conversion::Double, operand),
            ("bool", None, [operand]) => self.lower_conversion(node, Conversion::Bool, operand),
            ("uint" | "bytes" | "type" | "dyn", None, [operand]) => {
                self.lower(operand)?;
                Ok(Typed::interpreted(match name {
                    "uint" => Kind::Uint,
                    "bytes" => Kind::Bytes,
                    "type" => Kind::Type,
                    _ => Kind::Dyn,
                }))
            }
            _ => Err(self.error(node, unknown(call))),
        }
    }

    fn lower_size(&mut self, node: &IdedExpr, arg: &IdedExpr) -> Result<Typed, ExprError> {
        let operand = self.lower(arg)?;
        match operand.kind {
            Kind::String | Kind::StringMap => Ok(Typed {
                kind: Kind::Int,
                term: operand.term.map(|term| Term::Size(Box::new(term))),
            }),
            Kind::List | Kind::Map | Kind::Bytes | Kind::Dyn => Ok(Typed::interpreted(Kind::Int)),
            kind => {
                let message =
                    format!("size() takes a string, list or map, not {}", describe(arg, kind));
                Err(self.error(node, message))
            }
        }
    }

    fn lower_text_test(
        &mut self,
        node: &IdedExpr,
        test: TextTest,
        name: &str,
        text: &IdedExpr,
        part: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let text = self.lower_text(node, name, text)?;
        let part = self.lower_text(node, name, part)?;
        Ok(match (text, part) {
            (Some(text), Some(part)) => {
                Typed::new(Kind::Bool, Test::Text(Box::new((test, text, part))))
            }
            _ => Typed::interpreted(Kind::Bool),
        })
    }

    /// An operand that has to be a string.
    fn lower_text(
        &mut self,
        node: &IdedExpr,
        function: &str,
        arg: &IdedExpr,
    ) -> Result<Option<Term>, ExprError> {
        let operand = self.lower(arg)?;
        match operand.kind {
            Kind::String | Kind::Dyn => Ok(operand.term),
            kind => {
                let message = format!("{function}() takes strings, not {}", describe(arg, kind));
                Err(self.error(node, message))
            }
        }
    }

    fn lower_matches(
        &mut self,
        node: &IdedExpr,
        text: &IdedExpr,
        pattern: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let text = self.lower_text(node, "matches", text)?;
        self.lower_text(node, "matches", pattern)?;
        let Expr::Literal(LiteralValue::String(source)) = &pattern.expr else {
            let message = "the pattern of matches() must be a literal: it is checked once, not for every event";
            return Err(self.error(pattern, message));
        };
        let pattern = Pattern::new(source.inner())
            .map_err(|message| self.error(pattern, message))
            .map(Box::new)?;
        Ok(match text {
            Some(text) => Typed::new(Kind::Bool, Test::Matches { text, pattern }),
            None => Typed::interpreted(Kind::Bool),
        })
    }

    fn lower_conversion(
        &mut self,
        node: &IdedExpr,
        conversion: Conversion,
        arg: &IdedExpr,
    ) -> Result<Typed, ExprError> {
        let operand = self.lower(arg)?;
        let (name, kind) = match conversion {
            Conversion::String => ("string", Kind::String),
            Conversion::Int => ("int", Kind::Int),
            Conversion::Double => ("double", Kind::Double),
            Conversion::Bool => ("bool", Kind::Bool),
        };
        let converts = match operand.kind {
            Kind::String | Kind::Dyn => true,
            Kind::Int | Kind::Uint | Kind::Double => conversion != Conversion::Bool,
            Kind::Bool => matches!(conversion, Conversion::String | Conversion::Bool),
            Kind::Bytes => conversion == Conversion::String,
            _ => false,
        };
        if !converts {
            let message = format!("{name}() cannot convert {}", describe(arg, operand.kind));
            return Err(self.error(node, message));
        }
        Ok(Typed { kind, term: operand.term.map(|term| Term::Convert(conversion, Box::new(term))) })
    }
}

fn unknown(call: &CallExpr) -> String {
    let name: String = call.func_name.chars().take(60).collect();
    if FUNCTIONS.contains(&name.as_str()) {
        let form = if call.target.is_some() { "called on a value" } else { "called as a function" };
        return format!("`{name}` cannot be {form} with {} arguments", call.args.len());
    }
    let mut message = format!("there is no function `{name}`");
    if let Some(near) = nearest(&name, FUNCTIONS.into_iter()) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    message.push_str(&format!("; there are {}", FUNCTIONS.join(", ")));
    message
}
