//! The name of a manager that names itself only by its User-Agent.

/// The longest name, in bytes.
const LONGEST: usize = 128;

/// The manager of a write (upstream's `managerOrUserAgent`): the name given, or the printable characters of the user agent before its first slash.
#[must_use]
pub fn manager_of(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let mut out = String::new();
    for character in user_agent.split('/').next().unwrap_or_default().chars() {
        if character.is_control() || (character.is_whitespace() && character != ' ') {
            continue;
        }
        if out.len() + character.len_utf8() > LONGEST {
            break;
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_names_a_manager_up_to_its_first_slash() {
        assert_eq!(manager_of("", "kubectl/v1.32.0 (linux/amd64)"), "kubectl");
        assert_eq!(manager_of("mine", "kubectl/v1.32.0"), "mine");
        assert_eq!(manager_of("", "a\u{7}b c/1"), "ab c");
        assert_eq!(manager_of("", &"é".repeat(100)).len(), 128);
        assert_eq!(manager_of("", ""), "");
    }
}
