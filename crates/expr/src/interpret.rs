//! The way to evaluate what is not compiled: the interpreter of the `cel` crate over the same
//! tree, with the slots of an event (or the fields of a record) looked up when they are asked for.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBool, CelDouble, CelInt, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError};

use crate::declare::{Declared, Value};
use crate::error::{EvalError, NULL_RESULT};

/// CEL's standard functions: built once, never changed.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The functions themselves, for tests that compare with them.
#[cfg(test)]
pub(crate) fn environment() -> &'static Env {
    &ENVIRONMENT
}

/// Evaluates `tree` and hands its value to `finish`. A panic in the interpreter is an error of
/// this evaluation: nothing outlives it that could have been left half changed.
pub(crate) fn interpret<T>(
    tree: &IdedExpr,
    variables: &dyn VariableResolver,
    finish: impl FnOnce(&dyn Val) -> Result<T, EvalError>,
) -> Result<T, EvalError> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(variables);
        let value = cel::Value::resolve_val(tree, &context).map_err(|error| reason(&error))?;
        finish(value.as_ref())
    }))
    .unwrap_or(Err(EvalError::new("the interpreter failed on this expression")))
}

/// A result that must be a bool.
pub(crate) fn bool_result(value: &dyn Val) -> Result<bool, EvalError> {
    match value.downcast_ref::<CelBool>() {
        Some(truth) => Ok(*truth.inner()),
        None if value.downcast_ref::<CelNull>().is_some() => Err(NULL_RESULT),
        None => Err(EvalError::new("the result is not a bool")),
    }
}

/// A result that must be a string or an int.
pub(crate) fn text_result(value: &dyn Val) -> Result<String, EvalError> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        Ok(text.inner().to_owned())
    } else if let Some(number) = value.downcast_ref::<CelInt>() {
        Ok(number.inner().to_string())
    } else if value.downcast_ref::<CelNull>().is_some() {
        Err(NULL_RESULT)
    } else {
        Err(EvalError::new("the result is neither string nor int"))
    }
}

/// A short reason; the crate's own text may quote the whole event.
pub(crate) fn reason(error: &ExecutionError) -> EvalError {
    match error {
        ExecutionError::NoSuchKey(_) => crate::error::NO_SUCH_KEY,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            crate::error::ZERO_DIVISOR
        }
        ExecutionError::Overflow(..) => crate::error::OVERFLOW,
        other => EvalError::owned(other.to_string().chars().take(200).collect()),
    }
}

/// The slots of one event as variables.
pub(crate) struct Slots<'r> {
    pub(crate) declared: &'r [Declared],
    pub(crate) values: &'r [Value<'r>],
}

impl VariableResolver for Slots<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let slot = self.declared.iter().position(|declared| declared.name == name)?;
        Some(CowVal::Owned(boxed(self.values.get(slot)?)))
    }
}

fn boxed<'b>(value: &'b Value<'_>) -> Box<dyn Val + 'b> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::String(text) => Box::new(CelString::from(&**text)),
        Value::Int(number) => Box::new(CelInt::from(*number)),
        Value::Double(number) => Box::new(CelDouble::from(*number)),
        Value::Bool(truth) => Box::new(CelBool::from(*truth)),
        Value::StringMap(entries) => {
            let entries: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = entries
                .iter()
                .map(|(key, text)| {
                    let text: Box<dyn Val + 'b> = Box::new(CelString::from(&**text));
                    (CelMapKey::from(&**key), text)
                })
                .collect();
            Box::new(CelMap::from(entries))
        }
    }
}
