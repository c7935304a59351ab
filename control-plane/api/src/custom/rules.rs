//! `x-kubernetes-validations`: a schema's rules in CEL, evaluated where they stand (k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel).
//!
//! A rule sees what its schema declares: `self`, and on an update `oldSelf`, where the value before can be told. Names that CEL can't write are escaped as
//! upstream does (`__dot__`). Invariant: no rule runs without bound; how often its innermost part could run is counted before it runs.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::objects::{Key, Map, OptionalValue};
use cel::{Context, IdedExpr};
use serde_json::Value;

use super::schema::{Additional, Rule, Schema};
use super::values::correlated;
use crate::cel::{Expected, Expression, environment};
use crate::field::{Error, ErrorList, ErrorType, Path};

/// Steps that one evaluation may take, and all of one object together.
const CALL_LIMIT: u64 = 1_000_000;
const OBJECT_LIMIT: u64 = 10_000_000;

/// What rules refuse of an object; `old` is what was there before an update.
pub(super) fn validate(object: &Value, old: Option<&Value>, schema: &Schema) -> ErrorList {
    let mut run = Run { errors: ErrorList::new(), budget: OBJECT_LIMIT, spent: false };
    if schema.has_rules() {
        run.node(object, old, old.is_some_and(|old| old == object), schema, &Path::default(), true);
    }
    run.errors
}

/// Compiles a rule, or the expression of its message.
///
/// # Errors
/// In cel-go's words.
pub fn compile(expression: &str, expected: Expected) -> Result<Expression, String> {
    Expression::compile(expression, &["self", "oldSelf"], expected).map_err(|error| error.to_string())
}

/// The first field of `self` or `oldSelf` that a rule names and its schema does not have.
#[must_use]
pub fn undefined_field(expression: &Expression, schema: &Schema, root: bool) -> Option<String> {
    let mut found = None;
    fields(expression.root(), schema, root, &mut found);
    found
}

struct Run {
    errors: ErrorList,
    budget: u64,
    spent: bool,
}

