//! The variables of admission's expressions: `object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables` and `authorizer`
//! (k8s.io/apiserver/pkg/admission/plugin/cel, and pkg/cel/library/authz.go for what an authorizer can be asked).

use std::fmt::Debug;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError};

use super::{EvaluationError, Expected, Expression, Value, convert, environment};
use crate::field::{Error, ErrorList, Path};

/// What an expression may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Whether there are parameters.
    pub params: bool,
    /// Whether the authorizer may be asked.
    pub authorizer: bool,
    /// The names below `variables`.
    pub variables: &'a [String],
}

impl Scope<'_> {
    /// Compiles an expression in this scope.
    ///
    /// # Errors
    /// As [`Expression::compile`].
    pub fn compile(&self, expression: &str, expected: Expected) -> Result<Expression, super::CompileError> {
        let qualified: Vec<String> = self.variables.iter().map(|name| format!("variables.{name}")).collect();
        let mut names = vec!["object", "oldObject", "request", "namespaceObject"];
        if self.params {
            names.push("params");
        }
        if self.authorizer {
            names.push("authorizer");
        }
        names.extend(qualified.iter().map(String::as_str));
        Expression::compile(expression, &names, expected)
    }
}

/// What is wrong with an expression.
#[must_use]
pub fn validate(expression: &str, scope: &Scope<'_>, expected: Expected, path: &Path) -> ErrorList {
    match scope.compile(expression, expected) {
        Ok(_) => ErrorList::new(),
        Err(error) => vec![Error::invalid(path, expression, error.to_string())],
    }
}

/// A question to the authorizer. Empty texts are "all" or "none", as in a SubjectAccessReview.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the service account that is asked about; else it is who makes the request.
    pub service_account: Option<(String, String)>,
    /// The path, for what is no resource.
    pub path: Option<String>,
    /// The group.
    pub group: String,
    /// The plural name.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The verb.
    pub verb: String,
}

/// The authorizer's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// Who answers the questions of expressions.
pub trait Authority: Debug + Send + Sync {
    /// Whether something is allowed.
    fn check(&self, check: &Check) -> Ruling;
}

/// The values of the variables for one request.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The object as it would be stored; null for deletes.
    pub object: Value,
    /// What was there; null for creates.
    pub old_object: Value,
    /// The AdmissionRequest, without the objects.
    pub request: Value,
    /// The namespace of the object; null where it has none.
    pub namespace_object: Value,
    /// The parameters of a policy.
    pub params: Option<Value>,
    /// Who answers `authorizer`, and what `authorizer.requestResource` is about.
    pub authorizer: Option<(Arc<dyn Authority>, Check)>,
}

impl Inputs {
    /// A context with these variables.
    #[must_use]
    pub fn context(&self) -> Context<'static, 'static> {
        let mut context = Context::with_env(environment().clone());
        context.add_variable_from_value("object", self.object.clone());
        context.add_variable_from_value("oldObject", self.old_object.clone());
        context.add_variable_from_value("request", self.request.clone());
        context.add_variable_from_value("namespaceObject", self.namespace_object.clone());
        if let Some(params) = &self.params {
            context.add_variable_from_value("params", params.clone());
        }
        if let Some((authority, resource)) = &self.authorizer {
            let asked = |check: Check| Asked { authority: authority.clone(), check, ruling: None };
            context.add_variable_from_value("authorizer", asked(Check::default()).into_value());
            context.add_variable_from_value("authorizer.requestResource", asked(resource.clone()).into_value());
            add_functions(&mut context);
        }
        context
    }

    /// A context with these variables, and with those of a policy, each evaluated once and in order. What has no value is reported when an expression refers to it.
    #[must_use]
    pub fn with_variables<'a>(&self, variables: impl IntoIterator<Item = (&'a str, &'a Expression)>) -> Composed {
        let mut context = self.context();
        let mut failed = Vec::new();
        let mut values = Vec::new();
        for (name, expression) in variables {
            match expression.evaluate(&context) {
                Ok(value) => {
                    values.push((name.to_owned(), value));
                    context.add_variable_from_value("variables", convert::map(values.iter().cloned()));
                }
                Err(error) => failed.push((name.to_owned(), error)),
            }
        }
        if values.is_empty() {
            context.add_variable_from_value("variables", convert::map([]));
        }
        Composed { context, failed }
    }
}

