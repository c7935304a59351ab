//! What holds whatever happens: the columns equal a rebuild, nothing is over-committed, no port goes to two pods.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use skep_client::slim::SlimNode;

use super::{node, pod};
use crate::core::{Decision, Pod, Snapshot, schedule};

/// A change of the cluster.
#[derive(Clone, Debug)]
enum Step {
    SetNode(Box<SlimNode>),
    RemoveNode(u8),
    Place(Pod, u8),
    Schedule(Pod),
    RemovePod(u8),
}

fn name(prefix: &str, number: u8) -> String {
    format!("{prefix}{number}")
}

fn any_node() -> impl Strategy<Value = SlimNode> {
    (0u8..4, 0u32..4, 0u32..4, 0u32..5, 0u8..3, any::<bool>()).prop_map(|(number, cpu, gpus, pods, taint, cordoned)| {
        node(&name("n", number), &cpu.to_string(), "4Gi", |value| {
            value["status"]["allocatable"]["example.com/gpu"] = json!(gpus.to_string());
            value["status"]["allocatable"]["pods"] = json!(pods.to_string());
            value["spec"]["unschedulable"] = json!(cordoned);
            value["metadata"]["labels"]["taint"] = json!(taint.to_string());
            if taint > 0 {
                value["spec"]["taints"] = json!([{"key": name("t", taint), "effect": "NoSchedule"}]);
            }
        })
    })
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (0u8..12, 0u32..1500, 0u32..3, 0u16..3, 0i32..2, any::<bool>()).prop_map(
        |(number, milli, gpus, port, priority, tolerant)| {
            let mut requests = json!({"cpu": format!("{milli}m"), "memory": "512Mi"});
            if gpus > 0 {
                requests["example.com/gpu"] = json!(gpus.to_string());
            }
            pod(&name("p", number), requests, |value| {
                value["spec"]["priority"] = json!(priority);
                if port > 0 {
                    let ports = json!([{"containerPort": 80, "hostPort": port}]);
                    value["spec"]["containers"][0]["ports"] = ports;
                }
                if tolerant {
                    value["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
                }
            })
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any_node().prop_map(|node| Step::SetNode(Box::new(node))),
        (0u8..4).prop_map(Step::RemoveNode),
        (any_pod(), 0u8..4).prop_map(|(pod, node)| Step::Place(pod, node)),
        any_pod().prop_map(Step::Schedule),
        (0u8..12).prop_map(Step::RemovePod),
    ]
}

/// The cluster as plain maps: what the columns must amount to.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, SlimNode>,
    pods: BTreeMap<String, (Pod, String)>,
}

impl Model {
    fn apply(&mut self, snapshot: &mut Snapshot, step: Step, seed: u64) {
        match step {
            Step::SetNode(node) => {
                snapshot.set_node(&node);
                self.nodes.insert(node.metadata.name.clone().expect("a name"), *node);
            }
            Step::RemoveNode(number) => {
                snapshot.remove_node(&name("n", number));
                self.nodes.remove(&name("n", number));
            }
            Step::Place(pod, node) => self.place(snapshot, pod, name("n", node)),
            Step::Schedule(pod) => {
                if snapshot.placement(&pod.uid).is_none()
                    && let Decision::Node(node) = schedule(snapshot, &pod, seed)
                {
                    self.place(snapshot, pod, node.to_string());
                }
            }
            Step::RemovePod(number) => {
                snapshot.remove_pod(&name("p", number));
                self.pods.remove(&name("p", number));
            }
        }
    }

    fn place(&mut self, snapshot: &mut Snapshot, pod: Pod, node: String) {
        snapshot.place(&pod, &node);
        self.pods.insert(pod.uid.to_string(), (pod, node));
    }

    fn rebuild(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for node in self.nodes.values() {
            snapshot.set_node(node);
        }
        for (pod, node) in self.pods.values() {
            snapshot.place(pod, node);
        }
        snapshot
    }
}

proptest! {
    #[test]
    fn the_columns_equal_a_rebuild(steps in proptest::collection::vec(any_step(), 0..60)) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        for (seed, step) in (0u64..).zip(steps) {
            model.apply(&mut snapshot, step, seed);
            prop_assert_eq!(snapshot.describe(), model.rebuild().describe());
            prop_assert_eq!(snapshot.node_count(), model.nodes.len());
        }
    }

    #[test]
    fn no_node_is_over_committed_and_no_port_goes_to_two_pods(
        nodes in proptest::collection::vec(any_node(), 1..5),
        pods in proptest::collection::vec(any_pod(), 0..40),
        seed in any::<u64>(),
    ) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        for node in nodes {
            model.apply(&mut snapshot, Step::SetNode(Box::new(node)), seed);
        }
        for pod in pods {
            model.apply(&mut snapshot, Step::Schedule(pod), seed);
        }
        for (name, node) in &model.nodes {
            let here: Vec<&Pod> =
                model.pods.values().filter(|(_, on)| on == name).map(|(pod, _)| pod).collect();
            for (resource, capacity) in &node.status.allocatable {
                let capacity = super::super::resources::amount(resource, capacity);
                let taken: i64 = match resource.as_str() {
                    "pods" => i64::try_from(here.len()).expect("few pods"),
                    resource => here.iter().map(|pod| pod.requests.amount(resource)).sum(),
                };
                prop_assert!(taken <= capacity, "{} of {} {} on {}", taken, capacity, resource, name);
            }
            let ports: Vec<_> = here.iter().flat_map(|pod| &pod.host_ports).collect();
            for (at, port) in ports.iter().enumerate() {
                prop_assert!(ports[..at].iter().all(|other| !other.conflicts(port)));
            }
        }
    }

    #[test]
    fn the_same_inputs_and_seed_give_the_same_decision(
        steps in proptest::collection::vec(any_step(), 0..30),
        wanted in any_pod(),
        seed in any::<u64>(),
    ) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        for step in steps {
            model.apply(&mut snapshot, step, seed);
        }
        prop_assert_eq!(schedule(&snapshot, &wanted, seed), schedule(&snapshot.clone(), &wanted, seed));
    }
}
