//! Watch events in, work out.

use std::time::{Duration, Instant};

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use skep_client::slim::SlimPod;

use crate::core::tests::{node, unchanged, watched_pod};
use crate::driver::queue::Waits;
use crate::driver::state::{State, Work};

const SECOND: Duration = Duration::from_secs(1);

/// A state whose first lists had one node of one core and nothing else.
fn state(now: Instant) -> State {
    let waits = Waits { initial_backoff: SECOND, max_backoff: 10 * SECOND, max_unschedulable: 300 * SECOND };
    let mut state = State::new(waits, 0);
    state.apply_node(Event::Init, now);
    state.apply_node(Event::InitApply(node("node", "1", "4Gi", unchanged)), now);
    state.apply_node(Event::InitDone, now);
    state.apply_pod(Event::Init, now);
    state.apply_pod(Event::InitDone, now);
    state
}

fn wants(name: &str, cpu: &str) -> SlimPod {
    watched_pod(name, json!({"cpu": cpu}), unchanged)
}

fn on_node(name: &str, cpu: &str) -> SlimPod {
    watched_pod(name, json!({"cpu": cpu}), |pod| pod["spec"]["nodeName"] = json!("node"))
}

fn changed(name: &str, change: impl FnOnce(&mut Value)) -> SlimPod {
    watched_pod(name, json!({"cpu": "1"}), change)
}

/// What the next attempt leaves to write, in short.
fn next(state: &mut State, now: Instant) -> String {
    match state.next(now) {
        None => "nothing".to_owned(),
        Some(Work::Bind { pod, node, .. }) => format!("{} to {node}", pod.name),
        Some(Work::Unschedulable { pod, condition, .. }) => {
            format!("{} stays, {}", pod.name, if condition.is_some() { "told" } else { "known" })
        }
        Some(Work::Preempt { pod, node, victims, .. }) => {
            let victims: Vec<_> = victims.iter().map(|victim| &*victim.name).collect();
            format!("{} preempts {} on {node}", pod.name, victims.join(" "))
        }
    }
}

#[test]
fn nothing_is_placed_before_both_lists_are_complete() {
    let now = Instant::now();
    let waits = Waits { initial_backoff: SECOND, max_backoff: SECOND, max_unschedulable: SECOND };
    let mut state = State::new(waits, 0);
    state.apply_pod(Event::Init, now);
    state.apply_pod(Event::InitApply(wants("a", "1")), now);
    state.apply_pod(Event::InitDone, now);
    assert_eq!(next(&mut state, now), "nothing");
    state.apply_node(Event::Init, now);
    state.apply_node(Event::InitApply(node("node", "1", "4Gi", unchanged)), now);
    state.apply_node(Event::InitDone, now);
    assert_eq!(next(&mut state, now), "a to node");
}

#[test]
fn an_assumed_pod_takes_room_before_its_binding_is_seen() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "1")), now);
    state.apply_pod(Event::Apply(wants("b", "1")), now);
    assert_eq!(next(&mut state, now), "a to node");
    assert_eq!(next(&mut state, now), "b stays, told");
    assert_eq!(next(&mut state, now), "nothing");
}

#[test]
fn an_older_state_of_a_bound_pod_does_not_undo_its_placement() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "1")), now);
    assert_eq!(next(&mut state, now), "a to node");
    state.apply_pod(Event::Apply(wants("a", "1")), now);
    assert_eq!(next(&mut state, now), "nothing");
    state.apply_pod(Event::Apply(wants("b", "1")), now);
    assert_eq!(next(&mut state, now), "b stays, told");
}

#[test]
fn a_failed_binding_gives_the_room_back_and_is_tried_again_after_its_backoff() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "1")), now);
    assert_eq!(next(&mut state, now), "a to node");
    state.bind_failed("a", now);
    assert_eq!(next(&mut state, now), "nothing");
    state.advance(now + SECOND);
    assert_eq!(next(&mut state, now + SECOND), "a to node");
}

#[test]
fn a_failed_binding_of_a_pod_that_the_watch_has_bound_changes_nothing() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "1")), now);
    assert_eq!(next(&mut state, now), "a to node");
    state.apply_pod(Event::Apply(on_node("a", "1")), now);
    state.bind_failed("a", now);
    state.apply_pod(Event::Apply(wants("b", "1")), now);
    assert_eq!(next(&mut state, now), "b stays, told");
}

