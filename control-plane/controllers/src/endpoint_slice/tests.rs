use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;
use skep_client::slim::SlimPod;

use super::reconcile::{Action, reconcile};

fn service(early: bool) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"team": "bees"}},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "publishNotReadyAddresses": early,
                 "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    }))
    .expect("a Service")
}

fn pod(number: u16, port: u16, ready: bool, ending: bool) -> Arc<SlimPod> {
    let ending = ending.then_some("2026-01-01T00:00:00Z");
    let pod = json!({
        "metadata": {"name": format!("web-{number}"), "namespace": "n", "uid": format!("u{number}"), "deletionTimestamp": ending},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.{}.{}", number / 250, number % 250 + 1)}],
                   "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn step(service: &Service, pods: &[Arc<SlimPod>], slices: &mut Vec<Arc<EndpointSlice>>, serial: &mut u32) -> usize {
    let zones = HashMap::from([("n1".to_owned(), "z1".to_owned())]);
    let actions = reconcile(service, pods, &zones, slices);
    let count = actions.len();
    for action in actions {
        match action {
            Action::Create(mut slice) => {
                *serial += 1;
                slice.metadata.name = Some(format!("web-{serial}"));
                slices.push(Arc::new(slice));
            }
            Action::Update(slice) => {
                slices.retain(|own| own.metadata.name != slice.metadata.name);
                slices.push(Arc::new(slice));
            }
            Action::Delete(slice) => slices.retain(|own| own.metadata.name != slice.metadata.name),
        }
    }
    count
}

#[test]
fn an_endpoint_says_whether_it_is_ready_serving_and_terminating() {
    for (early, ready, ending, wanted) in [
        (false, true, false, [true, true, false]),
        (false, false, false, [false, false, false]),
        (false, true, true, [false, true, true]),
        (true, false, true, [true, false, true]),
    ] {
        let mut slices = Vec::new();
        step(&service(early), &[pod(1, 8080, ready, ending)], &mut slices, &mut 0);
        let endpoint = &slices[0].endpoints.as_ref().expect("endpoints")[0];
        let conditions = endpoint.conditions.clone().expect("conditions");
        let is = [conditions.ready, conditions.serving, conditions.terminating].map(|value| value.expect("a value"));
        assert_eq!(is, wanted, "{early} {ready} {ending}");
        assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("z1")));
        assert_eq!(slices[0].ports.as_ref().expect("ports")[0].port, Some(8080));
    }
}

#[test]
fn pods_that_name_another_port_number_are_in_a_slice_of_their_own() {
    let mut slices = Vec::new();
    step(&service(false), &[pod(1, 8080, true, false), pod(2, 8081, true, false)], &mut slices, &mut 0);
    assert_eq!(slices.len(), 2);
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let (mut slices, mut serial) = (Vec::new(), 0);
    step(&service(false), &[], &mut slices, &mut serial);
    assert_eq!(slices.len(), 1);
    assert_eq!(step(&service(false), &[], &mut slices, &mut serial), 0);
}

#[test]
fn one_pod_that_changes_changes_one_slice() {
    let mut pods: Vec<_> = (0..250).map(|number| pod(number, 8080, true, false)).collect();
    let (mut slices, mut serial) = (Vec::new(), 0);
    assert_eq!(step(&service(false), &pods, &mut slices, &mut serial), 3);
    pods[7] = pod(7, 8080, false, false);
    assert_eq!(step(&service(false), &pods, &mut slices, &mut serial), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn from_any_state_each_pod_gets_one_place_and_a_second_pass_does_nothing(
        rounds in prop::collection::vec(prop::collection::btree_map(0u16..240, (any::<bool>(), any::<bool>()), 0..230), 1..4),
    ) {
        let (mut slices, mut serial) = (Vec::new(), 0);
        for round in rounds {
            let pods: Vec<_> = round
                .iter()
                .map(|(number, (ready, other))| pod(*number, if *other { 8080 } else { 8081 }, *ready, false))
                .collect();
            step(&service(false), &pods, &mut slices, &mut serial);
            let places: Vec<_> =
                slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).map(|one| &one.addresses[0]).collect();
            prop_assert_eq!(places.len(), pods.len());
            prop_assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), pods.len());
            prop_assert!(slices.iter().all(|slice| slice.endpoints.as_ref().is_none_or(|own| own.len() <= 100)));
            prop_assert_eq!(step(&service(false), &pods, &mut slices, &mut serial), 0);
        }
    }
}
