//! Filters and transforms: CEL over the declared, typed attributes of one event.
//!
//! An expression is parsed once ([`cel`] does the syntax), checked against the declared types
//! with messages meant for the person who wrote it, and compiled to a small typed tree that is
//! evaluated for every event without allocating. It is a pure function of the slots it is given:
//! no I/O, no clock, no randomness.
//!
//! ```
//! use marquee_expr::{Declared, Environment, Type, Value};
//!
//! let environment = Environment::new(vec![
//!     Declared { name: "device".into(), ty: Type::String, optional: true },
//!     Declared { name: "duration_s".into(), ty: Type::Int, optional: false },
//! ]);
//! let filter = environment.predicate(r#"device != "console" && duration_s >= 60"#)?;
//! assert_eq!(filter.eval(&[Value::Null, Value::Int(61)]), Ok(true));
//!
//! let error = environment.predicate("devise == 3").unwrap_err().to_string();
//! assert!(error.contains("did you mean `device`?"), "{error}");
//! # Ok::<(), marquee_expr::ExprError>(())
//! ```
//!
//! # What is compiled, what is interpreted, what is refused
//!
//! *Compiled* to the typed tree: string, int, uint, double, bool and null literals; identifiers;
//! `== != < <= > >=`, `&& || !`, `?:`; `in` over a list literal and over a header map;
//! `+ - * / %` and unary `-` on int and double, `+` on string; `size()`, `startsWith`,
//! `endsWith`, `contains`, `matches` with a literal pattern; `string() int() double() bool()`;
//! `headers.x`, `headers["x"]`, `has(headers.x)`.
//!
//! *Interpreted* by the `cel` crate, the whole expression, when any part of it is something else:
//! `all`/`exists`/`exists_one`/`map`/`filter`, lists and maps as values, bytes, `uint()`,
//! `type()`, `dyn()`, `bytes()`, uint arithmetic. Identifiers, functions and the types that are
//! known are still checked when it is compiled; the type of the result is checked at run time
//! where it is not known before. It costs some microseconds and allocates.
//!
//! *Refused*, with a reason: optional syntax (`a.?b`), message literals (`Msg{}`), unknown
//! functions (time among them), patterns of `matches` that are not literals or are too large,
//! and whatever exceeds the bounds in [`limits`].
//!
//! # Where this differs from CEL and from the `cel` crate
//!
//! - Operands whose declared types can never be equal are an error when compiling (`device == 3`),
//!   as in CEL's own type checker; the crate's interpreter says `false`. The same holds for a list
//!   of `in`, for the two branches of `?:`, and for `&&` over something that is not a bool.
//! - An int compares with a double numerically, also where CEL's checker would ask for a
//!   conversion. `string()` of a double writes it as Rust does (`1.0` becomes `1`), like the crate.
//! - A uint literal is an int wherever a value is compared or converted; `int + uint` is refused.
//! - `null` may be compared with `==` and `!=` to anything. An operator on null is an error of the
//!   evaluation; where the operand is the literal `null` it is one of the compilation.
//! - Of several headers with one name the last one counts.
//! - `matches` with a pattern made of literals, `^`, `$`, `|` and one group is compiled to string
//!   comparisons. Any other pattern is compiled by `cel` at every evaluation (tens of
//!   microseconds): prefer `startsWith` and `in` on a hot path.
//! - In a [`RecordPredicate`] every identifier is a field of the record, so the names of types
//!   (`int`, `string`) are fields as well: write `type(x) == type(1)`.

mod check;
mod cost;
mod declare;
mod error;
mod eval;
mod expression;
mod interpret;
pub mod limits;
mod node;
mod pattern;
mod record;
mod sets;
mod spelling;
mod syntax;

#[cfg(test)]
mod tests;

pub use declare::{Declared, Type, Value};
pub use error::{EvalError, ExprError, Position};
pub use expression::{Environment, Predicate, TextExpr};
pub use record::RecordPredicate;
