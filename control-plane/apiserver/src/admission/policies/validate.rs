//! Validating policies judge.

use serde_json::{Value, json};
use skep_api::cel::admission::Composed;
use skep_api::{Reason, Status, cel};

use super::policy::{Binding, Policy, Validation};
use super::{Policies, compose, parameters, refusal};
use crate::admission::dynamic::{Attributes, Notes};
use crate::admission::webhooks::Surroundings;

/// The longest message that an expression may make, in bytes.
const MESSAGE: usize = 5 * 1024;
/// The longest value of an audit annotation, in bytes.
const ANNOTATION: usize = 10 * 1024;
/// The most failures that are written down in one audit annotation.
const FAILURES: usize = 50;

/// Why a rule says no.
struct Denial {
    message: String,
    reason: Reason,
}

impl Policies {
    /// Lets the validating policies judge an object (null for deletes).
    ///
    /// # Errors
    /// The first denial.
    pub(crate) fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        surroundings: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let mut verdict = Verdict::default();
        for (policy, bindings) in self.validating.bound.load().iter() {
            let matched = policy.criteria.matches(attributes, object, surroundings.objects, surroundings.table);
            let kind = match matched {
                Ok(None) => continue,
                Ok(Some(matched)) => matched.kind,
                Err(status) => {
                    verdict.misconfigured(policy, None, &status.message);
                    continue;
                }
            };
            for binding in bindings {
                let within = binding.criteria.as_ref().map_or(Ok(true), |criteria| {
                    criteria.narrows_to(attributes, object, surroundings.objects, surroundings.table)
                });
                let params = match within {
                    Ok(false) => continue,
                    Ok(true) => parameters::collect(policy, binding, attributes, surroundings),
                    Err(status) => Err(status.message),
                };
                let params = match params {
                    Ok(params) => params,
                    Err(why) => {
                        verdict.misconfigured(policy, Some(binding), &why);
                        continue;
                    }
                };
                for param in params {
                    let composed = compose(policy, attributes, object, &kind, param.as_deref(), surroundings)?;
                    verdict.evaluate(policy, binding, &composed, notes);
                }
            }
        }
        verdict.finish(attributes, notes)
    }
}

/// What all policies together say.
#[derive(Default)]
struct Verdict {
    denied: Option<Denial>,
    failures: Vec<Value>,
}

impl Verdict {
    fn deny(&mut self, policy: &Policy, binding: Option<&Binding>, message: &str, reason: Reason) {
        let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {message}", policy.name);
        self.denied.get_or_insert(Denial { message, reason });
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if !policy.fails_open {
            let what = if binding.is_some() { "binding" } else { "policy" };
            self.deny(policy, binding, &format!("failed to configure {what}: {why}"), Reason::Invalid);
        }
    }

    fn evaluate(&mut self, policy: &Policy, binding: &Binding, composed: &Composed, notes: &mut Notes) {
        let holds = match &policy.broken {
            Some(why) => Err(why.clone()),
            None => policy.judge_conditions(composed),
        };
        match holds {
            Ok(false) => return,
            Ok(true) => {}
            Err(_) if policy.fails_open => return,
            Err(why) => return self.act(policy, binding, 0, Denial { message: why, reason: Reason::Invalid }, notes),
        }
        for (index, validation) in policy.validations.iter().enumerate() {
            let denial = match composed.evaluate(&validation.expression) {
                Ok(cel::Value::Bool(true)) => continue,
                Ok(_) => Denial { message: message(validation, composed), reason: validation.reason },
                Err(_) if policy.fails_open => continue,
                Err(error) => Denial { message: error.0, reason: Reason::Invalid },
            };
            self.act(policy, binding, index, denial, notes);
        }
        for (key, expression) in &policy.annotations {
            match composed.evaluate(expression) {
                Ok(cel::Value::String(value)) if !value.trim().is_empty() => {
                    let value: String = cut(value.trim(), ANNOTATION).to_owned();
                    let key = format!("{}/{key}", policy.name);
                    match notes.annotations.iter_mut().find(|(there, _)| *there == key) {
                        Some((_, there)) if there.split(", ").any(|one| one == value) => {}
                        Some((_, there)) => *there = format!("{there}, {value}"),
                        None => notes.annotate(key, value),
                    }
                }
                Ok(_) => {}
                Err(_) if policy.fails_open => {}
                Err(error) => self.deny(policy, Some(binding), &error.0, Reason::Invalid),
            }
        }
    }

    /// Does with a denial what the binding says.
    fn act(&mut self, policy: &Policy, binding: &Binding, index: usize, denial: Denial, notes: &mut Notes) {
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.deny(policy, Some(binding), &denial.message, denial.reason),
                "Warn" => notes.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, denial.message
                )),
                _ => self.failures.push(json!({
                    "message": denial.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": index, "validationActions": binding.actions,
                })),
            }
        }
    }

    fn finish(mut self, attributes: &Attributes<'_>, notes: &mut Notes) -> Result<(), Status> {
        self.failures.truncate(FAILURES);
        if !self.failures.is_empty() {
            let failures = Value::Array(self.failures).to_string();
            notes.annotate("validation.policy.admission.k8s.io/validation_failure", failures);
        }
        match self.denied {
            Some(denial) => Err(refusal(attributes, denial.reason, &denial.message)),
            None => Ok(()),
        }
    }
}

/// What a rule that does not hold says: by its expression, its text, or itself.
fn message(validation: &Validation, composed: &Composed) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| composed.evaluate(expression).ok());
    if let Some(cel::Value::String(made)) = made {
        let made = made.trim();
        if !made.is_empty() && made.len() <= MESSAGE && !made.contains('\n') {
            return made.to_owned();
        }
    }
    if validation.message.is_empty() {
        return format!("failed expression: {}", validation.expression.source());
    }
    validation.message.clone()
}

/// The beginning of a text, at most so many bytes of it.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
