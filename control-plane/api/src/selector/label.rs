//! Label selectors, as text in a query (k8s.io/apimachinery/pkg/labels) or as the object in a spec (metav1.LabelSelector).

use std::fmt;

use serde_json::Value;

use super::ParseError;
use crate::names;

/// How a label is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Equals(String),
    NotEquals(String),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
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
        Parser { tokens: tokens(text), at: 0 }.selector()
    }

    /// Reads a `metav1.LabelSelector`; `null` selects nothing, an empty object everything.
    ///
    /// # Errors
    /// For operators and values that do not go together.
    pub fn from_object(selector: &Value) -> Result<Self, ParseError> {
        let Some(selector) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut terms = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            terms.push(Requirement { key: key.clone(), operator: Operator::Equals(value) });
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = expression["values"].as_array();
            let values: Vec<String> =
                values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match (expression["operator"].as_str().unwrap_or_default(), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("In" | "NotIn", true) => {
                    return Err(ParseError("for 'in', 'notin' operators, values set can't be empty".to_owned()));
                }
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                ("Exists" | "DoesNotExist", false) => {
                    return Err(ParseError("values set must be empty for exists and does not exist".to_owned()));
                }
                (other, _) => return Err(ParseError(format!("{other:?} is not a valid label selector operator"))),
            };
            terms.push(Requirement { key, operator });
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { terms, nothing: false })
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
    fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::Equals(wanted) => value == Some(wanted),
            Operator::NotEquals(wanted) => value != Some(wanted),
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|wanted| wanted != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => {
                value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|n| n > *bound)
            }
            Operator::LessThan(bound) => value.and_then(|value| value.parse::<i64>().ok()).is_some_and(|n| n < *bound),
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
            match &term.operator {
                Operator::Equals(value) => write!(f, "{key}={value}")?,
                Operator::NotEquals(value) => write!(f, "{key}!={value}")?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Operator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Symbol(symbol) => f.write_str(symbol),
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    const SYMBOLS: [&str; 9] = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            out.push(Token::Symbol(symbol));
            rest = rest[symbol.len()..].trim_start();
            continue;
        }
        let special = |c: char| c.is_whitespace() || "=!(),><".contains(c);
        let end = rest.find(special).unwrap_or(rest.len()).max(first.len_utf8());
        out.push(Token::Word(rest[..end].to_owned()));
        rest = rest[end..].trim_start();
    }
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn selector(mut self) -> Result<LabelSelector, ParseError> {
        let mut terms = Vec::new();
        if self.tokens.is_empty() {
            return Ok(LabelSelector::default());
        }
        loop {
            terms.push(self.term()?);
            match self.next() {
                None => break,
                Some(Token::Symbol(",")) => {
                    if self.peek().is_none() {
                        return Err(ParseError("found '', expected: identifier after ','".to_owned()));
                    }
                }
                Some(other) => return Err(ParseError(format!("found '{other}', expected: ',' or 'end of string'"))),
            }
        }
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { terms, nothing: false })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn term(&mut self) -> Result<Requirement, ParseError> {
        if self.peek() == Some(&Token::Symbol("!")) {
            self.at += 1;
            return Ok(Requirement { key: self.key()?, operator: Operator::DoesNotExist });
        }
        let key = self.key()?;
        let operator = match self.peek().cloned() {
            None | Some(Token::Symbol(",")) => return Ok(Requirement { key, operator: Operator::Exists }),
            Some(token) => token,
        };
        self.at += 1;
        let operator = match operator {
            Token::Symbol("=" | "==") => Operator::Equals(self.exact_value(&key)?),
            Token::Symbol("!=") => Operator::NotEquals(self.exact_value(&key)?),
            Token::Symbol(">") => Operator::GreaterThan(self.number()?),
            Token::Symbol("<") => Operator::LessThan(self.number()?),
            Token::Word(word) if word == "in" => Operator::In(self.values(&key)?),
            Token::Word(word) if word == "notin" => Operator::NotIn(self.values(&key)?),
            other => {
                return Err(ParseError(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")));
            }
        };
        Ok(Requirement { key, operator })
    }

    fn key(&mut self) -> Result<String, ParseError> {
        match self.next() {
            Some(Token::Word(key)) => {
                let wrong = names::is_qualified_name(&key);
                match wrong.is_empty() {
                    true => Ok(key),
                    false => Err(ParseError(format!("key: Invalid value: {key:?}: {}", wrong.join("; ")))),
                }
            }
            Some(other) => Err(ParseError(format!("found '{other}', expected: !, identifier, or 'end of string'"))),
            None => Err(ParseError("found '', expected: !, identifier, or 'end of string'".to_owned())),
        }
    }

    fn checked(key: &str, value: String) -> Result<String, ParseError> {
        let wrong = names::is_label_value(&value);
        if wrong.is_empty() {
            return Ok(value);
        }
        Err(ParseError(format!("values[0][{key}]: Invalid value: {value:?}: {}", wrong.join("; "))))
    }

    fn exact_value(&mut self, key: &str) -> Result<String, ParseError> {
        match self.peek().cloned() {
            None | Some(Token::Symbol(",")) => Ok(String::new()),
            Some(Token::Word(value)) => {
                self.at += 1;
                Self::checked(key, value)
            }
            Some(other) => Err(ParseError(format!("found '{other}', expected: identifier"))),
        }
    }

    fn number(&mut self) -> Result<i64, ParseError> {
        match self.next() {
            Some(Token::Word(value)) => value.parse().map_err(|_| {
                ParseError(format!(
                    "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ))
            }),
            other => Err(ParseError(format!(
                "found '{}', expected: identifier",
                other.map(|t| t.to_string()).unwrap_or_default()
            ))),
        }
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, ParseError> {
        let found = |token: Option<Token>| token.map(|token| token.to_string()).unwrap_or_default();
        match self.next() {
            Some(Token::Symbol("(")) => {}
            other => return Err(ParseError(format!("found '{}', expected: '('", found(other)))),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(value)) => values.push(Self::checked(key, value)?),
                Some(Token::Symbol(",")) => {
                    values.push(String::new());
                    continue;
                }
                Some(Token::Symbol(")")) => {
                    values.push(String::new());
                    break;
                }
                other => return Err(ParseError(format!("found '{}', expected: ',', or identifier", found(other)))),
            }
            match self.next() {
                Some(Token::Symbol(",")) => {}
                Some(Token::Symbol(")")) => break,
                other => return Err(ParseError(format!("found '{}', expected: ',' or ')'", found(other)))),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
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
}
