//! Patterns as Go's `regexp` reads them, compiled here: classes such as `\d` are of ASCII, and what the two dialects write differently is rewritten.
//! Both engines are free of backtracking, so that no pattern takes more than linear time.

use regex::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// Compiles a pattern of Go's dialect.
///
/// # Errors
/// When it is none, or too large.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translated(pattern)).size_limit(SIZE_LIMIT).build()
}

fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(next) = rest.next() {
        match next {
            '\\' => match rest.next() {
                Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                // `\Q…\E` is the text itself.
                Some('Q') => {
                    let mut text = String::new();
                    while let Some(next) = rest.next() {
                        if next == '\\' && rest.next_if_eq(&'E').is_some() {
                            break;
                        }
                        text.push(next);
                    }
                    out.push_str(&regex::escape(&text));
                }
                Some(class @ ('p' | 'P' | 'x')) => {
                    out.push('\\');
                    out.push(class);
                    if rest.peek() == Some(&'{') {
                        for next in rest.by_ref() {
                            out.push(next);
                            if next == '}' {
                                break;
                            }
                        }
                    }
                }
                // Go takes any punctuation behind a backslash for itself, and so does this engine, but for a few that are not ASCII marks.
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A bracket that comes first is one of the class.
                if rest.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            // Nested classes and set operations are this engine's own; `[:alpha:]` both know.
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                for next in rest.by_ref() {
                    out.push(next);
                    if next == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' if in_class => {
                out.push('\\');
                out.push(next);
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class && !is_repetition(&rest.clone().collect::<String>()) => out.push_str("\\{"),
            '}' if !in_class && !out_has_open_repetition(&out) => out.push_str("\\}"),
            other => out.push(other),
        }
    }
    out
}

/// Whether what follows a brace is a count: `3}`, `3,}` or `3,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else { return false };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

/// Whether a closing brace here ends a count.
fn out_has_open_repetition(out: &str) -> bool {
    out.rfind('{').is_some_and(|open| !out[open..].contains('}') && !out[..open].ends_with('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[^]]$", "]", false),
            (r"^{a}$", "{a}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^\p{Greek}+$", "αβ", true),
            (r"^[a[]$", "[", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^(a|b)*c?$", "ababc", true),
        ];
        for (pattern, text, matches) in cases {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} on {text}");
        }
        assert!(compile("(").is_err());
    }
}