/// A context with the variables of a policy.
pub struct Composed {
    context: Context<'static, 'static>,
    failed: Vec<(String, EvaluationError)>,
}

impl Composed {
    /// Evaluates an expression.
    ///
    /// # Errors
    /// What went wrong in it, or in a variable that it refers to.
    pub fn evaluate(&self, expression: &Expression) -> Result<Value, EvaluationError> {
        let wrap =
            |why: &str| EvaluationError(format!("expression '{}' resulted in error: {why}", expression.source()));
        expression.evaluate(&self.context).map_err(|error| {
            let of_variable = self.failed.iter().find(|(name, _)| error.0 == format!("no such key: {name}"));
            match of_variable {
                Some((name, why)) => wrap(&format!("composited variable \"{name}\" fails to evaluate: {}", why.0)),
                None => wrap(&error.0),
            }
        })
    }
}

/// A question on its way, or with its answer.
#[derive(Clone, Debug)]
struct Asked {
    authority: Arc<dyn Authority>,
    check: Check,
    ruling: Option<Ruling>,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.check == other.check && self.ruling == other.ruling
    }
}

impl Eq for Asked {}

impl Opaque for Asked {
    fn runtime_type_name(&self) -> &str {
        if self.ruling.is_some() { "kubernetes.authorization.Decision" } else { "kubernetes.authorization.Authorizer" }
    }
}

impl Asked {
    fn into_value(self) -> Value {
        Value::Opaque(Arc::new(self))
    }
}

type Outcome = Result<Value, ExecutionError>;

fn asked<'a>(function: &str, value: &'a Value) -> Result<&'a Asked, ExecutionError> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Asked>(),
        _ => None,
    }
    .ok_or_else(|| ExecutionError::no_such_member_overload(function, vec![value.type_of().to_string()]))
}

/// The question with one more part.
fn refined(function: &str, value: &Value, refine: impl FnOnce(&mut Check)) -> Outcome {
    let mut next = asked(function, value)?.clone();
    refine(&mut next.check);
    Ok(next.into_value())
}

fn ruling(function: &str, value: &Value) -> Result<Ruling, ExecutionError> {
    asked(function, value)?
        .ruling
        .clone()
        .ok_or_else(|| ExecutionError::no_such_member_overload(function, vec![value.type_of().to_string()]))
}

