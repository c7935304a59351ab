//! The text form of label selectors: `app=web,tier in (a,b),!old` (the lexer and parser of k8s.io/apimachinery/pkg/labels, error for error).

use std::collections::BTreeSet;

use super::label::{LabelSelector, Operator, Requirement};
use crate::names;

/// Reads a selector.
pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut terms = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Symbol("!") => {}
            Token::End => return Ok(LabelSelector::of(terms)),
            other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
        }
        terms.push(parser.term().map_err(|why| format!("unable to parse requirement: {why}"))?);
        match parser.next() {
            Token::End => return Ok(LabelSelector::of(terms)),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
            },
            other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    /// Symbols that begin no operator.
    Unknown(&'a str),
    End,
}

impl Token<'_> {
    fn text(&self) -> String {
        match self {
            Self::Word(text) => (*text).to_owned(),
            Self::Symbol(text) => (*text).to_owned(),
            Self::Unknown(text) => format!("error expected: keyword found '{text}'"),
            Self::End => String::new(),
        }
    }
}

const SYMBOLS: [&str; 9] = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token<'_>> {
    const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
    let mut out = Vec::new();
    // A NUL ends the text, as it does for upstream's lexer.
    let mut rest = text.split('\0').next().unwrap_or_default().trim_start_matches(SPACE);
    while let Some(first) = rest.chars().next() {
        let token = if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            rest = &rest[symbol.len()..];
            Token::Symbol(symbol)
        } else {
            let special = |c: char| SPACE.contains(&c) || "=!(),><".contains(c);
            let end = rest.find(special).unwrap_or(rest.len()).max(first.len_utf8());
            let (word, after) = rest.split_at(end);
            rest = after;
            if special(first) { Token::Unknown(word) } else { Token::Word(word) }
        };
        out.push(token);
        rest = rest.trim_start_matches(SPACE);
    }
    out
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn term(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else { return Err(format!("found '{}', expected: identifier", token.text())) };
        let faults = names::is_qualified_name(key);
        if !faults.is_empty() {
            // The path of the field is none here, which Go prints so.
            return Err(format!("<nil>: Invalid value: {key:?}: {}", faults.join("; ")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text())),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?.into_iter().map(str::to_owned).collect(),
            _ => vec![self.exact_value()?.to_owned()],
        };
        Requirement::new(key, operator, values)
    }

    fn exact_value(&mut self) -> Result<&'a str, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok("");
        }
        match self.next() {
            Token::Word(value) => Ok(value),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<&'a str>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let first = self.peek();
        match first {
            Token::Symbol(")") => {
                self.at += 1;
                Ok(BTreeSet::from([""]))
            }
            Token::Word(_) | Token::Symbol(",") => {
                let values = self.identifiers()?;
                match self.next() {
                    Token::Symbol(")") => Ok(values),
                    _ => Err(format!("found '{}', expected: ')'", first.text())),
                }
            }
            other => Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
    }

    /// Values and commas up to the closing parenthesis; an empty place is the empty value.
    fn identifiers(&mut self) -> Result<BTreeSet<&'a str>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.insert(value);
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => return Ok(values),
                        other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() {
                        values.insert("");
                    }
                    match self.peek() {
                        Token::Symbol(")") => {
                            values.insert("");
                            return Ok(values);
                        }
                        Token::Symbol(",") => {
                            values.insert("");
                        }
                        _ => {}
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            }
        }
    }
}
