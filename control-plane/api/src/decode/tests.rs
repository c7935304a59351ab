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
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
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
    assert_eq!(
        message,
        "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    );
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

#[test]
fn an_empty_object_is_no_list_and_no_text() {
    for (body, why) in [
        (
            json!({"rules": {}}),
            "json: cannot unmarshal object into Go struct field ClusterRole.rules of type []v1.PolicyRule",
        ),
        (
            json!({"rules": [{"verbs": {}}]}),
            "json: cannot unmarshal object into Go struct field PolicyRule.rules.verbs of type []string",
        ),
        (
            json!({"metadata": {"labels": {"a": {}}}}),
            "json: cannot unmarshal object into Go struct field ObjectMeta.metadata.labels of type string",
        ),
    ] {
        let message = strict("ClusterRole", &body).unwrap_err().message;
        assert_eq!(message, format!("ClusterRole in version \"v1\" cannot be handled as a ClusterRole: {why}"));
    }
}

#[test]
fn a_body_is_told_apart_by_its_header_first() {
    let cases: [(&str, &str); 6] = [
        (
            "",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "{}x",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'x' after top-level value ({}x)",
        ),
        (
            "{\"kind\":1}",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\":1})",
        ),
        (
            "{\"apiVersion\":\"a/b/c\"}",
            "the object provided is unrecognized (must be of type ConfigMap): unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\"})",
        ),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}",
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        (
            "{\"kind\":\"Nope\",\"data\":1}",
            "Nope in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nope\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ];
    for (body, message) in cases {
        let error = decode(body.as_bytes(), Media::Json, &kind("ConfigMap"), FieldValidation::Ignore).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, message));
    }
}

#[test]
fn a_field_of_an_embedded_struct_is_called_by_it_too() {
    let cases = [
        (
            json!({"volumes": [{"hostPath": 1}]}),
            "number into Go struct field Volume.spec.volumes.VolumeSource.hostPath of type v1.HostPathVolumeSource",
        ),
        (
            json!({"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}),
            "bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": 1}}}]}]}),
            "number into Go struct field SecretKeySelector.spec.containers.env.valueFrom.secretKeyRef.LocalObjectReference.name of type string",
        ),
    ];
    for (spec, why) in cases {
        let message = strict("Pod", &json!({"spec": spec})).unwrap_err().message;
        assert_eq!(message, format!("Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal {why}"));
    }
}

#[test]
fn times_have_exactly_gos_form() {
    let event = |time: &str| strict("Pod", &json!({"metadata": {"deletionTimestamp": time}}));
    assert_eq!(
        event("2026-01-02T03:04:05.5Z").unwrap().object["metadata"]["deletionTimestamp"],
        "2026-01-02T03:04:05Z"
    );
    for (time, rest, part) in [
        ("2026-01-02", "", "T"),
        ("2026-01-02 03:04:05Z", " 03:04:05Z", "T"),
        ("x", "x", "2006"),
        ("2026-01-02T03:04:05", "", "Z07:00"),
    ] {
        let message = event(time).unwrap_err().message;
        let why = format!("parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {part:?}");
        assert!(message.ends_with(&why), "{message}");
    }
}

#[test]
fn yaml_keys_that_stand_twice_are_named_by_line() {
    let yaml = b"metadata:\n  name: a\n  name: b\nfoo: 1\n";
    let message = decode(yaml, Media::Yaml, &kind("ConfigMap"), FieldValidation::Strict).unwrap_err().message;
    assert_eq!(
        message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 3: key \"name\" already set in map, unknown field \"foo\""
    );
}

#[test]
fn yaml_keys_become_text_and_whole_floats_numbers() {
    let yaml = b"data: {1: a, true: b}\nmetadata: {generation: 2.0}\n---\ndata: {c: d}\n";
    let read = decode(yaml, Media::Yaml, &kind("ConfigMap"), FieldValidation::Strict).unwrap().object;
    assert_eq!(read["data"], json!({"1": "a", "true": "b"}));
    assert_eq!(read["metadata"]["generation"], 2);
}

#[test]
fn yaml_aliases_do_not_blow_up() {
    let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        yaml.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert_eq!(decode(yaml.as_bytes(), Media::Yaml, &kind("ConfigMap"), FieldValidation::Warn).unwrap_err().code, 400);
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
