//! Where pods wait, and when their turn comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::{Plugin, PluginSet, Pod};
use crate::driver::queue::{Gate, Queue, Waits};

const SECOND: Duration = Duration::from_secs(1);
const ROOM: PluginSet = PluginSet::of(Plugin::NodeResourcesFit);

fn queue() -> Queue {
    Queue::new(Waits { initial_backoff: SECOND, max_backoff: 10 * SECOND, max_unschedulable: 300 * SECOND })
}

fn pod(uid: &str, priority: i32) -> Arc<Pod> {
    Arc::new(Pod { uid: uid.into(), priority, ..Pod::default() })
}

fn popped(queue: &mut Queue) -> Option<String> {
    queue.pop().map(|pod| pod.uid.to_string())
}

#[test]
fn higher_priority_goes_first_and_then_who_came_first() {
    let (mut queue, now) = (queue(), Instant::now());
    for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
        queue.offer(pod(uid, priority), Gate::Open, now);
    }
    let order: Vec<String> = std::iter::from_fn(|| popped(&mut queue)).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
}

#[test]
fn a_gated_pod_waits_until_its_gates_open() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.offer(pod("a", 0), Gate::Closed, now);
    assert!(!queue.has_active());
    queue.wake(PluginSet::all(), now);
    assert!(!queue.has_active());
    queue.offer(pod("a", 0), Gate::Open, now);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn only_a_change_that_helps_wakes_an_unschedulable_pod_and_not_before_its_backoff() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.offer(pod("a", 0), Gate::Open, now);
    popped(&mut queue);
    queue.park("a", ROOM, now);
    queue.wake(PluginSet::of(Plugin::TaintToleration), now + 2 * SECOND);
    assert!(!queue.has_active());
    queue.wake(ROOM, now);
    assert!(!queue.has_active());
    assert_eq!(queue.next_timer(), Some(now + SECOND));
    queue.advance(now + SECOND);
    assert_eq!(popped(&mut queue).as_deref(), Some("a"));
}

#[test]
fn the_backoff_doubles_up_to_its_maximum() {
    let (mut queue, mut now) = (queue(), Instant::now());
    queue.offer(pod("a", 0), Gate::Open, now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
        queue.retry("a", now);
        let next = queue.next_timer().expect("a timer");
        waits.push((next - now).as_secs());
        now = next;
        queue.advance(now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn an_unschedulable_pod_is_tried_again_after_five_minutes() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.offer(pod("a", 0), Gate::Open, now);
    popped(&mut queue);
    queue.park("a", ROOM, now);
    assert_eq!(queue.next_timer(), Some(now + 300 * SECOND));
    queue.advance(now + 299 * SECOND);
    assert!(!queue.has_active());
    queue.advance(now + 300 * SECOND);
    assert!(queue.has_active());
}

#[test]
fn a_removed_pod_leaves_nothing_behind() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.offer(pod("a", 0), Gate::Open, now);
    queue.offer(pod("b", 0), Gate::Open, now);
    popped(&mut queue);
    queue.park("a", ROOM, now);
    queue.remove("a");
    queue.remove("b");
    assert!(!queue.has_active() && queue.next_timer().is_none() && queue.uids().next().is_none());
}
