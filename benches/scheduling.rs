//! Placing one pod on clusters of 500 and 5 000 nodes that are half full, every feasible node scored: `cargo bench -p skep-benches --bench scheduling`.
//!
//! The rival's figure is of its whole path (upstream's `scheduler_perf` SchedulingBasic); this is the decision alone.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use skep_client::slim::{SlimNode, SlimPod};
use skep_scheduler::core::{Decision, Pod, Snapshot, schedule};

/// A pod's name among the results, and how it differs from a plain one.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// Pods that are on each node before the measured ones come.
const PODS_A_NODE: usize = 15;

fn node(number: usize) -> SlimNode {
    let name = format!("node-{number}");
    let taints = if number.is_multiple_of(10) {
        json!([{"key": "dedicated", "value": "batch", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    let object = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
        }},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "100Gi"}},
    });
    serde_json::from_value(object).expect("a node")
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "main", "resources": {"requests": {"cpu": "1", "memory": "500Mi"}}}],
        },
    });
    change(&mut object);
    let pod: SlimPod = serde_json::from_value(object).expect("a pod");
    Pod::of(&pod)
}

fn cluster(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for number in 0..nodes {
        snapshot.set_node(&node(number));
    }
    for number in 0..nodes {
        for slot in 0..PODS_A_NODE {
            snapshot.place(&pod(&format!("old-{number}-{slot}"), |_| {}), &format!("node-{number}"));
        }
    }
    snapshot
}

fn placements(criterion: &mut Criterion) {
    let affinity = |object: &mut Value| {
        object["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-0", "zone-1"]},
            ]}],
        }}});
    };
    let impossible = |object: &mut Value| {
        object["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "64"});
    };
    let cases: [Case<'_>; 3] = [("basic", &|_| {}), ("node affinity", &affinity), ("unschedulable", &impossible)];
    for nodes in [500, 5_000] {
        let mut snapshot = cluster(nodes);
        let mut group = criterion.benchmark_group("placing a pod");
        group.throughput(Throughput::Elements(1));
        for (name, change) in cases {
            let pod = pod("new", change);
            group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
                let mut seed = 0;
                bencher.iter(|| {
                    seed += 1;
                    // What a scheduler does with the answer is part of the cost: the columns change with each placement.
                    if let Decision::Node(node) = schedule(&snapshot, &pod, seed) {
                        snapshot.place(&pod, &node);
                        snapshot.remove_pod("new");
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, placements);
criterion_main!(benches);
