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
    for document in made.groups.values().chain([&made.v2_json]) {
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