#[test]
fn a_pod_that_ends_makes_room_for_one_that_waits() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(on_node("old", "1")), now);
    state.apply_pod(Event::Apply(wants("new", "1")), now);
    assert_eq!(next(&mut state, now), "new stays, told");
    let ended = changed("old", |pod| {
        pod["spec"]["nodeName"] = json!("node");
        pod["status"] = json!({"phase": "Succeeded"});
    });
    state.apply_pod(Event::Apply(ended), now + SECOND);
    assert_eq!(next(&mut state, now + SECOND), "new to node");
}

#[test]
fn the_same_reason_is_told_once() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "2")), now);
    assert_eq!(next(&mut state, now), "a stays, told");
    state.advance(now + 300 * SECOND);
    assert_eq!(next(&mut state, now + 300 * SECOND), "a stays, known");
    state.telling_failed("a");
    state.advance(now + 600 * SECOND);
    assert_eq!(next(&mut state, now + 600 * SECOND), "a stays, told");
}

#[test]
fn a_new_node_wakes_what_waits() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(wants("a", "2")), now);
    assert_eq!(next(&mut state, now), "a stays, told");
    state.apply_node(Event::Apply(node("large", "8", "4Gi", unchanged)), now + SECOND);
    assert_eq!(next(&mut state, now + SECOND), "a to large");
}

#[test]
fn a_relist_forgets_pods_and_nodes_that_are_gone() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(on_node("old", "1")), now);
    state.apply_pod(Event::Apply(wants("gone", "1")), now);
    state.apply_pod(Event::Init, now);
    state.apply_pod(Event::InitApply(wants("new", "1")), now);
    state.apply_pod(Event::InitDone, now);
    assert_eq!(next(&mut state, now), "new to node");
    assert_eq!(next(&mut state, now), "nothing");
    state.apply_node(Event::Init, now);
    state.apply_node(Event::InitDone, now);
    state.apply_pod(Event::Apply(wants("late", "1")), now);
    assert_eq!(next(&mut state, now), "late stays, told");
}

#[test]
fn pods_of_other_schedulers_gated_and_terminating_pods_are_left_alone() {
    let now = Instant::now();
    let mut state = state(now);
    let others = [
        changed("other", |pod| pod["spec"]["schedulerName"] = json!("mine")),
        changed("gated", |pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}])),
        changed("going", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
    ];
    for pod in others {
        state.apply_pod(Event::Apply(pod), now);
    }
    assert_eq!(next(&mut state, now), "nothing");
}

fn important(name: &str, priority: i32, nominated: Option<&str>) -> SlimPod {
    changed(name, |pod| {
        pod["spec"]["priority"] = json!(priority);
        pod["status"]["nominatedNodeName"] = json!(nominated);
    })
}

#[test]
fn room_that_a_pod_made_is_kept_for_it_and_for_nobody_below() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(on_node("load", "1")), now);
    state.apply_pod(Event::Apply(important("first", 5, None)), now);
    assert_eq!(next(&mut state, now), "first preempts load on node");
    // It waits for the one that goes, whatever else happens meanwhile.
    state.apply_pod(Event::Apply(important("first", 5, Some("node"))), now);
    state.apply_node(Event::Apply(node("node", "1", "5Gi", unchanged)), now + SECOND);
    state.advance(now + 2 * SECOND);
    assert_eq!(next(&mut state, now + 2 * SECOND), "first stays, told");
    // The room is not for one that is less important, though that one tries first.
    let later = now + 10 * SECOND;
    state.apply_pod(Event::Delete(on_node("load", "1")), later);
    state.apply_pod(Event::Apply(wants("small", "1")), later);
    let first = [next(&mut state, later), next(&mut state, later)];
    assert!(
        first.contains(&"first to node".to_owned()) && first.contains(&"small stays, told".to_owned()),
        "{first:?}"
    );
}

#[test]
fn a_more_important_pod_takes_room_that_was_kept() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(important("first", 5, Some("node"))), now);
    state.apply_pod(Event::Apply(important("higher", 9, None)), now);
    assert_eq!(next(&mut state, now), "higher to node");
    assert_eq!(next(&mut state, now), "first stays, told");
}

#[test]
fn a_preemption_that_failed_is_tried_again() {
    let now = Instant::now();
    let mut state = state(now);
    state.apply_pod(Event::Apply(on_node("load", "1")), now);
    state.apply_pod(Event::Apply(important("first", 5, None)), now);
    let Some(Work::Preempt { victims, .. }) = state.next(now) else { panic!("no preemption") };
    state.preemption_failed("first", &victims, now);
    state.advance(now + SECOND);
    assert_eq!(next(&mut state, now + SECOND), "first preempts load on node");
}
