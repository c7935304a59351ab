//! Files of variables that an earlier container wrote (`fileKeyRef`, KEP-3721).
//!
//! Invariant: any text is accepted or refused with its line; nothing in it is expanded. Upstream:
//! `pkg/kubelet/util/env.ParseEnv`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

/// Texts by the volume's name and the path in it; an error is why there is no text.
pub type EnvFiles = BTreeMap<(String, String), Result<String, String>>;

/// The files that a container refers to, as keys of [`EnvFiles`].
pub fn references(container: &Container) -> Vec<(String, String)> {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let references = sources.filter_map(|source| source.file_key_ref.as_ref());
    references.map(|reference| (reference.volume_name.clone(), reference.path.clone())).collect()
}

/// The value of `key` in a file of lines `NAME='value'`; none if it isn't in it or is empty.
///
/// # Errors
/// When what comes before it is not in that form.
pub fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let invalid = |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        let Some((name, rest)) = line.split_once('=') else { return invalid("missing '='") };
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return invalid("empty variable name");
        }
        if name.ends_with([' ', '\t']) {
            return invalid("whitespace before '=' is not allowed");
        }
        if rest.starts_with([' ', '\t']) {
            // As in a shell: the value is empty.
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = rest.strip_prefix('\'') else {
            return invalid("value must be enclosed in single quotes");
        };
        let mut value = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                value.push_str(last);
                break after.trim_start_matches([' ', '\t']);
            }
            value.push_str(rest);
            value.push('\n');
            let Some((_, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {number}: unclosed single quote"
                ));
            };
            rest = next;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return invalid("unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_they_are_quoted() {
        let text = "# comment\n\n  A='1'\nB='two\nlines' # why\nC= 'x'\nD='$HOME \\n'\n";
        for (key, wanted) in
            [("A", Some("1")), ("B", Some("two\nlines")), ("C", None), ("D", Some("$HOME \\n")), ("E", None)]
        {
            assert_eq!(value(text, key), Ok(wanted.map(str::to_owned)), "{key}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_their_line() {
        for (text, wanted) in [
            ("A", "at line 1: missing '='"),
            ("\nA ='1'", "at line 2: whitespace before '=' is not allowed"),
            ("='1'", "at line 1: empty variable name"),
            ("A=1", "at line 1: value must be enclosed in single quotes"),
            ("A='1'x", "at line 1: unexpected content after closing quote"),
            ("A='1\n2", "starting at line 1: unclosed single quote"),
        ] {
            let refused = value(text, "Z").unwrap_err();
            assert!(refused.ends_with(wanted), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn any_value_without_a_quote_reads_back(wanted in "[^'\r]{1,40}") {
            prop_assert_eq!(value(&format!("X='y'\nA='{wanted}'\n"), "A"), Ok(Some(wanted)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[A-C='# \t\n]{0,60}") {
            let _ = value(&text, "A");
        }
    }
}
