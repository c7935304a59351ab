//! Who makes room for whom.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{node, pod, snapshot, text, unchanged};
use crate::core::{Decision, Pod, Room, Snapshot, decide, schedule};

fn running(name: &str, cpu: &str, priority: i32, started: &str) -> Pod {
    pod(name, json!({"cpu": cpu}), |pod| {
        pod["spec"]["priority"] = json!(priority);
        pod["status"] = json!({"startTime": started});
    })
}

fn important(cpu: &str, change: impl FnOnce(&mut Value)) -> Pod {
    pod("important", json!({"cpu": cpu}), |pod| {
        pod["spec"]["priority"] = json!(100);
        change(pod);
    })
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

/// `node: victims`, or the text of a refusal.
fn preempted(snapshot: &Snapshot, pod: &Pod) -> String {
    match schedule(snapshot, pod, 0) {
        Decision::Preempt(_, preemption) => {
            let victims: Vec<_> = preemption.victims.iter().map(|victim| &*victim.name).collect();
            format!("{}: {}", preemption.node, victims.join(" "))
        }
        other => text(&other),
    }
}

#[test]
fn only_as_many_go_as_must_and_the_least_important_ones() {
    let mut snapshot = snapshot(&[node("a", "4", "1Gi", unchanged)]);
    for (name, priority, started) in [("old", 5, EARLY), ("new", 5, LATE), ("low", 1, EARLY), ("equal", 100, EARLY)] {
        snapshot.place(&running(name, "1", priority, started), "a");
    }
    assert_eq!(preempted(&snapshot, &important("1", unchanged)), "a: low");
    assert_eq!(preempted(&snapshot, &important("2", unchanged)), "a: new low");
    assert_eq!(preempted(&snapshot, &important("3", unchanged)), "a: old new low");
    assert_eq!(
        preempted(&snapshot, &important("4", unchanged)),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu."
    );
}

#[test]
fn the_node_is_taken_whose_victims_matter_least() {
    let mut snapshot = snapshot(&["a", "b", "c", "d"].map(|name| node(name, "2", "1Gi", unchanged)));
    snapshot.place(&running("a1", "2", 9, EARLY), "a");
    snapshot.place(&running("b1", "1", 5, EARLY), "b");
    snapshot.place(&running("b2", "1", 5, EARLY), "b");
    snapshot.place(&running("c1", "2", 5, EARLY), "c");
    snapshot.place(&running("d1", "2", 5, LATE), "d");
    assert_eq!(preempted(&snapshot, &important("2", unchanged)), "d: d1");
    snapshot.remove_node("d");
    assert_eq!(preempted(&snapshot, &important("2", unchanged)), "c: c1");
    snapshot.remove_node("c");
    assert_eq!(preempted(&snapshot, &important("2", unchanged)), "b: b1 b2");
}

#[test]
fn a_host_port_is_a_reason_to_preempt() {
    let port = |pod: &mut Value| pod["spec"]["containers"][0]["ports"] = json!([{"hostPort": 80, "containerPort": 80}]);
    let mut snapshot = snapshot(&[node("a", "4", "1Gi", unchanged)]);
    snapshot.place(&pod("taker", json!({}), port), "a");
    snapshot.place(&running("other", "1", 0, EARLY), "a");
    assert_eq!(preempted(&snapshot, &important("1", port)), "a: taker");
}

#[test]
fn a_pod_waits_for_those_it_preempted() {
    let mut snapshot = snapshot(&[node("a", "1", "1Gi", unchanged), node("b", "1", "1Gi", unchanged)]);
    snapshot.place(&running("one", "1", 0, EARLY), "a");
    snapshot.place(&running("two", "1", 0, EARLY), "b");
    assert!(!snapshot.makes_room("a", 100));
    snapshot.set_terminating("one", true);
    assert!(snapshot.makes_room("a", 100) && !snapshot.makes_room("b", 100) && !snapshot.makes_room("a", 0));
    assert_eq!(
        text(&decide(&snapshot, &important("1", unchanged), 0, Room::BeingMade)),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."
    );
}

proptest! {
    #[test]
    fn without_its_victims_the_pod_fits_and_with_any_of_them_it_does_not(
        loads in prop::collection::vec((0_i32..4, 1_i64..4, 0_usize..3), 0..14),
        wanted in 1_i64..9,
    ) {
        let mut snapshot = snapshot(&["a", "b", "c"].map(|name| node(name, "8", "1Gi", unchanged)));
        for (number, (priority, cpu, place)) in loads.iter().enumerate() {
            let pod = running(&format!("p{number}"), &cpu.to_string(), *priority, EARLY);
            snapshot.place(&pod, ["a", "b", "c"][*place]);
        }
        let pod = pod("pod", json!({"cpu": wanted.to_string()}), |pod| pod["spec"]["priority"] = json!(2));
        if let Decision::Preempt(_, preemption) = schedule(&snapshot, &pod, 0) {
            let mut without = snapshot.clone();
            for victim in &preemption.victims {
                without.remove_pod(&victim.uid);
            }
            prop_assert_eq!(text(&schedule(&without, &pod, 0)), preemption.node.to_string());
            for kept in &preemption.victims {
                let mut with_one = snapshot.clone();
                for victim in preemption.victims.iter().filter(|victim| *victim != kept) {
                    with_one.remove_pod(&victim.uid);
                }
                prop_assert!(!matches!(schedule(&with_one, &pod, 0), Decision::Node(_)));
            }
        }
    }
}
