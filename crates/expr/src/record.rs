//! A predicate over a whole JSON record whose fields are not declared: everything is known only at
//! run time, so it is interpreted. Identifiers are the record's top-level fields, null where the
//! record lacks them; `record` is the whole record.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value as Json;

use crate::check::{Names, check};
use crate::error::{EvalError, ExprError};
use crate::interpret::{bool_result, interpret};
use crate::limits::RECORD_DEPTH_MAX;
use crate::{cost, syntax};

/// The name of the whole record. It hides a field of that name.
const RECORD: &str = "record";

/// A filter over whole records.
///
/// ```
/// use marquee_expr::RecordPredicate;
///
/// let plays = RecordPredicate::compile(r#"type == "play" && user.country == "US""#)?;
/// let record = serde_json::json!({"type": "play", "user": {"country": "US"}});
/// assert_eq!(plays.eval(&record), Ok(true));
/// assert_eq!(plays.eval(&serde_json::json!({"type": "impression"})), Ok(false));
/// # Ok::<(), marquee_expr::ExprError>(())
/// ```
#[derive(Clone)]
pub struct RecordPredicate {
    compiled: Arc<(String, IdedExpr)>,
}

impl RecordPredicate {
    /// Parses and checks an expression; what can be known without a record is refused here.
    ///
    /// # Errors
    /// The source is no valid expression, exceeds [`crate::limits`], or cannot give a bool.
    pub fn compile(source: &str) -> Result<Self, ExprError> {
        let parsed = syntax::parse(source)?;
        let checked = check(&parsed, Names::Record)?;
        checked.require_bool(&parsed)?;
        cost::bound(&parsed.tree)?;
        Ok(RecordPredicate { compiled: Arc::new((source.to_owned(), parsed.tree)) })
    }

    /// Whether the record passes. A field that is absent is null.
    ///
    /// # Errors
    /// The expression has no value for this record, or one that is not a bool.
    pub fn eval(&self, record: &Json) -> Result<bool, EvalError> {
        interpret(&self.compiled.1, &Fields(record), bool_result)
    }

    /// The source that was compiled.
    pub fn source(&self) -> &str {
        &self.compiled.0
    }
}

impl fmt::Debug for RecordPredicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordPredicate").field(&self.source()).finish()
    }
}

/// A record as variables, converted field by field as they are asked for.
struct Fields<'r>(&'r Json);

impl VariableResolver for Fields<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == RECORD {
            return Some(CowVal::Owned(boxed(self.0, 0)));
        }
        match self.0.get(name) {
            Some(value) => Some(CowVal::Owned(boxed(value, 1))),
            // `a.b` is asked for as one name before `a` is, and `@result` belongs to a macro.
            None if name.contains(['.', '@']) => None,
            None => Some(CowVal::owned(CelNull)),
        }
    }
}

fn boxed<'b>(json: &'b Json, depth: usize) -> Box<dyn Val + 'b> {
    match json {
        _ if depth > RECORD_DEPTH_MAX => Box::new(CelNull),
        Json::Null => Box::new(CelNull),
        Json::Bool(truth) => Box::new(CelBool::from(*truth)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(items) => {
            let items: Vec<Box<dyn Val + 'b>> =
                items.iter().map(|item| boxed(item, depth + 1)).collect();
            Box::new(CelList::from(items))
        }
        Json::Object(fields) => {
            let fields: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = fields
                .iter()
                .map(|(name, value)| (CelMapKey::from(name.as_str()), boxed(value, depth + 1)))
                .collect();
            Box::new(CelMap::from(fields))
        }
    }
}
