use super::*;
use proptest::prelude::*;
use serde_json::json;

fn kind(name: &str) -> Kind {
    crate::kinds::builtin().into_iter().find(|kind| kind.kind == name).expect("a built-in kind")
}

fn strict(name: &str, body: &Value) -> Result<Decoded, Status> {
    decode(body.to_string().as_bytes(), Media::Json, &kind(name), FieldValidation::Strict)
}

#[test]
fn types_are_filled_in_and_nulls_dropped() {
    let read = strict("ConfigMap", &json!({"metadata": {"name": "a", "labels": null}, "data": {"k": null}})).unwrap();
    assert_eq!(
        read.object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": ""}})
    );
}

#[test]
fn unknown_fields_are_named_by_path() {
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"foo": 1, "template": {"spec": {"containers": [{"imagee": "x"}]}}}});
    let error = strict("Deployment", &body).unwrap_err();
    assert_eq!(error.code, 400);
    assert_eq!(
        error.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].imagee\""
    );
    let warned = decode(body.to_string().as_bytes(), Media::Json, &kind("Deployment"), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings[0], "unknown field \"spec.foo\"");
    assert!(warned.object["spec"]["foo"].is_null());
}

#[test]
fn duplicate_fields_are_noticed() {
    let body = br#"{"metadata":{"name":"a"},"data":{"k":"1","k":"2"}}"#;
    let error = decode(body, Media::Json, &kind("ConfigMap"), FieldValidation::Strict).unwrap_err();
    assert!(error.message.ends_with("strict decoding error: duplicate field \"data.k\""), "{}", error.message);
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let cases = [
        (
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 3_000_000_000_u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": "x"}),
            "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string",
        ),
    ];
    for (body, expected) in cases {
        let message = strict("Deployment", &body).unwrap_err().message;
        assert_eq!(message, format!("Deployment in version \"v1\" cannot be handled as a Deployment: {expected}"));
    }
}

#[test]
fn another_kind_or_version_is_refused() {
    let message = strict("ConfigMap", &json!({"apiVersion": "v2", "kind": "ConfigMap"})).unwrap_err().message;
    assert_eq!(message, "the API version in the data (v2) does not match the expected API version (v1)");
    let message = strict("ConfigMap", &json!({"apiVersion": "v1", "kind": "Secret"})).unwrap_err().message;
    assert!(message.starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap"), "{message}");
}

#[test]
fn truncated_text_is_unrecognized() {
    let error = decode(b"{\"metadata\": {", Media::Json, &kind("ConfigMap"), FieldValidation::Warn).unwrap_err();
    assert_eq!(error.code, 400);
    assert!(
        error.message.starts_with("the object provided is unrecognized (must be of type ConfigMap)"),
        "{}",
        error.message
    );
    assert_eq!(decode(b"a: [", Media::Yaml, &kind("ConfigMap"), FieldValidation::Warn).unwrap_err().code, 400);
}

#[test]
fn quantities_and_times_are_made_canonical() {
    let pod = json!({
        "metadata": {"name": "a", "creationTimestamp": "2026-11-24T09:00:00+01:00"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": 0.5, "memory": "1024Ki"}}}]},
    });
    let read = strict("Pod", &pod).unwrap().object;
    assert_eq!(read["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Mi"}));
    assert_eq!(read["metadata"]["creationTimestamp"], "2026-11-24T08:00:00Z");
}

#[test]
fn yaml_is_read_as_json_is() {
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let read = decode(yaml, Media::Yaml, &kind("ConfigMap"), FieldValidation::Strict).unwrap();
    assert_eq!(read.object["data"], json!({"k": "v"}));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.Kim]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                prop::sample::select(vec![
                    "metadata",
                    "spec",
                    "status",
                    "containers",
                    "name",
                    "labels",
                    "resources",
                    "requests",
                    "ports",
                    "x"
                ]),
                inner,
                0..5
            )
            .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(body in any_json()) {
        let _ = decode(body.to_string().as_bytes(), Media::Json, &kind("Pod"), FieldValidation::Warn);
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&body, Media::Json, &kind("Pod"), FieldValidation::Strict);
        let _ = decode(&body, Media::Yaml, &kind("Pod"), FieldValidation::Strict);
    }

    #[test]
    fn what_was_read_reads_again_the_same(body in any_json()) {
        if let Ok(first) = decode(body.to_string().as_bytes(), Media::Json, &kind("Pod"), FieldValidation::Ignore) {
            let again = decode(first.object.to_string().as_bytes(), Media::Json, &kind("Pod"), FieldValidation::Strict).unwrap();
            prop_assert_eq!(first.object, again.object);
        }
    }
}
