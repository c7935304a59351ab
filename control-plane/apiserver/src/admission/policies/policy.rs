//! A policy and a binding, read and compiled once for each version of them.

use serde_json::Value;
use skep_api::Reason;
use skep_api::cel::admission::{Composed, Scope};
use skep_api::cel::{self, Expected, Expression};

use crate::admission::dynamic::Criteria;

/// A policy.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) criteria: Criteria,
    /// Whether a request goes on when the policy can't be evaluated.
    pub(super) fails_open: bool,
    /// `apiVersion` and `kind` of the parameters.
    pub(super) params: Option<(String, String)>,
    /// In order; each may refer to those before it.
    pub(super) variables: Vec<(String, Expression)>,
    conditions: Vec<Expression>,
    pub(super) validations: Vec<Validation>,
    /// Keys and values of audit annotations.
    pub(super) annotations: Vec<(String, Expression)>,
    pub(super) mutations: Vec<Mutation>,
    /// Whether it is asked again after others have changed the object.
    pub(super) reinvoked: bool,
    /// What could not be compiled: stored by a server that knew more.
    pub(super) broken: Option<String>,
}

/// A rule of a validating policy.
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message_expression: Option<Expression>,
    pub(super) message: String,
    pub(super) reason: Reason,
}

/// A change that a mutating policy makes.
pub(super) enum Mutation {
    /// An expression that makes what is merged as by server-side apply.
    ApplyConfiguration(Expression),
    /// One that makes a JSON patch.
    JsonPatch(Expression),
}

/// A binding.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// Which of the policy's requests it is for; `None` is all.
    pub(super) criteria: Option<Criteria>,
    /// `paramRef`
    pub(super) reference: Value,
    /// Deny, Warn, Audit.
    pub(super) actions: Vec<String>,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Compiles expressions, and remembers what went wrong first.
struct Compiler {
    params: bool,
    variables: Vec<String>,
    broken: Option<String>,
}

impl Compiler {
    fn compile(&mut self, expression: &Value, expected: Expected) -> Option<Expression> {
        let scope = Scope { params: self.params, authorizer: true, variables: &self.variables };
        match scope.compile(text(expression).trim(), expected) {
            Ok(expression) => Some(expression),
            Err(error) => {
                self.broken.get_or_insert_with(|| format!("compilation error: {error}"));
                None
            }
        }
    }
}

impl Policy {
    pub(super) fn from_value(name: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let params = kind.is_object().then(|| (text(&kind["apiVersion"]).to_owned(), text(&kind["kind"]).to_owned()));
        let mut compiler = Compiler { params: params.is_some(), variables: Vec::new(), broken: None };
        let conditions = list(&spec["matchConditions"])
            .iter()
            .filter_map(|condition| compiler.compile(&condition["expression"], Expected::Bool))
            .collect();
        let mut variables = Vec::new();
        for variable in list(&spec["variables"]) {
            let name = text(&variable["name"]).to_owned();
            variables.extend(compiler.compile(&variable["expression"], Expected::Any).map(|e| (name.clone(), e)));
            compiler.variables.push(name);
        }
        let mut validations = Vec::new();
        for validation in list(&spec["validations"]) {
            let Some(expression) = compiler.compile(&validation["expression"], Expected::Bool) else { continue };
            let message = &validation["messageExpression"];
            validations.push(Validation {
                expression,
                message_expression: if text(message).is_empty() {
                    None
                } else {
                    compiler.compile(message, Expected::String)
                },
                message: text(&validation["message"]).trim().to_owned(),
                reason: validation["reason"].as_str().map_or(Reason::Invalid, Reason::parse),
            });
        }
        let annotations = list(&spec["auditAnnotations"])
            .iter()
            .filter_map(|annotation| {
                let expression = compiler.compile(&annotation["valueExpression"], Expected::StringOrNull)?;
                Some((text(&annotation["key"]).to_owned(), expression))
            })
            .collect();
        let mutations = list(&spec["mutations"])
            .iter()
            .filter_map(|mutation| match text(&mutation["patchType"]) {
                "JSONPatch" => {
                    compiler.compile(&mutation["jsonPatch"]["expression"], Expected::Any).map(Mutation::JsonPatch)
                }
                _ => compiler
                    .compile(&mutation["applyConfiguration"]["expression"], Expected::Any)
                    .map(Mutation::ApplyConfiguration),
            })
            .collect();
        Self {
            name: name.to_owned(),
            criteria: Criteria::from_value(&spec["matchConstraints"], "resourceRules"),
            fails_open: spec["failurePolicy"] == "Ignore",
            params,
            variables,
            conditions,
            validations,
            annotations,
            mutations,
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            broken: compiler.broken,
        }
    }

    /// Whether all match conditions hold. One that does not decides it, whatever others fail.
    ///
    /// # Errors
    /// What went wrong, when none is false.
    pub(super) fn judge_conditions(&self, composed: &Composed) -> Result<bool, String> {
        let mut failed = None;
        for condition in &self.conditions {
            match composed.evaluate(condition) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(_) => failed = failed.or(Some("a match condition must evaluate to bool".to_owned())),
                Err(error) => failed = failed.or(Some(error.0)),
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

impl Binding {
    pub(super) fn from_value(name: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        let resources = &spec["matchResources"];
        Self {
            name: name.to_owned(),
            policy: text(&spec["policyName"]).to_owned(),
            criteria: resources.is_object().then(|| Criteria::from_value(resources, "resourceRules")),
            reference: spec["paramRef"].clone(),
            actions: list(&spec["validationActions"]).iter().map(|action| text(action).to_owned()).collect(),
        }
    }
}