/// The methods of an authorizer. None of their names is one of the environment's, so that adding them can't fail.
fn add_functions(context: &mut Context<'static, 'static>) {
    macro_rules! add {
        ($name:literal, $function:expr) => {
            let added = context.add_function($name, $function);
            debug_assert!(added.is_ok(), $name);
        };
    }
    add!("jsonpatch.escapeKey", |key: Arc<String>| -> String { key.replace('~', "~0").replace('/', "~1") });
    add!("path", |This(this): This<Value>, path: Arc<String>| -> Outcome {
        refined("path", &this, |check| check.path = Some(path.to_string()))
    });
    add!("group", |This(this): This<Value>, group: Arc<String>| -> Outcome {
        refined("group", &this, |check| check.group = group.to_string())
    });
    add!("serviceAccount", |This(this): This<Value>, namespace: Arc<String>, name: Arc<String>| -> Outcome {
        refined("serviceAccount", &this, |check| {
            check.service_account = Some((namespace.to_string(), name.to_string()))
        })
    });
    add!("resource", |This(this): This<Value>, resource: Arc<String>| -> Outcome {
        refined("resource", &this, |check| check.resource = resource.to_string())
    });
    add!("subresource", |This(this): This<Value>, subresource: Arc<String>| -> Outcome {
        refined("subresource", &this, |check| check.subresource = subresource.to_string())
    });
    add!("namespace", |This(this): This<Value>, namespace: Arc<String>| -> Outcome {
        refined("namespace", &this, |check| check.namespace = namespace.to_string())
    });
    add!("name", |This(this): This<Value>, name: Arc<String>| -> Outcome {
        refined("name", &this, |check| check.name = name.to_string())
    });
    add!("check", |This(this): This<Value>, verb: Arc<String>| -> Outcome {
        let mut next = asked("check", &this)?.clone();
        next.check.verb = verb.to_string();
        next.ruling = Some(next.authority.check(&next.check));
        Ok(next.into_value())
    });
    add!("allowed", |This(this): This<Value>| -> Outcome { Ok(Value::Bool(ruling("allowed", &this)?.allowed)) });
    add!("reason", |This(this): This<Value>| -> Outcome { Ok(ruling("reason", &this)?.reason.into()) });
    add!("errored", |This(this): This<Value>| -> Outcome { ruling("errored", &this).map(|_| Value::Bool(false)) });
    add!("error", |This(this): This<Value>| -> Outcome { ruling("error", &this).map(|_| String::new().into()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::from_json;
    use serde_json::json;

    #[derive(Debug)]
    struct OnlyPods;

    impl Authority for OnlyPods {
        fn check(&self, check: &Check) -> Ruling {
            Ruling { allowed: check.resource == "pods" && check.verb == "create", reason: "because".to_owned() }
        }
    }

    fn inputs() -> Inputs {
        Inputs {
            object: from_json(&json!({"spec": {"replicas": 3}})),
            old_object: Value::Null,
            request: from_json(&json!({"operation": "CREATE"})),
            namespace_object: Value::Null,
            params: None,
            authorizer: Some((Arc::new(OnlyPods), Check { resource: "pods".to_owned(), ..Check::default() })),
        }
    }

    fn evaluate(source: &str, variables: &[(&str, &str)]) -> Result<Value, String> {
        let names: Vec<String> = variables.iter().map(|(name, _)| (*name).to_owned()).collect();
        let scope = Scope { params: false, authorizer: true, variables: &names };
        let compile = |source: &str| scope.compile(source, Expected::Any).map_err(|error| error.to_string());
        let compiled: Vec<_> =
            variables.iter().map(|(name, source)| compile(source).map(|e| (*name, e))).collect::<Result<_, _>>()?;
        let composed = inputs().with_variables(compiled.iter().map(|(name, expression)| (*name, expression)));
        composed.evaluate(&compile(source)?).map_err(|error| error.0)
    }

    #[test]
    fn variables_are_made_of_those_before_them() {
        let variables = [("replicas", "object.spec.replicas"), ("odd", "variables.replicas % 2 == 1")];
        assert_eq!(evaluate("variables.odd && variables.replicas > 1", &variables), Ok(Value::Bool(true)));
    }

    #[test]
    fn a_variable_without_a_value_matters_only_where_it_is_used() {
        let variables = [("broken", "object.spec.other")];
        assert_eq!(evaluate("object.spec.replicas == 3", &variables), Ok(Value::Bool(true)));
        assert_eq!(
            evaluate("variables.broken == 3", &variables),
            Err("expression 'variables.broken == 3' resulted in error: composited variable \"broken\" fails to evaluate: no such key: other".to_owned())
        );
    }

    #[test]
    fn a_variable_that_is_not_there_is_not_accepted() {
        assert!(evaluate("variables.other == 1", &[("one", "1")]).unwrap_err().contains("undeclared reference"));
        assert!(evaluate("params.a == 1", &[]).unwrap_err().contains("undeclared reference to 'params'"));
    }

    #[test]
    fn patches_are_maps() {
        let patch = evaluate("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}", &[]).unwrap();
        assert_eq!(crate::cel::to_json(&patch), Some(json!({"spec": {"replicas": 4}})));
        let patch =
            evaluate("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'), value: 1}]", &[]).unwrap();
        assert_eq!(crate::cel::to_json(&patch), Some(json!([{"op": "add", "path": "/a/b~1c", "value": 1}])));
        assert!(evaluate("Other{a: 1}", &[]).unwrap_err().contains("undeclared reference to 'Other'"));
    }

    #[test]
    fn the_authorizer_answers() {
        for source in [
            "authorizer.group('').resource('pods').namespace('a').check('create').allowed()",
            "!authorizer.group('').resource('pods').check('delete').allowed()",
            "authorizer.requestResource.check('create').allowed()",
            "authorizer.path('/healthz').check('get').reason() == 'because'",
        ] {
            assert_eq!(evaluate(source, &[]), Ok(Value::Bool(true)), "{source}");
        }
    }
}
