//! ComponentStatus: how the control plane's parts are. Nobody writes it, and nothing is stored; the kind has been deprecated since 1.19.

use serde_json::Value;

use crate::kinds::cells::name_cell;
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Verb};
use crate::kinds::names;
use crate::kinds::tree::{items, text};

/// `v1 ComponentStatus`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["cs"]),
        scope: Scope::Cluster,
        verbs: vec![Verb::Get, Verb::List],
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "Whether it is healthy."),
            Column::new("Message", "string", "What it says."),
            Column::new("Error", "string", "What went wrong."),
        ],
        ..Kind::new(V1, "ComponentStatus", "componentstatuses", "io.k8s.api.core.v1.ComponentStatus", ComponentStatus)
    }
}

struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        let healthy = items(&object["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
        let status = match healthy.map(|condition| condition["status"] == "True") {
            None => "Unknown",
            Some(true) => "Healthy",
            Some(false) => "Unhealthy",
        };
        let say = |field: &str| healthy.map_or("", |condition| text(&condition[field])).into();
        vec![name_cell(object), status.into(), say("message"), say("error")]
    }

    fn warnings(&self, _: &Value, _: Option<&Value>) -> Vec<String> {
        vec!["v1 ComponentStatus is deprecated in v1.19+".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::NOW;
    use serde_json::json;

    #[test]
    fn a_row_tells_whether_it_is_healthy() {
        let object = json!({"metadata": {"name": "etcd-0"}, "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]});
        assert_eq!(ComponentStatus.row(&object, NOW), ["etcd-0", "Healthy", "ok", ""]);
    }
}
