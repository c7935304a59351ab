//! Names made from `metadata.generateName`: upstream's `SimpleNameGenerator` (k8s.io/apiserver/pkg/storage/names).

/// Letters and digits that form no words and are not mistaken for one another (k8s.io/apimachinery/pkg/util/rand).
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters in a random suffix.
pub const SUFFIX_LENGTH: usize = 5;
/// Bytes of the prefix that are kept, so that a generated name is a DNS label.
pub const GENERATED_PREFIX_MAX_LENGTH: usize = 63 - SUFFIX_LENGTH;

/// The prefix, cut to 58 bytes, with five random characters behind it. `random` is any uniformly distributed number.
#[must_use]
pub fn generate_name(prefix: &str, random: u64) -> String {
    let mut end = prefix.len().min(GENERATED_PREFIX_MAX_LENGTH);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], name_suffix(random))
}

/// Five characters of the alphabet from a uniformly distributed number.
#[must_use]
pub fn name_suffix(mut random: u64) -> String {
    let base = SUFFIX_ALPHABET.len() as u64;
    let mut suffix = String::with_capacity(SUFFIX_LENGTH);
    for _ in 0..SUFFIX_LENGTH {
        suffix.push(char::from(SUFFIX_ALPHABET[(random % base) as usize]));
        random /= base;
    }
    suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_fits_into_a_label() {
        assert_eq!(generate_name("web-", 0), "web-bbbbb");
        assert_eq!(generate_name("web-", 1), "web-cbbbb");
        assert_eq!(generate_name(&"a".repeat(70), u64::MAX).len(), 63);
        assert!(generate_name(&"é".repeat(40), 7).len() <= 63, "a character is never cut in two");
    }
}
