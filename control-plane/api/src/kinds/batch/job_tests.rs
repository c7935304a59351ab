//! Tables of a Job's rules.

use super::*;
use crate::kinds::testing::{NOW, messages, mutated};

const CONTEXT: WriteContext<'static> = WriteContext { now: "2026-11-24T09:00:00Z", user: "ann" };

fn base() -> Value {
    let mut object = json!({
        "metadata": {"name": "a", "uid": "u"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}},
    });
    Job.default(&mut object);
    Job.prepare_create(&mut object, &CONTEXT);
    object
}

#[test]
fn a_job_selects_the_pods_that_bear_its_uid() {
    let object = base();
    assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(
        object["spec"]["template"]["metadata"]["labels"],
        json!({
            "job-name": "a", "batch.kubernetes.io/job-name": "a",
            "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u",
        })
    );
    assert_eq!((object["spec"]["completions"].clone(), object["spec"]["backoffLimit"].clone()), (json!(1), json!(6)));
}

#[test]
fn mistakes_are_named() {
    for (mutation, expected) in [
        (json!({}), vec![]),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}),
            vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        (
            json!({"spec": {"completionMode": "Indexed", "completions": null}}),
            vec!["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            json!({"spec": {"backoffLimitPerIndex": 1}}),
            vec!["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            json!({"spec": {"podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": [
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 0, 2]}},
            ]}}}),
            vec![
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
            ],
        ),
        (
            json!({"spec": {"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [
                {"succeededIndexes": "0-1", "succeededCount": 3},
            ]}}}),
            vec![
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
            ],
        ),
        (
            json!({"spec": {"managedBy": "me"}}),
            vec!["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        ),
    ] {
        assert_eq!(messages(&Job.validate_create(&mutated(&base(), &mutation))), expected, "{mutation}");
    }
}

#[test]
fn a_running_job_keeps_its_template_and_a_suspended_one_its_containers() {
    let mut container = base()["spec"]["template"]["spec"]["containers"][0].clone();
    container["image"] = "j".into();
    let other_image = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let errors = Job.validate_update(&mutated(&base(), &other_image), &base());
    assert!(messages(&errors)[0].starts_with("spec.template: Invalid value"), "{errors:?}");
    let suspended = mutated(&base(), &json!({"spec": {"suspend": true}}));
    let moved = mutated(&suspended, &json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}));
    assert_eq!(messages(&Job.validate_update(&moved, &suspended)), Vec::<String>::new());
    assert_eq!(Job.validate_update(&mutated(&suspended, &other_image), &suspended).len(), 1);
}

#[test]
fn completions_of_an_indexed_job_move_with_its_parallelism() {
    let old = mutated(&base(), &json!({"spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2}}));
    let both = mutated(&old, &json!({"spec": {"completions": 3, "parallelism": 3}}));
    assert!(Job.validate_update(&both, &old).is_empty());
    let one = mutated(&old, &json!({"spec": {"completions": 3}}));
    assert_eq!(
        messages(&Job.validate_update(&one, &old)),
        ["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]
    );
}

#[test]
fn a_row_tells_how_far_it_is() {
    let object = mutated(
        &base(),
        &json!({"status": {
            "succeeded": 1, "startTime": "2026-11-24T08:00:00Z", "completionTime": "2026-11-24T08:00:05Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        }}),
    );
    assert_eq!(Job.row(&object, NOW)[..4], [json!("a"), json!("Complete"), json!("1/1"), json!("5s")]);
}