impl Run {
    fn node(&mut self, value: &Value, old: Option<&Value>, unchanged: bool, schema: &Schema, path: &Path, root: bool) {
        if value.is_null() || self.spent || !schema.has_rules() {
            return;
        }
        self.rules(value, old, unchanged, schema, path, root);
        match value {
            Value::Object(map) => {
                let before = old.filter(|_| schema.map_type != "atomic").and_then(Value::as_object);
                for (key, value) in map {
                    let old = before.and_then(|old| old.get(key));
                    let unchanged = unchanged || old == Some(value);
                    if let Some(property) = schema.properties.get(key) {
                        self.node(value, old, unchanged, property, &path.child(key), false);
                    } else if let Some(values) = schema.values() {
                        self.node(value, old, unchanged, values, &path.key(key), false);
                    }
                }
            }
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (at, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| correlated(item, old, schema));
                    let unchanged = unchanged || old == Some(item);
                    self.node(item, old, unchanged, of, &path.index(at), false);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rules(&mut self, value: &Value, old: Option<&Value>, unchanged: bool, schema: &Schema, path: &Path, root: bool) {
        if schema.rules.is_empty() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let shown = |value: &Value| from_json(value, schema, root);
        let own = shown(value);
        let before = old.map(shown);
        let size = size(value) + old.map_or(0, size);
        for rule in &schema.rules {
            let optional = rule.optional_old_self == Some(true);
            let uses_old = rule.rule.contains("oldSelf");
            if uses_old && old.is_none() && !optional {
                continue;
            }
            let told = |why: String| Error::invalid(path, schema.type_.as_str(), why);
            let expression = match rule.compiled() {
                Ok(expression) => expression,
                Err(why) => {
                    self.errors.push(told(format!("rule compile error: {why}")));
                    continue;
                }
            };
            let steps = steps(expression.root(), size);
            if steps > CALL_LIMIT {
                self.spent = true;
                self.errors.push(told(format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.rule.trim()
                )));
                return;
            }
            let Some(left) = self.budget.checked_sub(steps) else {
                self.spent = true;
                self.errors.push(told(
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned(),
                ));
                return;
            };
            self.budget = left;
            let mut context = Context::with_env(environment().clone());
            context.add_variable_from_value("self", own.clone());
            match (&before, optional) {
                (before, true) => {
                    let value = before.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                    context.add_variable_from_value("oldSelf", cel::Value::Opaque(Arc::new(value)));
                }
                (Some(before), false) => context.add_variable_from_value("oldSelf", before.clone()),
                (None, false) => {}
            }
            match expression.evaluate(&context) {
                Ok(cel::Value::Bool(true)) => {}
                // What was wrong before and is as it was is let through.
                Ok(_) if unchanged && !uses_old => {}
                Ok(_) => self.errors.push(refusal(rule, &context, schema, value, path)),
                Err(error) if error.0.starts_with("no such overload") => self.errors.push(told(format!(
                    "'{}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    error.0,
                    rule.rule.trim()
                ))),
                Err(error) => {
                    self.errors.push(told(format!("'{}': evaluating rule: {}", error.0, rule.rule.trim())));
                }
            }
        }
    }
}

/// What is said of a value that a rule refuses.
fn refusal(rule: &Rule, context: &Context<'_, '_>, schema: &Schema, value: &Value, path: &Path) -> Error {
    let written = match rule.message.trim() {
        "" => format!("failed rule: {}", rule.rule.trim()),
        message => message.to_owned(),
    };
    // A message that can't be made, is empty, too long or has line breaks is none.
    let made = match rule.message_expression.trim() {
        "" => None,
        source => compile(source, Expected::String).ok().and_then(|expression| match expression.evaluate(context) {
            Ok(cel::Value::String(text)) => Some(text.trim().to_owned()),
            _ => None,
        }),
    };
    let detail =
        made.filter(|text| !text.is_empty() && text.len() <= 5 * 1024 && !text.contains('\n')).unwrap_or(written);
    let field = match rule.field_path.trim().trim_start_matches('.') {
        "" => path.clone(),
        below => path.child(below),
    };
    match rule.reason.as_str() {
        "FieldValueRequired" => Error::required(&field, detail),
        "FieldValueForbidden" => Error::forbidden(&field, detail),
        "FieldValueDuplicate" => {
            Error { kind: ErrorType::Duplicate, detail: String::new(), ..Error::invalid(&field, value.clone(), "") }
        }
        _ => Error::invalid(&field, schema.type_.as_str(), detail),
    }
}

/// How many values there are, as a bound of what can be walked over.
fn size(value: &Value) -> u64 {
    match value {
        Value::Object(map) => 1 + map.values().map(size).sum::<u64>(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::String(text) => 1 + text.len() as u64 / 64,
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// How many steps an expression takes at most on a value of a size: a comprehension runs its body for each part of it.
fn steps(expression: &IdedExpr, size: u64) -> u64 {
    let all = |expressions: &mut dyn Iterator<Item = &IdedExpr>| {
        expressions.fold(1u64, |sum, one| sum.saturating_add(steps(one, size)))
    };
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 1,
        Expr::Select(select) => 1 + steps(&select.operand, size),
        Expr::Call(call) => all(&mut call.target.iter().map(|target| &**target).chain(&call.args)),
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Map(map) => {
            map.entries.iter().fold(1, |sum: u64, entry| sum.saturating_add(entry_steps(&entry.expr, size)))
        }
        Expr::Struct(of) => {
            of.entries.iter().fold(1, |sum: u64, entry| sum.saturating_add(entry_steps(&entry.expr, size)))
        }
        Expr::Comprehension(of) => {
            let once = steps(&of.loop_step, size).saturating_add(steps(&of.loop_cond, size));
            once.saturating_mul(size.max(1))
                .saturating_add(steps(&of.iter_range, size))
                .saturating_add(steps(&of.accu_init, size))
                .saturating_add(steps(&of.result, size))
        }
    }
}

fn entry_steps(entry: &EntryExpr, size: u64) -> u64 {
    match entry {
        EntryExpr::StructField(field) => steps(&field.value, size),
        EntryExpr::MapEntry(entry) => steps(&entry.key, size).saturating_add(steps(&entry.value, size)),
    }
}

/// A value as a rule sees it.
fn from_json(value: &Value, schema: &Schema, root: bool) -> cel::Value {
    match value {
        Value::Number(number) if schema.type_ == "number" => cel::Value::Float(number.as_f64().unwrap_or_default()),
        Value::Array(items) => match &schema.items {
            Some(of) => cel::Value::List(Arc::new(items.iter().map(|item| from_json(item, of, false)).collect())),
            None => crate::cel::from_json(value),
        },
        Value::Object(map) => {
            let mut entries: HashMap<Key, cel::Value> = HashMap::new();
            let is_map = schema.values().is_some() || matches!(schema.additional, Some(Additional::Any(true)));
            for (key, value) in map {
                let resource = (root || schema.embedded) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
                let shown = match (schema.property(key), key.as_str()) {
                    (_, "metadata") if resource => metadata(value),
                    (_, "apiVersion" | "kind") if resource => crate::cel::from_json(value),
                    (Some(of), _) => from_json(value, of, false),
                    (None, _) if is_map => crate::cel::from_json(value),
                    // What the schema does not declare a rule does not see.
                    (None, _) => continue,
                };
                let key = if is_map { key.clone() } else { escaped(key) };
                entries.insert(Key::String(Arc::new(key)), shown);
            }
            cel::Value::Map(Map { map: Arc::new(entries) })
        }
        other => crate::cel::from_json(other),
    }
}

/// Of metadata a rule sees the names.
fn metadata(value: &Value) -> cel::Value {
    let mut named = serde_json::Map::new();
    for field in ["name", "generateName"] {
        if let Some(text) = value.get(field) {
            named.insert(field.to_owned(), text.clone());
        }
    }
    crate::cel::from_json(&Value::Object(named))
}

/// A property's name as an expression writes it (`apiservercel.Escape`).
fn escaped(name: &str) -> String {
    const WORDS: [&str; 18] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
    ];
    if WORDS.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

/// The schema that a chain of selections leads to, as far as it is known; notes the first field that is none.
fn fields<'a>(
    expression: &IdedExpr,
    schema: &'a Schema,
    root: bool,
    found: &mut Option<String>,
) -> Option<(&'a Schema, bool)> {
    let mut walk = |expression: &IdedExpr| {
        let _ = fields(expression, schema, root, found);
    };
    match &expression.expr {
        Expr::Ident(name) if name == "self" || name == "oldSelf" => return Some((schema, root)),
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select(select) => {
            let (of, is_root) = fields(&select.operand, schema, root, found)?;
            if of.type_ != "object" || of.preserve_unknown && of.properties.is_empty() {
                return None;
            }
            if (is_root || of.embedded) && matches!(select.field.as_str(), "apiVersion" | "kind" | "metadata") {
                return None;
            }
            if let Some(values) = of.values() {
                return Some((values, false));
            }
            if of.additional.is_some() {
                return None;
            }
            let below = of.properties.iter().find(|(name, _)| escaped(name) == select.field);
            if below.is_none() {
                found.get_or_insert_with(|| select.field.clone());
            }
            return below.map(|(_, below)| (below, false));
        }
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).for_each(walk),
        Expr::List(list) => list.elements.iter().for_each(walk),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    walk(&entry.key);
                    walk(&entry.value);
                }
            }
        }
        Expr::Struct(_) => {}
        Expr::Comprehension(of) => {
            for part in [&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result] {
                walk(part);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: Value, object: Value, old: Option<Value>) -> Vec<String> {
        validate(&object, old.as_ref(), &Schema::read(&schema)).iter().map(ToString::to_string).collect()
    }

    fn spec(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "a-b": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string"}}}}}})
    }

    #[test]
    fn a_rule_that_does_not_hold_is_told_with_its_message() {
        let object = json!({"spec": {"min": 5, "max": 1}});
        let cases = [
            (
                json!([{"rule": "self.min <= self.max"}]),
                r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#,
            ),
            (
                json!([{"rule": "self.min <= self.max", "message": "min above max"}]),
                r#"spec: Invalid value: "object": min above max"#,
            ),
            (
                json!([{"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min)"}]),
                r#"spec: Invalid value: "object": min 5"#,
            ),
            (
                json!([{"rule": "self.min <= self.max", "reason": "FieldValueForbidden", "fieldPath": ".min", "message": "no"}]),
                "spec.min: Forbidden: no",
            ),
        ];
        for (rules, wanted) in cases {
            assert_eq!(told(spec(rules), object.clone(), None), [wanted]);
        }
        let holds =
            spec(json!([{"rule": "self.min > self.max && !has(self.list)"}, {"rule": "!has(self.a__dash__b)"}]));
        assert_eq!(told(holds, object, None), Vec::<String>::new());
    }

    #[test]
    fn transitions_are_judged_on_updates_only() {
        let schema = spec(json!([{"rule": "self.min == oldSelf.min", "message": "immutable"}]));
        let (new, old) = (json!({"spec": {"min": 2}}), json!({"spec": {"min": 1}}));
        assert_eq!(told(schema.clone(), new.clone(), None), Vec::<String>::new());
        assert_eq!(told(schema, new.clone(), Some(old.clone())), [r#"spec: Invalid value: "object": immutable"#]);
        let optional = spec(
            json!([{"rule": "!oldSelf.hasValue() || oldSelf.value().min == self.min", "optionalOldSelf": true, "message": "m"}]),
        );
        assert_eq!(told(optional.clone(), new.clone(), None), Vec::<String>::new());
        assert_eq!(told(optional, new, Some(old)).len(), 1);
    }

    #[test]
    fn what_was_wrong_before_and_stays_is_let_through() {
        let schema = spec(json!([{"rule": "self.min > 5"}]));
        let object = json!({"spec": {"min": 1}});
        assert_eq!(told(schema.clone(), object.clone(), Some(object.clone())), Vec::<String>::new());
        assert_eq!(told(schema, object, None).len(), 1);
    }

    #[test]
    fn a_rule_that_would_run_too_long_is_not_run() {
        let nested = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c != 'x')))";
        let list: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let told = told(spec(json!([{"rule": nested}, {"rule": "false"}])), json!({"spec": {"list": list}}), None);
        assert_eq!(told.len(), 1, "nothing more is run");
        assert!(told[0].contains("no further validation rules will be run due to call cost exceeds limit for rule"));
    }

    #[test]
    fn a_field_that_no_schema_has_is_found() {
        let schema = Schema::read(&spec(json!([])));
        let spec = &schema.properties["spec"];
        let of = |source: &str| undefined_field(&compile(source, Expected::Bool).unwrap(), spec, false);
        assert_eq!(of("self.other == 1"), Some("other".to_owned()));
        assert_eq!(of("self.list.all(x, x == self.nope)"), Some("nope".to_owned()));
        assert_eq!(of("has(self.min) && self.a__dash__b == 'x'"), None);
    }
}
