//! Field selectors: `spec.nodeName=node-1,status.phase!=Running` (k8s.io/apimachinery/pkg/fields).

use super::ParseError;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path.
    pub field: String,
    /// The value.
    pub value: String,
    /// `=` and `==`, or else `!=`.
    pub equal: bool,
}

/// A conjunction of terms; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Reads a selector; `\,`, `\=` and `\\` are those characters.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut terms = Vec::new();
        let mut parts = split(text);
        // Upstream reads them in this order, which decides what is complained of first.
        parts.sort_unstable();
        for term in parts.into_iter().filter(|term| !term.is_empty()) {
            let invalid = || ParseError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, operator, value) = operator(term).ok_or_else(invalid)?;
            let value = unescape(value).map_err(ParseError)?;
            terms.push(FieldRequirement { field: field.to_owned(), value, equal: operator != "!=" });
        }
        Ok(Self(terms))
    }

    /// Its terms.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn operator(term: &str) -> Option<(&str, &'static str, &str)> {
    for (at, _) in term.char_indices() {
        for operator in ["!=", "==", "="] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(format!("invalid field selector: invalid escape sequence: \\{other}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            // The character's number is what upstream's message has.
            '=' => return Err(format!("invalid field selector: unescaped character in value: {}", u32::from('='))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<(String, String, bool)> {
        let selector = FieldSelector::parse(text).unwrap();
        selector.0.into_iter().map(|term| (term.field, term.value, term.equal)).collect()
    }

    #[test]
    fn terms_are_read_with_their_escapes() {
        let term = |field: &str, value: &str, equal| (field.to_owned(), value.to_owned(), equal);
        assert_eq!(parse(""), []);
        assert_eq!(
            parse("spec.nodeName=a,status.phase!=Running,x==y"),
            [term("spec.nodeName", "a", true), term("status.phase", "Running", false), term("x", "y", true)]
        );
        assert_eq!(parse(r"a=b\,c\=d\\"), [term("a", r"b,c=d\", true)]);
    }

    #[test]
    fn what_is_no_term_is_refused() {
        let cases = [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            ("z=1,a", "invalid selector: 'z=1,a'; can't understand 'a'"),
        ];
        for (text, expected) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
