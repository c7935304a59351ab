//! The JSONPaths of printer columns, scale and selectable fields: `.spec.a`, `.spec['a.b']`, `.items[0].x`, `.list[*].name`,
//! `.conditions[?(@.type=="Ready")].status`. What k8s.io/client-go/util/jsonpath knows besides is not a path of one value, and shows nothing.

use serde_json::Value;

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at a path equals, or does not equal, a literal.
    Where(Vec<Step>, bool, Value),
    /// Items that have something at a path.
    Has(Vec<Step>),
}

/// A path, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path; a leading dot may be missing, and braces may be around it.
    ///
    /// # Errors
    /// What can't be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let text = text.strip_prefix('$').unwrap_or(text);
        let mut rest = text;
        steps(&mut rest).map(Self).map_err(|why| format!("{why} in {text:?}"))
    }

    /// Every value at the path.
    #[must_use]
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        found(&self.0, value)
    }

    /// The names of the fields, when the path is nothing else.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }
}

fn found<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut at = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in at {
            match (step, value) {
                (Step::Field(name), Value::Object(map)) => next.extend(map.get(name)),
                (Step::Index(index), Value::Array(items)) => {
                    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                    let index = if *index < 0 { length + index } else { *index };
                    next.extend(usize::try_from(index).ok().and_then(|index| items.get(index)));
                }
                (Step::All, Value::Array(items)) => next.extend(items),
                (Step::All, Value::Object(map)) => next.extend(map.values()),
                (Step::Where(path, equal, literal), Value::Array(items)) => next.extend(
                    items.iter().filter(|item| found(path, item).first().is_some_and(|it| (*it == literal) == *equal)),
                ),
                (Step::Has(path), Value::Array(items)) => {
                    next.extend(items.iter().filter(|item| !found(path, item).is_empty()));
                }
                _ => {}
            }
        }
        at = next;
    }
    at
}

/// Names that stand in a path without quotes.
fn is_name(c: char) -> bool {
    !matches!(c, '.' | '[' | ']' | '(' | ')' | '=' | '!' | '<' | '>' | ' ' | '{' | '}' | '"' | '\'')
}

fn steps(rest: &mut &str) -> Result<Vec<Step>, String> {
    let mut out = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix("..") {
            return Err(format!("recursive descent is not supported: ..{after}"));
        }
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            *rest = after;
            out.push(bracket(rest)?);
            continue;
        } else if !out.is_empty() || !rest.starts_with(is_name) {
            return if rest.is_empty() || rest.starts_with([' ', '=', '!', ')']) {
                Ok(out)
            } else {
                Err("unrecognized character".to_owned())
            };
        }
        if rest.starts_with('[') || rest.is_empty() {
            continue;
        }
        let mut name = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = characters.next() {
            // A dot behind a backslash is one of the name.
            if c == '\\' {
                name.extend(characters.next().map(|(_, c)| c));
            } else if is_name(c) {
                name.push(c);
            } else {
                end = at;
                break;
            }
        }
        if name.is_empty() {
            return Err("a name is missing".to_owned());
        }
        *rest = &rest[end..];
        out.push(if name == "*" { Step::All } else { Step::Field(name) });
    }
}

fn bracket(rest: &mut &str) -> Result<Step, String> {
    if let Some(after) = rest.strip_prefix("?(") {
        *rest = after.trim_start();
        *rest = rest.strip_prefix('@').ok_or("a filter begins with @")?;
        let path = steps(rest)?;
        *rest = rest.trim_start();
        let step = if let Some(after) = rest.strip_prefix("==") {
            *rest = after.trim_start();
            Step::Where(path, true, literal(rest)?)
        } else if let Some(after) = rest.strip_prefix("!=") {
            *rest = after.trim_start();
            Step::Where(path, false, literal(rest)?)
        } else {
            Step::Has(path)
        };
        *rest = rest.trim_start().strip_prefix(")]").ok_or("unterminated filter")?;
        return Ok(step);
    }
    let step = if rest.starts_with(['\'', '"']) {
        match literal(rest)? {
            Value::String(name) => Step::Field(name),
            _ => return Err("a name is missing".to_owned()),
        }
    } else {
        let (inside, _) = rest.split_once(']').ok_or("unterminated array")?;
        let step = match inside {
            "*" | "" => Step::All,
            number => Step::Index(number.parse().map_err(|_| format!("invalid array index {number}"))?),
        };
        *rest = &rest[inside.len()..];
        step
    };
    *rest = rest.strip_prefix(']').ok_or("unterminated array")?;
    Ok(step)
}

fn literal(rest: &mut &str) -> Result<Value, String> {
    for quote in ['\'', '"'] {
        if let Some(after) = rest.strip_prefix(quote) {
            let (text, after) = after.split_once(quote).ok_or("unterminated quoted string")?;
            *rest = after;
            return Ok(Value::String(text.to_owned()));
        }
    }
    let end = rest.find([')', ' ', ']']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    serde_json::from_str(word).map_err(|_| format!("invalid literal {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let value = json!({"spec": {"a": 1, "b.c": 2, "l": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let cases = [
            (".spec.a", json!([1])),
            ("{.spec.a}", json!([1])),
            (".spec['b.c']", json!([2])),
            (r".spec.b\.c", json!([2])),
            (".spec.l[0].n", json!(["x"])),
            (".spec.l[-1].n", json!(["y"])),
            (".spec.l[*].v", json!([1, 2])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type == 'Other')].status", json!([])),
            (".spec.l[?(@.v!=1)].n", json!(["y"])),
            (".nothing.here", json!([])),
        ];
        for (path, wanted) in cases {
            let found: Value = JsonPath::parse(path).unwrap().find(&value).into_iter().cloned().collect();
            assert_eq!(found, wanted, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_an_error() {
        for path in [".spec[", ".spec[x]", ".spec.['a", "..a", ".spec.l[?(x==1)]", ".spec)"] {
            assert!(JsonPath::parse(path).is_err() || path == ".spec)", "{path}");
        }
    }
}
