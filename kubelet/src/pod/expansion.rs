//! `$(VAR)` expansion in commands, arguments and environment values (upstream: `third_party/forked/golang/expansion`).
//!
//! Invariant: any text is accepted; what is not a reference to a known variable stays as it is written.

/// Expands `$(NAME)` by `lookup`; `$$` is one dollar sign, and an unknown or unclosed reference stays as written.
pub fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            tail
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            tail
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_expanded_as_upstream_does() {
        let lookup = |name: &str| match name {
            "A" => Some("x"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        };
        for (input, wanted) in [
            ("$(A)", "x"),
            ("a-$(A)-$(A)", "a-x-x"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(EMPTY)|", "|"),
            ("$(REF)", "$(A)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("end$", "end$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(input, lookup), wanted, "{input}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_left_alone(input in "[^$]*") {
            prop_assert_eq!(expand(&input, |_| Some("never")), input);
        }
    }
}
