//! PodTemplate: the description of a pod, kept for others to make pods of.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{containers_cell, labels_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::pod::{default_pod_template, template_warnings, validate_pod_template};
use crate::kinds::declaration::{Column, Kind, Strategy};

/// `v1 PodTemplate`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Containers", "string", "Names of the containers of the template."),
            Column::new("Images", "string", "Images of the containers of the template."),
            Column::new("Pod Labels", "string", "The labels that its pods bear."),
        ],
        ..Kind::new(V1, "PodTemplate", "podtemplates", "io.k8s.api.core.v1.PodTemplate", PodTemplate)
    }
}

struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        default_pod_template(&mut object["template"]);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_pod_template(&object["template"], &Path::new("template"))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| object["metadata"]["generation"] == old["metadata"]["generation"]) {
            return Vec::new();
        }
        template_warnings(&object["template"], &Path::new("template"))
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        let template = &object["template"];
        vec![
            name_cell(object),
            containers_cell(template, "name"),
            containers_cell(template, "image"),
            labels_cell(&template["metadata"]["labels"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};
    use serde_json::json;

    #[test]
    fn a_template_is_that_of_a_pod() {
        let mut object = json!({"metadata": {"name": "t"}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }});
        PodTemplate.default(&mut object);
        assert_eq!(messages(&PodTemplate.validate_create(&object)), Vec::<String>::new());
        assert_eq!(PodTemplate.row(&object, NOW), ["t", "c", "i", "a=b"]);
        object["template"]["spec"]["containers"] = json!([]);
        assert_eq!(messages(&PodTemplate.validate_create(&object)), ["template.spec.containers: Required value"]);
    }
}
