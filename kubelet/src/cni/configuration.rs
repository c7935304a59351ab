//! Network configurations: a folder's first file by name, and what a plugin is given of it.
//!
//! Invariant: a file that can't be read is an error, never skipped: a broken first file must not move pods to another
//! network. Behaviour: CNI specification 1.1, sections 1 and 3; which files count, as libcni's `ConfFiles`.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The folder has none, or is not there.
    #[error("no network config found in {0}")]
    None(PathBuf),
    /// A folder or file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a configuration.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A list of plugins that together make a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The list as read, a single plugin's file put into a list.
    pub list: Value,
}

impl Network {
    /// Reads the first configuration of a folder: `.conflist`, `.conf` and `.json` files, by name.
    ///
    /// # Errors
    /// When there is none, or the first is invalid.
    pub fn first_of(folder: &Path) -> Result<Self, ConfigurationError> {
        let none = || ConfigurationError::None(folder.to_owned());
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ConfigurationError::Io { path, source }
        };
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none()),
            other => other.map_err(io(folder))?,
        };
        let files: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut files = files.map_err(io(folder))?;
        let kinds = ["conflist", "conf", "json"];
        files.retain(|file| file.extension().is_some_and(|is| kinds.iter().any(|kind| is == *kind)));
        files.sort();
        let path = files.first().ok_or_else(none)?;
        let text = std::fs::read_to_string(path).map_err(io(path))?;
        let value = serde_json::from_str(&text).map_err(|error| error.to_string());
        let list = path.extension().is_some_and(|is| is == "conflist");
        let network = value.and_then(|value| if list { Self::from_list(value) } else { Self::from_single(value) });
        network.map_err(|problem| ConfigurationError::Invalid { path: path.clone(), problem })
    }

    /// Takes a list, as of a `.conflist` file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_list(list: Value) -> Result<Self, String> {
        if list["name"].as_str().is_none_or(str::is_empty) {
            return Err("error parsing configuration list: no name".to_owned());
        }
        let plugins = list["plugins"].as_array().ok_or("error parsing configuration list: no 'plugins' key")?;
        if plugins.is_empty() {
            return Err("error parsing configuration list: no plugins in list".to_owned());
        }
        let plain = |kind: &str| !kind.is_empty() && !kind.contains('/');
        match plugins.iter().position(|plugin| !plugin["type"].as_str().is_some_and(plain)) {
            Some(index) => Err(format!("error parsing configuration list: plugin {index} has no valid 'type'")),
            None => Ok(Self { list }),
        }
    }

    /// Takes one plugin's configuration, as of a `.conf` file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_single(plugin: Value) -> Result<Self, String> {
        let name = plugin["name"].clone();
        let version = plugin["cniVersion"].clone();
        Self::from_list(serde_json::json!({"name": name, "cniVersion": version, "plugins": [plugin]}))
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        self.list["name"].as_str().unwrap_or_default()
    }

    /// The specification's version as major, minor; 0.2 for a list that names none, as libcni has it.
    pub fn version(&self) -> (u64, u64) {
        let text = self.list["cniVersion"].as_str().unwrap_or_default();
        let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) => (major, minor),
            (_, _) => (0, 2),
        }
    }

    /// The plugins' binaries by name, in the list's order.
    pub fn plugins(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> {
        let plugins = self.list["plugins"].as_array().into_iter().flatten();
        plugins.map(|plugin| (plugin["type"].as_str().unwrap_or_default(), plugin))
    }

    /// Whether a plugin of the network declares a capability.
    pub fn has_capability(&self, name: &str) -> bool {
        self.plugins().any(|(_, plugin)| declares(plugin, name))
    }

    /// What a plugin reads on its input: its part with the network's name and version, the result so far, and of
    /// `capabilities` what it declares to understand (specification, "Deriving `runtimeConfig`").
    pub fn request(&self, plugin: &Value, capabilities: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut request = plugin.as_object().cloned().unwrap_or_default();
        request.insert("name".to_owned(), self.list["name"].clone());
        if let Some(version) = self.list["cniVersion"].as_str() {
            request.insert("cniVersion".to_owned(), version.into());
        }
        if let Some(previous) = previous.filter(|previous| !previous.is_null()) {
            request.insert("prevResult".to_owned(), previous.clone());
        }
        let config: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| declares(plugin, name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !config.is_empty() {
            request.insert("runtimeConfig".to_owned(), Value::Object(config));
        }
        Value::Object(request)
    }
}

fn declares(plugin: &Value, capability: &str) -> bool {
    plugin["capabilities"][capability].as_bool().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_first_file_by_name_is_the_network() {
        let list = r#"{"name": "second", "plugins": [{"type": "p"}]}"#;
        let single = r#"{"name": "first", "cniVersion": "1.0.0", "type": "p"}"#;
        let folder = folder(&[("20-a.conflist", list), ("10-b.conf", single), ("00-note.txt", "")]);
        let network = Network::first_of(folder.path()).unwrap();
        assert_eq!((network.name(), network.version()), ("first", (1, 0)));
    }

    #[test]
    fn a_broken_first_file_is_not_passed_over() {
        let folder = folder(&[("1.conflist", "{"), ("2.conf", r#"{"name": "n", "type": "p"}"#)]);
        let error = Network::first_of(folder.path()).unwrap_err();
        assert!(error.to_string().contains("1.conflist"), "{error}");
    }

    #[test]
    fn a_missing_folder_is_no_network() {
        let error = Network::first_of(Path::new("/nonexistent/net.d")).unwrap_err();
        assert_eq!(error.to_string(), "no network config found in /nonexistent/net.d");
    }

    #[test]
    fn a_plugin_type_is_no_path() {
        let list = json!({"name": "n", "plugins": [{"type": "../evil"}]});
        assert!(Network::from_list(list).unwrap_err().contains("plugin 0"));
    }

    #[test]
    fn a_plugin_is_given_the_capabilities_that_it_declares() {
        let plugin = json!({"type": "p", "capabilities": {"portMappings": true, "bandwidth": false}});
        let network = Network::from_list(json!({"name": "n", "cniVersion": "1.1.0", "plugins": [plugin]})).unwrap();
        let capabilities = json!({"portMappings": [1], "bandwidth": 2, "dns": 3});
        let request = network.request(&plugin, capabilities.as_object().unwrap(), Some(&json!({"ips": []})));
        assert_eq!(request["runtimeConfig"], json!({"portMappings": [1]}));
        assert_eq!((&request["name"], &request["prevResult"]), (&json!("n"), &json!({"ips": []})));
    }
}
