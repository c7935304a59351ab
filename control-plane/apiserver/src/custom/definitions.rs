//! The definitions as the watch cache has them, read once, and which of them are to be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

/// All definitions by name. As many as there are in the store; what is due is a set of their names.
#[derive(Default)]
pub(crate) struct Definitions(Mutex<State>);

#[derive(Default)]
struct State {
    all: BTreeMap<String, Arc<Value>>,
    due: BTreeSet<String>,
}

impl Definitions {
    /// Notes a definition that has changed, or gone. Those of its group that wait for a name are due as well.
    pub(super) fn set(&self, name: &str, definition: Option<Arc<Value>>) {
        let mut state = self.0.lock();
        let group = name.split_once('.').map_or("", |(_, group)| group);
        let waits = |definition: &Value| {
            definition["spec"]["group"] == group && definition["status"]["acceptedNames"] != definition["spec"]["names"]
        };
        let waiting: Vec<String> =
            state.all.iter().filter(|(_, definition)| waits(definition)).map(|(name, _)| name.clone()).collect();
        state.due.extend(waiting);
        match definition {
            Some(definition) => {
                state.all.insert(name.to_owned(), definition);
                state.due.insert(name.to_owned());
            }
            None => {
                state.all.remove(name);
                state.due.remove(name);
            }
        }
    }

    /// The names of those that are due; they are not any more.
    pub(super) fn take_due(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().due)
    }

    /// A definition.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Value>> {
        self.0.lock().all.get(name).cloned()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Value>> {
        self.0.lock().all.values().cloned().collect()
    }
}
