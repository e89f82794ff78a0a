//! From source to syntax tree, within bounds. The source may be hostile: what could overflow the
//! parser's stack is refused by a scan before it, the parser runs on a stack of its own, and a
//! panic in it is an error like any other.

use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo};
use cel::parser::Parser;

use crate::error::{ExprError, Position};
use crate::limits::{
    BRACKET_DEPTH_MAX, SOURCE_BYTES_MAX, TERNARIES_MAX, TREE_DEPTH_MAX, TREE_NODES_MAX,
    UNARY_RUN_MAX,
};

/// Ample for the longest chain of operators that fits into a source; only touched pages cost.
const PARSER_STACK_BYTES: usize = 128 * 1024 * 1024;

/// A syntax tree within the bounds of [`crate::limits`], and where its nodes were written.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) tree: IdedExpr,
    info: SourceInfo,
}

impl Parsed {
    /// Where a node was written: an operator's own sign, otherwise where the node begins.
    pub(crate) fn position(&self, node: &IdedExpr) -> Option<Position> {
        let (start, _) = self.info.offset_for(node.id)?;
        Some(Position::of(&self.info.source, usize::try_from(start).ok()?))
    }
}

pub(crate) fn parse(source: &str) -> Result<Parsed, ExprError> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(ExprError::new(format!(
            "the expression is {} bytes long, at most {SOURCE_BYTES_MAX} are accepted",
            source.len()
        )));
    }
    if source.trim().is_empty() {
        return Err(ExprError::new("the expression is empty"));
    }
    scan(source)?;
    let owned = source.to_owned();
    let parser = thread::Builder::new()
        .name("expression parser".to_owned())
        .stack_size(PARSER_STACK_BYTES)
        .spawn(move || parse_scanned(&owned))
        .map_err(|error| ExprError::new(format!("no thread to parse on: {error}")))?;
    parser.join().unwrap_or_else(|_| Err(ExprError::new("the parser cannot read the expression")))
}

fn parse_scanned(source: &str) -> Result<Parsed, ExprError> {
    match Parser::new().parse_with_source_info(source) {
        Ok((tree, info)) => {
            measure(&tree)?;
            Ok(Parsed { tree, info })
        }
        Err(errors) => Err(match errors.errors.first() {
            Some(error) => {
                let place = |at: isize| u32::try_from(at).ok().filter(|at| *at > 0);
                let position = place(error.pos.0)
                    .map(|line| Position { line, column: place(error.pos.1).unwrap_or(1) });
                ExprError::at(position, explain(&error.msg))
            }
            None => ExprError::new("the expression is not valid CEL"),
        }),
    }
}

/// The parser's message, with the remedy for mistakes that it names by their grammar only.
fn explain(message: &str) -> String {
    let mut short: String = message.chars().take(300).collect();
    if message.contains("has()") || message.contains("has macro") {
        short.push_str(
            "; has() takes a field, as in has(headers.x); to test an attribute, write x != null",
        );
    } else if message.contains("unsupported syntax") && message.contains('?') {
        short.push_str("; optional syntax is not supported, use has(x.y) ? x.y : ...");
    }
    short
}

/// Refuses a tree that is too deep or too large to walk by recursion, without recursing.
fn measure(tree: &IdedExpr) -> Result<(), ExprError> {
    let mut pending = vec![(tree, 1)];
    let mut nodes = 0;
    while let Some((node, depth)) = pending.pop() {
        nodes += 1;
        if depth > TREE_DEPTH_MAX {
            return Err(ExprError::new(format!(
                "the expression nests operators deeper than {TREE_DEPTH_MAX} levels"
            )));
        }
        if nodes > TREE_NODES_MAX {
            return Err(ExprError::new(format!(
                "the expression has more than {TREE_NODES_MAX} parts"
            )));
        }
        pending.extend(children(&node.expr).into_iter().map(|child| (child, depth + 1)));
    }
    Ok(())
}

/// The direct parts of a node, in the order of evaluation.
pub(crate) fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(fold) => {
            vec![&fold.iter_range, &fold.accu_init, &fold.loop_cond, &fold.loop_step, &fold.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(message) => {
            message.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect()
        }
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Bounds what makes a recursive parser recurse: brackets, unary chains, conditionals.
fn scan(source: &str) -> Result<(), ExprError> {
    let bytes = source.as_bytes();
    let at = |offset| Some(Position::of(source, offset));
    let mut open: Vec<(u8, usize)> = Vec::new();
    let (mut unary_run, mut ternaries, mut i) = (0, 0, 0);
    while i < bytes.len() {
        let byte = bytes[i];
        match byte {
            b'"' | b'\'' => i = string_end(bytes, i).unwrap_or(bytes.len()) - 1,
            b'/' if bytes.get(i + 1) == Some(&b'/') => {
                i = bytes[i..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| i + n);
                continue;
            }
            b'(' | b'[' | b'{' => {
                open.push((byte, i));
                if open.len() > BRACKET_DEPTH_MAX {
                    let message = format!("brackets nest deeper than {BRACKET_DEPTH_MAX} levels");
                    return Err(ExprError::at(at(i), message));
                }
            }
            b')' | b']' | b'}' => {
                close(&mut open, byte).map_err(|message| ExprError::at(at(i), message))?
            }
            b'?' => ternaries += 1,
            _ => {}
        }
        match byte {
            b'!' | b'-' => unary_run += 1,
            b' ' | b'\t' | b'\r' | b'\n' | 0x0C => {}
            _ => unary_run = 0,
        }
        if unary_run > UNARY_RUN_MAX {
            let message = format!("more than {UNARY_RUN_MAX} unary operators in a row");
            return Err(ExprError::at(at(i), message));
        }
        if ternaries > TERNARIES_MAX {
            let message = format!("more than {TERNARIES_MAX} conditionals in one expression");
            return Err(ExprError::at(at(i), message));
        }
        i += 1;
    }
    match open.pop() {
        Some((bracket, offset)) => {
            Err(ExprError::at(at(offset), format!("`{}` is never closed", char::from(bracket))))
        }
        None => Ok(()),
    }
}

fn close(open: &mut Vec<(u8, usize)>, closing: u8) -> Result<(), String> {
    let wanted = match closing {
        b')' => b'(',
        b']' => b'[',
        _ => b'{',
    };
    match open.pop() {
        Some((bracket, _)) if bracket == wanted => Ok(()),
        Some((bracket, _)) => {
            Err(format!("`{}` closes a `{}`", char::from(closing), char::from(bracket)))
        }
        None => Err(format!("`{}` closes nothing", char::from(closing))),
    }
}

/// The offset after the string literal whose opening quote is at `start`, if it ends.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let prefix_start = bytes[..start]
        .iter()
        .rposition(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))
        .map_or(0, |at| at + 1);
    let prefix = &bytes[prefix_start..start];
    let raw = prefix.len() <= 2 && prefix.iter().any(|byte| matches!(byte, b'r' | b'R'));
    let width = if bytes[start..].starts_with(&[quote; 3]) { 3 } else { 1 };
    let mut i = start + width;
    while i < bytes.len() {
        if bytes[i] == b'\\' && !raw {
            i += 2;
        } else if width == 1 && bytes[i] == b'\n' {
            return Some(i);
        } else if bytes[i..].starts_with(&[quote; 3][..width]) {
            return Some(i + width);
        } else {
            i += 1;
        }
    }
    None
}
