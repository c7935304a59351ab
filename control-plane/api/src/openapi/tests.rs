use super::*;

fn made() -> OpenApi {
    OpenApi::new(&crate::kinds::builtin())
}

fn parsed(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap()
}

#[test]
fn kubectl_finds_field_validation_on_the_patch_of_each_kind() {
    let apps = parsed(made().v3(&GroupVersion::new("apps", "v1")).unwrap());
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == "fieldValidation"));
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                map.values().for_each(|value| check(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    let made = made();
    for document in made.groups.values().map(|group| &group.document).chain([&made.v2_json]) {
        let document = parsed(document);
        check(&document, &document);
    }
}

#[test]
fn the_index_names_documents_by_their_hash() {
    let made = made();
    let index = parsed(made.v3_index());
    let document = made.v3(&GroupVersion::new("", "v1")).unwrap();
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], format!("/openapi/v3/api/v1?hash={}", document.etag));
}

#[test]
fn operations_are_named_as_upstream_names_them() {
    let made = made();
    let id = |group: &'static str, path: &str, method: &str| {
        parsed(made.v3(&GroupVersion::new(group, "v1")).unwrap())["paths"][path][method]["operationId"].clone()
    };
    assert_eq!(id("", "/api/v1/namespaces/{namespace}/pods", "get"), "listCoreV1NamespacedPod");
    assert_eq!(
        id("rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/v1/clusterroles", "delete"),
        "deleteRbacAuthorizationV1CollectionClusterRole"
    );
    assert_eq!(
        id("apps", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale", "put"),
        "replaceAppsV1NamespacedDeploymentScale"
    );
}

#[test]
fn quantities_may_be_text_or_numbers() {
    let core = parsed(made().v3(&GroupVersion::new("", "v1")).unwrap());
    let quantity = &core["components"]["schemas"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["oneOf"], json!([{ "type": "string" }, { "type": "number" }]));
}

#[test]
fn a_scale_is_named_by_its_own_group() {
    let apps = parsed(made().v3(&GroupVersion::new("apps", "v1")).unwrap());
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    let gvk = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
    assert_eq!(scale["x-kubernetes-group-version-kind"], gvk);
    let definition = &apps["components"]["schemas"]["io.k8s.api.autoscaling.v1.Scale"];
    assert_eq!(definition["x-kubernetes-group-version-kind"], json!([gvk]));
}
