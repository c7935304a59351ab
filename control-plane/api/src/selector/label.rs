//! Label selectors, as text in a query (k8s.io/apimachinery/pkg/labels) or as the object in a spec (metav1.LabelSelector).

use std::fmt;

use serde_json::Value;

use super::ParseError;
use crate::names;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted; one for equality and order, none for existence.
    values: Vec<String>,
}

/// A conjunction of terms. Without terms it selects everything, but for the selector of nothing ([`LabelSelector::nothing`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    terms: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// The selector that matches no object: what an absent `metav1.LabelSelector` is.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { terms: Vec::new(), nothing: true }
    }

    /// Reads `app=web,tier in (a,b),!old,new,n>3`.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        super::label_text::parse(text).map_err(ParseError)
    }

    /// Reads a `metav1.LabelSelector`; `null` selects nothing, an empty object everything.
    ///
    /// # Errors
    /// For keys, operators and values that are not what they should be or do not go together (`LabelSelectorAsSelector`).
    pub fn from_object(selector: &Value) -> Result<Self, ParseError> {
        let Some(selector) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut terms = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            terms.push(Requirement::new(key, Operator::Equals, vec![value]).map_err(ParseError)?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default();
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(ParseError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            terms.push(Requirement::new(key, operator, values).map_err(ParseError)?);
        }
        Ok(Self::of(terms))
    }

    pub(super) fn of(mut terms: Vec<Requirement>) -> Self {
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Self { terms, nothing: false }
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty() && !self.nothing
    }

    /// Whether labels match; `label` gives the value of a key.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.terms.iter().all(|term| term.matches(label(&term.key)))
    }

    /// Whether the labels of an object (a JSON map, or null) match.
    #[must_use]
    pub fn matches_object(&self, labels: &Value) -> bool {
        self.matches(|key| labels[key].as_str())
    }
}

impl Requirement {
    /// A term that makes sense; else what is wrong with it, as upstream's aggregate of errors prints (`labels.NewRequirement`).
    pub(super) fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let mut wrong = Vec::new();
        let faults = names::is_qualified_name(key);
        if !faults.is_empty() {
            wrong.push(format!("key: Invalid value: {key:?}: {}", faults.join("; ")));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => wrong
                .push("values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty".to_owned()),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => wrong.push(format!(
                "values: Invalid value: {}: values set must be empty for exists and does not exist",
                Value::from(values.clone())
            )),
            Operator::GreaterThan | Operator::LessThan => {
                wrong.extend(values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()).map(
                    |(at, value)| {
                        format!(
                            "values[{at}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                        )
                    },
                ));
            }
            Operator::In
            | Operator::NotIn
            | Operator::Equals
            | Operator::DoubleEquals
            | Operator::NotEquals
            | Operator::Exists
            | Operator::DoesNotExist => {}
        }
        for (at, value) in values.iter().enumerate() {
            let faults = names::is_label_value(value);
            if !faults.is_empty() {
                wrong.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", faults.join("; ")));
            }
        }
        match wrong.as_slice() {
            [] => {
                values.sort();
                Ok(Self { key: key.to_owned(), operator, values })
            }
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let bound = || self.values.first().and_then(|bound| bound.parse::<i64>().ok());
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(among),
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|value| !among(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
            Operator::LessThan => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        }
    }
}

/// Upstream's text form, as it stands in a Scale's `status.selector`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            let key = &term.key;
            let value = term.values.first().map(String::as_str).unwrap_or_default();
            match term.operator {
                Operator::Equals => write!(f, "{key}={value}")?,
                Operator::DoubleEquals => write!(f, "{key}=={value}")?,
                Operator::NotEquals => write!(f, "{key}!={value}")?,
                Operator::In => write!(f, "{key} in ({})", term.values.join(","))?,
                Operator::NotIn => write!(f, "{key} notin ({})", term.values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{value}")?,
                Operator::LessThan => write!(f, "{key}<{value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches_object(&labels)
    }

    #[test]
    fn each_operator_selects_as_upstream_does() {
        let labels = json!({"app": "web", "n": "5", "empty": ""});
        for selector in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "x!=y",
            "!x",
            "app in (db, web)",
            "app notin (db)",
            "x notin (a)",
            "n>4",
            "n<6",
            "app=web,n>4",
            "empty=",
            "empty in ()",
            "app in (web),!x",
        ] {
            assert!(matches(selector, labels.clone()), "{selector}");
        }
        for selector in
            ["x", "app=db", "app!=web", "!app", "app in (db)", "app notin (web)", "n>5", "n<5", "x>1", "app=web,x"]
        {
            assert!(!matches(selector, labels.clone()), "{selector}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for selector in ["a b", "=x", "a in x", "a in (b", "a>b", "a,", ",a", "!", "a=b c", "a=(b)", "-a=b", "a=b@"] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches_object(&json!({})));
        assert!(LabelSelector::from_object(&json!({})).unwrap().matches_object(&json!({})));
    }

    #[test]
    fn an_object_is_written_as_text() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}],
        });
        assert_eq!(LabelSelector::from_object(&selector).unwrap().to_string(), "app=web,tier in (a,b),!x");
    }

    #[test]
    fn errors_have_upstreams_words() {
        let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        let cases = [
            ("-a=b", format!("unable to parse requirement: <nil>: Invalid value: \"-a\": {name}")),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
            ("!<", "unable to parse requirement: found '<', expected: identifier".to_owned()),
            ("a=b,,c", "found ',', expected: identifier after ','".to_owned()),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
            ("a in b", "unable to parse requirement: found 'b' expected: '('".to_owned()),
            ("a>b", "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer".to_owned()),
            (",a", "found ',', expected: !, identifier, or 'end of string'".to_owned()),
        ];
        for (selector, expected) in cases {
            assert_eq!(LabelSelector::parse(selector).unwrap_err().to_string(), expected, "{selector}");
        }
        let object = json!({"matchExpressions": [{"key": "-q", "operator": "In"}]});
        assert_eq!(
            LabelSelector::from_object(&object).unwrap_err().to_string(),
            format!(
                "[key: Invalid value: \"-q\": {name}, values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty]"
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_again_the_same(text in "[ab=!(),<>in 1/é\\t-]{0,16}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                let again = LabelSelector::parse(&selector.to_string()).unwrap();
                proptest::prop_assert_eq!(selector, again);
            }
        }
    }
}
