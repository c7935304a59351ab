//! Expressions in CEL, as Kubernetes writes them: compiled once, evaluated on trees of JSON. The crate `cel` parses and interprets; what an expression may
//! refer to is checked here before it is accepted, since the crate resolves names only when they are reached.
//!
//! Invariant: pure. An expression reads nothing but the variables it is given; what asks the authorizer goes through [`admission::Authority`].

pub mod admission;
mod check;
mod convert;
mod structs;

use std::sync::{Arc, OnceLock};

use cel::{Env, IdedExpr};

pub use convert::{from_json, to_json};

/// The value of an expression or of a variable.
pub type Value = cel::Value;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: String,
    root: IdedExpr,
}

/// Why an expression was not accepted, in the words in which cel-go reports it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(pub String);

/// What an expression is to evaluate to, as far as its form shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A condition.
    Bool,
    /// A message.
    String,
    /// A text or nothing: the value of an audit annotation.
    StringOrNull,
    /// Whatever it is: a variable, a patch.
    Any,
}

impl Expression {
    /// Compiles an expression that may refer to `variables`, each a name or the beginning of a qualified one (`variables.replicas`).
    ///
    /// # Errors
    /// What can't be parsed, refers to something else, or is plainly of another type than expected.
    pub fn compile(source: &str, variables: &[&str], expected: Expected) -> Result<Self, CompileError> {
        let program = environment().compile(source).map_err(|errors| {
            let lines: Vec<String> = errors
                .errors
                .iter()
                .map(|error| located(source, error.pos, &format!("Syntax error: {}", error.msg)))
                .collect();
            CompileError(format!("compilation failed: {}", lines.join("\n")))
        })?;
        if let Some(unknown) = check::undeclared(program.expression(), variables) {
            let message = format!("undeclared reference to '{}' (in container '')", unknown.name);
            let position = position(source, program.source_info().offset_for(unknown.id).map_or(0, |(start, _)| start));
            return Err(CompileError(format!("compilation failed: {}", located(source, position, &message))));
        }
        if let Some((wanted, found)) = check::mismatch(program.expression(), expected) {
            return Err(CompileError(format!("must evaluate to {wanted} but got {found}")));
        }
        let mut root = program.expression().clone();
        if let Err(unknown) = structs::as_maps(&mut root) {
            let message = format!("undeclared reference to '{unknown}' (in container '')");
            return Err(CompileError(format!("compilation failed: {}", located(source, (1, 1), &message))));
        }
        Ok(Self { source: source.to_owned(), root })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn root(&self) -> &IdedExpr {
        &self.root
    }

    /// Evaluates it in a context.
    ///
    /// # Errors
    /// What went wrong, such as a key that is not there.
    pub fn evaluate(&self, context: &cel::Context<'_, '_>) -> Result<Value, EvaluationError> {
        Value::resolve(self.root(), context).map_err(|error| EvaluationError(words(&error)))
    }
}

/// The functions and types that every expression has.
pub(crate) fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Env::stdlib();
        for extension in [
            cel::extensions::strings as fn(&mut Env) -> _,
            cel::extensions::lists,
            cel::extensions::math,
            cel::extensions::encoders,
        ] {
            // Each is added once to an environment that has none of its names.
            let added: Result<(), cel::DeclarationError> = environment.add_extension(extension).map(|_| ());
            debug_assert!(added.is_ok());
        }
        Arc::new(environment)
    })
}

/// An evaluation error in cel-go's words, where they differ.
fn words(error: &cel::ExecutionError) -> String {
    match error {
        cel::ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        cel::ExecutionError::IndexOutOfBounds(index) => format!("index out of bounds: {index:?}"),
        cel::ExecutionError::NoSuchOverload(_) => "no such overload".to_owned(),
        cel::ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        other => other.to_string(),
    }
}

/// Line and column, from 1 and 0, of an offset in characters.
fn position(source: &str, offset: u32) -> (isize, isize) {
    let (mut line, mut column) = (1, 1);
    for character in source.chars().take(offset as usize) {
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line, column)
}

/// A message with the place that it is about, as cel-go shows it.
fn located(source: &str, (line, column): (isize, isize), message: &str) -> String {
    let text = usize::try_from(line - 1).ok().and_then(|line| source.lines().nth(line)).unwrap_or_default();
    let indent = ".".repeat(usize::try_from(column - 1).unwrap_or_default());
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {indent}^")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evaluate(source: &str, object: serde_json::Value) -> Result<Value, String> {
        let expression = Expression::compile(source, &["object"], Expected::Any).map_err(|error| error.to_string())?;
        let mut context = cel::Context::with_env(environment().clone());
        context.add_variable_from_value("object", from_json(&object));
        expression.evaluate(&context).map_err(|error| error.0)
    }

    #[test]
    fn an_expression_reads_a_tree() {
        let object = json!({"spec": {"replicas": 3, "names": ["a", "b"]}});
        for source in [
            "object.spec.replicas > 1",
            "object.spec.replicas % 2 == 1",
            "object.spec.names.all(name, name != 'c')",
            "has(object.spec.names) && !has(object.spec.other)",
            "'a,b'.split(',') == object.spec.names",
            "object.?spec.other.orValue(5) == 5",
        ] {
            assert_eq!(evaluate(source, object.clone()), Ok(Value::Bool(true)), "{source}");
        }
    }

    #[test]
    fn what_is_not_declared_is_found_before_it_is_evaluated() {
        let message = evaluate("has(object.a) || other.b", json!({})).unwrap_err();
        assert!(
            message.starts_with("compilation failed: ERROR: <input>:1:")
                && message.contains("undeclared reference to 'other' (in container '')"),
            "{message}"
        );
        assert!(evaluate("[1].all(x, x > 0)", json!({})).is_ok(), "a comprehension declares its own");
    }

    #[test]
    fn what_can_not_be_parsed_is_shown_with_its_place() {
        let message = evaluate("object.a ==", json!({})).unwrap_err();
        assert!(
            message.starts_with("compilation failed: ERROR: <input>:1:") && message.contains("Syntax error: "),
            "{message}"
        );
    }

    #[test]
    fn a_condition_is_no_text() {
        for (source, found) in [("'a'", "string"), ("1 + 2", "int"), ("[true]", "list")] {
            let error = Expression::compile(source, &[], Expected::Bool).unwrap_err();
            assert_eq!(error.to_string(), format!("must evaluate to bool but got {found}"));
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_an_error() {
        assert_eq!(evaluate("object.a.b == 1", json!({"a": {}})), Err("no such key: b".to_owned()));
    }
}
