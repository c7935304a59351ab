//! A structural schema as the engine uses it: the JSON schema of one version of a CustomResourceDefinition, read once into a tree with its patterns compiled.
//!
//! Invariant: immutable, shared by an `Arc`, gone with the last kind that holds it. What a schema may not say is refused when the definition is written
//! ([`crate::kinds::apiextensions`]); reading here never fails, and what it does not understand it does not check.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::Value;

use super::pattern;
use crate::cel::{Expected, Expression};

/// What `additionalProperties` allows.
#[derive(Clone, Debug)]
pub enum Additional {
    /// Anything, or nothing.
    Any(bool),
    /// Values of a schema.
    Of(Box<Schema>),
}

/// A rule of `x-kubernetes-validations`, as written.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The expression, compiled when it is first needed.
    compiled: OnceLock<Result<Arc<Expression>, String>>,
    /// The expression; it has to be true.
    pub rule: String,
    /// What is said when it is not.
    pub message: String,
    /// An expression that makes that message.
    pub message_expression: String,
    /// `FieldValueInvalid` and its like; empty is `FieldValueInvalid`.
    pub reason: String,
    /// The field that is blamed, relative to where the rule stands, such as `.spec.x`.
    pub field_path: String,
    /// Whether `oldSelf` is optional, so that the rule also stands at creation.
    pub optional_old_self: Option<bool>,
}

/// One node of a schema. The fields are those of `JSONSchemaProps`.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the names and meanings are those of OpenAPI v3 and of apiextensions/v1 JSONSchemaProps"
)]
pub struct Schema {
    pub type_: String,
    pub description: String,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Option<Additional>,
    pub items: Option<Box<Schema>>,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    pub list_type: String,
    pub list_map_keys: Vec<String>,
    pub map_type: String,
    pub rules: Vec<Rule>,
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<(String, Regex)>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    pub enum_: Option<Vec<Value>>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads a `JSONSchemaProps`.
    #[must_use]
    pub fn read(props: &Value) -> Self {
        let text = |field: &str| props[field].as_str().unwrap_or_default().to_owned();
        let flag = |field: &str| props[field].as_bool().unwrap_or_default();
        let count = |field: &str| props[field].as_u64();
        let texts = |field: &str| {
            let items = props[field].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let all = |field: &str| props[field].as_array().into_iter().flatten().map(Self::read).collect::<Vec<_>>();
        Self {
            type_: text("type"),
            description: text("description"),
            nullable: flag("nullable"),
            default: props.get("default").cloned(),
            properties: entries(&props["properties"]).map(|(name, props)| (name.clone(), Self::read(props))).collect(),
            additional: match &props["additionalProperties"] {
                Value::Bool(allowed) => Some(Additional::Any(*allowed)),
                schema @ Value::Object(_) => Some(Additional::Of(Box::new(Self::read(schema)))),
                _ => None,
            },
            items: props["items"].is_object().then(|| Box::new(Self::read(&props["items"]))),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: text("x-kubernetes-list-type"),
            list_map_keys: texts("x-kubernetes-list-map-keys"),
            map_type: text("x-kubernetes-map-type"),
            rules: props["x-kubernetes-validations"].as_array().into_iter().flatten().map(Rule::read).collect(),
            format: text("format"),
            maximum: props["maximum"].as_f64(),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: props["minimum"].as_f64(),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: props["pattern"].as_str().and_then(|text| Some((text.to_owned(), pattern::compile(text).ok()?))),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            multiple_of: props["multipleOf"].as_f64(),
            enum_: props["enum"].as_array().filter(|values| !values.is_empty()).cloned(),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts("required"),
            all_of: all("allOf"),
            any_of: all("anyOf"),
            one_of: all("oneOf"),
            not: props["not"].is_object().then(|| Box::new(Self::read(&props["not"]))),
        }
    }

    /// The schema of the values of a map.
    #[must_use]
    pub fn values(&self) -> Option<&Self> {
        match &self.additional {
            Some(Additional::Of(schema)) => Some(schema),
            Some(Additional::Any(_)) | None => None,
        }
    }

    /// The schema of a property, declared or of the map's values.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.values())
    }

    /// Whether any node of the schema has a default.
    #[must_use]
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.properties.values().any(Self::has_defaults)
            || self.values().is_some_and(Self::has_defaults)
            || self.items.as_deref().is_some_and(Self::has_defaults)
    }

    /// Whether any node of the schema has a rule.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.values().any(Self::has_rules)
            || self.values().is_some_and(Self::has_rules)
            || self.items.as_deref().is_some_and(Self::has_rules)
    }
}

impl Rule {
    /// The expression, ready to be evaluated; compiled once.
    pub(super) fn compiled(&self) -> Result<&Arc<Expression>, &String> {
        let make = || super::rules::compile(&self.rule, Expected::Bool).map(Arc::new);
        self.compiled.get_or_init(make).as_ref()
    }

    fn read(rule: &Value) -> Self {
        let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        Self {
            compiled: OnceLock::new(),
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"].as_bool(),
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
