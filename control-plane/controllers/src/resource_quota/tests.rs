//! The status of a quota, by table.

use serde_json::{Value, json};
use skep_api::quantity::Quantity;

use super::*;

fn quota(hard: &Value, status: &Value) -> ResourceQuota {
    let quota = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": hard}, "status": status});
    serde_json::from_value(quota).expect("a quota")
}

fn usage(amounts: &[(&str, &str)]) -> Usage {
    let amount = |text: &str| text.parse::<Quantity>().expect("a quantity");
    amounts.iter().map(|(name, text)| ((*name).to_owned(), amount(text))).collect()
}

#[test]
fn the_status_is_what_is_limited_and_what_is_used_of_it() {
    let table = [
        (json!({}), &[("pods", "0")][..], json!({"pods": "0"})),
        (json!({"hard": {"pods": "5"}, "used": {"pods": "3"}}), &[("pods", "2")], json!({"pods": "2"})),
        (json!({"hard": {"pods": "4"}, "used": {"pods": "2"}}), &[("pods", "2")], json!({"pods": "2"})),
        // What is not limited any more is not told; what could not be counted stays.
        (json!({"hard": {"pods": "5"}, "used": {"pods": "3", "secrets": "1"}}), &[], json!({"pods": "3"})),
    ];
    for (old, counted, used) in table {
        let status = reconcile::status(&quota(&json!({"pods": "5"}), &old), &usage(counted)).expect("a new status");
        assert_eq!(
            serde_json::to_value(status).expect("a tree"),
            json!({"hard": {"pods": "5"}, "used": used}),
            "{old}"
        );
    }
}

#[test]
fn a_status_that_says_the_same_in_other_words_is_left() {
    let hard = json!({"memory": "1Gi", "storage": "1"});
    let status = json!({"hard": {"memory": "1024Mi", "storage": "1"}, "used": {"memory": "0.5Gi"}});
    assert_eq!(reconcile::status(&quota(&hard, &status), &usage(&[("memory", "512Mi")])), None);
}

#[test]
fn only_quotas_that_count_a_kind_are_counted_anew_when_one_of_it_is_gone() {
    let quotas = Informer::<ResourceQuota>::default();
    let jobs = json!({"count/jobs.batch": "1"});
    quotas.apply(kube::runtime::watcher::Event::Apply(quota(&jobs, &Value::Null)));
    let queue = Queue::new(crate::runtime::Metrics::default().queue("test"));
    let freed = Freed { quotas, queue: queue.clone() };
    freed.enqueue(&GroupResource::new("", "pods"), Some("n"));
    freed.enqueue(&GroupResource::new("batch", "jobs"), Some("other"));
    assert!(queue.is_empty());
    freed.enqueue(&GroupResource::new("batch", "jobs"), Some("n"));
    assert_eq!(queue.len(), 1);
}
