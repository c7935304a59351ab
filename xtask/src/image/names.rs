//! The names and tags that the suite asks for, read of its own list: `test/utils/image/manifest.go`. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Images by upstream's identifiers, such as `Agnhost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    names: BTreeMap<String, String>,
}

impl Names {
    /// Reads the list. Two forms of line count: `GcRegistry: "registry.k8s.io",` and
    /// `configs[Pause] = Config{list.GcRegistry, "pause", "3.10.2"}`.
    pub(crate) fn parse(source: &str) -> Self {
        let mut registries = BTreeMap::new();
        let mut names = BTreeMap::new();
        for line in source.lines().map(str::trim) {
            if let Some((id, rest)) = line.strip_prefix("configs[").and_then(|rest| rest.split_once("] = Config{list."))
            {
                let mut fields = rest.trim_end_matches('}').split(", ").map(|field| field.trim_matches('"'));
                if let (Some(registry), Some(name), Some(tag)) = (fields.next(), fields.next(), fields.next())
                    && let Some(registry) = registries.get(registry)
                {
                    names.insert(id.to_owned(), format!("{registry}/{name}:{tag}"));
                }
            } else if let Some((field, value)) = line.split_once(':')
                && field.ends_with("Registry")
                && let Some(value) = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix("\","))
            {
                registries.insert(field.to_owned(), value.to_owned());
            }
        }
        Self { names }
    }

    /// An image's whole name.
    ///
    /// # Errors
    /// When the list has no such identifier.
    pub(crate) fn of(&self, id: &str) -> Result<&str> {
        self.names.get(id).map(String::as_str).with_context(|| format!("the suite's list of images has no {id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
type RegistryList struct {
	GcRegistry string `yaml:"gcRegistry"`
}
	initRegistry = RegistryList{
		PromoterE2eRegistry:      "registry.k8s.io/e2e-test-images",
		GcRegistry:               "registry.k8s.io",
	}
	configs[Agnhost] = Config{list.PromoterE2eRegistry, "agnhost", "2.66.1"}
	// A comment.
	configs[Pause] = Config{list.GcRegistry, "pause", "3.10.2"}
	configs[i] = config
"#;

    #[test]
    fn a_name_is_its_registrys_and_its_tag() {
        let names = Names::parse(LIST);
        assert_eq!(names.of("Agnhost").expect("a name"), "registry.k8s.io/e2e-test-images/agnhost:2.66.1");
        assert_eq!(names.of("Pause").expect("a name"), "registry.k8s.io/pause:3.10.2");
    }

    #[test]
    fn an_identifier_that_is_not_listed_is_named() {
        let error = Names::parse(LIST).of("Perl").expect_err("not there");
        assert!(error.to_string().contains("Perl"));
    }
}
