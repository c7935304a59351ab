//! Watches.

use super::*;
use crate::Error;

/// Creation, update, delete, and creation again.
pub async fn a_watch_sees_every_change_once_in_order_with_the_value_before(subject: &mut impl Subject) {
    let store = subject.store();
    let mut events = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    commit(&store, [put("a", "1"), put("b", "1")]).await;
    commit(&store, [put("a", "2"), delete("b")]).await;
    let last = commit(&store, [put("b", "2")]).await;
    let seen = until(&mut events, last).await.expect("the watch goes on");
    let expected = ["1: a=1", "2: b=1", "3: a=2 (was 1 of 1)", "4: b gone (was 1 of 2)", "5: b=2"];
    assert_eq!(told(&seen), expected);
}

/// And goes on with what comes.
pub async fn a_watch_from_the_past_begins_with_what_it_missed(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("a", "1")]).await;
    let from = commit(&store, [put("a", "2")]).await;
    commit(&store, [put("a", "3")]).await;
    let mut events = store.watch(Range::all(), from).await.expect("the watch starts");
    let last = commit(&store, [delete("a")]).await;
    let seen = until(&mut events, last).await.expect("the watch goes on");
    assert_eq!(told(&seen), ["3: a=3 (was 2 of 2)", "4: a gone (was 3 of 3)"]);
}

/// Start is in, end is not.
pub async fn a_watch_sees_only_its_range(subject: &mut impl Subject) {
    let store = subject.store();
    commit(&store, [put("b/0", "x"), put("a", "x")]).await;
    let mut events = store.watch(Range::prefix("b/"), Revision(0)).await.expect("the watch starts");
    let last = commit(&store, [put("b", "x"), put("b/", "x"), put("b0", "x"), put("b/1", "x"), put("c", "x")]).await;
    let seen = until(&mut events, Revision(last.0 + 4)).await.expect("the watch goes on");
    assert_eq!(told(&seen), ["1: b/0=x", "4: b/=x", "6: b/1=x"]);
}

/// Nothing at or before it.
pub async fn a_watch_from_a_future_revision_begins_after_it(subject: &mut impl Subject) {
    let store = subject.store();
    let mut events = store.watch(Range::all(), Revision(2)).await.expect("the watch starts");
    for n in 1..=4 {
        commit(&store, [put("a", &n.to_string())]).await;
    }
    let seen = until(&mut events, Revision(4)).await.expect("the watch goes on");
    assert_eq!(told(&seen), ["3: a=3 (was 2 of 2)", "4: a=4 (was 3 of 3)"]);
}

/// The progress mark comes without changes.
pub async fn a_quiet_watch_hears_how_far_the_store_is(subject: &mut impl Subject) {
    let store = subject.store();
    let mut events = store.watch(Range::prefix("quiet/"), Revision(0)).await.expect("the watch starts");
    let last = commit(&store, [put("a", "1"), put("b", "1")]).await;
    let seen = until(&mut events, Revision(last.0 + 1)).await.expect("the watch goes on");
    assert_eq!(seen, []);
}

/// [`Error::Compacted`] says from where a watch is possible.
pub async fn a_watch_from_before_the_compaction_is_refused(subject: &mut impl Subject) {
    let store = subject.store();
    for n in 1..=4 {
        commit(&store, [put("a", &n.to_string())]).await;
    }
    store.compact(Revision(3)).await.expect("compaction succeeds");
    let refused = store.watch(Range::all(), Revision(2)).await.err();
    assert!(matches!(refused, Some(Error::Compacted { oldest: Revision(3) })), "{refused:?}");
    let mut events = store.watch(Range::all(), Revision(3)).await.expect("the watch starts");
    let seen = until(&mut events, Revision(4)).await.expect("the watch goes on");
    assert_eq!(told(&seen), ["4: a=4 (was 3 of 3)"]);
}

/// [`Events::next`] is cancel-safe.
pub async fn a_cancelled_wait_loses_no_change(subject: &mut impl Subject) {
    let store = subject.store();
    let mut events = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    let mut seen = Vec::new();
    let mut last = Revision(0);
    for n in 0..200 {
        let committed = commit(&store, [put("a", &n.to_string())]);
        tokio::select! {
            biased;
            next = events.next() => seen.extend(next.expect("the watch goes on").0),
            revision = committed => last = revision,
        }
    }
    let current = store.current(&Range::all()).await.expect("the store is there");
    let last = commit(&store, [put("end", "x")]).await.max(last).max(current);
    seen.extend(until(&mut events, last).await.expect("the watch goes on"));
    let revisions: Vec<_> = seen.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>());
    assert!(revisions.len() as u64 >= last.0);
}

/// Each has its own place.
pub async fn watches_of_one_range_do_not_take_from_each_other(subject: &mut impl Subject) {
    let store = subject.store();
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(store.watch(Range::prefix("a"), Revision(0)).await.expect("the watch starts"));
    }
    drop(watches.swap_remove(0));
    let last = commit(&store, [put("a", "1")]).await;
    for events in &mut watches {
        assert_eq!(told(&until(events, last).await.expect("the watch goes on")), ["1: a=1"]);
    }
}
